use super::*;

fn key(id: usize) -> String {
    format!("{{\"id\":\"{id}\"}}")
}

fn log_in(folder: &Path) -> Arc<TableLog> {
    let smallest_compacted = 2000;
    Arc::new(TableLog { smallest_compacted, ..TableLog::open(folder.join("accounts/rows.log")).unwrap() })
}

fn writer(log: &Arc<TableLog>) -> LogWriter {
    LogWriter::open(log, &["id".to_string()]).unwrap()
}

/// All records from `next` on: offset, and `key=row`, or `key` where it is gone.
fn records(reader: &mut LogReader, until: i64) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    let is_end = reader.read(until, |record| {
        let text = match record.said {
            Said::Row => format!("{}={}", record.key, record.row),
            Said::Gone => record.key.to_string(),
            Said::Unusable => format!("{}: {}", record.key, record.row),
        };
        found.push((record.offset, text.replace(['{', '}', '"'], "")));
        false
    });
    assert!(is_end.unwrap());
    found
}

fn all(log: &Arc<TableLog>) -> Vec<(i64, String)> {
    records(&mut LogReader::new(Arc::clone(log), 0), i64::MAX)
}

/// One look at a table of these rows.
fn look(writer: &mut LogWriter, rows: &[(usize, &str)]) {
    writer.begin_look();
    for (id, row) in rows {
        writer.row(&key(*id), row, 5).unwrap();
    }
    writer.end_look(6).unwrap();
    writer.commit().unwrap();
}

fn texts(found: &[(i64, String)]) -> Vec<String> {
    found.iter().map(|(offset, text)| format!("{offset} {text}")).collect()
}

#[test]
fn differences_alone_are_appended() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(folder.path());
    let mut writer = writer(&log);
    look(&mut writer, &[(1, "a"), (2, "b")]);
    look(&mut writer, &[(1, "a"), (2, "c"), (3, "d")]);
    look(&mut writer, &[(3, "d"), (2, "c")]);
    assert_eq!(texts(&all(&log)), ["0 id:1=a", "1 id:2=b", "2 id:2=c", "3 id:3=d", "4 id:1"]);
    // Another process goes on where this one was.
    drop(writer);
    let log = log_in(folder.path());
    let mut writer = self::writer(&log);
    look(&mut writer, &[(2, "c"), (1, "a")]);
    let mut reader = LogReader::new(Arc::clone(&log), 4);
    assert_eq!(texts(&records(&mut reader, i64::MAX)), ["4 id:1", "5 id:1=a", "6 id:3"]);
    assert_eq!((reader.next(), writer.rows()), (7, 2));
}

#[test]
fn what_is_no_row_is_told_once_and_its_going_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(folder.path());
    let mut writer = writer(&log);
    for _ in 0..2 {
        writer.begin_look();
        writer.unusable("no number", "x,y", 0).unwrap();
        writer.row(&key(1), "a", 0).unwrap();
        writer.end_look(0).unwrap();
        writer.commit().unwrap();
    }
    look(&mut writer, &[(1, "a")]);
    assert_eq!(texts(&all(&log)), ["0 no number: x,y", "1 id:1=a"]);
}

#[test]
fn nobody_reads_what_is_not_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(folder.path());
    let mut writer = writer(&log);
    writer.row(&key(1), "a", 0).unwrap();
    let mut reader = LogReader::new(Arc::clone(&log), 0);
    assert_eq!((records(&mut reader, i64::MAX).len(), log.end()), (0, 0));
    writer.commit().unwrap();
    assert_eq!((records(&mut reader, i64::MAX).len(), log.end()), (1, 1));
}

#[test]
fn tail_that_a_crash_cut_anywhere_is_taken_off() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(folder.path());
    look(&mut writer(&log), &[(1, "a"), (2, "b")]);
    let whole = fs::read(log.path()).unwrap();
    look(&mut writer(&log), &[(1, "a"), (2, "b"), (3, "c")]);
    let longer = fs::read(log.path()).unwrap();
    for length in whole.len()..longer.len() {
        fs::write(log.path(), &longer[..length]).unwrap();
        let log = log_in(folder.path());
        assert_eq!(texts(&all(&log)), ["0 id:1=a", "1 id:2=b"], "{length}");
        let mut writer = writer(&log);
        look(&mut writer, &[(1, "a"), (2, "z")]);
        assert_eq!(texts(&all(&log)), ["0 id:1=a", "1 id:2=b", "2 id:2=z"], "{length}");
    }
    // So is one whose bytes are not what was written.
    let mut torn = longer.clone();
    *torn.last_mut().unwrap() ^= 1;
    fs::write(log.path(), torn).unwrap();
    assert_eq!(all(&log_in(folder.path())).len(), 2);
}

