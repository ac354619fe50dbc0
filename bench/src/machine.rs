//! The machine the guest half runs in: QEMU's microvm under TCG, and vhost-device-vsock.
//!
//! Its law: both end with the value that stands for them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloister_image::cpio::{Header, Writer};

/// How long the guest may take until its first port answers.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// What is needed to boot.
#[derive(Debug)]
pub struct Parts {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its command line.
    pub cmdline: String,
    /// The program that becomes PID 1.
    pub init: PathBuf,
    /// The vsock device.
    pub vsock: PathBuf,
    /// Further programs and their libraries, by their paths on this machine.
    pub files: Vec<PathBuf>,
    /// Virtual CPUs.
    pub cpus: u32,
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    folder: tempfile::TempDir,
    _vsock: Ended,
    qemu: Ended,
}

impl Machine {
    /// Boots, and returns when the kernel has been started.
    pub fn boot(parts: &Parts) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("clb-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        pack(parts, &at("ramdisk"))?;
        let device =
            format!("guest-cid=4,socket={},uds-path={}", at("vhost").display(), at("vsock").display());
        let vsock = Ended(Command::new(&parts.vsock).args(["--vm", &device]).stderr(Stdio::null()).spawn()?);
        wait_for(&at("vhost"))?;
        let console = File::create(at("console"))?;
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "microvm,acpi=off,memory-backend=mem0", "-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-object", "memory-backend-memfd,id=mem0,size=512M,share=on", "-m", "512M"])
            .args(["-smp", &parts.cpus.to_string(), "-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args([
                OsStr::new("-kernel"),
                parts.kernel.as_ref(),
                OsStr::new("-initrd"),
                at("ramdisk").as_ref(),
            ])
            .args(["-append", &parts.cmdline])
            .args(["-chardev", &format!("socket,id=c,path={}", at("vhost").display())])
            .args(["-device", "vhost-user-vsock-device,chardev=c"])
            .stdin(Stdio::null())
            .stdout(console)
            .spawn()?;
        Ok(Self { folder, _vsock: vsock, qemu: Ended(qemu) })
    }

    /// The socket of its vsock device.
    #[must_use]
    pub fn vsock(&self) -> PathBuf {
        self.folder.path().join("vsock")
    }

    /// What its console has said.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read_to_string(self.folder.path().join("console")).unwrap_or_default()
    }

    /// Processor seconds that QEMU has spent so far: the guest's work, whatever else the host is doing.
    ///
    /// From the first number of `schedstat` of every thread, which is nanoseconds on a processor
    /// (`Documentation/scheduler/sched-stats.rst` of Linux).
    pub fn work(&self) -> io::Result<f64> {
        let mut seconds = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.qemu.0.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let spent = text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
            seconds += spent.unwrap_or_default() / 1e9;
        }
        Ok(seconds)
    }

    /// Waits until a port of the guest is listened on.
    pub async fn answers(&self, port: u32) -> io::Result<()> {
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
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // One that is gone already needs neither.
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

/// A ramdisk of the init program and the further files, at their own paths.
fn pack(parts: &Parts, to: &Path) -> io::Result<()> {
    let mut archive = Writer::new(io::BufWriter::new(File::create(to)?));
    let mode = Header { mode: 0o755, ..Header::default() };
    let mut folders = vec![PathBuf::from("/proc"), PathBuf::from("/dev"), PathBuf::from("/tmp")];
    for file in &parts.files {
        folders
            .extend(file.ancestors().skip(1).filter(|folder| folder.parent().is_some()).map(PathBuf::from));
    }
    folders.sort();
    folders.dedup();
    for folder in folders {
        archive.directory(inside(&folder), mode).map_err(io::Error::other)?;
    }
    let init = (PathBuf::from("/init"), parts.init.clone());
    for (name, from) in parts.files.iter().map(|file| (file.clone(), file.clone())).chain([init]) {
        let mut content = File::open(&from)?;
        let size = content.metadata()?.len();
        archive.file(inside(&name), mode, size, &mut content).map_err(io::Error::other)?;
    }
    archive.finish().map_err(io::Error::other)?;
    Ok(())
}

fn inside(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes)
}
