//! The result of a verification: every check by name, with its outcome, in the order of the platform's table.
//!
//! Invariant: all checks of a platform's table appear in a verdict, those that could not be made included, so that a
//! missing check cannot be mistaken for a passed one.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The check was made and holds. The text describes the value that was checked.
    Pass(Cow<'static, str>),
    /// The check was made and does not hold. The text describes what was expected and found.
    Fail(Cow<'static, str>),
    /// The check does not apply, or an earlier failure prevented it. The text gives the reason.
    NotApplicable(Cow<'static, str>),
}

impl Outcome {
    /// The outcome in a word, as verdicts print it: `pass`, `FAIL` or `n/a`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Fail(_) => "FAIL",
            Self::NotApplicable(_) => "n/a",
        }
    }

    /// Its description. It may contain bytes of the evidence.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Pass(text) | Self::Fail(text) | Self::NotApplicable(text) => text,
        }
    }
}

/// One check of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A short name that is stable across releases, such as `signature`.
    pub name: &'static str,
    /// Its outcome.
    pub outcome: Outcome,
}

/// The checks of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The platform that the evidence is of: `nitro`, `tdx`, `snp` or `virtual`.
    pub platform: &'static str,
    /// Every check of the platform's table, in its order.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// Whether every check that applies passed.
    #[must_use]
    pub fn accepted(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.outcome, Outcome::Fail(_)))
    }

    /// The first failed check.
    #[must_use]
    pub fn failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| matches!(check.outcome, Outcome::Fail(_)))
    }
}

/// A value whose evidence passed every check. Only this crate creates one.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    value: T,
    verdict: Verdict,
}

impl<T> Verified<T> {
    /// The verified value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The checks that it passed.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The verified value, without its verdict.
    pub fn into_value(self) -> T {
        self.value
    }
}

/// The checks of one platform while they are made. The table of names is fixed when it is created.
#[derive(Debug)]
pub(crate) struct Checklist {
    platform: &'static str,
    table: &'static [&'static str],
    made: Vec<Check>,
}

impl Checklist {
    pub(crate) fn new(platform: &'static str, table: &'static [&'static str]) -> Self {
        Self { platform, table, made: Vec::with_capacity(table.len()) }
    }

    /// Records a check. A name outside the table, or one that was recorded before, is recorded as a failure: a defect
    /// here must not accept evidence.
    pub(crate) fn record(&mut self, name: &'static str, outcome: Outcome) {
        let known = self.table.contains(&name) && !self.made.iter().any(|check| check.name == name);
        let outcome = if known {
            outcome
        } else {
            Outcome::Fail("internal error: not in the table of checks, or made twice".into())
        };
        self.made.push(Check { name, outcome });
    }

    /// Records the result of a check, and returns its value if it passed. `pass` describes a passed check.
    pub(crate) fn check<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        result: Result<T, E>,
        pass: impl FnOnce(&T) -> Cow<'static, str>,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.record(name, Outcome::Pass(pass(&value)));
                Some(value)
            }
            Err(error) => {
                self.record(name, Outcome::Fail(Cow::Owned(alloc::format!("{error}"))));
                None
            }
        }
    }

    /// Records the result of a check of something that a policy may leave out. `found` describes the value in the evidence.
    pub(crate) fn optional<E: fmt::Display>(
        &mut self,
        name: &'static str,
        result: Option<Result<(), E>>,
        found: Cow<'static, str>,
    ) {
        if let Some(result) = result {
            self.check(name, result, |()| found);
        } else {
            let text = alloc::format!("not in the policy; found {found}");
            self.record(name, Outcome::NotApplicable(text.into()));
        }
    }

    /// The verdict. Checks that were not recorded are listed as not made; if nothing failed although one was not made,
    /// it fails.
    pub(crate) fn verdict(self) -> Verdict {
        let failed = self.made.iter().any(|check| matches!(check.outcome, Outcome::Fail(_)));
        let missing = |name| Check {
            name,
            outcome: if failed {
                Outcome::NotApplicable("not checked because of an earlier failure".into())
            } else {
                Outcome::Fail("internal error: this check was not made".into())
            },
        };
        // Of a check that was made twice the failure counts, not what was recorded first.
        let found = |name| {
            let made = self.made.iter().filter(|check| check.name == name);
            made.max_by_key(|check| matches!(check.outcome, Outcome::Fail(_))).cloned()
        };
        let mut checks: Vec<Check> =
            self.table.iter().map(|name| found(*name).unwrap_or_else(|| missing(*name))).collect();
        checks.extend(self.made.into_iter().filter(|check| !self.table.contains(&check.name)));
        Verdict { platform: self.platform, checks }
    }

    /// The value as a verified one if every check of the table was recorded and none failed.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<Verified<T>, Verdict> {
        let verdict = self.verdict();
        match value {
            Some(value) if verdict.accepted() => Ok(Verified { value, verdict }),
            _ => Err(verdict),
        }
    }
}

/// A line for each check, without control characters.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let text: String = check.outcome.text().chars().filter(|c| !c.is_control()).collect();
            writeln!(f, "{:4}  {:width$}  {text}", check.outcome.word(), check.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [&str; 3] = ["first", "second", "third"];

    fn passed() -> Outcome {
        Outcome::Pass("as expected".into())
    }

    /// The verdict on a value after these checks.
    fn finish(made: &[&'static str]) -> Result<Verified<()>, Verdict> {
        let mut checks = Checklist::new("nitro", &TABLE);
        for name in made {
            checks.record(name, passed());
        }
        checks.finish(Some(()))
    }

    #[test]
    fn a_value_is_verified_if_every_check_of_the_table_was_made_once() {
        assert!(finish(&TABLE).is_ok());
        assert!(finish(&["third", "first", "second"]).is_ok());
    }

    #[test]
    fn a_verdict_is_printed_with_a_line_for_each_check() {
        let mut checks = Checklist::new("nitro", &TABLE);
        checks.record("first", passed());
        checks.record("second", Outcome::Fail("a\x1b[2J\nb".into()));
        assert_eq!(
            alloc::format!("{}", checks.verdict()),
            "pass  first   as expected\nFAIL  second  a[2Jb\nn/a   third   not checked because of an earlier failure\n"
        );
    }

    #[test]
    fn a_check_that_was_not_made_fails() {
        let verdict = finish(&["first", "third"]).unwrap_err();
        assert_eq!(verdict.failure().map(|check| check.name), Some("second"));
        assert!(finish(&[]).is_err());
    }

    #[test]
    fn a_check_outside_the_table_fails() {
        let verdict = finish(&["first", "second", "third", "fourth"]).unwrap_err();
        assert_eq!(verdict.failure().map(|check| check.name), Some("fourth"));
    }

    #[test]
    fn a_check_that_was_made_twice_fails() {
        for made in [&["first", "second", "third", "second"][..], &["first", "second", "second"]] {
            let verdict = finish(made).expect_err("accepted");
            assert_eq!(verdict.failure().map(|check| check.name), Some("second"), "{verdict}");
        }
    }
}
