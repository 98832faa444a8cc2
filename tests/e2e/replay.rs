//! Dead letters that are replayed once the schema is mended: every table is as if the records had always fitted.

use std::fs;

use tagflow::engine::status::TagState;

use crate::shop::Shop;
use crate::topic::Topic;

/// Minutes of 2026-06-01; the amount as it is written.
fn order(user: i64, minute: i64, amount: &str) -> (String, Option<i64>) {
    let time = format!("2026-06-01T{:02}:{:02}:00", minute / 60, minute % 60);
    (format!("{{\"user_id\":{user},\"amount\":{amount},\"order_time\":\"{time}\"}}"), None)
}

fn files(topic: &str) -> Vec<(&'static str, String)> {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n\
         time = {{ column = \"order_time\", lateness = \"5m\", idle = \"1s\" }}\n[columns]\n\
         user_id = \"BIGINT NOT NULL\"\namount = \"BIGINT\"\norder_time = \"TIMESTAMP(3)\"\n"
    );
    let windows = "/* tag\nemit = \"on_close\"\n*/\nSELECT user_id, window_start, COUNT(*) AS n, SUM(amount) AS v \
                   FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR)) \
                   GROUP BY user_id, window_start";
    vec![
        ("schemas/orders.toml", schema),
        ("tags/spent.sql", "SELECT user_id, SUM(amount) AS v FROM orders GROUP BY user_id".to_string()),
        // Does not read the column that is mended: its plan stays the same.
        ("tags/times.sql", "SELECT user_id, COUNT(order_time) AS v FROM orders GROUP BY user_id".to_string()),
        // Late by what comes before in the partition: replayed at the end it would come out otherwise.
        ("tags/hours.sql", windows.to_string()),
    ]
}

fn run(shop: &Shop, arguments: &[&str]) -> (Option<i32>, String) {
    let output = shop.output(&[&["dead-letters"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn mend(shop: &Shop) {
    let schema = shop.path("schemas/orders.toml");
    let text = fs::read_to_string(&schema).unwrap();
    fs::write(schema, text.replace("amount = \"BIGINT\"", "amount = \"DECIMAL(12,2)\"")).unwrap();
}

fn version(shop: &Shop) -> Vec<String> {
    shop.registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'spent'")
}

fn live(status: &tagflow::engine::status::Status) -> bool {
    status.fill.is_none() && status.tags.iter().all(|tag| tag.state == TagState::Live) && status.pending_keys == 0
}

#[test]
fn replayed_records_end_where_they_would_have_been_once_whatever_happens_meanwhile() {
    let topic = Topic::with_partitions("replay", 1);
    let shop = Shop::of("replay", &files(&topic.name));
    // The second moves the watermark past the third, which is late only because of it.
    let records = [
        order(1, 10, "1"),
        order(1, 50, "12.5"),
        order(1, 20, "2"),
        order(2, 55, "3"),
        order(2, 58, "\"many\""),
        order(2, 130, "4"),
    ];
    topic.write(0, &records);
    let mut daemon = shop.start();
    daemon.until_quiet(3);
    daemon.until("two records do not fit", |status| status.letters_kept.get("orders") == Some(&2));
    let rows = |tag: &str| {
        let window = if tag == "hours" { "DATE_FORMAT(window_start, '%H'), ' ', n, ' ', " } else { "" };
        shop.registry(&format!("SELECT CONCAT(user_id, ' ', {window}v) FROM {tag} ORDER BY 1"))
    };
    shop.until_rows(&rows, "hours", &["1 00 2 3", "2 00 1 3"]);
    assert_eq!(rows("times"), ["1 2", "2 2"]);
    let (code, refused) = run(&shop, &["replay", "--all"]);
    assert_eq!(code, Some(1), "{refused}");
    assert!(refused.contains("orders: 1 stay: they still do not fit: column \"amount\""), "{refused}");

    mend(&shop);
    daemon.until("the mended tags are filled", |status| live(status) && version(&shop) == ["2"]);
    assert_eq!(rows("times"), ["1 2", "2 2"], "a tag that does not read the column has to wait for the replay");
    let (code, told) = run(&shop, &["replay", "--stream", "orders"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(
            "orders: 1 records fit now and are taken in, as these tags are filled again: hours, spent, times"
        ),
        "{told}"
    );
    assert!(told.contains("orders: 1 stay: they still do not fit: column \"amount\""), "{told}");
    // Killed before, while or after the tags are filled: the next one does what is left.
    daemon.kill();
    let mut daemon = shop.start();
    shop.until_rows(&rows, "times", &["1 3", "2 2"]);
    daemon.until("all follow", live);
    shop.until_rows(&rows, "spent", &["1 15.50", "2 7.00"]);
    shop.until_rows(&rows, "hours", &["1 00 2 13.50", "2 00 1 3.00"]);
    let (code, told) = run(&shop, &["replay", "--all"]);
    assert_eq!(code, Some(1), "what is left does not fit: {told}");
    assert_eq!(rows("times"), ["1 3", "2 2"]);

    // Another replay while it runs, of a schema that takes everything, and a tag that comes later.
    let schema = fs::read_to_string(shop.path("schemas/orders.toml")).unwrap();
    let takes_all = "amount = { type = \"DECIMAL(12,2)\", on_error = \"null\" }";
    fs::write(shop.path("schemas/orders.toml"), schema.replace("amount = \"DECIMAL(12,2)\"", takes_all)).unwrap();
    daemon.until("the schema is taken", |status| live(status) && version(&shop) == ["4"]);
    assert_eq!(rows("times"), ["1 3", "2 2"]);
    let (code, told) = run(&shop, &["replay", "--error", "AMOUNT"]);
    assert_eq!(code, Some(0), "{told}");
    shop.until_rows(&rows, "times", &["1 3", "2 3"]);
    shop.until_rows(&rows, "spent", &["1 15.50", "2 7.00"]);
    shop.until_rows(&rows, "hours", &["1 00 2 13.50", "2 00 2 3.00"]);
    fs::write(shop.path("tags/later.sql"), "SELECT user_id, COUNT(*) AS v FROM orders GROUP BY user_id").unwrap();
    daemon.until("the new tag follows too", |status| live(status) && status.tags.len() == 4);
    shop.until_rows(&rows, "later", &["1 3", "2 3"]);
    let (code, told) = run(&shop, &["replay", "--all"]);
    assert_eq!(code, Some(1), "a late event stays late: {told}");
    assert!(told.starts_with("orders: 1 stay: late is late by the order of records"), "{told}");
    daemon.interrupt();
    shop.verify();
}

#[test]
fn record_that_the_topic_does_not_hold_any_more_is_not_replayed_and_not_lost() {
    let topic = Topic::with_partitions("replay-gone", 1);
    let shop = Shop::of("replay_gone", &files(&topic.name)[..2]);
    topic.write(0, &[order(1, 10, "12.5"), order(1, 20, "2")]);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    topic.delete_before(0, 1);
    mend(&shop);
    let (code, told) = run(&shop, &["replay", "--all"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("orders: 1 stay: the topic does not hold them any more"), "{told}");
    let (_, shown) = run(&shop, &["show", "orders", "0", "0"]);
    assert!(shown.contains("\"amount\":12.5"), "{shown}");
    daemon.interrupt();
}
