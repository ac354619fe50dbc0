//! Places for connections: how many each kind of peer may hold at once.
//!
//! Its law: no peer can use up another's places. The host has its own, each service inside has its own, and services share
//! only what goes beyond the first place of each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::notify::service_of;
use crate::world::Peer;

/// How many connections there may be at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of the host.
    pub(crate) host: usize,
    /// Of one service.
    pub(crate) service: usize,
    /// Of all services, beyond the first of each.
    pub(crate) shared: usize,
}

/// Who holds a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Host,
    /// The service in whose cgroup the process was that connected.
    Service(String),
    /// A process inside that is in no service's cgroup, or was gone when its connection was accepted.
    Elsewhere,
}

/// The places of one kind of connection.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    proc: PathBuf,
    taken: watch::Sender<BTreeMap<Holder, usize>>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    /// Free places. Peers inside are identified by the cgroup that `proc` gives for them.
    #[must_use]
    pub(crate) fn new(limits: Limits, proc: &Path) -> Arc<Self> {
        Arc::new(Self { limits, proc: proc.to_owned(), taken: watch::Sender::new(BTreeMap::new()) })
    }

    /// A place for `peer`, if it may have one more.
    #[must_use]
    pub(crate) fn enter(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let holder = self.holder(peer);
        self.take(&holder).then(|| Place { places: Arc::clone(self), holder })
    }

    /// Waits until no place is taken.
    pub(crate) async fn empty(&self) {
        // The sender is here, so the channel is open.
        drop(self.taken.subscribe().wait_for(BTreeMap::is_empty).await);
    }

    fn holder(&self, peer: Peer) -> Holder {
        match peer {
            Peer::Host => Holder::Host,
            Peer::Local { pid, .. } => service_of(&self.proc, pid).map_or(Holder::Elsewhere, Holder::Service),
        }
    }

    fn take(&self, holder: &Holder) -> bool {
        self.taken.send_if_modified(|taken| {
            let mine = taken.get(holder).copied().unwrap_or(0);
            let free = match holder {
                Holder::Host => mine < self.limits.host,
                Holder::Service(_) | Holder::Elsewhere => {
                    mine == 0 || (mine < self.limits.service && shared(taken) < self.limits.shared)
                }
            };
            if free {
                taken.insert(holder.clone(), mine.saturating_add(1));
            }
            free
        })
    }
}

/// The places that peers inside hold beyond the first of each.
fn shared(taken: &BTreeMap<Holder, usize>) -> usize {
    taken.iter().filter(|(holder, _)| **holder != Holder::Host).map(|(_, n)| n.saturating_sub(1)).sum()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.send_modify(|taken| {
            let left = taken.get(&self.holder).copied().unwrap_or(0).saturating_sub(1);
            if left == 0 {
                taken.remove(&self.holder);
            } else {
                taken.insert(self.holder.clone(), left);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { host: 2, service: 3, shared: 3 };

    /// Places among processes of which 10, 11 and 12 are of `web`, 20 of `db`, 30 of `job`, and 40 of none.
    fn places() -> (Arc<Places>, tempfile::TempDir) {
        let proc = tempfile::tempdir().unwrap();
        for (pid, service) in [(10, "web"), (11, "web/worker"), (12, "web"), (20, "db"), (30, "job")] {
            std::fs::create_dir(proc.path().join(pid.to_string())).unwrap();
            std::fs::write(proc.path().join(format!("{pid}/cgroup")), format!("0::/cloister/{service}\n"))
                .unwrap();
        }
        (Places::new(LIMITS, proc.path()), proc)
    }

    fn inside(pid: u32) -> Peer {
        Peer::Local { uid: 0, pid }
    }

    #[test]
    fn a_service_holds_its_own_places_and_no_others() {
        let (places, _proc) = places();
        let web: Vec<Place> = [10, 11, 12].iter().map(|pid| places.enter(inside(*pid)).unwrap()).collect();
        assert!(places.enter(inside(10)).is_none(), "whichever of its processes asks");
        let _host = [places.enter(Peer::Host).unwrap(), places.enter(Peer::Host).unwrap()];
        assert!(places.enter(Peer::Host).is_none());
        let _db = places.enter(inside(20)).unwrap();
        drop(web);
        assert!(places.enter(inside(10)).is_some());
    }

    #[test]
    fn what_is_shared_never_costs_anybody_the_first_place() {
        let (places, _proc) = places();
        let _web = [10, 11, 12].map(|pid| places.enter(inside(pid)).unwrap());
        let _db = [20, 20].map(|pid| places.enter(inside(pid)).unwrap());
        assert!(places.enter(inside(20)).is_none(), "all that is shared is taken");
        let _job = places.enter(inside(30)).unwrap();
        assert!(places.enter(inside(30)).is_none());
        let _stranger = places.enter(inside(40)).unwrap();
        assert!(places.enter(inside(41)).is_none(), "strangers are one peer together");
    }

    #[tokio::test]
    async fn one_waits_until_all_have_left() {
        let (places, _proc) = places();
        places.empty().await;
        let place = places.enter(Peer::Host).unwrap();
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(place);
        waiting.await.unwrap();
    }
}
