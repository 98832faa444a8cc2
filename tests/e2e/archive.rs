//! Archives: every record of a topic is in files once, through crashes, faults and daemons that take over, and tags are filled
//! from them.

use std::fs::{self, File};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tagflow::engine::status::{ArchiveStatus, Status};

use crate::fills::{order, rows, shop_with};
use crate::shop::{PATIENCE, Shop};
use crate::topic::Topic;

const ARCHIVE: &str = "archive = { path = \"past/orders\", every = \"1s\" }\n";

/// Partition, offset and amount of each archived record, in that order.
fn archived(shop: &Shop) -> Vec<(i32, i64, i64)> {
    let mut found = Vec::new();
    for file in glob::glob(shop.path("past/orders/**/*.parquet").to_str().unwrap()).unwrap() {
        let file = File::open(file.unwrap()).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let column = |name| batch.column_by_name(name).unwrap();
            let partitions = column("_partition").as_primitive::<Int32Type>().values();
            let numbers = |name| column(name).as_primitive::<Int64Type>().values();
            let rows = partitions.iter().zip(numbers("_offset")).zip(numbers("amount"));
            found.extend(rows.map(|((partition, offset), amount)| (*partition, *offset, *amount)));
        }
    }
    found.sort_unstable();
    found
}

/// Writes that many orders of users 0 to 2; the amount is the offset.
fn write(topic: &Topic, partition: i32, offsets: std::ops::Range<i64>) {
    topic.write(partition, &offsets.map(|offset| order(offset % 3, offset)).collect::<Vec<_>>());
}

fn all(partition: i32, offsets: std::ops::Range<i64>) -> Vec<(i32, i64, i64)> {
    offsets.map(|offset| (partition, offset, offset)).collect()
}

/// What the archive says of itself, once it has so many records and nothing waits.
fn has(records: u64) -> impl Fn(&Status) -> bool {
    move |status| {
        let is_whole = |archive: &ArchiveStatus| archive.records == records && archive.lag == 0;
        matches!(&status.archives[..], [archive] if is_whole(archive) && archive.trouble.is_none())
    }
}

fn trouble(status: &Status) -> String {
    status.archives.first().and_then(|archive| archive.trouble.clone()).unwrap_or_default()
}

#[test]
fn every_record_is_archived_once_through_crashes_and_tags_are_filled_from_archive_and_topic() {
    let topic = Topic::with_partitions("archive", 2);
    let mut shop = shop_with("archive", &topic, ARCHIVE);
    let mut next: i64 = 0;
    for point in ["archive.written", "archive.committed", "archive.written:2", "archive.committed:2"] {
        shop.environment = vec![("TAGFLOW_CRASH_AT".to_string(), point.to_string())];
        // Records come as long as it takes: how many are in one commit is a matter of time.
        let code = shop.start().end_while(PATIENCE, || {
            write(&topic, 0, next..next + 30);
            write(&topic, 1, next..next + 30);
            next += 30;
        });
        assert_eq!(code, -1, "it does not get to {point}: {}", shop.log());
    }
    shop.environment.clear();
    let of_one = next;
    // What does not decode is a dead letter, once, and is not archived.
    topic.write(1, &[("no order".to_string(), None)]);
    // Killed at whatever it does, while records come; the one that waits takes over.
    for round in 0..3_u64 {
        let mut daemon = shop.start();
        daemon.until("it writes", |status| status.generation.is_some());
        let mut standby = shop.start_beside("--standby");
        write(&topic, 0, next..next + 200);
        next += 200;
        std::thread::sleep(Duration::from_millis(400 * round));
        daemon.kill();
        standby.until("it takes over and archives", has(2 * of_one.unsigned_abs() + 200 * (round + 1)));
        standby.interrupt();
    }
    let expected: Vec<_> = all(0, 0..next).into_iter().chain(all(1, 0..of_one)).collect();
    assert_eq!(archived(&shop), expected);

    // Most of it is in the archive alone.
    topic.delete_before(0, next - 5);
    topic.delete_before(1, of_one + 1);
    let mut daemon = shop.start();
    let times = "SELECT user_id, COUNT(*) AS v FROM orders GROUP BY user_id";
    fs::write(shop.path("tags/times.sql"), times).unwrap();
    let status = daemon.until_quiet(2);
    assert_eq!((status.archives[0].errors, status.archives[0].lost), (0, 0), "{:?}", status.archives);
    let each = (next + of_one) / 3;
    let expected = |of_first: i64| [format!("0 {of_first}"), format!("1 {each}"), format!("2 {each}")];
    assert_eq!(rows(&shop, "times"), expected(each));
    write(&topic, 0, next..next + 1);
    shop.until_rows(&|table| rows(&shop, table), "times", &expected(each + 1).each_ref().map(String::as_str));
    daemon.interrupt();
    shop.verify();
}

