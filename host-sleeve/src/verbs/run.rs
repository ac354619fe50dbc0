//! `run`: in the foreground, where this process is the sleeve, or detached, where the sleeve is a process of its own.

mod changes;
mod ends;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::backends::platform;
use crate::cli::Run;
use crate::error::{Error, ErrorContext, ErrorDocument, Result};
use crate::logbook::lines::Format;
use crate::logbook::rotating::{Content, Rotating};
use crate::logbook::{SLEEVE, SLEEVE_LIMIT};
use crate::output;
use crate::signals::{Sent, Signals};
use crate::sleeve::order::{Document, Expected, Order, Watcher};
use crate::sleeve::run::{interrupted, run as live};
use crate::state::{EnclaveDir, Record, Verified};
use crate::values::{show_duration, show_size};
use crate::verify;

use super::follow::Follower;
use super::{DONE, block_on};
use changes::Changes;
use ends::Last;

/// Maximum length of an order or report in bytes.
const MAX_MESSAGE: u64 = 1024 * 1024;

/// The report of a detached sleeve to the command that launched it. There is exactly one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    /// The enclave is ready.
    Ready { record: Box<Record> },
    /// The enclave ended before it was ready.
    Ended { record: Box<Record>, last: Last },
    /// The enclave was not launched.
    Failed(ErrorDocument),
}

/// Runs an enclave.
pub(crate) fn run(args: Run, json: bool) -> Result<u8> {
    let detach = args.detach;
    let order = order(args)?;
    if detach { detached(&order, json) } else { foreground(order, json) }
}

fn order(args: Run) -> Result<Order> {
    let app = std::path::absolute(&args.app).context(|| format!("cannot resolve {}", args.app.display()))?;
    Ok(Order {
        app,
        name: args.name,
        replace: args.replace,
        rm: args.rm,
        publish: args.publish,
        cpus: args.cpus,
        memory: args.memory,
        timeout: args.timeout,
        ready_timeout: args.ready_timeout,
        backend: args.backend,
        options: args.options.0,
        metrics: args.metrics,
        console: args.console,
        verify: if args.verify { Some(expected(&args.measurements)?) } else { None },
    })
}

/// What `--verify` requires.
fn expected(files: &[PathBuf]) -> Result<Expected> {
    let document = |path: &PathBuf| {
        let name = path.display().to_string();
        let text = String::from_utf8(verify::read(path)?)
            .map_err(|error| Error::operator(format!("{name} cannot be used")).because(error))?;
        Ok(Document { name, text })
    };
    if files.is_empty() {
        return Ok(Expected::Prediction);
    }
    Ok(Expected::AnyOf(files.iter().map(document).collect::<Result<_>>()?))
}

/// Reports to the terminal.
#[derive(Debug, Default)]
struct Terminal {
    follower: Option<Follower>,
    changes: Changes,
    json: bool,
}

impl Watcher for Terminal {
    fn launching(&mut self, directory: &EnclaveDir, app: &App) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let format = Format { names: app.manifest.services.len() > 1, ..Format::default() };
        let follower = Follower::start(directory, format);
        self.follower = Some(follower.context(|| "cannot follow the log".to_owned())?);
        Ok(())
    }

    fn restored(&mut self, directory: &EnclaveDir) {
        if let Some(Err(error)) = self.follower.as_mut().map(|follower| follower.move_to(directory.dir())) {
            output::note(&format!("warning: the log is no longer shown: {error}"));
        }
        output::note(&restored_text(directory));
    }

    fn ready(&mut self, record: &Record) {
        output::note(&format!("cloister: {}", ready_text(record)));
    }

    fn changed(&mut self, record: &Record) {
        self.changes.report(record);
    }
}

fn restored_text(directory: &EnclaveDir) -> String {
    format!(
        "warning: the directory of a running enclave was modified by another program; it was recreated at {}
hint: earlier log records may be lost. If the enclave's vsock socket was removed, new connections to it fail until it is launched again",
        directory.path().display()
    )
}

