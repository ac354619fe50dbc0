//! Errors, classified by who must act.
//!
//! Invariant: an error states what failed, why, and what to try; `Display` prints its own level only, and the levels below are
//! reached through `source()`. Printing is done by `output`.

use std::error::Error as StdError;
use std::fmt;

use cloister_wire::causes::REPORT;
use cloister_wire::{causes, exit};
use serde::{Deserialize, Serialize};

/// The exit code after an interrupt, as a shell reports SIGINT.
const INTERRUPTED: u8 = exit::for_signal(2);

/// The exit code of a launch that was killed on request: as a shell reports SIGKILL, and as if the enclave had run.
const KILLED: u8 = exit::for_signal(9);

/// The information to attach to a report.
const EVIDENCE: &str = concat!(
    "these lines, the command line, the version (host-sleeve ",
    env!("CARGO_PKG_VERSION"),
    ") and, if an enclave was launched, the log files in its directory: ~/.local/state/cloister/NAME, ",
    "/var/lib/cloister/NAME for root, or $CLOISTER_STATE_DIR/NAME"
);

/// The result type of this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its causes.
#[derive(Debug)]
pub(crate) enum Error {
    /// The operator's request cannot be fulfilled as it is.
    Operator(Details),
    /// The author of the image or of its manifest must fix it.
    Author(Details),
    /// This host lacks something or refused an operation.
    Host(Details),
    /// The enclave failed, refused a request or violated the protocol.
    Enclave(Details),
    /// The enclave is not the one that was expected.
    NotVerified(Details),
    /// A time limit passed.
    TimedOut(Details),
    /// The operator interrupted it.
    Interrupted(Details),
    /// Another command killed it.
    Killed(Details),
    /// A bug in Cloister: none of the others can fix it.
    Internal(Details),
}

/// The texts of an error.
#[derive(Debug)]
pub(crate) struct Details {
    /// What failed.
    pub(crate) what: String,
    /// What to try.
    pub(crate) hint: Option<String>,
    /// Why.
    pub(crate) because: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// The operator must act.
    pub(crate) fn operator(what: impl Into<String>) -> Self {
        Self::Operator(Details::new(what))
    }

    /// The image's author must act.
    pub(crate) fn author(what: impl Into<String>) -> Self {
        Self::Author(Details::new(what))
    }

    /// The host must change.
    pub(crate) fn host(what: impl Into<String>) -> Self {
        Self::Host(Details::new(what))
    }

    /// The enclave is responsible.
    pub(crate) fn enclave(what: impl Into<String>) -> Self {
        Self::Enclave(Details::new(what))
    }

    /// The enclave is not the one that was expected.
    pub(crate) fn not_verified(what: impl Into<String>) -> Self {
        Self::NotVerified(Details::new(what))
    }

    /// A time limit passed.
    pub(crate) fn timed_out(what: impl Into<String>) -> Self {
        Self::TimedOut(Details::new(what))
    }

    /// It was interrupted.
    pub(crate) fn interrupted(what: impl Into<String>) -> Self {
        Self::Interrupted(Details::new(what))
    }

    /// It was killed on request.
    pub(crate) fn killed(what: impl Into<String>) -> Self {
        Self::Killed(Details::new(what))
    }

    /// A bug in Cloister. The hint asks for a report and lists what to attach.
    pub(crate) fn internal(what: impl fmt::Display) -> Self {
        Self::Internal(Details::new(format!("internal error: {what}")))
            .hint(format!("{REPORT} with {EVIDENCE}"))
    }

    /// Adds what to try.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.details_mut().hint = Some(hint.into());
        self
    }

    /// Adds the reason.
    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.details_mut().because = Some(cause.into());
        self
    }

    /// The texts of this level.
    pub(crate) const fn details(&self) -> &Details {
        match self {
            Self::Operator(details)
            | Self::Author(details)
            | Self::Host(details)
            | Self::Enclave(details)
            | Self::NotVerified(details)
            | Self::TimedOut(details)
            | Self::Interrupted(details)
            | Self::Killed(details)
            | Self::Internal(details) => details,
        }
    }

    /// The causes below this error, from the top, one line each. A level that only repeats the one above is omitted.
    pub(crate) fn reasons(&self) -> Vec<String> {
        causes::levels(self).split_off(1)
    }

    /// The exit code for this error.
    pub(crate) const fn run_code(&self) -> u8 {
        match self {
            Self::NotVerified(_) => exit::NOT_VERIFIED,
            Self::TimedOut(_) => exit::TIMED_OUT,
            Self::Interrupted(_) => INTERRUPTED,
            Self::Killed(_) => KILLED,
            _ => exit::OUR_FAILURE,
        }
    }

    const fn details_mut(&mut self) -> &mut Details {
        match self {
            Self::Operator(details)
            | Self::Author(details)
            | Self::Host(details)
            | Self::Enclave(details)
            | Self::NotVerified(details)
            | Self::TimedOut(details)
            | Self::Interrupted(details)
            | Self::Killed(details)
            | Self::Internal(details) => details,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.details().what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause: &(dyn StdError + 'static) = self.details().because.as_deref()?;
        Some(cause)
    }
}

impl Details {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, because: None }
    }
}

