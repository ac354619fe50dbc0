//! Services start in the order of their dependencies, and stop in the reverse order.

use std::io::Write;
use std::process::ExitCode;

use rustix::process::Signal;

use crate::guest::{catch, no_guest, print, serve_http, wait_for_file};
use crate::lab::{path_str, phase};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Running, Scenario, Shared};

/// A job, a service that waits for it, and one that waits for that.
pub(super) const ORDER: Scenario =
    Scenario { name: "services_start_after_their_dependencies_and_stop_before_them", host: order, guest };

/// A service that requires another.
pub(super) const REQUIRES: Shared = Shared {
    name: "a_service_whose_requirement_fails_is_stopped",
    services: "
  loner: {command: [PROBE, speaker, loner], ready: {log: 'loner is here'}, critical: true}
  cache: {command: [PROBE, fails-when, /var/client], ready: started, restart: never}
  client: {command: [PROBE, speaker, client], requires: [cache], ready: {log: 'client is here'}}
",
    control: &[],
    host: requires,
    guest,
};

/// Services that wait for each other.
pub(super) const CYCLE: Scenario =
    Scenario { name: "a_dependency_cycle_is_named_when_building", host: cycle, guest: no_guest };

fn order(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(
        "
version: 1
services:
  web: {command: [PROBE, web], after: [cache], ready: {tcp: 8080}, critical: true}
  cache: {command: [PROBE, speaker, cache], after: [setup], ready: {log: 'cache is here'}}
  setup: {command: [PROBE, job, setup], kind: job}
ingress: [{port: 80, service: web, target: 8080}]
",
        &[],
    )?;
    web.wait_ready()?;
    web.command(&["stop", "web"])?.expect_code(0)?;
    let ended = web.finish()?;
    in_order(
        &ended.stdout,
        &[
            "setup is done",
            "cache is here",
            "web is here",
            "web was asked to stop",
            "cache was asked to stop",
        ],
    )
}

fn requires(web: &Running) -> Outcome {
    web.wait_state("degraded")?;
    web.wait_stdout("client was asked to stop")?;
    web.wait_service("cache", "failed")?;
    expect_eq(&phase(&web.service("loner")?), &"ready", "the phase of the independent service")
}

fn cycle(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    let manifest = lab.manifest(
        "
version: 1
services:
  web: {command: [PROBE], requires: [cache]}
  cache: {command: [PROBE], after: [setup]}
  setup: {command: [PROBE], kind: job, after: [web]}
",
    )?;
    let (image, from) = (lab.folder().join("app.cloister"), format!("dir:{}", root.display()));
    let args = ["build", "--image", &from, "--manifest", path_str(&manifest)?, "-o", path_str(&image)?];
    let built = lab.sleeve(&args).finish()?;
    expect(built.code != Some(0), "a manifest with a cycle was built")?;
    expect_in(&built.stderr, "services wait for each other: ", "the error")?;
    let cycle = ["web → cache → setup → web", "cache → setup → web → cache", "setup → web → cache → setup"];
    let is_named = cycle.iter().any(|cycle| built.stderr.contains(cycle));
    expect(is_named, format_args!("the cycle is not named in:\n{}", built.stderr))?;
    expect(!image.exists(), "an image was left behind")
}

fn guest(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["job", name] => print(format!("{name} is done\n").as_bytes()),
        ["speaker", name] => speak(name),
        ["web"] => web(),
        ["fails-when", file] => wait_for_file(file).and_then(|()| Err(std::io::ErrorKind::Other.into())),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

fn speak(name: &str) -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    print(format!("{name} is here\n").as_bytes())?;
    std::fs::write(format!("/var/{name}"), "")?;
    term.wait()?;
    print(format!("{name} was asked to stop\n").as_bytes())
}

fn web() -> std::io::Result<()> {
    std::thread::spawn(|| {
        let served = serve_http(8080, |_| String::new());
        drop(writeln!(std::io::stderr(), "served: {served:?}"));
    });
    speak("web")
}

fn in_order(text: &str, parts: &[&str]) -> Outcome {
    let mut rest = text;
    for part in parts {
        let (_, after) = rest
            .split_once(part)
            .ok_or_else(|| Failure::failed(format_args!("{part:?} is missing, or too early, in:\n{text}")))?;
        rest = after;
    }
    expect(!parts.is_empty(), "the order has parts")
}
