//! Texts that a service receives in immutable memory: sealed memfds (`memfd_create(2)`, `fcntl(2)`).
//!
//! Invariant: a text is in no argument, no variable and no file of the root. The service's variable holds the path of
//! an open descriptor, `/dev/fd/N`, which programs with `…_FILE` variables support; a service of another user cannot
//! access it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use cloister_manifest::model::MAX_SEALED;
use rustix::fs::{MemfdFlags, Mode, SealFlags};

use super::ConfineError;

/// A service's texts by variable.
type Texts = BTreeMap<String, String>;

/// The first descriptor after stdin, stdout and stderr, from which init numbers the descriptors of a request.
const FIRST: usize = 3;

/// The content can be neither extended, changed nor truncated, and no seal can be removed.
const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// The number of texts.
pub(super) fn count(texts: &Texts) -> Result<u8, ConfineError> {
    let count = texts.len();
    u8::try_from(count).ok().filter(|_| count <= MAX_SEALED).ok_or(ConfineError::Sealed(count))
}

/// The variables with their paths, in the order of [`hand_over`].
pub(super) fn variables(texts: &Texts) -> impl Iterator<Item = String> {
    texts.keys().zip(FIRST..).map(|(name, number)| format!("{name}=/dev/fd/{number}"))
}

/// The texts, each in a memfd of its own, in the order of their names.
///
/// # Errors
/// If the system has no memory or no descriptors left.
pub fn hand_over(texts: &BTreeMap<String, String>) -> io::Result<Vec<OwnedFd>> {
    texts.iter().map(|(name, text)| seal(name, text.as_bytes())).collect()
}

fn seal(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let memfd = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    // Any user who has it open may read it; its position stays at the beginning.
    rustix::fs::fchmod(&memfd, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
    memfd.write_all_at(bytes, 0)?;
    rustix::fs::fcntl_add_seals(&memfd, SEALS)?;
    Ok(memfd.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn variables_number_descriptors_from_3_in_the_order_of_names() {
        let texts = [("B_FILE", "2"), ("A_FILE", "1")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let texts = Texts::from(texts);
        let variables: Vec<_> = variables(&texts).collect();
        assert_eq!(variables, ["A_FILE=/dev/fd/3", "B_FILE=/dev/fd/4"]);
        assert_eq!(count(&texts).unwrap(), 2);
        let memfds = hand_over(&texts).unwrap();
        let texts: Vec<_> =
            memfds.into_iter().map(|fd| io::read_to_string(File::from(fd)).unwrap()).collect();
        assert_eq!(texts, ["1", "2"]);
    }

    #[test]
    fn a_sealed_text_can_be_read_but_not_changed() {
        let mut file = File::from(seal("KEY_FILE", b"swordfish").unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert!(rustix::fs::fcntl_add_seals(&file, SealFlags::empty()).is_err());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "swordfish");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o444);
    }
}
