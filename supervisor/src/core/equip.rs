//! The table of servants, and the sockets that each gets.
//!
//! Invariant: a servant is started only if the manifest needs it. Its sockets are bound at the first start and held by
//! init.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_manifest::model::{self, Manifest};
use cloister_net::{Entrance, Listener};
use cloister_sys::platform::Platform;
use cloister_wire::gateway;
use tokio::sync::mpsc;

use super::handshake::Handshake;
use super::turn::Saved;
use super::{Bind, CoreError, Given};
use crate::hold::Hold;
use crate::logs::{Movers, Shared};
use crate::owners::Owners;
use crate::servant::attestor::{self, Attestor, Module};
use crate::servant::gateway::{Gateway, Sockets};
use crate::servant::{self, Duty, Event, Servants};
use crate::status::Board;
use crate::world::{self, Addresses, Paths};

/// The name under which init holds the listener for the host's connections.
const LISTENER: &str = "socket.ingress";

/// The name of the socket pair between supervisor and gateway; init holds each end under a name of its own.
const PAIR: &str = "socket.@gateway";

/// The name under which init holds the listener for programs that request evidence. Its address is taken in any case: a
/// service that could take it would answer the requests of others.
const ATTESTATION: &str = "socket.attestation";

/// The name under which init holds the listener for the sleeve's connections to the development security module.
const MODULE: &str = "socket.module";

/// The name under which init holds the memory of the event log: it outlives the attestor and the supervisor.
const EVENTS: &str = "events";

/// The name of the socket pair between supervisor and attestor.
const ATTESTOR_PAIR: &str = "socket.@attestor";

/// What the servants of this enclave need.
pub(super) struct Equipment {
    /// The gateway's ports and sockets; `None` if the manifest has no ingress.
    gateway: Option<(Vec<model::Ingress>, Sockets)>,
    /// The attestor's rules, sockets and clients; `None` if the manifest allows no service anything, or there is no
    /// security module.
    attestor: Option<(attestor::Rules, attestor::Sockets, Entrance)>,
    /// A line for the log: why services that are listed cannot use the attestor.
    without: Option<String>,
}

/// Shared parts of the supervisor that servants use.
pub(super) struct Resources<'a> {
    pub(super) logs: &'a Shared,
    pub(super) owners: &'a Owners,
    pub(super) board: &'a Arc<Board>,
}

impl Equipment {
    /// Takes the sockets that init holds for the servants, or creates them.
    pub(super) async fn gather(
        init: &mut Handshake,
        platform: &str,
        manifest: Option<&Manifest>,
        given: Given,
        (addresses, paths): (&Addresses, &Paths),
    ) -> Result<Self, CoreError> {
        let Some(manifest) = manifest else {
            return Ok(Self { gateway: None, attestor: None, without: None });
        };
        let mut gateway = None;
        if !manifest.ingress.is_empty() {
            let listener = init.socket(LISTENER, given.ingress)?;
            let (ours, theirs) = init.pair(PAIR)?;
            gateway = Some((manifest.ingress.clone(), Sockets { listener, ours, theirs }));
        }
        let rules = &manifest.attestation.services;
        let module =
            if rules.is_empty() { None } else { module(init, platform, given.module, given.sleeve)? };
        let Some(module) = module else {
            // Init holds it, and so does no other process.
            drop(init.socket(ATTESTATION, || world::reserve(&addresses.attestation))?);
            let without = (!rules.is_empty()).then(|| {
                format!(
                    "attestation: platform {platform} has no security module that services can use; connections to \
                     @cloister/attestation are refused"
                )
            });
            return Ok(Self { gateway, attestor: None, without });
        };
        let listener = init.socket(ATTESTATION, || world::bind(&addresses.attestation))?;
        let (ours, theirs) = init.pair(ATTESTOR_PAIR)?;
        let what = "cannot listen for programs that request evidence";
        let entrance = world::serving(listener, paths.proc.clone())
            .map_err(|source| CoreError::System { what, source })?;
        init.request(&[EVENTS.to_owned()])?;
        let events = init.memfd(EVENTS).await?;
        let sockets = attestor::Sockets { platform: platform.to_owned(), module, events, ours, theirs };
        Ok(Self { gateway, attestor: Some((rules.clone(), sockets, entrance)), without: None })
    }

