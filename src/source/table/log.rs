//! The history of a table outside: a file of rows that came and keys that went, appended to and never changed.
//!
//! Enters: differences between the table and what the log says. Leaves: records with an offset each, to any number of
//! readers in this process, each only once it is on the disk. A tail that a crash cut is taken off; nobody has seen it.
//!
//! A log much larger than its table is written anew beside and renamed: below the horizon (where every checkpoint that
//! is kept has come to) only the newest record of a key stays, with its offset. Deletes stay too, for a reader that
//! stands before them; above the horizon all stay, so that a replay ends exactly where the stored tags do.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a log begins with; the digit is the version of the format.
const MAGIC: &[u8; 8] = b"tagflow1";
/// Magic, the offset of the first record that was ever appended behind it, the length of the key's columns.
const HEADER: usize = 8 + 8 + 4;
/// Length and CRC-32 before each record.
const FRAME: usize = 4 + 4;
/// Offset, time, kind and the key's length at the beginning of each record.
const FIXED: usize = 8 + 8 + 1 + 4;
/// A longer record is damage.
const LONGEST_RECORD: usize = 256 << 20;
/// A smaller log is not worth writing anew.
const SMALLEST_COMPACTED: u64 = 4 << 20;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The key has this row.
    Row,
    /// The key is gone.
    Gone,
    /// The table holds this, which is no row; the key says why.
    Unusable,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub offset: i64,
    /// When it was appended, milliseconds since the Unix epoch.
    pub at: i64,
    pub said: Said,
    /// A JSON object of the key's columns.
    pub key: &'a str,
    /// A JSON object of the row's columns; empty where the key is gone.
    pub row: &'a str,
}

/// Up to where readers may read.
#[derive(Debug, Clone, Copy)]
struct Published {
    /// The offset behind the last record.
    end: i64,
    /// The byte behind it.
    bytes: u64,
    /// Counts the files: another one needs another handle.
    generation: u64,
}

/// A log that many may read and one may write.
pub(super) struct TableLog {
    path: PathBuf,
    published: Mutex<Published>,
    /// Every checkpoint that is kept has taken the records before this.
    horizon: AtomicI64,
    /// Log sizes worth writing anew begin here.
    smallest_compacted: u64,
}

impl TableLog {
    /// Opens the log at `path`; a missing one has no records.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let scanned = scan(&path, |_, _| {})?;
        let (end, bytes) = scanned.map_or((0, 0), |scanned| (scanned.end, scanned.bytes));
        let published = Mutex::new(Published { end, bytes, generation: 0 });
        Ok(TableLog { path, published, horizon: AtomicI64::new(0), smallest_compacted: SMALLEST_COMPACTED })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The offset behind the last record that readers may see.
    pub(super) fn end(&self) -> i64 {
        self.published().end
    }

