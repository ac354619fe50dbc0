//! Whose request the provider of evidence gets next.
//!
//! Invariant: the parties have their turns in rotation, one request each, so a party waits for at most one request of each other
//! one, however many requests those have. Only requests are sent that somebody still waits for, and that can be finished in their
//! time.

use std::collections::VecDeque;
use std::mem::{Discriminant, discriminant};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cloister_wire::attestor::{MAX_CLIENTS_OF_SERVICE, MAX_REMOTE_CLIENTS};
use tokio::sync::oneshot;

use crate::exchange::{Answer, ModuleError, REQUEST_TIME, Request};

/// Maximum number of requests of a party that wait: as many as it may have connections. Those of closed connections do not count.
const WAITING: usize =
    if MAX_REMOTE_CLIENTS > MAX_CLIENTS_OF_SERVICE { MAX_REMOTE_CLIENTS } else { MAX_CLIENTS_OF_SERVICE };

/// A request takes as long as the last one of its kind did, but no longer than this is assumed: after one that took very long,
/// such as 30 s on a TDX host that did not answer, the next one with a whole time limit is still sent.
const LONGEST_EXPECTED: Duration = Duration::from_secs(REQUEST_TIME.as_secs() / 2);

/// Who requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// A service.
    Service(String),
    /// All clients of the attestation server.
    Remote,
    /// The attestation server itself, for its certificate.
    Certificate,
}

/// A request that waits for its turn.
pub(crate) struct Waiting {
    pub(crate) request: Request,
    /// Where its answer goes. It is closed when nobody waits for that any more.
    pub(crate) reply: oneshot::Sender<Answer>,
    /// When the caller stops waiting.
    pub(crate) until: Instant,
}

/// What the provider's thread does next.
pub(crate) enum Order {
    /// Send a request to the provider.
    Request(Waiting),
    /// From now on, use the module at the other end of this connection.
    Connect(OwnedFd),
}

/// The requests that wait.
pub(crate) struct Turns {
    /// What a message calls the provider.
    name: &'static str,
    /// The parties with requests. The first one is next.
    parties: VecDeque<(Party, VecDeque<Waiting>)>,
    /// How long the last request of each kind took.
    took: Vec<(Discriminant<Request>, Duration)>,
    connection: Option<OwnedFd>,
}