#[test]
fn folder_that_cannot_be_written_stops_nothing_and_leaves_no_record_out() {
    let topic = Topic::with_partitions("archive-fault", 1);
    let shop = shop_with("archive_fault", &topic, ARCHIVE);
    // A file is where the folder should be.
    fs::create_dir_all(shop.path("past")).unwrap();
    fs::write(shop.path("past/orders"), "").unwrap();
    write(&topic, 0, 0..9);
    let mut daemon = shop.start();
    let status = daemon.until_quiet(1);
    assert!(
        status.troubles.iter().any(|told| told.starts_with("archive of stream `orders`: ")),
        "{:?}",
        status.troubles
    );
    assert_eq!(rows(&shop, "spent"), ["0 9", "1 12", "2 15"]);
    daemon.until("it was tried again", |status| status.archives[0].errors > 1);
    let metrics = shop.get("/metrics");
    assert!(metrics.contains("tagflow_archive_failing{stream=\"orders\"} 1.0\n"), "{metrics}");
    assert!(shop.log().contains("the archive cannot be kept; it is tried again"), "{}", shop.log());
    fs::remove_file(shop.path("past/orders")).unwrap();
    daemon.until("all are archived", has(9));
    assert_eq!(archived(&shop), all(0, 0..9));
    let said = String::from_utf8(shop.output(&["status"]).stdout).unwrap();
    assert!(said.contains("\n9 records of orders are in past/orders, the newest of 20"), "{said}");

    // Somebody removes it: it begins anew with what the topic has.
    fs::remove_dir_all(shop.path("past/orders")).unwrap();
    write(&topic, 0, 9..12);
    daemon.until("it was begun anew", has(12));
    assert_eq!(archived(&shop), all(0, 0..12));
    // And what says where it ends: then nobody knows.
    fs::remove_dir_all(shop.path("past/orders/_archive")).unwrap();
    write(&topic, 0, 12..15);
    daemon.until("it is refused", |status| trouble(status).contains("_archive beside them is gone"));
    fs::remove_dir_all(shop.path("past/orders")).unwrap();
    daemon.until("it is begun anew", has(15));
    assert_eq!(archived(&shop), all(0, 0..15));
    daemon.interrupt();
}

#[test]
fn archive_of_a_topic_that_was_made_again_is_left_as_it_is_until_it_is_moved() {
    let topic = Topic::with_partitions("archive-again", 1);
    let shop = shop_with("archive_again", &topic, ARCHIVE);
    write(&topic, 0, 0..9);
    let mut daemon = shop.start();
    daemon.until("all are archived", has(9));
    daemon.interrupt();
    topic.create_again();
    write(&topic, 0, 0..20);
    topic.delete_before(0, 6);
    // What the daemon's message about such a topic says is to be done.
    fs::remove_dir_all(shop.path(".tagflow")).unwrap();
    let mut daemon = shop.start();
    let again = "was deleted and made again since it was archived";
    daemon.until("it is refused", |status| trouble(status).contains(again));
    let status = daemon.until("no tag is filled from it", |status| {
        let message = status.tags[0].message.clone().unwrap_or_default();
        message.contains("history: ") && message.contains(again)
    });
    assert_eq!(status.archives[0].records, 9);
    assert_eq!(archived(&shop), all(0, 0..9));
    fs::rename(shop.path("past/orders"), shop.path("past/before")).unwrap();
    daemon.until("the new topic is archived", has(14));
    assert_eq!(archived(&shop), all(0, 6..20));
    daemon.interrupt();
}

