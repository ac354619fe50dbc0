//! A status in as many frames as it needs: its head with the first services, then pages with the others.
//!
//! Its law: no text is cut to fit, and a reader has a status whole or not at all. What a peer can make the reader hold is
//! bounded by [`MAX_SERVICES`] and [`MAX_FRAMES`], whatever it sends.

use serde::{Deserialize, Serialize};

use super::{FromGuest, ServiceStatus, Status};
use crate::frame::{self, FrameError, HOST_LIMIT};

/// The most services of a status: as many as a manifest may name.
pub const MAX_SERVICES: usize = 60;

/// The most servants of a status: each is a program of ours, of which there are a few.
pub const MAX_SERVANTS: usize = 8;

/// The most frames of one status. Sixty services with the longest texts take two; with the head's own texts, and what does
/// not fill a page, twice that is enough for any supervisor and 256 KiB from a hostile one.
pub const MAX_FRAMES: usize = 4;

/// Bytes between two services on a page: a comma.
const BETWEEN: usize = 1;

/// How a status begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The status with its first services.
    #[serde(flatten)]
    pub status: Status,
    /// How many services follow in [`Page`]s with the same number.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub follow: usize,
}

/// How a status goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// [`Status::seq`] of the head before it.
    pub seq: u64,
    /// The next services, at least one.
    pub services: Vec<ServiceStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A status that fits one frame.
impl From<Status> for Head {
    fn from(status: Status) -> Self {
        Self { status, follow: 0 }
    }
}

/// The frames of a status, in the order in which they are sent: one, where it fits.
///
/// # Errors
/// When the head without services, or one service alone, is longer than a frame may be; the supervisor's own limits of texts
/// keep both far below.
pub fn frames(mut status: Status) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut rest = std::mem::take(&mut status.services).into_iter().peekable();
    let seq = status.seq;
    let head = |status, follow| FromGuest::Status(Head { status, follow });
    let mut frames = Vec::new();
    // The longest that the empty head can be, whatever follows.
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

/// Takes services for as long as they fit a frame in which so many bytes are `taken`.
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

/// Bytes of the JSON of `value`.
fn length<V: Serialize>(value: &V) -> Result<usize, FrameError> {
    Ok(serde_json::to_vec(value)?.len())
}

/// What a peer does with a status that no supervisor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// A status names more services than there can be.
    #[error("a status of {0} services, {MAX_SERVICES} are the most")]
    TooManyServices(usize),
    /// A status names more servants than there can be.
    #[error("a status of {0} servants, at most {MAX_SERVANTS} are allowed")]
    TooManyServants(usize),
    /// A status comes in more frames than it can need.
    #[error("a status in more than {MAX_FRAMES} frames")]
    TooManyFrames,
    /// A page has no service, or more than are missing.
    #[error("a page of {found} services where {missing} are missing")]
    Count {
        /// How many it has.
        found: usize,
        /// How many were expected at most.
        missing: usize,
    },
    /// A page belongs to no status that has begun.
    #[error("a page of status {0}, which has not begun")]
    Stray(u64),
    /// A status begins before the one before it is complete.
    #[error("status {0} begins before the one before it is complete")]
    Unfinished(u64),
}

/// Puts statuses together as their frames come. After an error the peer must be left.
#[derive(Debug, Default)]
pub struct Assembly {
    begun: Option<Begun>,
}

/// A status of which services are missing.
#[derive(Debug)]
struct Begun {
    status: Status,
    missing: usize,
    frames: usize,
}

impl Assembly {
    /// Takes a head; the status, if it is whole with it.
    ///
    /// # Errors
    /// When it announces too much, or another status is under way.
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

    /// Takes a page; the status, if it is whole with it.
    ///
    /// # Errors
    /// When no status is under way that misses it.
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
