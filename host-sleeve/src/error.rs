//! What can go wrong, by who must act.
//!
//! Its law: an error says what could not be done, why, and what to try; `Display` prints its own level only, and the
//! levels below hang on `source()`. It leaves printing to `output`.

use std::error::Error as StdError;
use std::fmt;

use cloister_wire::causes::REPORT;
use cloister_wire::{causes, exit};
use serde::{Deserialize, Serialize};

/// The exit code of what was interrupted: a shell's for SIGINT.
const INTERRUPTED: u8 = exit::for_signal(2);

/// The code of an end on request: that of SIGKILL, as if it had run.
const KILLED: u8 = exit::for_signal(9);

/// What to attach to a report.
const EVIDENCE: &str = concat!(
    "these lines, the command line, the version (host-sleeve ",
    env!("CARGO_PKG_VERSION"),
    ") and, where an enclave was launched, the log files in its folder: ~/.local/state/cloister/NAME, ",
    "/var/lib/cloister/NAME for root, or $CLOISTER_STATE_DIR/NAME"
);

/// The result of everything here.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its reasons.
#[derive(Debug)]
pub(crate) enum Error {
    /// The operator asked for something that cannot be done as it was asked.
    Operator(Told),
    /// The author of the image or of its manifest must mend it.
    Author(Told),
    /// This host lacks something, or refused something.
    Host(Told),
    /// The enclave did not do what was asked, or broke the protocol.
    Enclave(Told),
    /// A limit of time that the operator set has passed.
    TimedOut(Told),
    /// The operator does not want it any more.
    Interrupted(Told),
    /// Somebody else asked for its end.
    Killed(Told),
    /// Cloister itself is at fault: none of the others can mend it.
    Internal(Told),
}

/// The words of an error.
#[derive(Debug)]
pub(crate) struct Told {
    /// What could not be done.
    pub(crate) what: String,
    /// What to try.
    pub(crate) hint: Option<String>,
    /// Why.
    pub(crate) because: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// The operator must act.
    pub(crate) fn operator(what: impl Into<String>) -> Self {
        Self::Operator(Told::new(what))
    }

    /// The image's author must act.
    pub(crate) fn author(what: impl Into<String>) -> Self {
        Self::Author(Told::new(what))
    }

    /// The host must change.
    pub(crate) fn host(what: impl Into<String>) -> Self {
        Self::Host(Told::new(what))
    }

    /// The enclave is to blame.
    pub(crate) fn enclave(what: impl Into<String>) -> Self {
        Self::Enclave(Told::new(what))
    }

    /// Time ran out.
    pub(crate) fn timed_out(what: impl Into<String>) -> Self {
        Self::TimedOut(Told::new(what))
    }

    /// It was interrupted.
    pub(crate) fn interrupted(what: impl Into<String>) -> Self {
        Self::Interrupted(Told::new(what))
    }

    /// It was ended on request.
    pub(crate) fn killed(what: impl Into<String>) -> Self {
        Self::Killed(Told::new(what))
    }

    /// Cloister is at fault. What to try is to report it, and the hint says with what.
    pub(crate) fn internal(what: impl fmt::Display) -> Self {
        Self::Internal(Told::new(format!("internal error: {what}"))).hint(format!("{REPORT} with {EVIDENCE}"))
    }

    /// Adds what to try.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.told_mut().hint = Some(hint.into());
        self
    }

    /// Adds the reason.
    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.told_mut().because = Some(cause.into());
        self
    }

    /// The words of this level.
    pub(crate) const fn told(&self) -> &Told {
        match self {
            Self::Operator(told)
            | Self::Author(told)
            | Self::Host(told)
            | Self::Enclave(told)
            | Self::TimedOut(told)
            | Self::Interrupted(told)
            | Self::Killed(told)
            | Self::Internal(told) => told,
        }
    }

    /// The reasons, from this error downwards, one line each. A level that only repeats the one above is left out.
    pub(crate) fn reasons(&self) -> Vec<String> {
        causes::levels(self).split_off(1)
    }

    /// The exit code for this error.
    pub(crate) const fn run_code(&self) -> u8 {
        match self {
            Self::TimedOut(_) => exit::TIMED_OUT,
            Self::Interrupted(_) => INTERRUPTED,
            Self::Killed(_) => KILLED,
            _ => exit::OUR_FAILURE,
        }
    }

    const fn told_mut(&mut self) -> &mut Told {
        match self {
            Self::Operator(told)
            | Self::Author(told)
            | Self::Host(told)
            | Self::Enclave(told)
            | Self::TimedOut(told)
            | Self::Interrupted(told)
            | Self::Killed(told)
            | Self::Internal(told) => told,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told().what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause: &(dyn StdError + 'static) = self.told().because.as_deref()?;
        Some(cause)
    }
}

impl Told {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, because: None }
    }
}

