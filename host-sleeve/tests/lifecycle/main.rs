//! The life of an enclave as a user of `host-sleeve` sees it, told with a guest that is made up.
//!
//! Its law: `host-sleeve` is the real program, started as a user would start it; only QEMU and its vsock device are played,
//! by this very program under their names. So each story takes milliseconds, and needs neither a kernel nor an image
//! builder. What a real guest does is told by the `qemu-tests`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should break off where it stands"
)]

mod ends;
mod guest;
mod machine;
mod stage;
mod stories;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let name = std::env::args().next().unwrap_or_default();
    match name.rsplit('/').next() {
        Some(machine::QEMU) => machine::qemu(),
        Some(machine::VSOCK) => guest::vsock_device(),
        _ => {
            let trial = |(name, story): &'static (&'static str, fn())| {
                Trial::test(*name, move || {
                    story();
                    Ok(())
                })
            };
            libtest_mimic::run(&Arguments::from_args(), stories::ALL.iter().map(trial).collect()).exit();
        }
    }
}
