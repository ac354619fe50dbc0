//! How the CPUs are run.
//!
//! Invariant: by KVM if a trial boot has shown that it works, else by TCG, with the reason.

use cloister_image::digest::Digest;

use crate::error::{Error, Result};

use super::argv::Accel;
use super::boot::AnonymousFile;
use super::found::Found;
use super::kvm;

/// How the operator wants the CPUs to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccelChoice {
    /// KVM if it works, else TCG.
    Auto,
    /// KVM; an error if it does not work.
    Kvm,
    /// TCG (emulation in software).
    Tcg,
}

/// How the CPUs are run, and why not by KVM.
pub(super) async fn choose_accel(
    requested: AccelChoice,
    qemu: &Found,
    kernel: &AnonymousFile,
    digest: &Digest,
) -> Result<(Accel, Option<String>)> {
    if requested == AccelChoice::Tcg {
        return Ok((Accel::Tcg, None));
    }
    let answer = kvm::test(qemu, kernel, digest).await;
    match (answer.works, requested) {
        (true, _) => Ok((Accel::Kvm, None)),
        (false, AccelChoice::Kvm) => Err(Error::host(format!("KVM does not work here: {}", answer.why))
            .hint(
                answer
                    .fix
                    .unwrap_or("omit --accel kvm; `host-sleeve doctor` repeats the test and shows details"),
            )),
        (false, _) => Ok((Accel::Tcg, Some(answer.why))),
    }
}

/// Its short name.
pub(super) const fn accel_name(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    }
}
