//! The table of servants, and the sockets that each gets.
//!
//! Invariant: a servant is started only if the manifest needs it. Its sockets are bound at the first start and held by
//! init.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_manifest::model::Manifest;
use cloister_net::{Entrance, Listener};
use cloister_sys::platform::Platform;
use cloister_wire::attestor::Provider;
use cloister_wire::causes;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::mpsc;

use super::handshake::Handshake;
use super::turn::Saved;
use super::{Bind, CoreError, Given};
use crate::hold::Hold;
use crate::logs::{Movers, Shared};
use crate::owners::Owners;
use crate::servant::attestor::{self, Attestor, Source};
use crate::servant::gateway::{self, Gateway, Ports};
use crate::servant::terminator::{self, Terminator};
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

/// The name under which init holds the memory of the TLS certificate's key.
const KEY: &str = "tls-key";

/// The names of the socket pairs between supervisor and terminator, gateway and terminator, and terminator and attestor.
const TERMINATOR_PAIR: &str = "socket.@terminator";
const CLIENTS_PAIR: &str = "socket.@terminator.clients";
const QUESTIONS_PAIR: &str = "socket.@attestor.questions";
const SIGNER_PAIR: &str = "socket.@attestor.signer";

/// What the servants of this enclave need.
#[derive(Default)]
pub(super) struct Equipment {
    /// The gateway's ports and sockets; `None` if the manifest has none.
    gateway: Option<(Ports, gateway::Sockets)>,
    /// The attestor's rules, sockets and clients; `None` if the manifest does not use it, or there is no evidence.
    attestor: Option<(attestor::Rules, attestor::Sockets, Entrance)>,
    /// The terminator's sockets; `None` without a port for the attestation server.
    terminator: Option<terminator::Sockets>,
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
            return Ok(Self::default());
        };
        let attestation = &manifest.attestation;
        let (provider, defect) = match given.provider {
            Ok(provider) => (provider, None),
            Err(error) => (None, Some(error)),
        };
        let source =
            if attestation.is_used() { source(init, platform, provider, given.sleeve)? } else { None };
        let port = attestation.port.filter(|_| source.is_some());
        let [to_terminator, from_gateway] = pair_if(port.is_some(), init, CLIENTS_PAIR)?;
        let mut gateway = None;
        if !manifest.ingress.is_empty() || port.is_some() {
            let listener = init.socket(LISTENER, given.ingress)?;
            let (ours, theirs) = init.pair(PAIR)?;
            let sockets = gateway::Sockets { listener, ours, theirs, terminator: to_terminator };
            gateway = Some((Ports { ingress: manifest.ingress.clone(), attestation: port }, sockets));
        }
        let Some(source) = source else {
            // Init holds it, and so does no other process.
            drop(init.socket(ATTESTATION, || world::reserve(&addresses.attestation))?);
            let without = attestation.is_used().then(|| {
                format!(
                    "attestation: {}; connections to @cloister/attestation and to the port of the attestation server \
                     are refused",
                    Lacking::of(platform, defect.as_ref())
                )
            });
            return Ok(Self { gateway, without, ..Self::default() });
        };
        let listener = init.socket(ATTESTATION, || world::bind(&addresses.attestation))?;
        let (ours, theirs) = init.pair(ATTESTOR_PAIR)?;
        let what = "cannot listen for programs that request evidence";
        let entrance = world::serving(listener, paths.proc.clone())
            .map_err(|source| CoreError::System { what, source })?;
        init.request(&[EVENTS.to_owned()])?;
        let events = init.memfd(EVENTS).await?;
        let key =
            init.socket(KEY, || Ok(memfd_create(KEY, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))?;
        let (questions, answers) = init.pair(QUESTIONS_PAIR)?;
        let (signer, signatures) = init.pair(SIGNER_PAIR)?;
        let terminator = match from_gateway {
            None => None,
            Some(clients) => {
                let (ours, theirs) = init.pair(TERMINATOR_PAIR)?;
                Some(terminator::Sockets { ours, theirs: [theirs, clients, questions, signer] })
            }
        };
        let others = [events, key, answers, signatures];
        let sockets = attestor::Sockets { platform: platform.to_owned(), source, others, ours, theirs };
        let attestor = Some((attestation.services.clone(), sockets, entrance));
        Ok(Self { gateway, attestor, terminator, without: None })
    }

    /// The names of the servants of this enclave, in the order of [`Self::servants`].
    pub(super) fn names(&self) -> Vec<String> {
        let gateway = self.gateway.iter().map(|_| cloister_wire::gateway::NAME);
        let attestor = self.attestor.iter().map(|_| cloister_wire::attestor::NAME);
        let terminator = self.terminator.iter().map(|_| cloister_wire::terminator::NAME);
        gateway.chain(attestor).chain(terminator).map(str::to_owned).collect()
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
            let duty = saved.get(cloister_wire::gateway::NAME).map(|saved| &saved.duty);
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
            let attestor = Attestor::new(rules, sockets, entrance, events.clone())
                .map_err(|source| CoreError::System { what, source })?;
            duties.push(Box::new(attestor));
        }
        if let Some(sockets) = self.terminator {
            let what = "cannot register the terminator's socket with the reactor";
            let terminator =
                Terminator::new(sockets, events).map_err(|source| CoreError::System { what, source })?;
            duties.push(Box::new(terminator));
        }
        let logs = resources.logs.clone();
        Ok((Servants::resume(duties, first_log, saved, hold.outbox(), logs, movers), servant_events))
    }
}

