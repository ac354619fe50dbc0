//! A status in as many frames as it needs: its head with the first services, then pages with the others.
//!
//! Invariants: no text is truncated to fit, and a reader gets a complete status or none. [`MAX_SERVICES`] and
//! [`MAX_FRAMES`] limit how much memory a peer can make the reader use.

use serde::{Deserialize, Serialize};

use super::{FromGuest, ServiceStatus, Status};
use crate::frame::{self, FrameError, HOST_LIMIT};

/// Maximum number of services in a status: as many as a manifest may name.
pub const MAX_SERVICES: usize = 60;

/// Maximum number of servants in a status: each is a program of Cloister, of which there are a few.
pub const MAX_SERVANTS: usize = 8;

/// Maximum number of frames of one status. Sixty services with the longest texts take two; twice that leaves space for
/// the head's own texts and partly filled pages, and limits a hostile supervisor to 256 KiB.
pub const MAX_FRAMES: usize = 4;

/// Bytes between two services in a page: a comma.
const BETWEEN: usize = 1;

/// The first frame of a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The status with its first services.
    #[serde(flatten)]
    pub status: Status,
    /// Number of services that follow in [`Page`]s with the same `seq`.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub follow: usize,
}

/// A further frame of a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// [`Status::seq`] of the preceding head.
    pub seq: u64,
    /// The next services, at least one.
    pub services: Vec<ServiceStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A status that fits in one frame.
impl From<Status> for Head {
    fn from(status: Status) -> Self {
        Self { status, follow: 0 }
    }
}

/// The frames of a status, in the order in which they are sent; one if it fits.
///
/// # Errors
/// If the head without services, or a single service, exceeds the frame limit; the supervisor's limits on texts keep
/// both far below it.
pub fn frames(mut status: Status) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut rest = std::mem::take(&mut status.services).into_iter().peekable();
    let seq = status.seq;
    let head = |status, follow| FromGuest::Status(Head { status, follow });
    let mut frames = Vec::new();
    // The maximum length of the empty head, for any number of services that follow.
    let empty = length(&head(status.clone(), usize::MAX))?;
    status.services = take_fitting(&mut rest, empty)?;
    frames.push(frame::encode(&head(status, rest.len()), HOST_LIMIT)?);
    while let Some(first) = rest.next() {
        let empty = length(&FromGuest::Services(Page { seq, services: Vec::new() }))?;
        let mut services = vec![first];
        let taken = length(&services)?;
        services.extend(take_fitting(&mut rest, empty.saturating_add(taken))?);
        frames.push(frame::encode(&FromGuest::Services(Page { seq, services }), HOST_LIMIT)?);
    }
    Ok(frames)
}

/// Takes services as long as they fit in a frame of which `taken` bytes are used.
fn take_fitting(
    services: &mut std::iter::Peekable<std::vec::IntoIter<ServiceStatus>>,
    mut taken: usize,
) -> Result<Vec<ServiceStatus>, FrameError> {
    let mut fitting = Vec::new();
    while let Some(service) = services.peek() {
        taken = taken.saturating_add(length(service)?).saturating_add(BETWEEN);
        if taken > HOST_LIMIT {
            break;
        }
        fitting.extend(services.next());
    }
    Ok(fitting)
}

/// Length of the JSON of `value` in bytes.
fn length<V: Serialize>(value: &V) -> Result<usize, FrameError> {
    Ok(serde_json::to_vec(value)?.len())
}

/// An invalid sequence of status frames, which no correct supervisor sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// A status has more services than allowed.
    #[error("status has {0} services; the limit is {MAX_SERVICES}")]
    TooManyServices(usize),
    /// A status has more servants than allowed.
    #[error("status has {0} servants; the limit is {MAX_SERVANTS}")]
    TooManyServants(usize),
    /// A status has more frames than allowed.
    #[error("status has more than {MAX_FRAMES} frames")]
    TooManyFrames,
    /// A page has no service, or more than are missing.
    #[error("page has {found} services; expected 1 to {missing}")]
    Count {
        /// Number of services in the page.
        found: usize,
        /// Number of services still missing.
        missing: usize,
    },
    /// A page belongs to no status that has begun.
    #[error("page belongs to status {0}, which has not begun")]
    Stray(u64),
    /// A status begins before the previous one is complete.
    #[error("status {0} begins before the previous one is complete")]
    Unfinished(u64),
}

/// Assembles statuses from their frames. After an error the connection must be closed.
#[derive(Debug, Default)]
pub struct Assembly {
    begun: Option<Begun>,
}

/// An incomplete status.
#[derive(Debug)]
struct Begun {
    status: Status,
    missing: usize,
    frames: usize,
}

impl Assembly {
    /// Takes a head, and returns the status if that completes it.
    ///
    /// # Errors
    /// If it announces too many services, or another status is incomplete.
    pub fn head(&mut self, head: Head) -> Result<Option<Status>, PageError> {
        let Head { status, follow } = head;
        if self.begun.take().is_some() {
            return Err(PageError::Unfinished(status.seq));
        }
        let services = status.services.len().saturating_add(follow);
        if services > MAX_SERVICES {
            return Err(PageError::TooManyServices(services));
        }
        if status.servants.len() > MAX_SERVANTS {
            return Err(PageError::TooManyServants(status.servants.len()));
        }
        Ok(self.keep(Begun { status, missing: follow, frames: 1 }))
    }

    /// Takes a page, and returns the status if that completes it.
    ///
    /// # Errors
    /// If the page does not belong to an incomplete status.
    pub fn page(&mut self, page: Page) -> Result<Option<Status>, PageError> {
        let Page { seq, services } = page;
        let begun = self.begun.take().filter(|begun| begun.status.seq == seq);
        let Begun { mut status, missing, frames } = begun.ok_or(PageError::Stray(seq))?;
        let found = services.len();
        let left = missing.checked_sub(found).filter(|_| found > 0);
        let missing = left.ok_or(PageError::Count { found, missing })?;
        if frames >= MAX_FRAMES {
            return Err(PageError::TooManyFrames);
        }
        status.services.extend(services);
        Ok(self.keep(Begun { status, missing, frames: frames.saturating_add(1) }))
    }

    fn keep(&mut self, begun: Begun) -> Option<Status> {
        if begun.missing == 0 {
            return Some(begun.status);
        }
        self.begun = Some(begun);
        None
    }
}

#[cfg(test)]
mod tests;
