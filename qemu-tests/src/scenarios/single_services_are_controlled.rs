//! Single services are controlled from inside, by permitted services, and from the host, as far as the manifest allows it.

use std::process::{Command, ExitCode};

use rustix::process::Signal;

use crate::guest::{catch, print};
use crate::lab::phase;
use crate::scenario::{expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Running, Scenario, Shared};

/// Programs inside.
pub(super) const INSIDE: Shared = Shared {
    name: "initctl_obeys_named_services_and_refuses_others_and_root",
    services: "
  main: {command: [PROBE, speaker, main], ready: {log: main is here}, critical: true}
  web: {command: [PROBE, speaker, web], ready: {log: web is here}}
  of-root: {command: [PROBE, ask], kind: job, after: [main, web]}
  of-app: {command: [PROBE, ask], user: app, writable: [], kind: job, after: [of-root]}
  stranger: {command: [PROBE, ask-refused], kind: job, after: [of-app]}
",
    control: &["of-root", "of-app"],
    host: inside,
    guest: asked,
};

/// The host.
pub(super) const OUTSIDE: Scenario = Scenario {
    name: "the_host_may_control_services_only_as_the_manifest_allows",
    host: outside,
    guest: asked,
};

/// The path of `initctl` in a service.
const INITCTL: &str = "/run/cloister/initctl";

/// The commands in order, and their exit codes.
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
    ("stop unknown", 1),
    ("wait unknown", 1),
    ("exec sh", 2),
];

fn inside(web: &Running) -> Outcome {
    web.wait_service("stranger", "done")?;
    // Each stop and each restart counts once: twice for root, twice for the user.
    expect_eq(&web.service("web")?.get("restarts"), &Some(&4.into()), "restarts")?;
    for part in ["SERVICE ", "state: ", "phase: ready", "web was asked to stop"] {
        web.wait_stdout(part)?;
    }
    for part in [
        "initctl: the manifest has no service \"unknown\"",
        "initctl: service \"stranger\" is not allowed to control services: the manifest's control.services does not list it",
        "web: stop requested by service of-root",
        "web: restart requested by service of-app",
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
    web.command(&["service", "restart", "web", "web"])?.expect_code(0)?;
    web.wait_stdout("web was asked to stop")?;
    web.until("the counted restart", || {
        Ok((web.service("web")?.get("restarts") == Some(&1.into())).then_some(()))
    })?;
    web.wait_ready()?;
    for (args, verb) in [
        (vec!["stop", "web", "web"], "stop"),
        (vec!["start", "web", "web"], "start"),
        (vec!["signal", "web", "web", "HUP"], "signal"),
    ] {
        let args: Vec<&str> = std::iter::once("service").chain(args).collect();
        let refused = web.command(&args)?;
        expect(refused.code != Some(0), format_args!("{verb} was not refused"))?;
        expect_in(&refused.stderr, &format!("does not allow the host to {verb} services"), "the reason")?;
    }
    let unknown = web.command(&["service", "restart", "web", "unknown"])?;
    expect_in(&unknown.stderr, "no service \"unknown\"", "an unknown service")?;
    expect_eq(&phase(&web.service("web")?), &"ready", "the service's phase afterwards")?;
    web.stop()?.expect_code(0)
}

fn asked(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["speaker", name] => speak(name),
        ["ask"] => ASKED.iter().try_for_each(|(args, code)| initctl(args, *code)),
        ["ask-refused"] => ["list", "stop web"].iter().try_for_each(|args| initctl(args, 1)),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(print(format!("{args:?}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn speak(name: &str) -> std::io::Result<()> {
    let mut term = catch(Signal::TERM)?;
    print(format!("{name} is here\n").as_bytes())?;
    term.wait()?;
    print(format!("{name} was asked to stop\n").as_bytes())
}

/// Runs it as a user would, and fails unless its exit code is `code`.
fn initctl(args: &str, code: i32) -> std::io::Result<()> {
    let ended = Command::new(INITCTL).args(args.split(' ')).status()?;
    if ended.code() == Some(code) {
        return Ok(());
    }
    Err(std::io::Error::other(format!("initctl {args} exited with {ended}, not {code}")))
}
