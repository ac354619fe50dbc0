//! Archives written by GNU tar and the `tar` crate are read correctly; malformed ones are refused.

use std::io::{Read, Write};
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.data().read_to_end(&mut content).map_err(read_error)?;
        all.push((entry, content));
    }
    Ok(all)
}

/// A sparse file of a megabyte with two data segments, packed by GNU tar in one of its formats.
fn sparse_by_gnu_tar(options: &[&str]) -> Option<Vec<u8>> {
    let place = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(place.path().join("sparse")).unwrap();
    file.write_all(b"begin").unwrap();
    file.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"island", 512 * 1024).unwrap();
    let mut command = Command::new("tar");
    command.arg("-C").arg(place.path()).args(["--sparse", "-cf", "-"]).args(options).arg("sparse");
    let output = command.output().ok()?;
    output.status.success().then_some(output.stdout)
}

#[test]
fn every_sparse_format_of_gnu_tar_is_read() {
    let forms: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for form in forms {
        let Some(bytes) = sparse_by_gnu_tar(form) else { continue };
        let all = read_all(&bytes).unwrap();
        let [(entry, stored)] = all.as_slice() else { panic!("{form:?}: {} entries", all.len()) };
        assert_eq!(
            (entry.name.as_slice(), entry.size, entry.kind),
            (&b"sparse"[..], 1 << 20, Kind::File),
            "{form:?}"
        );
        let mut whole = vec![0; 1 << 20];
        let mut stored = stored.as_slice();
        for segment in entry.sparse.as_ref().unwrap() {
            let (start, length) =
                (usize::try_from(segment.offset).unwrap(), usize::try_from(segment.length).unwrap());
            stored.read_exact(&mut whole[start..start + length]).unwrap();
        }
        assert!(stored.is_empty() && whole.starts_with(b"begin"), "{form:?}");
        assert_eq!(&whole[512 * 1024..512 * 1024 + 6], b"island", "{form:?}");
    }
}

#[test]
fn gnu_long_names_and_ustar_prefixes_are_joined() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    for header in [::tar::Header::new_gnu(), ::tar::Header::new_ustar()] {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = header;
        header.set_size(1);
        builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
        let all = read_all(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(String::from_utf8_lossy(&all[0].0.name), long);
    }
}

#[test]
fn sizes_over_eight_gibibytes_are_read() {
    let mut header = ::tar::Header::new_gnu();
    header.set_path("big").unwrap();
    header.set_size(9 << 30);
    header.set_cksum();
    let mut reader = Reader::new(&header.as_bytes()[..]);
    assert_eq!(reader.next_entry().unwrap().map(|entry| entry.size), Some(9 << 30));
}

#[test]
fn an_archive_without_an_end_marker_ends_with_its_last_entry() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(1);
    builder.append_data(&mut header, "a", &b"x"[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    assert_eq!(read_all(&bytes[..1024]).unwrap().len(), 1);
    assert_eq!(read_all(&bytes[..1536]).unwrap().len(), 1);
    assert!(matches!(read_all(&bytes[..1000]), Err(TarError::Truncated)));
}

#[test]
fn extension_records_are_bounded() {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::GNULongName);
    header.set_path("@").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let mut reader = Reader::new(&header.as_bytes()[..]);
    assert!(matches!(reader.next_entry(), Err(TarError::Extension(_))));
}

#[test]
fn sparse_maps_that_contradict_themselves_are_refused() {
    let map = |map: &str, size: &str, stored: usize| {
        let mut builder = ::tar::Builder::new(Vec::new());
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", size.as_bytes()),
        ];
        builder.append_pax_extensions(records).unwrap();
        let mut header = ::tar::Header::new_ustar();
        header.set_size(stored.try_into().unwrap());
        builder.append_data(&mut header, "s", vec![1; stored].as_slice()).unwrap();
        read_all(&builder.into_inner().unwrap())
    };
    assert!(map("0,1,5,2", "9", 3).is_ok());
    let wrong =
        [("0,2,1,1", "9", 3), ("5,2,0,1", "9", 3), ("0,1,8,2", "9", 3), ("0,1", "9", 3), ("0,1,2", "9", 1)];
    for (text, size, stored) in wrong {
        assert!(matches!(map(text, size, stored), Err(TarError::Sparse)), "{text}");
    }
    assert!(map("0,1", "x", 1).is_err() && map("18446744073709551615,2", "9", 2).is_err());
}

proptest! {
    /// Archives written by the `tar` crate are read back, regardless of the lengths.
    #[test]
    fn archives_of_other_writers_are_read_back(
        files in proptest::collection::vec(("[a-z]{1,60}(/[a-z]{1,90}){0,3}", proptest::collection::vec(any::<u8>(), 0..1200)), 0..6)
    ) {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, content) in &files {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(content.len().try_into().unwrap());
            builder.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        let all = read_all(&builder.into_inner().unwrap()).unwrap();
        let seen: Vec<_> = all.into_iter().map(|(entry, content)| (String::from_utf8(entry.name).unwrap(), content)).collect();
        prop_assert_eq!(seen, files);
    }

    /// No bytes make the reader panic or loop.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _result = read_all(&bytes);
    }
}
