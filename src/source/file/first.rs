//! The first lines of a file, or of the first file of a folder, as they are.

use std::io;
use std::path::{Path, PathBuf};

use super::lines::{Line, LineReader};
use crate::inside::{inside, leads_outside};

/// The first lines without their ends.
///
/// # Errors
/// Why they cannot be read.
pub(in crate::source) fn first_lines(root: &Path, topic: &str, most: usize) -> Result<Vec<Vec<u8>>, String> {
    let path = inside(topic).map(|topic| root.join(topic)).filter(|path| !leads_outside(root, path));
    let path = path.ok_or_else(|| format!("{topic:?} leaves its connection's folder"))?;
    read(&path, root, most).map_err(|error| format!("{}: {error}", path.display()))
}

fn read(path: &Path, root: &Path, most: usize) -> io::Result<Vec<Vec<u8>>> {
    let path = match path.is_dir() {
        false => path.to_path_buf(),
        true => first_file(path, root)?.ok_or_else(|| io::Error::other("there is no file in this folder"))?,
    };
    let mut lines = LineReader::open(&path, path.extension().is_some_and(|extension| extension == "csv"))?;
    lines.seek(0, std::fs::metadata(&path)?.len())?;
    let mut found = Vec::new();
    while found.len() < most {
        match lines.next(false)? {
            Line::Whole { text, .. } => {
                let text = text.strip_suffix(b"\n").unwrap_or(text);
                found.push(text.strip_suffix(b"\r").unwrap_or(text).to_vec());
            }
            Line::Unfinished | Line::End => break,
        }
    }
    Ok(found)
}

fn first_file(folder: &Path, root: &Path) -> io::Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let is_data = |entry: &std::fs::DirEntry| {
        !entry.file_name().to_string_lossy().starts_with('.')
            && entry.path().is_file()
            && !leads_outside(root, &entry.path())
    };
    Ok(entries.into_iter().filter(is_data).map(|entry| entry.path()).min())
}
