//! `tagflow query` over a real topic and the table of a tag in a real MariaDB.

use std::process::Output;

use crate::shop::Shop;
use crate::topic::Topic;

const SPENT: &str = "SELECT user_id, SUM(amount) AS spent FROM orders WHERE user_id IS NOT NULL GROUP BY user_id";
const RECENT: &str = "/* tag\nstatus = \"draft\"\n*/\nSELECT user_id, COUNT(*) AS orders FROM orders \
                      WHERE order_time >= NOW() - INTERVAL '1' HOUR GROUP BY user_id";
const HOURLY: &str = "/* tag\nemit = \"on_close\"\n*/\nSELECT user_id, window_start, COUNT(*) AS orders \
                      FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR)) \
                      WHERE user_id IS NOT NULL GROUP BY user_id, window_start";

/// 2026-03-01T00:00:00Z.
const BEGINNING: i64 = 1_772_323_200_000;
const MINUTE: i64 = 60_000;

fn project(topic: &str) -> Vec<(&'static str, String)> {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\ntime = {{ column = \"order_time\" }}\n[columns]\n\
         order_id = \"BIGINT NOT NULL\"\nuser_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\n\
         order_time = {{ type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }}\n"
    );
    let tag = |name: &'static str, sql: &str| (name, sql.to_string());
    vec![
        ("schemas/orders.toml", schema),
        tag("tags/spent.sql", SPENT),
        tag("tags/recent.sql", RECENT),
        tag("tags/hourly.sql", HOURLY),
    ]
}

/// An order a minute.
fn order(id: i64) -> (String, Option<i64>) {
    let at = BEGINNING + id * MINUTE;
    (format!("{{\"order_id\":{id},\"user_id\":{},\"amount\":{id}.50,\"order_time\":{at}}}", id % 3), Some(at))
}

fn rows(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

fn csv(shop: &Shop, arguments: &[&str]) -> String {
    rows(shop.output(&[&["query", "--format", "csv"], arguments].concat()))
}

#[test]
fn topics_are_asked_within_bounds_and_tags_are_shown_before_they_run() {
    let topic = Topic::with_partitions("query", 2);
    let shop = Shop::of("query", &project(&topic.name));
    for partition in [0, 1] {
        let own: Vec<_> = (0..120).filter(|id| id % 2 == i64::from(partition)).map(order).collect();
        topic.write(partition, &own);
    }

    let counted = csv(&shop, &["SELECT COUNT(*) AS n, SUM(amount) AS total FROM orders"]);
    assert_eq!(counted, "n,total\n120,7200.00\n");
    let few = csv(&shop, &["SELECT order_id FROM orders ORDER BY order_id DESC LIMIT 2"]);
    assert_eq!(few, "order_id\n119\n118\n");
    assert_eq!(csv(&shop, &["SELECT order_id FROM orders", "--limit", "3"]).lines().count(), 4);
    let json =
        rows(shop.output(&["query", "SELECT order_id, amount FROM orders WHERE order_id = 7", "--format", "json"]));
    let row: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(row["order_id"], 7);

    let count = "SELECT COUNT(*) AS n FROM orders";
    let within = |bounds: &[&str]| csv(&shop, &[&[count], bounds].concat());
    assert_eq!(within(&["--from", "2026-03-01T01:00:00Z"]), "n\n60\n");
    assert_eq!(within(&["--from", "2026-03-01T00:10:00Z", "--to", "2026-03-01T00:19:00Z"]), "n\n10\n");
    assert_eq!(within(&["--from", "orders/0=50", "--from", "orders/1=60"]), "n\n10\n");
    assert_eq!(within(&["--to", "orders/0=5", "--to", "orders/1=0"]), "n\n5\n");
    assert_eq!(within(&["--from", "2027-01-01"]), "n\n0\n");

    // Drafts too, at any time: with what had come, and the clock as it was then.
    let file = shop.path("tags/recent.sql");
    let recent = |at: &str| csv(&shop, &["--tag", file.to_str().unwrap(), "--as-of", at]);
    assert_eq!(recent("2026-03-01T00:59:00Z"), "user_id,orders\n0,20\n1,20\n2,20\n");
    assert_eq!(recent("2026-03-01T02:56:00Z"), "user_id,orders\n0,1\n1,1\n2,2\n");
    // The watermark of the clock closes windows: at 01:30 the first hour is over, in all partitions.
    let file = shop.path("tags/hourly.sql");
    let closed = csv(&shop, &["--tag", file.to_str().unwrap(), "--as-of", "2026-03-01T01:30:00Z"]);
    assert_eq!(closed.lines().count(), 1 + 3, "{closed}");
    // A file that is not of the project.
    let outside = shop.path("idea.sql");
    std::fs::write(&outside, "SELECT user_id, MAX(amount) AS largest FROM orders GROUP BY user_id").unwrap();
    let largest = csv(&shop, &["--tag", outside.to_str().unwrap(), "--limit", "1"]);
    assert_eq!(largest, "user_id,largest\n0,117.50\n");

    let parquet = shop.path("out.parquet");
    let written = shop.output(&["query", count, "--format", "parquet", "--output", parquet.to_str().unwrap()]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    assert_eq!(&std::fs::read(&parquet).unwrap()[..4], b"PAR1");

    let wrong = shop.output(&["query", "SELECT amuont FROM orders"]);
    assert_eq!(wrong.status.code(), Some(1));
    let message = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(message.contains("T0811") && message.contains("did you mean `amount`?"), "{message}");
    assert_eq!(shop.output(&["query", count, "--from", "views/0=1"]).status.code(), Some(2));
}

#[test]
fn tables_of_tags_are_read_out_of_the_store_beside_the_daemon() {
    let topic = Topic::with_partitions("query_tags", 1);
    let shop = Shop::of("query_tags", &project(&topic.name));
    topic.write(0, &(0..30).map(order).collect::<Vec<_>>());
    assert_eq!(shop.output(&["query", "SELECT * FROM tags.spent"]).status.code(), Some(1), "there is no database yet");

    let mut daemon = shop.start();
    daemon.until_quiet(2);
    let joined = "SELECT s.user_id, s.spent, COUNT(*) AS orders FROM tags.spent s JOIN orders o ON o.user_id = s.user_id \
                  WHERE s.user_id < 2 GROUP BY s.user_id, s.spent ORDER BY s.user_id";
    assert_eq!(csv(&shop, &[joined]), "user_id,spent,orders\n0,140.00,10\n1,150.00,10\n");
    let none = shop.output(&["query", "SELECT * FROM tags.recent"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no table of the tag `recent`"), "a draft has none");
    daemon.interrupt();
}
