//! A guest may get no time for longer than anybody waits for it: on a busy host, or on one that stopped it. Whoever gave up
//! meanwhile must not have broken the way to it, and the operator is told while it lasts.

use std::process::ExitCode;

use rustix::process::{Signal, kill_process};

use super::killed_parts_leave_nothing_behind::process_of;
use crate::guest::serve_http;
use crate::story::{Outcome, expect, expect_eq};
use crate::{Lab, Scenario};

/// The story.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "a_guest_that_stood_still_is_reached_again", host, guest };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE], ready: {tcp: 8080}}}, ingress: [{port: 80, target: 8080}]}";

fn host(lab: &mut Lab) -> Outcome {
    let port = lab.free_port()?;
    let mut web = lab.boot(MANIFEST, &["--publish", &format!("{port}:80")])?;
    let qemu = process_of(&web.wait_ready()?, "qemu")?;
    kill_process(qemu, Signal::STOP).map_err(std::io::Error::from)?;
    // The sleeve asks the vsock device for a connection, which asks the guest, which does not answer; the sleeve gives up.
    expect(web.get(port, "/one").is_err(), "a guest that stands still answers nobody")?;
    web.wait_stderr("web does not respond")?;
    // The record that `ps` reads is written beside that.
    web.until("ps shows since when", || {
        let listed = web.ask(&["ps"])?;
        Ok(listed.stdout.contains("ready, no answer for 1").then_some(()))
    })?;
    kill_process(qemu, Signal::CONT).map_err(std::io::Error::from)?;
    let answer = web.until("the guest answers again", || Ok(web.get(port, "/two").ok()))?;
    expect_eq(&answer.body, &"/two".to_owned(), "what it answers")?;
    web.wait_stderr("web is ready again")?;
    web.stop()?;
    Ok(())
}

fn guest(_words: &[String]) -> ExitCode {
    if serve_http(8080, str::to_owned).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
