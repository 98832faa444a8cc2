//! A table in a file: read as a whole, again when its content has changed.
//!
//! A file is looked at often and read when it has stood still from one look to the next. One that is gone, empty or cut
//! changes nothing and is trouble: whoever writes a table is best off to write it beside and rename it. That a table has
//! no rows any more is said by a file that has a header but no rows, in CSV or Parquet.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::de::IgnoredAny;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::differ::Differ;
use super::{Looked, Outside, Setback, parquet};
use crate::catalog::{Format, Stream};
use crate::inside::leads_outside;
use crate::regular_file::read_regular;
use crate::source::decode::CsvReader;
use crate::source::file::lines::{Line, LineReader};

/// A file that looks the same is read all the same after this: times are coarse, and copied too.
const REREAD: Duration = Duration::from_secs(30);

/// What of a table's file is no row, or is one.
pub(super) enum Found {
    /// A JSON object.
    Row(String),
    Unusable {
        reason: String,
        text: String,
    },
}

/// What is seen of a file without reading it.
type Seen = (u64, Option<SystemTime>);

pub(super) struct FileTable {
    /// The connection's folder, which links must not leave.
    folder: PathBuf,
    path: PathBuf,
    stream: Arc<Stream>,
    /// As the last look saw it.
    seen: Option<Seen>,
    /// When it was last read, and how it looked then.
    read: Option<(Instant, Seen)>,
    /// Of the content that the log shows.
    hash: Option<[u8; 32]>,
    /// What is wrong with the content that was last read.
    broken: Option<String>,
}

impl FileTable {
    pub(super) fn new(folder: &Path, stream: &Arc<Stream>) -> Self {
        let (folder, path) = (folder.to_owned(), folder.join(&stream.topic));
        FileTable { folder, path, stream: Arc::clone(stream), seen: None, read: None, hash: None, broken: None }
    }

    fn read(&self) -> io::Result<(Vec<u8>, Seen)> {
        if leads_outside(&self.folder, &self.path) {
            return Err(io::Error::other("a symbolic link leads out of the connection's folder"));
        }
        let content = read_regular(&self.path, u64::MAX)?;
        Ok((content, seen(&fs::metadata(&self.path)?)))
    }

    fn found(&self, content: Vec<u8>) -> Result<Vec<Found>, String> {
        if content.is_empty() {
            return Err("the file is empty: that is no table".into());
        }
        match self.stream.format {
            Format::Csv => csv_rows(content, &self.stream),
            Format::Parquet => parquet::rows(content, &self.stream),
            _ => json_rows(content),
        }
    }

    fn trouble(&self, what: &str) -> Setback {
        Setback::Trouble(format!("{}: {what}; the rows stay as they were", self.path.display()))
    }
}

impl Outside for FileTable {
    fn look(&mut self, differ: &mut Differ<'_>) -> Result<Looked, Setback> {
        let now = match fs::metadata(&self.path) {
            Ok(metadata) => seen(&metadata),
            Err(error) => {
                self.seen = None;
                return Err(self.trouble(&error.to_string()));
            }
        };
        if self.seen.replace(now) != Some(now) {
            return Ok(Looked::Waiting);
        }
        if self.read.is_some_and(|(at, seen)| seen == now && at.elapsed() < REREAD) {
            return match &self.broken {
                Some(problem) => Err(self.trouble(problem)),
                None => Ok(Looked::UpToDate),
            };
        }
        let (content, then) = self.read().map_err(|error| self.trouble(&error.to_string()))?;
        if then != now {
            return Ok(Looked::Waiting);
        }
        self.read = Some((Instant::now(), now));
        let hash: [u8; 32] = Sha256::digest(&content).into();
        if self.hash == Some(hash) {
            self.broken = None;
            return Ok(Looked::UpToDate);
        }
        let found = match self.found(content) {
            Ok(found) => found,
            Err(problem) => {
                let setback = self.trouble(&problem);
                self.broken = Some(problem);
                return Err(setback);
            }
        };
        self.broken = None;
        differ.begin_gathering();
        let rows = found.len();
        for found in found {
            match found {
                Found::Row(row) => differ.row(row)?,
                Found::Unusable { reason, text } => differ.unusable(&reason, &text)?,
            }
        }
        differ.end()?;
        self.hash = Some(hash);
        tracing::info!(path = %self.path.display(), rows, "the table's file is read");
        Ok(Looked::Whole)
    }
}

fn seen(metadata: &Metadata) -> Seen {
    (metadata.len(), metadata.modified().ok())
}

/// The lines of a file: text, and whether it ends as lines do. With `quotes`, a quoted field may span several.
fn lines(
    content: Vec<u8>,
    quotes: bool,
    mut each: impl FnMut(&[u8], bool) -> Result<(), String>,
) -> Result<(), String> {
    let end = content.len() as u64;
    let mut lines = LineReader::over(Cursor::new(content), quotes);
    lines.seek(0, end).map_err(|error| error.to_string())?;
    while let Line::Whole { text, .. } = lines.next(false).map_err(|error| error.to_string())? {
        if !text.iter().all(u8::is_ascii_whitespace) {
            each(text, text.ends_with(b"\n"))?;
        }
    }
    Ok(())
}

/// Objects are what is needed here; what is in them is the decoder's business.
fn json_rows(content: Vec<u8>) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    lines(content, false, |line, is_ended| {
        let text = String::from_utf8_lossy(line).trim().to_string();
        let object = match std::str::from_utf8(line) {
            Ok(line) => serde_json::from_str::<HashMap<String, IgnoredAny>>(line).map_err(|error| error.to_string()),
            Err(_) => Err("invalid UTF-8".to_string()),
        };
        match object {
            Ok(_) => found.push(Found::Row(text)),
            Err(_) if !is_ended => return Err("the last line is cut".into()),
            Err(error) => found.push(Found::Unusable { reason: format!("no JSON object: {error}"), text }),
        }
        Ok(())
    })?;
    Ok(found)
}

fn csv_rows(content: Vec<u8>, stream: &Stream) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let mut reader = CsvReader::new(stream);
    let mut header: Vec<String> = Vec::new();
    lines(content, true, |line, is_ended| {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        if header.is_empty() {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            reader.set_header(text.as_bytes()).map_err(|error| format!("header: {error}"))?;
            header = reader.fields(text).map(|name| name.unwrap_or_default().trim().to_string()).collect();
            if let Some(name) = reader.missing() {
                return Err(format!("the first line names no column {name:?}, only {}", header.join(", ")));
            }
            let mut names = HashSet::new();
            return match header.iter().find(|name| !names.insert(name.to_lowercase())) {
                Some(twice) => Err(format!("the first line names {twice:?} twice")),
                None => Ok(()),
            };
        }
        let is_text = std::str::from_utf8(line).map_err(|_| "invalid UTF-8".to_string());
        match is_text.and_then(|_| reader.read(text).map_err(|error| error.to_string())) {
            Ok(()) => {
                let values = reader.fields(text).map(|value| value.map_or(Json::Null, Json::from));
                let row: serde_json::Map<String, Json> = header.iter().cloned().zip(values).collect();
                found.push(Found::Row(Json::Object(row).to_string()));
            }
            Err(_) if !is_ended => return Err("the last line is cut".into()),
            Err(reason) => found.push(Found::Unusable { reason, text: text.to_string() }),
        }
        Ok(())
    })?;
    Ok(found)
}
