//! The conversation with init before the first turn.
//!
//! Its law: what init says that is not asked for yet is kept, in order, for the first turn.

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
use crate::room;

/// The conversation, and what init has handed over in it.
pub(super) struct Line {
    pub(super) hold: Hold,
    pub(super) backlog: VecDeque<Incoming>,
    /// The output pipes of what init holds, by name.
    pub(super) pipes: BTreeMap<String, Vec<OwnedFd>>,
    /// What init keeps, by name.
    kept: BTreeMap<String, OwnedFd>,
    /// The names of sockets that init was given to keep: what it hands over in return is here already.
    given: Vec<String>,
    /// How many answers about what is kept have not come yet.
    missing: usize,
    /// Whether the root was requested. Init answers in order, so its answer comes after the memfds requested before it.
    root_missing: bool,
}

impl Line {
    /// Waits for init's welcome.
    pub(super) async fn open(init: UnixStream) -> Result<(Self, Welcome), CoreError> {
        let mut hold = Hold::new(init)?;
        let Incoming { message, fds } = hold.receive().await?;
        let FromInit::Welcome(welcome) = message else { return Err(CoreError::NoWelcome) };
        if welcome.version != VERSION {
            return Err(CoreError::Version(welcome.version));
        }
        let mut fds = fds.into_iter();
        let kept = welcome.stash.iter().cloned().zip(fds.by_ref()).collect();
        let mut pipes = BTreeMap::new();
        for held in &welcome.held {
            pipes.insert(held.name.clone(), fds.by_ref().take(usize::from(held.fds)).collect());
        }
        let line = Self {
            hold,
            backlog: VecDeque::new(),
            pipes,
            kept,
            given: Vec::new(),
            missing: 0,
            root_missing: false,
        };
        Ok((line, welcome))
    }

    /// Asks for the memfds of these names, as init has kept them or newly made. Nothing is waited for.
    pub(super) fn request(&mut self, names: &[String]) -> Result<(), CoreError> {
        for name in names.iter().filter(|name| !self.kept.contains_key(*name)) {
            self.hold.send(&FromSupervisor::Stash { name: name.clone(), fds: 0 })?;
            self.missing = self.missing.saturating_add(1);
        }
        Ok(())
    }

    /// The socket that init keeps under this name. The first time it is bound, and given to init to keep: from then on nobody
    /// else can take its address, whether a supervisor is there or not, and who knocks meanwhile waits for the next.
    pub(super) fn socket<F>(&mut self, name: &str, bind: F) -> Result<OwnedFd, CoreError>
    where
        F: FnOnce() -> io::Result<OwnedFd>,
    {
        if let Some(kept) = self.kept.remove(name) {
            return Ok(kept);
        }
        let bound = bind().and_then(|socket| Ok((socket.try_clone()?, socket)));
        let what = "cannot listen";
        let (ours, theirs) = bound.map_err(|source| CoreError::System { what, source })?;
        self.hold.send_with(&FromSupervisor::Stash { name: name.to_owned(), fds: 1 }, vec![theirs])?;
        self.given.push(name.to_owned());
        self.missing = self.missing.saturating_add(1);
        Ok(ours)
    }

    /// Asks for the application's root, where there is a manifest and it is not in place. Nothing is waited for.
    pub(super) fn request_root(
        &mut self,
        manifest: Option<&Manifest>,
        in_place: bool,
    ) -> Result<(), CoreError> {
        let Some(manifest) = manifest else { return Ok(()) };
        if !in_place {
            let (writable_bytes, reserved_bytes) = (manifest.root.writable_bytes, room::needed(manifest));
            self.hold.send(&FromSupervisor::MountRoot { writable_bytes, reserved_bytes })?;
        }
        self.root_missing = !in_place;
        Ok(())
    }

    /// The memfd of this name, which was requested.
    pub(super) async fn memfd(&mut self, name: &str) -> Result<OwnedFd, CoreError> {
        self.collect().await?;
        let missing = || CoreError::System {
            what: "init did not hand over what it keeps",
            source: io::ErrorKind::NotFound.into(),
        };
        self.kept.remove(name).ok_or_else(missing)
    }

    /// What init keeps under this name, if it does.
    pub(super) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.kept.remove(name)
    }

    /// The memfds of the logs of so many services and servants, which were requested.
    pub(super) async fn logs(&mut self, count: usize) -> Result<Memfds, CoreError> {
        self.collect().await?;
        let mut outputs = Vec::with_capacity(count);
        for place in 0..count {
            let [out, err] = logs::output_names(place).map(|name| self.kept.remove(&name));
            outputs.push(out.zip(err));
        }
        Ok(Memfds { own: self.memfd(OWN_LOG).await?, outputs })
    }

    /// Waits for the root that was requested; `Some` is why it is not there.
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

    /// Waits for the memfds that were requested.
    async fn collect(&mut self) -> Result<(), CoreError> {
        while self.missing > 0 {
            match self.hold.receive().await? {
                Incoming { message: FromInit::Stashed { name }, fds } => {
                    if self.given.iter().all(|given| *given != name) {
                        self.kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
                    }
                    self.missing = self.missing.saturating_sub(1);
                }
                other => self.backlog.push_back(other),
            }
        }
        Ok(())
    }
}
