//! The channel to the supervisor.
//!
//! Invariant: connections never wait for the supervisor, except for a socket that only it can create. Counters are sent
//! at the first change after a [`REPORT_INTERVAL`]; if the supervisor does not read, their latest values are sent once
//! it does.

use std::sync::Arc;
use std::time::Duration;

use cloister_net::packets::{MessageError, Packets};
use cloister_wire::gateway::{FromGateway, Target, ToGateway};
use cloister_wire::packet::LIMIT;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::ingress::Ingress;

/// Minimum time between two reports of the counters: a status is read by humans and scrapers, and a report per
/// connection would keep the supervisor as busy as the gateway.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Receives messages from the supervisor and sends those from `outgoing`, until an error occurs.
pub(crate) async fn converse(
    channel: Arc<Packets>,
    ingress: &Ingress,
    mut outgoing: mpsc::Receiver<FromGateway>,
) -> Result<(), MessageError> {
    let sending = async {
        while let Some(message) = outgoing.recv().await {
            channel.report(&message).await?;
        }
        Ok(())
    };
    tokio::select! {
        received = receive(&channel, ingress) => received,
        sent = sending => sent,
        counted = count(&channel, ingress) => counted,
    }
}

async fn receive(channel: &Packets, ingress: &Ingress) -> Result<(), MessageError> {
    let mut buffer = vec![0; LIMIT];
    let mut arriving = Arriving::default();
    let mut waiting: Option<AbortHandle> = None;
    loop {
        let (message, mut fds) = channel.next(&mut buffer).await?;
        match message {
            ToGateway::Table { first, targets, attestation, more } => {
                if let Some(table) = arriving.add(first, targets, more) {
                    ingress.set_table(table, attestation);
                    ingress.report(FromGateway::Ready).await;
                }
            }
            ToGateway::Drain => {
                ingress.drain();
                let draining = ingress.clone();
                let task = tokio::spawn(async move {
                    draining.empty().await;
                    draining.report(FromGateway::Drained).await;
                });
                // A restarted supervisor repeats its request, and gets one report.
                waiting.replace(task.abort_handle()).into_iter().for_each(|task| task.abort());
            }
            ToGateway::Count => ingress.report(FromGateway::Counters(ingress.counters())).await,
            ToGateway::Loaned { id, errno } => ingress.loaned(id, fds.pop(), errno),
        }
    }
}

async fn count(channel: &Packets, ingress: &Ingress) -> Result<(), MessageError> {
    loop {
        ingress.changed().await;
        channel.report(&FromGateway::Counters(ingress.counters())).await?;
        sleep(REPORT_INTERVAL).await;
    }
}

/// A table of which some packets have arrived.
#[derive(Debug, Default)]
struct Arriving(Option<Vec<Target>>);

impl Arriving {
    /// Adds the entries of a packet, and returns the table once it is complete. Packets before a first one are the rest of a table
    /// that was being sent to the gateway before this one.
    fn add(&mut self, first: bool, targets: Vec<Target>, more: bool) -> Option<Vec<Target>> {
        if first {
            self.0 = Some(Vec::new());
        }
        self.0.as_mut()?.extend(targets);
        if more { None } else { self.0.take() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(port: u16) -> Vec<Target> {
        vec![Target { port, target: port, service: "web".into(), cgroup: None, proxy_protocol: false }]
    }

    #[test]
    fn a_table_arrives_in_several_packets() {
        let mut arriving = Arriving::default();
        assert_eq!(arriving.add(true, targets(1), true), None);
        assert_eq!(arriving.add(false, targets(2), false).map(|table| table.len()), Some(2));
    }

    #[test]
    fn the_rest_of_a_table_that_was_sent_to_an_earlier_gateway_is_ignored() {
        let mut arriving = Arriving::default();
        assert_eq!(arriving.add(false, targets(2), false), None);
        assert_eq!(arriving.add(true, targets(1), true), None);
        assert_eq!(arriving.add(true, targets(1), false), Some(targets(1)));
    }
}