    /// The names of the servants of this enclave, in the order of [`Self::servants`].
    pub(super) fn names(&self) -> Vec<String> {
        let gateway = self.gateway.iter().map(|_| gateway::NAME);
        let attestor = self.attestor.iter().map(|_| cloister_wire::attestor::NAME);
        gateway.chain(attestor).map(str::to_owned).collect()
    }

    /// The servants, with their `saved` state, and their events. Their logs are numbered from `first_log` on. The
    /// status numbers continue from the saved one.
    pub(super) fn servants(
        self,
        hold: &Hold,
        resources: &Resources<'_>,
        movers: Movers,
        first_log: usize,
        saved: Option<&Saved>,
    ) -> Result<(Servants, mpsc::Receiver<Event>), CoreError> {
        if let Some(saved) = saved {
            resources.board.resume_from(saved.seq);
        }
        if let Some(line) = self.without.filter(|_| saved.is_none()) {
            resources.logs.log(None, &line);
        }
        let nothing = BTreeMap::new();
        let saved = saved.map_or(&nothing, |saved| &saved.servants);
        let (events, servant_events) = servant::events();
        let mut duties: Vec<Box<dyn Duty>> = Vec::new();
        if let Some((table, sockets)) = self.gateway {
            let duty = saved.get(gateway::NAME).map(|saved| &saved.duty);
            let (owners, logs) = (resources.owners.clone(), resources.logs.clone());
            let what = "cannot register the gateway's socket with the reactor";
            let gateway = Gateway::new(table, sockets, owners, logs, events.clone(), duty)
                .map_err(|source| CoreError::System { what, source })?;
            let counted = gateway.clone();
            resources.board.count_ingress(move || counted.counters());
            duties.push(Box::new(gateway));
        }
        if let Some((rules, sockets, entrance)) = self.attestor {
            let what = "cannot register the attestor's socket with the reactor";
            let attestor = Attestor::new(rules, sockets, entrance, events)
                .map_err(|source| CoreError::System { what, source })?;
            duties.push(Box::new(attestor));
        }
        let logs = resources.logs.clone();
        Ok((Servants::resume(duties, first_log, saved, hold.outbox(), logs, movers), servant_events))
    }
}

/// The security module of this platform: the device, or the sleeve if init has detected a machine without hardware.
fn module(
    init: &mut Handshake,
    platform: &str,
    device: Option<OwnedFd>,
    sleeve: Option<Bind>,
) -> Result<Option<Module>, CoreError> {
    if let Some(device) = device {
        return Ok(Some(Module::Device(device)));
    }
    let Some(bind) = sleeve.filter(|_| platform == Platform::Virtual.name()) else { return Ok(None) };
    let what = "cannot listen for the development security module";
    let listener = Listener::inherited(init.socket(MODULE, bind)?, false);
    let listener = listener.map_err(|source| CoreError::System { what, source })?;
    Ok(Some(Module::Sleeve(Entrance::host(listener))))
}

impl Handshake {
    /// The two ends of the pair that init holds under this name, created the first time.
    ///
    /// A supervisor that crashed between the two requests has left one end: that pair is skipped.
    fn pair(&mut self, name: &str) -> Result<(OwnedFd, OwnedFd), CoreError> {
        let mut number = 0_u32;
        loop {
            let names = ["ours", "theirs"].map(|end| format!("{name}.{number}.{end}"));
            match (self.take(&names[0]), self.take(&names[1])) {
                (Some(ours), Some(theirs)) => return Ok((ours, theirs)),
                (None, None) => {
                    let what = "cannot create a socket pair for a servant";
                    let pair = cloister_net::packets::pair();
                    let (ours, theirs) = pair.map_err(|source| CoreError::System { what, source })?;
                    let [first, second] = names;
                    let (ours, theirs) = (io::Result::Ok(ours), io::Result::Ok(theirs));
                    return Ok((self.socket(&first, || ours)?, self.socket(&second, || theirs)?));
                }
                _ => number = number.saturating_add(1),
            }
        }
    }
}
