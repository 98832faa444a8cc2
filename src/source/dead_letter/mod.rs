//! Records that could not be taken, kept as JSON lines; see [`LetterFiles`] for where.
//!
//! Enters: a raw record and its error. Leaves: one line with topic, partition, offset, time, error and the raw bytes.
//! A record that is read again after a crash, or by a second reader, is written once. Bounded in size: the oldest letters
//! go for newer ones, and are counted. Never stops the stream: a full disk is logged as a loss and counted.

mod files;
mod letter;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use self::files::{Place, open_for_append};
use super::WallClock;
use super::decode::{DecodeError, RawRecord};
use crate::delta::Partition;

pub use self::files::LetterFiles;
pub use self::letter::{DeadLetter, Kind, Selection};

/// The folder of dead letters below the state directory.
pub const FOLDER: &str = "dead-letters";
/// Bytes of lines that wait for the end of their batch at most.
const MOST_WAITING: usize = 1 << 20;
/// What the bytes of a record or its key may take of the room at most: the rest of longer ones is cut off. JSON writes some
/// of them as six, and both together must not take more than half of it.
const RECORD_SHARE: u64 = 32;

/// The dead letters of all streams, shared by all readers.
pub struct DeadLetters {
    dir: PathBuf,
    wall_clock: WallClock,
    /// Bytes of the letters of one stream.
    most_bytes: u64,
    streams: Mutex<BTreeMap<String, StreamLetters>>,
}

/// How many letters one stream has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterCount {
    /// Records put aside since the daemon's start.
    pub put: u64,
    /// Of them, those that could not be written.
    pub lost: u64,
    /// Of them, events that decode and came too late.
    pub late: u64,
    /// Of them, rows that tags skipped, by tag.
    pub skipped: BTreeMap<String, u64>,
    /// Letters that are kept, since whenever.
    pub kept: u64,
    /// Letters that went for newer ones since the start.
    pub dropped: u64,
    /// When the newest was put, milliseconds since the Unix epoch.
    pub newest_at: Option<i64>,
    /// Values that did not fit and were read as NULL, in records that are none.
    pub nulls: u64,
}

/// Who puts a record aside, and why.
#[derive(Debug, Clone, Copy)]
struct Reason<'a> {
    kind: Kind,
    /// Whose letter it is, unless it is the stream's.
    tag: Option<&'a str>,
    late_for: &'a [&'a str],
    error: &'a str,
}

/// The letters of one stream, as the one who appends knows them.
struct StreamLetters {
    files: LetterFiles,
    /// Bytes of the two files as they were left: the previous one's and the current one's.
    lengths: (u64, u64),
    current: HashSet<Place>,
    previous: HashSet<Place>,
    gone: HashSet<Place>,
    /// Lines for the current file.
    waiting: Vec<(Place, Vec<u8>)>,
    waiting_bytes: usize,
    /// Lines were written that may not be on the disk yet.
    is_unsynced: bool,
    count: DeadLetterCount,
    /// Up to where NULLs were counted in each partition: readers of the same records count them once.
    nulls_counted: BTreeMap<i32, i64>,
}

impl DeadLetters {
    /// At most `most_bytes` of letters a stream in `dir`, which is created with the first letter.
    pub fn new(dir: impl Into<PathBuf>, most_bytes: u64, wall_clock: WallClock) -> Self {
        DeadLetters { dir: dir.into(), wall_clock, most_bytes, streams: Mutex::default() }
    }

    /// Keeps a record that does not decode, unless its letter is there or gone already.
    pub fn put(&self, stream: &str, record: &RawRecord<'_>, error: &DecodeError) {
        self.keep(stream, record, Reason { kind: Kind::Decode, tag: None, late_for: &[], error: &error.to_string() });
    }

    /// Keeps an event that came too late for the windows of these tags likewise; its record is told by its columns.
    pub fn put_late(&self, stream: &str, record: &RawRecord<'_>, tags: &[&str], reason: &str) {
        self.keep(stream, record, Reason { kind: Kind::Late, tag: None, late_for: tags, error: reason });
    }

    /// Keeps a record that a tag skips likewise.
    pub fn put_skipped(&self, stream: &str, record: &RawRecord<'_>, tag: &str, reason: &str) {
        self.keep(stream, record, Reason { kind: Kind::Skip, tag: Some(tag), late_for: &[], error: reason });
    }

