//! On a processor with KVM but without RDRAND, enclaves are emulated: on KVM they would boot and start nothing.

use crate::guest::no_guest;
use crate::lab::path_str;
use crate::scenario::{expect, expect_at, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "a_processor_without_rdrand_is_reported_and_kvm_is_not_used", host, guest: no_guest };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

fn host(lab: &mut Lab) -> Outcome {
    let asked = lab.sleeve(&["doctor", "--json"]).finish()?;
    asked.expect_code(0)?;
    let doctor = asked.json()?;
    let findings = doctor.pointer("/findings").and_then(serde_json::Value::as_array);
    let kvm = findings.and_then(|all| all.iter().find(|one| one.pointer("/what") == Some(&"KVM".into())));
    let kvm = kvm.cloned().unwrap_or_default();
    expect_at(&kvm, "/works", false)?;
    expect_in(&kvm.to_string(), "RDRAND", "the reason that doctor gives")?;

    let image = lab.image(MANIFEST)?;
    let refused = lab.sleeve(&["run", path_str(&image)?, "--accel", "kvm"]).finish()?;
    refused.expect_code(125)?;
    expect_in(&refused.stderr, "RDRAND", "the reason that run gives")?;

    // An emulated boot takes a minute here; the record names the accelerator earlier.
    let mut web = lab.run(&image, &[])?;
    let machine = web.until("the machine in the record", || {
        // Before the launch has begun no enclave has that name.
        let inspected = web.command(&["inspect", "web", "--json"])?.json().unwrap_or_default();
        Ok(inspected.pointer("/machine").filter(|machine| !machine.is_null()).cloned())
    })?;
    expect_at(&machine, "/kind", "microvm, tcg")?;
    expect_in(&machine.to_string(), "RDRAND", "the reason in the record")?;
    lab.sleeve(&["stop", "--kill", "web"]).finish()?.expect_code(0)?;
    let ended = web.finish()?;
    expect(ended.code.is_some(), format_args!("{ended:?}"))
}
