//! Services start in the order their manifest asks for, and end in the reverse order.

use std::io::Write;
use std::process::ExitCode;

use rustix::process::Signal;

use crate::guest::{catch, say, serve_http, wait_for_file};
use crate::lab::phase;
use crate::story::{Failure, expect, expect_eq};
use crate::{Lab, Outcome, Scenario};

/// The story of a job, a service that waits for it, and one that waits for that.
pub(super) const ORDER: Scenario =
    Scenario { name: "services_start_after_what_they_name_and_stop_before_it", host: order, guest };

/// The story of a service that cannot be without another.
pub(super) const REQUIRES: Scenario =
    Scenario { name: "a_service_whose_requirement_fails_is_stopped", host: requires, guest };

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
    web.ask(&["stop", "web"])?.expect_code(0)?;
    let ended = web.finish()?;
    in_order(
        &ended.stdout,
        &["setup is done", "cache is here", "web is here", "web was asked to end", "cache was asked to end"],
    )
}

fn requires(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(
        "
version: 1
services:
  main: {command: [PROBE, speaker, main], ready: {log: 'main is here'}, critical: true}
  cache: {command: [PROBE, fails-when, /var/web], ready: started, restart: never}
  web: {command: [PROBE, speaker, web], requires: [cache], ready: {log: 'web is here'}}
",
        &[],
    )?;
    web.wait_state("degraded")?;
    web.wait_stdout("web was asked to end")?;
    web.wait_service("cache", "failed")?;
    expect_eq(&phase(&web.service("main")?), &"ready", "the phase of the service that needs nobody")?;
    web.stop()?;
    Ok(())
}

fn guest(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["job", name] => say(format!("{name} is done\n").as_bytes()),
        ["speaker", name] => speak(name),
        ["web"] => web(),
        ["fails-when", file] => wait_for_file(file).and_then(|()| Err(std::io::ErrorKind::Other.into())),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(9) }
}

fn speak(name: &str) -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    say(format!("{name} is here\n").as_bytes())?;
    std::fs::write(format!("/var/{name}"), "")?;
    term.wait()?;
    say(format!("{name} was asked to end\n").as_bytes())
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
            .ok_or_else(|| Failure::broken(format_args!("{part:?} is missing, or too early, in:\n{text}")))?;
        rest = after;
    }
    expect(!parts.is_empty(), "an order of something")
}
