//! A lock file that says who holds it. The lock goes with its process, however that ends.
//!
//! Enters: a path and who asks. Leaves: the lock, with what the holder before had written, or what the present one has.

use std::fs::File;
use std::io::{Error, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A lock, held as long as this lives.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "kept open: closing it gives the lock back")] File);

/// What asking for a lock gave.
#[derive(Debug)]
pub enum Asked {
    /// It is ours; the text is what its last holder had written.
    Ours(FileLock, String),
    /// Another process holds it and has written this.
    Held(String),
}

/// Asks for the lock once, and writes who holds it.
///
/// # Errors
/// When the file cannot be opened or written.
pub fn ask(path: &Path, holder: &str) -> Result<Asked, Error> {
    loop {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let is_ours = match file.try_lock() {
            Ok(()) => true,
            Err(std::fs::TryLockError::WouldBlock) => false,
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        };
        let mut written = Vec::new();
        file.read_to_end(&mut written)?;
        let written = String::from_utf8_lossy(&written).into_owned();
        if !is_ours {
            return Ok(Asked::Held(written));
        }
        // Somebody may have put another file in its place since it was opened.
        if !is_same(&file, path)? {
            continue;
        }
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(holder.as_bytes())?;
        return Ok(Asked::Ours(FileLock(file), written));
    }
}

/// Puts a new file in the place of one whose holder does not count any more, though its process lives.
///
/// # Errors
/// When the file cannot be made.
pub fn replace(path: &Path, holder: &str) -> Result<FileLock, Error> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = File::create(&beside)?;
    file.lock()?;
    file.write_all(holder.as_bytes())?;
    std::fs::rename(&beside, path)?;
    Ok(FileLock(file))
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> Result<bool, Error> {
    use std::os::unix::fs::MetadataExt;
    let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match std::fs::metadata(path) {
        Ok(there) => Ok(inode(there) == inode(file.metadata()?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere a locked file cannot be replaced.
#[cfg(not(unix))]
fn is_same(_: &File, _: &Path) -> Result<bool, Error> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_tells_its_holder_and_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let Asked::Ours(first, before) = ask(&path, "first, with a long name").unwrap() else { panic!("it is held") };
        assert_eq!(before, "");
        assert!(matches!(ask(&path, "second").unwrap(), Asked::Held(holder) if holder == "first, with a long name"));
        drop(first);
        let asked = ask(&path, "second").unwrap();
        assert!(matches!(&asked, Asked::Ours(_, before) if before == "first, with a long name"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
    }

    #[test]
    fn replaced_lock_is_held_by_the_new_one_whatever_the_old_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let old = ask(&path, "old").unwrap();
        let new = replace(&path, "new").unwrap();
        assert!(matches!(ask(&path, "third").unwrap(), Asked::Held(holder) if holder == "new"));
        drop(old);
        assert!(matches!(ask(&path, "third").unwrap(), Asked::Held(holder) if holder == "new"));
        drop(new);
        assert!(matches!(ask(&path, "third").unwrap(), Asked::Ours(..)));
    }
}
