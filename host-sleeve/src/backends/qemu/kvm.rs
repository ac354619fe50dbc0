//! Whether KVM works here.
//!
//! Invariant: the device node proves nothing. KVM is used only after this very kernel has booted on it within a time limit, and
//! if the processor gives guests the random bits without which an enclave starts no service. The result is cached until the
//! host reboots, for the same QEMU and the same kernel; a negative result whose cause may be temporary, only for a short time.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloister_image::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::install;

use super::boot::AnonymousFile;
use super::found::Found;
use super::trial::{self, DEVICE, Verdict};

/// How long a negative result with a temporary cause, such as a busy host, is cached: if a test takes its whole time limit, not
/// every launch should wait for one; and on a host that is no longer busy, enclaves should not be emulated because of it.
const TEMPORARY: Duration = Duration::from_mins(2);

/// The flag in `/proc/cpuinfo` of a processor that provides random bits. KVM offers guests what the host's kernel sees.
#[cfg(target_arch = "x86_64")]
const RANDOM_FLAG: &str = "rdrand";
/// The flag in `/proc/cpuinfo` of a processor that provides random bits. KVM offers guests what the host's kernel sees.
#[cfg(target_arch = "aarch64")]
const RANDOM_FLAG: &str = "rng";

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Whether KVM can be used.
    pub(crate) works: bool,
    /// Why not, human-readable.
    pub(crate) why: String,
    /// How long it is cached.
    #[serde(default)]
    keep: Keep,
    /// The command that enables KVM, if there is one.
    #[serde(skip)]
    pub(crate) fix: Option<&'static str>,
}

/// How long a result is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Keep {
    /// Until the host reboots: nothing else changes it.
    Always,
    /// For a short time: its cause may be temporary.
    #[default]
    Shortly,
    /// Not at all: nothing was tested.
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

/// Whether this kernel boots on KVM with this QEMU. Tested once, then cached.
pub(crate) async fn test(qemu: &Found, kernel: &AnonymousFile, kernel_digest: &Digest) -> Answer {
    let cached = cache_file(&qemu.line, kernel_digest);
    match (without_test(), cached.as_deref().and_then(load)) {
        (Some(answer), _) | (None, Some(answer)) => answer,
        (None, None) => test_and_cache(qemu, kernel, cached.as_deref()).await,
    }
}

/// The same, but always tested. The new result replaces the cached one.
pub(crate) async fn test_again(qemu: &Found, kernel: &AnonymousFile, kernel_digest: &Digest) -> Answer {
    match without_test() {
        Some(answer) => answer,
        None => test_and_cache(qemu, kernel, cache_file(&qemu.line, kernel_digest).as_deref()).await,
    }
}

/// The result if no test is needed: the device cannot be opened, or an enclave would boot but start no service.
fn without_test() -> Option<Answer> {
    match fs::File::options().read(true).write(true).open(DEVICE) {
        Err(error) => Some(unopened(&error)),
        Ok(_) => without_random_bits(&fs::read_to_string("/proc/cpuinfo").ok()?),
    }
}

/// The result if this processor gives its guests no random bits. No other source on the host is trusted, so init would not
/// start any service; the processor that TCG emulates has them.
fn without_random_bits(cpuinfo: &str) -> Option<Answer> {
    let mut lists = cpuinfo.lines().filter_map(|line| {
        let (key, flags) = line.split_once(':')?;
        matches!(key.trim(), "flags" | "Features").then_some(flags)
    });
    let has = lists.next()?.split_whitespace().any(|flag| flag == RANDOM_FLAG);
    (!has).then(|| {
        let flag = RANDOM_FLAG.to_uppercase();
        Answer::no(
            Keep::Never,
            format!("the host's processor has no {flag}, the only source of random bits that an enclave on KVM trusts"),
        )
    })
}

fn unopened(error: &std::io::Error) -> Answer {
    let (why, fix) = match error.kind() {
        ErrorKind::NotFound => {
            (format!("this host has no {DEVICE}"), Some("modprobe kvm_intel || modprobe kvm_amd"))
        }
        ErrorKind::PermissionDenied => (
            format!("{DEVICE}: permission denied: on most systems the group kvm is allowed to open it"),
            Some("sudo usermod --append --groups kvm \"$USER\", then log in again"),
        ),
        _ => (format!("cannot open {DEVICE}: {error}"), None),
    };
    Answer { fix, ..Answer::no(Keep::Never, why) }
}

