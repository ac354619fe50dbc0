//! A build that may be given up.
//!
//! Its law: while a file of the build has a name, whoever gives it up waits until the name is gone; at any other moment
//! nothing would stay behind, and nobody waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Whether a build is given up, and whether something of it has a name.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// The same for those who write.
    flag: Arc<AtomicBool>,
    named: Mutex<bool>,
}

/// While it lives, files of the build may have names.
#[derive(Debug)]
pub(super) struct Named<'a>(&'a Stop);

impl Stop {
    /// Gives the build up. Answers whether it must clean up first.
    pub(crate) fn give_up(&self) -> bool {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        self.flag.store(true, Ordering::Relaxed);
        *named
    }

    /// To be held while files may have names. An error if the build was given up before.
    pub(super) fn named(&self) -> Result<Named<'_>> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if self.flag.load(Ordering::Relaxed) {
            return Err(given_up());
        }
        *named = true;
        Ok(Named(self))
    }

    /// An error if the build was given up.
    pub(super) fn check(&self) -> Result<()> {
        if self.flag.load(Ordering::Relaxed) { Err(given_up()) } else { Ok(()) }
    }

    /// Set when the build is given up.
    pub(super) const fn flag(&self) -> &Arc<AtomicBool> {
        &self.flag
    }
}

fn given_up() -> Error {
    Error::interrupted("the build was given up")
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        *self.0.named.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_waits_for_names_alone_and_none_is_given_after() {
        let stop = Stop::default();
        drop(stop.named().unwrap());
        assert!(!stop.give_up());
        assert_eq!(stop.named().unwrap_err().run_code(), 130);
        let stop = Stop::default();
        let named = stop.named().unwrap();
        assert!(stop.give_up() && stop.flag().load(Ordering::Relaxed));
        drop(named);
    }
}
