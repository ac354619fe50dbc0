//! An enclave can be stopped as soon as `ps` shows it, even before it has a machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Instant;

use crate::guest::no_guest;
use crate::lab::{COMMAND_LIMIT, Sleeve, path_str};
use crate::scenario::{Failure, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "a_launching_enclave_can_be_stopped", host, guest: no_guest };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

/// A vsock device that never listens: the launch waits ten seconds for it.
const DEAF: &str = "#!/bin/sh\nexec sleep 30\n";

fn host(lab: &mut Lab) -> Outcome {
    let image = lab.image(MANIFEST)?;
    let program = lab.folder().join("installed/bin/host-sleeve");
    let device = lab.folder().join("installed/libexec/cloister/vhost-device-vsock");
    for file in [&program, &device] {
        fs::create_dir_all(file.parent().unwrap_or(file))?;
    }
    fs::copy(lab.built().dist.join("bin/host-sleeve"), &program)?;
    fs::write(&device, DEAF)?;
    fs::set_permissions(&device, fs::Permissions::from_mode(0o755))?;
    let args = ["run", path_str(&image)?, "--name", "web"];
    let run = Sleeve::new(&program, &lab.folder().join("run"), &args)
        .into_command()
        .stderr(Stdio::piped())
        .spawn()?;
    let began = Instant::now();
    while !lab.sleeve(&["ps"]).finish()?.stdout.contains("launching") && began.elapsed() < COMMAND_LIMIT {}
    // A failed launch has no name to stop, and this one fails after ten seconds.
    let stopped = lab.sleeve(&["stop", "web"]).finish()?;
    stopped.expect_code(0)?;
    expect_eq(&stopped.stdout.trim(), &"web", "the stopped enclave")?;
    let run = run.wait_with_output().map_err(Failure::from)?;
    expect_eq(&run.status.code(), &Some(137), "the exit code of run")?;
    expect_in(&String::from_utf8_lossy(&run.stderr), "stopped before the boot", "the error of run")?;
    let left = lab.sleeve(&["ps", "--all", "--quiet"]).finish()?;
    expect_eq(&left.stdout.trim(), &"", "the remaining enclaves")
}