async fn test_and_cache(qemu: &Found, kernel: &AnonymousFile, cached: Option<&Path>) -> Answer {
    let answer = match trial::boot(&qemu.path, kernel).await {
        Verdict::Works => Answer::yes(),
        Verdict::Broken(why) => Answer::no(Keep::Always, why),
        Verdict::Failed(why) => Answer::no(Keep::Shortly, why),
        Verdict::NotTried(why) => Answer::no(Keep::Never, why),
    };
    if let Some(path) = cached {
        store(path, &answer);
    }
    answer
}

fn store(path: &Path, answer: &Answer) {
    // Without a cached result, the next launch repeats the test.
    drop(match (answer.keep, serde_json::to_vec(answer)) {
        (Keep::Always | Keep::Shortly, Ok(text)) => fs::write(path, text),
        _ => fs::remove_file(path),
    });
}

/// The result in this file, if it is still valid. For a negative one, the reason names the file.
fn load(path: &Path) -> Option<Answer> {
    let mut answer: Answer = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    // A modification time in the future comes from a wrong clock: the file is not used.
    let age = fs::metadata(path).ok()?.modified().ok()?.elapsed();
    if answer.keep != Keep::Always && age.map_or(true, |age| age > TEMPORARY) {
        return None;
    }
    if !answer.works {
        let from = format!(" (cached in {}; `host-sleeve doctor` repeats the test)", path.display());
        answer.why.push_str(&from);
    }
    Some(answer)
}

fn cache_file(version: &str, kernel: &Digest) -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let key = Digest::of(format!("{version}\n{kernel}\n{boot}").as_bytes());
    Some(install::cache("kvm").ok()?.join(key.hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_negative_result_expires_and_a_permanent_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answer");
        let age = |age: Duration| {
            let file = fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        };
        let later = TEMPORARY + Duration::from_secs(1);
        store(&path, &Answer::no(Keep::Shortly, "the host was busy"));
        let again = load(&path).unwrap();
        assert!(again.why.contains(path.to_str().unwrap()) && again.why.contains("doctor"), "{again:?}");
        age(later);
        assert_eq!(load(&path), None);
        for answer in [Answer::yes(), Answer::no(Keep::Always, "a KVM internal error")] {
            store(&path, &answer);
            age(later);
            assert_eq!(load(&path).unwrap().works, answer.works);
        }
    }

    #[test]
    fn nothing_is_cached_if_nothing_was_tested() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answer");
        store(&path, &Answer::yes());
        store(&path, &Answer::no(Keep::Never, "QEMU cannot be started"));
        assert_eq!(load(&path), None);
        // A file of an older version does not state how long it is valid.
        fs::write(&path, r#"{"works":false,"why":"busy"}"#).unwrap();
        assert_eq!(load(&path).unwrap().keep, Keep::Shortly);
    }

    #[test]
    fn a_device_without_permission_is_reported_with_the_command_that_grants_it() {
        let answer = unopened(&ErrorKind::PermissionDenied.into());
        assert!(answer.why.contains("permission denied"), "{answer:?}");
        assert!(answer.fix.unwrap().contains("kvm"), "{answer:?}");
    }

    #[test]
    fn a_processor_without_random_bits_is_not_used_with_kvm() {
        let cpuinfo = |flags: &str| {
            format!("processor\t: 0\nmodel name\t: QEMU\nflags\t\t: fpu {flags} svm\nbugs\t\t:\n")
        };
        assert_eq!(without_random_bits(&cpuinfo(RANDOM_FLAG)), None);
        let answer = without_random_bits(&cpuinfo("rdrandom aes")).unwrap();
        assert!(answer.why.contains(&RANDOM_FLAG.to_uppercase()) && answer.keep == Keep::Never, "{answer:?}");
        // If the kernel lists no flags, the test decides.
        assert_eq!(without_random_bits("processor\t: 0\n"), None);
    }
}
