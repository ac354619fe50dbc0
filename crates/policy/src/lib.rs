//! The egress policy: which service may connect to which name or address, on which port.
//!
//! Invariant: pure. No I/O, no clock, no random numbers: the time is passed in, decisions are returned, and the same input gives the
//! same decision inside the enclave and on the host. What no rule allows is refused, a deny rule wins over every allow rule, and a
//! name or an address is brought into its one [canonical form](Host) before it is compared: the caller connects to the canonical form
//! and never to the text it was given.
//!
//! [`Egress`] is what a manifest holds, [`Policy`] its checked and compiled form, [`OperatorList`] and [`Narrowed`] the host's own
//! restrictions on top of it, [`Bindings`] which names the addresses of recent DNS answers belong to. All questions are methods of
//! [`Judge`]. Resolving, connecting, and reading a TLS `ClientHello` is left to the caller. The language is described in
//! docs/egress-policy.md.
#![forbid(unsafe_code)]

mod address;
mod bindings;
mod cidr;
mod compile;
mod decision;
mod host;
mod judge;
mod narrowed;
mod numeric;
mod pattern;
mod policy;
mod ports;
mod reach;
mod registry;
mod ruleset;
mod source;
#[cfg(test)]
mod tests;

pub use address::{Embedded, MAX_ADDRESSES, canonical, embedded};
pub use bindings::{BINDINGS_PER_NAME, BINDINGS_PER_SERVICE, Bindings, MAX_LIFETIME, MIN_LIFETIME};
pub use cidr::{Cidr, CidrError};
pub use compile::{MAX_RANGES, MAX_RULES};
pub use decision::{Decision, List, Origin, Reason, Record, RuleRef, Section, refused_input};
pub use host::{Host, HostError, MAX_INPUT, MAX_LABEL, MAX_NAME, Name, Target, TargetError};
pub use judge::{Flow, Judge, Resolved};
pub use narrowed::{Narrowed, Operator};
pub use pattern::{Pattern, PatternError};
pub use policy::Policy;
pub use ports::{Port, PortError, Ports, Protocol, Protocols};
pub use registry::{Class, SPECIAL, Special, special};
pub use source::{Egress, MAX_PROBLEMS, OperatorList, Problem, Report, Rule, Rules};
