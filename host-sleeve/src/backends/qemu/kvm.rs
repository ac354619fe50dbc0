//! Whether KVM works here.
//!
//! Its law: the device node proves nothing. KVM is used only after this very kernel has booted on it within a limit. The
//! answer is kept while the host runs, the QEMU and the kernel stay the same; a "no" that may pass, only for a while.

use std::fs;
use std::io::ErrorKind;
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

/// The device.
pub(crate) const DEVICE: &str = "/dev/kvm";

/// A kernel needs far less than a second to its panic under KVM; a host that is busy with hundreds of boots needs more.
const LIMIT: Duration = Duration::from_secs(8);

/// How long a "no" counts whose cause may pass, such as a busy host: where a trial takes its whole limit, not every launch
/// should wait for one, and whoever mends the host should not wait for long either.
const WHILE: Duration = Duration::from_mins(10);

/// What the trial kernel prints when it has come as far as it can without a ramdisk.
const PROOF: &[u8] = b"Kernel panic - not syncing";

/// What QEMU prints when the host cannot go on running the guest.
const DISPROOF: &[u8] = b"KVM internal error";

/// More than a kernel prints until it panics.
const MAX_OUTPUT: usize = 256 * 1024;

/// How much of QEMU's last line is shown, in characters.
const MAX_SAID: usize = 200;

/// What a trial came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whether KVM can be used.
    pub(crate) works: bool,
    /// Why not, for people.
    pub(crate) why: String,
    /// For how long it is remembered.
    #[serde(default)]
    keep: Keep,
    /// What adds KVM, where one command does.
    #[serde(skip)]
    pub(crate) fix: Option<&'static str>,
}

/// For how long an answer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Keep {
    /// While the host runs: nothing changes it by itself.
    Always,
    /// Its cause may pass.
    #[default]
    Shortly,
    /// Nothing was tried.
    Never,
}

impl Answer {
    const fn yes() -> Self {
        Self { works: true, why: String::new(), keep: Keep::Always, fix: None }
    }

    fn no(keep: Keep, why: impl Into<String>) -> Self {
        Self { works: false, why: why.into(), keep, fix: None }
    }
}

/// Whether this kernel boots on KVM with this QEMU. Tried once, then remembered.
pub(crate) async fn ask(qemu: &Found, kernel: &Nameless, kernel_digest: &Digest) -> Answer {
    let memory = remembered(&qemu.line, kernel_digest);
    match (refused(), memory.as_deref().and_then(recall)) {
        (Some(answer), _) | (None, Some(answer)) => answer,
        (None, None) => try_and_keep(qemu, kernel, memory.as_deref()).await,
    }
}

/// The same, tried now, whatever is remembered. The new answer is remembered in its place.
pub(crate) async fn ask_again(qemu: &Found, kernel: &Nameless, kernel_digest: &Digest) -> Answer {
    match refused() {
        Some(answer) => answer,
        None => try_and_keep(qemu, kernel, remembered(&qemu.line, kernel_digest).as_deref()).await,
    }
}

/// The answer where the device cannot be opened.
fn refused() -> Option<Answer> {
    let error = fs::File::options().read(true).write(true).open(DEVICE).err()?;
    Some(unopened(&error))
}

fn unopened(error: &std::io::Error) -> Answer {
    let (why, fix) = match error.kind() {
        ErrorKind::NotFound => {
            (format!("this host has no {DEVICE}"), Some("modprobe kvm_intel || modprobe kvm_amd"))
        }
        ErrorKind::PermissionDenied => (
            format!("{DEVICE}: permission denied: most systems let the group kvm open it"),
            Some("sudo usermod --append --groups kvm \"$USER\", then log in again"),
        ),
        _ => (format!("{DEVICE} cannot be opened: {error}"), None),
    };
    Answer { fix, ..Answer::no(Keep::Never, why) }
}

async fn try_and_keep(qemu: &Found, kernel: &Nameless, memory: Option<&Path>) -> Answer {
    let answer = try_boot(&qemu.path, kernel).await;
    if let Some(path) = memory {
        keep(path, &answer);
    }
    answer
}

fn keep(path: &Path, answer: &Answer) {
    // Not remembering costs the next launch a trial, no more.
    drop(match (answer.keep, serde_json::to_vec(answer)) {
        (Keep::Always | Keep::Shortly, Ok(text)) => fs::write(path, text),
        _ => fs::remove_file(path),
    });
}

