//! What is written is read back, whatever becomes of the files; and what cannot be read is told, never misread.

mod mutated;
mod objects;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::config::Keeping;
use crate::engine::stop::Stop;
use crate::operator::state::Gone;
use crate::source::dead_letter::DeadLetters;

const OPERATOR: &str = "abc123";
const KEEPING: Keeping = Keeping { count: 2, age: Duration::ZERO };

/// A place in memory, of which the next writes may fail.
#[derive(Debug, Default)]
struct Memory {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    failures: AtomicUsize,
}

impl Place for Memory {
    fn describe(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn put(&self, name: &str, bytes: &Bytes) -> Result<(), CheckpointError> {
        let failing = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(CheckpointError::Io { file: self.describe(name), source });
        }
        self.files.lock().unwrap().insert(name.to_string(), bytes.to_vec());
        Ok(())
    }

    fn get(&self, name: &str, most: u64) -> Result<Vec<u8>, CheckpointError> {
        let damaged = |reason: &str| CheckpointError::Damaged { file: self.describe(name), reason: reason.to_string() };
        let bytes = self.files.lock().unwrap().get(name).cloned().ok_or_else(|| damaged("it is missing"))?;
        if bytes.len() as u64 > most { Err(damaged("it is longer than it should be")) } else { Ok(bytes) }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, CheckpointError> {
        let prefix = format!("{folder}/");
        let names = self.files.lock().unwrap();
        Ok(names.keys().filter_map(|name| Some(name.strip_prefix(&prefix)?.to_string())).collect())
    }

    fn remove(&self, names: &[String]) -> Result<(), CheckpointError> {
        let mut files = self.files.lock().unwrap();
        names.iter().for_each(|name| drop(files.remove(name)));
        Ok(())
    }
}

fn in_memory() -> (Arc<Memory>, Checkpoints) {
    let memory = Arc::new(Memory::default());
    (Arc::clone(&memory), Checkpoints::at(memory))
}

/// Of no stream.
fn no_letters() -> Arc<DeadLetters> {
    Arc::new(DeadLetters::new("nowhere", 0, Arc::new(|| 0)))
}

fn writer(checkpoints: &Checkpoints) -> Writer {
    Writer::open(checkpoints.clone(), KEEPING, BTreeMap::new()).unwrap()
}

fn batch(columns: &[&[i64]]) -> RecordBatch {
    let named = columns.iter().enumerate().map(|(index, values)| {
        let field = Field::new(index.to_string(), DataType::Int64, false);
        (field, Arc::new(Int64Array::from(values.to_vec())) as arrow::array::ArrayRef)
    });
    let (fields, columns): (Vec<Field>, Vec<_>) = named.unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn rows(rows: &[(i64, i64)]) -> RecordBatch {
    let (keys, values): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
    batch(&[&keys, &values])
}

fn whole(table: &str, of: &[(i64, i64)]) -> StatePart {
    StatePart::whole(table, 1, rows(of))
}

fn changes(table: &str, of: &[(i64, i64)], gone: &[i64], below: Option<i64>) -> StatePart {
    StatePart::changes(table, 1, rows(of), Gone { keys: batch(&[gone]), below })
}

fn taken(epoch: u64, parts: Vec<StatePart>) -> Taken {
    let plan = TagVersion { plan: "f00d".to_string(), ..TagVersion::default() };
    let tags = BTreeMap::from([("spend".to_string(), plan)]);
    let position = Position { epoch, clock: 7, tags, ..Position::default() };
    let state = State::from([(OPERATOR.to_string(), parts)]);
    Taken { position, state, further: BTreeMap::new() }
}

fn save(writer: &mut Writer, epoch: u64, parts: Vec<StatePart>) {
    let manifest = writer.write(taken(epoch, parts), epoch as i64).unwrap();
    writer.publish(manifest).unwrap();
    assert!(writer.join_runs(&|| false).unwrap());
}

type Tables = BTreeMap<String, BTreeMap<i64, i64>>;

fn tables(state: &State) -> Tables {
    let mut tables = Tables::new();
    for part in &state[OPERATOR] {
        let columns: Vec<_> = part.batch.columns().iter().map(|column| column.as_primitive::<Int64Type>()).collect();
        let table = tables.entry(part.name.clone()).or_default();
        for row in 0..part.batch.num_rows() {
            assert!(table.insert(columns[0].value(row), columns[1].value(row)).is_none(), "a key is there twice");
        }
    }
    tables
}

fn read(checkpoints: &Checkpoints, manifest: &Manifest) -> Result<State, CheckpointError> {
    let mut state = State::new();
    for piece in checkpoints.pieces(manifest) {
        let piece = piece?;
        state.entry(piece.operator.to_string()).or_default().extend(piece.parts);
    }
    Ok(state)
}

/// The newest checkpoint that is whole, and what is wrong with newer ones.
fn newest(checkpoints: &Checkpoints) -> (Option<(u64, State)>, Vec<String>) {
    let mut skipped = Vec::new();
    for epoch in checkpoints.epochs().unwrap() {
        match checkpoints.manifest(epoch).and_then(|manifest| read(checkpoints, &manifest)) {
            Ok(state) => return (Some((epoch, state)), skipped),
            Err(error) => skipped.push(error.to_string()),
        }
    }
    skipped.extend(checkpoints.of_old_formats().unwrap().iter().map(ToString::to_string));
    (None, skipped)
}

/// The same, with the tables of the one operator.
fn latest(checkpoints: &Checkpoints) -> (Option<(u64, Tables)>, Vec<String>) {
    let (found, skipped) = newest(checkpoints);
    (found.map(|(epoch, state)| (epoch, tables(&state))), skipped)
}

#[test]
fn newest_checkpoint_is_read_back_and_old_ones_are_dropped_with_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let mut writer = writer(&checkpoints);
    for epoch in [3, 20, 100] {
        save(&mut writer, epoch, vec![whole("a", &[(1, epoch as i64)]), whole("b", &[])]);
    }
    let (found, skipped) = latest(&checkpoints);
    let (epoch, tables) = found.unwrap();
    assert_eq!((epoch, skipped.len(), tables["a"][&1], tables["b"].len()), (100, 0, 100, 0));
    for folder in [MANIFESTS, SEGMENTS] {
        assert_eq!(checkpoints.place.list(folder).unwrap().len(), 2, "{folder}");
    }
}

#[test]
fn younger_checkpoints_are_kept_however_many_there_are() {
    let (_, checkpoints) = in_memory();
    let keeping = Keeping { count: 1, age: Duration::from_millis(50) };
    let mut writer = Writer::open(checkpoints.clone(), keeping, BTreeMap::new()).unwrap();
    for epoch in [10, 60, 70, 110, 140] {
        save(&mut writer, epoch, vec![whole("a", &[(1, 1)])]);
    }
    let epochs = checkpoints.manifests().unwrap().into_iter().map(|manifest| manifest.unwrap().position.epoch);
    assert_eq!(epochs.collect::<Vec<_>>(), [140, 110]);
}

#[test]
fn random_changes_over_a_base_are_the_state_after_them() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let (memory, checkpoints) = in_memory();
        let mut writer = writer(&checkpoints);
        let mut model = Tables::from([("a".to_string(), BTreeMap::new()), ("b".to_string(), BTreeMap::new())]);
        let mut least = 0;
        for epoch in 1..60 {
            let mut parts = Vec::new();
            for (name, table) in &mut model {
                if epoch == 1 || random.random_bool(0.05) {
                    // As a tag that has joined: a table is written whole among changes of others.
                    table.insert(epoch + 1_000, epoch);
                    parts.push(whole(name, &table.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>()));
                    continue;
                }
                least += random.random_range(0..3);
                let below = random.random_bool(0.5).then_some(least);
                let count = random.random_range(0..20);
                let gone: Vec<i64> = (0..count / 2).map(|_| random.random_range(least..1_100)).collect();
                let news: BTreeMap<i64, i64> = (0..count).map(|_| (random.random_range(least..1_100), epoch)).collect();
                if let Some(below) = below {
                    table.retain(|key, _| *key >= below);
                }
                table.retain(|key, _| !gone.contains(key));
                table.extend(&news);
                parts.push(changes(name, &news.into_iter().collect::<Vec<_>>(), &gone, below));
            }
            save(&mut writer, epoch as u64, parts);
            if random.random_bool(0.2) {
                let manifest = checkpoints.manifest(epoch as u64).unwrap();
                writer = Writer::open(checkpoints.clone(), KEEPING, manifest.operators).unwrap();
            }
            let (found, skipped) = latest(&checkpoints);
            assert_eq!((found, skipped.len()), (Some((epoch as u64, model.clone())), 0), "seed {seed}");
            let runs = checkpoints.manifest(epoch as u64).unwrap().operators[OPERATOR].runs.len();
            assert!(runs <= 12, "{runs} runs after {epoch} checkpoints");
        }
        // What two manifests, and the runs that were put together last, need.
        let files = memory.files.lock().unwrap().len();
        assert!(files < 40, "{files} files");
    }
}

