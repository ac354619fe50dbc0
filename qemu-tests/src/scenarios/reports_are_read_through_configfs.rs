//! Reports through the kernel's own interface, configfs-tsm. The tests need no hardware that makes reports: the kernel is the one
//! for tests, whose driver passes each request to a process (docs/kernel.md). The guest half is the supervisor of this machine; it
//! starts that process, requests reports, and prints each fact on the console.

mod configfs;
mod driver;
mod signer;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use cloister_sys::tsm::{ROOT, Report, TsmError, report};

use crate::facts::{fact, hex, print_fact};
use crate::guest::{POLL_INTERVAL, power_off, print};
use crate::lab::Release;
use crate::scenario::expect_eq;
use crate::tsm::Device;
use crate::{Lab, Outcome, Scenario};
use configfs::Request;
use driver::{LONG_TIMEOUT, set_timeout, text, timeout_is};
use signer::{Kind, LARGE, Wish, large, signed};

/// The interface with AMD's driver, which has every file.
pub(super) const SNP: Scenario =
    Scenario { name: "a_report_of_a_test_driver_is_read_through_configfs", host: snp, guest: snp_guest };

/// The interface with Intel's driver, which has fewer.
pub(super) const TDX: Scenario =
    Scenario { name: "a_quote_of_a_test_driver_is_read_through_configfs", host: tdx, guest: tdx_guest };

/// The interface without a driver.
pub(super) const NONE: Scenario =
    Scenario { name: "without_a_driver_no_report_can_be_requested", host: none, guest: none_guest };

const MANIFEST: &str = "{version: 1, services: {web: {command: [PROBE]}}}";

/// The argument with which the guest half is the process that makes the reports.
const SIGNER: &str = "signer";

/// The driver's time limit for the request that is never answered: long enough for the signer of a busy machine to read it.
const SHORT_TIMEOUT: Duration = Duration::from_millis(500);

/// The kernel's errors, as they are printed.
const INVALID: &str = "Invalid argument (os error 22)";
const TOO_LARGE: &str = "File too large (os error 27)";

/// Threads that request reports at the same time, and how many each requests: enough for every thread to wait behind another.
const THREADS: u8 = 4;
const EACH: u8 = 5;

// ---- the host half ----

fn snp(lab: &mut Lab) -> Outcome {
    let ordinary = Wish::new(Kind::Signed, 1);
    let levelled = Wish::new(Kind::Signed, 2);
    let facts = [
        ("device", "true".to_owned()),
        ("files", "auxblob generation inblob outblob privlevel privlevel_floor provider".to_owned()),
        ("report", shown("sev_guest", ordinary, 0, true)),
        ("report at level 3", shown("sev_guest", levelled, 3, true)),
        ("report at level 4", "the platform refused the request at privlevel".to_owned()),
        ("large report", format!("{LARGE} and {LARGE} bytes as sent")),
        ("too large a report", TOO_LARGE.to_owned()),
        (
            "failing with EIO",
            "cannot access outblob of a request for a report: I/O error (os error 5)".to_owned(),
        ),
        ("failing with EBUSY", "the driver is still occupied by an interrupted request".to_owned()),
        ("63 bytes", INVALID.to_owned()),
        ("64 bytes in two writes", hex(&signed(&ordinary.inblob(), 0).outblob)),
        ("no bytes", INVALID.to_owned()),
        ("65 bytes", TOO_LARGE.to_owned()),
        ("another's write before the report", "generation 2, covers the other's bytes true".to_owned()),
        ("another's write after the report", "generation 2, covers the other's bytes true".to_owned()),
        ("directories left", "0".to_owned()),
        ("reports at once", "20 of 20 with their own bytes".to_owned()),
        (
            "without an answer",
            "the host did not answer the request for a report in time, not before the limit: true".to_owned(),
        ),
        ("behind one without an answer", shown("sev_guest", ordinary, 0, true)),
        ("too late an answer", "Stale file handle (os error 116)".to_owned()),
    ];
    check(lab, SNP.name, "tsm_test.provider=sev_guest", &facts)
}

fn tdx(lab: &mut Lab) -> Outcome {
    let facts = [
        ("device", "true".to_owned()),
        ("files", "generation inblob outblob provider".to_owned()),
        ("report", shown("tdx_guest", Wish::new(Kind::Signed, 1), 0, false)),
        ("report at level 3", "the provider of reports has no attribute privlevel".to_owned()),
        ("directories left", "0".to_owned()),
    ];
    check(lab, TDX.name, "tsm_test.provider=tdx_guest", &facts)
}

