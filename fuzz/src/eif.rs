//! Enclave image files, which `inspect`, `measure` and `run` accept from any source.

use std::collections::BTreeMap;
use std::io::Cursor;

use cloister_image::eif::{
    self, BuildMetadata, Damage, Eif, Error, Explanation, FIXED_TIME, Kind, Metadata, Parts, Signing, explain,
};
use cloister_image::tree::Content;

/// The bytes of the checksum.
const CHECKSUM: std::ops::Range<usize> = 544..548;

/// The input as a file, and the same with a correct checksum, as an attacker would make it.
pub fn file(data: &[u8]) {
    let found = read(data);
    if let Err(Error::Damaged(Damage::Checksum { .. })) = found {
        let mut sealed = data.to_vec();
        seal(&mut sealed);
        assert!(
            !matches!(read(&sealed), Err(Error::Damaged(Damage::Checksum { .. }))),
            "the checksum differs between two computations"
        );
        if let Ok(explained) = read(&sealed) {
            write_again(&sealed, &explained);
        }
    } else if let Ok(explained) = found {
        write_again(data, &explained);
    }
}

fn read(data: &[u8]) -> Result<Explanation, Error> {
    explain(&Eif::open(Content::Bytes(data.into()))?)
}

fn seal(data: &mut [u8]) {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(data.get(..CHECKSUM.start).unwrap_or_default());
    checksum.update(data.get(CHECKSUM.end..).unwrap_or_default());
    let bytes = checksum.finalize().to_be_bytes();
    if let Some(place) = data.get_mut(CHECKSUM) {
        place.copy_from_slice(&bytes);
    }
}

/// The parts of a valid file make a file with the same registers.
fn write_again(data: &[u8], explained: &Explanation) {
    let total: u64 = explained.sections.iter().map(|section| section.size).sum();
    assert!(total < explained.length && explained.length == u64::try_from(data.len()).unwrap_or(0));
    let file = Eif::open(Content::Bytes(data.into())).expect("a file that was opened can be opened again");
    let content = |kind| {
        let of_kind = file.sections().iter().filter(move |section| section.kind == kind);
        of_kind.map(|section| file.content(section).expect("a section in memory can be read"))
    };
    let parts = Parts {
        arch: explained.arch,
        kernel: content(Kind::Kernel).next().expect("there is a kernel"),
        command_line: &explained.command_line,
        ramdisks: content(Kind::Ramdisk).collect(),
        metadata: metadata(),
        default_memory: explained.default_memory,
        default_cpus: explained.default_cpus,
        signing: Signing::Unsigned,
    };
    let mut again = Cursor::new(Vec::new());
    // Two things can be read but not written: a line break after the command line, and so many ramdisks that no space is left
    // for the rest.
    if let Ok(summary) = eif::write(&parts, &mut again) {
        let (old, new) = (&explained.pcrs, &summary.pcrs);
        assert_eq!((old.pcr0, old.pcr1, old.pcr2), (new.pcr0, new.pcr1, new.pcr2));
        assert_eq!(&read(&again.into_inner()).expect("a written file can be read").pcrs, new);
    }
}

fn metadata() -> Metadata {
    Metadata {
        image_name: String::new(),
        image_version: String::new(),
        build_metadata: BuildMetadata {
            build_time: FIXED_TIME.to_owned(),
            build_tool: String::new(),
            build_tool_version: String::new(),
            operating_system: String::new(),
            kernel_version: String::new(),
        },
        docker_info: BTreeMap::new(),
        custom_metadata: BTreeMap::new(),
    }
}
