//! Whether KVM works here.
//!
//! Its law: the device node proves nothing. KVM is used only after this very kernel has booted on it within a limit, and
//! where the processor gives guests the random bits without which an enclave starts nothing. The
//! answer is kept while the host runs, the QEMU and the kernel stay the same; a "no" that may pass, only for a while.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloister_image::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::install;

use super::boot::Nameless;
use super::found::Found;
use super::trial::{self, DEVICE, Verdict};

/// How long a "no" counts whose cause may pass, such as a busy host: where a trial takes its whole limit, not every launch
/// should wait for one; and on a host that is no longer busy, no enclave should be translated for it.
const WHILE: Duration = Duration::from_mins(2);

/// The flag in `/proc/cpuinfo` of a processor that gives random bits. KVM offers guests what the host's kernel sees.
#[cfg(target_arch = "x86_64")]
const RANDOM_FLAG: &str = "rdrand";
/// The flag in `/proc/cpuinfo` of a processor that gives random bits. KVM offers guests what the host's kernel sees.
#[cfg(target_arch = "aarch64")]
const RANDOM_FLAG: &str = "rng";

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

/// The answer where no trial is needed: the device cannot be opened, or an enclave would boot and start nothing.
fn refused() -> Option<Answer> {
    match fs::File::options().read(true).write(true).open(DEVICE) {
        Err(error) => Some(unopened(&error)),
        Ok(_) => without_random_bits(&fs::read_to_string("/proc/cpuinfo").ok()?),
    }
}

/// The answer where this processor gives its guests no random bits. Nothing else that the host offers is trusted with them,
/// so that init starts no service there; a translated processor has them.
fn without_random_bits(cpuinfo: &str) -> Option<Answer> {
    let mut lists = cpuinfo.lines().filter_map(|line| {
        let (key, words) = line.split_once(':')?;
        matches!(key.trim(), "flags" | "Features").then_some(words)
    });
    let has = lists.next()?.split_whitespace().any(|word| word == RANDOM_FLAG);
    (!has).then(|| {
        let flag = RANDOM_FLAG.to_uppercase();
        Answer::no(
            Keep::Never,
            format!("the host's processor has no {flag}, the only random bits that an enclave on KVM trusts"),
        )
    })
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
    let answer = match trial::boot(&qemu.path, kernel).await {
        Verdict::Works => Answer::yes(),
        Verdict::Broken(why) => Answer::no(Keep::Always, why),
        Verdict::Failed(why) => Answer::no(Keep::Shortly, why),
        Verdict::NotTried(why) => Answer::no(Keep::Never, why),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_processor_without_random_bits_is_no_host_for_kvm() {
        let cpuinfo = |flags: &str| {
            format!("processor\t: 0\nmodel name\t: QEMU\nflags\t\t: fpu {flags} svm\nbugs\t\t:\n")
        };
        assert_eq!(without_random_bits(&cpuinfo(RANDOM_FLAG)), None);
        let answer = without_random_bits(&cpuinfo("rdrandom aes")).unwrap();
        assert!(answer.why.contains(&RANDOM_FLAG.to_uppercase()) && answer.keep == Keep::Never, "{answer:?}");
        // Where the kernel does not tell, the trial does.
        assert_eq!(without_random_bits("processor\t: 0\n"), None);
    }
}