#[test]
fn a_large_table_is_cut_into_pieces_and_put_together_again() {
    let (_, checkpoints) = in_memory();
    let mut writer = writer(&checkpoints);
    let count = 200_000;
    let all: Vec<(i64, i64)> = (0..count).map(|key| (key, 0)).collect();
    save(&mut writer, 1, vec![whole("a", &all), whole("b", &[(1, 1)])]);
    let pieces = |epoch| checkpoints.manifest(epoch).unwrap().operators[OPERATOR].runs[0].segments.len();
    assert!(pieces(1) > 2);
    let some: Vec<(i64, i64)> = (0..count).step_by(2).map(|key| (key, 2)).collect();
    save(&mut writer, 2, vec![changes("a", &some, &[1], None), changes("b", &[], &[1], None)]);
    save(&mut writer, 3, vec![changes("a", &[(3, 3)], &[], None), changes("b", &[(2, 2)], &[], None)]);
    assert!(pieces(3) > 2);
    // No piece is much larger than a file, and each has all tables.
    let manifest = checkpoints.manifest(3).unwrap();
    let found = checkpoints.pieces(&manifest).map(|piece| piece.unwrap().parts).collect::<Vec<_>>();
    assert!(found.len() > 2, "{}", found.len());
    for parts in &found {
        assert!(parts.iter().map(segment::size_of).sum::<usize>() < 3 << 20);
        assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<BTreeSet<_>>(), BTreeSet::from(["a", "b"]));
    }
    let (_, tables) = latest(&checkpoints).0.unwrap();
    let table = &tables["a"];
    assert_eq!((table.len() as i64, table.get(&1), table[&2], table[&3], table[&5]), (count - 1, None, 2, 3, 0));
    assert_eq!(tables["b"], BTreeMap::from([(2, 2)]));
}