/// The words of an error with those below it, for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Words {
    /// What could not be done.
    pub(crate) what: String,
    /// Why, from the top.
    pub(crate) because: Vec<String>,
    /// What to try.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

/// One reason of another process's error.
#[derive(Debug)]
struct Link {
    text: String,
    next: Option<Box<Self>>,
}

impl From<&Error> for Words {
    fn from(error: &Error) -> Self {
        Self {
            what: error.to_string(),
            because: error.reasons(),
            hint: error.told().hint.clone(),
            code: error.run_code(),
        }
    }
}

impl From<Words> for Error {
    fn from(words: Words) -> Self {
        let chain = |next, text| Some(Box::new(Link { text, next }));
        let because = words.because.into_iter().rev().fold(None, chain);
        let told = Told {
            what: words.what,
            hint: words.hint,
            because: because.map(|link| -> Box<dyn StdError + Send + Sync> { link }),
        };
        match words.code {
            exit::TIMED_OUT => Self::TimedOut(told),
            INTERRUPTED => Self::Interrupted(told),
            KILLED => Self::Killed(told),
            _ => Self::Host(told),
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

/// Turns the system's refusal into a host error that names what was being done.
pub(crate) trait Doing<T> {
    /// `what` is the whole sentence: `cannot write /x`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let hint = hint_for(&error);
            let told = Error::host(what()).because(error);
            match hint {
                Some(hint) => told.hint(hint),
                None => told,
            }
        })
    }
}

/// What to try about the system's refusal, where there is something.
pub(crate) fn hint_for(error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Some("free some space there, or point CLOISTER_CACHE and CLOISTER_STATE_DIR to another disk")
        }
        std::io::ErrorKind::PermissionDenied => Some("run as the user who owns it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_are_listed_from_the_top() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::host("cannot write /x").because(Error::host("cannot open /y").because(io));
        assert_eq!(error.to_string(), "cannot write /x");
        assert_eq!(error.reasons().first().unwrap(), "cannot open /y");
    }

    #[test]
    fn an_error_of_another_process_keeps_its_exit_code() {
        let code = |error: Error| Error::from(Words::from(&error)).run_code();
        assert_eq!(code(Error::interrupted("Ctrl-C")), 130);
        assert_eq!(code(Error::killed("stopped")), 137);
        assert_eq!(code(Error::timed_out("late")), 124);
        assert_eq!(code(Error::operator("no")), 125);
    }

    #[test]
    fn a_full_disk_is_met_with_advice() {
        let full = Err::<(), _>(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let error = full.doing(|| "cannot write /x".to_owned()).unwrap_err();
        assert!(error.told().hint.as_deref().unwrap().contains("free some space"));
    }

    #[test]
    fn a_fault_of_our_own_asks_for_a_report_and_says_what_to_attach() {
        let error = Error::internal("the sum is wrong").because(std::io::Error::other("3 is not 4"));
        let text = crate::output::render(&error);
        assert!(
            text.starts_with("error: internal error: the sum is wrong\nbecause: 3 is not 4\nhint: "),
            "{text}"
        );
        for needed in
            ["a fault in Cloister itself", "report", "command line", env!("CARGO_PKG_VERSION"), "log files"]
        {
            assert!(text.contains(needed), "{needed}: {text}");
        }
        assert_eq!(error.run_code(), 125);
    }

    #[test]
    fn only_a_passed_limit_ends_with_124() {
        assert_eq!(Error::timed_out("late").run_code(), 124);
        assert_eq!(Error::operator("no").run_code(), 125);
    }
}
