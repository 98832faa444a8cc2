//! Archives that the daemon writes, read back as the history of their streams.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;

use super::*;
use crate::delta::Lost;
use crate::source::archive::{Archive, ArchiveError, Writer};
use crate::source::decode::{Decoder, RawRecord};

const COLUMNS: &str = "archive = \"past\"\ntime = { column = \"at\" }\n[columns]\nid = \"BIGINT NOT NULL\"\n\
    amount = \"DECIMAL(12,2)\"\nshare = \"DOUBLE\"\nnote = \"VARCHAR\"\nis_paid = \"BOOLEAN\"\nday = \"DATE\"\n\
    at = { type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }\nseen = \"TIMESTAMP(6) WITH TIME ZONE\"\n\
    tags = \"VARCHAR ARRAY\"\nlines = \"STRUCT<sku VARCHAR, price DECIMAL(8,2)> ARRAY\"\n";
/// 23:30 of 2026-01-30 in Shanghai.
const EVENING: i64 = 1_769_787_000_000;
const HOUR: i64 = 3_600_000;

fn orders() -> Arc<Stream> {
    stream_of("Asia/Shanghai", COLUMNS)
}

fn order(id: i64, at: Option<i64>) -> String {
    let at = at.map_or_else(|| "null".to_string(), |at| at.to_string());
    format!(
        "{{\"id\":{id},\"amount\":{id}.5,\"share\":0.1,\"note\":\"n{id}\",\"is_paid\":true,\"day\":\"2026-01-02\",\"at\":{at},\
         \"seen\":\"2026-01-02T03:04:05.000006Z\",\"tags\":[\"a\",null],\"lines\":[{{\"sku\":\"s\",\"price\":\"1.5\"}}]}}"
    )
}

fn all_columns(stream: &Stream) -> Vec<usize> {
    (0..stream.schema().fields().len()).collect()
}

/// Records as a reader of the topic gives them: offset, broker time, event time.
fn batch(stream: &Stream, number: i32, records: &[(i64, Option<i64>, Option<i64>)], next: i64) -> SourceBatch {
    let mut decoder = Decoder::new(stream, &all_columns(stream)).unwrap();
    for (offset, timestamp, at) in records {
        let (payload, offset, timestamp) = (order(*offset, *at), *offset, *timestamp);
        let (key, payload) = (Some("key".as_bytes()), Some(payload.as_bytes()));
        decoder.decode(&RawRecord { topic: "t", partition: number, offset, timestamp, key, payload }).unwrap();
    }
    SourceBatch {
        partition: Arc::new(Partition { stream: "orders".to_string(), number }),
        batch: decoder.finish(),
        offsets: records.iter().map(|record| record.0).collect(),
        next_offset: next,
        end_offset: next,
        newest_timestamp: records.iter().filter_map(|record| record.1).max(),
        raw_bytes: 0,
    }
}

fn plain(stream: &Stream, number: i32, offsets: Range<i64>) -> SourceBatch {
    let records: Vec<_> = offsets.clone().map(|offset| (offset, Some(EVENING), Some(EVENING))).collect();
    batch(stream, number, &records, offsets.end)
}

fn writer(name: &str) -> Writer {
    Writer::new(name.to_string())
}

fn open(root: &Path, stream: &Arc<Stream>) -> Result<Archive, ArchiveError> {
    Archive::open(root, stream, &writer("writer"), 1 << 20)
}

/// The rows of a partition, in all columns, as history gives them.
fn rows(root: &Path, stream: &Stream, number: i32) -> RecordBatch {
    rows_of(&History::find(root, stream).unwrap(), stream, number)
}

fn rows_of(history: &History, stream: &Stream, number: i32) -> RecordBatch {
    let columns = all_columns(stream);
    let offsets = history.range(number).unwrap_or(0..0);
    let partition = Arc::new(Partition { stream: "orders".to_string(), number });
    let mut found = Vec::new();
    let given =
        history.read::<Infallible>(&Wanted { stream, columns: &columns, partition, offsets, end: 0 }, |batch| {
            found.push(batch.batch);
            Ok(())
        });
    given.unwrap().unwrap();
    concat_batches(&stream.schema(), &found).unwrap()
}