impl Turns {
    /// Of the provider with this name.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, parties: VecDeque::new(), took: Vec::new(), connection: None }
    }

    /// Adds a request of a party.
    ///
    /// # Errors
    /// Too many of this party wait.
    pub(crate) fn push(&mut self, party: Party, waiting: Waiting) -> Result<(), ModuleError> {
        let Some((_, queue)) = self.parties.iter_mut().find(|(other, _)| *other == party) else {
            self.parties.push_back((party, VecDeque::from([waiting])));
            return Ok(());
        };
        queue.retain(|waiting| !waiting.reply.is_closed());
        if queue.len() >= WAITING {
            return Err(ModuleError::Busy(self.name));
        }
        queue.push_back(waiting);
        Ok(())
    }

    /// Uses this connection before the next request. It replaces one that waits.
    pub(crate) fn connect(&mut self, stream: OwnedFd) {
        self.connection = Some(stream);
    }

    /// What is next. Callers whose requests cannot be finished any more are answered.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Order> {
        if let Some(stream) = self.connection.take() {
            return Some(Order::Connect(stream));
        }
        while let Some((party, mut queue)) = self.parties.pop_front() {
            let next = self.sendable(&mut queue, now);
            // Behind all others, also behind those that have just come.
            if !queue.is_empty() {
                self.parties.push_back((party, queue));
            }
            if let Some(waiting) = next {
                return Some(Order::Request(waiting));
            }
        }
        None
    }

    /// The first request of a queue that is worth sending; those before it are removed.
    fn sendable(&self, queue: &mut VecDeque<Waiting>, now: Instant) -> Option<Waiting> {
        while let Some(waiting) = queue.pop_front() {
            if waiting.reply.is_closed() {
                continue;
            }
            if waiting.until.saturating_duration_since(now) >= self.expected(&waiting.request) {
                return Some(waiting);
            }
            // A caller that has just stopped waiting gets no answer.
            drop(waiting.reply.send(Err(ModuleError::Busy(self.name))));
        }
        None
    }

    /// How long a request is assumed to take.
    fn expected(&self, request: &Request) -> Duration {
        let kind = discriminant(request);
        let took = self.took.iter().find(|(other, _)| *other == kind).map(|(_, took)| *took);
        took.unwrap_or_default().min(LONGEST_EXPECTED)
    }

    /// Notes how long a request of this kind took.
    pub(crate) fn note(&mut self, kind: Discriminant<Request>, took: Duration) {
        self.took.retain(|(other, _)| *other != kind);
        self.took.push((kind, took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Values;

    /// Requests of parties, numbered by their nonces, and the ends that wait for the answers.
    struct Queue {
        turns: Turns,
        start: Instant,
        answers: Vec<oneshot::Receiver<Answer>>,
    }

    impl Queue {
        fn new() -> Self {
            Self { turns: Turns::new("the module"), start: Instant::now(), answers: Vec::new() }
        }

        fn push(&mut self, party: Party, number: u8) -> Result<(), ModuleError> {
            let (reply, answer) = oneshot::channel();
            self.answers.push(answer);
            let request = Request::Evidence(Values { nonce: vec![number], ..Values::default() });
            self.turns.push(party, Waiting { request, reply, until: self.start + REQUEST_TIME })
        }

        /// The number of the request whose turn it is, so long after the start.
        fn next(&mut self, after: Duration) -> Option<u8> {
            match self.turns.next(self.start + after)? {
                Order::Request(Waiting { request: Request::Evidence(values), .. }) => Some(values.nonce[0]),
                _ => panic!("no evidence"),
            }
        }

        fn took(&mut self, took: Duration) {
            self.turns.note(discriminant(&Request::Evidence(Values::default())), took);
        }
    }

    fn service(name: &str) -> Party {
        Party::Service(name.to_owned())
    }

    #[test]
    fn parties_have_their_turns_in_rotation() {
        let mut queue = Queue::new();
        for number in 0..4 {
            queue.push(Party::Remote, number).unwrap();
        }
        queue.push(service("web"), 10).unwrap();
        queue.push(service("web"), 11).unwrap();
        queue.push(service("db"), 20).unwrap();
        queue.push(Party::Certificate, 30).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| queue.next(Duration::ZERO)).collect();
        assert_eq!(order, [0, 10, 20, 30, 1, 11, 2, 3]);
    }

    #[test]
    fn strangers_that_keep_asking_take_every_second_turn_at_most() {
        let mut queue = Queue::new();
        for number in 0..16 {
            queue.push(Party::Remote, number).unwrap();
        }
        let mut order = Vec::new();
        for _ in 0..3 {
            queue.push(service("web"), 100).unwrap();
            order.extend([queue.next(Duration::ZERO), queue.next(Duration::ZERO)]);
            // For each that was served, another comes.
            queue.push(Party::Remote, 50).unwrap();
        }
        assert_eq!(order.iter().filter(|number| **number == Some(100)).count(), 3, "{order:?}");
    }

    #[test]
    fn a_party_with_too_many_requests_is_refused_and_abandoned_ones_do_not_count() {
        let mut queue = Queue::new();
        for _ in 0..WAITING {
            queue.push(Party::Remote, 1).unwrap();
        }
        let error = queue.push(Party::Remote, 2).unwrap_err();
        assert_eq!(error.to_string(), "busy: too many requests to the module at once; repeat it later");
        queue.push(service("web"), 3).unwrap();
        queue.answers.clear();
        queue.push(Party::Remote, 4).unwrap();
        assert_eq!((queue.next(Duration::ZERO), queue.next(Duration::ZERO)), (Some(4), None));
    }

    #[test]
    fn a_request_that_cannot_be_finished_in_time_is_refused_at_its_turn() {
        let mut queue = Queue::new();
        queue.took(Duration::from_secs(1));
        for number in 0..3 {
            queue.push(Party::Remote, number).unwrap();
        }
        assert_eq!(queue.next(Duration::from_secs(8)), Some(0));
        assert_eq!(queue.next(Duration::from_secs(9)), Some(1), "just enough");
        assert_eq!(queue.next(Duration::from_millis(9001)), None);
        let answer = queue.answers.pop().unwrap().try_recv().unwrap();
        assert!(matches!(answer, Err(ModuleError::Busy("the module"))), "{answer:?}");
    }

    #[test]
    fn after_a_request_that_took_very_long_the_next_one_is_sent() {
        let mut queue = Queue::new();
        queue.took(Duration::from_secs(30));
        queue.push(Party::Certificate, 1).unwrap();
        queue.push(service("web"), 2).unwrap();
        assert_eq!(queue.next(Duration::from_secs(5)), Some(1));
        queue.took(Duration::from_millis(3));
        assert_eq!(queue.next(Duration::from_secs(9)), Some(2), "the last one counts");
    }

    #[test]
    fn how_long_it_takes_is_known_for_each_kind() {
        let mut queue = Queue::new();
        queue.turns.note(discriminant(&Request::Random), Duration::from_secs(4));
        queue.push(Party::Remote, 1).unwrap();
        assert_eq!(queue.next(Duration::from_secs(9)), Some(1));
    }

    #[test]
    fn a_connection_comes_before_requests() {
        let mut queue = Queue::new();
        queue.push(Party::Remote, 1).unwrap();
        queue.turns.connect(tempfile::tempfile().unwrap().into());
        assert!(matches!(queue.turns.next(queue.start), Some(Order::Connect(_))));
        assert_eq!(queue.next(Duration::ZERO), Some(1));
    }
}
