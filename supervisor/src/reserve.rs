//! Reserves the ports that services listen on: the kernel does not assign them to connecting sockets.
//!
//! Invariant: a port in the manifest is never assigned automatically, so that a service finds it free whenever it
//! starts. An explicit bind still gets it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use cloister_manifest::model::{Check, Manifest, Ready};

/// The kernel's list of reserved ports (`Documentation/networking/ip-sysctl.rst`), below `/proc`.
const RESERVED: &str = "sys/net/ipv4/ip_local_reserved_ports";

/// Reserves the manifest's ports: the targets of ingress and the ports that probes connect to.
///
/// # Errors
/// Those of writing the kernel's file. Without the reservation a service may find its port in use by another
/// connection.
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
