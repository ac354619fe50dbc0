//! Layouts as the kernel's header has them, and what the device answers.

use std::mem::{offset_of, size_of};

use super::*;

#[test]
fn numbers_and_layouts_are_those_of_the_kernels_header() {
    // Computed by a C compiler from linux/sev-guest.h, for x86-64.
    assert_eq!([GET_REPORT, GET_DERIVED_KEY, GET_EXTENDED_REPORT], [0xc020_5300, 0xc020_5301, 0xc020_5302]);
    assert_eq!(size_of::<Message>(), 32);
    assert_eq!([offset_of!(Message, request), offset_of!(Message, response)], [8, 16]);
    assert_eq!([offset_of!(Message, firmware_error), offset_of!(Message, host_error)], [24, 28]);
    assert_eq!(size_of::<ReportRequest>(), 96);
    assert_eq!([offset_of!(ReportRequest, vmpl), offset_of!(ReportRequest, reserved)], [64, 68]);
    assert_eq!(size_of::<ExtendedRequest>(), 112);
    let places = [offset_of!(ExtendedRequest, certificates), offset_of!(ExtendedRequest, length)];
    assert_eq!(places, [96, 104]);
    assert_eq!(size_of::<DerivedKeyRequest>(), 32);
    assert_eq!(offset_of!(DerivedKeyRequest, guest_field_select), 8);
    assert_eq!(offset_of!(DerivedKeyRequest, tcb_version), 24);
    assert_eq!(size_of::<Response<REPORT_RESPONSE>>(), 4000);
    assert_eq!(size_of::<Response<KEY_RESPONSE>>(), 64);
}

fn message(host_error: u32, firmware_error: u32) -> Message {
    Message { firmware_error, host_error, ..Message::new(ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) }
}

#[test]
fn errors_of_host_firmware_and_driver_are_distinguished() {
    let of = |errno: Errno, host, firmware| failure(errno.into(), &message(host, firmware), 0x5000);
    assert!(matches!(of(Errno::NOTTY, 0, 0xff), SevError::Disabled));
    assert!(matches!(of(Errno::IO, 1, 0), SevError::CertificatesTooLarge(0x5000)));
    assert!(matches!(of(Errno::TIMEDOUT, 2, 0), SevError::TimedOut));
    assert!(matches!(of(Errno::IO, 2, 0), SevError::TimedOut));
    assert!(matches!(of(Errno::IO, 7, 0), SevError::Host(7)));
    assert!(matches!(of(Errno::IO, 0, 0x16), SevError::Firmware(0x16)));
    assert!(matches!(of(Errno::INVAL, 0, 0xff), SevError::Io(_)), "the firmware was not called");
}

fn response(status: u32, length: u32, report: &[u8]) -> Vec<u8> {
    let mut bytes = [status.to_le_bytes(), length.to_le_bytes()].concat();
    bytes.resize(REPORT_HEADER, 0);
    bytes.extend(report);
    bytes.resize(REPORT_RESPONSE, 0);
    bytes
}

#[test]
fn a_report_is_as_long_as_its_response_states() {
    assert_eq!(report_in(&response(0, 1184, &[5; 1184])).unwrap(), [5; 1184]);
    assert!(matches!(report_in(&response(0x16, 0, b"")), Err(SevError::Firmware(0x16))));
    for length in [0, 3969, u32::MAX] {
        assert!(matches!(report_in(&response(0, length, b"")), Err(SevError::Malformed)), "{length}");
    }
    assert_eq!(report_in(&response(0, 3968, b"")).unwrap().len(), 3968);
}

#[test]
fn a_derived_key_follows_its_header_and_is_not_printed() {
    let mut bytes = [0; KEY_RESPONSE];
    bytes[KEY_HEADER..].fill(9);
    let key = key_in(&bytes).unwrap();
    assert_eq!((key.bytes(), format!("{key:?}").contains('9')), (&[9; 32], false));
    bytes[0] = 1;
    assert!(matches!(key_in(&bytes), Err(SevError::Firmware(1))));
}

#[test]
fn a_machine_without_the_device_is_no_snp_guest() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(SevGuest::open(root.path()), Err(SevError::Absent(_))));
    // An ordinary file knows none of the requests, as a driver with a disabled key.
    std::fs::create_dir(root.path().join("dev")).unwrap();
    std::fs::write(root.path().join("dev/sev-guest"), "").unwrap();
    let guest = SevGuest::open(root.path()).unwrap();
    let key = KeyRequest { root: RootKey::Vcek, fields: 0, vmpl: 0, guest_svn: 0, tcb_version: 0 };
    assert!(matches!(guest.report(&[0; 64], 0), Err(SevError::Disabled)));
    assert!(matches!(guest.extended_report(&[0; 64], 0), Err(SevError::Disabled)));
    assert!(matches!(guest.derived_key(&key), Err(SevError::Disabled)));
}
