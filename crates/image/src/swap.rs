//! Puts what was made aside under its name, and takes it back.
//!
//! Its law: what had the name before is kept until the caller drops it, on file systems without `RENAME_EXCHANGE` as well
//! (NFS, some FUSE file systems: renameat2(2), `EINVAL`). A fault leaves both as they were.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// What had the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// Something, which has the working name now.
    Something,
}

/// Gives what is at `work` the name `path`, in the same directory. What had this name has the name `work` then.
pub fn place(work: &Path, path: &Path) -> io::Result<Before> {
    let placed = place_by(work, path, |flags| renameat_with(CWD, work, CWD, path, flags))?;
    sync(path);
    Ok(placed)
}

/// Undoes [`place`], which answered `before`.
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

/// The same by plain renames. For a moment nothing has the name; a directory cannot be renamed onto one that is not empty.
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

/// Makes the names in the directory of `path` durable. Where a file system cannot do that for a directory, it has its own
/// way; the files themselves are on the disk already.
fn sync(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A working directory and, if asked for, one that has the name.
    fn stage(old: bool) -> (tempfile::TempDir, PathBuf, PathBuf) {
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
    fn what_had_the_name_is_kept_and_can_have_it_again_on_any_file_system() {
        for errno in [None, Some(Errno::INVAL), Some(Errno::NOSYS), Some(Errno::OPNOTSUPP)] {
            for old in [true, false] {
                let (dir, work, path) = stage(old);
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
    fn a_fault_leaves_both_as_they_were() {
        let (_dir, work, path) = stage(true);
        assert!(place_by(&work, &path, |_| Err(Errno::NOSPC)).is_err());
        fs::remove_dir_all(&work).unwrap();
        assert!(place_in_steps(&work, &path).is_err());
        assert_eq!(text(&path), "old");
    }
}
