//! An enclave can be stopped from the moment that `ps` shows it, a machine or not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Instant;

use crate::guest::nobody;
use crate::lab::{COMMAND_LIMIT, Sleeve, path_str};
use crate::story::{Failure, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "an_enclave_that_is_launching_can_be_stopped", host, guest: nobody };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

/// A vsock device that never listens: the launch waits for it for ten seconds.
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
    let words = ["run", path_str(&image)?, "--name", "web"];
    let run = Sleeve::new(&program, &lab.folder().join("run"), &words)
        .into_command()
        .stderr(Stdio::piped())
        .spawn()?;
    let began = Instant::now();
    while !lab.sleeve(&["ps"]).finish()?.stdout.contains("launching") && began.elapsed() < COMMAND_LIMIT {}
    // One that never was there has no name to be stopped by, and its launch ends after ten seconds.
    let stopped = lab.sleeve(&["stop", "web"]).finish()?;
    stopped.expect_code(0)?;
    expect_eq(&stopped.stdout.trim(), &"web", "what was stopped")?;
    let run = run.wait_with_output().map_err(Failure::from)?;
    expect_eq(&run.status.code(), &Some(137), "the code of run")?;
    expect_in(&String::from_utf8_lossy(&run.stderr), "stopped before the boot", "what run says")?;
    let left = lab.sleeve(&["ps", "--all", "--quiet"]).finish()?;
    expect_eq(&left.stdout.trim(), &"", "what is left")
}
