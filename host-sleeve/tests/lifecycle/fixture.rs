//! The fixture of a test: a directory, an enclave image, and `host-sleeve` with the simulated machine in its `PATH`.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cloister_image::artifact::{Part, Writer};
use serde_json::Value;

use super::machine;

/// The directory of one test.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// The signal that killed it.
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Place {
    /// A new directory with an image.
    pub(crate) fn new() -> Self {
        let place = Self { directory: tempfile::Builder::new().prefix("sleeve-").tempdir().unwrap() };
        fs::create_dir(place.path().join("bin")).unwrap();
        let this = std::env::current_exe().unwrap();
        for name in [machine::QEMU, machine::VSOCK] {
            std::os::unix::fs::symlink(&this, place.path().join("bin").join(name)).unwrap();
        }
        place.write_image();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the state directory.
    pub(crate) fn runtime(&self, name: &str) -> PathBuf {
        self.path().join("run").join(name)
    }

    /// The running simulated programs of this test.
    pub(crate) fn processes(&self) -> Vec<String> {
        let bin = self.path().join("bin").display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(&bin)).collect()
    }

    /// The path of the image.
    pub(crate) fn app(&self) -> String {
        self.path().join("app.cloister").display().to_string()
    }

    /// `host-sleeve` with these arguments, and a guest that runs `script`.
    pub(crate) fn command(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-sleeve"));
        command
            .args(args)
            .env("PATH", self.path().join("bin"))
            .env("CLOISTER_RUNTIME_DIR", self.path().join("run"))
            .env("CLOISTER_CACHE", self.path().join("cache"))
            // The simulated device is used even if the host's kernel has one.
            .env("CLOISTER_VSOCK", "user")
            .env("FAKE_GUEST", script)
            .stdin(Stdio::null());
        command
    }

    /// Runs `host-sleeve` until it exits.
    pub(crate) fn sleeve(&self, script: &str, args: &[&str]) -> Ended {
        Ended::from(self.command(script, args).output().unwrap())
    }

    /// `host-sleeve run` in the foreground, as `web`, until it exits.
    pub(crate) fn run(&self, script: &str, args: &[&str]) -> Ended {
        let app = self.app();
        let all: Vec<&str> =
            ["run", &app, "--name", "web", "--accel", "tcg"].iter().chain(args).copied().collect();
        self.sleeve(script, &all)
    }

    /// `host-sleeve run` in the foreground, as `web`; returns when the enclave is ready.
    pub(crate) fn start(&self, script: &str, args: &[&str]) -> Running {
        let app = self.app();
        let all: Vec<&str> =
            ["run", &app, "--name", "web", "--accel", "tcg"].iter().chain(args).copied().collect();
        Self::start_command(self.command(script, &all))
    }

    /// Starts a run in the foreground; returns when the enclave is ready.
    pub(crate) fn start_command(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let mut printed = Vec::new();
        while !String::from_utf8_lossy(&printed).contains("is ready") {
            let mut piece = [0; 256];
            let count = stderr.read(&mut piece).unwrap();
            assert!(count > 0, "ended before it was ready: {}", String::from_utf8_lossy(&printed));
            printed.extend_from_slice(&piece[..count]);
        }
        Running { child, stderr, printed }
    }

    /// `host-sleeve inspect web --json`.
    pub(crate) fn inspect(&self) -> Value {
        self.sleeve("", &["inspect", "web", "--json"]).json()
    }

    fn write_image(&self) {
        let mut writer = Writer::new(&self.path().join("app.cloister")).unwrap();
        for (part, bytes) in [
            (Part::Kernel, "kernel"),
            (Part::OsRamdisk, "os ramdisk"),
            (Part::AppRamdisk, "app ramdisk"),
            (Part::CommandLine, "console=ttyS0 quiet"),
            (Part::Manifest, MANIFEST),
            (Part::OsRelease, &release()),
            (Part::BuildRecord, "{}"),
        ] {
            writer.bytes(part, bytes.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
    }
}

/// The record of the release, as far as commands read it.
fn release() -> String {
    let file = serde_json::json!({"sha256": "00".repeat(32), "bytes": 1});
    let arch = std::env::consts::ARCH;
    serde_json::json!({"version": "0.1.0", "arch": arch, "kernel": file, "ramdisk": file, "cmdline": ""})
        .to_string()
}

impl Drop for Place {
    fn drop(&mut self) {
        // A failed test leaves nothing running.
        let names = self.sleeve("", &["ps", "--quiet"]).text();
        for name in names.lines() {
            drop(self.sleeve("", &["stop", "--kill", name]));
        }
    }
}

/// A run in the foreground that is ready.
pub(crate) struct Running {
    child: Child,
    stderr: std::process::ChildStderr,
    printed: Vec<u8>,
}

impl Running {
    /// The sleeve's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to it.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it exits.
    pub(crate) fn end(mut self) -> Ended {
        self.stderr.read_to_end(&mut self.printed).unwrap();
        let mut ended = Ended::from(self.child.wait_with_output().unwrap());
        ended.stderr = String::from_utf8_lossy(&self.printed).into_owned();
        ended
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let (code, signal) = (output.status.code(), output.status.signal());
        Self { code, signal, stdout: output.stdout, stderr }
    }
}

impl Ended {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether a shell sees 130: as the exit code, or because SIGINT killed it before a handler was installed.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.code == Some(130) || self.signal == Some(2)
    }

    /// Fails the test unless it exited with this code and printed this to standard error.
    pub(crate) fn with(&self, code: i32, printed: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(printed), "no {printed:?} in {self:?}");
    }
}

/// Whether a process has exited; it may still wait to be reaped.
pub(crate) fn is_gone(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

const MANIFEST: &str = r#"{"version":1,"name":"hello","platforms":["nitro","tdx","snp","virtual"],"services":[{"name":"web","kind":"service","argv":["/bin/web"],"env":{},"cwd":"/","first_process":"cloister","uid":0,"gid":0,"groups":[],"after":[],"requires":[],"ready":"started","start_timeout_ms":1000,"live":null,"restart":{"policy":"never","delay_ms":1,"max_delay_ms":1,"stable_ms":1,"burst":1},"critical":true,"stop_signal":15,"stop_timeout_ms":1000,"logs":"forward","limits":{"memory":null,"cpu_millis":null,"pids":null,"open_files":1024},"isolation":{"capabilities":[],"allow_syscalls":[],"writable":null},"files":[],"sealed":{}}],"ingress":[{"port":80,"service":"web","target":8080,"proxy_protocol":false}],"root":{"writable_bytes":1048576,"additions":[],"pinned":[]},"control":{"host":[],"services":[]},"attestation":{"port":null,"services":{}},"stop_timeout_ms":1000,"debug":false}"#;
