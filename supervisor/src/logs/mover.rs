//! From the services' pipes into the rings: one task a stream.
//!
//! Its law: a pipe is always drained. Where its bytes cannot be kept they are thrown away; the service never waits.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister_sys::splice::{set_pipe_size, splice};
use cloister_wire::logs::Stream;
use tokio::net::unix::pipe::Receiver;
use tokio::task::{AbortHandle, yield_now};

use super::needle::Needle;
use super::ring::BATCH_BYTES;
use super::store::{Output, Shared};
use crate::clock::Moment;
use crate::launcher::Id;

/// Bytes a pipe holds: one batch, so that a busy service wakes the supervisor less often. The kernel takes pages only
/// while there is something in them.
const PIPE_BYTES: usize = 256 * 1024;

/// Bytes read at once from a stream that is thrown away but watched for a text.
const READ_BYTES: usize = 16 * 1024;

/// Batches that may still lie in a pipe nobody writes to any more. It bounds the last drain.
const LAST_BATCHES: usize = 16;

/// A text to be looked for in a service's output.
#[derive(Clone)]
pub struct Lookout {
    /// The text.
    pub text: String,
    /// Look also at what was written since then, before a crash of the supervisor.
    pub since: Option<Moment>,
    /// Called once when it was found.
    pub found: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Lookout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookout")
            .field("text", &self.text)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// The tasks that drain the services' pipes.
#[derive(Debug)]
pub struct Movers {
    logs: Shared,
    sink: Arc<File>,
    tasks: BTreeMap<Id, Vec<(Arc<Mover>, AbortHandle)>>,
}

#[derive(Debug)]
struct Mover {
    pipe: Receiver,
    output: Output,
    logs: Shared,
    sink: Arc<File>,
    keeps: bool,
}

impl Movers {
    /// No streams yet. What is not kept goes to `sink`, which is `/dev/null`.
    #[must_use]
    pub fn new(logs: Shared, sink: File) -> Self {
        Self { logs, sink: Arc::new(sink), tasks: BTreeMap::new() }
    }

    /// Drains a service's stdout and stderr from now on, in this order in `pipes`; `keeps` says whether its output is
    /// kept.
    pub fn start(
        &mut self,
        id: Id,
        pipes: Vec<OwnedFd>,
        keeps: bool,
        lookout: Option<&Lookout>,
    ) -> io::Result<()> {
        for (pipe, stream) in pipes.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
            set_pipe_size(&pipe, PIPE_BYTES).unwrap_or_default();
            // This end becomes non-blocking. The service's own end is another open file and stays blocking.
            let pipe = Receiver::from_owned_fd(pipe)?;
            let output = Output { id, stream };
            let (logs, sink) = (self.logs.clone(), Arc::clone(&self.sink));
            let mover = Arc::new(Mover { pipe, output, logs, sink, keeps });
            let task = tokio::spawn(Arc::clone(&mover).run(lookout.cloned()));
            self.tasks.entry(id).or_default().push((mover, task.abort_handle()));
        }
        Ok(())
    }

    /// Whether a service's output is being drained: then what comes again is the same.
    #[must_use]
    pub fn drains(&self, id: Id) -> bool {
        self.tasks.contains_key(&id)
    }

    /// Takes what is left in the pipes of a service that has no process any more, and lets them go.
    pub fn finish(&mut self, id: Id) {
        for (mover, task) in self.tasks.remove(&id).unwrap_or_default() {
            task.abort();
            mover.drain();
        }
    }
}

impl Mover {
    async fn run(self: Arc<Self>, lookout: Option<Lookout>) {
        let mut watch = lookout.map(|lookout| (Needle::new(&lookout.text), lookout));
        if let Some((_, lookout)) = watch.take_if(|(needle, lookout)| self.was_found(needle, lookout)) {
            (lookout.found)();
        }
        while self.pipe.readable().await.is_ok() {
            match self.pipe.try_io(|| self.step(watch.as_mut().map(|(needle, _)| needle))) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(Step { moved: 0, .. }) | Err(_) => return,
                Ok(Step { found, .. }) => {
                    if found {
                        watch.take().into_iter().for_each(|(_, lookout)| (lookout.found)());
                    }
                    yield_now().await;
                }
            }
        }
    }

    /// Whether the text is in what was written before this task ran: by a supervisor that crashed since.
    fn was_found(&self, needle: &mut Needle, lookout: &Lookout) -> bool {
        let Some(since) = lookout.since else { return false };
        let logs = self.logs.lock();
        let spans = logs.spans_since(self.output, since).unwrap_or_default();
        spans.into_iter().any(|span| {
            let mut bytes = Vec::new();
            logs.read(self.output, span, &mut bytes).is_ok_and(|()| needle.push(&bytes))
        })
    }

    fn step(&self, needle: Option<&mut Needle>) -> io::Result<Step> {
        match needle {
            _ if self.keeps => match self.keep(needle) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => self.discard(),
                kept => kept,
            },
            None => self.discard(),
            Some(needle) => self.search(needle),
        }
    }

    fn keep(&self, needle: Option<&mut Needle>) -> io::Result<Step> {
        let mut logs = self.logs.lock();
        let span = logs.take(self.output, &self.pipe, Moment::now())?;
        let mut bytes = Vec::new();
        let found = needle.is_some_and(|needle| {
            logs.read(self.output, span, &mut bytes).is_ok_and(|()| needle.push(&bytes))
        });
        Ok(Step { moved: usize::try_from(span.len).unwrap_or(usize::MAX), found })
    }

    fn discard(&self) -> io::Result<Step> {
        let moved = splice(&self.pipe, &*self.sink, BATCH_BYTES, false)?;
        Ok(Step { moved, found: false })
    }

    /// Reads and throws away, looking for the text.
    fn search(&self, needle: &mut Needle) -> io::Result<Step> {
        let mut bytes = [0; READ_BYTES];
        let moved = rustix::io::read(&self.pipe, &mut bytes)?;
        Ok(Step { moved, found: needle.push(bytes.get(..moved).unwrap_or_default()) })
    }

    fn drain(&self) {
        for _ in 0..LAST_BATCHES {
            match self.step(None) {
                Ok(Step { moved: 1.., .. }) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

struct Step {
    moved: usize,
    found: bool,
}
