//! Whatever one service uses up, the others go on.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;

use crate::guest::{catch, say, wait_for_file};
use crate::story::{expect, expect_at, expect_eq, expect_in};
use crate::{Lab, Outcome, Scenario};

/// The story of a calm service and of jobs that each use up something.
pub(super) const SCENARIO: Scenario =
    Scenario { name: "what_one_service_uses_up_the_others_still_have", host, guest };

/// Every job holds what it took until the calm service has done its work once more.
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

/// Between two rounds of the calm service.
const ROUND: Duration = Duration::from_millis(50);

fn host(lab: &mut Lab) -> Outcome {
    let mut web = lab.boot(MANIFEST, &[])?;
    for name in ["processes", "descriptors", "names", "files-of-tmp"] {
        let job = web.wait_service(name, "done")?;
        expect_eq(&job.get("last_exit"), &Some(&json!({"code": 0})), name)?;
        let said = web.ask(&["logs", "web", "--service", name])?.stdout;
        expect_in(&said, "used up, and the calm service went on", name)?;
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

fn guest(words: &[String]) -> ExitCode {
    let done = match words.first().map(String::as_str) {
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
            drop(say(format!("{words:?}: {error}\n").as_bytes()));
            ExitCode::FAILURE
        }
    }
}

/// Needs a process, a descriptor, memory and a write to a file that is there, again and again, until it is asked to end.
fn calm() -> Result<()> {
    say(format!("{}\n", fs::read_link("/proc/self/ns/ipc")?.display()).as_bytes())?;
    let (tell, told) = mpsc::channel();
    let mut term = catch(Signal::TERM)?;
    thread::spawn(move || tell.send(term.wait().is_ok()).is_ok());
    let mut round = 0_u64;
    while told.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
        again("nothing").status()?;
        drop(File::open("/dev/zero")?);
        std::hint::black_box(vec![1_u8; 64 * 1024]);
        round = round.saturating_add(1);
        fs::write("/var/round", format!("{round:020}"))?;
    }
    Ok(())
}

/// Says that something is used up once the calm service has done two more rounds, of which one began after this.
fn calm_goes_on() -> Result<()> {
    wait_for_file("/var/round")?;
    let now = || fs::read_to_string("/var/round").ok().and_then(|text| text.parse::<u64>().ok());
    let before = now().unwrap_or_default();
    while now().unwrap_or_default() < before.saturating_add(2) {
        thread::park_timeout(ROUND);
    }
    say(b"used up, and the calm service went on\n")
}

/// This program once more, in another role of the same story.
fn again(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([SCENARIO.name, role]).stdin(Stdio::null());
    command
}

/// Starts threads, which count as processes do, until there are no more.
fn processes() -> Result<()> {
    say(format!("{}\n", fs::read_link("/proc/self/ns/ipc")?.display()).as_bytes())?;
    loop {
        // Little stack, so that it is their number that is used up.
        let thread = thread::Builder::new().stack_size(16 * 1024).spawn(thread::park);
        match thread {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return calm_goes_on(),
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
    calm_goes_on()?;
    hoarders.iter_mut().try_for_each(|child| child.kill().and_then(|()| child.wait()).map(drop))
}

/// The kernel's own limit is a file for each 10 KiB of memory (`files_maxfiles_init`): 52,000 of 512 MiB.
const HOARDERS: usize = 2;

/// Waits until so many have noted that their tables are full.
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
    // A descriptor for the note.
    files.pop();
    crate::guest::attempts("/var/full")?;
    // Until it is killed.
    loop {
        thread::park();
    }
}

/// Makes empty files until there is no room for another name, and takes them away again.
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
    calm_goes_on()?;
    (0..count).try_for_each(|number| fs::remove_file(format!("{folder}/{number}")))
}

fn eat() -> Result<()> {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; 1 << 20]);
        // Pages are taken when they are written, which the compiler must not find needless.
        std::hint::black_box(&eaten);
    }
}
