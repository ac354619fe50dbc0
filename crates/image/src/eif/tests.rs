//! Files are written and read back; inconsistent files are refused.

use std::io::{Cursor, Seek, SeekFrom, Write};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::format::{HEADER, Header, SECTION_HEADER, Slot, section_header};
use super::*;
use crate::measure::Pcr;

const KEY: &str = include_str!("test_data/test-key.pem");
const KEY_SEC1: &str = include_str!("test_data/test-key-sec1.pem");
const CERTIFICATE: &str = include_str!("test_data/test-certificate.pem");
const OTHER_CURVE: &str = include_str!("test_data/other-curve-certificate.pem");

fn content(bytes: &[u8]) -> Content {
    Content::Bytes(Arc::from(bytes))
}

fn metadata() -> Metadata {
    Metadata {
        image_name: "example".into(),
        image_version: "1".into(),
        build_metadata: BuildMetadata {
            build_time: FIXED_TIME.into(),
            build_tool: "cloister".into(),
            build_tool_version: "0.1.0".into(),
            operating_system: "Linux".into(),
            kernel_version: "6.12".into(),
        },
        docker_info: BTreeMap::new(),
        custom_metadata: BTreeMap::new(),
    }
}

fn parts(signer: Option<&Signer>) -> Parts<'_> {
    let signing = signer.map_or(Signing::Unsigned, Signing::By);
    Parts {
        arch: Arch::X86_64,
        kernel: content(b"kernel"),
        command_line: "console=ttyS0",
        ramdisks: vec![content(b"first ramdisk"), content(b"second ramdisk")],
        metadata: metadata(),
        default_memory: 1 << 30,
        default_cpus: 2,
        signing,
    }
}

fn build(parts: &Parts<'_>) -> (Vec<u8>, Summary) {
    let mut out = Cursor::new(Vec::new());
    let summary = write(parts, &mut out).unwrap();
    let bytes = out.into_inner();
    assert_eq!(wide(bytes.len()), summary.length);
    (bytes, summary)
}

fn read(bytes: &[u8]) -> Result<Explanation, Error> {
    explain(&Eif::open(content(bytes))?)
}