fn none(lab: &mut Lab) -> Outcome {
    let absent = "the kernel has no provider of reports: No such device or address (os error 6)";
    let facts = [("report", absent), ("test device", "No such file or directory (os error 2)")];
    let facts = facts.map(|(name, value)| (name, value.to_owned()));
    check(lab, NONE.name, "tsm_test.provider=none", &facts)
}

/// Boots the test kernel with this argument, and expects these facts on the console.
fn check(lab: &mut Lab, name: &'static str, argument: &'static str, facts: &[(&str, String)]) -> Outcome {
    let release = Release::default().with_guest_as_supervisor(name).with_cmdline(argument).with_test_kernel();
    let image = lab.image_on(&release, MANIFEST)?;
    let mut web = lab.run(&image, &[])?;
    let ended = web.finish()?;
    let console = web.command(&["logs", "web", "--console"])?.stdout;
    for (name, value) in facts {
        expect_eq(&fact(&console, name)?, &value.as_str(), name)?;
    }
    ended.expect_code(0)
}

/// The value of a line `trial: NAME: VALUE`.
/// How the guest prints the report for this wish.
fn shown(provider: &str, wish: Wish, level: u32, has_auxblob: bool) -> String {
    let blobs = signed(&wish.inblob(), level);
    let auxblob = if has_auxblob { blobs.auxblob } else { Vec::new() };
    printed(&Report { provider: provider.to_owned(), outblob: blobs.outblob, auxblob })
}

fn printed(report: &Report) -> String {
    let auxblob = if report.auxblob.is_empty() { "nothing".to_owned() } else { hex(&report.auxblob) };
    format!("{} {} and {auxblob}", report.provider, hex(&report.outblob))
}

// ---- the guest half ----

fn snp_guest(args: &[String]) -> ExitCode {
    supervise(args, SNP.name, "/dev/sev-guest", |device| {
        common(device)?;
        reports()?;
        lengths()?;
        another_process()?;
        silence()?;
        left()
    })
}

fn tdx_guest(args: &[String]) -> ExitCode {
    supervise(args, TDX.name, "/dev/tdx_guest", |device| {
        common(device)?;
        left()
    })
}

fn none_guest(_: &[String]) -> ExitCode {
    let done = print_fact("report", &outcome(requested(Wish::new(Kind::Signed, 1), None))).and_then(|()| {
        print_fact("test device", &Device::open().map_or_else(|error| text(&error), |_| "opened".to_owned()))
    });
    power_off(u8::from(done.is_err()))
}

/// The guest half with a driver: the process that makes reports, or the supervisor that requests them.
fn supervise(args: &[String], name: &str, device: &str, facts: fn(&str) -> io::Result<()>) -> ExitCode {
    if args.first().is_some_and(|role| role == SIGNER) {
        return signer::run();
    }
    let done = start_signer(name).and_then(|mut signer| {
        let done = facts(device);
        signer.kill().and(done)
    });
    if let Err(error) = &done {
        // The host half prints the console.
        drop(print(format!("trial: failed: {error}\n").as_bytes()));
    }
    power_off(u8::from(done.is_err()))
}

fn start_signer(name: &str) -> io::Result<Child> {
    Command::new("/proc/self/exe").args([name, SIGNER]).spawn()
}

/// What every driver has.
fn common(device: &str) -> io::Result<()> {
    print_fact("device", &Path::new(device).exists().to_string())?;
    print_fact("files", &Request::create()?.files()?.join(" "))?;
    print_fact("report", &outcome(requested(Wish::new(Kind::Signed, 1), None)))?;
    print_fact("report at level 3", &outcome(requested(Wish::new(Kind::Signed, 2), Some(3))))
}

fn reports() -> io::Result<()> {
    print_fact("report at level 4", &outcome(requested(Wish::new(Kind::Signed, 2), Some(4))))?;
    let largest = requested(Wish::new(Kind::Large, 0), None).map_err(io::Error::other)?;
    let is_as_sent = (largest.outblob, largest.auxblob) == (large(0), large(1));
    print_fact(
        "large report",
        &format!("{LARGE} and {LARGE} bytes {}", if is_as_sent { "as sent" } else { "differ" }),
    )?;
    print_fact("failing with EIO", &outcome(requested(Wish::new(Kind::Fails, 5), None)))?;
    print_fact("failing with EBUSY", &outcome(requested(Wish::new(Kind::Fails, 16), None)))?;
    // The signer prints the device's error.
    requested(Wish::new(Kind::TooLarge, 0), None).map(drop).map_err(io::Error::other)
}