fn offsets(root: &Path, stream: &Stream, number: i32) -> Vec<i64> {
    let rows = rows(root, stream, number);
    rows.column_by_name(OFFSET).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn files(root: &Path) -> Vec<String> {
    let found = glob::glob(&format!("{}/past/dt=*/*", root.display())).unwrap();
    found.map(|file| file.unwrap().strip_prefix(root.join("past")).unwrap().to_str().unwrap().to_string()).collect()
}

#[test]
fn records_are_read_back_as_they_were_by_the_days_of_their_events() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let mut archive = open(root.path(), &stream).unwrap();
    archive.begin(0, 5);
    // The second is of the next day in Shanghai; one has no event time, one no time at all; 7 and 10 are no records.
    let zero = [
        (5, Some(EVENING), Some(EVENING)),
        (6, Some(EVENING), Some(EVENING + HOUR)),
        (8, Some(EVENING + 48 * HOUR), None),
        (9, None, None),
    ];
    let zero = batch(&stream, 0, &zero, 11);
    let one = plain(&stream, 1, 0..3);
    let expected = [zero.batch.clone(), one.batch.clone()];
    archive.take(zero).unwrap();
    archive.take(one).unwrap();
    assert_eq!(files(root.path()), [""; 0], "nothing is seen before it counts");
    archive.commit().unwrap();
    let name = "orders-00000000000000000002.parquet";
    let days = ["2026-01-30", "2026-01-31", "2026-02-01", "__HIVE_DEFAULT_PARTITION__"];
    assert_eq!(files(root.path()), days.map(|day| format!("dt={day}/{name}")));
    for (number, expected) in (0..).zip(expected) {
        assert_eq!(rows(root.path(), &stream, number), expected);
    }
    let history = History::find(root.path(), &stream).unwrap();
    assert_eq!((history.range(0), history.range(1)), (Some(5..11), Some(0..3)));
    // The same by the pattern that anybody would write.
    let by_pattern =
        stream_of("Asia/Shanghai", &COLUMNS.replace("archive = \"past\"", "history = \"past/**/*.parquet\""));
    assert_eq!(offsets(root.path(), &by_pattern, 0), [5, 6, 8, 9]);
    assert_eq!(History::find(root.path(), &by_pattern).unwrap().range(0), Some(5..11));
    // A column that came later is NULL where it is not, one that is gone is nowhere.
    let later =
        stream_of("Asia/Shanghai", "archive = \"past\"\n[columns]\nid = \"BIGINT NOT NULL\"\nlater = \"VARCHAR\"\n");
    let later = rows(root.path(), &later, 0);
    assert_eq!((later.num_rows(), later.column(1).null_count()), (4, 4));
}

#[test]
fn archive_goes_on_at_its_last_commit_and_what_is_of_none_is_removed() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let mut archive = open(root.path(), &stream).unwrap();
    archive.begin(0, 0);
    archive.take(plain(&stream, 0, 0..4)).unwrap();
    archive.commit().unwrap();
    archive.take(plain(&stream, 0, 4..9)).unwrap();
    assert_eq!((archive.next(), archive.taken()), (BTreeMap::from([(0, 4)]), BTreeMap::from([(0, 9)])));
    drop(archive);
    // As a crash leaves it: a file that is half written, and one of a commit that has not got its name.
    let hidden = unfinished(&root.path().join("past").join(&files(root.path())[0]));
    fs::rename(root.path().join("past").join(&files(root.path())[0]), &hidden).unwrap();
    let half = hidden.with_file_name(".orders-00000000000000000009.parquet.unfinished");
    fs::write(&half, "half").unwrap();
    assert_eq!(offsets(root.path(), &stream, 0), [0, 1, 2, 3], "it counts already");

    let mut archive = open(root.path(), &stream).unwrap();
    assert!(!half.exists() && !hidden.exists() && files(root.path()).len() == 1);
    assert_eq!(archive.next(), BTreeMap::from([(0, 4)]));
    archive.take(plain(&stream, 0, 4..6)).unwrap();
    archive.commit().unwrap();
    let number = archive.head().number;
    archive.commit().unwrap();
    assert_eq!(archive.head().number, number, "there was nothing to commit");
    assert_eq!(offsets(root.path(), &stream, 0), [0, 1, 2, 3, 4, 5]);
    // Days that somebody removes are gone, and nothing else.
    for file in files(root.path()) {
        fs::remove_file(root.path().join("past").join(file)).unwrap();
    }
    let archive = open(root.path(), &stream).unwrap();
    assert_eq!(archive.next(), BTreeMap::from([(0, 6)]));
    assert_eq!(History::find(root.path(), &stream).unwrap().range(0), None);
}

#[test]
fn file_that_gets_its_name_while_it_is_read_is_read() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let mut archive = open(root.path(), &stream).unwrap();
    archive.begin(0, 0);
    let records = plain(&stream, 0, 0..4);
    let expected = records.batch.clone();
    archive.take(records).unwrap();
    archive.commit().unwrap();
    let folder = root.path().join("past");
    let file = folder.join(&files(root.path())[0]);
    // After the look.
    fs::rename(&file, unfinished(&file)).unwrap();
    let history = History::find(root.path(), &stream).unwrap();
    fs::rename(unfinished(&file), &file).unwrap();
    assert_eq!(rows_of(&history, &stream, 0), expected);
    // During it, behind the list of the files.
    let commit = latest(&folder).unwrap().unwrap();
    assert_eq!(unseen(&folder, &commit, &BTreeSet::new()), std::slice::from_ref(&file));
    assert!(unseen(&folder, &commit, &BTreeSet::from([file])).is_empty());
}

