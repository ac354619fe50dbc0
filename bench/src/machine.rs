//! The machine of the guest half: QEMU's microvm under TCG, and vhost-device-vsock.
//!
//! Invariant: both processes end when the value that represents them is dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloister_image::cpio::{Header, Writer};
use cloister_sys::tsc::Meter;

/// Time limit until the guest's first port accepts connections.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// The processor that `host-sleeve` uses for a translated guest (`backends/qemu/argv.rs` there gives the reason).
const CPU: &str = "max,erms=off,fsrm=off";

/// The environment variable with the path of the plugin that counts instructions (`bench/counter`). What it counts does
/// not depend on other load of this machine. Virtual CPUs share one counter, so it is right for one of them only.
pub const COUNTER: &str = "CLOISTER_BENCH_COUNTER";

/// The inputs of a boot.
#[derive(Debug)]
pub struct Parts {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its command line.
    pub cmdline: String,
    /// The ramdisk, or several concatenated.
    pub ramdisk: PathBuf,
    /// The vsock device.
    pub vsock: PathBuf,
    /// Virtual CPUs.
    pub cpus: u32,
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    folder: tempfile::TempDir,
    started: Instant,
    _vsock: KillOnDrop,
    qemu: KillOnDrop,
}

impl Machine {
    /// Boots, and returns when QEMU has been started.
    pub fn boot(parts: &Parts) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("clb-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let clock = Meter::start();
        let device =
            format!("guest-cid=4,socket={},uds-path={}", at("vhost").display(), at("vsock").display());
        let vsock =
            KillOnDrop(Command::new(&parts.vsock).args(["--vm", &device]).stderr(Stdio::null()).spawn()?);
        wait_for(&at("vhost"))?;
        let khz = speed(clock);
        let console = File::create(at("console"))?;
        let counter = std::env::var(COUNTER)
            .ok()
            .into_iter()
            .flat_map(|plugin| ["-plugin".to_owned(), format!("{plugin},count={}", at("count").display())]);
        let started = Instant::now();
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "microvm,acpi=off,memory-backend=mem0", "-accel", "tcg,thread=multi", "-cpu", CPU])
            .args(["-object", "memory-backend-memfd,id=mem0,size=512M,share=on", "-m", "512M"])
            .args(["-smp", &parts.cpus.to_string(), "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args([
                OsStr::new("-kernel"),
                parts.kernel.as_ref(),
                OsStr::new("-initrd"),
                parts.ramdisk.as_ref(),
            ])
            .args(["-append", &cmdline(&parts.cmdline, khz)])
            .args(["-chardev", &format!("socket,id=c,path={}", at("vhost").display())])
            .args(["-device", "vhost-user-vsock-device,chardev=c"])
            .args(counter)
            .stdin(Stdio::null())
            .stdout(console)
            .spawn()?;
        Ok(Self { folder, started, _vsock: vsock, qemu: KillOnDrop(qemu) })
    }

    /// The time at which QEMU was started.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The socket of its vsock device.
    #[must_use]
    pub fn vsock(&self) -> PathBuf {
        self.folder.path().join("vsock")
    }

    /// The output on its console so far.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read_to_string(self.folder.path().join("console")).unwrap_or_default()
    }

    /// Waits until its console shows this text. Nothing may connect earlier: vhost-device-vsock 0.3.0 stops serving if a connection
    /// arrives while QEMU hands it the queues.
    pub async fn wait_for_console(&self, text: &str) -> io::Result<()> {
        while !self.console().contains(text) {
            if self.started.elapsed() > BOOT_LIMIT {
                return Err(io::Error::other(format!("no {text:?} on the console:\n{}", self.console())));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// The guest's work so far: thousands of instructions if they are counted, else microseconds of CPU time.
    pub fn work(&self) -> io::Result<f64> {
        if self.counts() { self.instructions() } else { self.cpu_time() }
    }

    /// What [`Self::work`] measures.
    #[must_use]
    pub fn unit_of_work(&self) -> &'static str {
        if self.counts() { "instructions of the guest, thousands" } else { "CPU time of QEMU, µs" }
    }

    /// Whether the guest's instructions are counted.
    fn counts(&self) -> bool {
        self.count().exists()
    }

    /// CPU time that QEMU has used so far: the guest's work, without the waits for a processor.
    ///
    /// From the first number in `schedstat` of every thread, the nanoseconds spent on a CPU
    /// (`Documentation/scheduler/sched-stats.rst` of Linux).
    fn cpu_time(&self) -> io::Result<f64> {
        let mut microseconds = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.qemu.0.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let spent = text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
            microseconds += spent.unwrap_or_default() / 1e3;
        }
        Ok(microseconds)
    }

    /// Thousands of instructions that the guest has executed so far, in its programs and its kernel.
    fn instructions(&self) -> io::Result<f64> {
        let count = fs::read(self.count())?;
        let count = count.first_chunk::<8>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let thousands = u64::from_ne_bytes(*count) / 1000;
        Ok(f64::from(u32::try_from(thousands).map_err(io::Error::other)?))
    }

    /// The file that contains the number of instructions.
    fn count(&self) -> PathBuf {
        self.folder.path().join("count")
    }

    /// Waits until a port of the guest accepts connections.
    pub async fn wait_for_port(&self, port: u32) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let dialled =
                tokio::time::timeout(Duration::from_secs(3), crate::client::dial(&self.vsock(), port)).await;
            match dialled {
                Ok(Ok(_)) => return Ok(()),
                _ if start.elapsed() < BOOT_LIMIT => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => {
                    return Err(io::Error::other(format!(
                        "port {port} does not answer:\n{}",
                        self.console()
                    )));
                }
            }
        }
    }
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail if the process has already exited.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait_for(path: &Path) -> io::Result<()> {
    let start = Instant::now();
    while !path.exists() {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(io::Error::other(format!("{} does not appear", path.display())));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// The rate of the time stamp counter: available after ten milliseconds, or never if there is no such counter.
fn speed(clock: Meter) -> Option<u32> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(50) {
        if let Some(khz) = clock.khz() {
            return Some(khz);
        }
        std::thread::yield_now();
    }
    None
}

/// The measured command line and the counter's rate, as passed by `host-sleeve` to a translated guest.
fn cmdline(measured: &str, khz: Option<u32>) -> String {
    khz.map_or_else(
        || measured.to_owned(),
        // The loops per tick of the delay loop, with 250 ticks a second (kernel-config/base.config).
        |khz| format!("{measured} tsc_early_khz={khz} lpj={}", u64::from(khz).saturating_mul(1000) / 250),
    )
}

/// Writes a ramdisk: each program of the host at its path in the guest, and the mount points of every init.
pub fn pack(programs: &[(PathBuf, PathBuf)], to: &Path) -> io::Result<()> {
    let mut archive = Writer::new(io::BufWriter::new(File::create(to)?));
    let mode = Header { mode: 0o755, ..Header::default() };
    let mut folders: Vec<PathBuf> = ["/proc", "/sys", "/dev", "/tmp"].map(PathBuf::from).into();
    for (name, _) in programs {
        folders
            .extend(name.ancestors().skip(1).filter(|folder| folder.parent().is_some()).map(PathBuf::from));
    }
    folders.sort();
    folders.dedup();
    for folder in folders {
        archive.directory(inside(&folder), mode).map_err(io::Error::other)?;
    }
    for (name, from) in programs {
        let mut content = File::open(from)?;
        let size = content.metadata()?.len();
        archive.file(inside(name), mode, size, &mut content).map_err(io::Error::other)?;
    }
    archive.finish().map_err(io::Error::other)?;
    Ok(())
}

fn inside(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes)
}
