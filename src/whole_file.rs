//! Files that are replaced as a whole: whoever reads one reads all of what was there before or all of what is there now, also
//! after the machine has lost its power.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Puts `bytes` in the place of what the file held. Nobody else may write it meanwhile.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".unfinished");
    fs::write(&beside, bytes)?;
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