#[test]
fn of_two_writers_the_later_one_writes_and_no_record_is_there_twice() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let (first, second) = (writer("first"), writer("second"));
    let mut old = Archive::open(root.path(), &stream, &first, 1 << 20).unwrap();
    old.begin(0, 0);
    old.take(plain(&stream, 0, 0..4)).unwrap();
    let mut new = Archive::open(root.path(), &stream, &second, 1 << 20).unwrap();
    new.begin(0, 0);
    new.take(plain(&stream, 0, 0..7)).unwrap();
    // Also when the one before wakes up after commits of which the first are cleared away by then.
    for next in 7..12 {
        new.take(plain(&stream, 0, next..next + 1)).unwrap();
        new.commit().unwrap();
    }
    assert!(matches!(old.commit(), Err(ArchiveError::Superseded(_))));
    // Nor does it take the archive back when it begins anew after a fault.
    let again = |writer: &Writer| Archive::open(root.path(), &stream, writer, 1 << 20);
    assert!(matches!(again(&first), Err(ArchiveError::Superseded(_))));
    assert_eq!(offsets(root.path(), &stream, 0), (0..12).collect::<Vec<_>>());
    new.take(plain(&stream, 0, 12..13)).unwrap();
    new.commit().unwrap();
    assert_eq!(offsets(root.path(), &stream, 0), (0..13).collect::<Vec<_>>());
    // The one that writes does, and a process that has not begun, and anybody where there is nothing any more.
    assert_eq!(again(&second).unwrap().next(), BTreeMap::from([(0, 13)]));
    assert_eq!(again(&writer("third")).unwrap().next(), BTreeMap::from([(0, 13)]));
    assert!(matches!(again(&second), Err(ArchiveError::Superseded(_))));
    fs::remove_dir_all(root.path().join("past")).unwrap();
    assert!(again(&first).unwrap().next().is_empty());
}

#[test]
fn files_that_came_after_the_commit_that_was_read_are_not_looked_at() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let mut archive = open(root.path(), &stream).unwrap();
    archive.begin(0, 0);
    archive.take(plain(&stream, 0, 0..4)).unwrap();
    archive.commit().unwrap();
    let file = root.path().join("past").join(&files(root.path())[0]);
    fs::write(file.with_file_name("orders-00000000000000000003.parquet"), "of a commit under way").unwrap();
    assert_eq!(offsets(root.path(), &stream, 0), [0, 1, 2, 3]);
}

#[test]
fn past_begins_behind_a_gap_unless_other_files_have_what_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let stream = stream_of("UTC", "archive = \"past\"\nhistory = \"a/*.parquet\"\n[columns]\namount = \"BIGINT\"\n");
    let mut archive = open(root.path(), &stream).unwrap();
    archive.begin(1, 0);
    let records = |offsets: Range<i64>| {
        let mut decoder = Decoder::new(&stream, &all_columns(&stream)).unwrap();
        let payload = Some("{\"amount\":1}".as_bytes());
        for offset in offsets.clone() {
            let record = RawRecord { topic: "t", partition: 1, offset, timestamp: None, key: None, payload };
            decoder.decode(&record).unwrap();
        }
        SourceBatch { batch: decoder.finish(), ..plain(&orders(), 1, offsets) }
    };
    archive.take(records(0..4)).unwrap();
    archive.lose(&Lost { stream: "orders".to_string(), partition: 1, first: 4, next: 8 }).unwrap();
    archive.take(records(8..10)).unwrap();
    archive.commit().unwrap();
    let range = || History::find(root.path(), &stream).unwrap().range(1);
    assert_eq!(range(), Some(8..10));
    let other = root.path().join("a/dump.parquet");
    write(&other, &[(1, 5, 1), (1, 7, 1)]);
    assert_eq!(range(), Some(8..10), "4 is missing still");
    write(&other, &[(1, 4, 1), (1, 7, 1)]);
    assert_eq!(range(), Some(0..10));
}