#[test]
fn damaged_checkpoint_is_skipped_for_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let mut writer = writer(&checkpoints);
    let many: Vec<(i64, i64)> = (0..100).map(|key| (key, key)).collect();
    save(&mut writer, 1, vec![whole("a", &many)]);
    save(&mut writer, 2, vec![changes("a", &[(1, 2)], &[], None)]);
    let segment = checkpoints.manifest(2).unwrap().operators[OPERATOR].runs[1].segments[0].name.clone();
    let file = folder.path().join("checkpoints/segments").join(segment);
    let sound = std::fs::read(&file).unwrap();
    let mut bytes = sound.clone();
    bytes[40] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let (found, skipped) = latest(&checkpoints);
    assert_eq!(found.unwrap().0, 1);
    assert!(skipped[0].ends_with("its checksum differs from the manifest's"), "{skipped:?}");

    std::fs::write(&file, [sound.as_slice(), b"more"].concat()).unwrap();
    assert!(latest(&checkpoints).1[0].ends_with("it is longer than it should be"));
    std::fs::write(&file, &sound[..40]).unwrap();
    assert!(latest(&checkpoints).1[0].ends_with("it is shorter than it should be"));
    std::fs::remove_file(&file).unwrap();
    assert!(latest(&checkpoints).1[0].ends_with("it is missing"));

    let manifest = folder.path().join("checkpoints/manifests").join(format!("{:020}", 2));
    let text = std::fs::read_to_string(&manifest).unwrap().replace("\"clock\":7", "\"clock\":8");
    std::fs::write(&manifest, text).unwrap();
    assert!(latest(&checkpoints).1[0].ends_with("its checksum differs from what it says"));
    std::fs::copy(manifest.with_file_name(format!("{:020}", 1)), &manifest).unwrap();
    assert!(latest(&checkpoints).1[0].ends_with("it is the manifest of epoch 1"));
}

