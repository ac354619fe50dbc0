//! A guest may get no processor time for longer than any peer waits: on a busy host, or on one that stopped it. A peer that
//! timed out must not have broken the path to it, and the operator is notified while it lasts.

use std::process::ExitCode;

use rustix::process::{Signal, kill_process};

use super::killed_processes_leave_nothing_behind::process_of;
use crate::guest::serve_http;
use crate::scenario::{Outcome, expect, expect_eq};
use crate::{Lab, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "a_paused_guest_is_reachable_after_it_resumes", host, guest };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [{port: 80, target: 8080}]}";

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web = lab.boot(MANIFEST, &["--publish", &format!("{port}:80")])?;
    let qemu = process_of(&web.wait_ready()?, "qemu")?;
    kill_process(qemu, Signal::STOP).map_err(std::io::Error::from)?;
    // The sleeve requests a connection from the vsock device, which asks the guest, which does not answer; the sleeve times out.
    expect(web.get(port, "/one").is_err(), "a paused guest does not answer")?;
    web.wait_stderr("web does not respond")?;
    // The record that `ps` reads is written in parallel.
    web.until("the duration in ps", || {
        let listed = web.command(&["ps"])?;
        Ok(listed.stdout.contains("ready, no answer for 1").then_some(()))
    })?;
    kill_process(qemu, Signal::CONT).map_err(std::io::Error::from)?;
    let answer = web.until("an answer of the guest", || Ok(web.get(port, "/two").ok()))?;
    expect_eq(&answer.body, &"/two".to_owned(), "the answer")?;
    web.wait_stderr("web is ready again")?;
    web.stop()?;
    Ok(())
}

fn guest(_args: &[String]) -> ExitCode {
    if serve_http(8080, str::to_owned).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