    /// No reader of a checkpoint comes back to what lies before `next`.
    pub(super) fn forget_before(&self, next: i64) {
        self.horizon.fetch_max(next, Ordering::AcqRel);
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a log.
pub(super) struct LogReader {
    log: Arc<TableLog>,
    /// The file, and which one it is.
    file: Option<(BufReader<File>, u64)>,
    at: u64,
    next: i64,
    body: Vec<u8>,
}

impl LogReader {
    /// Begins at offset `next`.
    pub(super) fn new(log: Arc<TableLog>, next: i64) -> Self {
        LogReader { log, file: None, at: 0, next, body: Vec::new() }
    }

    /// The next record to read.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Hands out the records that are there and lie before `until`, until `each` has enough; true when none is left.
    pub(super) fn read(&mut self, until: i64, mut each: impl FnMut(Record<'_>) -> bool) -> io::Result<bool> {
        let published = {
            // Under the lock, so that the file is the one that is published.
            let published = self.log.published();
            let is_current = self.file.as_ref().is_some_and(|(_, generation)| *generation == published.generation);
            if !is_current && published.bytes > 0 {
                let mut file = BufReader::with_capacity(256 << 10, File::open(&self.log.path)?);
                self.at = read_header(&mut file)?.ok_or_else(|| damaged(&self.log.path, 0))?.bytes;
                self.file = Some((file, published.generation));
            }
            *published
        };
        while self.at < published.bytes
            && let Some((file, _)) = &mut self.file
        {
            let length = read_frame(file, &mut self.body)?.ok_or_else(|| damaged(&self.log.path, self.at))?;
            let record = parse(&self.body).ok_or_else(|| damaged(&self.log.path, self.at))?;
            if record.offset >= until {
                file.seek_relative(-(length as i64))?;
                break;
            }
            self.at += length;
            if record.offset >= self.next {
                self.next = record.offset + 1;
                if each(record) {
                    return Ok(false);
                }
            }
        }
        self.next = self.next.max(published.end.min(until));
        Ok(true)
    }
}

/// What the log says of a key that has a row.
struct Known {
    /// Of the row.
    hash: u64,
    /// The look at the table that found it last.
    look: u32,
    /// Its record's length.
    bytes: u32,
}

/// The one who appends, and knows what the log says.
pub(super) struct LogWriter {
    log: Arc<TableLog>,
    file: BufWriter<File>,
    rows: HashMap<Box<str>, Known>,
    next: i64,
    bytes: u64,
    /// What the records of all rows take that are there.
    live_bytes: u64,
    /// After the log was last written anew.
    compacted_bytes: u64,
    look: u32,
}

impl LogWriter {
    /// Takes the log over. Its records are of the columns `key`; those of another key are of no use, and the log begins
    /// anew at the offset that would have been next.
    pub(super) fn open(log: &Arc<TableLog>, key: &[String]) -> io::Result<Self> {
        let columns = key.join("\n");
        let mut rows: HashMap<Box<str>, Known> = HashMap::new();
        let mut live_bytes = 0;
        let found = scan(&log.path, |record, bytes| note(&mut rows, &mut live_bytes, &record, bytes))?;
        let is_same = found.as_ref().is_some_and(|found| found.columns == columns);
        let next = found.as_ref().map_or(0, |found| found.end);
        // Readers that open the file take its length from what is published: both change at once.
        let mut published = log.published();
        if !is_same {
            rows.clear();
            live_bytes = 0;
            replace(&log.path, |file| write_header(file, next, &columns))?;
        }
        let mut file = File::options().read(true).write(true).open(&log.path)?;
        let bytes = match &found {
            Some(found) if is_same => found.bytes,
            _ => (HEADER + columns.len()) as u64,
        };
        if file.metadata()?.len() > bytes {
            tracing::warn!(path = %log.path.display(), bytes, "what a crash cut is taken off the log's end");
        }
        file.set_len(bytes)?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(bytes))?;
        let file = BufWriter::with_capacity(256 << 10, file);
        *published = Published { end: next, bytes, generation: published.generation + 1 };
        Ok(LogWriter { log: Arc::clone(log), file, rows, next, bytes, live_bytes, compacted_bytes: 0, look: 0 })
    }

    /// A look at the whole table begins.
    pub(super) fn begin_look(&mut self) {
        self.look = self.look.wrapping_add(1);
    }

    /// The table has this row now.
    pub(super) fn row(&mut self, key: &str, row: &str, at: i64) -> io::Result<()> {
        self.put(Said::Row, key, row, at)
    }

    /// The table holds something that is no row, for that reason. It is told once, however often it is looked at.
    pub(super) fn unusable(&mut self, reason: &str, text: &str, at: i64) -> io::Result<()> {
        self.put(Said::Unusable, reason, text, at)
    }

    fn put(&mut self, said: Said, key: &str, row: &str, at: i64) -> io::Result<()> {
        let hash = hash_of(said, row);
        let name = name_of(said, key, row);
        if let Some(known) = self.rows.get_mut(&*name)
            && known.hash == hash
        {
            known.look = self.look;
            return Ok(());
        }
        let bytes = self.append(said, key, row, at)?;
        let known = Known { hash, look: self.look, bytes: bytes as u32 };
        self.live_bytes += bytes;
        if let Some(before) = self.rows.insert(name.into(), known) {
            self.live_bytes -= u64::from(before.bytes);
        }
        Ok(())
    }

    /// The look has seen the whole table: keys that it did not see are gone. Gives how many.
    pub(super) fn end_look(&mut self, at: i64) -> io::Result<usize> {
        let look = self.look;
        let gone: Vec<Box<str>> =
            self.rows.iter().filter(|(_, known)| known.look != look).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            if let Some(known) = self.rows.remove(key) {
                self.live_bytes -= u64::from(known.bytes);
            }
            // What was no row leaves nothing behind.
            if !key.starts_with(UNUSABLE) {
                self.append(Said::Gone, key, "", at)?;
            }
        }
        Ok(gone.len())
    }

    /// Rows that the log says are there.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    fn append(&mut self, said: Said, key: &str, row: &str, at: i64) -> io::Result<u64> {
        let record = Record { offset: self.next, at, said, key, row };
        let bytes = write_record(&mut self.file, &record)?;
        self.next += 1;
        self.bytes += bytes;
        Ok(bytes)
    }

