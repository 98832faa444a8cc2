//! Small files of the state directory: written beside and renamed, so that whoever reads one reads all of it.

use std::fs;
use std::io;
use std::path::Path;

/// Puts `bytes` in the place of what the file `name` held.
pub fn write(state_dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let unfinished = state_dir.join(format!("{name}.unfinished"));
    fs::write(&unfinished, bytes)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, state_dir.join(name))
}
