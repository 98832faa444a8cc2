//! Keys that leave and come back, files that are given back, and disks that are full.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{AsArray, Int64Array, LargeBinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use crate::operator::rows;

/// Files in memory, with room for so many bytes in all.
#[derive(Debug)]
pub(crate) struct Memory {
    room: Arc<AtomicUsize>,
    files: AtomicUsize,
}

#[derive(Debug)]
struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
    room: Arc<AtomicUsize>,
}

impl Memory {
    pub(crate) fn new(room: usize) -> Arc<Self> {
        Arc::new(Memory { room: Arc::new(AtomicUsize::new(room)), files: AtomicUsize::new(0) })
    }
}

impl Scratch for Memory {
    fn file(&self) -> Result<Arc<dyn ScratchFile>> {
        self.files.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(MemoryFile { bytes: Mutex::default(), room: Arc::clone(&self.room) }))
    }
}

impl ScratchFile for MemoryFile {
    fn write_at(&self, written: &[u8], offset: u64) -> Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + written.len();
        let more = end.saturating_sub(bytes.len());
        if self.room.load(Ordering::SeqCst) < more {
            return Err(Error::from(ErrorKind::StorageFull));
        }
        self.room.fetch_sub(more, Ordering::SeqCst);
        let length = end.max(bytes.len());
        bytes.resize(length, 0);
        bytes[offset as usize..end].copy_from_slice(written);
        Ok(())
    }

    fn read_at(&self, room: &mut [u8], offset: u64) -> Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let left = &bytes[(offset as usize).min(bytes.len())..];
        // Reads may be short.
        let read = left.len().min(room.len()).min(100);
        room[..read].copy_from_slice(&left[..read]);
        Ok(read)
    }
}

fn key(number: i64) -> Vec<u8> {
    rows::converter([&DataType::Int64])
        .unwrap()
        .convert_columns(&[Arc::new(Int64Array::from(vec![number]))])
        .unwrap()
        .row(0)
        .data()
        .to_vec()
}

/// Rows of the table, each a key and a text.
fn part(table: &str, rows: &[(i64, String)]) -> StatePart {
    let schema = Schema::new(vec![Field::new("key", DataType::Int64, true), Field::new("text", DataType::Utf8, false)]);
    let keys = Int64Array::from_iter_values(rows.iter().map(|(key, _)| *key));
    let texts = StringArray::from_iter_values(rows.iter().map(|(_, text)| text));
    StatePart::whole(table, 1, RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(texts)]).unwrap())
}

fn rows_of(parts: &[StatePart]) -> BTreeMap<(String, i64), String> {
    let of_part = |part: &StatePart| {
        let keys = part.batch.column(0).as_primitive::<Int64Type>().clone();
        let texts = part.batch.column(1).as_string::<i32>().clone();
        let name = part.name.clone();
        (0..keys.len())
            .map(move |row| ((name.clone(), keys.value(row)), texts.value(row).to_string()))
            .collect::<Vec<_>>()
    };
    parts.iter().flat_map(of_part).collect()
}

fn cold() -> Cold {
    Cold::new(KeyColumns::of(&[DataType::Int64]).unwrap())
}

fn take(cold: &mut Cold, keys: &[i64]) -> BTreeMap<(String, i64), String> {
    let keys: Vec<Vec<u8>> = keys.iter().map(|number| key(*number)).collect();
    rows_of(&cold.take(keys.iter().map(Vec::as_slice)).unwrap())
}

fn text(key: i64, length: usize) -> String {
    format!("{key:>length$}")
}

