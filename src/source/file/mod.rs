//! Files: JSON lines or CSV, one file or all files of a folder, read to the end or followed as they grow.
//!
//! A file is a partition and an offset is a byte: the start of a line. A single file has the number 0. In a folder the
//! number is made of the file's name (its CRC-32 without the sign), so that it is the same after a restart whatever
//! files have come and gone; two names with one number are a failure that says which to rename. Files of a folder are
//! read in the order of their names; hidden files and sub-folders are left out.
//!
//! While following, a last line without an end waits for its rest; otherwise it counts as a line. A file that became
//! shorter, or was replaced by another, is a failure: its offsets mean nothing any more.

mod first;
pub(in crate::source) mod lines;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::first::first_lines;
use self::lines::{Line, LineReader};
use super::batch::PartitionBatcher;
use super::emit::{Emitter, Stopped};
use super::{ReadRequest, SourceContext, SourceError, SourceEvent, spawn};
use crate::catalog::{Format, Start};
use crate::delta::Partition;
use crate::inside::leads_outside;

/// How often files are looked at for growth, and the folder for new ones.
const POLL: Duration = Duration::from_millis(200);
/// Lines between two looks at the stop flag.
const LINES_A_LOOK: usize = 256;

/// Starts the one thread of a file source.
pub(super) fn start(
    request: ReadRequest,
    root: &Path,
    follow: bool,
    context: &SourceContext,
    emitter: Emitter,
) -> Result<Vec<std::thread::JoinHandle<()>>, SourceError> {
    let stream = request.stream.name.clone();
    if let Start::Timestamp(_) = request.stream.start {
        let message = "lines of a file have no broker time: `start` can be \"earliest\" or \"latest\"".to_string();
        return Err(SourceError::Setup { stream, message });
    }
    let path = root.join(&request.stream.topic);
    let was_seen = !request.from.is_empty();
    let teller = emitter.clone();
    let mut source = FileSource {
        request,
        root: root.to_owned(),
        path,
        follow,
        context: context.clone(),
        emitter,
        files: BTreeMap::new(),
        was_seen,
        is_announced: false,
        in_trouble: false,
        is_clean: true,
    };
    Ok(vec![spawn(&teller, "file", move || source.read())?])
}

struct FileSource {
    request: ReadRequest,
    /// The connection's folder, which links must not leave.
    root: PathBuf,
    /// The file, or the folder.
    path: PathBuf,
    follow: bool,
    context: SourceContext,
    emitter: Emitter,
    files: BTreeMap<i32, OpenFile>,
    /// Files that turn up from now on are new, and read from their beginning.
    was_seen: bool,
    /// All files of the first look were told.
    is_announced: bool,
    in_trouble: bool,
    /// This look at the files met no trouble.
    is_clean: bool,
}

/// A file being read.
struct OpenFile {
    path: PathBuf,
    name: String,
    identity: Option<(u64, u64)>,
    batcher: PartitionBatcher,
    until: Option<i64>,
    is_done: bool,
    /// It was read as far as it goes, and that was told.
    was_at_end: bool,
    has_header: bool,
}

impl FileSource {
    fn read(&mut self) -> Result<(), Stopped> {
        loop {
            self.is_clean = true;
            match self.find_files() {
                Ok(found) => {
                    self.admit(&found)?;
                    self.was_seen = true;
                    if self.is_clean && !std::mem::replace(&mut self.is_announced, true) {
                        self.emitter.announced()?;
                    }
                    let numbers = self.reading_order();
                    for number in numbers {
                        self.read_file(number)?;
                    }
                }
                Err(error) => self.trouble(&self.path.clone(), &error)?,
            }
            if self.is_clean && std::mem::take(&mut self.in_trouble) {
                self.emitter.recovered()?;
            }
            if self.is_finished()? {
                return self.emitter.finished();
            }
            self.emitter.stop().wait(POLL)?;
        }
    }

