//! A request to an enclave, from within its sleeve.
//!
//! Invariant: the requester provides the channel for the reply, and may be gone when the reply arrives.

use cloister_wire::control::{Reply, Request};
use tokio::sync::oneshot;

/// A request and the channel for its reply. Without a channel, the reply is dropped.
#[derive(Debug)]
pub(crate) struct EnclaveRequest {
    /// The request.
    pub(crate) request: Request,
    /// Where the reply is sent.
    pub(crate) answer: Option<oneshot::Sender<Reply>>,
}
