//! What a story needs: a folder, an enclave image, and `host-sleeve` with the played machine in its `PATH`.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cloister_image::artifact::{Part, Writer};
use serde_json::Value;

use super::machine;

/// The place of one story.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Place {
    /// An empty place with an image.
    pub(crate) fn new() -> Self {
        let place = Self { folder: tempfile::Builder::new().prefix("sleeve-").tempdir().unwrap() };
        fs::create_dir(place.path().join("bin")).unwrap();
        let this = std::env::current_exe().unwrap();
        for name in [machine::QEMU, machine::VSOCK] {
            std::os::unix::fs::symlink(&this, place.path().join("bin").join(name)).unwrap();
        }
        place.write_image();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Something in the runtime folder.
    pub(crate) fn runtime(&self, name: &str) -> PathBuf {
        self.path().join("run").join(name)
    }

    /// The played machines of this place that run.
    pub(crate) fn processes(&self) -> Vec<String> {
        let bin = self.path().join("bin").display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with(&bin)).collect()
    }

    /// The image.
    pub(crate) fn app(&self) -> String {
        self.path().join("app.cloister").display().to_string()
    }

    /// `host-sleeve` with these words, and a guest that follows `script`.
    pub(crate) fn command(&self, script: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-sleeve"));
        command
            .args(words)
            .env("PATH", self.path().join("bin"))
            .env("CLOISTER_RUNTIME_DIR", self.path().join("run"))
            .env("CLOISTER_CACHE", self.path().join("cache"))
            // The device is played where the host's kernel has one as well.
            .env("CLOISTER_VSOCK", "user")
            .env("FAKE_GUEST", script)
            .stdin(Stdio::null());
        command
    }

    /// Runs `host-sleeve` to its end.
    pub(crate) fn sleeve(&self, script: &str, words: &[&str]) -> Ended {
        Ended::from(self.command(script, words).output().unwrap())
    }

    /// `host-sleeve run` in the foreground, as `web`, to its end.
    pub(crate) fn run(&self, script: &str, words: &[&str]) -> Ended {
        let app = self.app();
        let all: Vec<&str> =
            ["run", &app, "--name", "web", "--accel", "tcg"].iter().chain(words).copied().collect();
        self.sleeve(script, &all)
    }

    /// `host-sleeve run` in the foreground, as `web`, left running; answers when it is ready.
    pub(crate) fn start(&self, script: &str, words: &[&str]) -> Running {
        let app = self.app();
        let all: Vec<&str> =
            ["run", &app, "--name", "web", "--accel", "tcg"].iter().chain(words).copied().collect();
        Self::start_command(self.command(script, &all))
    }

    /// A run in the foreground, left running; answers when it is ready.
    pub(crate) fn start_command(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("is ready") {
            let mut piece = [0; 256];
            let count = stderr.read(&mut piece).unwrap();
            assert!(count > 0, "ended before it was ready: {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&piece[..count]);
        }
        Running { child, stderr, said }
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
            (Part::OsRelease, "{}"),
            (Part::BuildRecord, "{}"),
        ] {
            writer.bytes(part, bytes.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A story that broke off leaves nothing running.
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
    said: Vec<u8>,
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

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        self.stderr.read_to_end(&mut self.said).unwrap();
        let mut ended = Ended::from(self.child.wait_with_output().unwrap());
        ended.stderr = String::from_utf8_lossy(&self.said).into_owned();
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

    /// Whether a shell sees 130: the code of our own, or the death of SIGINT before a handler is there.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.code == Some(130) || self.signal == Some(2)
    }

    /// Fails the story unless it ended with this code and said this.
    pub(crate) fn with(&self, code: i32, said: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(said), "no {said:?} in {self:?}");
    }
}

/// Whether a process is gone, or only waits to be reaped.
pub(crate) fn is_gone(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

const MANIFEST: &str = r#"{"version":1,"name":"hello","services":[{"name":"web","kind":"service","argv":["/bin/web"],"env":{},"cwd":"/","first_process":"cloister","uid":0,"gid":0,"groups":[],"after":[],"requires":[],"ready":"started","start_timeout_ms":1000,"live":null,"restart":{"policy":"never","delay_ms":1,"max_delay_ms":1,"stable_ms":1,"burst":1},"critical":true,"stop_signal":15,"stop_timeout_ms":1000,"logs":"forward","limits":{"memory":null,"cpu_millis":null,"pids":null,"open_files":1024},"isolation":{"capabilities":[],"allow_syscalls":[],"writable":null},"files":[],"sealed":{}}],"ingress":[{"port":80,"service":"web","target":8080,"proxy_protocol":false}],"root":{"writable_bytes":1048576,"additions":[],"pinned":[]},"control":{"host":[],"services":[]},"stop_timeout_ms":1000,"debug":false}"#;
