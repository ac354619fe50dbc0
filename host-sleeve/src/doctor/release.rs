//! Checks whether the release of the Cloister OS is complete and intact.
//!
//! Invariant: every file that an enclave boots is read completely and compared; a readable record proves nothing about the
//! files next to it.

use std::fs::File;
use std::io;
use std::path::Path;

use cloister_image::digest::Hashed;
use cloister_image::oci::Architecture;
use cloister_image::ramdisk::{self, FileRecord, OsRelease};
use cloister_wire::causes;

/// The release in `directory` if enclaves can be built with it. The error states the problem.
pub(super) fn check(directory: &Path, architecture: Architecture) -> Result<OsRelease, String> {
    let (release, _) = ramdisk::read_os(directory, architecture).map_err(|error| causes::line(&error))?;
    let files = [
        (ramdisk::kernel_path(directory), release.kernel),
        (ramdisk::ramdisk_path(directory), release.ramdisk),
    ];
    for (path, record) in files {
        compare(&path, record)?;
    }
    Ok(release)
}

fn compare(path: &Path, record: FileRecord) -> Result<(), String> {
    let shown = path.display();
    let unreadable = |error: io::Error| format!("{shown} cannot be read: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length != record.bytes {
        return Err(format!(
            "{shown} does not match the release's record: it has {length} bytes instead of {}",
            record.bytes
        ));
    }
    let mut hashed = Hashed::new(io::sink());
    io::copy(&mut file, &mut hashed).map_err(unreadable)?;
    if hashed.digest() != record.sha256 {
        return Err(format!("{shown} does not match the release's record: it was modified"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_image::digest::Digest;

    fn release(directory: &Path) {
        let record =
            |bytes: &[u8]| serde_json::json!({"sha256": Digest::of(bytes).hex(), "bytes": bytes.len()});
        let text = serde_json::json!({
            "version": "1", "arch": "x86_64", "cmdline": "quiet",
            "kernel": record(b"kernel"), "ramdisk": record(b"ramdisk"),
        });
        std::fs::write(directory.join("os.json"), text.to_string()).unwrap();
        std::fs::write(ramdisk::kernel_path(directory), "kernel").unwrap();
        std::fs::write(ramdisk::ramdisk_path(directory), "ramdisk").unwrap();
    }

    #[test]
    fn a_release_is_intact_only_with_every_byte_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let check = || check(dir.path(), Architecture::X86_64);
        release(dir.path());
        assert_eq!(check().unwrap().version, "1");
        for path in [ramdisk::kernel_path(dir.path()), ramdisk::ramdisk_path(dir.path())] {
            let name = path.to_str().unwrap();
            for (content, word) in
                [("k", "has 1 bytes"), ("KERNEL", "does not match"), ("RAMDISK", "does not match")]
            {
                std::fs::write(&path, content).unwrap();
                let why = check().unwrap_err();
                assert!(why.contains(name) && why.contains(word), "{why}");
            }
            std::fs::remove_file(&path).unwrap();
            let why = check().unwrap_err();
            assert!(why.contains(name) && why.contains("cannot be read: No such file"), "{why}");
            release(dir.path());
        }
        std::fs::remove_file(dir.path().join("os.json")).unwrap();
        let why = check().unwrap_err();
        assert!(why.contains("os.json") && why.contains("No such file"), "{why}");
    }
}