#[test]
fn bounded_reader_ends_exactly_there() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(folder.path());
    look(&mut writer(&log), &[(1, "a"), (2, "b"), (3, "c")]);
    let mut reader = LogReader::new(Arc::clone(&log), 1);
    assert_eq!(texts(&records(&mut reader, 2)), ["1 id:2=b"]);
    assert_eq!(reader.next(), 2);
    assert_eq!(texts(&records(&mut reader, 9)), ["2 id:3=c"]);
    assert_eq!(reader.next(), 3);
}

#[test]
fn compaction_keeps_offsets_the_newest_of_each_key_and_all_above_the_horizon() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(folder.path());
    let mut writer = writer(&log);
    let mut early = LogReader::new(Arc::clone(&log), 0);
    let mut model: HashMap<usize, String> = HashMap::new();
    let mut of_early: HashMap<String, String> = HashMap::new();
    let mut largest = 0;
    for round in 0..400 {
        let rows: Vec<(usize, String)> =
            (0..5).filter(|id| (round + id) % 3 != 0).map(|id| (id, format!("row {id} {round}"))).collect();
        let borrowed: Vec<(usize, &str)> = rows.iter().map(|(id, row)| (*id, row.as_str())).collect();
        look(&mut writer, &borrowed);
        model = rows.into_iter().collect();
        // A checkpoint now and then; a reader that is sometimes far behind.
        if round % 10 == 0 {
            log.forget_before(log.end() - 20);
        }
        if round % 37 == 0 {
            apply(&mut of_early, records(&mut early, i64::MAX));
        }
        largest = largest.max(fs::metadata(log.path()).unwrap().len());
    }
    assert!(largest < 12_000, "{largest} bytes");
    apply(&mut of_early, records(&mut early, i64::MAX));
    let found = all(&log);
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let horizon = log.horizon.load(Ordering::Acquire);
    let above: Vec<i64> = found.iter().map(|(offset, _)| *offset).filter(|offset| *offset >= horizon).collect();
    assert_eq!(above, (horizon..log.end()).collect::<Vec<_>>());
    let mut of_late = HashMap::new();
    apply(&mut of_late, found);
    let expected: HashMap<String, String> = model.iter().map(|(id, row)| (format!("id:{id}"), row.clone())).collect();
    assert_eq!((&of_early, &of_late), (&expected, &expected));
    assert_eq!(writer.rows(), expected.len());
    // And after a restart.
    drop(writer);
    let log = log_in(folder.path());
    assert_eq!((self::writer(&log).rows(), log.end()), (expected.len(), early.next()));
}

fn apply(table: &mut HashMap<String, String>, records: Vec<(i64, String)>) {
    for (_, text) in records {
        match text.split_once('=') {
            Some((key, row)) => drop(table.insert(key.to_string(), row.to_string())),
            None => drop(table.remove(&text)),
        }
    }
}

#[test]
fn log_of_another_key_begins_anew_at_the_next_offset() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(folder.path());
    look(&mut writer(&log), &[(1, "a"), (2, "b")]);
    let mut reader = LogReader::new(Arc::clone(&log), 1);
    let mut writer = LogWriter::open(&log, &["name".to_string()]).unwrap();
    assert_eq!(writer.rows(), 0);
    look(&mut writer, &[(7, "c")]);
    assert_eq!(texts(&all(&log)), ["2 id:7=c"]);
    assert_eq!(texts(&records(&mut reader, i64::MAX)), ["2 id:7=c"]);
}

#[test]
fn file_that_is_no_log_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.log");
    fs::write(&path, "something else entirely").unwrap();
    let error = TableLog::open(path).err().unwrap().to_string();
    assert!(error.contains("rows.log is damaged at byte 0"), "{error}");
}
