//! A service that never gets going ends the enclave with a reason, not with silence.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use crate::guest::nobody;
use crate::lab::path_str;
use crate::story::expect_in;
use crate::{Lab, Outcome, Scenario};

/// Bytes of an ELF header for 64-bit machines (elf(5)).
const ELF_HEADER: usize = 64;

/// The story of a program the kernel refuses.
pub(super) const NOT_EXECUTABLE: Scenario =
    Scenario { name: "a_program_the_kernel_cannot_execute_is_named", host: not_executable, guest: nobody };

/// The story of a program that became a pipe, whose opening would wait for ever.
pub(super) const PIPE: Scenario =
    Scenario { name: "a_pipe_in_a_programs_place_is_named", host: pipe, guest: make_pipe };

/// The story of a service that is over before it began.
pub(super) const ENDS_AT_ONCE: Scenario = Scenario {
    name: "a_service_that_exits_at_once_gives_its_code_and_its_words",
    host: at_once,
    guest: fail,
};

fn not_executable(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    // A header that promises a program and nothing after it: what the builder looks at is in order, what the kernel needs
    // is missing.
    let whole = fs::read(root.join("probe"))?;
    fs::write(root.join("broken"), whole.get(..ELF_HEADER).unwrap_or_default())?;
    fs::set_permissions(root.join("broken"), fs::Permissions::from_mode(0o755))?;
    let manifest = lab.manifest("{version: 1, services: {web: {command: [/broken], restart: never}}}")?;
    let image = lab.build(&root, &manifest)?;
    let run = lab.sleeve(&["run", path_str(&image)?, "--name", "web"]).finish()?;
    run.expect_code(125)?;
    expect_in(&run.stderr, "/broken", "the reason")
}

fn pipe(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    fs::copy(root.join("probe"), root.join("tool"))?;
    let manifest = lab.manifest(
        "
version: 1
services:
  swap: {command: [PROBE], kind: job}
  web: {command: [/tool], requires: [swap], critical: true, restart: never}
",
    )?;
    let image = lab.build(&root, &manifest)?;
    let run = lab.sleeve(&["run", path_str(&image)?, "--name", "web"]).finish()?;
    run.expect_code(125)?;
    expect_in(&run.stderr, "/tool is a pipe, a socket or a device", "the reason")
}

fn make_pipe(_words: &[String]) -> ExitCode {
    let done = fs::remove_file("/tool").and_then(|()| {
        let mode = rustix::fs::Mode::from_raw_mode(0o777);
        Ok(rustix::fs::mknodat(rustix::fs::CWD, "/tool", rustix::fs::FileType::Fifo, mode, 0)?)
    });
    if done.and_then(|()| fs::set_permissions("/tool", fs::Permissions::from_mode(0o777))).is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn at_once(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot("{version: 1, services: {web: {command: [PROBE], restart: never}}}", &[])?;
    let ended = web.finish()?;
    ended.expect_code(3)?;
    expect_in(&ended.stderr, "no configuration, giving up", "what the service said last")
}

fn fail(_words: &[String]) -> ExitCode {
    // Its exit code is the story; a missing stderr would show in the host half.
    drop(std::io::Write::write_all(&mut std::io::stderr(), b"no configuration, giving up\n"));
    ExitCode::from(3)
}
