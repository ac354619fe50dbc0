//! A request to an enclave, inside its sleeve.
//!
//! Its law: whoever asks says where the answer goes, and may be gone when it comes.

use cloister_wire::control::{Reply, Request};
use tokio::sync::oneshot;

/// A request and where its answer goes. Without a place for it the answer is dropped.
#[derive(Debug)]
pub(crate) struct Ask {
    /// What is asked.
    pub(crate) request: Request,
    /// Where the answer goes.
    pub(crate) answer: Option<oneshot::Sender<Reply>>,
}
