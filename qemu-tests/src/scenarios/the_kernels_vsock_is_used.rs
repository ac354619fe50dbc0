//! On a host with KVM and the kernel's vsock, `host-sleeve` finds both, reports them, and uses them by default.

use std::fs::File;
use std::io::ErrorKind;
use std::process::ExitCode;

use cloister_sys::vhost;
use serde_json::Value;

use crate::guest::{no_guest, serve_http};
use crate::scenario::{expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "kvm_and_the_kernels_vsock_are_used_if_available", host, guest };

/// vsock addresses.
pub(super) const ADDRESSES: Scenario = Scenario {
    name: "a_vsock_address_belongs_to_one_machine_until_it_has_ended",
    host: addresses,
    guest: no_guest,
};

/// An address without an owner: neither reserved nor among those that `host-sleeve` chooses.
const ADDRESS: u32 = 0x2000_0001;

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [{port: 80, service: web, target: 8080}]}";

fn host(lab: &mut Lab) -> Outcome {
    let asked = lab.sleeve(&["doctor", "--json"]).finish()?;
    asked.expect_code(0)?;
    let doctor = asked.json()?;
    for (what, found) in [("KVM", "trial boot"), ("vsock", "/dev/vhost-vsock")] {
        let findings = doctor.pointer("/findings").and_then(Value::as_array);
        let finding =
            findings.and_then(|all| all.iter().find(|one| one.pointer("/what") == Some(&what.into())));
        let finding = finding.unwrap_or(&Value::Null);
        expect_at(finding, "/works", true)?;
        expect_in(&finding.to_string(), found, what)?;
    }
    let port = lab.free_port()?;
    let mut web = lab.boot(MANIFEST, &["--publish", &format!("{port}:80")])?;
    let inspected = web.wait_ready()?;
    expect_at(&inspected, "/machine/kind", "microvm, kvm")?;
    expect(
        inspected.pointer("/processes/vsock").is_none_or(Value::is_null),
        format_args!("a vsock device runs as a process: {inspected}"),
    )?;
    expect_eq(&web.get(port, "/hello")?.body.as_str(), &"/hello", "the answer through ingress")?;
    web.stop().map(drop)
}

/// What a launch relies on when it chooses an address, reserves it and passes it to QEMU.
fn addresses(_lab: &mut Lab) -> Outcome {
    let device = || File::options().read(true).write(true).open("/dev/vhost-vsock");
    let (first, second) = (device()?, device()?);
    vhost::set_guest_cid(&first, ADDRESS)?;
    let taken = vhost::set_guest_cid(&second, ADDRESS).map_err(|error| error.kind());
    expect_eq(&taken, &Err(ErrorKind::AddrInUse), "an address in use by another machine")?;
    // QEMU sets the address of the device again.
    vhost::set_guest_cid(&first, ADDRESS)?;
    drop(first);
    vhost::set_guest_cid(&second, ADDRESS)?;
    Ok(())
}

fn guest(_args: &[String]) -> ExitCode {
    if serve_http(8080, str::to_owned).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
