//! Whether a machine can load an enclave image.
//!
//! Invariant: an image that no machine can load is refused by the build, with the limit of each; for one that some backends can
//! load and others cannot, the build prints a warning, and a launch on the others is refused before a machine is started.

use cloister_image::artifact::{Artifact, Part};
use cloister_image::eif::Kind;

use crate::app::{App, Source};
use crate::error::{Error, Result};
use crate::values::show_size;

use super::contract::Backend;
use super::{list, memory};

/// How to make an image smaller.
const SMALLER: &str = "make the application smaller: its whole root is in the ramdisk, compressed; a service can fetch data that \
                       is large or changes";

/// The maximum size of ramdisks that a machine loads.
#[derive(Clone, Copy, Debug)]
struct RamdiskLimit {
    /// The backend's name.
    backend: &'static str,
    /// Bytes of ramdisk.
    bytes: u64,
}

impl RamdiskLimit {
    fn of(backend: &dyn Backend, kernel: u64) -> Self {
        Self { backend: backend.name(), bytes: backend.max_ramdisk(kernel) }
    }
}

/// Refuses a launch of `app` on a machine that cannot load it.
pub(crate) fn check_launch(app: &App, backend: &dyn Backend) -> Result<()> {
    fits(ramdisks(&app.source), RamdiskLimit::of(backend, memory::of_kernel(&app.source)?))
}

fn fits(ramdisks: u64, limit: RamdiskLimit) -> Result<()> {
    if ramdisks <= limit.bytes {
        return Ok(());
    }
    Err(Error::operator(format!("the image is too large for {}: {}", limit.backend, needs(ramdisks, limit)))
        .hint(SMALLER))
}

/// Refuses an image that no backend can load, unless it is meant for hardware too. Returns warnings.
pub(crate) fn check_build(artifact: Artifact, for_hardware: bool) -> Result<Vec<String>> {
    let source = Source::Artifact(artifact);
    let kernel = memory::of_kernel(&source)?;
    let limits: Vec<RamdiskLimit> =
        list::all().iter().map(|backend| RamdiskLimit::of(&**backend, kernel)).collect();
    judge(ramdisks(&source), &limits, for_hardware)
}

fn judge(ramdisks: u64, limits: &[RamdiskLimit], for_hardware: bool) -> Result<Vec<String>> {
    let small: Vec<RamdiskLimit> = limits.iter().copied().filter(|limit| limit.bytes < ramdisks).collect();
    if !small.is_empty() && small.len() == limits.len() && !for_hardware {
        let list: Vec<String> = small.iter().map(|limit| needs(ramdisks, *limit)).collect();
        return Err(Error::author("the enclave image is too large for every machine")
            .because(std::io::Error::other(list.join("; ")))
            .hint(SMALLER));
    }
    let warning = |limit: &RamdiskLimit| {
        format!("warning: {} cannot run this image: {}", limit.backend, needs(ramdisks, *limit))
    };
    Ok(small.iter().map(warning).collect())
}

fn needs(ramdisks: u64, limit: RamdiskLimit) -> String {
    format!(
        "its ramdisks are {}, and {} loads at most {}",
        show_size(ramdisks),
        limit.backend,
        show_size(limit.bytes)
    )
}

/// The total size of the ramdisks in bytes.
fn ramdisks(source: &Source) -> u64 {
    match source {
        Source::Artifact(artifact) => {
            artifact.size(Part::OsRamdisk).saturating_add(artifact.size(Part::AppRamdisk))
        }
        Source::Eif(file) => {
            let sections = file.explanation.sections.iter().filter(|section| section.kind == Kind::Ramdisk);
            sections.map(|section| section.size).fold(0, u64::saturating_add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn limits() -> Vec<RamdiskLimit> {
        // A kernel that needs 48 MiB, which is what ours needs.
        list::all().iter().map(|backend| RamdiskLimit::of(&**backend, 48 << 20)).collect()
    }

    #[test]
    fn an_image_that_no_machine_loads_is_refused_with_the_limit_of_each() {
        let limits = limits();
        let error = judge(5 * GIB / 2, &limits, false).unwrap_err();
        let reasons = error.reasons().concat();
        for number in
            ["ramdisks are 2.5 GiB", "qemu loads at most 1.9 GiB", "qemu-nitro loads at most 1.9 GiB"]
        {
            assert!(reasons.contains(number), "{reasons}");
        }
        for limit in limits {
            let error = fits(5 * GIB / 2, limit).unwrap_err();
            assert!(error.to_string().contains("its ramdisks are 2.5 GiB"), "{error}");
            assert!(error.to_string().contains("loads at most 1.9 GiB"), "{error}");
        }
    }

    #[test]
    fn an_image_that_only_one_machine_loads_causes_a_warning_at_the_build_and_is_refused_on_the_others() {
        let (small, large) = (
            RamdiskLimit { backend: "small", bytes: GIB },
            RamdiskLimit { backend: "large", bytes: 3 * GIB },
        );
        let warnings = judge(2 * GIB, &[small, large], false).unwrap();
        assert_eq!(
            warnings,
            ["warning: small cannot run this image: its ramdisks are 2 GiB, and small loads at most 1 GiB"]
        );
        assert!(fits(2 * GIB, small).is_err() && fits(2 * GIB, large).is_ok());
    }

    #[test]
    fn an_image_for_hardware_that_is_too_large_for_the_backends_causes_a_warning_at_the_build() {
        let warnings = judge(5 * GIB / 2, &limits(), true).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.concat().contains("qemu cannot run this image"), "{warnings:?}");
    }

    #[test]
    fn an_image_that_every_machine_loads_causes_neither_a_refusal_nor_a_warning() {
        assert!(judge(GIB, &limits(), false).unwrap().is_empty());
        assert!(limits().into_iter().all(|limit| fits(GIB, limit).is_ok()));
    }
}
