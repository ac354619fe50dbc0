//! Places: limits on concurrent connections per peer.
//!
//! Invariant: no peer can use up the places of another. The host has its own, each service has its own, and services
//! share only the places beyond the first one of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::accept::Admission;
use crate::identity::Identity;

/// Maximum numbers of concurrent connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the host.
    pub host: usize,
    /// Of one service.
    pub service: usize,
    /// Of all services together, not counting the first of each.
    pub shared: usize,
}

/// The places of one kind of connection.
#[derive(Debug)]
pub struct Places {
    limits: Limits,
    /// Places in use by each peer. All unknown processes count as one peer.
    taken: watch::Sender<BTreeMap<Identity, usize>>,
}

/// A place in use, released on drop.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    holder: Identity,
}

impl Places {
    /// Places of which none is in use.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: watch::Sender::new(BTreeMap::new()) })
    }

    /// A place for `peer`, if one is free.
    #[must_use]
    pub fn enter(self: &Arc<Self>, peer: &Identity) -> Option<Place> {
        self.take(peer).then(|| Place { places: Arc::clone(self), holder: peer.clone() })
    }

    /// Waits until no place is in use.
    pub async fn empty(&self) {
        // The sender is here, so the channel is open.
        drop(self.taken.subscribe().wait_for(BTreeMap::is_empty).await);
    }

    fn take(&self, holder: &Identity) -> bool {
        self.taken.send_if_modified(|taken| {
            let mine = taken.get(holder).copied().unwrap_or(0);
            let free = match holder {
                Identity::Host => mine < self.limits.host,
                Identity::Service(_) | Identity::Unknown => {
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

/// Connections over the limit are closed.
impl Admission for Arc<Places> {
    type Place = Place;

    async fn reserve(&self) -> Option<Place> {
        None
    }

    fn admit(&self, _: Option<Place>, peer: &Identity) -> Option<Place> {
        self.enter(peer)
    }

    async fn freed(&self) {
        // The sender is here, so the channel is open.
        drop(self.taken.subscribe().changed().await);
    }
}

/// The places in use by processes inside the enclave, not counting the first of each.
fn shared(taken: &BTreeMap<Identity, usize>) -> usize {
    taken.iter().filter(|(holder, _)| **holder != Identity::Host).map(|(_, n)| n.saturating_sub(1)).sum()
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

    fn inside(service: &str) -> Identity {
        Identity::Service(service.to_owned())
    }

    #[test]
    fn a_service_can_use_its_own_places_only() {
        let places = Places::new(LIMITS);
        let web = [(); 3].map(|()| places.enter(&inside("web")).unwrap());
        assert!(places.enter(&inside("web")).is_none());
        let _host = [places.enter(&Identity::Host).unwrap(), places.enter(&Identity::Host).unwrap()];
        assert!(places.enter(&Identity::Host).is_none());
        let _db = places.enter(&inside("db")).unwrap();
        drop(web);
        assert!(places.enter(&inside("web")).is_some());
    }

    #[test]
    fn shared_places_never_cost_a_peer_its_first_place() {
        let (places, stranger) = (Places::new(LIMITS), Identity::Unknown);
        let _web = [(); 3].map(|()| places.enter(&inside("web")).unwrap());
        let _db = [(); 2].map(|()| places.enter(&inside("db")).unwrap());
        assert!(places.enter(&inside("db")).is_none(), "all shared places are in use");
        let _job = places.enter(&inside("job")).unwrap();
        assert!(places.enter(&inside("job")).is_none());
        let _stranger = places.enter(&stranger).unwrap();
        assert!(places.enter(&stranger).is_none(), "unknown processes count as one peer");
    }

    #[tokio::test]
    async fn empty_waits_until_every_place_is_free() {
        let places = Places::new(LIMITS);
        places.empty().await;
        let place = places.enter(&Identity::Host).unwrap();
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
