//! Hundreds of thousands of changed keys that wait for the store come in one transaction: a reader sees all or none.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tagflow::engine::status::TagState;

use crate::mariadb::Other;
use crate::shop::Shop;
use crate::topic::Topic;

const USERS: u64 = 200_000;

/// Ends the reader, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn hundreds_of_thousands_of_keys_of_one_flush_are_seen_at_once() {
    let topic = Topic::with_partitions("large_flush", 1);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
    let shop = Shop::of("large_flush", &[("schemas/orders.toml", schema), ("tags/visits.sql", tag.to_string())]);
    let orders = |users: std::ops::RangeInclusive<u64>| -> Vec<(String, Option<i64>)> {
        users.map(|user| (format!("{{\"user_id\":{user}}}"), None)).collect()
    };
    topic.write(0, &orders(1..=USERS));
    let mut daemon = shop.start();
    daemon.until("the tag lives", |status| status.tags.iter().any(|tag| tag.state == TagState::Live));
    shop.until_registry("SELECT CONCAT(COUNT(*)) FROM visits", &USERS.to_string());

    let before = daemon.status().unwrap().events;
    let seconds = "SELECT CONCAT(COUNT(*)) FROM visits WHERE n = 2 AND user_id > 0";
    let (seen, is_over) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let rows: u64 = shop.registry(seconds)[0].parse().unwrap();
                seen.lock().unwrap().insert(rows);
            }
        });
        let over = Over(&is_over);
        // The commit of a first order waits for somebody who holds this row, and all that follow for that commit.
        let mut other = Other::to(&shop.store).unwrap();
        other.run("START TRANSACTION");
        other.run("SELECT * FROM _tagflow_meta FOR UPDATE");
        topic.write(0, &orders(0..=0));
        daemon.until("the first is on its way", |status| status.events > before && status.pending_keys == 0);
        topic.write(0, &orders(1..=USERS));
        daemon.until("all wait", |status| status.pending_keys == USERS);
        other.run("ROLLBACK");
        shop.until_registry(seconds, &USERS.to_string());
        drop(over);
    });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen, BTreeSet::from([0, USERS]));
    daemon.interrupt();
    shop.verify();
}
