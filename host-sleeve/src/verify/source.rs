//! Where the evidence comes from: a file, or a running enclave.
//!
//! Invariant: what the evidence of a running enclave binds comes from the connection, and nothing that the operator gives replaces it.

use cloister_client::Answer;
use cloister_evidence::snp::table::{TableError, chain};

use super::files::read;
use super::remote::Url;
use crate::cli::{Skip, Verify};
use crate::error::{Error, Result};

/// Where the evidence comes from.
pub(crate) enum Source {
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

    /// The certificates of a SEV-SNP report that the host of a running enclave passes along. Nothing in them is authentic before the chain
    /// is verified.
    pub(super) fn certificates(&self) -> std::result::Result<Vec<Vec<u8>>, TableError> {
        match self {
            Self::File(_) => Ok(Vec::new()),
            Self::Enclave(answer) => chain(&answer.certificates),
        }
    }

    /// Reads the evidence from a file, or requests it from the server of a URL.
    pub(crate) fn of(args: &Verify) -> Result<Self> {
        match args.evidence.to_str().and_then(Url::parse) {
            Some(url) => {
                let url = url?;
                Self::of_enclave(args, || url.fetch())
            }
            None => Ok(Self::File(read(&args.evidence)?)),
        }
    }

    /// Requests it from a running enclave, unless an option does not apply to one.
    pub(crate) fn of_enclave(args: &Verify, fetch: impl FnOnce() -> Result<Answer>) -> Result<Self> {
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
        Ok(Self::Enclave(fetch()?))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    #[test]
    fn an_option_that_does_not_apply_is_refused_before_anything_is_requested() {
        let nonce = "--nonce=00112233445566778899aabbccddeeff";
        for options in [
            &[nonce][..],
            &[nonce, "--public-key=f"],
            &[nonce, "--user-data=f"],
            &["--event-log=f"],
            &["--at=1"],
            &["--skip=nonce"],
            &["--skip=binding"],
            &["--skip=events"],
        ] {
            let line = [&["host-sleeve", "verify", "https://enclave.example"], options].concat();
            let Verb::Verify(args) = Cli::try_parse_from(line).unwrap().verb else { panic!("{options:?}") };
            let refused = Source::of_enclave(&args, || panic!("{options:?}")).err().unwrap();
            assert!(refused.to_string().contains("does not apply to a running enclave"), "{refused}");
        }
    }
}