/// The answer in this file, if it still counts. A "no" says where it comes from.
fn recall(path: &Path) -> Option<Answer> {
    let mut answer: Answer = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    // A file from the future was written under another clock: it does not count.
    let age = fs::metadata(path).ok()?.modified().ok()?.elapsed();
    if answer.keep != Keep::Always && age.map_or(true, |age| age > WHILE) {
        return None;
    }
    if !answer.works {
        let from = format!(" (remembered in {}; `host-sleeve doctor` tries again)", path.display());
        answer.why.push_str(&from);
    }
    Some(answer)
}

fn remembered(version: &str, kernel: &Digest) -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let key = Digest::of(format!("{version}\n{kernel}\n{boot}").as_bytes());
    Some(install::cache("kvm").ok()?.join(key.hex()))
}

async fn try_boot(qemu: &Path, kernel: &Nameless) -> Answer {
    let kept = match kernel.share() {
        Ok(kept) => kept,
        Err(error) => return Answer::no(Keep::Never, error.to_string()),
    };
    let started = Program::start("QEMU", qemu, argv(&kept.path()), Path::new("/"), vec![kept.into_fd()]);
    let mut program = match started {
        Ok(program) => program,
        Err(error) => return Answer::no(Keep::Never, error.to_string()),
    };
    let Some(output) = program.stdout() else {
        return Answer::no(Keep::Never, "QEMU has no output");
    };
    let proved = time::timeout(LIMIT, proves(output)).await;
    program.kill().await;
    let said = program.said().await.unwrap_or_default();
    match proved {
        Ok(true) => Answer::yes(),
        _ if said.as_bytes().windows(DISPROOF.len()).any(|window| window == DISPROOF) => {
            Answer::no(Keep::Always, format!("a trial boot on {DEVICE} broke off with a KVM internal error"))
        }
        Ok(false) => Answer::no(Keep::Shortly, broken_off(&said)),
        Err(_) => {
            let limit = LIMIT.as_secs();
            Answer::no(Keep::Shortly, format!("a trial boot on {DEVICE} did not end within {limit} s"))
        }
    }
}

fn broken_off(said: &str) -> String {
    let last: String = said.lines().last().unwrap_or_default().chars().take(MAX_SAID).collect();
    let colon = if last.is_empty() { "" } else { ": " };
    format!("a trial boot on {DEVICE} broke off{colon}{last}")
}

/// Reads a trial's console until it proves that KVM works, or ends.
async fn proves(mut output: impl AsyncRead + Unpin) -> bool {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while seen.len() < MAX_OUTPUT {
        match output.read(&mut buffer).await {
            Ok(count @ 1..) => seen.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            _ => break,
        }
        if seen.windows(PROOF.len()).any(|window| window == PROOF) {
            return true;
        }
    }
    false
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
        assert!(proves(&console[..]).await);
    }

    #[tokio::test]
    async fn a_boot_that_breaks_off_proves_nothing() {
        assert!(!proves(&b"Linux ver"[..]).await);
    }

    #[test]
    fn a_no_that_may_pass_is_forgotten_after_a_while_and_a_lasting_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answer");
        let age = |age: Duration| {
            let file = fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        };
        let later = WHILE + Duration::from_secs(1);
        keep(&path, &Answer::no(Keep::Shortly, "the host was busy"));
        let again = recall(&path).unwrap();
        assert!(again.why.contains(path.to_str().unwrap()) && again.why.contains("doctor"), "{again:?}");
        age(later);
        assert_eq!(recall(&path), None);
        for answer in [Answer::yes(), Answer::no(Keep::Always, "a KVM internal error")] {
            keep(&path, &answer);
            age(later);
            assert_eq!(recall(&path).unwrap().works, answer.works);
        }
    }

    #[test]
    fn where_nothing_was_tried_nothing_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answer");
        keep(&path, &Answer::yes());
        keep(&path, &Answer::no(Keep::Never, "QEMU cannot be started"));
        assert_eq!(recall(&path), None);
        // What an older version wrote does not say how long it counts.
        fs::write(&path, r#"{"works":false,"why":"busy"}"#).unwrap();
        assert_eq!(recall(&path).unwrap().keep, Keep::Shortly);
    }

    #[test]
    fn a_device_that_is_not_ours_comes_with_the_command_that_adds_us() {
        let answer = unopened(&ErrorKind::PermissionDenied.into());
        assert!(answer.why.contains("permission denied"), "{answer:?}");
        assert!(answer.fix.unwrap().contains("kvm"), "{answer:?}");
    }

    #[test]
    fn what_qemu_said_last_is_told() {
        assert_eq!(broken_off("one\ntwo"), "a trial boot on /dev/kvm broke off: two");
        assert_eq!(broken_off(""), "a trial boot on /dev/kvm broke off");
    }
}