#[test]
fn archive_of_another_topic_is_neither_written_nor_read() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let mut archive = open(root.path(), &stream).unwrap();
    archive.recognise(Some("one".to_string())).unwrap();
    archive.begin(0, 0);
    archive.take(plain(&stream, 0, 0..4)).unwrap();
    archive.commit().unwrap();
    let mut archive = open(root.path(), &stream).unwrap();
    let history = History::find(root.path(), &stream).unwrap();
    let refused = archive.recognise(Some("two".to_string())).unwrap_err().to_string();
    assert!(refused.starts_with("topic \"t\" was deleted and made again since it was archived"), "{refused}");
    assert!(history.belongs(&stream, Some("two")).unwrap_err().ends_with(&refused));
    assert!(history.belongs(&stream, Some("one")).is_ok() && history.belongs(&stream, None).is_ok());
    for (other, reason) in [
        (Stream { topic: "u".to_string(), ..(*stream).clone() }, "it is the archive of topic \"t\", and not of \"u\""),
        (Stream { timezone: chrono_tz::UTC, ..(*stream).clone() }, "it was written in time zone Asia/Shanghai"),
    ] {
        let other = Arc::new(other);
        assert!(history.belongs(&other, None).unwrap_err().contains(reason));
        let refused = open(root.path(), &other).err().unwrap().to_string();
        assert!(refused.starts_with(reason), "{refused}");
    }
    // Nobody knows where files end of which the commits are gone.
    fs::remove_dir_all(root.path().join("past/_archive")).unwrap();
    let refused = open(root.path(), &stream).err().unwrap().to_string();
    assert!(refused.contains("holds files of an archive, and _archive beside them is gone"), "{refused}");
}

#[test]
fn records_of_very_many_days_are_of_several_commits_and_all_there() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let mut archive = open(root.path(), &stream).unwrap();
    archive.begin(0, 0);
    // Not in the order of days.
    let of_day = |offset: i64| (offset, None, Some(EVENING + (offset * 577 % 500) * 24 * HOUR));
    let records: Vec<_> = (0..500).map(of_day).collect();
    archive.take(batch(&stream, 0, &records, 500)).unwrap();
    archive.commit().unwrap();
    assert_eq!(files(root.path()).len(), 500);
    assert!(archive.head().number > 2, "{}", archive.head().number);
    assert_eq!(rows(root.path(), &stream, 0), batch(&stream, 0, &records, 500).batch);
}

#[test]
fn records_of_times_that_no_calendar_has_are_archived_all_the_same() {
    let of_calendar = [chrono::DateTime::<chrono::Utc>::MIN_UTC, chrono::DateTime::<chrono::Utc>::MAX_UTC];
    let [first, last] = of_calendar.map(|time| time.timestamp_millis());
    let records: Vec<_> =
        (0..).zip([i64::MIN, first, last, i64::MAX]).map(|(at, time)| (at, Some(time), None)).collect();
    for zone in ["Asia/Shanghai", "America/New_York"] {
        let (root, stream) = (tempfile::tempdir().unwrap(), stream_of(zone, COLUMNS));
        let mut archive = open(root.path(), &stream).unwrap();
        archive.begin(0, 0);
        archive.take(batch(&stream, 0, &records, 4)).unwrap();
        archive.commit().unwrap();
        assert_eq!(files(root.path()), ["dt=__HIVE_DEFAULT_PARTITION__/orders-00000000000000000002.parquet"]);
        assert_eq!(rows(root.path(), &stream, 0), batch(&stream, 0, &records, 4).batch);
    }
}

#[test]
fn what_waits_is_bounded_over_all_partitions() {
    let (root, stream) = (tempfile::tempdir().unwrap(), orders());
    let mut archive = Archive::open(root.path(), &stream, &writer("writer"), 16 << 10).unwrap();
    for round in 0..8 {
        for number in 0..8 {
            archive.take(plain(&stream, number, round * 10..(round + 1) * 10)).unwrap();
            assert!(archive.waiting_bytes() <= 16 << 10);
        }
    }
    archive.commit().unwrap();
    for number in 0..8 {
        assert_eq!(offsets(root.path(), &stream, number), (0..80).collect::<Vec<_>>());
    }
}

#[test]
fn link_out_of_the_project_is_not_followed() {
    let (root, outside, stream) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), orders());
    let link = |place: &str| std::os::unix::fs::symlink(outside.path(), root.path().join(place)).unwrap();
    link("past");
    let refused = open(root.path(), &stream).err().unwrap().to_string();
    assert_eq!(refused, "a symbolic link leads from past out of the project");
    fs::remove_file(root.path().join("past")).unwrap();
    let mut archive = open(root.path(), &stream).unwrap();
    link("past/dt=2026-01-30");
    archive.take(plain(&stream, 0, 0..1)).unwrap();
    let refused = archive.commit().unwrap_err().to_string();
    assert!(refused.ends_with("past/dt=2026-01-30 out of the project"), "{refused}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