#[test]
fn archive_that_is_added_or_changed_fills_no_tag_anew_and_a_run_to_the_end_archives_all() {
    let topic = Topic::with_partitions("archive-added", 1);
    let shop = shop_with("archive_added", &topic, "");
    let schema = fs::read_to_string(shop.path("schemas/orders.toml")).unwrap();
    write(&topic, 0, 0..9);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    let add = |archive: &str| {
        fs::write(shop.path("schemas/orders.toml"), schema.replace("[columns]", &format!("{archive}[columns]")))
            .unwrap();
    };
    add("archive = { path = \"past/orders\", every = \"1h\" }\n");
    daemon.until("it is read", |status| status.archives.iter().any(|archive| archive.lag == 9));
    // What was read counts before the new one begins; no hour goes by.
    add(ARCHIVE);
    let status = daemon.until("all are archived", has(9));
    assert_eq!(status.tags[0].version, 1);
    let plan = String::from_utf8(shop.output(&["plan", "--offline"]).stdout).unwrap();
    assert!(plan.contains("nothing to do"), "{plan}");
    add("archive = { path = \"past/orders\", every = \"1h\" }\n");
    daemon.until("it is kept still", has(9));
    write(&topic, 0, 9..11);
    daemon.until("more is read", |status| status.archives.iter().any(|archive| archive.lag == 2));
    daemon.interrupt();
    assert_eq!(archived(&shop), all(0, 0..11), "a daemon that is stopped leaves nothing behind");
    write(&topic, 0, 11..13);
    let run = shop.output(&["run", "--until-caught-up"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(archived(&shop), all(0, 0..13));
    assert_eq!(shop.registry("SELECT CAST(version AS CHAR) FROM _tagflow_tags"), ["1"]);
}

#[test]
fn records_that_were_gone_before_they_were_archived_are_told_and_tags_are_filled_from_behind_them() {
    let topic = Topic::with_partitions("archive-lost", 1);
    let shop = shop_with("archive_lost", &topic, &format!("on_lost = \"skip\"\n{ARCHIVE}"));
    write(&topic, 0, 0..9);
    let mut daemon = shop.start();
    daemon.until("all are archived", has(9));
    daemon.interrupt();
    write(&topic, 0, 9..15);
    topic.delete_before(0, 12);
    let mut daemon = shop.start();
    let status = daemon.until("the rest is archived", has(12));
    assert_eq!(status.archives[0].lost, 3);
    assert!(shop.get("/metrics").contains("tagflow_archive_lost_records{stream=\"orders\"} 3.0\n"));
    let said = String::from_utf8(shop.output(&["status"]).stdout).unwrap();
    assert!(said.contains("! 3 records of orders were gone before they were archived"), "{said}");
    topic.delete_before(0, 14);
    let times = "SELECT user_id, COUNT(*) AS v FROM orders GROUP BY user_id";
    fs::write(shop.path("tags/times.sql"), times).unwrap();
    daemon.until_quiet(2);
    // 12 and 13 out of the archive, 14 out of the topic; the answer says that it is not all.
    assert_eq!(rows(&shop, "times"), ["0 1", "1 1", "2 1"]);
    let incomplete = "SELECT tag FROM _tagflow_tags WHERE complete_from IS NOT NULL ORDER BY tag";
    assert_eq!(shop.registry(incomplete), ["spent", "times"]);
    daemon.interrupt();
}
