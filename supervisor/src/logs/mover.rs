//! Moves output from the services' pipes into the rings: one task per stream.
//!
//! Invariant: a pipe is always drained. Bytes that cannot be stored are discarded; the service never blocks.

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

/// A pipe's capacity: one batch, so that a busy service wakes the supervisor less often. The kernel allocates pages
/// only for data in the pipe.
const PIPE_BYTES: usize = 256 * 1024;

/// Bytes read at once from a stream that is discarded but watched for a text.
const READ_BYTES: usize = 16 * 1024;

/// Batches that may still be in a pipe without writers. It bounds the last drain.
const LAST_BATCHES: usize = 16;

/// A text to search for in a service's output.
#[derive(Clone)]
pub struct TextWatch {
    /// The text.
    pub text: String,
    /// Also search the output written since then, before a crash of the supervisor.
    pub since: Option<Moment>,
    /// Called once when the text is found.
    pub found: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for TextWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextWatch")
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
    stores: bool,
}

impl Movers {
    /// Starts without streams. Discarded output goes to `sink`, which is `/dev/null`.
    #[must_use]
    pub fn new(logs: Shared, sink: File) -> Self {
        Self { logs, sink: Arc::new(sink), tasks: BTreeMap::new() }
    }

    /// Starts draining a service's stdout and stderr, in this order in `pipes`. Its output is stored if `stores`
    /// is true, else discarded.
    pub fn start(
        &mut self,
        id: Id,
        pipes: Vec<OwnedFd>,
        stores: bool,
        text_watch: Option<&TextWatch>,
    ) -> io::Result<()> {
        for (pipe, stream) in pipes.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
            set_pipe_size(&pipe, PIPE_BYTES).unwrap_or_default();
            // This end becomes non-blocking. The service's own end is another open file and stays blocking.
            let pipe = Receiver::from_owned_fd(pipe)?;
            let output = Output { id, stream };
            let (logs, sink) = (self.logs.clone(), Arc::clone(&self.sink));
            let mover = Arc::new(Mover { pipe, output, logs, sink, stores });
            let task = tokio::spawn(Arc::clone(&mover).run(text_watch.cloned()));
            self.tasks.entry(id).or_default().push((mover, task.abort_handle()));
        }
        Ok(())
    }

    /// Whether a service's output is being drained. Pipes that are reported again are then the same.
    #[must_use]
    pub fn drains(&self, id: Id) -> bool {
        self.tasks.contains_key(&id)
    }

    /// Reads the rest from the pipes of a service without processes, and closes them.
    pub fn finish(&mut self, id: Id) {
        for (mover, task) in self.tasks.remove(&id).unwrap_or_default() {
            task.abort();
            mover.drain();
        }
    }
}

impl Mover {
    async fn run(self: Arc<Self>, text_watch: Option<TextWatch>) {
        let mut watch = text_watch.map(|text_watch| (Needle::new(&text_watch.text), text_watch));
        if let Some((_, text_watch)) =
            watch.take_if(|(needle, text_watch)| self.was_found(needle, text_watch))
        {
            (text_watch.found)();
        }
        while self.pipe.readable().await.is_ok() {
            match self.pipe.try_io(|| self.step(watch.as_mut().map(|(needle, _)| needle))) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(Step { moved: 0, .. }) | Err(_) => return,
                Ok(Step { found, .. }) => {
                    if found {
                        watch.take().into_iter().for_each(|(_, text_watch)| (text_watch.found)());
                    }
                    yield_now().await;
                }
            }
        }
    }

    /// Whether the text is in the output that an earlier supervisor stored before it crashed.
    fn was_found(&self, needle: &mut Needle, text_watch: &TextWatch) -> bool {
        let Some(since) = text_watch.since else { return false };
        let logs = self.logs.lock();
        let spans = logs.spans_since(self.output, since).unwrap_or_default();
        spans.into_iter().any(|span| {
            let mut bytes = Vec::new();
            logs.read(self.output, span, &mut bytes).is_ok_and(|()| needle.push(&bytes))
        })
    }

    fn step(&self, needle: Option<&mut Needle>) -> io::Result<Step> {
        match needle {
            _ if self.stores => match self.store(needle) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => self.discard(),
                stored => stored,
            },
            None => self.discard(),
            Some(needle) => self.search(needle),
        }
    }

    fn store(&self, needle: Option<&mut Needle>) -> io::Result<Step> {
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

    /// Reads and discards output, searching for the text.
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
