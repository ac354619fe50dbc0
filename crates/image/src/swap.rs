//! Moves a finished file or directory from its working name to its final name, and can undo that.
//!
//! Invariant: what had the final name before is preserved until the caller drops it, also on file systems without
//! `RENAME_EXCHANGE` (NFS, some FUSE file systems: renameat2(2), `EINVAL`). An error leaves both as they were.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// What had the final name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// A file or directory, which has the working name now.
    Something,
}

/// Renames `work` to `path`, in the same directory. If `path` exists, the two are exchanged.
pub fn place(work: &Path, path: &Path) -> io::Result<Before> {
    let placed = place_by(work, path, |flags| renameat_with(CWD, work, CWD, path, flags))?;
    sync(path);
    Ok(placed)
}

/// Undoes [`place`], which returned `before`.
pub fn take_back(work: &Path, path: &Path, before: Before) -> io::Result<()> {
    match before {
        Before::Nothing => fs::rename(path, work)?,
        Before::Something => {
            place(work, path)?;
        }
    }
    sync(path);
    Ok(())
}

fn place_by(
    work: &Path,
    path: &Path,
    rename: impl Fn(RenameFlags) -> Result<(), Errno>,
) -> io::Result<Before> {
    let unsupported = |errno| matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP);
    match rename(RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(Before::Nothing),
        Err(Errno::EXIST) => {}
        Err(errno) if unsupported(errno) => return place_in_steps(work, path),
        Err(errno) => return Err(errno.into()),
    }
    match rename(RenameFlags::EXCHANGE) {
        Ok(()) => Ok(Before::Something),
        Err(errno) if unsupported(errno) => place_in_steps(work, path),
        Err(errno) => Err(errno.into()),
    }
}

/// The same with plain renames. For a moment `path` does not exist: a directory cannot be renamed onto a non-empty one.
fn place_in_steps(work: &Path, path: &Path) -> io::Result<Before> {
    if path.symlink_metadata().is_err() {
        fs::rename(work, path)?;
        return Ok(Before::Nothing);
    }
    let mut aside = work.as_os_str().to_owned();
    aside.push(".old");
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside)?;
    if let Err(error) = fs::rename(work, path) {
        fs::rename(&aside, path)?;
        return Err(error);
    }
    fs::rename(&aside, work)?;
    Ok(Before::Something)
}

/// Makes the names in the directory of `path` durable. File systems that cannot sync a directory have another
/// mechanism; the files themselves are already on disk.
fn sync(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A working directory and, if `old`, one that already has the final name.
    fn setup(old: bool) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (work, path) = (dir.path().join("work"), dir.path().join("app"));
        for (folder, content) in [(&work, "new"), (&path, "old")] {
            if folder == &work || old {
                fs::create_dir(folder).unwrap();
                fs::write(folder.join("x"), content).unwrap();
            }
        }
        (dir, work, path)
    }

    fn text(folder: &Path) -> String {
        fs::read_to_string(folder.join("x")).unwrap_or_default()
    }

    #[test]
    fn the_previous_holder_of_a_name_is_preserved_and_can_be_restored_on_any_file_system() {
        for errno in [None, Some(Errno::INVAL), Some(Errno::NOSYS), Some(Errno::OPNOTSUPP)] {
            for old in [true, false] {
                let (dir, work, path) = setup(old);
                let placed = match errno {
                    None => place(&work, &path),
                    Some(errno) => place_by(&work, &path, |_| Err(errno)),
                };
                let placed = placed.unwrap();
                assert_eq!((text(&path).as_str(), placed == Before::Something), ("new", old));
                assert_eq!(text(&work), if old { "old" } else { "" });
                take_back(&work, &path, placed).unwrap();
                assert_eq!((text(&work).as_str(), path.exists()), ("new", old));
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1 + usize::from(old));
            }
        }
    }

    #[test]
    fn an_error_leaves_both_as_they_were() {
        let (_dir, work, path) = setup(true);
        assert!(place_by(&work, &path, |_| Err(Errno::NOSPC)).is_err());
        fs::remove_dir_all(&work).unwrap();
        assert!(place_in_steps(&work, &path).is_err());
        assert_eq!(text(&path), "old");
    }
}
