//! `run`: in the foreground, where this process is the sleeve, or behind it.

mod turns;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use cloister_wire::control::State;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::cli::Run;
use crate::cli::values::{show_duration, show_size};
use crate::error::{Doing, Error, Result, Words};
use crate::logbook::lines::Look;
use crate::logbook::rotating::Rotating;
use crate::logbook::{SLEEVE, SLEEVE_LIMIT};
use crate::output;
use crate::sleeve::order::{Order, Watcher};
use crate::sleeve::run::{Ran, run as live};
use crate::state::{End, Folder, Outcome, Record, Root};

use super::follow::Follower;
use super::{DONE, block_on};
use turns::{Turns, shown};

/// The longest order or report that is read.
const MAX_MESSAGE: u64 = 1024 * 1024;

/// Console lines shown when an enclave ended without telling why.
const CONSOLE_LINES: usize = 10;

/// What a detached sleeve tells whoever launched it: the first of these is the last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    /// The enclave is ready.
    Ready { record: Box<Record> },
    /// It has ended before it was.
    Ended { record: Box<Record> },
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
        machine: asked.machine,
        accel: asked.accel,
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
        let follower = Follower::start(folder.path().to_owned(), look);
        self.follower = Some(follower.doing(|| "cannot follow the log".to_owned())?);
        Ok(())
    }

    fn ready(&mut self, record: &Record) {
        output::note(&format!("cloister: {}", ready_words(record)));
    }

    fn changed(&mut self, record: &Record) {
        self.turns.tell(record);
    }
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
    let ran = block_on(live(order, &mut terminal));
    if let Some(follower) = terminal.follower.take() {
        follower.finish();
    }
    let ran = ran?;
    tell_end(&ran);
    if json {
        output::json(&ran.record)?;
    }
    let code = ran.end.code;
    if rm {
        ran.folder.remove_locked()?;
    }
    Ok(code)
}

/// Says how it ended, unless the service ended by itself: then its own output and the code say it all.
fn tell_end(ran: &Ran) {
    let console = || last_lines(&ran.folder);
    match end_words(&ran.record.name, &ran.end, console) {
        Say::Quiet => {}
        Say::Note(text) => output::note(&text),
        Say::Error(error) => output::error(&error),
    }
}

/// What there is to say about an end.
enum Say {
    Quiet,
    Note(String),
    Error(Error),
}

fn end_words(name: &str, end: &End, console: impl FnOnce() -> Option<String>) -> Say {
    match &end.outcome {
        Outcome::Told { state: State::Exited { .. } } => Say::Quiet,
        Outcome::Told { state: State::Fatal { stage, error } } => Say::Error(
            Error::enclave(format!("{name} could not go on: {}: {}", shown(stage), shown(error)))
                .hint(format!("`host-sleeve logs --console {name}` shows its boot")),
        ),
        Outcome::Told { .. } | Outcome::Killed { .. } => {
            Say::Note(format!("cloister: {name}: {}", end.words()))
        }
        Outcome::TimedOut { why } => {
            Say::Error(with_console(Error::timed_out(format!("{name}: {why}")), console()))
        }
        Outcome::Failed { why } => {
            Say::Error(with_console(Error::enclave(format!("{name} ended without a word: {why}")), console()))
        }
    }
}

fn with_console(error: Error, console: Option<String>) -> Error {
    match console {
        Some(lines) => error.because(io::Error::other(format!("its console said last:\n{lines}"))),
        None => error,
    }
}

fn last_lines(folder: &Folder) -> Option<String> {
    let bytes = std::fs::read(folder.file(crate::logbook::CONSOLE)).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(CONSOLE_LINES);
    let last: Vec<String> =
        lines.get(from..)?.iter().map(|line| format!("  | {}", line.trim_end())).collect();
    (!last.is_empty()).then(|| last.join("\n"))
}

/// Starts a sleeve of its own and waits until its enclave is ready.
fn behind(order: &Order, json: bool) -> Result<u8> {
    match block_on(launch(order))? {
        Some(Report::Ready { record }) => {
            if json {
                output::json(&record)?;
            } else {
                output::note(&format!("cloister: {}", ready_words(&record)));
                output::data(&record.name)?;
            }
            Ok(DONE)
        }
        Some(Report::Ended { record }) => {
            if json {
                output::json(&record)?;
            }
            let end = record.end.clone();
            let folder = Root::open()?.find(&record.name);
            let console = || folder.ok().as_ref().and_then(last_lines);
            match end.as_ref().map(|end| end_words(&record.name, end, console)) {
                Some(Say::Error(error)) => output::error(&error),
                Some(Say::Note(text)) => output::note(&text),
                _ => output::note(&format!(
                    "cloister: {}: {}",
                    record.name,
                    end.as_ref().map_or_else(String::new, End::words)
                )),
            }
            Ok(end.map_or(DONE, |end| end.code))
        }
        Some(Report::Failed(words)) => Err(words.into()),
        None => Err(Error::host("the sleeve broke off before it launched anything")),
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
async fn launch(order: &Order) -> Result<Option<Report>> {
    use tokio::signal::unix::{SignalKind, signal};
    let doing = || "cannot wait for the sleeve".to_owned();
    // Before the sleeve is there: from then on no signal may end this process alone.
    let mut interrupt = signal(SignalKind::interrupt()).doing(doing)?;
    let mut terminate = signal(SignalKind::terminate()).doing(doing)?;
    let mut child = start_sleeve(order)?;
    let pid = rustix::process::Pid::from_child(&child);
    let stdout = child.stdout.take();
    let mut report = tokio::task::spawn_blocking(move || stdout.and_then(read_report));
    loop {
        tokio::select! {
            report = &mut report => return Ok(report.ok().flatten()),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // Our child is not reaped yet, so its number is its own.
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap_or_default();
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
        let path = folder.file(SLEEVE);
        let doing = || format!("cannot write {}", path.display());
        let mut log = Rotating::create(path.clone(), SLEEVE_LIMIT).doing(doing)?;
        rustix::stdio::dup2_stderr(log.as_fd()).doing(|| "cannot leave the terminal".to_owned())?;
        output::divert(move |bytes| {
            // A full disk costs these words and nothing else. What is not said through `output`, such as a panic, follows
            // to the new file when the log has started over.
            drop(log.append(bytes));
            rustix::stdio::dup2_stderr(log.as_fd()).unwrap_or_default();
        });
        Ok(())
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
            if rm {
                ran.folder.remove_locked()?;
            }
            reporter.tell(&Report::Ended { record: Box::new(ran.record) });
            Ok(code)
        }
        Err(error) => {
            reporter.tell(&Report::Failed(Words::from(&error)));
            Err(error)
        }
    }
}
