//! Attestation reports of SEV-SNP, signed by the key of the test certificates.
//!
//! Products are named as their files: `milan`, `genoa`, `turin`. Source of the offsets: AMD 56860, table 23.

use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};

/// Bytes of a report.
const LENGTH: usize = 1184;
/// The offset of the report data.
pub const REPORT_DATA: usize = 0x50;
/// The offset of the launch digest.
pub const MEASUREMENT: usize = 0x90;
/// The offset of the signature, and with it the length of what is signed.
const SIGNATURE: usize = 0x2a0;
/// The offset of the signature's second number.
const SECOND_NUMBER: usize = SIGNATURE + 72;

/// A file of the test data.
#[must_use]
pub fn file(name: &str) -> Vec<u8> {
    crate::read("snp", name)
}

/// The certificates above a report of this product: VCEK, ASK, ARK, in DER.
#[must_use]
pub fn chain(product: &str) -> [Vec<u8>; 3] {
    ["vcek", "ask", "ark"].map(|part| file(&format!("{product}-{part}.der")))
}

/// The TCB version of the certificates of this product, as a report has it.
fn tcb(product: &str) -> [u8; 8] {
    match product {
        "milan" | "genoa" => [7, 0, 0, 0, 0, 0, 14, 72],
        "turin" => [1, 2, 3, 4, 0, 0, 0, 73],
        other => panic!("there are no certificates of {other}"),
    }
}

/// Family, model and stepping of a processor of this product.
fn processor(product: &str) -> [u8; 3] {
    match product {
        "milan" => [0x19, 0x01, 1],
        "genoa" => [0x19, 0x11, 1],
        _ => [0x1a, 0x02, 1],
    }
}

/// A report of this version, unsigned: a guest without an identity block, at privilege level 0, with a different byte in each digest.
#[must_use]
pub fn unsigned(version: u32, product: &str) -> Vec<u8> {
    let mut report = vec![0; LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| report[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &version.to_le_bytes());
    put(4, &7_u32.to_le_bytes());
    put(8, &0x3_0000_u64.to_le_bytes());
    put(0x34, &1_u32.to_le_bytes());
    put(0x40, &0x25_u64.to_le_bytes());
    put(REPORT_DATA, &[0x11; 64]);
    put(MEASUREMENT, &[0x22; 48]);
    put(0xc0, &[0x33; 32]);
    put(0x140, &[0x66; 32]);
    put(0x160, &[0xff; 32]);
    // Identifiers of chips have 8 bytes since Turin.
    put(0x1a0, &[0xc1; 64][..if product == "turin" { 8 } else { 64 }]);
    for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
        put(offset, &tcb(product));
    }
    put(0x1e8, &[4, 55, 1, 0, 3, 54, 1]);
    if version >= 3 {
        put(0x188, &processor(product));
    }
    if version >= 5 {
        put(0x1f8, &5_u64.to_le_bytes());
        put(0x200, &7_u64.to_le_bytes());
    }
    report
}

/// Signs a report with the key of the test certificates.
pub fn sign(report: &mut [u8]) {
    let key = SigningKey::from_slice(&file("leaf-test-key.bin")).unwrap();
    let signature: Signature = key.sign(&report[..SIGNATURE]);
    let (r, s) = signature.split_bytes();
    for (offset, number) in [(SIGNATURE, r), (SECOND_NUMBER, s)] {
        for (byte, value) in report[offset..].iter_mut().zip(number.iter().rev()) {
            *byte = *value;
        }
    }
}

/// Overwrites bytes of a report and signs it again.
pub fn resign(report: &mut [u8], offset: usize, bytes: &[u8]) {
    report[offset..offset + bytes.len()].copy_from_slice(bytes);
    sign(report);
}

/// A host's certificate table with this chain (GHCB specification 2.03, section 4.1.8.1).
#[must_use]
pub fn table(chain: &[Vec<u8>; 3]) -> Vec<u8> {
    let kinds: [&[u8; 16]; 3] = [
        b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd",
        b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82",
        b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae",
    ];
    // Three entries of 24 bytes, and one of zeros after them.
    let mut offset = 4 * 24;
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    for (kind, certificate) in kinds.into_iter().zip(chain) {
        entries.extend(kind);
        entries.extend(u32::try_from(offset).unwrap().to_le_bytes());
        entries.extend(u32::try_from(certificate.len()).unwrap().to_le_bytes());
        bytes.extend(certificate);
        offset += certificate.len();
    }
    [entries, vec![0; 24], bytes].concat()
}
