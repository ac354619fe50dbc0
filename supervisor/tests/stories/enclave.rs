//! The enclave of a test: the stand-in for init and one supervisor after the other, each in its own runtime, so that a crash
//! drops all of its tasks at the same time.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use cloister_manifest::Manifest;
use cloister_net::{Entrance, Listener};
use cloister_supervisor::core::{Bind, Given, Setup, run};
use cloister_supervisor::world::{Addresses, Paths};
use cloister_wire::attestor::Provider;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::host::{Host, Reader};
use crate::manifest::ADMIN;
use crate::stand_in::StandIn;

static ENCLAVES: AtomicU32 = AtomicU32::new(0);

/// A running enclave.
pub(crate) struct Enclave {
    pub(crate) init: StandIn,
    folder: TempDir,
    addresses: Addresses,
    module: Module,
    supervisor: Option<Supervisor>,
}

/// The security module of an enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Module {
    None,
    /// `/dev/null`, on the platform `nitro`.
    Device,
    /// Hardware that could not be opened.
    Broken,
    /// A listener for the sleeve.
    Sleeve,
}

/// A running supervisor.
struct Supervisor {
    kill: oneshot::Sender<()>,
    /// Its result, if it was not killed.
    thread: JoinHandle<Option<Result<(), String>>>,
    runtime: Handle,
}

impl Enclave {
    /// Boots with this manifest.
    pub(crate) fn boot(manifest: &Manifest) -> Self {
        Self::boot_with(&manifest.to_json().unwrap())
    }

    /// Boots with this manifest; sockets of this process count as those of `service`.
    pub(crate) fn boot_as(service: &str, manifest: &Manifest) -> Self {
        let number = cloister_net::own_cgroup().unwrap();
        Self::boot_prepared(&manifest.to_json().unwrap(), Module::None, |init| {
            init.number_cgroup(service, number);
        })
    }

    /// Boots with these bytes as the manifest.
    pub(crate) fn boot_with(manifest: &[u8]) -> Self {
        Self::boot_prepared(manifest, Module::None, |_| {})
    }

    /// Boots with this manifest, and with a security module that refuses every request: `/dev/null`.
    pub(crate) fn boot_with_module(manifest: &Manifest) -> Self {
        Self::boot_prepared(&manifest.to_json().unwrap(), Module::Device, |init| init.pretend_to_be("nitro"))
    }

    /// Boots with this manifest on a platform whose hardware could not be opened.
    pub(crate) fn boot_with_broken_module(manifest: &Manifest) -> Self {
        Self::boot_prepared(&manifest.to_json().unwrap(), Module::Broken, |init| init.pretend_to_be("snp"))
    }

    /// Boots with this manifest on a platform where the supervisor could listen for the sleeve at [`Self::module`].
    pub(crate) fn boot_with_sleeve(platform: &'static str, manifest: &Manifest) -> Self {
        Self::boot_prepared(&manifest.to_json().unwrap(), Module::Sleeve, |init| init.pretend_to_be(platform))
    }

    /// Where the sleeve connects.
    pub(crate) fn module(&self) -> PathBuf {
        self.path("module")
    }

    /// Boots with this manifest on another platform.
    pub(crate) fn boot_on(platform: &'static str, manifest: &Manifest) -> Self {
        Self::boot_prepared(&manifest.to_json().unwrap(), Module::None, |init| init.pretend_to_be(platform))
    }

    fn boot_prepared(manifest: &[u8], module: Module, prepare: impl FnOnce(&StandIn)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        std::fs::create_dir_all(folder.path().join("proc/sys/net/ipv4")).unwrap();
        std::fs::create_dir_all(folder.path().join("proc/sys/kernel")).unwrap();
        let number = ENCLAVES.fetch_add(1, Ordering::Relaxed);
        let address = |name| {
            let name = format!("cloister-test-{}-{number}-{name}", std::process::id());
            SocketAddr::from_abstract_name(name).unwrap()
        };
        let addresses = Addresses {
            control: SocketAddr::from_pathname(folder.path().join("local-control")).unwrap(),
            logs: SocketAddr::from_pathname(folder.path().join("local-logs")).unwrap(),
            notify: address("notify"),
            attestation: address("attestation"),
            time: SocketAddr::from_pathname(folder.path().join("time")).unwrap(),
        };
        let init = StandIn::new(folder.path().join("proc"), folder.path().join("cgroups"));
        prepare(&init);
        let mut enclave = Self { init, folder, addresses, module, supervisor: None };
        enclave.start_supervisor();
        enclave
    }