/// Why a platform has no evidence.
#[derive(Debug, thiserror::Error)]
enum Lacking<'a> {
    #[error(
        "platform tdx has no quotes: the kernel has no provider in configfs-tsm, and a local report of /dev/tdx_guest can be \
         checked by its own processor only"
    )]
    Quotes,
    #[error("platform {0} has no provider of evidence that can be used")]
    Provider(&'a str),
    #[error("the provider of evidence cannot be opened: {}", causes::line(*.0))]
    Defect(&'a io::Error),
}

impl<'a> Lacking<'a> {
    fn of(platform: &'a str, defect: Option<&'a io::Error>) -> Self {
        match defect {
            Some(error) => Self::Defect(error),
            None if platform == Platform::Tdx.name() => Self::Quotes,
            None => Self::Provider(platform),
        }
    }
}

/// What provides evidence of this platform: hardware, or the sleeve if init has detected a machine without it.
fn source(
    init: &mut Handshake,
    platform: &str,
    provider: Option<(Provider, OwnedFd)>,
    sleeve: Option<Bind>,
) -> Result<Option<Source>, CoreError> {
    if let Some((provider, device)) = provider {
        return Ok(belongs(provider, platform).then(|| Source::Hardware(provider, device)));
    }
    let Some(bind) = sleeve.filter(|_| platform == Platform::Virtual.name()) else { return Ok(None) };
    let what = "cannot listen for the development security module";
    let listener = Listener::inherited(init.socket(MODULE, bind)?, false);
    let listener = listener.map_err(|source| CoreError::System { what, source })?;
    Ok(Some(Source::Sleeve(Entrance::host(listener))))
}

/// Whether a provider is that of the platform that init has detected.
fn belongs(provider: Provider, platform: &str) -> bool {
    let platforms: &[Platform] = match provider {
        Provider::Nsm => &[Platform::Nitro],
        Provider::Tsm => &[Platform::Tdx, Platform::Snp],
        Provider::Sleeve => &[Platform::Virtual],
    };
    platforms.iter().any(|one| one.name() == platform)
}

/// The two ends of a pair that not every enclave has.
fn pair_if(wanted: bool, init: &mut Handshake, name: &str) -> Result<[Option<OwnedFd>; 2], CoreError> {
    if !wanted {
        return Ok([None, None]);
    }
    let (ours, theirs) = init.pair(name)?;
    Ok([Some(ours), Some(theirs)])
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
