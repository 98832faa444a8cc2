mod archived;

use std::convert::Infallible;
use std::fs::{self, File};

use arrow::array::{Int32Array, Int64Array};
use parquet::arrow::ArrowWriter;

use super::*;
use crate::catalog;

/// A file of records: partition, offset, amount.
fn write(path: &Path, records: &[(i32, i64, i64)]) {
    let column = |of: fn(&(i32, i64, i64)) -> i64| Arc::new(records.iter().map(of).collect::<Int64Array>());
    let partitions: Int32Array = records.iter().map(|record| record.0).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("_partition", Arc::new(partitions)),
        ("_offset", column(|record| record.1)),
        ("amount", column(|record| record.2)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn stream(amount: &str) -> Arc<Stream> {
    stream_of("UTC", &format!("history = \"a/*.parquet\"\n[columns]\namount = \"{amount}\"\nnote = \"VARCHAR\"\n"))
}

/// A stream of topic `t` of which the schema says something more.
fn stream_of(timezone: &str, more: &str) -> Arc<Stream> {
    let settings = format!(
        "timezone = \"{timezone}\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
         [connection.shop]\ntype = \"kafka\"\nbrokers = \"k:1\"\n[store]\nurl = \"sqlite:x\"\n"
    );
    let schema = format!("connection = \"shop\"\ntopic = \"t\"\nformat = \"json\"\n{more}");
    let files = [("tagflow.toml", settings), ("schemas/orders.toml", schema)];
    let contents = files.map(|(file, text)| (PathBuf::from(file), text.into_bytes())).into();
    let loaded = crate::project::load_from_memory(&contents, &|_| None);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let streams: catalog::Catalog = loaded.project.unwrap().catalog;
    Arc::clone(&streams.streams["orders"])
}

fn read(history: &History, stream: &Stream, offsets: Range<i64>) -> Result<Vec<(i64, Option<i64>)>, String> {
    let columns: Vec<usize> =
        ["amount", "note", "_topic"].iter().map(|name| stream.schema().index_of(name).unwrap()).collect();
    let partition = Arc::new(Partition { stream: "orders".to_string(), number: 1 });
    let wanted = Wanted { stream, columns: &columns, partition, offsets, end: 99 };
    let mut found = Vec::new();
    let given = history.read::<Infallible>(&wanted, |batch| {
        let amounts = batch.batch.column(0).as_primitive::<Int64Type>();
        assert_eq!(batch.batch.column(1).null_count(), batch.offsets.len(), "a column that the files lack");
        assert_eq!(batch.batch.column(2).as_string::<i32>().value(0), "t");
        assert_eq!(batch.next_offset, batch.offsets.last().unwrap() + 1);
        found.extend(batch.offsets.iter().copied().zip(amounts.iter()));
        Ok(())
    })?;
    given.unwrap();
    Ok(found)
}

#[test]
fn records_come_by_their_offsets_and_once_however_files_hold_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("a").join(name);
    // Two partitions in one file, out of order; a range twice; a file that is none of the pattern's.
    write(&at("one.parquet"), &[(1, 4, 40), (0, 7, 1), (1, 2, 20), (1, 3, 30)]);
    write(&at("two.parquet"), &[(1, 3, 30), (1, 4, 40), (1, 5, 50)]);
    write(&at("three.parquet"), &[(1, 8, 80)]);
    write(&at("other.txt"), &[(1, 1, 10)]);
    let history = History::find(folder.path(), &stream("BIGINT")).unwrap();
    assert_eq!((history.range(0), history.range(1), history.range(2)), (Some(7..8), Some(2..9), None));
    let stream = stream("BIGINT");
    let all = [(2, Some(20)), (3, Some(30)), (4, Some(40)), (5, Some(50)), (8, Some(80))];
    assert_eq!(read(&history, &stream, 0..9).unwrap(), all);
    assert_eq!(read(&history, &stream, 3..8).unwrap(), all[1..4]);
    assert_eq!(read(&history, &stream, 6..8).unwrap(), []);
}

#[test]
fn files_that_do_not_fit_are_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a/one.parquet");
    write(&file, &[(1, 4, 40)]);
    let history = History::find(folder.path(), &stream("BIGINT")).unwrap();
    for (amount, says) in [("TIMESTAMP(3)", "Timestamp(ms)"), ("VARCHAR", "Utf8"), ("DATE", "Date32")] {
        let error = read(&history, &stream(amount), 0..9).unwrap_err();
        let reason = format!("column \"amount\" is Int64, and {says} in the schema");
        assert_eq!(error, format!("history: {}: {reason}", file.display()));
    }
    write(&file, &[(1, 4, 1 << 40)]);
    let error = read(&history, &stream("INT"), 0..9).unwrap_err();
    assert!(error.contains("column \"amount\" does not fit the schema: "), "{error}");
    fs::write(&file, "no Parquet at all").unwrap();
    let error = History::find(folder.path(), &stream("BIGINT")).unwrap_err();
    assert!(error.contains("one.parquet: no whole Parquet file: "), "{error}");
}
