//! The lab of one scenario: its own directory, the built programs, and everything that it started.
//!
//! Invariant: what a scenario starts ends with it, and a wait always has a deadline and an event, never a fixed sleep.

mod command;
mod disk;
pub(crate) mod http;
mod monitor;
mod release;
mod running;

pub use command::{Finished, Sleeve};
pub use http::Answer;
pub use monitor::Monitor;
pub use release::Release;
pub use running::{Running, phase};

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::scenario::{Failure, Shared, Vsock, expect};

/// Time limit for a boot until the service answers. A boot takes two to four seconds on two busy cores under TCG; anything
/// longer than this is a hang.
pub const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// Time limit for an ordinary command, for the same reason.
pub const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// Time limit for the build of a large image: a gigabyte is compressed at about 50 MB a second on one core.
pub const BUILD_LIMIT: Duration = Duration::from_mins(5);

/// Where the built programs are.
#[derive(Clone, Debug)]
pub struct Built {
    /// The install tree of `scripts/build`.
    pub dist: PathBuf,
    /// The static guest half (the probe).
    pub probe: PathBuf,
    /// The guest's programs, as they are packed into ramdisk 1, and the test programs in `examples`.
    pub guest: PathBuf,
    /// The script that creates real images and prints their paths.
    pub inputs: PathBuf,
    /// The kernel for tests, an image of `scripts/kernel --variant tsm-test`, if it was given.
    pub test_kernel: Option<PathBuf>,
    /// The vsock implementation of the enclaves.
    pub vsock: Vsock,
}

/// The lab of one scenario.
#[derive(Debug)]
pub struct Lab {
    name: String,
    folder: tempfile::TempDir,
    built: Built,
    images: u32,
}

impl Lab {
    /// An empty lab for the scenario `name`.
    pub fn new(name: &str, built: &Built) -> std::io::Result<Self> {
        // Socket paths are limited to 108 bytes (unix(7)), so the directory's name is short.
        let folder = tempfile::Builder::new().prefix("cl-").tempdir()?;
        fs::create_dir(folder.path().join("run"))?;
        Ok(Self { name: name.to_owned(), folder, built: built.clone(), images: 0 })
    }

    /// Keeps the lab's directory after the scenario.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// The lab's directory, removed after the scenario.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The programs under test.
    #[must_use]
    pub fn built(&self) -> &Built {
        &self.built
    }

    /// A `host-sleeve` command line, in this lab's runtime directory.
    #[must_use]
    pub fn sleeve(&self, args: &[&str]) -> Sleeve {
        let sleeve =
            Sleeve::new(&self.built.dist.join("bin/host-sleeve"), &self.folder.path().join("run"), args);
        match self.built.vsock {
            Vsock::Program => sleeve.env("CLOISTER_VSOCK", "user"),
            // What `host-sleeve` uses by default if the device exists.
            Vsock::Kernel => sleeve,
        }
    }

    /// The vsock implementation of the enclaves here.
    #[must_use]
    pub fn vsock(&self) -> Vsock {
        self.built.vsock
    }

