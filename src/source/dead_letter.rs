//! Records that could not be decoded, kept as JSON lines: `<dir>/<stream>.jsonl`, and `<stream>.1.jsonl` before it.
//!
//! Enters: a raw record and its error. Leaves: one line with topic, partition, offset, time, error and the raw bytes.
//! A record that is read again after a crash, or by a second reader, is written once as long as the two files hold it.
//! Never stops the stream: a full disk is logged as a loss and counted.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::WallClock;
use super::decode::{DecodeError, RawRecord};
use crate::delta::Partition;

/// Size at which a file is put aside; two files a stream are kept.
const FILE_BYTES: u64 = 64 << 20;

/// The dead letters of all streams, shared by all readers.
pub struct DeadLetters {
    dir: PathBuf,
    wall_clock: WallClock,
    file_bytes: u64,
    streams: Mutex<BTreeMap<String, StreamLetters>>,
}

/// One line of a dead-letter file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The stream whose schema the record does not fit.
    pub stream: String,
    /// The Kafka topic, or the file.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Broker time in milliseconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// Why it does not fit.
    pub error: String,
    /// The record, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The record in base64, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_base64: Option<String>,
    /// When it was put here: milliseconds since the Unix epoch.
    pub at: i64,
}

/// How many letters one stream has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeadLetterCount {
    /// Records put aside since the daemon's start.
    pub put: u64,
    /// Of them, those that could not be written.
    pub lost: u64,
    /// Of them, events that decode and came too late.
    pub late: u64,
    /// Values that did not fit and were read as NULL, in records that are none.
    pub nulls: u64,
}

/// The files of one stream.
struct StreamLetters {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
    bytes: u64,
    /// (partition, offset) of the letters in the current file and in the one before.
    current: HashSet<(i32, i64)>,
    previous: HashSet<(i32, i64)>,
    count: DeadLetterCount,
    /// Up to where NULLs were counted in each partition: readers of the same records count them once.
    nulls_counted: BTreeMap<i32, i64>,
}

impl DeadLetters {
    /// Letters in `dir`, which is created with the first letter.
    pub fn new(dir: impl Into<PathBuf>, wall_clock: WallClock) -> Self {
        DeadLetters { dir: dir.into(), wall_clock, file_bytes: FILE_BYTES, streams: Mutex::default() }
    }

    /// Keeps a record, unless the files have it already.
    pub fn put(&self, stream: &str, record: &RawRecord<'_>, error: &DecodeError) {
        self.keep(stream, record, error, false);
    }

    /// Keeps an event that came too late for its windows likewise; its record is told by its columns.
    pub fn put_late(&self, stream: &str, record: &RawRecord<'_>, reason: &str) {
        self.keep(stream, record, &DecodeError(reason.to_string()), true);
    }

    fn keep(&self, stream: &str, record: &RawRecord<'_>, error: &DecodeError, is_late: bool) {
        let mut streams = self.lock();
        let letters = self.of_stream(&mut streams, stream);
        let place = (record.partition, record.offset);
        if letters.current.contains(&place) || letters.previous.contains(&place) {
            return;
        }
        letters.count.put += 1;
        letters.count.late += u64::from(is_late);
        let payload = record.payload.unwrap_or_default();
        let text = std::str::from_utf8(payload).ok();
        let letter = DeadLetter {
            stream: stream.to_string(),
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            error: error.to_string(),
            raw: text.filter(|_| record.payload.is_some()).map(Into::into),
            raw_base64: if text.is_none() { Some(base64(payload)) } else { None },
            at: (self.wall_clock)(),
        };
        letters.write(&letter, self.file_bytes);
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
        let open = || StreamLetters::open(self.dir.join(format!("{stream}.jsonl")));
        streams.entry(stream.to_string()).or_insert_with(open)
    }

    /// Hands what was put to the operating system; called at each batch's end.
    pub fn flush(&self, stream: &str) {
        if let Some(letters) = self.lock().get_mut(stream)
            && let Some(writer) = &mut letters.writer
            && let Err(error) = writer.flush()
        {
            letters.lose(&error);
        }
    }

    /// How many letters each stream has got since the daemon's start.
    pub fn counts(&self) -> BTreeMap<String, DeadLetterCount> {
        self.lock().iter().map(|(stream, letters)| (stream.clone(), letters.count)).collect()
    }