#[test]
fn checkpoint_of_another_format_is_refused_by_name_and_its_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    save(&mut writer(&checkpoints), 1, vec![whole("a", &[(1, 1)])]);
    let manifest = folder.path().join("checkpoints/manifests").join(format!("{:020}", 1));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("checkpoint 3 ", "checkpoint 9 ", 1)).unwrap();
    let old = folder.path().join("checkpoints").join(format!("{:020}", 7));
    std::fs::create_dir(&old).unwrap();
    std::fs::write(old.join("manifest.json"), r#"{"version": 2, "epoch": 7}"#).unwrap();
    drop(writer(&checkpoints));
    let (found, skipped) = latest(&checkpoints);
    assert_eq!(found, None);
    assert!(skipped[0].ends_with("the checkpoint has format 9, this tagflow reads format 3"), "{skipped:?}");
    assert!(skipped[1].ends_with("has format 2, this tagflow reads format 3"), "{skipped:?}");
    assert_eq!(checkpoints.place.list(SEGMENTS).unwrap().len(), 1);
}

#[test]
fn a_manifest_of_format_3_as_it_was_first_written_is_read() {
    let body = r#"{"position":{"epoch":5,"clock":7,"watermarks":{},"offsets":{"orders":{"0":3}},"tags":{"spend":{"plan":"f00d","version":2,
        "beginnings":{}}}},"written_at":9,"operators":{"abc123":{"tables":["a"],"runs":[{"segments":[{"name":"00-1","bytes":3,
        "crc32":4}]}]}}}"#;
    let text = format!("tagflow-checkpoint 3 {} {:08x}\n{body}", body.len(), crc32fast::hash(body.as_bytes()));
    let manifest = Manifest::decode(text.as_bytes()).unwrap();
    assert_eq!((manifest.position.epoch, manifest.position.tags["spend"].version, manifest.written_at), (5, 2, 9));
    assert_eq!((manifest.store.as_str(), manifest.position.state_dir.as_str()), ("", ""));
    assert_eq!(manifest.segments().map(|segment| segment.name.as_str()).collect::<Vec<_>>(), ["00-1"]);
}

#[test]
fn what_a_crash_has_left_is_collected_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path());
    let mut first = writer(&checkpoints);
    save(&mut first, 1, vec![whole("a", &[(1, 1)])]);
    // Segments without a manifest, and files that were not even finished.
    first.write(taken(2, vec![changes("a", &[(2, 2)], &[], None)]), 2).unwrap();
    for name in ["segments/half.unfinished", "manifests/00000000000000000002.unfinished"] {
        std::fs::write(folder.path().join("checkpoints").join(name), "half").unwrap();
    }
    drop(writer(&checkpoints));
    assert_eq!(checkpoints.place.list(SEGMENTS).unwrap().len(), 1);
    assert_eq!(checkpoints.place.list(MANIFESTS).unwrap().len(), 1);
    assert_eq!(latest(&checkpoints).0.unwrap().0, 1);
}

#[test]
fn going_back_makes_an_older_checkpoint_the_newest() {
    let (_, checkpoints) = in_memory();
    let mut writer = writer(&checkpoints);
    save(&mut writer, 1, vec![whole("a", &[(1, 1)])]);
    save(&mut writer, 2, vec![whole("a", &[(1, 2)])]);
    assert!(checkpoints.go_back_to(5).is_err());
    checkpoints.go_back_to(1).unwrap();
    assert_eq!(latest(&checkpoints).0.unwrap().0, 1);
}

