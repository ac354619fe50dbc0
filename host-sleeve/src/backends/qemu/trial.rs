//! The trial boot that shows whether KVM works.
//!
//! Invariant: KVM counts as working if a kernel prints the expected text on it within a time limit. If not, the cause is
//! reported together with the host's load: a busy host is not a broken one.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time;

use super::boot::AnonymousFile;
use super::children::Program;

/// The device.
pub(super) const DEVICE: &str = "/dev/kvm";

/// How long one trial may take. On a real processor a kernel panics in less than a second; on a busy host whose KVM is itself
/// emulated, ten seconds were seen.
const LIMIT: Duration = Duration::from_secs(15);

/// How many trials are made if a failure may be temporary, such as a moment without free CPU time or memory.
const TRIES: u32 = 2;

/// What the kernel prints when it has booted as far as it can without a ramdisk.
const PROOF: &[u8] = b"Kernel panic - not syncing";

/// What QEMU prints when the host cannot continue to run the guest.
const DISPROOF: &[u8] = b"KVM internal error";

/// Maximum output that is read: more than a kernel prints before it panics.
const MAX_OUTPUT: usize = 256 * 1024;

/// Maximum length of QEMU's last line in a message, in characters.
const MAX_SHOWN: usize = 200;

/// The result of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The kernel booted.
    Works,
    /// The host cannot run it, neither now nor later.
    Broken(String),
    /// It did not complete, but may do so another time.
    Failed(String),
    /// QEMU could not be started.
    NotTried(String),
}

impl Verdict {
    /// Whether another trial may have another result.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// The final verdict after all trials.
    fn at_last(self) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{why} ({TRIES} attempts; {})", load())),
            other => other,
        }
    }
}

/// Boots this kernel on KVM with this QEMU until the result is definite, or the trials are used up.
pub(super) async fn boot(qemu: &Path, kernel: &AnonymousFile) -> Verdict {
    let mut verdict = once(qemu, kernel).await;
    for _ in 1..TRIES {
        if verdict.may_pass() {
            verdict = once(qemu, kernel).await;
        }
    }
    verdict.at_last()
}

async fn once(qemu: &Path, kernel: &AnonymousFile) -> Verdict {
    let kernel = match kernel.share() {
        Ok(kernel) => kernel,
        Err(error) => return Verdict::NotTried(error.to_string()),
    };
    let started = Program::start("QEMU", qemu, argv(&kernel.path()), Path::new("/"), vec![kernel.into_fd()]);
    let mut program = match started {
        Ok(program) => program,
        Err(error) => return Verdict::NotTried(error.to_string()),
    };
    let Some(console) = program.stdout() else {
        return Verdict::NotTried("QEMU has no output".to_owned());
    };
    let proved = time::timeout(LIMIT, proves(console)).await;
    program.kill().await;
    let output = program.last_output().await.unwrap_or_default();
    match proved {
        Ok(true) => Verdict::Works,
        _ if contains(output.as_bytes(), DISPROOF) => {
            Verdict::Broken(format!("a trial boot on {DEVICE} ended with a KVM internal error"))
        }
        Ok(false) => Verdict::Failed(failed(&output)),
        Err(_) => {
            Verdict::Failed(format!("a trial boot on {DEVICE} did not finish within {} s", LIMIT.as_secs()))
        }
    }
}

fn failed(output: &str) -> String {
    let last: String = output.lines().last().unwrap_or_default().chars().take(MAX_SHOWN).collect();
    let colon = if last.is_empty() { "" } else { ": " };
    format!("a trial boot on {DEVICE} failed{colon}{last}")
}

/// How busy the host is (`proc_loadavg(5)`): runnable tasks over the last minute, and the number of processors.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown");
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    format!("load {load} on {cpus} CPUs")
}

/// Reads a trial's console until the output proves that KVM works, or ends.
async fn proves(mut output: impl AsyncRead + Unpin) -> bool {
    let mut window = Window::default();
    let mut buffer = [0; 4096];
    let mut read: usize = 0;
    while read < MAX_OUTPUT {
        let Ok(count @ 1..) = output.read(&mut buffer).await else { break };
        read = read.saturating_add(count);
        if window.matches(PROOF, buffer.get(..count).unwrap_or_default()) {
            return true;
        }
    }
    false
}