    /// Lets readers see what was appended, once it is on the disk.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        if self.next == self.log.end() {
            return Ok(());
        }
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        {
            let mut published = self.log.published();
            (published.end, published.bytes) = (self.next, self.bytes);
        }
        let large = self.log.smallest_compacted.max(2 * self.live_bytes).max(2 * self.compacted_bytes);
        if self.bytes > large {
            self.compact()?;
        }
        Ok(())
    }

    /// Writes the log anew without what no reader needs.
    fn compact(&mut self) -> io::Result<()> {
        let log = Arc::clone(&self.log);
        let horizon = log.horizon.load(Ordering::Acquire);
        let mut newest: HashMap<Box<str>, i64> = HashMap::new();
        let found = scan(&log.path, |record, _| {
            if record.offset < horizon {
                newest.insert(name_of(record.said, record.key, record.row).into(), record.offset);
            }
        })?;
        let Some(found) = found else { return Ok(()) };
        let mut bytes = 0;
        replace(&log.path.with_extension("compacted"), |file| {
            write_header(file, self.next, &found.columns)?;
            bytes = (HEADER + found.columns.len()) as u64;
            let mut outcome = Ok(());
            scan(&log.path, |record, _| {
                let is_newest = || newest.get(&*name_of(record.said, record.key, record.row)) == Some(&record.offset);
                if outcome.is_ok() && (record.offset >= horizon || is_newest()) {
                    outcome = write_record(file, &record).map(|written| bytes += written);
                }
            })?;
            outcome
        })?;
        let mut published = log.published();
        fs::rename(log.path.with_extension("compacted"), &log.path)?;
        sync_folder(&log.path)?;
        let mut file = File::options().read(true).write(true).open(&log.path)?;
        file.seek(SeekFrom::Start(bytes))?;
        tracing::info!(path = %log.path.display(), before = self.bytes, after = bytes, "the table's log is compacted");
        self.file = BufWriter::with_capacity(256 << 10, file);
        (self.bytes, self.compacted_bytes) = (bytes, bytes);
        published.bytes = bytes;
        published.generation += 1;
        Ok(())
    }
}

/// What tells an unusable row from keys, which are JSON objects.
const UNUSABLE: char = '!';

/// What a record is about.
fn name_of<'a>(said: Said, key: &'a str, row: &str) -> std::borrow::Cow<'a, str> {
    match said {
        Said::Row | Said::Gone => key.into(),
        Said::Unusable => format!("{UNUSABLE}{:016x}", hash_of(said, row)).into(),
    }
}

/// Only compared within one process.
fn hash_of(said: Said, row: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (said as u8).hash(&mut hasher);
    row.hash(&mut hasher);
    hasher.finish()
}

fn note(rows: &mut HashMap<Box<str>, Known>, live_bytes: &mut u64, record: &Record<'_>, bytes: u64) {
    let name = name_of(record.said, record.key, record.row);
    let before = match record.said {
        Said::Gone => rows.remove(&*name),
        Said::Row | Said::Unusable => {
            *live_bytes += bytes;
            let known = Known { hash: hash_of(record.said, record.row), look: 0, bytes: bytes as u32 };
            rows.insert(name.into(), known)
        }
    };
    if let Some(before) = before {
        *live_bytes -= u64::from(before.bytes);
    }
}

/// What a log's file holds.
struct Scanned {
    /// The key's columns.
    columns: String,
    /// The offset behind the last record.
    end: i64,
    /// The byte behind it.
    bytes: u64,
}

