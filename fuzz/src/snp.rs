//! Certificate tables of an SNP host.

use cloister_evidence::snp::table::{CERTIFICATES_LIMIT, Certificate, TABLE_LIMIT, certificates as read};

/// Length of an entry in bytes.
const ENTRY: usize = 24;

/// One table. Certificates lie behind the entries, none is empty, no kind occurs twice, and a table that is written from them is read
/// as the same certificates.
pub fn certificates(data: &[u8]) {
    let found = match read(data) {
        Ok(found) => found,
        Err(error) => {
            assert!(error.to_string().is_ascii(), "{error:?}");
            return;
        }
    };
    assert!(data.len() <= TABLE_LIMIT && found.len() <= CERTIFICATES_LIMIT);
    let first = (found.len() + 1) * ENTRY;
    for (index, certificate) in found.iter().enumerate() {
        assert!(!certificate.bytes.is_empty());
        let start = certificate.bytes.as_ptr().addr() - data.as_ptr().addr();
        assert!(start >= first && start + certificate.bytes.len() <= data.len());
        assert!(found[..index].iter().all(|earlier| earlier.guid != certificate.guid));
    }
    let again = written(&found);
    if again.len() <= TABLE_LIMIT {
        assert_eq!(read(&again).as_deref(), Ok(found.as_slice()));
    }
}

/// A table of these certificates, one after the other. It can be longer than the one they are from, in which they may overlap.
fn written(certificates: &[Certificate<'_>]) -> Vec<u8> {
    let mut entries: Vec<u8> = Vec::new();
    let mut rest: Vec<u8> = Vec::new();
    for certificate in certificates {
        let offset = (certificates.len() + 1) * ENTRY + rest.len();
        entries.extend(certificate.guid.0);
        entries.extend(u32::try_from(offset).unwrap_or(0).to_le_bytes());
        entries.extend(u32::try_from(certificate.bytes.len()).unwrap_or(0).to_le_bytes());
        rest.extend(certificate.bytes);
    }
    entries.extend([0; ENTRY]);
    entries.extend(rest);
    entries
}
