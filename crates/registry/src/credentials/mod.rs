//! Credentials that `docker login` and `podman login` have stored for a registry.
//!
//! Invariant: a secret is read when a registry requires one, is sent only to that registry and the token server that it names,
//! and is never printed. The lookup order follows `containers-auth.json(5)` and Docker's `config.json`.

mod files;
mod helper;
mod login;

use super::error::RegistryError;

pub(super) use login::{Found, Login};

/// Looks up `registry` (`host[:port]`) and `repository` in every file in order; the first that has a login wins.
pub(super) fn find(registry: &str, repository: &str) -> Result<Found, RegistryError> {
    let mut found = Found::default();
    for source in files::sources(&|name| std::env::var_os(name))? {
        let here = source.find(registry, repository)?;
        found.helper_error = found.helper_error.or(here.helper_error);
        if here.login.is_some() {
            found.login = here.login;
            return Ok(found);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
