//! The trial boot that shows whether KVM works.
//!
//! Its law: KVM is proved by what a kernel prints on it, within a limit. What ends a trial otherwise is named, together with
//! what else the host was doing: a busy host is no broken one.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time;

use super::boot::Nameless;
use super::children::Program;

/// The device.
pub(super) const DEVICE: &str = "/dev/kvm";

/// How long one trial may take. A kernel needs less than a second to its panic on a real processor; on a busy host whose KVM
/// is itself emulated, ten were seen.
const LIMIT: Duration = Duration::from_secs(15);

/// How often a trial is made whose failure may have been an accident: a moment without time or memory.
const TRIES: u32 = 2;

/// What the trial kernel prints when it has come as far as it can without a ramdisk.
const PROOF: &[u8] = b"Kernel panic - not syncing";

/// What QEMU prints when the host cannot go on running the guest.
const DISPROOF: &[u8] = b"KVM internal error";

/// More than a kernel prints until it panics.
const MAX_OUTPUT: usize = 256 * 1024;

/// How much of QEMU's last line is shown, in characters.
const MAX_SAID: usize = 200;

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The kernel booted.
    Works,
    /// The host cannot run it, now or later.
    Broken(String),
    /// It did not come to its end; another time it may.
    Failed(String),
    /// It could not even be started.
    NotTried(String),
}

impl Verdict {
    /// Whether another trial may come to another end.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// The last verdict of all tries.
    fn at_last(self) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{why} ({TRIES} tries; {})", load())),
            other => other,
        }
    }
}

/// Boots this kernel on KVM with this QEMU until the answer is clear, or the tries are used up.
pub(super) async fn boot(qemu: &Path, kernel: &Nameless) -> Verdict {
    let mut verdict = once(qemu, kernel).await;
    for _ in 1..TRIES {
        if verdict.may_pass() {
            verdict = once(qemu, kernel).await;
        }
    }
    verdict.at_last()
}

async fn once(qemu: &Path, kernel: &Nameless) -> Verdict {
    let kept = match kernel.share() {
        Ok(kept) => kept,
        Err(error) => return Verdict::NotTried(error.to_string()),
    };
    let started = Program::start("QEMU", qemu, argv(&kept.path()), Path::new("/"), vec![kept.into_fd()]);
    let mut program = match started {
        Ok(program) => program,
        Err(error) => return Verdict::NotTried(error.to_string()),
    };
    let Some(output) = program.stdout() else {
        return Verdict::NotTried("QEMU has no output".to_owned());
    };
    let proved = time::timeout(LIMIT, proves(output)).await;
    program.kill().await;
    let said = program.said().await.unwrap_or_default();
    match proved {
        Ok(true) => Verdict::Works,
        _ if contains(said.as_bytes(), DISPROOF) => {
            Verdict::Broken(format!("a trial boot on {DEVICE} ended with a KVM internal error"))
        }
        Ok(false) => Verdict::Failed(broken_off(&said)),
        Err(_) => {
            Verdict::Failed(format!("a trial boot on {DEVICE} did not finish within {} s", LIMIT.as_secs()))
        }
    }
}

fn broken_off(said: &str) -> String {
    let last: String = said.lines().last().unwrap_or_default().chars().take(MAX_SAID).collect();
    let colon = if last.is_empty() { "" } else { ": " };
    format!("a trial boot on {DEVICE} failed{colon}{last}")
}

/// How busy the host is (`proc_loadavg(5)`): runnable tasks over the last minute, beside the processors there are for them.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown");
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    format!("load {load} on {cpus} CPUs")
}

/// Reads a trial's console until it proves that KVM works, or ends.
async fn proves(mut output: impl AsyncRead + Unpin) -> bool {
    let mut window = Window::default();
    let mut buffer = [0; 4096];
    let mut read: usize = 0;
    while read < MAX_OUTPUT {
        let Ok(count @ 1..) = output.read(&mut buffer).await else { break };
        read = read.saturating_add(count);
        if window.shows(PROOF, buffer.get(..count).unwrap_or_default()) {
            return true;
        }
    }
    false
}

