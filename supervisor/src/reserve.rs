//! The ports that services listen on, taken out of those that the kernel gives to sockets that connect.
//!
//! Its law: a port of the manifest is nobody's by chance, so that a service finds it free whenever it starts. Whoever binds
//! it by name may have it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use cloister_manifest::model::{Check, Manifest, Ready};

/// The kernel's list of such ports (`Documentation/networking/ip-sysctl.rst`), below `/proc`.
const RESERVED: &str = "sys/net/ipv4/ip_local_reserved_ports";

/// Reserves the manifest's ports: those that ingress leads to and those that probes ask.
///
/// # Errors
/// Those of the kernel's file. Then a service may find its port taken, for as long as a connection of somebody else lasts.
pub fn reserve(proc: &Path, manifest: &Manifest) -> io::Result<()> {
    let ports: Vec<String> = ports(manifest).iter().map(u16::to_string).collect();
    std::fs::write(proc.join(RESERVED), ports.join(","))
}

fn ports(manifest: &Manifest) -> BTreeSet<u16> {
    let ready = manifest.services.iter().filter_map(|service| match service.ready {
        Ready::Tcp(port) | Ready::Http { port, .. } => Some(port),
        _ => None,
    });
    let live = manifest.services.iter().filter_map(|service| match service.live.as_ref()?.check {
        Check::Tcp(port) | Check::Http { port, .. } => Some(port),
        Check::Watchdog => None,
    });
    manifest.ingress.iter().map(|entry| entry.target).chain(ready).chain(live).collect()
}
