//! Single services are asked for from inside, by those who may, and from the host, as far as the manifest lets it.

use std::process::{Command, ExitCode};

use rustix::process::Signal;

use crate::guest::{catch, say};
use crate::lab::phase;
use crate::story::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Running, Scenario, Shared};

/// The story of programs inside.
pub(super) const INSIDE: Shared = Shared {
    name: "initctl_does_for_named_services_what_it_refuses_to_others_and_to_root",
    services: "
  main: {command: [PROBE, speaker, main], ready: {log: main is here}, critical: true}
  web: {command: [PROBE, speaker, web], ready: {log: web is here}}
  of-root: {command: [PROBE, ask], kind: job, after: [main, web]}
  of-app: {command: [PROBE, ask], user: app, writable: [], kind: job, after: [of-root]}
  stranger: {command: [PROBE, ask-in-vain], kind: job, after: [of-app]}
",
    control: &["of-root", "of-app"],
    host: inside,
    guest: asked,
};

/// The story of the host.
pub(super) const OUTSIDE: Scenario = Scenario {
    name: "the_host_may_do_with_services_what_the_manifest_lists_and_no_more",
    host: outside,
    guest: asked,
};

/// Where services find it.
const INITCTL: &str = "/run/cloister/initctl";

/// What is asked in turn, and the exit code that follows.
const ASKED: [(&str, i32); 13] = [
    ("list", 0),
    ("status", 0),
    ("status web", 0),
    ("stop web", 0),
    ("wait --ended web", 0),
    ("start web", 0),
    ("wait web", 0),
    ("restart web", 0),
    ("wait web", 0),
    ("logs web", 0),
    ("stop nobody", 1),
    ("wait nobody", 1),
    ("exec sh", 2),
];

fn inside(web: &Running) -> Outcome {
    web.wait_service("stranger", "done")?;
    // Each stop and each restart was one: twice for root, twice for the user.
    expect_eq(&web.service("web")?.get("restarts"), &Some(&4.into()), "restarts")?;
    for part in ["SERVICE ", "state: ", "phase: ready", "web was asked to end"] {
        web.wait_stdout(part)?;
    }
    for part in [
        "initctl: the manifest has no service \"nobody\"",
        "initctl: service \"stranger\" may not control services: control.services of the manifest does not name it",
        "web: stop asked by service of-root",
        "web: restart asked by service of-app",
    ] {
        web.wait_stderr(part)?;
    }
    Ok(())
}

fn outside(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(
        "
version: 1
control: [restart]
services:
  main: {command: [PROBE, speaker, main], ready: {log: main is here}, critical: true}
  web: {command: [PROBE, speaker, web], ready: {log: web is here}}
",
        &[],
    )?;
    web.wait_ready()?;
    web.ask(&["service", "restart", "web", "web"])?.expect_code(0)?;
    web.wait_stdout("web was asked to end")?;
    web.until("the restart is counted", || {
        Ok((web.service("web")?.get("restarts") == Some(&1.into())).then_some(()))
    })?;
    web.wait_ready()?;
    for (words, verb) in [
        (vec!["stop", "web", "web"], "stop"),
        (vec!["start", "web", "web"], "start"),
        (vec!["signal", "web", "web", "HUP"], "signal"),
    ] {
        let words: Vec<&str> = std::iter::once("service").chain(words).collect();
        let refused = web.ask(&words)?;
        expect(refused.code != Some(0), format_args!("{verb} was not refused"))?;
        expect_in(&refused.stderr, &format!("does not let the host {verb} services"), "why")?;
    }
    let nobody = web.ask(&["service", "restart", "web", "nobody"])?;
    expect_in(&nobody.stderr, "no service \"nobody\"", "a service that is not there")?;
    expect_eq(&phase(&web.service("web")?), &"ready", "the service, after all that")?;
    web.stop()?.expect_code(0)
}

fn asked(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["speaker", name] => speak(name),
        ["ask"] => ASKED.iter().try_for_each(|(words, code)| initctl(words, *code)),
        ["ask-in-vain"] => ["list", "stop web"].iter().try_for_each(|words| initctl(words, 1)),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(say(format!("{words:?}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn speak(name: &str) -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    say(format!("{name} is here\n").as_bytes())?;
    term.wait()?;
    say(format!("{name} was asked to end\n").as_bytes())
}

/// Runs it as a person would, and fails unless its exit code is `code`.
fn initctl(words: &str, code: i32) -> std::io::Result<()> {
    let ended = Command::new(INITCTL).args(words.split(' ')).status()?;
    if ended.code() == Some(code) {
        return Ok(());
    }
    Err(std::io::Error::other(format!("initctl {words} ended with {ended}, not {code}")))
}