    /// Stops the supervisor between two instructions.
    pub(crate) fn crash(&mut self) {
        let supervisor = self.supervisor.take().unwrap();
        supervisor.kill.send(()).unwrap();
        assert_eq!(supervisor.thread.join().unwrap(), None, "it had already exited");
    }

    /// Starts a supervisor, as init does.
    pub(crate) fn start_supervisor(&mut self) {
        let init = self.init.connect();
        let paths = Paths {
            manifest: self.path("manifest.json"),
            root: self.path("root"),
            cgroups: self.path("cgroups"),
            servants: self.path("servants"),
            proc: self.path("proc"),
        };
        let sockets = ["control", "logs"].map(|name| self.path(name));
        let ingress = self.path("ingress");
        let addresses = self.addresses.clone();
        let provider = match self.module {
            Module::Device => Ok(Some((Provider::Nsm, std::fs::File::open("/dev/null").unwrap().into()))),
            Module::Broken => Err(std::io::Error::other("the driver is defective")),
            Module::None | Module::Sleeve => Ok(None),
        };
        let sleeve = (self.module == Module::Sleeve).then(|| self.module());
        let (kill, killed) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let sockets = sockets.map(|path| {
                    drop(std::fs::remove_file(&path));
                    std::os::unix::net::UnixListener::bind(path).unwrap()
                });
                let [control, logs] = sockets;
                let host = |socket| Listener::from_unix(socket).unwrap();
                let setup = Setup {
                    init,
                    control: Entrance::host(host(control)),
                    logs: Entrance::host(host(logs)),
                    addresses,
                    paths,
                    clock: Ok(None),
                    seed: 1,
                    registers: Vec::new(),
                    servants: Given {
                        ingress: Box::new(|| Ok(std::os::unix::net::UnixListener::bind(ingress)?.into())),
                        provider,
                        sleeve: sleeve.map(|path| -> Bind {
                            Box::new(|| Ok(std::os::unix::net::UnixListener::bind(path)?.into()))
                        }),
                    },
                };
                tokio::select! {
                    ended = run(setup) => Some(ended.map_err(|error| format!("{error:?}"))),
                    _ = killed => None,
                }
            })
        });
        self.supervisor = Some(Supervisor { kill, thread, runtime: handle });
    }

    /// Sends a notification as a process in the cgroup of `service`.
    pub(crate) fn notify(&self, service: &str, text: &str) {
        self.notify_all(service, [text.to_owned()]);
    }

    /// Sends several notifications, one per datagram.
    pub(crate) fn notify_all<T: IntoIterator<Item = String>>(&self, service: &str, texts: T) {
        self.init.join_cgroup(std::process::id(), service);
        let socket = UnixDatagram::unbound().unwrap();
        for text in texts {
            socket.send_to_addr(text.as_bytes(), &self.addresses.notify).unwrap();
        }
    }

    /// Whether another process could take the address of the notify socket.
    pub(crate) fn notify_address_is_free(&self) -> bool {
        UnixDatagram::bind_addr(&self.addresses.notify).is_ok()
    }

    /// Waits until the supervisor exits by itself.
    pub(crate) fn supervisor_ended(&mut self) -> Result<(), String> {
        let supervisor = self.supervisor.take().unwrap();
        supervisor.thread.join().unwrap().unwrap()
    }

    /// The number of the supervisor's tasks.
    pub(crate) fn tasks(&self) -> usize {
        self.supervisor.as_ref().unwrap().runtime.metrics().num_alive_tasks()
    }

    pub(crate) async fn host(&self) -> Host {
        Host::open(&self.path("control")).await
    }

    pub(crate) async fn local(&self) -> Host {
        self.local_of(ADMIN).await
    }

    /// The local socket, as seen by a process of `service`.
    pub(crate) async fn local_of(&self, service: &str) -> Host {
        // The manifest contains the permissions: before it is read every process inside is refused.
        self.host().await.until(|status| !status.services.is_empty()).await;
        self.init.join_cgroup(std::process::id(), service);
        Host::open(&self.path("local-control")).await
    }

    /// Where programs inside request evidence.
    pub(crate) fn attestation(&self) -> &SocketAddr {
        &self.addresses.attestation
    }

    pub(crate) async fn logs(&self, from: u64, follow: bool) -> Reader {
        Reader::open(&self.path("logs"), from, follow).await
    }

    /// A log reader inside, as a process in the cgroup of `service`.
    pub(crate) async fn local_logs(&self, service: &str) -> Reader {
        self.init.join_cgroup(std::process::id(), service);
        Reader::open(&self.path("local-logs"), 0, true).await
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
