//! What is common to the manifest's rules and the operator's about an address.
//!
//! Invariant: an address is judged together with the IPv4 addresses in it. A special address is open only to a rule whose range lies
//! within its special range: `0.0.0.0/0` is the internet, not the loopback interface.

use std::net::IpAddr;

use crate::address::{canonical, embedded};
use crate::cidr::Cidr;
use crate::decision::Reason;
use crate::registry::{Class, special};

/// An address in its canonical form, then each IPv4 address in it with the form's name.
pub(crate) fn readings(address: IpAddr) -> impl Iterator<Item = (IpAddr, Option<&'static str>)> {
    let address = canonical(address);
    std::iter::once((address, None))
        .chain(embedded(address).map(|within| (IpAddr::V4(within.address), Some(within.form))))
}

/// Why an address is closed: a reading that is special, of a class that is guarded, and in a range that is not `opened`.
pub(crate) fn closed(
    address: IpAddr,
    guarded: impl Fn(Class) -> bool,
    opened: impl Fn(IpAddr, &Cidr) -> bool,
) -> Option<Reason> {
    readings(address).find_map(|(reading, form)| {
        let special = special(reading).filter(|special| special.class != Class::Nat64)?;
        let closed = guarded(special.class) && !opened(reading, &special.range);
        closed.then_some(Reason::Special { special, address: reading, form })
    })
}