    fn keep(&self, stream: &str, record: &RawRecord<'_>, reason: Reason<'_>) {
        let mut streams = self.lock();
        let letters = self.of_stream(&mut streams, stream);
        let at = (self.wall_clock)();
        let letter = letter(stream, record, reason, at, self.most_bytes / RECORD_SHARE);
        letters.keep(&letter);
        if letters.waiting_bytes > MOST_WAITING {
            letters.flush(self.most_bytes);
        }
    }

    /// Counts values of a record that were read as NULL since they did not fit.
    pub fn count_nulls(&self, partition: &Partition, offset: i64, values: u64) {
        let mut streams = self.lock();
        let letters = self.of_stream(&mut streams, &partition.stream);
        let counted = letters.nulls_counted.entry(partition.number).or_insert(i64::MIN);
        if offset > *counted {
            *counted = offset;
            letters.count.nulls += values;
        }
    }

    fn of_stream<'a>(&self, streams: &'a mut BTreeMap<String, StreamLetters>, stream: &str) -> &'a mut StreamLetters {
        let open = || StreamLetters::open(LetterFiles::of(&self.dir, stream));
        streams.entry(stream.to_string()).or_insert_with(open)
    }

    /// Hands what was put to the operating system; called at each batch's end.
    pub fn flush(&self, stream: &str) {
        if let Some(letters) = self.lock().get_mut(stream) {
            letters.flush(self.most_bytes);
        }
    }

    /// Waits until the letters that were handed to the operating system are on the disk: behind them their records need not be
    /// read again. Where that cannot be said it is logged.
    pub fn sync(&self) {
        let unsynced =
            |letters: &mut StreamLetters| std::mem::take(&mut letters.is_unsynced).then(|| letters.files.clone());
        let files: Vec<LetterFiles> = self.lock().values_mut().filter_map(unsynced).collect();
        for files in files {
            if let Err(error) = files.sync() {
                tracing::warn!(path = %files.current().display(), %error, "dead letters may not outlive a loss of power");
            }
        }
    }

    /// How many letters these streams have, and all others that got one since the daemon's start.
    pub fn counts<'a>(&self, known: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, DeadLetterCount> {
        let mut streams = self.lock();
        for stream in known {
            self.of_stream(&mut streams, stream);
        }
        streams.iter_mut().map(|(stream, letters)| (stream.clone(), letters.count())).collect()
    }

    /// The letters of one stream that are still kept, oldest first.
    pub fn read(&self, stream: &str) -> io::Result<Vec<DeadLetter>> {
        self.flush(stream);
        let mut letters = Vec::new();
        LetterFiles::of(&self.dir, stream).each(|letter| letters.push(letter))?;
        Ok(letters)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, StreamLetters>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The letter of a record, of which at most so many bytes are kept.
fn letter(stream: &str, record: &RawRecord<'_>, reason: Reason<'_>, at: i64, most_bytes: u64) -> DeadLetter {
    let payload = record.payload.unwrap_or_default();
    let most = usize::try_from(most_bytes).unwrap_or(usize::MAX);
    let kept = record.payload.map(|payload| beginning(payload, most));
    let kept_key = record.key.map(|key| beginning(key, most));
    let (raw, raw_base64) = text_or_base64(kept);
    let (key, key_base64) = text_or_base64(kept_key);
    DeadLetter {
        kind: reason.kind,
        stream: stream.to_string(),
        tag: reason.tag.map(str::to_string),
        late_for: reason.late_for.iter().map(|tag| tag.to_string()).collect(),
        topic: record.topic.to_string(),
        partition: record.partition,
        offset: record.offset,
        timestamp: record.timestamp,
        error: reason.error.to_string(),
        key,
        key_base64,
        raw,
        raw_base64,
        cut_from: (kept != record.payload || kept_key != record.key).then_some(payload.len()),
        at,
    }
}

/// So many of the bytes at most; text is not cut within a character.
fn beginning(bytes: &[u8], most: usize) -> &[u8] {
    let cut = &bytes[..bytes.len().min(most)];
    match std::str::from_utf8(cut) {
        Err(error) if cut.len() < bytes.len() && error.error_len().is_none() => &cut[..error.valid_up_to()],
        _ => cut,
    }
}

/// Bytes as text where they are, else in base64.
fn text_or_base64(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => (None, None),
        Some((Ok(text), _)) => (Some(text.to_string()), None),
        Some((Err(_), bytes)) => (None, Some(STANDARD.encode(bytes))),
    }
}

