//! The exchange with init before the first turn.
//!
//! Invariant: messages from init that are not awaited here are queued, in order, for the first turn.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use cloister_manifest::model::Manifest;
use cloister_wire::hello::VERSION;
use cloister_wire::hold::{FromInit, FromSupervisor, Welcome};

use super::CoreError;
use crate::hold::{Hold, Incoming};
use crate::logs::{self, Memfds, OWN_LOG};
use crate::memory;

/// The channel to init, and the descriptors that init has handed over.
pub(super) struct Handshake {
    pub(super) hold: Hold,
    pub(super) backlog: VecDeque<Incoming>,
    /// The output pipes of the holdings, by name.
    pub(super) pipes: BTreeMap<String, Vec<OwnedFd>>,
    /// The stored descriptors, by name.
    stored: BTreeMap<String, OwnedFd>,
    /// The names of sockets that were handed to init: the supervisor already has what init returns for them.
    given: Vec<String>,
    /// How many replies about stored descriptors are outstanding.
    missing: usize,
    /// Whether the reply about the root is outstanding. Init replies in order, so it comes after the memfds requested
    /// earlier.
    root_missing: bool,
}

impl Handshake {
    /// Waits for init's welcome.
    pub(super) async fn open(init: UnixStream) -> Result<(Self, Welcome), CoreError> {
        let mut hold = Hold::new(init)?;
        let Incoming { message, fds } = hold.receive().await?;
        let FromInit::Welcome(welcome) = message else { return Err(CoreError::NoWelcome) };
        if welcome.version != VERSION {
            return Err(CoreError::Version(welcome.version));
        }
        let mut fds = fds.into_iter();
        let stored = welcome.stash.iter().cloned().zip(fds.by_ref()).collect();
        let mut pipes = BTreeMap::new();
        for held in &welcome.held {
            pipes.insert(held.name.clone(), fds.by_ref().take(usize::from(held.fds)).collect());
        }
        let handshake = Self {
            hold,
            backlog: VecDeque::new(),
            pipes,
            stored,
            given: Vec::new(),
            missing: 0,
            root_missing: false,
        };
        Ok((handshake, welcome))
    }

    /// Requests the memfds of these names, stored or newly created by init. It does not wait for them.
    pub(super) fn request(&mut self, names: &[String]) -> Result<(), CoreError> {
        for name in names.iter().filter(|name| !self.stored.contains_key(*name)) {
            self.hold.send(&FromSupervisor::Stash { name: name.clone(), fds: 0 })?;
            self.missing = self.missing.saturating_add(1);
        }
        Ok(())
    }

    /// The socket that init holds under this name. The first time it is bound and handed to init: from then on its
    /// address stays in use, whether a supervisor runs or not, and clients that connect meanwhile wait for the next
    /// one.
    pub(super) fn socket<F>(&mut self, name: &str, bind: F) -> Result<OwnedFd, CoreError>
    where
        F: FnOnce() -> io::Result<OwnedFd>,
    {
        if let Some(stored) = self.stored.remove(name) {
            return Ok(stored);
        }
        let bound = bind().and_then(|socket| Ok((socket.try_clone()?, socket)));
        let what = "cannot listen";
        let (ours, theirs) = bound.map_err(|source| CoreError::System { what, source })?;
        self.hold.send_with(&FromSupervisor::Stash { name: name.to_owned(), fds: 1 }, vec![theirs])?;
        self.given.push(name.to_owned());
        self.missing = self.missing.saturating_add(1);
        Ok(ours)
    }

    /// Requests the application's root, if there is a manifest and it is not mounted yet. It does not wait for it.
    pub(super) fn request_root(
        &mut self,
        manifest: Option<&Manifest>,
        in_place: bool,
    ) -> Result<(), CoreError> {
        let Some(manifest) = manifest else { return Ok(()) };
        if !in_place {
            let (writable_bytes, reserved_bytes) = (manifest.root.writable_bytes, memory::needed(manifest));
            self.hold.send(&FromSupervisor::MountRoot { writable_bytes, reserved_bytes })?;
        }
        self.root_missing = !in_place;
        Ok(())
    }

    /// The memfd of this name, which must have been requested.
    pub(super) async fn memfd(&mut self, name: &str) -> Result<OwnedFd, CoreError> {
        self.collect().await?;
        let missing = || CoreError::System {
            what: "init did not hand over a requested memfd",
            source: io::ErrorKind::NotFound.into(),
        };
        self.stored.remove(name).ok_or_else(missing)
    }

    /// The descriptor that init holds under this name, if any.
    pub(super) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.stored.remove(name)
    }

    /// The memfds of the logs of `count` services and servants, which must have been requested.
    pub(super) async fn logs(&mut self, count: usize) -> Result<Memfds, CoreError> {
        self.collect().await?;
        let mut outputs = Vec::with_capacity(count);
        for place in 0..count {
            let [out, err] = logs::output_names(place).map(|name| self.stored.remove(&name));
            outputs.push(out.zip(err));
        }
        Ok(Memfds { own: self.memfd(OWN_LOG).await?, outputs })
    }

    /// Waits for the requested root; `Some` is the error if it could not be mounted.
    pub(super) async fn root(&mut self) -> Result<Option<String>, CoreError> {
        self.collect().await?;
        while self.root_missing {
            match self.hold.receive().await? {
                Incoming { message: FromInit::RootMounted { error }, .. } => return Ok(error),
                other => self.backlog.push_back(other),
            }
        }
        Ok(None)
    }

    /// Waits for the requested memfds.
    async fn collect(&mut self) -> Result<(), CoreError> {
        while self.missing > 0 {
            match self.hold.receive().await? {
                Incoming { message: FromInit::Stashed { name }, fds } => {
                    if self.given.iter().all(|given| *given != name) {
                        self.stored.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
                    }
                    self.missing = self.missing.saturating_sub(1);
                }
                other => self.backlog.push_back(other),
            }
        }
        Ok(())
    }
}
