//! The power button, on machines that have one.
//!
//! Invariant: pressing it requests a stop from the supervisor, and does nothing else. Other keys are ignored.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

/// Where the kernel puts input devices.
const DEVICES: &str = "/dev/input";

/// Bytes of `struct input_event` (`linux/input.h`) on a 64-bit machine: two words of time, type, code, value.
const EVENT: usize = 24;

/// `EV_KEY` and `KEY_POWER` of `linux/input-event-codes.h`.
const EV_KEY: u16 = 1;
/// See [`EV_KEY`].
const KEY_POWER: u16 = 116;

/// The devices that can have a power button.
#[derive(Debug, Default)]
pub(super) struct Buttons(Vec<File>);

impl Buttons {
    /// Opens all input devices: most machines have none.
    pub(super) fn find() -> Self {
        let Ok(directory) = std::fs::read_dir(DEVICES) else { return Self::default() };
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::CLOEXEC).bits()).unwrap_or(0);
        let open = |entry: std::fs::DirEntry| {
            let is_event = entry.file_name().as_encoded_bytes().starts_with(b"event");
            is_event.then(|| File::options().read(true).custom_flags(flags).open(entry.path()).ok())?
        };
        Self(directory.filter_map(|entry| open(entry.ok()?)).collect())
    }

    /// The devices to poll.
    pub(super) fn files(&self) -> &[File] {
        &self.0
    }

    /// The reason to stop if a power button was pressed. A device that is gone is not read again.
    pub(super) fn pressed(&mut self) -> Option<String> {
        let mut pressed = false;
        self.0.retain_mut(|device| {
            let mut event = [0; EVENT];
            loop {
                match device.read(&mut event) {
                    Ok(EVENT) => pressed |= is_power_press(&event),
                    Ok(_) => return false,
                    Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
        });
        pressed.then(|| "the power button".to_owned())
    }
}

fn is_power_press(event: &[u8; EVENT]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event;
    u16::from_ne_bytes([t0, t1]) == EV_KEY
        && u16::from_ne_bytes([c0, c1]) == KEY_POWER
        && i32::from_ne_bytes([v0, v1, v2, v3]) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT] {
        let mut event = [0; EVENT];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn only_pressing_the_power_key_counts() {
        assert!(is_power_press(&event(1, 116, 1)));
        assert!(!is_power_press(&event(1, 116, 0)));
        assert!(!is_power_press(&event(1, 30, 1)));
        assert!(!is_power_press(&event(0, 0, 0)));
    }
}
