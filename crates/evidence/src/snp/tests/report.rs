//! Fields of reports in all versions.

use alloc::vec;
use alloc::vec::Vec;

use super::super::{FirmwareVersion, Mitigations, Processor, Product, Report, ReportError, SigningKey, Tcb};
use super::super::{GuestPolicy, KeyInfo, PlatformInfo};
use super::{Case, generated, recorded, sign, template};

#[test]
fn every_supported_version_of_a_report_verifies() {
    for (product, version) in [
        (Product::Milan, 2),
        (Product::Milan, 3),
        (Product::Genoa, 3),
        (Product::Genoa, 4),
        (Product::Genoa, 5),
        (Product::Turin, 3),
        (Product::Turin, 5),
    ] {
        let case = Case::generated(product, version);
        assert_eq!(case.accept().value().product, product);
    }
}

#[test]
fn the_fields_of_each_version_are_at_their_places() {
    let report = Report::parse(&template(5, Product::Genoa)).unwrap();
    assert_eq!((report.version, report.guest_svn), (5, 7));
    assert_eq!(report.policy.minimum_abi(), (0, 0));
    assert_eq!(
        (report.report_data, report.measurement, report.host_data),
        ([0x11; 64], [0x22; 48], [0x33; 32])
    );
    assert_eq!((report.report_id, report.report_id_ma), ([0x66; 32], [0xff; 32]));
    assert_eq!(report.processor, Some(Processor { family: 0x19, model: 0x11, stepping: 1 }));
    assert_eq!(report.current_version, FirmwareVersion { major: 1, minor: 55, build: 4 });
    assert_eq!(report.committed_version, FirmwareVersion { major: 1, minor: 54, build: 3 });
    assert_eq!(report.mitigations, Some(Mitigations { launch: 5, current: 7 }));
    assert_eq!(report.chip_id, [0xc1; 64]);
    assert!(report.reserved.is_empty());
    let report = Report::parse(&template(3, Product::Genoa)).unwrap();
    assert_eq!((report.processor.is_some(), report.mitigations), (true, None));
    let report = Report::parse(&template(2, Product::Genoa)).unwrap();
    assert_eq!((report.processor, report.mitigations), (None, None));
}

#[test]
fn the_tcb_version_of_turin_has_another_layout() {
    let bytes = Tcb { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 73 }.write(Product::Turin);
    assert_eq!(bytes.0, [1, 2, 3, 4, 0, 0, 0, 73]);
    assert_eq!(bytes.read(Product::Turin).fmc, 1);
    assert_eq!(bytes.read(Product::Genoa), Tcb { fmc: 0, boot_loader: 1, tee: 2, snp: 0, microcode: 73 });
    let bytes = Tcb { fmc: 9, boot_loader: 2, tee: 3, snp: 4, microcode: 73 }.write(Product::Milan);
    assert_eq!(bytes.0, [2, 3, 0, 0, 0, 0, 4, 73]);
}

#[test]
fn an_unknown_version_is_refused_with_its_number() {
    for version in [0, 1, 6, 7, 0x0100_0002] {
        let mut case = Case::generated(Product::Genoa, 5);
        case.resign(0, &u32::to_le_bytes(version));
        case.refuse("report", &alloc::format!("report version {version} is not supported"));
    }
}

#[test]
fn an_unknown_signature_algorithm_is_refused() {
    let mut case = Case::generated(Product::Genoa, 5);
    case.resign(0x34, &[2]);
    case.refuse("report", "signature algorithm 2 is not supported");
}

#[test]
fn a_report_of_any_other_length_is_refused() {
    let report = recorded("milan-report.bin");
    for len in [0, 1, 671, 672, 1183] {
        assert_eq!(Report::parse(&report[..len]), Err(ReportError::Length(len)));
    }
    let longer: Vec<u8> = report.iter().copied().chain([0]).collect();
    assert_eq!(Report::parse(&longer), Err(ReportError::Length(1185)));
    let mut case = Case::recorded();
    case.report = longer;
    case.refuse("report", "1185 bytes, but a report has 1184");
}

#[test]
fn unsigned_bytes_around_the_signature_must_be_zero() {
    for offset in [0x2d0, 0x2e7, 0x318, 0x32f, 0x330, 0x49f] {
        let mut case = Case::recorded();
        case.report[offset] = 1;
        case.refuse("report", "unsigned padding of the signature is not zero");
    }
}

#[test]
fn reserved_bytes_are_listed_and_can_be_refused() {
    let mut report = template(5, Product::Genoa);
    for offset in [0x4c, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f] {
        report[offset] = 1;
    }
    sign(&mut report);
    let parsed = Report::parse(&report).unwrap();
    assert_eq!(parsed.reserved, vec![0x4c, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f]);
    let mut case = Case::generated(Product::Genoa, 5);
    case.report = report;
    case.accept();
    case.policy.refuse_reserved = true;
    case.refuse("reserved", "byte 0x4c, byte 0x18b, byte 0x19f");
}

#[test]
fn fields_of_later_versions_are_reserved_in_earlier_ones() {
    let mut report = template(2, Product::Genoa);
    report[0x188] = 0x19;
    report[0x1f8] = 1;
    assert_eq!(Report::parse(&report).unwrap().reserved, vec![0x188, 0x1f8]);
}

#[test]
fn key_information_is_decoded() {
    assert_eq!(KeyInfo(0).signing_key(), SigningKey::Vcek);
    assert_eq!(KeyInfo(4).signing_key(), SigningKey::Vlek);
    assert_eq!(KeyInfo(7 << 2).signing_key(), SigningKey::None);
    assert_eq!(KeyInfo(2 << 2).signing_key(), SigningKey::Unknown(2));
    assert!(KeyInfo(1).author_key() && !KeyInfo(2).author_key());
    assert!(KeyInfo(2).mask_chip_key() && !KeyInfo(1).mask_chip_key());
}

#[test]
fn bits_are_shown_by_name() {
    let bits = GuestPolicy::SMT | GuestPolicy::DEBUG | GuestPolicy::PAGE_SWAP_DISABLED | 1 << 40;
    assert_eq!(GuestPolicy::names(bits), "SMT, DEBUG, PAGE_SWAP_DISABLE, 0x10000000000");
    assert_eq!(PlatformInfo::names(0xe1), "SMT_EN, ALIAS_CHECK_COMPLETE, TIO_EN, 0x40");
    assert_eq!(GuestPolicy(0x0002_0137).minimum_abi(), (1, 0x37));
}

#[test]
fn an_unsigned_report_is_refused() {
    for (bits, text) in
        [(7_u8 << 2, "the report is not signed"), (2, "MASK_CHIP_KEY"), (3 << 2, "signing key 3")]
    {
        let mut case = Case::generated(Product::Genoa, 5);
        case.resign(0x48, &[bits]);
        case.refuse("signing-key", text);
    }
}

#[test]
fn numbers_of_a_signature_that_are_out_of_range_are_refused() {
    for number in [[0; 48], [0xff; 48]] {
        for offset in [0x2a0, 0x2e8] {
            let mut case = Case::recorded();
            case.report[offset..offset + 48].copy_from_slice(&number);
            case.refuse("signature", "out of range");
        }
    }
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let mut case = Case::recorded();
    // Signed by the generated key instead of the recorded chip's.
    sign(&mut case.report);
    case.refuse("signature", "the signature is invalid");
    assert_eq!(generated("leaf-test-key.bin").len(), 48);
}
