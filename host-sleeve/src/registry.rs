//! Container registries: who must act when a pull fails, and the hint for it.
//!
//! Invariant: only error texts are decided here; the work is done by the crate `cloister-registry`.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use cloister_image::oci::{Architecture, OciFault, Reference};
pub(crate) use cloister_registry::{Access, Event, Pruned, Pulled};
use cloister_registry::{PruneFault, Pull, PullFault, RegistryFault};

use crate::error::{Error, Result, hint_for};

/// Pulls an image for `architecture` into the cache at `cache`, unless `stop` is set meanwhile.
pub(crate) fn pull(
    reference: &Reference,
    architecture: Architecture,
    cache: PathBuf,
    access: &Access,
    report: &(dyn Fn(Event) + Sync),
    stop: &AtomicBool,
) -> Result<Pulled> {
    let pulled = Pull::new(access, report, stop).run(reference, architecture, cache);
    pulled.map_err(|fault| pull_error(format!("cannot pull {reference}"), fault))
}

/// Removes all blobs from the cache that were not used for `unused`.
pub(crate) fn prune(cache: &Path, unused: Duration) -> Result<Pruned> {
    cloister_registry::prune(cache, unused, SystemTime::now()).map_err(|fault| prune_error(cache, fault))
}

fn pull_error(what: String, fault: PullFault) -> Error {
    match fault {
        PullFault::Registry(fault) => registry_error(what, &fault).because(fault),
        PullFault::Image(fault @ OciFault::Host { .. }) => Error::host(what).because(fault),
        PullFault::Image(fault @ (OciFault::Platform { .. } | OciFault::Ambiguous(_))) => {
            Error::operator(what)
                .because(fault)
                .hint("choose another image, or select one of them by its digest")
        }
        PullFault::Image(fault) => Error::author(what).because(fault),
    }
}

fn registry_error(what: String, fault: &RegistryFault) -> Error {
    use RegistryFault as Fault;
    match fault {
        Fault::Network { .. } | Fault::Broken { .. } => Error::host(what)
            .hint("check the network connection; a proxy is set with HTTPS_PROXY and NO_PROXY"),
        Fault::Missing { .. } => Error::operator(what).hint("check the spelling, the tag or the digest"),
        Fault::Denied { known: false, .. } => {
            Error::operator(what).hint("log in with `docker login` or `podman login`, or check the spelling")
        }
        Fault::Denied { known: true, .. } => {
            Error::operator(what).hint("log in again, or request permission to pull it")
        }
        Fault::TooMany { .. } => Error::host(what)
            .hint("wait, or log in with `docker login`: its limits are higher for authenticated users"),
        Fault::NoRoots => Error::host(what)
            .hint("apt install ca-certificates, or set SSL_CERT_FILE to a file of certificates"),
        Fault::File { .. } => {
            Error::operator(what).hint("correct that file, or recreate it with `docker login`")
        }
        Fault::Helper { helper, .. } => Error::operator(what).hint(format!(
            "run `docker-credential-{helper} get` by hand, with the registry's name on standard input"
        )),
        Fault::Stopped => Error::interrupted(what),
        Fault::Cache { .. } => {
            Error::host(what).hint("free disk space there, or point CLOISTER_CACHE to another disk")
        }
        Fault::Status { .. } if fault.is_passing() => {
            Error::host(what).hint("the registry reports a temporary problem: try again later")
        }
        Fault::Status { .. } | Fault::Protocol { .. } | Fault::Digest { .. } | Fault::TooLong { .. } => {
            Error::author(what).hint("contact the registry's operator")
        }
    }
}

fn prune_error(cache: &Path, fault: PruneFault) -> Error {
    let what = format!("cannot prune {}", cache.display());
    match fault {
        PruneFault::InUse { .. } => Error::operator(what)
            .because(std::io::Error::other("a build is using it"))
            .hint("wait until the build has finished"),
        PruneFault::Io { source, .. } => {
            let hint = hint_for(&source);
            let error = Error::host(what).because(source);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_for(fault: RegistryFault) -> Error {
        pull_error("cannot pull q.io/app:1".to_owned(), PullFault::Registry(fault))
    }

    fn hint(error: &Error) -> &str {
        error.details().hint.as_deref().unwrap_or_default()
    }

    #[test]
    fn each_failure_of_a_registry_states_who_must_act() {
        let registry = || "q.io".to_owned();
        let error = error_for(RegistryFault::Denied { registry: registry(), known: false });
        assert!(matches!(error, Error::Operator(_)) && hint(&error).contains("docker login"), "{error:?}");
        assert!(error.reasons().concat().contains("denied access to anonymous users"), "{error:?}");
        let status = |status| RegistryFault::Status {
            registry: registry(),
            status,
            message: String::new(),
            retry_after: None,
        };
        let error = error_for(status(500));
        assert!(matches!(error, Error::Host(_)) && hint(&error).contains("try again later"), "{error:?}");
        let error = error_for(status(400));
        assert!(
            matches!(error, Error::Author(_)) && hint(&error).contains("registry's operator"),
            "{error:?}"
        );
        let source = std::io::ErrorKind::UnexpectedEof.into();
        let error = error_for(RegistryFault::Broken { registry: registry(), source });
        assert!(matches!(error, Error::Host(_)) && hint(&error).contains("HTTPS_PROXY"), "{error:?}");
        assert_eq!(error_for(RegistryFault::Stopped).run_code(), 130);
    }

    #[test]
    fn a_cache_in_use_is_not_pruned_and_the_error_states_why() {
        let error = prune_error(Path::new("/cache"), PruneFault::InUse { root: "/cache".into() });
        assert_eq!(error.to_string(), "cannot prune /cache");
        assert!(error.reasons().concat().contains("a build is using it"));
    }
}
