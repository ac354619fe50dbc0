//! The questions that are asked of a policy.
//!
//! Invariant: what follows from the five required answers is written once, so that the enclave and the host cannot differ. Each answer
//! states a rule and a reason; nothing is allowed because a question was not understood.

use std::net::IpAddr;
use std::time::Duration;

use crate::address::{MAX_ADDRESSES, canonical};
use crate::bindings::Bindings;
use crate::decision::{Decision, Reason, RuleRef, explanation};
use crate::host::{Host, HostError, Name, Target};
use crate::ports::Port;

/// One connection, or the packets between two UDP endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The service that makes it.
    pub service: &'a str,
    /// The address that it is made to.
    pub address: IpAddr,
    /// The port.
    pub port: Port,
}

/// The addresses of a name, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The whole: allowed if at least one address is.
    pub decision: Decision,
    /// Those that may be connected to, in the order of the answer, each once.
    pub allowed: Vec<IpAddr>,
    /// The others, each with its reason.
    pub refused: Vec<(IpAddr, Decision)>,
}

/// Answers questions about connections.
pub trait Judge {
    /// Whether `service` may connect to `name`. Its addresses must be judged as well.
    fn by_name(&self, service: &str, name: &Name, port: Port) -> Decision;

    /// Whether `service` may connect to `address` whatever its name is.
    fn by_number(&self, service: &str, address: IpAddr, port: Port) -> Decision;

    /// Whether `service` may connect to `address`, to which `name` resolved.
    fn resolved(&self, service: &str, name: &Name, address: IpAddr, port: Port) -> Decision;

    /// The decision of the first deny rule about `name`, of the manifest or the operator, if there is one. Nothing that allows the
    /// connection counts against it.
    fn denied_name(&self, service: &str, name: &Name, port: Port) -> Option<Decision>;

    /// Whether `service` may resolve `name`: whether any port of it is allowed.
    fn lookup(&self, service: &str, name: &Name) -> Decision;

    /// The text of a rule.
    fn rule(&self, service: &str, rule: RuleRef) -> Option<String>;

    /// Whether `service` may connect to `target`.
    fn decide(&self, service: &str, target: &Target) -> Decision {
        match &target.host {
            Host::Name(name) => self.by_name(service, name, target.port),
            Host::Address(address) => self.by_number(service, *address, target.port),
        }
    }

    /// Which of the addresses that `name` resolved to may be connected to.
    fn decide_resolved(&self, service: &str, name: &Name, addresses: &[IpAddr], port: Port) -> Resolved {
        let by_name = self.by_name(service, name, port);
        let (mut allowed, mut refused) = (Vec::new(), Vec::new());
        if by_name.allowed() {
            for address in distinct(addresses) {
                let decision = self.resolved(service, name, address, port);
                if decision.allowed() { allowed.push(address) } else { refused.push((address, decision)) }
            }
        }
        let decision = match (allowed.is_empty(), refused.first()) {
            _ if !by_name.allowed() => by_name,
            (true, None) => Decision::plain(Reason::NoAddress),
            (true, Some((_, first))) => first.clone(),
            (false, _) => by_name,
        };
        let judged = distinct(addresses);
        let mut others = addresses.iter().skip(MAX_ADDRESSES).map(|address| canonical(*address));
        let other = others.find(|address| !judged.contains(address));
        refused.extend(other.map(|address| (address, Decision::plain(Reason::TooManyAddresses))));
        Resolved { decision, allowed, refused }
    }

    /// Whether a flow to an address may begin, before its first bytes are known. [`Reason::Pending`]: only [`Self::judge_hello`] can
    /// tell, and the flow must not reach its peer before.
    fn judge_flow(&self, bindings: &Bindings, flow: &Flow<'_>, now: Duration) -> Decision {
        let (number, bound) = self.known(bindings, flow, now);
        match number.reason {
            Reason::Number | Reason::Unrestricted => by_denials(number, &bound),
            Reason::NoRule => by_names(&bound),
            _ => number,
        }
    }

