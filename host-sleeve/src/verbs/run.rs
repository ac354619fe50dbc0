//! `run`: in the foreground, where this process is the sleeve, or behind it.

mod changes;
mod ends;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::cli::Run;
use crate::error::{Doing, Error, Result, Words};
use crate::logbook::lines::Look;
use crate::logbook::rotating::Rotating;
use crate::logbook::{SLEEVE, SLEEVE_LIMIT};
use crate::output;
use crate::signals::{Sent, Signals};
use crate::sleeve::order::{Order, Watcher};
use crate::sleeve::run::{interrupted, run as live};
use crate::state::{Folder, Record};
use crate::values::{show_duration, show_size};

use super::follow::Follower;
use super::{DONE, block_on};
use changes::Turns;
use ends::Last;

/// The longest order or report that is read.
const MAX_MESSAGE: u64 = 1024 * 1024;

/// What a detached sleeve tells whoever launched it: the first of these is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    /// The enclave is ready.
    Ready { record: Box<Record> },
    /// It has ended before it was.
    Ended { record: Box<Record>, last: Last },
    /// It was not launched.
    Failed(Words),
}

/// Runs an enclave.
pub(crate) fn run(asked: Run, json: bool) -> Result<u8> {
    let detach = asked.detach;
    let order = order(asked)?;
    if detach { behind(&order, json) } else { in_front(order, json) }
}

fn order(asked: Run) -> Result<Order> {
    let app = std::path::absolute(&asked.app).doing(|| format!("cannot resolve {}", asked.app.display()))?;
    Ok(Order {
        app,
        name: asked.name,
        replace: asked.replace,
        rm: asked.rm,
        publish: asked.publish,
        cpus: asked.cpus,
        memory: asked.memory,
        timeout: asked.timeout,
        ready_timeout: asked.ready_timeout,
        backend: asked.backend,
        options: asked.options.0,
        metrics: asked.metrics,
        console: asked.console,
    })
}

/// Tells the person in front of the terminal.
#[derive(Debug, Default)]
struct Terminal {
    follower: Option<Follower>,
    turns: Turns,
    json: bool,
}

impl Watcher for Terminal {
    fn launching(&mut self, folder: &Folder, app: &App) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let look = Look { names: app.manifest.services.len() > 1, ..Look::default() };
        let follower = Follower::start(folder.dir().clone(), look);
        self.follower = Some(follower.doing(|| "cannot follow the log".to_owned())?);
        Ok(())
    }

    fn restored(&mut self, folder: &Folder) {
        if let Some(Err(error)) = self.follower.as_mut().map(|follower| follower.move_to(folder.dir())) {
            output::note(&format!("warning: the log is no longer shown: {error}"));
        }
        output::note(&restored_words(folder));
    }

    fn ready(&mut self, record: &Record) {
        output::note(&format!("cloister: {}", ready_words(record)));
    }

    fn changed(&mut self, record: &Record) {
        self.turns.tell(record);
    }
}

fn restored_words(folder: &Folder) -> String {
    format!(
        "warning: the folder of a running enclave was changed from outside; it is at {} again
hint: what was logged before          may be lost. Where the enclave's vsock socket was removed, new connections to it fail until it is launched again",
        folder.path().display()
    )
}

fn ready_words(record: &Record) -> String {
    let kind = record.machine.as_ref().map_or("", |machine| machine.kind.as_str());
    let took = record.ready_ms.unwrap_or(record.created_ms).saturating_sub(record.created_ms);
    let took = show_duration(std::time::Duration::from_millis(took));
    let mut words = format!("{} is ready after {took} ({kind}, {})", record.name, show_size(record.memory));
    for port in &record.publish {
        let port = format!("; {} is port {}", port.listen, port.ingress);
        words.push_str(&port);
    }
    words
}

fn in_front(order: Order, json: bool) -> Result<u8> {
    let rm = order.rm;
    let mut terminal = Terminal { json, ..Terminal::default() };
    let notes = output::Aside::start().doing(|| "cannot start a thread".to_owned())?;
    let ran = block_on(live(order, &mut terminal));
    let follower = terminal.follower.take();
    let said = ran.as_ref().ok().map(|ran| (ran.record.clone(), ran.end.clone(), Last::of(ran, !json, rm)));
    print_rest(move || {
        drop(notes);
        if let Some(follower) = follower {
            follower.finish();
        }
        let Some((record, end, last)) = said else { return Ok(()) };
        ends::tell(&record, &end, &last, false);
        if json { output::json(&record) } else { Ok(()) }
    })?;
    let ran = ran?;
    let code = ran.end.code;
    if rm {
        ran.folder.remove_locked()?;
    }
    Ok(code)
}

/// Prints what is left when the enclave has ended. Whoever reads that slowly holds up nothing but this process, and a signal ends
/// the waiting.
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