/// Requests for other numbers of bytes than 64.
fn lengths() -> io::Result<()> {
    let inblob = [Wish::new(Kind::Signed, 1).inblob().as_slice(), &[0]].concat();
    for (name, length) in [("63 bytes", 63), ("65 bytes", 65)] {
        let request = Request::create()?;
        let written = request.write("inblob", inblob.get(..length).unwrap_or_default());
        print_fact(
            name,
            &written
                .and_then(|()| request.read("outblob"))
                .map_or_else(|error| text(&error), |report| hex(&report)),
        )?;
    }
    let request = Request::create()?;
    let mut file = File::options().write(true).open(request.path().join("inblob"))?;
    for half in Wish::new(Kind::Signed, 1).inblob().chunks(32) {
        file.write_all(half)?;
    }
    drop(file);
    print_fact("64 bytes in two writes", &hex(&request.read("outblob")?))?;
    let request = Request::create()?;
    print_fact("no bytes", &request.read("outblob").map_or_else(|error| text(&error), |report| hex(&report)))
}

/// A directory that two processes use: the report covers what was written last, which only the generation shows.
fn another_process() -> io::Result<()> {
    for (name, read_before) in
        [("another's write before the report", false), ("another's write after the report", true)]
    {
        let request = Request::create()?;
        request.write("inblob", &Wish::new(Kind::Signed, 1).inblob())?;
        if read_before {
            request.read("outblob")?;
        }
        let others = Wish::new(Kind::Signed, 9).inblob();
        request.write("inblob", &others)?;
        let covers = request.read("outblob")?.starts_with(&others);
        let generation = request.text("generation")?;
        print_fact(name, &format!("generation {generation}, covers the other's bytes {covers}"))?;
    }
    let right = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || own_reports(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum::<usize>()
    });
    let all = u16::from(THREADS) * u16::from(EACH);
    print_fact("reports at once", &format!("{right} of {all} with their own bytes"))
}

/// How many of this thread's reports are for its own bytes.
fn own_reports(thread: u8) -> usize {
    let wishes = (0..EACH).map(|number| Wish::new(Kind::Delayed, thread * EACH + number));
    let is_own = |wish: &Wish| {
        let expected = signed(&wish.inblob(), 0);
        requested(*wish, None)
            .is_ok_and(|report| report.outblob == expected.outblob && report.auxblob == expected.auxblob)
    };
    wishes.filter(is_own).count()
}

/// A request that is not answered, and another behind it.
fn silence() -> io::Result<()> {
    set_timeout(SHORT_TIMEOUT)?;
    let began = Instant::now();
    let (first, second) = thread::scope(|scope| {
        let silent = scope.spawn(|| (requested(Wish::new(Kind::Silent, 0), None), began.elapsed()));
        // The signer restores the limit when it has read that request: it counts for the next one.
        while !silent.is_finished() && !timeout_is(LONG_TIMEOUT)? {
            thread::park_timeout(POLL_INTERVAL);
        }
        let behind = requested(Wish::new(Kind::Signed, 1), None);
        silent.join().map(|first| (first, behind)).map_err(|_| io::Error::other("a thread panicked"))
    })?;
    let is_late = first.1 >= SHORT_TIMEOUT;
    print_fact("without an answer", &format!("{}, not before the limit: {is_late}", outcome(first.0)))?;
    print_fact("behind one without an answer", &outcome(second))?;
    // At this request the signer answers the first one, and prints the error.
    requested(Wish::new(Kind::Late, 0), None).map(drop).map_err(io::Error::other)
}

fn left() -> io::Result<()> {
    print_fact("directories left", &std::fs::read_dir(ROOT)?.count().to_string())
}

fn requested(wish: Wish, level: Option<u32>) -> Result<Report, TsmError> {
    report(Path::new(ROOT), &wish.inblob(), level)
}

fn outcome(result: Result<Report, TsmError>) -> String {
    result.map_or_else(|error| text(&error), |report| printed(&report))
}