fn ready_text(record: &Record) -> String {
    let machine = platform::machine(record);
    let took = record.ready_ms.unwrap_or(record.created_ms).saturating_sub(record.created_ms);
    let took = show_duration(std::time::Duration::from_millis(took));
    let state = if record.verified == Verified::Yes { "verified and ready" } else { "ready" };
    let mut text =
        format!("{} is {state} after {took} ({machine}, {})", record.name, show_size(record.memory));
    for port in &record.publish {
        let port = format!("; {} → port {}", port.listen, port.ingress);
        text.push_str(&port);
    }
    text
}

fn foreground(order: Order, json: bool) -> Result<u8> {
    let rm = order.rm;
    let mut terminal = Terminal { json, ..Terminal::default() };
    let messages = output::MessageThread::start().context(|| "cannot start a thread".to_owned())?;
    let ran = block_on(live(order, &mut terminal));
    let follower = terminal.follower.take();
    let ended = ran.as_ref().ok().map(|ran| (ran.record.clone(), ran.end.clone(), Last::of(ran, !json, rm)));
    print_rest(move || {
        drop(messages);
        if let Some(follower) = follower {
            follower.finish();
        }
        let Some((record, end, last)) = ended else { return Ok(()) };
        ends::report(&record, &end, &last, false);
        if json { output::json(&record) } else { Ok(()) }
    })?;
    let ran = ran?;
    let code = ran.end.code;
    if rm {
        ran.directory.remove_locked()?;
    }
    Ok(code)
}

/// Prints the remaining output after the enclave's end. A slow reader delays only this process, and a signal ends it.
fn print_rest(print: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    block_on(async {
        let mut signals = Signals::listen()?;
        let printed = tokio::task::spawn_blocking(print);
        tokio::select! {
            printed = printed => printed.unwrap_or(Ok(())),
            _ = signals.next() => Ok(()),
        }
    })
}

/// Starts a detached sleeve and waits until its enclave is ready.
fn detached(order: &Order, json: bool) -> Result<u8> {
    match block_on(launch(order))? {
        Report::Ready { record } => {
            if json {
                output::json(&record)?;
            } else {
                output::note(&format!("cloister: {}", ready_text(&record)));
                output::data(&record.name)?;
            }
            Ok(DONE)
        }
        Report::Ended { record, last } => {
            if json {
                output::json(&record)?;
            }
            if let Some(end) = &record.end {
                ends::report(&record, end, &last, true);
            }
            Ok(record.end.map_or(DONE, |end| end.code))
        }
        Report::Failed(error) => Err(error.into()),
    }
}

fn start_sleeve(order: &Order) -> Result<Child> {
    let program = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
    let mut command = Command::new(&program);
    command.arg("sleeve").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let context = || format!("cannot start {}", program.display());
    let mut child = command.spawn().context(context)?;
    let text = serde_json::to_vec(order).map_err(io::Error::from).context(context)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).context(context)?;
    }
    Ok(child)
}

/// Starts a sleeve and waits for its report. Ctrl-C is forwarded to the sleeve, which then reports the interruption.
async fn launch(order: &Order) -> Result<Report> {
    // Before the sleeve exists: from then on no signal must end this process alone.
    let mut signals = Signals::listen()?;
    let mut child = match start_sleeve(order) {
        Ok(child) => child,
        // Ctrl-C is sent to every process of the terminal's group: it may have killed the sleeve before its handlers were installed.
        Err(_) if signals.pending().await => return Err(interrupted()),
        Err(error) => return Err(error),
    };
    let pid = rustix::process::Pid::from_child(&child);
    let stdout = child.stdout.take();
    let mut report = tokio::task::spawn_blocking(move || stdout.and_then(read_report));
    let mut was_interrupted = false;
    loop {
        tokio::select! {
            report = &mut report => return match report.ok().flatten() {
                Some(report) => Ok(report),
                // It was killed before its handlers were installed, or received the terminal's Ctrl-C itself.
                None if was_interrupted || signals.pending().await => Err(interrupted()),
                None => Err(Error::host("the sleeve exited before it launched the enclave")),
            },
            sent = signals.next() => {
                was_interrupted = true;
                // A sleeve that was started in the background ignores SIGINT, as this process does.
                let signal = match sent {
                    Sent::Interrupt => rustix::process::Signal::INT,
                    Sent::Terminate | Sent::Hangup => rustix::process::Signal::TERM,
                };
                // The child is not reaped yet, so its number cannot have been reused.
                rustix::process::kill_process(pid, signal).unwrap_or_default();
            }
        }
    }
}

