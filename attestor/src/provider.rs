//! What provides evidence: a security module, or hardware that makes reports.
//!
//! Invariant: it is used by one thread. What can be answered without it is answered by [`Ready`] in another thread, so a device that
//! does not respond delays only requests for the device.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::watch;

use crate::events::Published;
use crate::exchange::{Answer, Reply, Request};
use crate::keeper::Keeper;
use crate::reports::{Recorder, Reports, Wanted};

/// What provides evidence.
pub(crate) enum Provider {
    /// A security module: AWS Nitro, and `virtual`.
    Module(Box<Keeper>),
    /// Reports through configfs-tsm: TDX and SEV-SNP.
    Tsm(Reports),
}

impl Provider {
    /// Performs a request. It may block.
    pub(crate) fn answer(&mut self, request: Request, wanted: Wanted<'_>) -> Answer {
        match self {
            Self::Module(keeper) => keeper.answer(request),
            Self::Tsm(reports) => reports.answer(request, wanted),
        }
    }

    /// Uses the development security module at the other end of this connection; elsewhere than on `virtual` it is closed.
    pub(crate) fn connect(&mut self, stream: OwnedFd) {
        if let Self::Module(keeper) = self {
            keeper.connect(stream);
        }
    }

    /// What is answered without it.
    pub(crate) fn ready(&self) -> Ready {
        match self {
            Self::Module(keeper) => Ready::Log(keeper.log()),
            Self::Tsm(reports) => Ready::Recorder(reports.recorder()),
        }
    }

    /// What a message calls it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Module(_) => "the security module",
            Self::Tsm(_) => "the hardware that makes reports",
        }
    }
}

/// What is answered without the provider. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Ready {
    /// Nothing.
    #[cfg(test)]
    Nothing,
    /// The log, as it was after the security module's last request.
    Log(Published),
    /// Everything but evidence.
    Recorder(Recorder),
}

impl Ready {
    /// The length of the log, which changes with each event.
    pub(crate) fn recorded(&self) -> Arc<watch::Sender<usize>> {
        match self {
            #[cfg(test)]
            Self::Nothing => Arc::default(),
            Self::Log(log) => log.length(),
            Self::Recorder(recorder) => recorder.log().length(),
        }
    }

    /// Answers a request that does not need the provider. Returns one that does.
    pub(crate) fn answer(&self, request: Request) -> Result<Answer, Request> {
        match (self, request) {
            (Self::Log(log), Request::Log) => Ok(Ok(Reply::Log(log.snapshot()))),
            (Self::Recorder(recorder), request) => recorder.answer(request).map_err(Request::Evidence),
            (_, request) => Err(request),
        }
    }
}