    /// The files by name and number.
    fn find_files(&self) -> io::Result<Vec<(String, PathBuf, i32)>> {
        if leads_outside(&self.root, &self.path) {
            return Err(io::Error::other("a symbolic link leads out of the connection's folder"));
        }
        let found = fs::metadata(&self.path)?;
        if found.is_file() {
            return Ok(vec![(self.request.stream.topic.clone(), self.path.clone(), 0)]);
        }
        if !found.is_dir() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Follows links within the folder: a ConfigMap's files are some.
            if name.starts_with('.') || !fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file()) {
                continue;
            }
            if entry.file_type()?.is_symlink() && leads_outside(&self.path, &entry.path()) {
                return Err(io::Error::other(format!("the symbolic link {name:?} leads out of the folder")));
            }
            let number = (crc32fast::hash(name.as_bytes()) & 0x7FFF_FFFF) as i32;
            found.push((format!("{}/{name}", self.request.stream.topic), entry.path(), number));
        }
        found.sort();
        Ok(found)
    }

    /// Announces files that are new.
    fn admit(&mut self, found: &[(String, PathBuf, i32)]) -> Result<(), Stopped> {
        for (name, path, number) in found {
            if let Some(known) = self.files.get(number) {
                if known.name != *name {
                    let (path, other) = (path.display(), known.path.display());
                    return Err(self.emitter.failed(format!(
                        "{path} and {other} get the same partition number {number}: rename one of them"
                    )));
                }
                continue;
            }
            let until = match &self.request.until {
                None => None,
                Some(until) => match until.get(number) {
                    Some(until) => Some(*until),
                    None => continue,
                },
            };
            let end = match fs::metadata(path) {
                Ok(metadata) => metadata.len() as i64,
                Err(error) => {
                    self.trouble(path, &error)?;
                    continue;
                }
            };
            let next = match (self.request.from.get(number), self.request.stream.start) {
                (Some(next), _) => *next,
                (None, Start::Latest) if !self.was_seen => match lines::last_line_start(path) {
                    Ok(start) => start as i64,
                    Err(error) => {
                        self.trouble(path, &error)?;
                        continue;
                    }
                },
                (None, _) => 0,
            };
            let partition = Partition { stream: self.request.stream.name.clone(), number: *number };
            let event = SourceEvent::Partition { partition: Arc::new(partition), beginning: 0, end, next };
            self.emitter.send(event)?;
            let topic = name.as_str().into();
            let batcher = PartitionBatcher::new(&self.request, &self.context, topic, *number, next)
                .map_err(|error| self.emitter.failed(error.to_string()))?;
            let file = OpenFile {
                path: path.clone(),
                name: name.clone(),
                identity: None,
                batcher,
                until,
                is_done: until.is_some_and(|until| next >= until),
                was_at_end: false,
                has_header: false,
            };
            self.files.insert(*number, file);
        }
        Ok(())
    }

    fn reading_order(&self) -> Vec<i32> {
        let mut order: Vec<(&str, i32)> =
            self.files.iter().filter(|(_, file)| !file.is_done).map(|(number, file)| (&*file.name, *number)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, number)| number).collect()
    }

    /// Reads a file as far as it goes now.
    fn read_file(&mut self, number: i32) -> Result<(), Stopped> {
        let is_csv = self.request.stream.format == Format::Csv;
        let follow = self.follow;
        let Some(file) = self.files.get_mut(&number) else { return Ok(()) };
        match file.read(is_csv, follow, &self.emitter) {
            // What is left may be a line whose end is not written yet.
            Ok(()) if file.until.is_none() && !std::mem::replace(&mut file.was_at_end, true) => {
                self.emitter.at_end(number)
            }
            Ok(()) => Ok(()),
            Err(Setback::Stopped(stopped)) => Err(stopped),
            Err(Setback::Failed(message)) => Err(self.emitter.failed(message)),
            // A file that was read and taken away is no trouble: its rows are in the tags.
            Err(Setback::Io(error)) if error.kind() == io::ErrorKind::NotFound && file.until.is_none() => {
                tracing::debug!(path = %file.path.display(), "file is gone");
                file.is_done = !follow;
                Ok(())
            }
            Err(Setback::Io(error)) => {
                let path = file.path.clone();
                self.trouble(&path, &error)
            }
        }
    }

    /// A file that cannot be read: waited for while following, else the end of it.
    fn trouble(&mut self, path: &Path, error: &io::Error) -> Result<(), Stopped> {
        let message = format!("{}: {error}", path.display());
        if !self.follow {
            return Err(self.emitter.failed(message));
        }
        self.is_clean = false;
        if !std::mem::replace(&mut self.in_trouble, true) {
            self.emitter.trouble(message)?;
        }
        Ok(())
    }

    fn is_finished(&self) -> Result<bool, Stopped> {
        if !self.files.values().all(|file| file.is_done) {
            return Ok(false);
        }
        let Some(until) = &self.request.until else { return Ok(!self.follow) };
        let has_rest = |(number, until): &(&i32, &i64)| self.request.from.get(number).is_none_or(|from| from < *until);
        match until.iter().filter(has_rest).find(|(number, _)| !self.files.contains_key(number)) {
            Some((number, until)) => Err(self.emitter.failed(format!(
                "{}: the file of partition {number} is gone, which was to be read up to byte {until}",
                self.path.display()
            ))),
            None => Ok(true),
        }
    }
}

