//! Container registries: who must act when a pull fails, and the hint for it.
//!
//! Invariant: only error texts are decided here; the work is done by the crate `cloister-registry`.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use cloister_image::oci::{Architecture, OciError, Reference};
pub(crate) use cloister_registry::{Access, Event, Pruned, Pulled};
use cloister_registry::{PruneError, Pull, PullError, RegistryError};

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
    pulled.map_err(|error| pull_error(format!("cannot pull {reference}"), error))
}

/// Removes all blobs from the cache that were not used for `unused`.
pub(crate) fn prune(cache: &Path, unused: Duration) -> Result<Pruned> {
    cloister_registry::prune(cache, unused, SystemTime::now()).map_err(|error| prune_error(cache, error))
}

fn pull_error(what: String, error: PullError) -> Error {
    match error {
        PullError::Registry(error) => registry_error(what, &error).because(error),
        PullError::Image(error @ OciError::Host { .. }) => Error::host(what).because(error),
        PullError::Image(error @ (OciError::Platform { .. } | OciError::Ambiguous(_))) => {
            Error::operator(what)
                .because(error)
                .hint("choose another image, or select one of them by its digest")
        }
        PullError::Image(error) => Error::author(what).because(error),
    }
}

fn registry_error(what: String, error: &RegistryError) -> Error {
    use RegistryError as Reason;
    match error {
        Reason::Network { .. } | Reason::Broken { .. } => Error::host(what)
            .hint("check the network connection; a proxy is set with HTTPS_PROXY and NO_PROXY"),
        Reason::Missing { .. } => Error::operator(what).hint("check the spelling, the tag or the digest"),
        Reason::Denied { known: false, .. } => {
            Error::operator(what).hint("log in with `docker login` or `podman login`, or check the spelling")
        }
        Reason::Denied { known: true, .. } => {
            Error::operator(what).hint("log in again, or request permission to pull it")
        }
        Reason::TooMany { .. } => Error::host(what)
            .hint("wait, or log in with `docker login`: its limits are higher for authenticated users"),
        Reason::NoRoots => Error::host(what)
            .hint("apt install ca-certificates, or set SSL_CERT_FILE to a file of certificates"),
        Reason::File { .. } => {
            Error::operator(what).hint("correct that file, or recreate it with `docker login`")
        }
        Reason::Helper { helper, .. } => Error::operator(what).hint(format!(
            "run `docker-credential-{helper} get` by hand, with the registry's name on standard input"
        )),
        Reason::Stopped => Error::interrupted(what),
        Reason::Cache { .. } => {
            Error::host(what).hint("free disk space there, or point CLOISTER_CACHE to another disk")
        }
        Reason::Status { .. } if error.is_passing() => {
            Error::host(what).hint("the registry reports a temporary problem: try again later")
        }
        Reason::Status { .. } | Reason::Protocol { .. } | Reason::Digest { .. } | Reason::TooLong { .. } => {
            Error::author(what).hint("contact the registry's operator")
        }
    }
}

fn prune_error(cache: &Path, error: PruneError) -> Error {
    let what = format!("cannot prune {}", cache.display());
    match error {
        PruneError::InUse { .. } => Error::operator(what)
            .because(std::io::Error::other("a build is using it"))
            .hint("wait until the build has finished"),
        PruneError::Io { source, .. } => {
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

    fn error_for(error: RegistryError) -> Error {
        pull_error("cannot pull q.io/app:1".to_owned(), PullError::Registry(error))
    }

    fn hint(error: &Error) -> &str {
        error.details().hint.as_deref().unwrap_or_default()
    }

    #[test]
    fn each_failure_of_a_registry_states_who_must_act() {
        let registry = || "q.io".to_owned();
        let error = error_for(RegistryError::Denied { registry: registry(), known: false });
        assert!(matches!(error, Error::Operator(_)) && hint(&error).contains("docker login"), "{error:?}");
        assert!(error.reasons().concat().contains("denied access to anonymous users"), "{error:?}");
        let status = |status| RegistryError::Status {
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
        let error = error_for(RegistryError::Broken { registry: registry(), source });
        assert!(matches!(error, Error::Host(_)) && hint(&error).contains("HTTPS_PROXY"), "{error:?}");
        assert_eq!(error_for(RegistryError::Stopped).run_code(), 130);
    }

    #[test]
    fn a_cache_in_use_is_not_pruned_and_the_error_states_why() {
        let error = prune_error(Path::new("/cache"), PruneError::InUse { root: "/cache".into() });
        assert_eq!(error.to_string(), "cannot prune /cache");
        assert!(error.reasons().concat().contains("a build is using it"));
    }
}
