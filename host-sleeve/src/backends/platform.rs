//! Whether an image runs on the platform of a backend's machines, and how a machine without hardware is shown.
//!
//! Invariant: an enclave that no hardware protects is never shown without saying so. The check only saves a boot: the
//! enclave checks the platform that it detects itself, whatever the host states (`supervisor/src/core/platform.rs`).

use cloister_manifest::Platform;

use crate::app::App;
use crate::error::{Error, Result};
use crate::state::Record;

use super::contract::Backend;
use super::list;

/// Refuses a launch of `app` on a machine that its manifest does not allow.
pub(crate) fn check_launch(app: &App, backend: &dyn Backend) -> Result<()> {
    if app.manifest.platforms.contains(&backend.platform()) {
        return Ok(());
    }
    let (name, platform) = (backend.name(), backend.platform());
    let hint = match list::running(app) {
        Some(other) => format!("use --backend {other}"),
        None => format!(
            "no backend of this host-sleeve does; to run it here, add {platform} to `platforms` in the manifest and build it again"
        ),
    };
    let allowed = Platform::list(&app.manifest.platforms);
    let what = format!(
        "the image does not run on {name}: its machines are of the platform {platform}, and the manifest allows only {allowed}"
    );
    Err(Error::operator(what).hint(hint))
}

/// What an enclave runs on, for a person: without hardware it begins with `VIRTUAL`. Empty if it has not been launched.
pub(crate) fn machine(record: &Record) -> String {
    let Some(machine) = &record.machine else { return String::new() };
    match list::platform(&record.backend) {
        Some(Platform::Virtual) => format!("VIRTUAL, {}", machine.kind),
        _ => machine.kind.clone(),
    }
}

#[cfg(test)]
mod tests {
    use cloister_manifest::model::{Control, Manifest, Root, VERSION};

    use super::super::options::Chosen;
    use super::*;
    use crate::app::Source;
    use crate::app::tests::write_image;

    /// An image that these platforms may run, in a directory that must outlive it.
    fn app(platforms: &[Platform]) -> (tempfile::TempDir, App) {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Artifact(write_image(&dir.path().join("app.cloister"), b"k", b"o", b"a"));
        let manifest = Manifest {
            version: VERSION,
            name: "app".to_owned(),
            platforms: platforms.to_vec(),
            services: Vec::new(),
            ingress: Vec::new(),
            root: Root::default(),
            control: Control { host: Vec::new(), services: Vec::new() },
            attestation: cloister_manifest::model::Attestation::default(),
            stop_timeout_ms: 1000,
            debug: false,
        };
        (dir, App { source, manifest, cmdline: String::new() })
    }

    fn refusal(platforms: &[Platform], backend: &str) -> String {
        let (_dir, app) = app(platforms);
        let backend = list::open(backend, &Chosen::default()).unwrap();
        check_launch(&app, &*backend).map_or_else(|error| crate::output::render(&error), |()| String::new())
    }

    #[test]
    fn a_backend_of_another_platform_is_refused_with_one_that_works() {
        let text = refusal(&[Platform::Tdx, Platform::Virtual], "qemu-nitro");
        assert!(text.contains("platform nitro, and the manifest allows only tdx and virtual"), "{text}");
        assert_eq!(text.trim_end().lines().last(), Some("hint: use --backend qemu"));
        assert_eq!(refusal(&[Platform::Nitro], "qemu-nitro"), "");
    }

    #[test]
    fn an_image_that_no_backend_runs_is_refused_with_the_platform_to_add() {
        let text = refusal(&[Platform::Snp], "qemu");
        assert!(text.contains("no backend") && text.contains("add virtual to `platforms`"), "{text}");
    }

    #[test]
    fn the_default_backend_is_one_that_the_manifest_allows() {
        for (platforms, backend) in [
            (Platform::ALL.as_slice(), "qemu"),
            (&[Platform::Nitro], "qemu-nitro"),
            (&[Platform::Tdx, Platform::Snp], "qemu"),
        ] {
            let (_dir, app) = app(platforms);
            assert_eq!(list::for_app(&app), backend, "{platforms:?}");
        }
    }
}