/// Why a file could not be read on.
enum Setback {
    Stopped(Stopped),
    Failed(String),
    Io(io::Error),
}

impl From<Stopped> for Setback {
    fn from(stopped: Stopped) -> Self {
        Setback::Stopped(stopped)
    }
}

impl From<io::Error> for Setback {
    fn from(error: io::Error) -> Self {
        Setback::Io(error)
    }
}

impl OpenFile {
    fn read(&mut self, is_csv: bool, follow: bool, emitter: &Emitter) -> Result<(), Setback> {
        let metadata = fs::metadata(&self.path)?;
        let (length, identity) = (metadata.len() as i64, identity(&metadata));
        let path = self.path.display();
        if self.identity.is_some() && self.identity != identity {
            return Err(Setback::Failed(format!("{path} was replaced by another file while it was being read")));
        }
        self.identity = identity;
        let next = self.batcher.next_offset();
        let shortest = next.max(self.until.unwrap_or(0));
        if length < shortest {
            return Err(Setback::Failed(format!("{path} has {length} bytes but had at least {shortest}: it was cut")));
        }
        if length == next {
            self.is_done = !follow || self.until == Some(length);
            return Ok(());
        }
        // For a bounded read the file ends there, even in the middle of a line that has grown since.
        let end = self.until.unwrap_or(length);
        let waits_for_rest = follow && self.until.is_none();
        let mut lines = LineReader::open(&self.path, is_csv)?;
        if is_csv && !self.read_header(&mut lines, end, waits_for_rest)? {
            return Ok(());
        }
        lines.seek(self.batcher.next_offset() as u64, end as u64)?;
        let mut since_look = 0;
        loop {
            match lines.next(waits_for_rest)? {
                Line::Whole { start, next, text } => {
                    if text.iter().all(u8::is_ascii_whitespace) {
                        self.batcher.skip_to(next as i64);
                    } else {
                        self.batcher.push(start as i64, next as i64, None, None, Some(text));
                    }
                }
                Line::Unfinished => break,
                Line::End => {
                    self.is_done = !waits_for_rest;
                    break;
                }
            }
            since_look += 1;
            if self.batcher.is_full() || since_look == LINES_A_LOOK {
                since_look = 0;
                emitter.stop().check()?;
                let is_due = self.batcher.due().is_some_and(|due| due <= std::time::Instant::now());
                if (self.batcher.is_full() || is_due)
                    && let Some(batch) = self.batcher.take(length)
                {
                    emitter.batch(batch)?;
                }
            }
        }
        if let Some(batch) = self.batcher.take(length) {
            emitter.batch(batch)?;
        }
        Ok(())
    }

    /// The first line, which names the fields; false when it is not whole yet.
    fn read_header(&mut self, lines: &mut LineReader, end: i64, waits_for_rest: bool) -> Result<bool, Setback> {
        if self.has_header {
            return Ok(true);
        }
        lines.seek(0, end as u64)?;
        match lines.next(waits_for_rest)? {
            Line::Whole { next, text, .. } => {
                let path = self.path.display();
                let trimmed = text.strip_suffix(b"\n").unwrap_or(text);
                let trimmed = trimmed.strip_suffix(b"\r").unwrap_or(trimmed);
                self.batcher
                    .decoder()
                    .set_csv_header(trimmed)
                    .map_err(|error| Setback::Failed(format!("{path}: header: {error}")))?;
                self.batcher.skip_to(next as i64);
                self.has_header = true;
                Ok(true)
            }
            Line::Unfinished | Line::End => Ok(false),
        }
    }
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests;
