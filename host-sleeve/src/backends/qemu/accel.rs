//! How the CPUs run.
//!
//! Its law: KVM where it has proved itself, else translation, and the reason with it.

use cloister_image::digest::Digest;

use crate::error::{Error, Result};

use super::argv::Accel;
use super::boot::Nameless;
use super::found::Found;
use super::kvm;

/// How an operator wants the CPUs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccelChoice {
    /// KVM where it proves itself, else translation.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Translation.
    Tcg,
}

/// How the CPUs run, and why not better.
pub(super) async fn choose_accel(
    asked: AccelChoice,
    qemu: &Found,
    kernel: &Nameless,
    digest: &Digest,
) -> Result<(Accel, Option<String>)> {
    if asked == AccelChoice::Tcg {
        return Ok((Accel::Tcg, None));
    }
    let answer = kvm::ask(qemu, kernel, digest).await;
    match (answer.works, asked) {
        (true, _) => Ok((Accel::Kvm, None)),
        (false, AccelChoice::Kvm) => Err(Error::host(format!("KVM does not work here: {}", answer.why))
            .hint(
                answer
                    .fix
                    .unwrap_or("leave out --accel kvm; `host-sleeve doctor` tries again and tells more"),
            )),
        (false, _) => Ok((Accel::Tcg, Some(answer.why))),
    }
}

/// The same in a word.
pub(super) const fn accel_word(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    }
}