/// The end of a stream, as long as a partial match can be.
#[derive(Debug, Default)]
struct Window(Vec<u8>);

impl Window {
    /// Whether `wanted` occurs in the stream that `piece` continues. A match may span several pieces.
    fn matches(&mut self, wanted: &[u8], piece: &[u8]) -> bool {
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

/// QEMU's arguments for a trial: the kernel alone, which panics because it finds no init, and reboots. It is quiet until then:
/// each character on an emulated serial port takes two exits to QEMU, which took most of a trial's time.
fn argv(kernel: &Path) -> Vec<String> {
    let options = "-machine microvm,acpi=off -accel kvm -cpu host -m 128M -display none -serial stdio -nodefaults \
                 -no-user-config -no-reboot -append";
    let mut argv: Vec<String> = options.split_ascii_whitespace().map(str::to_owned).collect();
    argv.push("console=ttyS0 quiet reboot=t panic=-1".to_owned());
    argv.extend(["-kernel".to_owned(), kernel.display().to_string()]);
    argv
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Runs trials with this script as QEMU; `$TRY` is the number of the trial. Returns the verdict and the number of trials.
    async fn boots(script: &str) -> (Verdict, usize) {
        let dir = tempfile::tempdir().unwrap();
        let (qemu, tries) = (dir.path().join("qemu"), dir.path().join("tries"));
        let count = format!("echo >>{0}; TRY=$(wc -l <{0})", tries.display());
        fs::write(&qemu, format!("#!/bin/sh\n{count}\n{script}\n")).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        let kernel = AnonymousFile::from_file(fs::File::open("/dev/null").unwrap());
        let verdict = boot(&qemu, &kernel).await;
        (verdict, fs::read_to_string(tries).unwrap().lines().count())
    }

    #[tokio::test]
    async fn a_kernel_that_panics_without_an_init_proves_kvm() {
        let console = b"Linux version 6.12\nKernel panic - not syncing: VFS: Unable to mount root fs";
        assert!(proves(&console[..]).await);
    }

    #[tokio::test]
    async fn an_interrupted_boot_proves_nothing() {
        assert!(!proves(&b"Linux ver"[..]).await);
    }

    #[test]
    fn a_match_across_pieces_is_found_and_only_a_partial_match_is_retained() {
        let mut window = Window::default();
        let console = [b"Linux version 6.12\n".repeat(1000).as_slice(), PROOF].concat();
        let shown: Vec<bool> = console.chunks(7).map(|piece| window.matches(PROOF, piece)).collect();
        assert_eq!(shown.iter().position(|shown| *shown), Some(shown.len() - 1));
        assert!(window.0.len() < PROOF.len());
    }

    #[tokio::test]
    async fn a_failed_trial_is_repeated() {
        let second = r#"[ "$TRY" = 1 ] || echo "Kernel panic - not syncing""#;
        assert_eq!(boots(second).await, (Verdict::Works, 2));
    }

    #[tokio::test]
    async fn repeated_failure_is_reported_with_the_hosts_load() {
        let (verdict, tries) = boots("echo no memory >&2; exit 1").await;
        assert_eq!(tries, 2);
        let Verdict::Failed(why) = verdict else { panic!("{verdict:?}") };
        assert!(why.contains("failed: no memory (2 attempts; load "), "{why}");
        assert!(why.ends_with(" CPUs)"), "{why}");
    }

    #[tokio::test]
    async fn a_definite_result_needs_one_trial() {
        assert_eq!(boots("echo Kernel panic - not syncing").await, (Verdict::Works, 1));
        let (verdict, tries) = boots("echo KVM internal error >&2").await;
        assert!(matches!(verdict, Verdict::Broken(_)) && tries == 1, "{verdict:?}, {tries}");
    }

    #[test]
    fn qemus_last_line_is_reported() {
        assert_eq!(failed("one\ntwo"), "a trial boot on /dev/kvm failed: two");
        assert_eq!(failed(""), "a trial boot on /dev/kvm failed");
    }
}