    /// The letters of one stream that are still kept, oldest first.
    pub fn read(&self, stream: &str) -> io::Result<Vec<DeadLetter>> {
        self.flush(stream);
        let path = self.dir.join(format!("{stream}.jsonl"));
        let mut letters = read_letters(&previous_path(&path))?;
        letters.extend(read_letters(&path)?);
        Ok(letters)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, StreamLetters>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamLetters {
    fn open(path: PathBuf) -> Self {
        let places = |path: &Path| match read_letters(path) {
            Ok(letters) => letters.iter().map(|letter| (letter.partition, letter.offset)).collect(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "dead letters cannot be read, some may be written twice");
                HashSet::new()
            }
        };
        StreamLetters {
            current: places(&path),
            previous: places(&previous_path(&path)),
            path,
            writer: None,
            bytes: 0,
            count: DeadLetterCount::default(),
            nulls_counted: BTreeMap::new(),
        }
    }

    fn write(&mut self, letter: &DeadLetter, file_bytes: u64) {
        match self.try_write(letter, file_bytes) {
            Ok(()) => {
                self.current.insert((letter.partition, letter.offset));
            }
            Err(error) => self.lose(&error),
        }
    }

    fn try_write(&mut self, letter: &DeadLetter, file_bytes: u64) -> io::Result<()> {
        if self.writer.is_some() && self.bytes >= file_bytes {
            self.rotate()?;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let (file, bytes) = open_for_append(&self.path)?;
                self.bytes = bytes;
                self.writer.insert(BufWriter::new(file))
            }
        };
        let mut line = serde_json::to_vec(letter)?;
        line.push(b'\n');
        self.bytes += line.len() as u64;
        writer.write_all(&line)
    }

    fn rotate(&mut self) -> io::Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.flush()?;
        }
        fs::rename(&self.path, previous_path(&self.path))?;
        self.previous = std::mem::take(&mut self.current);
        Ok(())
    }

    fn lose(&mut self, error: &io::Error) {
        self.count.lost += 1;
        // What the writer still holds may be half a line: a fresh one begins on a new line.
        self.writer = None;
        tracing::error!(path = %self.path.display(), %error, "dead letter lost");
    }
}

/// Opens for appending; a line that a crash cut in half is ended, so that it harms no other.
fn open_for_append(path: &Path) -> io::Result<(File, u64)> {
    use std::io::{Read, Seek, SeekFrom};
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok((file, bytes))
}

/// The letters of a file; lines that a crash cut in half are left out, a missing file has none.
fn read_letters(path: &Path) -> io::Result<Vec<DeadLetter>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut letters = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(letter) = serde_json::from_slice(&line?) {
            letters.push(letter);
        }
    }
    Ok(letters)
}

fn previous_path(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { letter as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn letters_in(dir: &Path) -> DeadLetters {
        DeadLetters::new(dir, Arc::new(|| 1_700_000_000_000))
    }

    fn record(partition: i32, offset: i64, payload: &[u8]) -> RawRecord<'_> {
        RawRecord { topic: "shop.orders", partition, offset, timestamp: Some(5), key: None, payload: Some(payload) }
    }

    fn error() -> DecodeError {
        DecodeError("column \"amount\": expected DECIMAL(12,2), found \"abc\"".into())
    }

    #[test]
    fn letter_keeps_place_error_and_raw_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let letters = letters_in(&dir.path().join("dead-letters"));
        letters.put("orders", &record(2, 17, "{\"amount\":\"中\"}".as_bytes()), &error());
        letters.put("orders", &record(2, 18, b"\xff\x00"), &error());
        letters.flush("orders");
        let text = fs::read_to_string(dir.path().join("dead-letters/orders.jsonl")).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"stream":"orders","topic":"shop.orders","partition":2,"offset":17,"timestamp":5,"error":"column \"amount\": expected DECIMAL(12,2), found \"abc\"","raw":"{\"amount\":\"中\"}","at":1700000000000}"#
        );
        let read = letters.read("orders").unwrap();
        assert_eq!(read[1].raw_base64.as_deref(), Some("/wA="));
        assert_eq!(letters.counts()["orders"], DeadLetterCount { put: 2, lost: 0, late: 0, nulls: 0 });
    }

    #[test]
    fn replayed_record_is_written_once_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let letters = letters_in(dir.path());
            for offset in [9, 3, 9] {
                letters.put("orders", &record(0, offset, b"x"), &error());
            }
            letters.put("orders", &record(1, 9, b"x"), &error());
            assert_eq!(letters.read("orders").unwrap().len(), 3);
        }
    }

    #[test]
    fn nulls_of_a_record_that_is_read_again_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let letters = letters_in(dir.path());
        let partition = |number| Partition { stream: "orders".into(), number };
        for (number, offset) in [(0, 7), (0, 9), (1, 3), (0, 7), (0, 9), (0, 10)] {
            letters.count_nulls(&partition(number), offset, 2);
        }
        assert_eq!(letters.counts()["orders"], DeadLetterCount { put: 0, lost: 0, late: 0, nulls: 8 });
    }

    #[test]
    fn line_cut_by_a_crash_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("orders.jsonl"), "{\"stream\":\"ord").unwrap();
        let letters = letters_in(dir.path());
        letters.put("orders", &record(0, 1, b"x"), &error());
        assert_eq!(letters.read("orders").unwrap().len(), 1);
    }

    #[test]
    fn files_are_rotated_and_the_oldest_letters_go() {
        let dir = tempfile::tempdir().unwrap();
        let letters = DeadLetters { file_bytes: 1000, ..letters_in(dir.path()) };
        for offset in 0..100 {
            letters.put("orders", &record(0, offset, b"x"), &error());
        }
        let kept: Vec<i64> = letters.read("orders").unwrap().iter().map(|letter| letter.offset).collect();
        assert_eq!(kept.last(), Some(&99));
        assert!(kept.len() < 20, "{kept:?}");
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert_eq!(letters.counts()["orders"].put, 100);
    }

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
