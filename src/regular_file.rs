//! Files that a project has or names, and nothing but files: a pipe is waited for until somebody writes into it, a device may
//! have no end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytesize::ByteSize;

/// The most bytes of a file that people write: SQL, TOML, a certificate.
pub(crate) const MOST_OF_TEXT: u64 = 4 << 20;

/// Opens a file for reading.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // Without waiting: what is opened is known only then.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// The bytes of a file that has at most so many.
pub(crate) fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("it is larger than {}", ByteSize(most)))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_devices_folders_and_what_is_too_large_are_no_files_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(place("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink("pipe", place("link")).unwrap();
        std::fs::write(place("small"), "12345").unwrap();
        let told = |path: &Path, most| read_regular(path, most).map_err(|error| error.to_string());
        for other in [place("pipe"), place("link"), folder.path().to_owned(), "/dev/zero".into()] {
            assert_eq!(told(&other, 5), Err("it is no regular file".to_string()), "{}", other.display());
        }
        assert_eq!(told(&place("small"), 5), Ok(b"12345".to_vec()));
        assert_eq!(told(&place("small"), u64::MAX), Ok(b"12345".to_vec()));
        assert_eq!(told(&place("small"), 4), Err("it is larger than 4 B".to_string()));
        File::create(place("large")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(told(&place("large"), MOST_OF_TEXT), Err("it is larger than 4.0 MiB".to_string()));
    }
}
