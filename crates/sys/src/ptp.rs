//! The device of a clock that the hypervisor provides, `/dev/ptp0`: its readings, next to those of the system's clock.
//!
//! Invariant: only the clock of KVM's hypervisor is opened, whatever other clocks have devices. Readings are not interpreted here.
//! The ioctl is defined in the kernel's `include/uapi/linux/ptp_clock.h`.

#![expect(unsafe_code, reason = "the clock is read by an ioctl on a raw structure")]

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::time::Timespec;

/// The name of the clock (`drivers/ptp/ptp_kvm_common.c`).
const NAME: &str = "KVM virtual PTP";

/// Readings in one request: the fastest of them is the one to use, and one that was interrupted is not.
const SAMPLES: u8 = 5;

/// Maximum number of readings in one request (`PTP_MAX_SAMPLES`).
const MAX_SAMPLES: usize = 25;

/// An open device.
#[derive(Debug)]
pub struct Ptp {
    device: File,
}

/// One reading: the system's clock, the device's, and the system's again.
pub type Sample = [Timespec; 3];

impl Ptp {
    /// Opens the device of the machine whose root directory is `root`; `None` if it has none, or another clock's.
    pub fn open(root: &Path) -> io::Result<Option<Self>> {
        let name = match fs::read_to_string(root.join("sys/class/ptp/ptp0/clock_name")) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if name.trim() != NAME {
            return Ok(None);
        }
        Ok(Some(Self { device: File::open(root.join("dev/ptp0"))? }))
    }

    /// Reads both clocks in turns.
    pub fn read(&self) -> io::Result<Vec<Sample>> {
        let mut times =
            Interleaved { samples: 0, reserved: [0; 3], times: [Time::default(); 2 * MAX_SAMPLES + 1] };
        times.samples = u32::from(SAMPLES);
        // SAFETY: PTP_SYS_OFFSET takes a ptp_sys_offset, which Interleaved is, and fills it in.
        let request = unsafe { Updater::<SYS_OFFSET, Interleaved>::new(&mut times) };
        // SAFETY: the updater above was created for exactly this request number.
        unsafe { ioctl(&self.device, request) }?;
        Ok(times.samples())
    }
}

/// `struct ptp_clock_time`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Time {
    seconds: i64,
    nanos: u32,
    reserved: u32,
}

/// `struct ptp_sys_offset`. The times of the system and of the device alternate, beginning and ending with the system's.
#[repr(C)]
struct Interleaved {
    samples: u32,
    reserved: [u32; 3],
    times: [Time; 2 * MAX_SAMPLES + 1],
}

impl Interleaved {
    fn samples(&self) -> Vec<Sample> {
        let time = |time: &Time| Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) };
        let sample = |three: &[Time]| match three {
            [before, device, after] => Some([time(before), time(device), time(after)]),
            _ => None,
        };
        self.times.windows(3).step_by(2).take(usize::from(SAMPLES)).filter_map(sample).collect()
    }
}

/// `PTP_SYS_OFFSET`: `_IOW('=', 5, struct ptp_sys_offset)`; the kernel writes to it nevertheless.
const SYS_OFFSET: Opcode = rustix::ioctl::opcode::write::<Interleaved>(b'=', 5);

/// The number of the only request that is made, for filters of system calls.
pub const REQUEST: u64 = 0x4340_3d05;

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("sys/class/ptp/ptp0");
        fs::create_dir_all(&class).unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/ptp0"), "").unwrap();
        if let Some(name) = name {
            fs::write(class.join("clock_name"), name).unwrap();
        }
        root
    }

    #[test]
    fn only_the_hypervisors_clock_is_opened() {
        assert!(Ptp::open(machine(Some("KVM virtual PTP\n")).path()).unwrap().is_some());
        assert!(Ptp::open(machine(Some("ena-ptp\n")).path()).unwrap().is_none());
        assert!(Ptp::open(machine(None).path()).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_no_clock_is_an_error() {
        let clock = Ptp::open(machine(Some("KVM virtual PTP")).path()).unwrap().unwrap();
        assert_eq!(clock.read().unwrap_err().kind(), io::Error::from(rustix::io::Errno::NOTTY).kind());
    }

    #[test]
    fn the_request_has_the_kernels_number_and_size() {
        assert_eq!(size_of::<Interleaved>(), 832);
        assert_eq!(u64::from(SYS_OFFSET), REQUEST);
    }

    #[test]
    fn times_alternate_between_system_and_device() {
        let mut times = Interleaved { samples: 0, reserved: [0; 3], times: [Time::default(); 51] };
        for (nanos, time) in (0..).zip(&mut times.times) {
            *time = Time { seconds: 7, nanos, reserved: 0 };
        }
        let samples = times.samples();
        let nanos: Vec<_> = samples.iter().map(|sample| sample.map(|time| time.tv_nsec)).collect();
        assert_eq!(nanos, [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 8], [8, 9, 10]]);
        assert_eq!(samples[0][0].tv_sec, 7);
    }
}