#[test]
fn keys_come_back_with_the_rows_of_all_tables_and_only_once() {
    let (scratch, mut cold) = (Memory::new(usize::MAX) as Arc<dyn Scratch>, cold());
    let small: Vec<_> = (0..500).map(|key| (key, text(key, 8))).collect();
    let large: Vec<_> = (0..500).step_by(7).map(|key| (key, text(key, 3_000))).collect();
    cold.put(&[part("small", &small), part("large", &large)], &scratch).unwrap();
    assert_eq!((cold.size().keys, cold.size().rows), (500, 572));
    let found = take(&mut cold, &[14, 3, 900, 14]);
    let expected = [(("large", 14), text(14, 3_000)), (("small", 3), text(3, 8)), (("small", 14), text(14, 8))];
    assert_eq!(found, expected.into_iter().map(|((name, key), text)| ((name.to_string(), key), text)).collect());
    assert_eq!(take(&mut cold, &[14, 3]), BTreeMap::new());
    assert_eq!((cold.size().keys, cold.size().rows), (498, 569));
}

#[test]
fn keys_come_back_by_their_hashes_and_bytes_are_counted_by_table() {
    let (scratch, mut cold) = (Memory::new(usize::MAX) as Arc<dyn Scratch>, cold());
    let small: Vec<_> = (0..10).map(|key| (key, text(key, 8))).collect();
    let large: Vec<_> = (0..10).step_by(5).map(|key| (key, text(key, 3_000))).collect();
    let hashes = cold.put(&[part("small", &small), part("large", &large)], &scratch).unwrap();
    assert_eq!((hashes.len(), &hashes[10..]), (12, &[hashes[0], hashes[5]][..]));
    let bytes = |cold: &Cold| ["small", "large"].map(|table| cold.bytes_of(|name| name == table));
    let [of_small, of_large] = bytes(&cold);
    assert!(of_small < 1_000 && of_large > 6_000, "{of_small} {of_large}");
    // Two minutes of the clock may bring the same hash.
    let back = cold.take_hashed(&[hashes[0], hashes[1], hashes[0]]).unwrap();
    assert_eq!(back.iter().map(|part| part.batch.num_rows()).sum::<usize>(), 3);
    let back = rows_of(&back);
    assert_eq!(
        back.into_keys().map(|(name, key)| format!("{name} {key}")).collect::<Vec<_>>(),
        ["large 0", "small 0", "small 1"]
    );
    assert_eq!(bytes(&cold), [of_small * 8 / 10, of_large / 2]);
    cold.forget_table("large");
    assert_eq!(bytes(&cold), [of_small * 8 / 10, 0]);
}

#[test]
fn view_shows_what_was_out_when_it_was_taken() {
    let (scratch, mut cold) = (Memory::new(usize::MAX) as Arc<dyn Scratch>, cold());
    let kept: Vec<_> = (0..3_000).map(|key| (key, text(key, 100))).collect();
    cold.put(&[part("kept", &kept), part("other", &kept)], &scratch).unwrap();
    take(&mut cold, &[5]);
    let view = cold.view(&["kept".to_string()]);
    take(&mut cold, &(0..2_900).collect::<Vec<_>>());
    cold.put(&[part("kept", &[(7, "new".to_string())])], &scratch).unwrap();
    let pieces: Vec<StatePart> = view.flat_map(std::result::Result::unwrap).collect();
    let expected = kept.into_iter().filter(|(key, _)| *key != 5).map(|(key, text)| (("kept".to_string(), key), text));
    assert_eq!(rows_of(&pieces), expected.collect());
}

#[test]
fn forgotten_table_stays_forgotten_though_another_has_its_name() {
    let (scratch, mut cold) = (Memory::new(usize::MAX) as Arc<dyn Scratch>, cold());
    cold.put(&[part("member", &[(1, "old".to_string()), (2, "old".to_string())])], &scratch).unwrap();
    cold.forget_table("member");
    assert_eq!(take(&mut cold, &[1]), BTreeMap::new());
    cold.put(&[part("member", &[(1, "new".to_string())])], &scratch).unwrap();
    let pieces: Vec<StatePart> = cold.view(&["member".to_string()]).flat_map(std::result::Result::unwrap).collect();
    assert_eq!(rows_of(&pieces), BTreeMap::from([(("member".to_string(), 1), "new".to_string())]));
    assert_eq!(take(&mut cold, &[1, 2]), rows_of(&pieces));
}

