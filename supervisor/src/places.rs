//! Places for connections: how many each kind of peer may hold at once.
//!
//! Its law: no peer can use up another's places. The host has its own, each service inside has its own, and services share
//! only what goes beyond the first place of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

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

impl Holder {
    fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Host => Self::Host,
            Peer::Local { service: Some(name) } => Self::Service(name.clone()),
            Peer::Local { service: None } => Self::Elsewhere,
        }
    }
}

/// The places of one kind of connection.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    taken: watch::Sender<BTreeMap<Holder, usize>>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    /// Free places.
    #[must_use]
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: watch::Sender::new(BTreeMap::new()) })
    }

    /// A place for `peer`, if it may have one more.
    #[must_use]
    pub(crate) fn enter(self: &Arc<Self>, peer: &Peer) -> Option<Place> {
        let holder = Holder::of(peer);
        self.take(&holder).then(|| Place { places: Arc::clone(self), holder })
    }

    /// Waits until no place is taken.
    pub(crate) async fn empty(&self) {
        // The sender is here, so the channel is open.
        drop(self.taken.subscribe().wait_for(BTreeMap::is_empty).await);
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

    fn inside(service: &str) -> Peer {
        Peer::Local { service: Some(service.to_owned()) }
    }

    #[test]
    fn a_service_holds_its_own_places_and_no_others() {
        let places = Places::new(LIMITS);
        let web = [(); 3].map(|()| places.enter(&inside("web")).unwrap());
        assert!(places.enter(&inside("web")).is_none());
        let _host = [places.enter(&Peer::Host).unwrap(), places.enter(&Peer::Host).unwrap()];
        assert!(places.enter(&Peer::Host).is_none());
        let _db = places.enter(&inside("db")).unwrap();
        drop(web);
        assert!(places.enter(&inside("web")).is_some());
    }

    #[test]
    fn what_is_shared_never_costs_anybody_the_first_place() {
        let (places, stranger) = (Places::new(LIMITS), Peer::Local { service: None });
        let _web = [(); 3].map(|()| places.enter(&inside("web")).unwrap());
        let _db = [(); 2].map(|()| places.enter(&inside("db")).unwrap());
        assert!(places.enter(&inside("db")).is_none(), "all that is shared is taken");
        let _job = places.enter(&inside("job")).unwrap();
        assert!(places.enter(&inside("job")).is_none());
        let _stranger = places.enter(&stranger).unwrap();
        assert!(places.enter(&stranger).is_none(), "strangers are one peer together");
    }

    #[tokio::test]
    async fn one_waits_until_all_have_left() {
        let places = Places::new(LIMITS);
        places.empty().await;
        let place = places.enter(&Peer::Host).unwrap();
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