fn damage(bytes: &[u8]) -> Damage {
    match read(bytes) {
        Err(Error::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

/// A file with exactly these sections and a correct checksum: what a careful forger would create.
fn forge(sections: &[TestSection<'_>]) -> Vec<u8> {
    let mut slots = Vec::new();
    let mut body = Vec::new();
    for (kind, bytes) in sections {
        slots.push(Slot { offset: wide(HEADER + body.len()), size: wide(bytes.len()) });
        body.extend(section_header(*kind, wide(bytes.len())));
        body.extend(*bytes);
    }
    let header = Header { arch: Arch::X86_64, default_memory: 1, default_cpus: 1, slots, checksum: 0 };
    seal(&[header.encode(), body].concat())
}

/// The file with its checksum corrected.
fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&bytes[..HEADER - 4]);
    checksum.update(&bytes[HEADER..]);
    let mut sealed = bytes.to_vec();
    sealed[HEADER - 4..HEADER].copy_from_slice(&checksum.finalize().to_be_bytes());
    sealed
}

/// A section of a test's file.
type TestSection<'a> = (Kind, &'a [u8]);

const VALID: [TestSection<'_>; 4] = [
    (Kind::Kernel, b"kernel"),
    (Kind::CommandLine, b"quiet"),
    (Kind::Ramdisk, b"system"),
    (Kind::Ramdisk, b"application"),
];

#[test]
fn a_file_is_explained_as_it_was_written() {
    let (bytes, summary) = build(&parts(None));
    let explained = read(&bytes).unwrap();
    assert_eq!(explained.pcrs, summary.pcrs);
    assert_eq!(explained.length, summary.length);
    assert_eq!(explained.command_line, "console=ttyS0");
    assert_eq!((explained.default_memory, explained.default_cpus), (1 << 30, 2));
    assert_eq!(explained.metadata.unwrap()["ImageName"], "example");
    assert_eq!(explained.signature, None);
    let kinds: Vec<Kind> = explained.sections.iter().map(|section| section.kind).collect();
    let expected = [Kind::Kernel, Kind::CommandLine, Kind::Metadata, Kind::Ramdisk, Kind::Ramdisk];
    assert_eq!(kinds, expected);
}

#[test]
fn both_architectures_have_their_flag() {
    for (arch, flags) in [(Arch::X86_64, [0, 0]), (Arch::Aarch64, [0, 1])] {
        let (bytes, _) = build(&Parts { arch, ..parts(None) });
        assert_eq!(bytes[6..8], flags);
        assert_eq!(read(&bytes).unwrap().arch, arch);
    }
}

#[test]
fn metadata_and_defaults_are_not_measured() {
    let (_, plain) = build(&parts(None));
    let other = Metadata { image_name: "another".into(), ..metadata() };
    let (_, renamed) = build(&Parts {
        metadata: other,
        default_memory: 1,
        default_cpus: 9,
        arch: Arch::Aarch64,
        ..parts(None)
    });
    assert_eq!(plain.pcrs, renamed.pcrs);
}

#[test]
fn a_file_can_begin_anywhere_in_the_output() {
    let (alone, summary) = build(&parts(None));
    let mut out = Cursor::new(b"before".to_vec());
    out.seek(SeekFrom::End(0)).unwrap();
    assert_eq!(write(&parts(None), &mut out).unwrap(), summary);
    out.write_all(b"after").unwrap();
    assert_eq!(out.into_inner(), [b"before", &alone[..], b"after"].concat());
}

#[test]
fn a_signed_file_names_its_signer_and_is_reproducible() {
    let signer = Signer::from_pem(KEY, CERTIFICATE).unwrap();
    let (bytes, summary) = build(&parts(Some(&signer)));
    let explained = read(&bytes).unwrap();
    let signature = explained.signature.unwrap();
    assert_eq!(signature.subject, "O=nobody,CN=cloister test signer");
    assert_eq!(signature.validity.to_string(), "from 2026-11-21T16:01:43Z to 2126-10-28T16:01:43Z");
    assert_eq!(explained.pcrs.pcr8, Some(Pcr::of(signer.certificate().der())));
    assert_eq!(summary.pcrs.pcr8, explained.pcrs.pcr8);
    let again = Signer::from_pem(KEY_SEC1, CERTIFICATE).unwrap();
    assert_eq!(bytes, build(&parts(Some(&again))).0);
}

#[test]
fn a_stored_signature_section_replaces_the_key() {
    let signer = Signer::from_pem(KEY, CERTIFICATE).unwrap();
    let section = signer.sign(&build(&parts(None)).1.pcrs.pcr0).unwrap();
    let made = Parts { signing: Signing::Made(&section), ..parts(None) };
    assert_eq!(build(&made), build(&parts(Some(&signer))));
    let other = Parts { command_line: "another", ..made };
    let refused = write(&other, &mut Cursor::new(Vec::new()));
    assert!(matches!(refused, Err(Error::Damaged(Damage::Signature(_)))));
}

#[test]
fn text_around_a_certificate_is_ignored() {
    let wrapped = format!("Certificate:\n  Data: …\n{CERTIFICATE}\n{OTHER_CURVE}");
    let wrapped = Signer::from_pem(KEY, &wrapped).unwrap();
    let plain = Signer::from_pem(KEY, CERTIFICATE).unwrap();
    assert_eq!(build(&parts(Some(&wrapped))).0, build(&parts(Some(&plain))).0);
}

#[test]
fn a_key_that_cannot_sign_is_refused() {
    let other_key = p384::SecretKey::from_slice(&[7; 48]).unwrap();
    let other_key =
        p384::pkcs8::EncodePrivateKey::to_pkcs8_pem(&other_key, p384::pkcs8::LineEnding::LF).unwrap();
    let refused = |key: &str, certificate: &str| Signer::from_pem(key, certificate).unwrap_err();
    assert_eq!(refused("no key", CERTIFICATE), SignError::Key);
    assert_eq!(refused(CERTIFICATE, CERTIFICATE), SignError::Key);
    assert_eq!(refused(&other_key, CERTIFICATE), SignError::Mismatch);
    assert!(matches!(refused(KEY, OTHER_CURVE), SignError::Certificate(_)));
    assert!(matches!(refused(KEY, KEY), SignError::Certificate(_)));
}

#[test]
fn invalid_parts_are_refused() {
    let long = "x".repeat(2048);
    let cases = [
        Parts { command_line: &long, ..parts(None) },
        Parts { command_line: "two\nlines", ..parts(None) },
        Parts { ramdisks: Vec::new(), ..parts(None) },
        Parts { ramdisks: vec![content(b"x"); 29], ..parts(None) },
        Parts { kernel: content(b""), ..parts(None) },
    ];
    for case in cases {
        let refused = write(&case, &mut Cursor::new(Vec::new()));
        assert!(matches!(refused, Err(Error::Parts(_))), "{case:?}");
    }
}

#[test]
fn files_have_the_same_bytes_as_those_of_the_vendors_library() {
    // Both made by aws-nitro-enclaves-image-format 0.8.1 from the same parts (docs/eif.md has the commands).
    let vendor = include_bytes!("test_data/vendor.eif");
    assert_eq!(build(&parts(None)).0, vendor);
    let vendor = read(include_bytes!("test_data/vendor-signed.eif")).unwrap();
    let signer = Signer::from_pem(KEY, CERTIFICATE).unwrap();
    assert_eq!(vendor.pcrs, build(&parts(Some(&signer))).1.pcrs);
    assert_eq!(vendor.signature.unwrap().subject, "O=nobody,CN=cloister test signer");
}

#[test]
fn a_valid_file_without_metadata_is_read() {
    assert!(read(&forge(&VALID)).unwrap().metadata.is_none());
}

#[test]
fn sections_of_the_wrong_kind_number_or_order_are_refused() {
    let [kernel, line, system, application] = VALID;
    let [meta, signature]: [TestSection<'_>; 2] = [(Kind::Metadata, b"{}"), (Kind::Signature, b"?")];
    let cases: [(&[TestSection<'_>], Damage); 9] = [
        (&[kernel, kernel, line, system], Damage::Duplicate(Kind::Kernel)),
        (&[kernel, line, line, system], Damage::Duplicate(Kind::CommandLine)),
        (&[kernel, line, meta, meta, system], Damage::Duplicate(Kind::Metadata)),
        (&[kernel, line, system, signature, signature], Damage::Duplicate(Kind::Signature)),
        (&[line, system, application], Damage::Missing(Kind::Kernel)),
        (&[kernel, system, application], Damage::Missing(Kind::CommandLine)),
        (&[kernel, line, meta], Damage::Missing(Kind::Ramdisk)),
        (&[line, kernel, system], Damage::Order(Kind::Kernel)),
        (&[kernel, line, signature, system], Damage::Order(Kind::Signature)),
    ];
    for (sections, expected) in cases {
        assert_eq!(damage(&forge(sections)), expected);
    }
}

#[test]
fn a_table_with_wrong_positions_is_refused() {
    let sound = forge(&VALID);
    let offset = |number: usize| 28 + 8 * number;
    let size = |number: usize| offset(32) + 8 * number;
    let with = |place: usize, value: u64| {
        let mut bytes = sound.clone();
        bytes[place..place + 8].copy_from_slice(&value.to_be_bytes());
        seal(&bytes)
    };
    let first = wide(HEADER);
    assert_eq!(damage(&with(offset(1), first)), Damage::Place(1));
    assert_eq!(damage(&with(offset(1), u64::MAX)), Damage::Place(1));
    assert_eq!(damage(&with(offset(0), 0)), Damage::Place(0));
    assert_eq!(damage(&with(size(0), 7)), Damage::Disagreement(0));
    assert_eq!(damage(&with(offset(9), 1)), Damage::Reserved("table entries after the last section"));
    // A size on which header and table agree, but that extends past the end.
    let mut bytes = with(size(3), u64::MAX);
    let last = sound.len() - VALID[3].1.len() - SECTION_HEADER;
    bytes[last + 4..last + SECTION_HEADER].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(damage(&seal(&bytes)), Damage::End(3));
}

#[test]
fn an_invalid_header_is_refused() {
    let sound = forge(&VALID);
    let with = |place: usize, value: u8| {
        let mut bytes = sound.clone();
        bytes[place] = value;
        damage(&seal(&bytes))
    };
    assert_eq!(with(0, b'x'), Damage::Magic);
    assert_eq!(with(5, 3), Damage::Version(3));
    assert_eq!(with(7, 2), Damage::Reserved("flags of the header"));
    assert_eq!(with(25, 1), Damage::Reserved("reserved fields of the header"));
    assert_eq!(with(27, 2), Damage::SectionCount(2));
    assert_eq!(with(26, 1), Damage::SectionCount(260));
    assert_eq!(with(HEADER + 1, 9), Damage::Kind { section: 0, kind: 9 });
    assert_eq!(with(HEADER + 2, 1), Damage::Reserved("flags of a section"));
    assert_eq!(damage(&sound[..100]), Damage::Short);
    assert_eq!(damage(&sound[..sound.len() - 1]), Damage::End(3));
    assert_eq!(damage(&[&sound[..], b"more"].concat()), Damage::Trailing(4));
}

#[test]
fn a_changed_byte_is_detected_by_the_checksum() {
    let (mut bytes, _) = build(&parts(None));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(matches!(damage(&bytes), Damage::Checksum { .. }));
}

#[test]
fn small_sections_are_checked_for_size_and_form() {
    let [kernel, _, system, _] = VALID;
    let long = vec![b'x'; 2048];
    let too_long = Damage::TooLong { kind: Kind::CommandLine, size: 2048, limit: 2047 };
    assert_eq!(damage(&forge(&[kernel, (Kind::CommandLine, &long), system])), too_long);
    assert_eq!(damage(&forge(&[kernel, (Kind::CommandLine, b"\xff"), system])), Damage::CommandLine);
    assert_eq!(damage(&forge(&[kernel, (Kind::CommandLine, b"a\0b"), system])), Damage::CommandLine);
    assert_eq!(read(&forge(&[kernel, (Kind::CommandLine, b"a b\n"), system])).unwrap().command_line, "a b\n");
    assert_eq!(damage(&forge(&[kernel, (Kind::CommandLine, b"a\nb"), system])), Damage::CommandLine);
    let line: TestSection<'_> = (Kind::CommandLine, b"quiet");
    assert_eq!(damage(&forge(&[kernel, line, (Kind::Metadata, b"[1]"), system])), Damage::Metadata);
}

#[test]
fn an_invalid_signature_section_is_refused() {
    let signer = Signer::from_pem(KEY, CERTIFICATE).unwrap();
    let pcr0 = build(&parts(None)).1.pcrs.pcr0;
    let good = signer.sign(&pcr0).unwrap();
    let other_register = signer.sign(&Pcr::of(b"another image")).unwrap();
    let payload = cose::payload(&pcr0);
    let unsigned = cose::section(&payload, &[1; 96], CERTIFICATE);
    let short = cose::section(&payload, &[1; 20], CERTIFICATE);
    let other_curve = cose::section(&payload, &[1; 96], OTHER_CURVE);
    let no_certificate = cose::section(&payload, &[1; 96], "nothing");
    let [kernel, line]: [TestSection<'_>; 2] =
        [(Kind::Kernel, b"kernel"), (Kind::CommandLine, b"console=ttyS0")];
    let [first, second]: [TestSection<'_>; 2] =
        [(Kind::Ramdisk, b"first ramdisk"), (Kind::Ramdisk, b"second ramdisk")];
    let with = |section: &[u8]| forge(&[kernel, line, first, second, (Kind::Signature, section)]);
    assert!(read(&with(&good)).is_ok());
    let cases: [(&[u8], &str); 10] = [
        (&other_register, "the signed payload is not PCR0 of this file"),
        (&unsigned, "the signature was not made with the certificate's key"),
        (&short, "it is not a P-384 signature"),
        (&other_curve, "the certificate's key is not on the curve P-384"),
        (&no_certificate, "there is no PEM certificate"),
        (&[0x80], "it does not contain exactly one signature"),
        (&[0x60], "it is not an array"),
        (&[0xff; 100], "it is not an array"),
        (&good[..good.len() - 1], "it is not valid CBOR"),
        (&[&good[..], b"\0"].concat(), "bytes follow its CBOR"),
    ];
    for (section, expected) in cases {
        assert_eq!(damage(&with(section)), Damage::Signature(expected));
    }
}

#[test]
fn a_deeply_nested_signature_is_refused() {
    let deep = vec![0x81; 20_000];
    let [kernel, line, system, _] = VALID;
    let file = forge(&[kernel, line, system, (Kind::Signature, &deep)]);
    assert_eq!(damage(&file), Damage::Signature("an entry is not a map"));
}

/// A signed file, created once: signing is slow in a debug build.
static SIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let signer = Signer::from_pem(KEY, CERTIFICATE).unwrap();
    build(&parts(Some(&signer))).0
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_file_is_an_error_but_never_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        resealed: bool,
    ) {
        let sound = SIGNED.clone();
        let mut bytes = sound.clone();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let bytes = if resealed { seal(&bytes) } else { bytes };
        prop_assert!(read(&bytes).is_err() || resealed || bytes == sound);
    }

    #[test]
    fn written_parts_are_read_back(
        kernel in prop::collection::vec(any::<u8>(), 1..2000),
        line in "[ -~]{0,200}",
        ramdisks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..5),
    ) {
        let ramdisks: Vec<Content> = ramdisks.iter().map(|ramdisk| content(ramdisk)).collect();
        let given = Parts { kernel: content(&kernel), command_line: &line, ramdisks, ..parts(None) };
        let (bytes, summary) = build(&given);
        prop_assert_eq!(read(&bytes).unwrap().pcrs, summary.pcrs);
        let predicted = crate::measure::nitro(&given.kernel, &line, &given.ramdisks, None).unwrap();
        prop_assert_eq!(predicted.pcrs, summary.pcrs);
        let file = Eif::open(content(&bytes)).unwrap();
        let found = file.content(&file.sections()[0]).unwrap();
        let mut back = vec![0; kernel.len()];
        found.read_exact_at(&mut back, 0).unwrap();
        prop_assert_eq!(back, kernel);
    }
}