#[test]
fn files_are_given_back_when_most_of_their_keys_are_in_memory_again() {
    let (scratch, mut cold) = (Memory::new(usize::MAX) as Arc<dyn Scratch>, cold());
    let length = 500;
    for round in 0..40 {
        let left: Vec<_> = (0..1_000).map(|key| (key, format!("{}{round}", text(key, length)))).collect();
        cold.put(&[part("kept", &left)], &scratch).unwrap();
        // One in ten stays out, so that no file is ever empty by itself.
        let back: Vec<i64> = (0..1_000).filter(|key| round == 39 || (key + round) % 10 != 0).collect();
        take(&mut cold, &back);
        let stayed: Vec<i64> = (0..1_000).filter(|key| round != 39 && (key + round) % 10 == 0).collect();
        let found = take(&mut cold, &stayed);
        assert_eq!(found.len(), stayed.len());
        cold.put(
            &[part(
                "kept",
                &found.into_iter().map(|((_, key), text)| (key + 1_000 * (round + 1), text)).collect::<Vec<_>>(),
            )],
            &scratch,
        )
        .unwrap();
    }
    let held = cold.size().keys * (length + 50);
    assert!(cold.size().bytes < 3 * held + (1 << 18), "{} bytes for {held}", cold.size().bytes);
    let all: Vec<i64> = (0..50_000).collect();
    assert_eq!(take(&mut cold, &all).len(), 3_900);
    assert_eq!(cold.size(), ColdSize { memory: cold.size().memory, ..ColdSize::default() });
}

#[test]
fn full_disk_leaves_all_as_it_was() {
    let memory = Memory::new(100_000);
    let (scratch, mut cold) = (Arc::clone(&memory) as Arc<dyn Scratch>, cold());
    let first: Vec<_> = (0..100).map(|key| (key, text(key, 100))).collect();
    cold.put(&[part("kept", &first)], &scratch).unwrap();
    let before = cold.size();
    let second: Vec<_> = (100..2_000).map(|key| (key, text(key, 100))).collect();
    let error = cold.put(&[part("kept", &second)], &scratch).unwrap_err().to_string();
    assert_eq!(error, "state cannot be kept outside of memory: no storage space");
    assert_eq!(ColdSize { memory: before.memory, ..cold.size() }, before);
    assert_eq!(take(&mut cold, &[150, 7]).len(), 1);
    memory.room.store(usize::MAX, Ordering::SeqCst);
    cold.put(&[part("kept", &second)], &scratch).unwrap();
    assert_eq!(take(&mut cold, &(0..2_000).collect::<Vec<_>>()).len(), 1_999);
}

#[test]
fn encoded_keys_are_their_own_bytes() {
    let (scratch, mut cold) = (Memory::new(usize::MAX) as Arc<dyn Scratch>, Cold::new(KeyColumns::Encoded));
    let schema = Schema::new(vec![
        Field::new("key", DataType::LargeBinary, false),
        Field::new("row", DataType::LargeBinary, false),
    ]);
    let keys = LargeBinaryArray::from_iter_values([b"".as_slice(), b"a", b"a"]);
    let kept = LargeBinaryArray::from_iter_values([b"x".as_slice(), b"y", b""]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(kept)]).unwrap();
    cold.put(&[StatePart::whole("rows", 2, batch)], &scratch).unwrap();
    assert_eq!(cold.size().keys, 2);
    let parts = cold.take([b"a".as_slice(), b"b"].into_iter()).unwrap();
    let found: Vec<&[u8]> = parts[0].batch.column(1).as_binary::<i64>().iter().flatten().collect();
    assert_eq!(found, [b"y".as_slice(), b""]);
    assert_eq!(cold.take([b"".as_slice()].into_iter()).unwrap()[0].batch.num_rows(), 1);
    assert!(cold.is_empty());
}
