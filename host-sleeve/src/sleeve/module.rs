//! The channel of the development security module: dialled like every other, for enclaves that may ask for it.
//!
//! Invariant: an enclave in which nothing listens costs a connection attempt now and then, and is not reported; nothing is read,
//! hashed or created before an enclave has opened the channel. The registers survive every connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloister_net::channel;
use cloister_wire::hello::{Protocol, Role};
use cloister_wire::ports;
use tokio::time::{self, Instant};

use crate::backends::BootedParts;
use crate::error::{Error, Result};
use crate::module::{LIMITS, Module, serve};
use crate::output;
use crate::transport::Transport;

/// The shortest pause between two attempts to connect: a booting enclave should not have to wait for us.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause: most enclaves never listen, and one that has been running for long can wait this long.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The pause is this part of the time for which nothing has listened, so a boot is never prolonged by more than that.
const PART: u32 = 8;

/// What the registers begin with, or the module that has them.
enum State {
    Booted(BootedParts),
    Running(Arc<Mutex<Module>>),
}

/// Connects whenever something listens, and serves it, until it is dropped. `root` is the state directory.
pub(super) async fn run(transport: Arc<dyn Transport>, booted: BootedParts, root: PathBuf) {
    let mut state = State::Booted(booted);
    let mut since = Instant::now();
    loop {
        if let Ok(stream) = transport.connect(ports::MODULE).await
            && let Ok((receiver, sender)) =
                channel::open(stream, Protocol::SecurityModule, Role::Host, LIMITS).await
        {
            let module = match state {
                State::Running(module) => module,
                State::Booted(parts) => match create(parts, root.clone()).await {
                    Ok(module) => module,
                    Err(error) => return output::error(&error),
                },
            };
            // However the connection ended: the enclave's program was restarted, or violated the protocol.
            drop(serve(receiver, sender, &module).await);
            state = State::Running(module);
            since = Instant::now();
        }
        time::sleep(pause(since.elapsed())).await;
    }
}

/// The pause after nothing has listened for this long.
fn pause(waited: Duration) -> Duration {
    (waited / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// The module of an enclave that was booted from these parts, which are hashed now.
async fn create(parts: BootedParts, root: PathBuf) -> Result<Arc<Mutex<Module>>> {
    let created = tokio::task::spawn_blocking(move || Module::new(&parts.measure()?, root)).await;
    let failed =
        |error| Error::host("cannot offer a development security module to the enclave").because(error);
    let module = created.map_err(std::io::Error::other).and_then(|created| created).map_err(failed)?;
    Ok(Arc::new(Mutex::new(module)))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cloister_image::tree::Content;
    use cloister_net::Stream;
    use cloister_nsm::Module as Client;
    use cloister_nsm::channel::Channel;
    use cloister_wire::frame;
    use cloister_wire::hello::Hello;

    use super::*;
    use crate::transport::Pending;

    /// An enclave's attestor, behind a Unix socket; without one nothing listens.
    #[derive(Debug, Default)]
    struct Socket(Option<PathBuf>, AtomicUsize);

    impl Transport for Socket {
        fn connect(&self, port: u32) -> Pending<'_, io::Result<Stream>> {
            assert_eq!(port, 17004);
            self.1.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                match &self.0 {
                    Some(path) => Stream::connect_unix(path),
                    None => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            })
        }
    }

    fn parts() -> BootedParts {
        let part = |bytes: &[u8]| Content::Bytes(bytes.into());
        BootedParts {
            kernel: part(b"kernel"),
            command_line: "quiet".into(),
            ramdisks: vec![part(b"os"), part(b"app")],
        }
    }

    /// A program inside that uses the module on three connections.
    fn inside(listener: &UnixListener) {
        let accept = || listener.accept().unwrap().0;
        let first = Channel::open(accept().into(), "virtual").unwrap();
        let module = Client::over(|request: &[u8]| first.exchange(request));
        let (pcr0, image) = (module.pcr(0).unwrap(), parts().measure().unwrap());
        assert_eq!((pcr0.locked, pcr0.value.as_slice()), (true, image.pcr0.bytes().as_slice()));
        let extended = module.extend(17, b"event").unwrap();
        // A request that is not one gets an error, and the connection goes on.
        assert_eq!(first.exchange(b"\x00").unwrap(), b"\xa1\x65Error\x70InvalidOperation");
        assert_eq!(module.pcr(17).unwrap().value, extended);
        drop(first);
        // A request over the limit is a violation of the protocol.
        let mut second = accept();
        let hello = frame::encode(&Hello::new(Protocol::SecurityModule, Role::Guest), 100).unwrap();
        second.write_all(&[hello, 0x1001_u32.to_be_bytes().to_vec()].concat()).unwrap();
        second.read_to_end(&mut Vec::new()).unwrap();
        let third = Channel::open(accept().into(), "virtual").unwrap();
        let module = Client::over(|request: &[u8]| third.exchange(request));
        assert_eq!(module.pcr(17).unwrap().value, extended);
    }

    #[tokio::test]
    async fn registers_survive_a_restart_of_the_program_inside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("module");
        let listener = UnixListener::bind(&path).unwrap();
        let transport = Arc::new(Socket(Some(path), AtomicUsize::default()));
        let serving = tokio::spawn(run(transport, parts(), directory.path().to_owned()));
        tokio::task::spawn_blocking(move || inside(&listener)).await.unwrap();
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_enclave_in_which_nothing_listens_costs_an_attempt_every_two_seconds() {
        let transport = Arc::new(Socket::default());
        let directory = tempfile::tempdir().unwrap();
        let serving =
            tokio::spawn(run(Arc::<Socket>::clone(&transport), parts(), directory.path().to_owned()));
        time::sleep(Duration::from_secs(1)).await;
        let during_the_boot = transport.1.load(Ordering::Relaxed);
        assert!((20..60).contains(&during_the_boot), "{during_the_boot}");
        time::sleep(Duration::from_hours(1)).await;
        let in_an_hour = transport.1.load(Ordering::Relaxed);
        assert!(in_an_hour <= 1900, "{in_an_hour}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a root was created");
        serving.abort();
    }

    #[test]
    fn a_boot_is_prolonged_by_an_eighth_at_most() {
        for (waited, expected) in [(0, 10), (80, 10), (1600, 200), (16_000, 2000), (3_600_000, 2000)] {
            assert_eq!(pause(Duration::from_millis(waited)), Duration::from_millis(expected), "{waited} ms");
        }
    }
}