/// Starts a sleeve of its own and waits until its enclave is ready.
fn behind(order: &Order, json: bool) -> Result<u8> {
    match block_on(launch(order))? {
        Report::Ready { record } => {
            if json {
                output::json(&record)?;
            } else {
                output::note(&format!("cloister: {}", ready_words(&record)));
                output::data(&record.name)?;
            }
            Ok(DONE)
        }
        Report::Ended { record, last } => {
            if json {
                output::json(&record)?;
            }
            if let Some(end) = &record.end {
                ends::tell(&record, end, &last, true);
            }
            Ok(record.end.map_or(DONE, |end| end.code))
        }
        Report::Failed(words) => Err(words.into()),
    }
}

fn start_sleeve(order: &Order) -> Result<Child> {
    let program = std::env::current_exe().doing(|| "cannot find this program".to_owned())?;
    let mut command = Command::new(&program);
    command.arg("sleeve").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let doing = || format!("cannot start {}", program.display());
    let mut child = command.spawn().doing(doing)?;
    let text = serde_json::to_vec(order).map_err(io::Error::from).doing(doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).doing(doing)?;
    }
    Ok(child)
}

/// Starts a sleeve and waits for its report; Ctrl-C is passed on to the sleeve, whose report then says so.
async fn launch(order: &Order) -> Result<Report> {
    // Before the sleeve is there: from then on no signal may end this process alone.
    let mut signals = Signals::listen()?;
    let mut child = match start_sleeve(order) {
        Ok(child) => child,
        // Ctrl-C goes to every process of the terminal's group: it may have ended the sleeve before its handlers were there.
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
                // It had not come so far as to hear the signal, or heard Ctrl-C from the terminal as well.
                None if was_interrupted || signals.pending().await => Err(interrupted()),
                None => Err(Error::host("the sleeve ended before it launched anything")),
            },
            sent = signals.next() => {
                was_interrupted = true;
                // A sleeve that was started in the background ignores SIGINT, as we do.
                let signal = match sent {
                    Sent::Interrupt => rustix::process::Signal::INT,
                    Sent::Terminate | Sent::Hangup => rustix::process::Signal::TERM,
                };
                // Our child is not reaped yet, so its number is its own.
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

/// Tells whoever launched a detached sleeve, once.
#[derive(Debug)]
struct Reporter {
    to: Option<io::Stdout>,
    turns: Turns,
}

impl Reporter {
    fn tell(&mut self, report: &Report) {
        let Some(mut to) = self.to.take() else {
            return;
        };
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            // Whoever launched us may have gone; the enclave goes on.
            drop(to.write_all(&line).and_then(|()| to.flush()));
        }
        // The reader waits for the end of the stream as well.
        if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
            rustix::stdio::dup2_stdout(null.as_fd()).unwrap_or_default();
        }
    }
}

impl Watcher for Reporter {
    fn launching(&mut self, folder: &Folder, _app: &App) -> Result<()> {
        let doing = || format!("cannot write {}", folder.file(SLEEVE).display());
        let mut log = Rotating::create(folder.home().clone(), SLEEVE, SLEEVE_LIMIT).doing(doing)?;
        rustix::stdio::dup2_stderr(log.as_fd()).doing(|| "cannot leave the terminal".to_owned())?;
        output::divert(move |bytes| {
            // A full disk costs these words and nothing else. What is not said through `output`, such as a panic, follows
            // to the new file when the log has started over.
            drop(log.append(bytes));
            rustix::stdio::dup2_stderr(log.as_fd()).unwrap_or_default();
        });
        Ok(())
    }

    fn restored(&mut self, folder: &Folder) {
        output::note(&restored_words(folder));
    }

    fn ready(&mut self, record: &Record) {
        self.tell(&Report::Ready { record: Box::new(record.clone()) });
    }

    fn changed(&mut self, record: &Record) {
        self.turns.tell(record);
    }
}

/// The process behind `run --detach`: an order on standard input, one report on standard output.
pub(crate) fn sleeve() -> Result<u8> {
    // A session of its own: no terminal can interrupt it or hang it up. It fails only where this process leads a group,
    // which whoever started it by hand has seen to.
    rustix::process::setsid().map(drop).unwrap_or_default();
    // An order has absolute paths; the folder it came from may be removed meanwhile.
    std::env::set_current_dir("/").doing(|| "cannot leave this folder".to_owned())?;
    let mut text = Vec::new();
    let doing = || "cannot read the order".to_owned();
    io::stdin().take(MAX_MESSAGE).read_to_end(&mut text).doing(doing)?;
    let order: Order = serde_json::from_slice(&text).map_err(io::Error::from).doing(doing)?;
    let rm = order.rm;
    let mut reporter = Reporter { to: Some(io::stdout()), turns: Turns::default() };
    match block_on(live(order, &mut reporter)) {
        Ok(ran) => {
            let code = ran.end.code;
            let last = Last::of(&ran, false, rm);
            if rm {
                ran.folder.remove_locked()?;
            }
            reporter.tell(&Report::Ended { record: Box::new(ran.record), last });
            Ok(code)
        }
        Err(error) => {
            reporter.tell(&Report::Failed(Words::from(&error)));
            Err(error)
        }
    }
}
