//! Where the evidence comes from: a file, or a running enclave.
//!
//! Invariant: what the evidence of a running enclave binds comes from the connection, and nothing that the operator gives replaces it.

use cloister_client::Answer;

use super::files::read;
use super::remote::Url;
use crate::cli::{Skip, Verify};
use crate::error::{Error, Result};

/// Where the evidence comes from.
pub(super) enum Source {
    /// A file, with what it binds in the arguments.
    File(Vec<u8>),
    /// A running enclave, with what it binds from the connection.
    Enclave(Answer),
}

impl Source {
    pub(super) fn evidence(&self) -> &[u8] {
        match self {
            Self::File(evidence) => evidence,
            Self::Enclave(fetched) => &fetched.evidence,
        }
    }

    /// Reads the evidence, or requests it if the argument is a URL.
    pub(super) fn of(args: &Verify, fetched: Option<Answer>) -> Result<Self> {
        let url = args.evidence.to_str().and_then(Url::parse);
        if url.is_none() && fetched.is_none() {
            return Ok(Self::File(read(&args.evidence)?));
        }
        let skips = |skip| args.skip.contains(&skip);
        let inapplicable = [
            ("--nonce", args.nonce.is_some()),
            ("--public-key", args.public_key.is_some()),
            ("--user-data", args.user_data.is_some()),
            ("--event-log", args.event_log.is_some()),
            ("--report-data", args.report_data.is_some()),
            ("--at", args.at.is_some()),
            ("--skip nonce", skips(Skip::Nonce)),
            ("--skip binding", skips(Skip::Binding)),
            ("--skip events", skips(Skip::Events)),
        ];
        if let Some((option, _)) = inapplicable.iter().find(|(_, given)| *given) {
            return Err(Error::operator(format!("{option} does not apply to a running enclave"))
                .hint("nonce, key and log are those of the connection, and the time is now: leave it out"));
        }
        match (fetched, url) {
            (Some(fetched), _) => Ok(Self::Enclave(fetched)),
            (None, Some(url)) => Ok(Self::Enclave(url?.fetch()?)),
            (None, None) => Err(Error::internal("there is no source of evidence")),
        }
    }
}
