//! Files with a stream's past: read first, and then the topic from the record on where they end.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use tagflow::engine::status::TagState;

use crate::fills::{order, rows, shop_with};
use crate::shop::Shop;
use crate::topic::Topic;

/// The records of these offsets of partition 0, each of user `offset % 3` with an amount of 1.
fn write(path: &Path, offsets: impl Iterator<Item = i64>) {
    let offsets: Vec<i64> = offsets.collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("_partition", Arc::new(Int32Array::from(vec![0; offsets.len()]))),
        ("_offset", Arc::new(Int64Array::from(offsets.clone()))),
        ("user_id", Arc::new(offsets.iter().map(|offset| offset % 3).collect::<Int64Array>())),
        ("amount", Arc::new(Int64Array::from(vec![1; offsets.len()]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn shop(name: &str, topic: &Topic) -> Shop {
    shop_with(name, topic, "history = \"archive/orders/*.parquet\"\n")
}

#[test]
fn fill_takes_what_the_topic_has_lost_out_of_files_and_every_record_once() {
    let topic = Topic::with_partitions("history", 2);
    let shop = shop("history", &topic);
    // Thirty records, of which the topic holds the last twenty, and the files the first fifteen, some of them twice.
    topic.write(0, &(0..30).map(|offset| order(offset % 3, 1)).collect::<Vec<_>>());
    topic.write(1, &[order(7, 5)]);
    topic.delete_before(0, 10);
    write(&shop.path("archive/orders/b.parquet"), 5..15);
    write(&shop.path("archive/orders/a.parquet"), (0..8).rev());
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    assert_eq!(rows(&shop, "spent"), ["0 10", "1 10", "2 10", "7 5"]);
    shop.until_registry("SELECT COALESCE(CONCAT(complete_from), 'always') FROM _tagflow_tags", "always");
    shop.verify();

    // Records go on coming, the daemon dies, and another tag is filled from the same past.
    topic.write(0, &[order(0, 1)]);
    shop.until_rows(&|table| rows(&shop, table), "spent", &["0 11", "1 10", "2 10", "7 5"]);
    daemon.kill();
    topic.delete_before(0, 12);
    fs::write(shop.path("tags/times.sql"), "SELECT user_id, COUNT(*) AS v FROM orders GROUP BY user_id").unwrap();
    let mut daemon = shop.start();
    daemon.until_quiet(2);
    assert_eq!(rows(&shop, "times"), ["0 11", "1 10", "2 10", "7 1"]);
    daemon.interrupt();
    shop.verify();
}

#[test]
fn gap_between_files_and_topic_is_told_and_nothing_is_skipped() {
    let topic = Topic::with_partitions("history-gap", 1);
    let shop = shop("history_gap", &topic);
    topic.write(0, &(0..30).map(|offset| order(offset % 3, 1)).collect::<Vec<_>>());
    topic.delete_before(0, 10);
    write(&shop.path("archive/orders/a.parquet"), 0..8);
    let mut daemon = shop.start();
    let status = daemon.until("the tag cannot be filled", |status| {
        status.tags.iter().any(|tag| tag.state == TagState::Failed && tag.message.is_some())
    });
    let message = status.tags[0].message.clone().unwrap();
    assert!(message.contains("records 8 to 9 are gone (the topic now begins at 10)"), "{message}");
    // The missing file is found, and the fill is tried again by itself.
    write(&shop.path("archive/orders/b.parquet"), 8..10);
    daemon.until_quiet(1);
    assert_eq!(rows(&shop, "spent"), ["0 10", "1 10", "2 10"]);
    daemon.interrupt();
    shop.verify();
}

#[test]
fn tag_that_stands_within_files_takes_what_they_have_and_is_told_of_the_gap_behind_them() {
    let topic = Topic::with_partitions("history-skip", 1);
    let shop = shop_with("history_skip", &topic, "on_lost = \"skip\"\nhistory = \"archive/orders/*.parquet\"\n");
    let records = |offsets: std::ops::Range<i64>| offsets.map(|offset| order(offset % 3, 1)).collect::<Vec<_>>();
    topic.write(0, &records(0..9));
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    daemon.interrupt();
    topic.write(0, &records(9..20));
    topic.delete_before(0, 14);
    write(&shop.path("archive/orders/a.parquet"), 0..12);
    let mut daemon = shop.start();
    // All but 12 and 13, which nobody has.
    shop.until_rows(&|table| rows(&shop, table), "spent", &["0 6", "1 6", "2 6"]);
    let status = daemon.until("the gap is told", |status| !status.tags[0].lost.is_empty());
    let lost: Vec<_> = status.tags[0].lost.iter().map(|lost| (lost.partition, lost.first, lost.next)).collect();
    assert_eq!(lost, [(0, 12, 14)]);
    assert_eq!(status.tags[0].version, 1);
    daemon.interrupt();
}