fn read_report(stdout: impl Read) -> Option<Report> {
    let mut line = String::new();
    BufReader::new(stdout.take(MAX_MESSAGE)).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// Sends one report to the command that launched this detached sleeve.
#[derive(Debug)]
struct Reporter {
    to: Option<io::Stdout>,
    changes: Changes,
}

impl Reporter {
    fn send(&mut self, report: &Report) {
        let Some(mut to) = self.to.take() else {
            return;
        };
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            // The launching command may be gone; the enclave continues.
            drop(to.write_all(&line).and_then(|()| to.flush()));
        }
        // The reader also waits for the end of the stream.
        if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
            rustix::stdio::dup2_stdout(null.as_fd()).unwrap_or_default();
        }
    }
}

impl Watcher for Reporter {
    fn launching(&mut self, directory: &EnclaveDir, _app: &App) -> Result<()> {
        let context = || format!("cannot write {}", directory.file(SLEEVE).display());
        let home = directory.home().clone();
        let mut log = Rotating::create(home, SLEEVE, Content::Text, SLEEVE_LIMIT).context(context)?;
        rustix::stdio::dup2_stderr(log.as_fd()).context(|| "cannot redirect standard error".to_owned())?;
        output::divert(move |bytes| {
            // A full disk loses these messages and nothing else. Standard error follows to the new file after a rotation, for
            // text that is not printed through `output`, such as a panic message.
            drop(log.append(bytes));
            rustix::stdio::dup2_stderr(log.as_fd()).unwrap_or_default();
        });
        Ok(())
    }

    fn restored(&mut self, directory: &EnclaveDir) {
        output::note(&restored_text(directory));
    }

    fn ready(&mut self, record: &Record) {
        self.send(&Report::Ready { record: Box::new(record.clone()) });
    }

    fn changed(&mut self, record: &Record) {
        self.changes.report(record);
    }
}

/// The process behind `run --detach`: an order on standard input, one report on standard output.
pub(crate) fn sleeve() -> Result<u8> {
    // A session of its own, so that no terminal can interrupt it or hang it up. This fails only if the process already leads a
    // process group, because it was started by hand.
    rustix::process::setsid().map(drop).unwrap_or_default();
    // An order has absolute paths; the directory it was given in may be removed meanwhile.
    std::env::set_current_dir("/").context(|| "cannot change to the root directory".to_owned())?;
    let mut text = Vec::new();
    let context = || "cannot read the launch order".to_owned();
    io::stdin().take(MAX_MESSAGE).read_to_end(&mut text).context(context)?;
    let order: Order = serde_json::from_slice(&text).map_err(io::Error::from).context(context)?;
    let rm = order.rm;
    let mut reporter = Reporter { to: Some(io::stdout()), changes: Changes::default() };
    match block_on(live(order, &mut reporter)) {
        Ok(ran) => {
            let code = ran.end.code;
            let last = Last::of(&ran, false, rm);
            if rm {
                ran.directory.remove_locked()?;
            }
            reporter.send(&Report::Ended { record: Box::new(ran.record), last });
            Ok(code)
        }
        Err(error) => {
            reporter.send(&Report::Failed(ErrorDocument::from(&error)));
            Err(error)
        }
    }
}
