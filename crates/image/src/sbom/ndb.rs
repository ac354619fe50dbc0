//! Reads the packages of an ndb database, SUSE's format of the RPM database.
//!
//! Invariant: a database is untrusted bytes in memory. All packages together have no more bytes than the file; damage
//! ends the reading or omits a package, but does not fail the build.
//!
//! Source: RPM's `lib/backend/ndb/rpmpkg.c`, which is the only description. All numbers are little-endian.

/// The magic numbers of the file, of a slot, and of a package's head and tail.
const MAGIC: &[u8] = b"RpmP";
const SLOT_MAGIC: &[u8] = b"Slot";
const HEAD_MAGIC: &[u8] = b"BlbS";
const TAIL_MAGIC: &[u8] = b"BlbE";

/// The only version that exists.
const VERSION: usize = 0;
/// The position of the number of slot pages at the start of the file, and the size of a page.
const SLOT_PAGES_AT: usize = 12;
const PAGE: usize = 4096;
/// The size of a slot; the file's header takes the place of the first two.
const SLOT: usize = 16;
const FIRST_SLOT: usize = 2;
/// The unit of the offsets and lengths in a slot.
const BLOCK: usize = 16;
/// A package's head: magic, number, generation, length. Its tail: checksum, length, magic.
const HEAD: usize = 16;
const TAIL: usize = 12;

/// Maximum number of packages that are read: a full distribution has a few thousand.
const MAX_PACKAGES: usize = 100_000;

/// The header of every package, in the order of the slots.
pub(super) fn values(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packages = Vec::new();
    let pages = word(bytes, SLOT_PAGES_AT).unwrap_or(0);
    if !bytes.starts_with(MAGIC) || word(bytes, MAGIC.len()) != Some(VERSION) {
        return packages;
    }
    let slots = bytes.get(..pages.saturating_mul(PAGE)).unwrap_or(bytes).chunks_exact(SLOT).skip(FIRST_SLOT);
    let mut left = bytes.len();
    for slot in slots.take_while(|slot| slot.starts_with(SLOT_MAGIC)) {
        let package = package(bytes, slot).filter(|package| package.len() <= left);
        let Some(package) = package.filter(|_| packages.len() < MAX_PACKAGES) else { continue };
        left = left.saturating_sub(package.len());
        packages.push(package.to_vec());
    }
    packages
}

/// The package that a slot refers to, unless the slot is free. RPM itself checks the checksum only when verifying.
fn package<'a>(bytes: &'a [u8], slot: &[u8]) -> Option<&'a [u8]> {
    let (number, first, count) = (word(slot, 4)?, word(slot, 8)?, word(slot, 12)?);
    let start = first.checked_mul(BLOCK).filter(|start| *start > 0)?;
    let blob = bytes.get(start..start.checked_add(count.checked_mul(BLOCK)?)?)?;
    let (inner, tail) = blob.split_at_checked(blob.len().checked_sub(TAIL)?)?;
    let length = word(blob, 12)?;
    let whole = blob.starts_with(HEAD_MAGIC)
        && word(blob, 4)? == number
        && word(tail, 4)? == length
        && tail.ends_with(TAIL_MAGIC);
    inner.get(HEAD..HEAD.checked_add(length)?).filter(|_| whole)
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))?;
    usize::try_from(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &[u8] = include_bytes!("../../testdata/rpm.Packages.db");

    #[test]
    fn a_package_is_read_only_where_slot_head_and_tail_agree() {
        let changed = |at: usize| {
            let mut bytes = DATABASE.to_vec();
            bytes[at] ^= 1;
            values(&bytes).len()
        };
        assert_eq!(values(DATABASE).len(), 2);
        assert_eq!((values(b"").len(), changed(0), changed(4)), (0, 0, 0), "no database, or a later version");
        // The second slot in use, and its package's head, which is in the first block after the slots.
        let (slot, head) = (FIRST_SLOT + 2, PAGE);
        for at in [slot * SLOT + 4, slot * SLOT + 8, slot * SLOT + 12, head, head + 4, head + 12] {
            assert_eq!(changed(at), 1, "byte {at}");
        }
        assert_eq!(changed(slot * SLOT), 1, "an invalid slot ends the list");
    }

    #[test]
    fn slots_that_repeat_one_package_give_no_more_bytes_than_the_file_has() {
        let mut bytes = DATABASE.to_vec();
        let used = bytes[4 * SLOT..5 * SLOT].to_vec();
        for slot in bytes[FIRST_SLOT * SLOT..PAGE].chunks_exact_mut(SLOT) {
            slot.copy_from_slice(&used);
        }
        let total: usize = values(&bytes).iter().map(Vec::len).sum();
        assert!(total <= bytes.len() && total > bytes.len() / 2, "{total} bytes of {}", bytes.len());
    }
}
