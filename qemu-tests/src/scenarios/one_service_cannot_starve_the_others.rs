//! Regardless of what one service exhausts, the others keep running.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;

use crate::guest::{catch, print, wait_for_file};
use crate::scenario::{expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// A calm service, and jobs that each exhaust a resource.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "one_service_cannot_exhaust_the_resources_of_others", host, guest };

/// Every job holds what it took until the calm service has done its work again.
const MANIFEST: &str = "
version: 1
services:
  calm: {command: [PROBE, calm], ready: {file: /var/round}, critical: true}
  processes: {command: [PROBE, processes], kind: job, after: [calm]}
  descriptors: {command: [PROBE, descriptors], kind: job, after: [processes]}
  names: {command: [PROBE, names], kind: job, after: [descriptors]}
  files-of-tmp: {command: [PROBE, files-of-tmp], kind: job, after: [names]}
  memory: {command: [PROBE, memory], limits: {memory: 32MiB}, restart: never, after: [files-of-tmp]}
";

/// The pause between two rounds of the calm service.
const ROUND: Duration = Duration::from_millis(50);

fn host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    for name in ["processes", "descriptors", "names", "files-of-tmp"] {
        let job = web.wait_service(name, "done")?;
        expect_eq(&job.get("last_exit"), &Some(&json!({"code": 0})), name)?;
        let log = web.command(&["logs", "web", "--service", name])?.stdout;
        expect_in(&log, "exhausted, and the calm service kept running", name)?;
    }
    let eater = web.wait_service("memory", "failed")?;
    let killed = json!({"signal": {"signal": 9, "cause": "out-of-memory"}});
    expect_eq(&eater.get("last_exit"), &Some(&killed), "memory")?;
    let calm = web.service("calm")?;
    expect_eq(&calm.get("restarts"), &Some(&json!(0)), "the calm service")?;
    expect_at(&web.inspect()?, "/status/supervisor_restarts", 0)?;
    let ended = web.stop()?;
    ended.expect_code(0)?;
    let spaces: Vec<&str> = ended.stdout.lines().filter(|line| line.contains("ipc:[")).collect();
    let mut different = spaces.clone();
    different.sort_unstable();
    different.dedup();
    expect(spaces.len() == 2 && different.len() == 2, format_args!("IPC namespaces: {spaces:?}"))
}

fn guest(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("calm") => calm(),
        Some("processes") => processes(),
        Some("descriptors") => descriptors(),
        Some("hoard") => hoard(),
        Some("names") => names("/var/names"),
        Some("files-of-tmp") => names("/tmp/names"),
        Some("memory") => eat(),
        Some("sleep") => catch(Signal::TERM).and_then(|mut term| term.wait()),
        Some("nothing") => Ok(()),
        _ => Err(ErrorKind::InvalidInput.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(print(format!("{args:?}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

/// Repeatedly needs a process, a descriptor, memory and a write to an existing file, until it is asked to stop.
fn calm() -> Result<()> {
    print(format!("{}\n", fs::read_link("/proc/self/ns/ipc")?.display()).as_bytes())?;
    let (sender, stopped) = mpsc::channel();
    let mut term = catch(Signal::TERM)?;
    thread::spawn(move || sender.send(term.wait().is_ok()).is_ok());
    let mut round = 0_u64;
    while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
        again("nothing").status()?;
        drop(File::open("/dev/zero")?);
        std::hint::black_box(vec![1_u8; 64 * 1024]);
        round = round.saturating_add(1);
        fs::write("/var/round", format!("{round:020}"))?;
    }
    Ok(())
}

/// Prints that the resource is exhausted once the calm service has done two more rounds, one of which began after this.
fn calm_keeps_running() -> Result<()> {
    wait_for_file("/var/round")?;
    let now = || fs::read_to_string("/var/round").ok().and_then(|text| text.parse::<u64>().ok());
    let before = now().unwrap_or_default();
    while now().unwrap_or_default() < before.saturating_add(2) {
        thread::park_timeout(ROUND);
    }
    print(b"exhausted, and the calm service kept running\n")
}

/// This program again, in another role of the same scenario.
fn again(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([SCENARIO.name, role]).stdin(Stdio::null());
    command
}

/// Starts threads, which count as processes do, until no more can be started.
fn processes() -> Result<()> {
    print(format!("{}\n", fs::read_link("/proc/self/ns/ipc")?.display()).as_bytes())?;
    loop {
        // Small stacks, so that their number is the limit.
        let thread = thread::Builder::new().stack_size(16 * 1024).spawn(thread::park);
        match thread {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return calm_keeps_running(),
            Err(error) => return Err(error),
        }
    }
}

/// Fills the descriptor tables of a few processes: more files than the machine's own limit would have been.
fn descriptors() -> Result<()> {
    let mut hoarders: Vec<Child> = Vec::new();
    for number in 0..HOARDERS {
        hoarders.push(again("hoard").spawn()?);
        wait_for_number(number.saturating_add(1));
    }
    calm_keeps_running()?;
    hoarders.iter_mut().try_for_each(|child| child.kill().and_then(|()| child.wait()).map(drop))
}

/// The kernel's own limit is one file per 10 KiB of memory (`files_maxfiles_init`): 52,000 of 512 MiB.
const HOARDERS: usize = 2;

/// Waits until this many processes have noted that their tables are full.
fn wait_for_number(full: usize) {
    while fs::read("/var/full").unwrap_or_default().len() < full {
        thread::park_timeout(ROUND);
    }
}

fn hoard() -> Result<()> {
    let mut files = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => break,
            Err(error) => return Err(error),
        }
    }
    // Frees a descriptor for the note.
    files.pop();
    crate::guest::attempts("/var/full")?;
    // Until it is killed.
    loop {
        thread::park();
    }
}

/// Creates empty files until no other name fits, and removes them again.
fn names(folder: &str) -> Result<()> {
    fs::create_dir(folder)?;
    let mut count = 0_u32;
    loop {
        match File::create(format!("{folder}/{count}")) {
            Ok(_) => count = count.saturating_add(1),
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => return Err(error),
        }
    }
    if !(1000..20_000).contains(&count) {
        return Err(Error::other(format!("{count} names")));
    }
    calm_keeps_running()?;
    (0..count).try_for_each(|number| fs::remove_file(format!("{folder}/{number}")))
}

fn eat() -> Result<()> {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; 1 << 20]);
        // Pages are allocated when written; the compiler must not optimise the writes away.
        std::hint::black_box(&eaten);
    }
}