    /// Creates a root that contains only the probe.
    pub fn probe_root(&mut self) -> Result<PathBuf, Failure> {
        self.images = self.images.saturating_add(1);
        let root = self.folder.path().join(format!("root{}", self.images));
        for folder in ["etc", "tmp", "var"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n")?;
        fs::copy(&self.built.probe, root.join("probe"))?;
        fs::set_permissions(root.join("probe"), fs::Permissions::from_mode(0o755))?;
        Ok(root)
    }

    /// Writes `manifest`, with every `PROBE` in it replaced by the command that runs this scenario's guest half.
    pub fn manifest(&self, manifest: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join(format!("cloister{}.yaml", self.images));
        fs::write(&path, manifest.replace("PROBE", &format!("/probe, {}", self.name)))?;
        Ok(path)
    }

    /// Builds an image of `root` with `manifest` and returns its path.
    pub fn build(&self, root: &Path, manifest: &Path) -> Result<PathBuf, Failure> {
        self.build_on(None, root, manifest)
    }

    /// The same on the OS release in `os`, if given.
    fn build_on(&self, os: Option<&Path>, root: &Path, manifest: &Path) -> Result<PathBuf, Failure> {
        let image = self.folder.path().join(format!("app{}.cloister", self.images));
        let from = format!("dir:{}", root.display());
        let args = ["build", "--image", &from, "--manifest", path_str(manifest)?, "-o", path_str(&image)?];
        let mut build = self.sleeve(&args);
        if let Some(os) = os {
            build = build.env("CLOISTER_OS", path_str(os)?);
        }
        let packed = build.finish()?;
        expect(packed.code == Some(0), format_args!("host-sleeve build failed:\n{}", packed.stderr))?;
        Ok(image)
    }

    /// Builds an image of this scenario's guest half on a modified OS release.
    pub fn image_on(&mut self, release: &Release, manifest: &str) -> Result<PathBuf, Failure> {
        let root = self.probe_root()?;
        let os = self.pack(release)?;
        let manifest = self.manifest(manifest)?;
        self.build_on(Some(&os), &root, &manifest)
    }

    /// Builds an image whose services run this scenario's guest half.
    pub fn image(&mut self, manifest: &str) -> Result<PathBuf, Failure> {
        let root = self.probe_root()?;
        let manifest = self.manifest(manifest)?;
        self.build(&root, &manifest)
    }

    /// Builds and starts an enclave in the foreground of its own process, as `web`, with these additional arguments.
    pub fn boot(&mut self, manifest: &str, args: &[&str]) -> Result<Running, Failure> {
        let image = self.image(manifest)?;
        self.run(&image, args)
    }

    /// Builds and starts the machine shared by these scenarios, as `web`.
    pub fn boot_shared(&mut self, scenarios: &[&Shared]) -> Result<Running, Failure> {
        let root = self.probe_root()?;
        let services = scenarios.iter().map(|one| {
            let lines = one.services.trim_matches('\n');
            lines.replace("PROBE", &format!("/probe, {}", one.name)) + "\n"
        });
        let control: Vec<_> = scenarios.iter().flat_map(|one| one.control).copied().collect();
        let head = format!(
            "version: 1\ncontrol: {{host: [signal], services: [{}]}}\nservices:\n",
            control.join(", ")
        );
        let path = self.folder.path().join("shared.yaml");
        fs::write(&path, head + &services.collect::<String>())?;
        let image = self.build(&root, &path)?;
        self.run(&image, &[])
    }

    /// The same with an init next to which a process sends signals for services ([`crate::guest::send_from_outside`]).
    pub fn boot_with_sender(&mut self, manifest: &str, args: &[&str]) -> Result<Running, Failure> {
        let image = self.image_on(&Release::default().with_trial("signals"), manifest)?;
        self.run(&image, args)
    }

    /// Starts an enclave from a built image, as `web`, with these additional arguments.
    pub fn run(&self, image: &Path, args: &[&str]) -> Result<Running, Failure> {
        self.run_with(image, args, &[])
    }

    /// The same, with additional environment variables.
    pub fn run_with(
        &self,
        image: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Running, Failure> {
        let mut all = vec!["run", path_str(image)?, "--name", "web"];
        all.extend_from_slice(args);
        Running::start(self, &all, variables)
    }

    /// The path of a real image, which is created if this machine does not have it yet.
    pub fn input(&self, name: &str) -> Result<String, Failure> {
        let made = Command::new(&self.built.inputs).arg(name).output()?;
        let stderr = String::from_utf8_lossy(&made.stderr);
        expect(made.status.success(), format_args!("cannot create the input {name}:\n{stderr}"))?;
        Ok(String::from_utf8_lossy(&made.stdout).trim().to_owned())
    }

    /// Builds an image from a real one, in the form that `host-sleeve build --image` accepts.
    pub fn build_from(&mut self, reference: &str, manifest: &str) -> Result<PathBuf, Failure> {
        self.images = self.images.saturating_add(1);
        let manifest = self.manifest(manifest)?;
        let image = self.folder.path().join(format!("app{}.cloister", self.images));
        let args =
            ["build", "--image", reference, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?];
        let built = self.sleeve(&args).limit(BUILD_LIMIT).finish()?;
        expect(built.code == Some(0), format_args!("host-sleeve build failed:\n{}", built.stderr))?;
        Ok(image)
    }

    /// A TCP port on loopback on which nothing listens now.
    pub fn free_port(&self) -> Result<u16, Failure> {
        Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
    }
}

/// A path as a command line argument.
pub fn path_str(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| Failure::failed("a path of the lab is not UTF-8"))
}
