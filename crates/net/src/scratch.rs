//! The buffer that bytes pass through when they are copied: one a thread, not one a connection.
//!
//! Its law: nothing stays in it between two uses, so a use never spans an await.

use std::cell::RefCell;

/// Bytes of the buffer: two vsock writes' worth, so that a small burst is one read. A longer flow is spliced.
pub const SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends this thread's buffer of [`SIZE`] bytes, with whatever the last use left in it.
pub fn with<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.resize(SIZE, 0);
            work(&mut buffer)
        }
        // A use inside a use: it gets a buffer of its own.
        Err(_) => work(&mut vec![0; SIZE]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_inside_a_use_gets_other_bytes() {
        with(|outer| {
            outer.fill(1);
            with(|inner| inner.fill(2));
            assert!(outer.iter().all(|byte| *byte == 1));
        });
    }
}