/// An error with its causes as a document, for another process and for `ps --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ErrorDocument {
    /// What failed.
    pub(crate) what: String,
    /// Why, from the top.
    pub(crate) because: Vec<String>,
    /// What to try.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

/// One cause of another process's error.
#[derive(Debug)]
struct Link {
    text: String,
    next: Option<Box<Self>>,
}

impl From<&Error> for ErrorDocument {
    fn from(error: &Error) -> Self {
        Self {
            what: error.to_string(),
            because: error.reasons(),
            hint: error.details().hint.clone(),
            code: error.run_code(),
        }
    }
}

impl From<ErrorDocument> for Error {
    fn from(document: ErrorDocument) -> Self {
        let chain = |next, text| Some(Box::new(Link { text, next }));
        let because = document.because.into_iter().rev().fold(None, chain);
        let details = Details {
            what: document.what,
            hint: document.hint,
            because: because.map(|link| -> Box<dyn StdError + Send + Sync> { link }),
        };
        match document.code {
            exit::TIMED_OUT => Self::TimedOut(details),
            INTERRUPTED => Self::Interrupted(details),
            KILLED => Self::Killed(details),
            _ => Self::Host(details),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Link {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let next: &(dyn StdError + 'static) = self.next.as_deref()?;
        Some(next)
    }
}

/// Turns a system error into a host error that states the failed operation.
pub(crate) trait ErrorContext<T> {
    /// `what` is the complete message: `cannot write /x`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> ErrorContext<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let hint = hint_for(&error);
            let error = Error::host(what()).because(error);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })
    }
}

/// The hint for a system error, if there is one.
pub(crate) fn hint_for(error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Some("free disk space there, or point CLOISTER_CACHE and CLOISTER_STATE_DIR to another disk")
        }
        std::io::ErrorKind::ReadOnlyFilesystem => Some(
            "make that file system writable, or point CLOISTER_CACHE and CLOISTER_STATE_DIR to another one",
        ),
        std::io::ErrorKind::PermissionDenied => Some("run it as the user who owns that path"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_from_the_top() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::host("cannot write /x").because(Error::host("cannot open /y").because(io));
        assert_eq!(error.to_string(), "cannot write /x");
        assert_eq!(error.reasons().first().unwrap(), "cannot open /y");
    }

    #[test]
    fn an_error_of_another_process_keeps_its_exit_code() {
        let code = |error: Error| Error::from(ErrorDocument::from(&error)).run_code();
        assert_eq!(code(Error::interrupted("Ctrl-C")), 130);
        assert_eq!(code(Error::killed("stopped")), 137);
        assert_eq!(code(Error::timed_out("late")), 124);
        assert_eq!(code(Error::operator("no")), 125);
    }

    #[test]
    fn a_full_disk_gets_a_hint() {
        let full = Err::<(), _>(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let error = full.context(|| "cannot write /x".to_owned()).unwrap_err();
        assert!(error.details().hint.as_deref().unwrap().contains("free disk space"));
    }

    #[test]
    fn an_internal_error_asks_for_a_report_and_lists_what_to_attach() {
        let error = Error::internal("the sum is wrong").because(std::io::Error::other("3 is not 4"));
        let text = crate::output::render(&error);
        assert!(
            text.starts_with("error: internal error: the sum is wrong\nbecause: 3 is not 4\nhint: "),
            "{text}"
        );
        for needed in ["a bug in Cloister", "report", "command line", env!("CARGO_PKG_VERSION"), "log files"]
        {
            assert!(text.contains(needed), "{needed}: {text}");
        }
        assert_eq!(error.run_code(), 125);
    }

    #[test]
    fn only_a_passed_time_limit_exits_with_124() {
        assert_eq!(Error::timed_out("late").run_code(), 124);
        assert_eq!(Error::operator("no").run_code(), 125);
    }
}
