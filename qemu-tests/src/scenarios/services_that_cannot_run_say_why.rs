//! A service that never gets going ends the enclave with a reason, not with silence.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use rustix::process::Signal;
use serde_json::Value;

use crate::guest::{catch, nobody, notify};
use crate::lab::{Running, path_str};
use crate::story::{Failure, expect, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// Bytes of an ELF header for 64-bit machines (elf(5)).
const ELF_HEADER: usize = 64;

/// Bytes of a program header (elf(5)).
const PROGRAM_HEADER: u16 = 56;

/// The story of a program the kernel refuses.
pub(super) const NOT_EXECUTABLE: Scenario =
    Scenario { name: "a_program_the_kernel_cannot_execute_is_named", host: not_executable, guest: nobody };

/// The story of a program that became a pipe, whose opening would wait for ever.
pub(super) const PIPE: Scenario =
    Scenario { name: "a_pipe_in_a_programs_place_is_named", host: pipe, guest: make_pipe };

/// The story of programs that the kernel begins to execute and kills before their first instruction.
pub(super) const DIES_IN_EXEC: Scenario = Scenario {
    name: "a_program_that_dies_before_its_first_instruction_has_not_started",
    host: dies_in_exec,
    guest: live,
};

/// The story of more trouble than a frame has room for.
pub(super) const SIXTY: Scenario =
    Scenario { name: "sixty_services_in_trouble_say_it_without_a_text_cut", host: sixty, guest: trouble };

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

/// `unmapped` cannot be put into memory, which the kernel finds out when there is no way back; `poor` may not have the memory
/// for what both of its processes and then its program are handed.
const DIE_IN_EXEC: &str = "
version: 1
services:
  calm: {command: [PROBE], critical: true}
  below: {command: [/unmapped], restart: never, after: [calm]}
  first: {command: [/unmapped], first_process: service, restart: never, after: [calm]}
  poor: {command: [PROBE], env: {A: LONG, B: LONG, C: LONG}, limits: {memory: 1MiB}, restart: never, after: [calm]}
  retried: {command: [/unmapped], restart: {policy: on-failure, delay: 100ms, burst: 2}, after: [calm]}
";

/// Bytes of a variable: nearly the most that the kernel hands to a program (`MAX_ARG_STRLEN`, linux/binfmts.h).
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

/// Why a service that failed did not start.
fn not_started(web: &Running, name: &str) -> Result<String, Failure> {
    let service = web.wait_service(name, "failed")?;
    let reason = service.pointer("/last_exit/not-started/error").and_then(Value::as_str);
    reason.map(str::to_owned).ok_or_else(|| Failure::broken(format_args!("{name} has started: {service}")))
}

/// A program with the header of `program`, whose only part belongs where no program's memory is.
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

/// Services in trouble; one more mends their program, and sixty are the most there can be.
const TROUBLED: usize = 59;

/// The longest line that a service may say of itself (`STATUS=` of `sd_notify(3)`).
const STATUS_TEXT: usize = 256;

/// What each of them has to say to be ready, which none does.
const SIGN: usize = 140;

/// Longer than a frame.
const MUCH: usize = 64 * 1024;

/// Where their program lies: a reason why it does not start is long.
fn long_path() -> String {
    let folder = "p".repeat(220);
    format!("/{folder}/{folder}/tool")
}

/// The program of 59 services cannot be put into memory at first, so each has a long reason why it did not start. Then it is
/// mended, and each says a long line about itself while it is waited for. A watchdog is what lets it speak at all.
fn sixty(lab: &mut Lab) -> Outcome {
    let (root, tool) = (lab.probe_root()?, long_path());
    let inside = root.join(tool.trim_start_matches('/'));
    fs::create_dir_all(inside.parent().unwrap_or(&root))?;
    fs::write(&inside, unmapped(&fs::read(root.join("probe"))?))?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    let sign = "s".repeat(SIGN);
    let fields = format!(
        "command: [{tool}, {}, say], after: [mend], ready: {{log: {sign}}}, start_timeout: 10m, live: {{watchdog: 10m}}, \
         restart: {{delay: 5s, max_delay: 5s, burst: 1000}}",
        SIXTY.name
    );
    let services: Vec<String> =
        (0..TROUBLED).map(|number| format!("  s{number:0>62}: {{{fields}}}\n")).collect();
    let manifest = format!(
        "version: 1\nservices:\n  mend: {{command: [PROBE, mend], critical: true}}\n{}control: [signal]\n",
        services.concat()
    );
    let manifest = lab.manifest(&manifest)?;
    let image = lab.build(&root, &manifest)?;
    let mut web = lab.run(&image, &["--memory", "1GiB"])?;
    all(&web, "the reason why it did not start", |service| {
        service.pointer("/last_exit/not-started").is_some()
    })?;
    web.ask(&["service", "signal", "web", "mend", "USR1"])?.expect_code(0)?;
    let services = all(&web, "what it says of itself", |service| service.get("text").is_some())?;
    let length = serde_json::to_vec(&services).unwrap_or_default().len();
    expect(length > MUCH, format_args!("{length} bytes of services would fit one frame"))?;
    for service in services.iter().filter(|service| service.get("name") != Some(&"mend".into())) {
        let text = |key| service.pointer(key).and_then(Value::as_str).unwrap_or_default();
        expect_eq(&text("/text"), &"t".repeat(STATUS_TEXT).as_str(), "what it says of itself")?;
        expect_eq(&text("/waits_for"), &format!("\"{sign}\" in its output").as_str(), "what it waits for")?;
        let reason = text("/last_exit/not-started/error");
        expect(reason.contains(&tool) && reason.ends_with("by signal 11"), format_args!("{reason}"))?;
    }
    web.stop()?.expect_code(0)
}

/// Waits until `seen` is true of each of the services in trouble, and gives all services.
fn all(web: &Running, what: &str, seen: impl Fn(&Value) -> bool) -> Result<Vec<Value>, Failure> {
    web.until(what, || {
        let inspected = web.ask(&["inspect", "web", "--json"])?.json().unwrap_or_default();
        let services = inspected.pointer("/status/services").and_then(Value::as_array).cloned();
        Ok(services.filter(|services| services.iter().filter(|service| seen(service)).count() == TROUBLED))
    })
}

fn trouble(words: &[String]) -> ExitCode {
    let done = match words.first().map(String::as_str) {
        Some("mend") => mend(),
        _ => notify(&format!("STATUS={}", "t".repeat(STATUS_TEXT))),
    };
    if done.is_ok() { live(words) } else { ExitCode::FAILURE }
}

/// Puts a program where none was, once it is asked to.
fn mend() -> std::io::Result<()> {
    catch(Signal::USR1)?.wait()?;
    let tool = long_path();
    fs::copy("/probe", format!("{tool}.new"))?;
    fs::rename(format!("{tool}.new"), tool)
}

fn live(_words: &[String]) -> ExitCode {
    let lived = catch(Signal::TERM).and_then(|mut term| term.wait());
    if lived.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