/// Hands out all whole records; `None` when there is no file.
fn scan(path: &Path, mut each: impl FnMut(Record<'_>, u64)) -> io::Result<Option<Scanned>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut scanned = read_header(&mut file)?.ok_or_else(|| damaged(path, 0))?;
    let mut body = Vec::new();
    while let Some(length) = read_frame(&mut file, &mut body)? {
        let record = parse(&body).ok_or_else(|| damaged(path, scanned.bytes))?;
        scanned.end = scanned.end.max(record.offset + 1);
        scanned.bytes += length;
        each(record, length);
    }
    Ok(Some(scanned))
}

fn damaged(path: &Path, at: u64) -> io::Error {
    let path = path.display();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{path} is damaged at byte {at}; without it and the checkpoints, tables and tags are read anew"),
    )
}

fn write_header(file: &mut impl Write, next: i64, columns: &str) -> io::Result<()> {
    file.write_all(MAGIC)?;
    file.write_all(&next.to_le_bytes())?;
    file.write_all(&(columns.len() as u32).to_le_bytes())?;
    file.write_all(columns.as_bytes())
}

/// The header; the end is what it was when the file was begun.
fn read_header(file: &mut impl Read) -> io::Result<Option<Scanned>> {
    let mut header = [0; HEADER];
    if !read_whole(file, &mut header)? || &header[..8] != MAGIC {
        return Ok(None);
    }
    let mut parts = Parts(&header[8..]);
    let (Some(end), Some(length)) = (parts.long(), parts.int()) else { return Ok(None) };
    let mut columns = Vec::new();
    file.take(length.into()).read_to_end(&mut columns)?;
    let bytes = (HEADER + columns.len()) as u64;
    Ok(String::from_utf8(columns).ok().map(|columns| Scanned { columns, end, bytes }))
}

/// Writes a record; gives its length.
fn write_record(file: &mut impl Write, record: &Record<'_>) -> io::Result<u64> {
    let said = match record.said {
        Said::Row => 0_u8,
        Said::Gone => 1,
        Said::Unusable => 2,
    };
    let mut body = Vec::with_capacity(FIXED + record.key.len() + record.row.len());
    body.extend_from_slice(&record.offset.to_le_bytes());
    body.extend_from_slice(&record.at.to_le_bytes());
    body.push(said);
    body.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
    body.extend_from_slice(record.key.as_bytes());
    body.extend_from_slice(record.row.as_bytes());
    if body.len() > LONGEST_RECORD {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the row of {} is too long", record.key)));
    }
    file.write_all(&(body.len() as u32).to_le_bytes())?;
    file.write_all(&crc32fast::hash(&body).to_le_bytes())?;
    file.write_all(&body)?;
    Ok((FRAME + body.len()) as u64)
}

/// Reads the bytes of the next record; `None` when none is whole. Gives its length with the frame.
fn read_frame(file: &mut impl Read, body: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let mut frame = [0; FRAME];
    if !read_whole(file, &mut frame)? {
        return Ok(None);
    }
    let mut parts = Parts(&frame);
    let (Some(length), Some(crc)) = (parts.int(), parts.int()) else { return Ok(None) };
    if !(FIXED..=LONGEST_RECORD).contains(&(length as usize)) {
        return Ok(None);
    }
    body.clear();
    let read = file.take(length.into()).read_to_end(body)?;
    let is_whole = read == length as usize && crc32fast::hash(body) == crc;
    Ok(is_whole.then_some((FRAME + read) as u64))
}

fn parse(body: &[u8]) -> Option<Record<'_>> {
    let mut parts = Parts(body);
    let (offset, at) = (parts.long()?, parts.long()?);
    let said = match parts.take(1)?.first()? {
        0 => Said::Row,
        1 => Said::Gone,
        2 => Said::Unusable,
        _ => return None,
    };
    let length = parts.int()? as usize;
    let key = std::str::from_utf8(parts.take(length)?).ok()?;
    let row = std::str::from_utf8(parts.0).ok()?;
    Some(Record { offset, at, said, key, row })
}

/// Bytes that are taken apart from the front.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn long(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn int(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
}

/// Fills `bytes`; false when the file ends before.
fn read_whole(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts a file in the place of another, whole or not at all.
fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension("new");
    let mut file = BufWriter::with_capacity(256 << 10, File::create(&draft)?);
    write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests;
