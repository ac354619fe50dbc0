//! A system call that a program of ours may make, with the arguments it may use.

use libc::{c_int, c_long};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::filter::FilterError;

/// A condition for one argument of a call: its position, the bits that are compared, and their value.
pub(super) type Argument = (u8, u64, u64);

/// All bits of an argument that is an `int`.
pub(super) const INT: u64 = 0xFFFF_FFFF;

/// All bits of an argument.
pub(super) const ALL: u64 = u64::MAX;

/// One allowed system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) name: &'static str,
    pub(super) number: c_long,
    /// The allowed combinations of arguments; all if empty.
    pub(super) forms: &'static [&'static [Argument]],
    /// Its purpose.
    pub(super) reason: &'static str,
}

impl Allowed {
    /// The rule for the filter.
    pub(super) fn rule(&self) -> Result<(c_long, Vec<SeccompRule>), FilterError> {
        let condition = |(place, mask, value): &Argument| {
            let (length, op) = match *mask {
                ALL => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq),
                INT => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq),
                mask => (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask)),
            };
            SeccompCondition::new(*place, length, op, *value)
        };
        let form = |arguments: &&[Argument]| -> Result<SeccompRule, FilterError> {
            Ok(SeccompRule::new(arguments.iter().map(condition).collect::<Result<_, _>>()?)?)
        };
        Ok((self.number, self.forms.iter().map(form).collect::<Result<_, _>>()?))
    }
}

pub(super) const fn row(name: &'static str, number: c_long, reason: &'static str) -> Allowed {
    Allowed { name, number, forms: &[], reason }
}

pub(super) const fn only(
    name: &'static str,
    number: c_long,
    forms: &'static [&'static [Argument]],
    reason: &'static str,
) -> Allowed {
    Allowed { name, number, forms, reason }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_sign_loss,
    reason = "constants of the C library, none negative; try_from is not const"
)]
pub(super) const fn int(value: c_int) -> u64 {
    value as u64
}
