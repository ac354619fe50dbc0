//! A login.
//!
//! Invariant: its secret is never printed.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::error::RegistryError;

/// How this user signs in.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token (Docker's `identitytoken`), exchanged for an access token by OAuth 2.0's refresh grant.
    Identity(String),
    /// An access token that is sent as it is (Docker's `registrytoken`).
    Access(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
            Self::Identity(_) => f.write_str("Identity(..)"),
            Self::Access(_) => f.write_str("Access(..)"),
        }
    }
}

impl Login {
    /// The value of an `Authorization` header, for a login that has one without asking a token server.
    pub(in super::super) fn header(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::Access(token) => Some(format!("Bearer {token}")),
            Self::Identity(_) => None,
        }
    }
}

/// The result of a lookup for a repository.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    /// The login, if there is one.
    pub(in super::super) login: Option<Login>,
    /// Why the credential store for all registries failed. Public images are still readable, so this is reported only if the
    /// registry denies access.
    pub(in super::super) helper_error: Option<RegistryError>,
}