/// The end of a stream: as much as what is looked for may have begun in.
#[derive(Debug, Default)]
struct Window(Vec<u8>);

impl Window {
    /// Whether `wanted` is in the stream with `piece` as its newest part. Each byte is looked at once, however it arrives.
    fn shows(&mut self, wanted: &[u8], piece: &[u8]) -> bool {
        self.0.extend_from_slice(piece);
        let found = contains(&self.0, wanted);
        let over = self.0.len().saturating_sub(wanted.len().saturating_sub(1));
        self.0.drain(..over);
        found
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// QEMU's arguments for a trial: the kernel alone, which panics for want of an init and reboots. It is quiet until then: each
/// character on an emulated serial port takes two exits to QEMU, which was most of a trial's time.
fn argv(kernel: &Path) -> Vec<String> {
    let words = "-machine microvm,acpi=off -accel kvm -cpu host -m 128M -display none -serial stdio -nodefaults \
                 -no-user-config -no-reboot -append";
    let mut argv: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    argv.push("console=ttyS0 quiet reboot=t panic=-1".to_owned());
    argv.extend(["-kernel".to_owned(), kernel.display().to_string()]);
    argv
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What comes of a QEMU that is this script, which knows by `$TRY` how often it was started; and how often that was.
    async fn boots(script: &str) -> (Verdict, usize) {
        let dir = tempfile::tempdir().unwrap();
        let (qemu, tries) = (dir.path().join("qemu"), dir.path().join("tries"));
        let count = format!("echo >>{0}; TRY=$(wc -l <{0})", tries.display());
        fs::write(&qemu, format!("#!/bin/sh\n{count}\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        let kernel = Nameless::from_file(fs::File::open("/dev/null").unwrap());
        let verdict = boot(&qemu, &kernel).await;
        (verdict, fs::read_to_string(tries).unwrap().lines().count())
    }

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
    fn a_proof_in_pieces_is_found_and_no_more_is_kept_than_a_part_of_it() {
        let mut window = Window::default();
        let console = [b"Linux version 6.12\n".repeat(1000).as_slice(), PROOF].concat();
        let shown: Vec<bool> = console.chunks(7).map(|piece| window.shows(PROOF, piece)).collect();
        assert_eq!(shown.iter().position(|shown| *shown), Some(shown.len() - 1));
        assert!(window.0.len() < PROOF.len());
    }

    #[tokio::test]
    async fn a_trial_that_failed_is_made_again() {
        let second = r#"[ "$TRY" = 1 ] || echo "Kernel panic - not syncing""#;
        assert_eq!(boots(second).await, (Verdict::Works, 2));
    }

    #[tokio::test]
    async fn what_failed_in_every_try_is_told_with_the_hosts_load() {
        let (verdict, tries) = boots("echo no memory >&2; exit 1").await;
        assert_eq!(tries, 2);
        let Verdict::Failed(why) = verdict else { panic!("{verdict:?}") };
        assert!(why.contains("failed: no memory (2 tries; load "), "{why}");
        assert!(why.ends_with(" CPUs)"), "{why}");
    }

    #[tokio::test]
    async fn a_clear_answer_needs_one_trial() {
        assert_eq!(boots("echo Kernel panic - not syncing").await, (Verdict::Works, 1));
        let (verdict, tries) = boots("echo KVM internal error >&2").await;
        assert!(matches!(verdict, Verdict::Broken(_)) && tries == 1, "{verdict:?}, {tries}");
    }

    #[test]
    fn what_qemu_said_last_is_told() {
        assert_eq!(broken_off("one\ntwo"), "a trial boot on /dev/kvm failed: two");
        assert_eq!(broken_off(""), "a trial boot on /dev/kvm failed");
    }
}