impl StreamLetters {
    fn open(files: LetterFiles) -> Self {
        let mut letters = StreamLetters {
            files,
            lengths: (0, 0),
            current: HashSet::new(),
            previous: HashSet::new(),
            gone: HashSet::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            is_unsynced: false,
            count: DeadLetterCount::default(),
            nulls_counted: BTreeMap::new(),
        };
        letters.follow();
        letters
    }

    /// Follows what others have done to the files, if anything.
    fn follow(&mut self) {
        let looked = match self.files.lengths() {
            Ok(lengths) if lengths == self.lengths => return,
            Ok(_) => self.files.lock().and_then(|_lock| self.look_again()),
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            let path = self.files.current();
            tracing::warn!(path = %path.display(), %error, "dead letters cannot be read, some may be written twice");
        }
    }

    /// Learns what the files hold, where somebody else has changed them; the files are locked.
    fn look_again(&mut self) -> io::Result<()> {
        let lengths = self.files.lengths()?;
        if lengths == self.lengths {
            return Ok(());
        }
        self.previous = self.files.places(&self.files.previous())?.into_iter().collect();
        self.current = self.files.places(&self.files.current())?.into_iter().collect();
        self.gone = self.files.gone_places()?.into_iter().collect();
        self.current.extend(self.waiting.iter().map(|(place, _)| place.clone()));
        self.lengths = lengths;
        Ok(())
    }

    fn count(&mut self) -> DeadLetterCount {
        self.follow();
        DeadLetterCount { kept: (self.current.len() + self.previous.len()) as u64, ..self.count.clone() }
    }

    fn keep(&mut self, letter: &DeadLetter) {
        let place = letter.place();
        if [&self.current, &self.previous, &self.gone].iter().any(|known| known.contains(&place)) {
            return;
        }
        self.count.put += 1;
        self.count.late += u64::from(letter.kind == Kind::Late);
        if let Some(tag) = &letter.tag {
            *self.count.skipped.entry(tag.clone()).or_default() += 1;
        }
        self.count.newest_at = self.count.newest_at.max(Some(letter.at));
        match serde_json::to_vec(letter) {
            Ok(mut line) => {
                line.push(b'\n');
                self.waiting_bytes += line.len();
                self.current.insert(place.clone());
                self.waiting.push((place, line));
            }
            Err(error) => self.lose(1, &error.into()),
        }
    }

    fn flush(&mut self, most_bytes: u64) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self.write_waiting(most_bytes);
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        if let Err(error) = written {
            // Those that were written after all are found when the files are looked at again.
            for (place, _) in &waiting {
                self.current.remove(place);
            }
            self.lose(waiting.len() as u64, &error);
        }
    }

    fn write_waiting(&mut self, most_bytes: u64) -> io::Result<()> {
        let _lock = self.files.lock()?;
        self.look_again()?;
        let (file, mut bytes) = open_for_append(&self.files.current())?;
        let mut writer = BufWriter::new(file);
        for next in 0..self.waiting.len() {
            let length = self.waiting[next].1.len() as u64;
            // Two files share the room.
            if bytes > 0 && bytes + length > most_bytes / 2 {
                writer.flush()?;
                self.rotate(next)?;
                writer = BufWriter::new(open_for_append(&self.files.current())?.0);
                bytes = 0;
            }
            writer.write_all(&self.waiting[next].1)?;
            bytes += length;
        }
        writer.flush()?;
        self.is_unsynced = true;
        self.lengths = self.files.lengths()?;
        Ok(())
    }

    /// The oldest letters go, and with them room comes. Of those that wait, the ones before `next` are written.
    fn rotate(&mut self, next: usize) -> io::Result<()> {
        let oldest: Vec<Place> = std::mem::take(&mut self.previous).into_iter().collect();
        self.gone = self.files.add_gone(&oldest)?.into_iter().collect();
        fs::rename(self.files.current(), self.files.previous())?;
        self.count.dropped += oldest.len() as u64;
        let unwritten = self.waiting[next..].iter().map(|(place, _)| place.clone()).collect();
        self.previous = std::mem::replace(&mut self.current, unwritten);
        self.previous.retain(|place| !self.current.contains(place));
        Ok(())
    }

    fn lose(&mut self, letters: u64, error: &io::Error) {
        self.count.lost += letters;
        let path = self.files.current();
        tracing::error!(path = %path.display(), %error, letters, "dead letters lost");
    }
}

#[cfg(test)]
mod tests;
