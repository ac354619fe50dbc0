//! Whether KVM works here.
//!
//! Its law: the device node proves nothing. KVM is used only after this very kernel has booted on it within a limit; the
//! answer is kept for as long as the host runs, the QEMU and the kernel stay the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloister_image::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time;

use crate::install;

use super::Found;
use super::boot::Nameless;
use super::children::Program;

/// A kernel needs far less than a second to its panic under KVM; a host that is busy with hundreds of boots needs more.
const LIMIT: Duration = Duration::from_secs(8);

/// What the trial kernel prints when it has come as far as it can without a ramdisk.
const PROOF: &[u8] = b"Kernel panic - not syncing";

/// What QEMU prints when the host cannot go on running the guest.
const DISPROOF: &[u8] = b"KVM internal error";

/// More than a kernel prints until it panics.
const MAX_OUTPUT: usize = 256 * 1024;

/// What a trial came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whether KVM can be used.
    pub(crate) works: bool,
    /// Why not, for people.
    pub(crate) why: String,
}

impl Answer {
    fn no(why: impl Into<String>) -> Self {
        Self { works: false, why: why.into() }
    }
}

/// Whether this kernel boots on KVM with this QEMU. Tried once, then remembered.
pub(crate) async fn ask(qemu: &Found, kernel: &Nameless, kernel_digest: &Digest) -> Answer {
    if let Err(error) = fs::File::options().read(true).write(true).open("/dev/kvm") {
        return Answer::no(match error.kind() {
            std::io::ErrorKind::NotFound => "this host has no /dev/kvm".to_owned(),
            _ => format!("/dev/kvm cannot be opened: {error}"),
        });
    }
    let memory = remembered(&qemu.line, kernel_digest);
    if let Some(answer) = memory.as_deref().and_then(recall) {
        return answer;
    }
    let answer = try_boot(&qemu.path, kernel).await;
    if let (Some(path), Ok(text)) = (memory, serde_json::to_vec(&answer)) {
        // Not remembering costs the next launch a trial, no more.
        drop(fs::write(path, text));
    }
    answer
}

fn recall(path: &Path) -> Option<Answer> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn remembered(version: &str, kernel: &Digest) -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let key = Digest::of(format!("{version}\n{kernel}\n{boot}").as_bytes());
    Some(install::cache("kvm").ok()?.join(key.hex()))
}

async fn try_boot(qemu: &Path, kernel: &Nameless) -> Answer {
    let kept = match kernel.share() {
        Ok(kept) => kept,
        Err(error) => return Answer::no(error.to_string()),
    };
    let started = Program::start("QEMU", qemu, argv(&kept.path()), Path::new("/"), vec![kept.into_fd()]);
    let mut program = match started {
        Ok(program) => program,
        Err(error) => return Answer::no(error.to_string()),
    };
    let Some(output) = program.stdout() else {
        return Answer::no("QEMU has no output");
    };
    let answer = match time::timeout(LIMIT, verdict(output)).await {
        Ok(answer) => answer,
        Err(_) => Answer::no(format!("a trial boot on /dev/kvm did not end within {} s", LIMIT.as_secs())),
    };
    program.kill().await;
    let said = program.said().await.unwrap_or_default();
    if !answer.works && said.as_bytes().windows(DISPROOF.len()).any(|window| window == DISPROOF) {
        return Answer::no("a trial boot on /dev/kvm broke off with a KVM internal error");
    }
    answer
}

/// Reads a trial's console until it proves something or ends.
async fn verdict(mut output: impl AsyncRead + Unpin) -> Answer {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while seen.len() < MAX_OUTPUT {
        match output.read(&mut buffer).await {
            Ok(count @ 1..) => seen.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            _ => break,
        }
        if seen.windows(PROOF.len()).any(|window| window == PROOF) {
            return Answer { works: true, why: String::new() };
        }
    }
    Answer::no("a trial boot on /dev/kvm broke off")
}

/// QEMU's arguments for a trial: the kernel alone, which panics for want of an init and reboots.
fn argv(kernel: &Path) -> Vec<String> {
    let words = "-machine microvm,acpi=off -accel kvm -cpu host -m 128M -display none -serial stdio -nodefaults \
                 -no-user-config -no-reboot -append";
    let mut argv: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    argv.push("console=ttyS0 reboot=t panic=-1".to_owned());
    argv.extend(["-kernel".to_owned(), kernel.display().to_string()]);
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kernel_that_panics_for_want_of_an_init_proves_kvm() {
        let console = b"Linux version 6.12\nKernel panic - not syncing: VFS: Unable to mount root fs";
        assert!(verdict(&console[..]).await.works);
    }

    #[tokio::test]
    async fn a_boot_that_breaks_off_proves_nothing() {
        assert_eq!(verdict(&b"Linux ver"[..]).await, Answer::no("a trial boot on /dev/kvm broke off"));
    }
}