    /// Whether a flow may go on, now that its first bytes are known: `sni` is the server name of TLS or QUIC, or the host of HTTP without
    /// its port, if there is one. A flow by name must name a host that is bound to its address and allowed.
    fn judge_hello(
        &self,
        bindings: &Bindings,
        flow: &Flow<'_>,
        sni: Option<&str>,
        now: Duration,
    ) -> Decision {
        let Some(sni) = sni else {
            let decision = self.judge_flow(bindings, flow, now);
            let pending = decision.reason == Reason::Pending;
            return if pending { Decision { reason: Reason::HelloMissing, ..decision } } else { decision };
        };
        let (number, bound) = self.known(bindings, flow, now);
        let number = match number.reason {
            Reason::Number | Reason::Unrestricted => by_denials(number, &bound),
            _ => number,
        };
        let by_range = matches!(number.reason, Reason::Number | Reason::Unrestricted);
        let named = match (number.allowed() || number.reason == Reason::NoRule, as_sent(sni)) {
            (false, _) => return number,
            // A program names its own machine so; no rule about names can.
            (true, Err(HostError::Localhost)) if by_range && is_loopback(flow.address) => return number,
            (true, Err(error)) => return Decision::plain(Reason::HelloInvalid(error)),
            (true, Ok(named)) => named,
        };
        match (number.reason.clone(), named) {
            (Reason::NoRule, Host::Name(name)) => find(bound, &name),
            (Reason::Pending, Host::Name(name)) => {
                let found = find(bound, &name);
                let refused = matches!(found.reason, Reason::Denied | Reason::HelloElsewhere);
                if refused { found } else { Decision { reason: Reason::Number, ..number } }
            }
            (Reason::NoRule | Reason::Pending, Host::Address(_)) => Decision::plain(Reason::HelloElsewhere),
            (_, Host::Name(name)) => self.denied_name(flow.service, &name, flow.port).unwrap_or(number),
            (_, Host::Address(address)) if address == canonical(flow.address) => number,
            (_, Host::Address(_)) => Decision::plain(Reason::HelloElsewhere),
        }
    }

    /// What the address alone decides, and what each name that is bound to it does.
    fn known(
        &self,
        bindings: &Bindings,
        flow: &Flow<'_>,
        now: Duration,
    ) -> (Decision, Vec<(Name, Decision)>) {
        let address = canonical(flow.address);
        let number = self.by_number(flow.service, address, flow.port);
        let judge = |name: &Name| {
            let denied = self.denied_name(flow.service, name, flow.port);
            let decision = denied.unwrap_or_else(|| self.resolved(flow.service, name, address, flow.port));
            (name.clone(), decision)
        };
        (number, bindings.names(flow.service, address, now).map(judge).collect())
    }

    /// A decision for people, in several lines. `line` gives the line of a rule in the file that the user wrote, if it is known.
    fn explain(
        &self,
        service: &str,
        target: &Target,
        decision: &Decision,
        line: &dyn Fn(RuleRef) -> Option<String>,
    ) -> String {
        let rule = decision.rule.map(|rule| {
            let place = line(rule).unwrap_or_else(|| rule.place(service));
            let text = self.rule(service, rule).unwrap_or_default();
            format!("{place}: {text}")
        });
        explanation(service, target, decision, rule.as_deref())
    }
}

/// A flow that is allowed by number: names that a rule denies count nevertheless.
fn by_denials(number: Decision, bound: &[(Name, Decision)]) -> Decision {
    let mut denied = bound.iter().filter(|(_, decision)| decision.reason == Reason::Denied);
    let Some((_, first)) = denied.next() else { return number };
    if denied.count() + 1 == bound.len() {
        first.clone()
    } else {
        Decision { reason: Reason::Pending, ..number }
    }
}

/// The host that a connection names. The peer gets these bytes and not their canonical form: what is not ASCII, it may map otherwise.
fn as_sent(sni: &str) -> Result<Host, HostError> {
    match sni.chars().find(|letter| !letter.is_ascii()) {
        Some(letter) => Err(HostError::Character(letter)),
        None => Host::parse(sni),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    canonical(address).is_loopback()
}

/// What was decided about a name that the connection names.
fn find(bound: Vec<(Name, Decision)>, name: &Name) -> Decision {
    if bound.is_empty() {
        return Decision::plain(Reason::Unbound);
    }
    let found = bound.into_iter().find(|(known, _)| known == name);
    found.map_or(Decision::plain(Reason::HelloElsewhere), |(_, decision)| decision)
}

/// A flow that only names can allow.
fn by_names(bound: &[(Name, Decision)]) -> Decision {
    let allowed = bound.iter().find(|(_, decision)| decision.allowed());
    let refused = bound.iter().find(|(_, decision)| !decision.allowed());
    match (allowed, refused) {
        (None, None) => Decision::plain(Reason::Unbound),
        (None, Some((_, refused))) => refused.clone(),
        (Some((_, allowed)), None) => allowed.clone(),
        (Some((_, allowed)), Some(_)) => Decision { reason: Reason::Pending, ..allowed.clone() },
    }
}

/// The first addresses in canonical form, each once.
fn distinct(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut distinct = Vec::new();
    for address in addresses.iter().take(MAX_ADDRESSES).map(|address| canonical(*address)) {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct
}
