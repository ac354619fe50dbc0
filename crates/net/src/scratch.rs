//! A buffer for copying bytes: one per thread instead of one per connection.
//!
//! Invariant: its contents are not kept between two uses, so a use never spans an await.

use std::cell::RefCell;

/// Size of the buffer in bytes: two vsock writes, so that a small burst takes one read. Larger transfers are spliced.
pub const SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with this thread's buffer of [`SIZE`] bytes, whose contents are arbitrary.
pub fn with<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.resize(SIZE, 0);
            work(&mut buffer)
        }
        // A nested use gets its own buffer.
        Err(_) => work(&mut vec![0; SIZE]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_use_gets_another_buffer() {
        with(|outer| {
            outer.fill(1);
            with(|inner| inner.fill(2));
            assert!(outer.iter().all(|byte| *byte == 1));
        });
    }
}
