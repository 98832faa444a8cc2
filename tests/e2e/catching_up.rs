//! A daemon that was away for long catches up by the newest values: what lay between is read, and not written.

use std::time::{Duration, Instant};

use crate::shop::Shop;
use crate::topic::Topic;

const USERS: u64 = 100;
const EVENTS: u64 = 200_000;
/// As the project of [`Shop::of`] has it.
const FLUSH: Duration = Duration::from_millis(200);

#[test]
fn daemon_that_was_away_writes_each_key_once_a_flush_and_not_once_an_event() {
    let topic = Topic::with_partitions("away", 2);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string();
    let shop = Shop::of("away", &[("schemas/orders.toml", schema), ("tags/visits.sql", tag)]);
    let orders = |events: u64| (0..events).map(|event| (format!("{{\"user_id\":{}}}", event % USERS), None));
    topic.write(0, &orders(USERS).collect::<Vec<_>>());
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    daemon.interrupt();

    for partition in 0..2 {
        topic.write(partition, &orders(EVENTS / 2).collect::<Vec<_>>());
    }
    let begun = Instant::now();
    let mut daemon = shop.start();
    let total = EVENTS / USERS + 1;
    daemon.until_quiet(1);
    shop.until_registry("SELECT CONCAT(MIN(n), ' ', MAX(n)) FROM visits", &format!("{total} {total}"));
    let status = daemon.until_quiet(1);
    // A key is written once a flush at most.
    let flushes = begun.elapsed().as_millis() / FLUSH.as_millis() + 1;
    let most = USERS * flushes as u64;
    assert!(status.written >= USERS && status.written <= most.min(EVENTS / 10), "{} of {most}", status.written);
    daemon.interrupt();
    shop.verify();
}
