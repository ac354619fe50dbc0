//! A service that cannot start ends the enclave with a reason.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use rustix::process::Signal;
use serde_json::Value;

use crate::guest::{catch, no_guest, notify};
use crate::lab::{Running, path_str};
use crate::scenario::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// Bytes of an ELF header for 64-bit machines (elf(5)).
const ELF_HEADER: usize = 64;

/// Bytes of a program header (elf(5)).
const PROGRAM_HEADER: u16 = 56;

/// A program that the kernel refuses.
pub(super) const NOT_EXECUTABLE: Scenario =
    Scenario { name: "a_program_the_kernel_cannot_execute_is_named", host: not_executable, guest: no_guest };

/// A program that was replaced by a pipe, which would block an open forever.
pub(super) const PIPE: Scenario =
    Scenario { name: "a_pipe_in_place_of_a_program_is_named", host: pipe, guest: make_pipe };

/// Programs that the kernel begins to execute and kills before their first instruction.
pub(super) const DIES_IN_EXEC: Scenario = Scenario {
    name: "a_program_that_dies_before_its_first_instruction_has_not_started",
    host: dies_in_exec,
    guest: idle,
};

/// More failures than fit in one frame.
pub(super) const SIXTY: Scenario = Scenario {
    name: "sixty_failing_services_are_reported_without_truncation",
    host: sixty,
    guest: fail_long,
};

/// A service that exits immediately.
pub(super) const EXITS_AT_ONCE: Scenario = Scenario {
    name: "a_service_that_exits_immediately_reports_its_code_and_output",
    host: at_once,
    guest: fail,
};

