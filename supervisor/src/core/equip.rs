//! What each servant is given, and which there are: the table of servants.
//!
//! Its law: a servant starts only where the manifest needs it. Its sockets are bound at the first start and kept by init.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_manifest::model::{self, Manifest};
use cloister_wire::gateway;
use tokio::sync::mpsc;

use super::line::Line;
use super::turn::Kept;
use super::{Bind, CoreError};
use crate::hold::Hold;
use crate::logs::{Movers, Shared};
use crate::owners::Owners;
use crate::servant::gateway::{Gateway, Sockets};
use crate::servant::{self, Duty, Event, Servants};
use crate::status::Board;

/// The name under which init keeps the listener for the host's connections.
const LISTENER: &str = "socket.ingress";

/// The name of the pair between supervisor and gateway; init keeps each end under a name of its own.
const PAIR: &str = "socket.@gateway";

/// What the servants of this enclave are made of.
pub(super) struct Equipment {
    /// Where the gateway leads, and its sockets; nothing where the manifest has no ports for it.
    gateway: Option<(Vec<model::Ingress>, Sockets)>,
}

/// What servants work with.
pub(super) struct Around<'a> {
    pub(super) logs: &'a Shared,
    pub(super) owners: &'a Owners,
    pub(super) board: &'a Arc<Board>,
}

impl Equipment {
    /// Takes what init keeps for the servants, or makes it. `bind` makes the listener for the host's connections.
    pub(super) fn gather(
        line: &mut Line,
        manifest: Option<&Manifest>,
        bind: Bind,
    ) -> Result<Self, CoreError> {
        let Some(manifest) = manifest.filter(|manifest| !manifest.ingress.is_empty()) else {
            return Ok(Self { gateway: None });
        };
        let listener = line.socket(LISTENER, bind)?;
        let (ours, theirs) = line.pair(PAIR)?;
        Ok(Self { gateway: Some((manifest.ingress.clone(), Sockets { listener, ours, theirs })) })
    }

    /// The names of the servants of this enclave, in the order of [`Self::servants`].
    pub(super) fn names(&self) -> Vec<String> {
        self.gateway.iter().map(|_| gateway::NAME.to_owned()).collect()
    }

    /// The servants, as a supervisor before this one kept them, and what they tell. Their logs are numbered from `first_log` on.
    /// The status counts on from there too.
    pub(super) fn servants(
        self,
        hold: &Hold,
        around: &Around<'_>,
        movers: Movers,
        first_log: usize,
        kept: Option<&Kept>,
    ) -> Result<(Servants, mpsc::Receiver<Event>), CoreError> {
        if let Some(kept) = kept {
            around.board.resume_from(kept.seq);
        }
        let nothing = BTreeMap::new();
        let kept = kept.map_or(&nothing, |kept| &kept.servants);
        let (events, told) = servant::events();
        let mut duties: Vec<Box<dyn Duty>> = Vec::new();
        if let Some((table, sockets)) = self.gateway {
            let was = kept.get(gateway::NAME).map(|kept| &kept.duty);
            let (owners, logs) = (around.owners.clone(), around.logs.clone());
            let what = "the reactor does not take the gateway's socket";
            let gateway = Gateway::new(table, sockets, owners, logs, events, was)
                .map_err(|source| CoreError::System { what, source })?;
            let counted = gateway.clone();
            around.board.count_ingress(move || counted.counters());
            duties.push(Box::new(gateway));
        }
        let logs = around.logs.clone();
        Ok((Servants::resume(duties, first_log, kept, hold.outbox(), logs, movers), told))
    }
}

impl Line {
    /// The two ends of the pair that init keeps under this name, made the first time.
    ///
    /// A supervisor that died between the two requests has left one end: that pair is given up for the next.
    fn pair(&mut self, name: &str) -> Result<(OwnedFd, OwnedFd), CoreError> {
        let mut number = 0_u32;
        loop {
            let names = ["ours", "theirs"].map(|end| format!("{name}.{number}.{end}"));
            match (self.take(&names[0]), self.take(&names[1])) {
                (Some(ours), Some(theirs)) => return Ok((ours, theirs)),
                (None, None) => {
                    let what = "no pair of sockets for a servant";
                    let made = cloister_net::packets::pair();
                    let (ours, theirs) = made.map_err(|source| CoreError::System { what, source })?;
                    let [first, second] = names;
                    let (given, kept) = (io::Result::Ok(ours), io::Result::Ok(theirs));
                    return Ok((self.socket(&first, || given)?, self.socket(&second, || kept)?));
                }
                _ => number = number.saturating_add(1),
            }
        }
    }
}
