//! The soak: services, the supervisor and the gateway are killed at random under HTTP load, for a given time, and at the end all
//! counts must agree.
//!
//! Invariant: what is counted in two places must agree, and what must not grow is measured at rest, before and after. Nothing
//! is judged by its speed.
//!
//! ```text
//! host                                         enclave
//!   load ─── GET / ───────────── ingress ───▶ web           a line for each answer
//!   chaos ── /kill/7/talker-a ── ingress ───▶ killer ─────▶ SIGKILL to services, the supervisor and the gateway
//!   log ◀─── logs --follow ────────────────── web, talkers, forker
//! ```

mod chaos;
mod guest;
mod killer;
mod load;
mod log;
mod numbered_output;
mod sequence;
mod verdict;

use std::io::Write;
use std::time::Duration;

use crate::lab::{Built, Lab};
use crate::scenario::Failure;
use crate::{Outcome, Scenario};

use chaos::Chaos;
use load::Load;
use log::Log;
use verdict::Check;

/// The name of the guest half, and the first argument of the services' program.
const NAME: &str = "soak";

/// How an order names the supervisor, which is not a service.
const SUPERVISOR: &str = "supervisor";

/// How an order names the gateway, as the status does.
const GATEWAY: &str = cloister_wire::gateway::NAME;

/// The services that are killed. The killer is not: it has to count.
const VICTIMS: [&str; 4] = ["web", "talker-a", "talker-b", "forker"];

/// Restarts are quick, so that services are killed more often, and unlimited.
const MANIFEST: &str = "
version: 1
services:
  web:
    command: [PROBE, web]
    ready: {tcp: 8080}
    critical: true
    restart: &often {policy: always, delay: 20ms, max_delay: 200ms, stable: 1s, burst: 100000}
  talker-a: {command: [PROBE, talker, talker-a], ready: {log: 'run '}, restart: *often}
  talker-b: {command: [PROBE, talker, talker-b], ready: {log: 'run '}, restart: *often}
  forker: {command: [PROBE, forker], ready: {log: 'run '}, restart: *often}
  killer: {command: [PROBE, killer], ready: {tcp: 8081}, restart: never}
ingress:
  - {port: 80, service: web, target: 8080}
  - {port: 81, service: killer, target: 8081}
";

/// Lines shown of a failure: what happened just before.
const LAST_LINES: usize = 20;

/// The guest half, for the probe. It is not a scenario: those take seconds.
pub const GUEST: Scenario = Scenario { name: NAME, host: |_| Outcome::Ok(()), guest: guest::guest };

/// Runs the soak for `time` and prints a line for each check. Returns how many passed and how many failed.
pub fn run(built: &Built, time: Duration, out: &mut impl Write) -> Result<(usize, usize), Failure> {
    let mut lab = Lab::new(NAME, built)?;
    let checked = soak(&mut lab, time);
    let good = checked.as_ref().is_ok_and(|checks| checks.iter().all(|check| check.problem.is_none()));
    if !good {
        lab.keep();
        writeln!(out, "the enclave's files are kept in {}", lab.folder().join("run/web").display())?;
    }
    let checks = checked.map_err(shortened)?;
    for check in &checks {
        writeln!(out, "{check}")?;
    }
    let failed = checks.iter().filter(|check| check.problem.is_some()).count();
    Ok((checks.len().saturating_sub(failed), failed))
}

/// The failure with the last lines of its output: the rest is in the lab's directory.
fn shortened(failure: Failure) -> Failure {
    let Failure::Failed(why) = failure else { return failure };
    let lines: Vec<&str> = why.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES).max(1).min(lines.len());
    let last = lines.get(from..).unwrap_or_default().join("\n");
    Failure::Failed(format!("{}\n{last}", lines.first().copied().unwrap_or_default()))
}

fn soak(lab: &mut Lab, time: Duration) -> Result<Vec<Check>, Failure> {
    let (http, orders) = (lab.free_port()?, lab.free_port()?);
    let ports = [format!("127.0.0.1:{http}:80"), format!("127.0.0.1:{orders}:81")];
    let mut web = lab.boot_with_sender(MANIFEST, &["--publish", &ports[0], "--publish", &ports[1]])?;
    web.wait_ready()?;
    let log = Log::follow(lab)?;
    let mut chaos = Chaos::new(&web, orders);
    let load = Load::begin(http);
    chaos.kill_each_once()?;
    load.pause();
    let before = chaos.at_rest()?;
    load.resume();
    chaos.kill_at_random(time, &log)?;
    let traffic = load.end();
    let after = chaos.at_rest()?;
    let (status, recoveries) = (web.wait_ready()?, chaos.recoveries());
    web.stop()?.expect_code(0)?;
    Ok(verdict::checks(&verdict::Evidence { before, after, status, traffic, recoveries, log: log.end()? }))
}
