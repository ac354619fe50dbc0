//! Container registries, for the commands of an operator: who must act when one does not give what was asked for, and what to try.
//!
//! Its law: it decides about words alone; the work is done by the crate `cloister-registry`.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use cloister_image::oci::{Architecture, OciFault, Reference};
pub(crate) use cloister_registry::{Access, Event, Pruned, Pulled};
use cloister_registry::{PruneFault, Pull, PullFault, RegistryFault};

use crate::error::{Error, Result, hint_for};

/// Pulls an image for `architecture` into the cache at `cache`, until it is there or `stop` is set.
pub(crate) fn pull(
    reference: &Reference,
    architecture: Architecture,
    cache: PathBuf,
    access: &Access,
    tell: &(dyn Fn(Event) + Sync),
    stop: &AtomicBool,
) -> Result<Pulled> {
    let pulled = Pull::new(access, tell, stop).run(reference, architecture, cache);
    pulled.map_err(|fault| not_pulled(format!("cannot pull {reference}"), fault))
}

/// Removes every blob of the cache that was not used for `unused`.
pub(crate) fn prune(cache: &Path, unused: Duration) -> Result<Pruned> {
    cloister_registry::prune(cache, unused, SystemTime::now()).map_err(|fault| not_pruned(cache, fault))
}

fn not_pulled(what: String, fault: PullFault) -> Error {
    match fault {
        PullFault::Registry(fault) => not_given(what, &fault).because(fault),
        PullFault::Image(fault @ OciFault::Host { .. }) => Error::host(what).because(fault),
        PullFault::Image(fault @ (OciFault::Platform { .. } | OciFault::Ambiguous(_))) => {
            Error::operator(what).because(fault).hint("name another image, or one of them by its digest")
        }
        PullFault::Image(fault) => Error::author(what).because(fault),
    }
}

fn not_given(what: String, fault: &RegistryFault) -> Error {
    use RegistryFault as Fault;
    match fault {
        Fault::Network { .. } | Fault::Broken { .. } => {
            Error::host(what).hint("look at the network; a proxy is taken from HTTPS_PROXY and NO_PROXY")
        }
        Fault::Missing { .. } => Error::operator(what).hint("look at the spelling, the tag or the digest"),
        Fault::Denied { known: false, .. } => Error::operator(what)
            .hint("sign in with `docker login` or `podman login`, or look at the spelling"),
        Fault::Denied { known: true, .. } => {
            Error::operator(what).hint("sign in again, or ask for the right to pull it")
        }
        Fault::TooMany { .. } => Error::host(what)
            .hint("wait, or sign in with `docker login`: limits are higher for users it knows"),
        Fault::NoRoots => {
            Error::host(what).hint("apt install ca-certificates, or name a file in SSL_CERT_FILE")
        }
        Fault::File { .. } => {
            Error::operator(what).hint("mend that file, or write it anew with `docker login`")
        }
        Fault::Helper { helper, .. } => Error::operator(what)
            .hint(format!("run `docker-credential-{helper} get` by hand; it reads the registry's name")),
        Fault::Stopped => Error::interrupted(what),
        Fault::Cache { .. } => {
            Error::host(what).hint("free some space there, or point CLOISTER_CACHE to another disk")
        }
        Fault::Status { .. } if fault.is_passing() => {
            Error::host(what).hint("the registry has trouble of its own: try again later")
        }
        Fault::Status { .. } | Fault::Protocol { .. } | Fault::Digest { .. } | Fault::TooLong { .. } => {
            Error::author(what).hint("ask whoever runs the registry")
        }
    }
}

fn not_pruned(cache: &Path, fault: PruneFault) -> Error {
    let what = format!("cannot prune {}", cache.display());
    match fault {
        PruneFault::InUse { .. } => Error::operator(what)
            .because(std::io::Error::other("a build is using it"))
            .hint("wait until the build has ended"),
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

    fn told(fault: RegistryFault) -> Error {
        not_pulled("cannot pull q.io/app:1".to_owned(), PullFault::Registry(fault))
    }

    fn hint(error: &Error) -> &str {
        error.told().hint.as_deref().unwrap_or_default()
    }

    #[test]
    fn each_refusal_of_a_registry_says_whose_turn_it_is() {
        let registry = || "q.io".to_owned();
        let error = told(RegistryFault::Denied { registry: registry(), known: false });
        assert!(matches!(error, Error::Operator(_)) && hint(&error).contains("docker login"), "{error:?}");
        assert!(error.reasons().concat().contains("denied access to anonymous users"), "{error:?}");
        let status = |status| RegistryFault::Status {
            registry: registry(),
            status,
            message: String::new(),
            retry_after: None,
        };
        let error = told(status(500));
        assert!(matches!(error, Error::Host(_)) && hint(&error).contains("try again later"), "{error:?}");
        let error = told(status(400));
        assert!(matches!(error, Error::Author(_)) && hint(&error).contains("runs the registry"), "{error:?}");
        let source = std::io::ErrorKind::UnexpectedEof.into();
        let error = told(RegistryFault::Broken { registry: registry(), source });
        assert!(matches!(error, Error::Host(_)) && hint(&error).contains("HTTPS_PROXY"), "{error:?}");
        assert_eq!(told(RegistryFault::Stopped).run_code(), 130);
    }

    #[test]
    fn a_cache_in_use_is_not_pruned_and_the_words_say_by_whom() {
        let error = not_pruned(Path::new("/cache"), PruneFault::InUse { root: "/cache".into() });
        assert_eq!(error.to_string(), "cannot prune /cache");
        assert!(error.reasons().concat().contains("a build is using it"));
    }
}
