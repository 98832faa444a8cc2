//! A segment: parts of one operator's state as one file, which is never changed.
//!
//! For each part three chunks, each with its length before it: what the part is, as JSON, its rows, and the keys that are
//! gone; rows and keys as Arrow IPC streams.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use crate::operator::state::{Extent, Gone};
use crate::operator::{StatePart, rows};

/// About how many bytes of rows a segment has at most: it is in memory a few times while it is written, read or put together
/// with others. Little in tests.
const PIECE_BYTES: usize = if cfg!(test) { 1 << 20 } else { 8 << 20 };
/// Bytes of the length before a chunk.
const LENGTH: usize = 8;
/// What a message of a stream begins with.
const CONTINUES: u32 = u32::MAX;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    key: usize,
    extent: HeadExtent,
    /// Of changes: rows whose first column lies below are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HeadExtent {
    Whole,
    Rest,
    Changes,
}

/// The bytes of a segment.
pub(super) fn encode(parts: &[StatePart]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for part in parts {
        let (extent, below, gone) = match &part.extent {
            Extent::Whole => (HeadExtent::Whole, None, None),
            Extent::Rest => (HeadExtent::Rest, None, None),
            Extent::Changes(gone) => (HeadExtent::Changes, gone.below, Some(&gone.keys)),
        };
        let head = Head { name: part.name.clone(), key: part.key, extent, below };
        add_chunk(&mut bytes, |chunk| serde_json::to_writer(chunk, &head).map_err(|error| error.to_string()))?;
        add_chunk(&mut bytes, |chunk| encode_batch(&part.batch, chunk))?;
        add_chunk(&mut bytes, |chunk| gone.map_or(Ok(()), |keys| encode_batch(keys, chunk)))?;
    }
    Ok(bytes)
}

/// Adds what `write` writes, and its length before it.
fn add_chunk(bytes: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
    let start = bytes.len() + LENGTH;
    bytes.resize(start, 0);
    write(bytes)?;
    let length = (bytes.len() - start) as u64;
    bytes[start - LENGTH..start].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn encode_batch(batch: &RecordBatch, chunk: &mut Vec<u8>) -> Result<(), String> {
    let write = || {
        let mut writer = StreamWriter::try_new(chunk, &batch.schema())?;
        writer.write(batch)?;
        writer.finish()
    };
    write().map_err(|error: ArrowError| error.to_string())
}

/// The parts of a segment whose bytes are those that were written.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<StatePart>, String> {
    fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or("it ends too early")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|error| error.to_string())?;
        let (taken, rest) = rest.split_at_checked(length).ok_or("it ends too early")?;
        *bytes = rest;
        Ok(taken)
    }
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let head: Head = serde_json::from_slice(take(&mut bytes)?).map_err(|error| error.to_string())?;
        let batch = decode_batch(take(&mut bytes)?)?;
        let gone = take(&mut bytes)?;
        if head.key > batch.num_columns() {
            return Err(format!("`{}` has fewer columns than its key", head.name));
        }
        let extent = match head.extent {
            HeadExtent::Whole => Extent::Whole,
            HeadExtent::Rest => Extent::Rest,
            HeadExtent::Changes => Extent::Changes(Gone { keys: decode_batch(gone)?, below: head.below }),
        };
        parts.push(StatePart { name: head.name, key: head.key, batch, extent });
    }
    Ok(parts)
}

fn decode_batch(stream: &[u8]) -> Result<RecordBatch, String> {
    check_lengths(stream).ok_or("it is no stream of rows")?;
    let read = || {
        let mut reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|error| error.to_string())?;
        reader.next().ok_or("a part has no rows")?.map_err(|error| error.to_string())
    };
    // Arrow's reader panics on some of what no writer writes.
    std::panic::catch_unwind(read).unwrap_or_else(|_| Err("it is no stream of rows".to_string()))
}

/// Looks whether a stream is as long as its messages say: the reader makes room for what it is told of.
fn check_lengths(mut stream: &[u8]) -> Option<()> {
    let word = |bytes: &mut &[u8]| {
        let (word, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        Some(u32::from_le_bytes(*word))
    };
    loop {
        if word(&mut stream)? != CONTINUES {
            return None;
        }
        let length = word(&mut stream)? as usize;
        if length == 0 {
            return stream.is_empty().then_some(());
        }
        let (message, rest) = stream.split_at_checked(length)?;
        let body = root_as_message(message).ok()?.bodyLength();
        stream = rest.get(usize::try_from(body).ok()?..)?;
    }
}

/// About how many bytes the rows and keys of a part take.
pub(super) fn size_of(part: &StatePart) -> usize {
    let gone = match &part.extent {
        Extent::Changes(gone) => rows::bytes_of(&gone.keys),
        Extent::Whole | Extent::Rest => 0,
    };
    rows::bytes_of(&part.batch) + gone
}

/// Parts as segments hold them: small ones together, a large one cut into pieces.
#[derive(Debug, Default)]
pub(super) struct Packer {
    waiting: Vec<StatePart>,
    bytes: usize,
}

impl Packer {
    /// Takes all parts of a run, of which more than one segment may become: then the first begins with a part of each
    /// table, so that who reads piece by piece knows them all from the beginning.
    pub(super) fn add_run(&mut self, mut parts: Vec<StatePart>) -> Vec<Vec<StatePart>> {
        let mut full = Vec::new();
        if parts.iter().map(size_of).sum::<usize>() > PIECE_BYTES {
            for part in &mut parts {
                let rest = part.extent.rest();
                let extent = std::mem::replace(&mut part.extent, rest);
                full.extend(self.add(StatePart { extent, ..part.without_rows() }));
            }
        }
        full.extend(parts.into_iter().flat_map(|part| self.add(part)));
        full
    }

    /// Takes a part; gives segments that are full.
    pub(super) fn add(&mut self, part: StatePart) -> Vec<Vec<StatePart>> {
        let mut full = Vec::new();
        let mut extent = part.extent;
        let rows = part.batch.num_rows();
        let pieces = (rows::bytes_of(&part.batch) / PIECE_BYTES + 1).min(rows.max(1));
        let most = rows.div_ceil(pieces);
        for piece in 0..pieces {
            let start = (piece * most).min(rows);
            let batch = part.batch.slice(start, most.min(rows - start));
            // Keys of one part differ, so pieces of changes are changes: the first says what is gone.
            let rest = extent.rest();
            let this = StatePart { name: part.name.clone(), key: part.key, batch, extent };
            extent = rest;
            let bytes = size_of(&this);
            if self.bytes + bytes > PIECE_BYTES {
                full.extend(self.finish());
            }
            self.bytes += bytes;
            self.waiting.push(this);
        }
        full
    }

    /// What is left, if there is anything.
    pub(super) fn finish(&mut self) -> Option<Vec<StatePart>> {
        self.bytes = 0;
        Some(std::mem::take(&mut self.waiting)).filter(|parts| !parts.is_empty())
    }
}