#[test]
fn where_the_store_has_gone_back_later_checkpoints_go_and_new_ones_stay() {
    let (_, checkpoints) = in_memory();
    let mut before = writer(&checkpoints);
    for epoch in [10, 20, 30] {
        save(&mut before, epoch, vec![whole("a", &[(1, epoch as i64)])]);
    }
    let mut after = writer(&checkpoints);
    for epoch in [16, 17] {
        save(&mut after, epoch, vec![whole("a", &[(1, epoch as i64)])]);
        assert_eq!(latest(&checkpoints).0.unwrap().0, epoch);
    }
    assert_eq!(checkpoints.epochs().unwrap()[0], 17);
    assert!(checkpoints.manifests().unwrap().iter().all(|found| found.as_ref().unwrap().position.epoch < 20));
}

#[test]
fn changes_of_what_is_not_there_are_refused() {
    let (_, checkpoints) = in_memory();
    let refused = writer(&checkpoints).write(taken(1, vec![changes("a", &[(1, 1)], &[], None)]), 1);
    assert!(refused.unwrap_err().to_string().ends_with("its changes have nothing to rest on"));
}

#[test]
fn a_checkpoint_is_there_once_the_store_has_its_epoch_and_after_failures() {
    let (memory, checkpoints) = in_memory();
    memory.failures.store(2, Ordering::SeqCst);
    let stop = Arc::new(Stop::new(Arc::default()));
    let mut thread =
        CheckpointThread::start(&checkpoints, KEEPING, BTreeMap::new(), Arc::clone(&stop), no_letters()).unwrap();
    thread.write(taken(5, vec![whole("a", &[(1, 1)])]), 1);
    assert!(thread.is_busy());
    thread.committed(4);
    while checkpoints.place.list(SEGMENTS).unwrap().is_empty() {
        assert!(thread.saved(Duration::from_millis(5)).is_none());
    }
    assert_eq!(latest(&checkpoints).0, None);
    thread.committed(5);
    let saved = thread.saved(Duration::from_secs(60)).unwrap();
    assert_eq!((saved.epoch, saved.is_sound, thread.trouble()), (5, true, None));
    assert_eq!(latest(&checkpoints).0.unwrap().0, 5);

    // A place that stays away ends with the daemon.
    memory.failures.store(usize::MAX, Ordering::SeqCst);
    thread.write(taken(6, vec![changes("a", &[(1, 6)], &[], None)]), 2);
    while thread.trouble().is_none() {
        assert!(thread.saved(Duration::from_millis(5)).is_none());
    }
    stop.begin();
    drop(thread);
    assert_eq!(latest(&checkpoints).0.unwrap().0, 5);
}

#[test]
fn a_checkpoint_that_cannot_be_written_for_good_is_told_and_no_other_is_awaited() {
    let (_, checkpoints) = in_memory();
    let stop = Arc::new(Stop::new(Arc::default()));
    let mut thread =
        CheckpointThread::start(&checkpoints, KEEPING, BTreeMap::new(), Arc::clone(&stop), no_letters()).unwrap();
    assert!(!thread.has_ended() && thread.failure().is_none());
    thread.write(taken(5, vec![changes("a", &[(1, 1)], &[], None)]), 1);
    let begun = Instant::now();
    let failure = loop {
        match thread.failure() {
            Some(failure) => break failure,
            None => assert!(begun.elapsed() < Duration::from_secs(60)),
        }
    };
    assert!(failure.to_string().ends_with("its changes have nothing to rest on"), "{failure}");
    assert!(thread.has_ended() && !thread.is_busy() && thread.failure().is_none());
}

#[test]
fn damage_of_files_that_are_put_together_asks_for_all_state() {
    let (memory, checkpoints) = in_memory();
    let mut writer = writer(&checkpoints);
    save(&mut writer, 1, vec![whole("a", &[(1, 1)])]);
    for (name, bytes) in memory.files.lock().unwrap().iter_mut() {
        if name.starts_with(SEGMENTS) {
            bytes[9] ^= 1;
        }
    }
    let manifest = writer.write(taken(2, vec![changes("a", &[(2, 2)], &[], None)]), 2).unwrap();
    writer.publish(manifest).unwrap();
    assert!(!writer.join_runs(&|| false).unwrap());
    save(&mut writer, 3, vec![whole("a", &[(1, 1), (2, 2)])]);
    assert_eq!(latest(&checkpoints).0.unwrap().0, 3);
}
