//! An error together with its causes, as text.
//!
//! Invariant: only this module turns a `source()` chain into text, for PID 1, the supervisor and the host alike. Each
//! error prints its own level; a level that repeats the end of the one above it is omitted.

use std::error::Error;
use std::iter;

/// The end of error texts that report a bug in Cloister, which only its maintainers can fix.
pub const REPORT: &str = "this is a bug in Cloister; please report it";

/// The causes of an error, outermost first, without the error itself.
pub fn below<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(error.source(), |&cause| cause.source())
}

/// The texts of an error and of its causes, outermost first.
#[must_use]
pub fn levels(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut levels = vec![error.to_string()];
    for cause in below(error) {
        let text = cause.to_string();
        if levels.last().is_none_or(|above| !above.ends_with(&text)) {
            levels.push(text);
        }
    }
    levels
}

/// The texts of an error and of its causes on one line, joined by `: `.
#[must_use]
pub fn line(error: &(dyn Error + 'static)) -> String {
    levels(error).join(": ")
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    /// An error whose text may contain that of its cause, as those of some libraries do.
    #[derive(Debug)]
    struct Level(&'static str, Option<Box<dyn Error>>);

    impl fmt::Display for Level {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Level {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref()
        }
    }

    fn above(text: &'static str, cause: impl Error + 'static) -> Level {
        Level(text, Some(Box::new(cause)))
    }

    #[test]
    fn causes_follow_the_error_outermost_first() {
        let error = above("cannot start", above("cannot open /x", io::Error::other("disk on fire")));
        assert_eq!(line(&error), "cannot start: cannot open /x: disk on fire");
        assert_eq!(below(&error).count(), 2);
    }

    #[test]
    fn a_level_that_repeats_the_one_above_is_omitted() {
        let error = above("cannot open /x: no space", above("no space", Level("quota", None)));
        assert_eq!(line(&error), "cannot open /x: no space: quota");
    }

    #[test]
    fn an_error_without_a_cause_is_its_own_text() {
        assert_eq!(levels(&Level("alone", None)), ["alone"]);
    }
}