fn not_executable(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    // A header that announces a program, with nothing after it: it passes the builder's check, and the kernel's needs are
    // missing.
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

fn make_pipe(_args: &[String]) -> ExitCode {
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

/// `unmapped` cannot be loaded, which the kernel finds out after the point of no return; `poor` lacks the memory for the
/// environment of its two processes and its program.
const DIE_IN_EXEC: &str = "
version: 1
services:
  calm: {command: [PROBE], critical: true}
  below: {command: [/unmapped], restart: never, after: [calm]}
  first: {command: [/unmapped], first_process: service, restart: never, after: [calm]}
  poor: {command: [PROBE], env: {A: LONG, B: LONG, C: LONG}, limits: {memory: 1MiB}, restart: never, after: [calm]}
  retried: {command: [/unmapped], restart: {policy: on-failure, delay: 100ms, burst: 2}, after: [calm]}
";

/// Bytes of a variable: nearly the kernel's maximum for one string (`MAX_ARG_STRLEN`, linux/binfmts.h).
const LONG: usize = 130_000;

fn dies_in_exec(lab: &mut Lab) -> Outcome {
    let root = lab.probe_root()?;
    fs::write(root.join("unmapped"), unmapped(&fs::read(root.join("probe"))?))?;
    fs::set_permissions(root.join("unmapped"), fs::Permissions::from_mode(0o755))?;
    let manifest = lab.manifest(&DIE_IN_EXEC.replace("LONG", &"x".repeat(LONG)))?;
    let image = lab.build(&root, &manifest)?;
    let mut web = lab.run(&image, &[])?;
    for name in ["below", "first", "retried"] {
        let reason = not_started(&web, name)?;
        expect_in(&reason, "exec: ", name)?;
        expect_in(&reason, "by signal 11", name)?;
    }
    expect_in(&not_started(&web, "poor")?, "out of memory", "poor")?;
    let restarts = web.service("retried")?.get("restarts").and_then(Value::as_u64);
    expect(restarts == Some(2), format_args!("restarts of retried: {restarts:?}"))?;
    web.stop()?.expect_code(0)
}

/// Why a failed service did not start.
fn not_started(web: &Running, name: &str) -> Result<String, Failure> {
    let service = web.wait_service(name, "failed")?;
    let reason = service.pointer("/last_exit/not-started/error").and_then(Value::as_str);
    reason.map(str::to_owned).ok_or_else(|| Failure::failed(format_args!("{name} has started: {service}")))
}

/// A program with the header of `program`, whose only segment is outside of the program's address space.
fn unmapped(program: &[u8]) -> Vec<u8> {
    let header = u64::try_from(ELF_HEADER).unwrap_or(0);
    let size = header.saturating_add(PROGRAM_HEADER.into());
    let mut file = program.get(..ELF_HEADER).unwrap_or_default().to_vec();
    let fields: [(usize, &[u8]); 5] = [
        (16, &2_u16.to_le_bytes()),     // e_type: ET_EXEC, at fixed addresses
        (24, &ABOVE_ALL.to_le_bytes()), // e_entry
        (32, &header.to_le_bytes()),    // e_phoff
        (56, &1_u16.to_le_bytes()),     // e_phnum
        (60, &0_u16.to_le_bytes()),     // e_shnum
    ];
    for (at, bytes) in fields {
        if let Some(field) = file.get_mut(at..at.saturating_add(bytes.len())) {
            field.copy_from_slice(bytes);
        }
    }
    // p_type: PT_LOAD, p_flags: PF_R and PF_X.
    file.extend([1_u32.to_le_bytes(), 5_u32.to_le_bytes()].concat());
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
    file.extend([0, ABOVE_ALL, ABOVE_ALL, size, size, 0x1000].map(u64::to_le_bytes).concat());
    file
}

/// An address in the kernel's half.
const ABOVE_ALL: u64 = 0xFFFF_8000_0000_0000;

/// Failing services; one more repairs their program, and sixty is the maximum.
const FAILING: usize = 59;

/// Maximum length of a service's status text (`STATUS=` of `sd_notify(3)`).
const STATUS_TEXT: usize = 256;

/// The text that each of them must print to be ready, which none does.
const SIGN: usize = 140;

/// Longer than a frame.
const MUCH: usize = 64 * 1024;

/// The path of their program: long, so that the reason why it does not start is long.
fn long_path() -> String {
    let folder = "p".repeat(220);
    format!("/{folder}/{folder}/tool")
}

/// The program of 59 services cannot be loaded at first, so each has a long reason why it did not start. Then it is repaired,
/// and each reports a long status text while it is not ready. A watchdog allows it to send notifications.
fn sixty(lab: &mut Lab) -> Outcome {
    let (root, tool) = (lab.probe_root()?, long_path());
    let inside = root.join(tool.trim_start_matches('/'));
    fs::create_dir_all(inside.parent().unwrap_or(&root))?;
    fs::write(&inside, unmapped(&fs::read(root.join("probe"))?))?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    let sign = "s".repeat(SIGN);
    let fields = format!(
        "command: [{tool}, {}, notify], after: [repair], ready: {{log: {sign}}}, start_timeout: 10m, live: {{watchdog: 10m}}, \
         restart: {{delay: 5s, max_delay: 5s, burst: 1000}}",
        SIXTY.name
    );
    let services: Vec<String> =
        (0..FAILING).map(|number| format!("  s{number:0>62}: {{{fields}}}\n")).collect();
    let manifest = format!(
        "version: 1\nservices:\n  repair: {{command: [PROBE, repair], critical: true}}\n{}control: [signal]\n",
        services.concat()
    );
    let manifest = lab.manifest(&manifest)?;
    let image = lab.build(&root, &manifest)?;
    let mut web = lab.run(&image, &["--memory", "1GiB"])?;
    all(&web, "the reason why it did not start", |service| {
        service.pointer("/last_exit/not-started").is_some()
    })?;
    web.command(&["service", "signal", "web", "repair", "USR1"])?.expect_code(0)?;
    let services = all(&web, "its status text", |service| service.get("text").is_some())?;
    let length = serde_json::to_vec(&services).unwrap_or_default().len();
    expect(length > MUCH, format_args!("{length} bytes of services would fit in one frame"))?;
    for service in services.iter().filter(|service| service.get("name") != Some(&"repair".into())) {
        let text = |key| service.pointer(key).and_then(Value::as_str).unwrap_or_default();
        expect_eq(&text("/text"), &"t".repeat(STATUS_TEXT).as_str(), "its status text")?;
        expect_eq(
            &text("/waits_for"),
            &format!("\"{sign}\" in its output").as_str(),
            "its missing condition",
        )?;
        let reason = text("/last_exit/not-started/error");
        expect(reason.contains(&tool) && reason.ends_with("by signal 11"), format_args!("{reason}"))?;
    }
    web.stop()?.expect_code(0)
}

/// Waits until `seen` is true of each of the failing services, and returns all services.
fn all(web: &Running, what: &str, seen: impl Fn(&Value) -> bool) -> Result<Vec<Value>, Failure> {
    web.until(what, || {
        let inspected = web.command(&["inspect", "web", "--json"])?.json().unwrap_or_default();
        let services = inspected.pointer("/status/services").and_then(Value::as_array).cloned();
        Ok(services.filter(|services| services.iter().filter(|service| seen(service)).count() == FAILING))
    })
}

fn fail_long(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("repair") => repair(),
        _ => notify(&format!("STATUS={}", "t".repeat(STATUS_TEXT))),
    };
    if done.is_ok() { idle(args) } else { ExitCode::FAILURE }
}

/// Creates the missing program, once it is asked to.
fn repair() -> std::io::Result<()> {
    catch(Signal::USR1)?.wait()?;
    let tool = long_path();
    fs::copy("/probe", format!("{tool}.new"))?;
    fs::rename(format!("{tool}.new"), tool)
}

fn idle(_args: &[String]) -> ExitCode {
    let result = catch(Signal::TERM).and_then(|mut term| term.wait());
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn at_once(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot("{version: 1, services: {web: {command: [PROBE], restart: never}}}", &[])?;
    let ended = web.finish()?;
    ended.expect_code(3)?;
    expect_in(&ended.stderr, "no configuration, giving up", "the service's last line")
}

fn fail(_args: &[String]) -> ExitCode {
    // Its exit code is the result; a missing stderr would show in the host half.
    drop(std::io::Write::write_all(&mut std::io::stderr(), b"no configuration, giving up\n"));
    ExitCode::from(3)
}
