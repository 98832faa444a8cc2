//! Two daemons on one project: one writes, the other waits for it, takes over, or takes the store from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tagflow::engine::status::{Phase, TagState};

use crate::shop::{PATIENCE, Shop};
use crate::topic::Topic;

/// What is promised of a crash; the lease is 6 s.
const TAKE_OVER: Duration = Duration::from_secs(10);

fn shop(name: &str, topic: &Topic) -> Shop {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders WHERE user_id IS NOT NULL GROUP BY user_id";
    Shop::of(name, &[("schemas/orders.toml", schema), ("tags/visits.sql", tag.to_string())])
}

/// Writes orders until it is dropped, one a user and turn, and reads the table meanwhile: its values never go back.
struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Traffic {
    fn start(topic: &str, shop: &Shop) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (topic, store) = (topic.to_string(), shop.store.clone());
        let (one, other) = (Arc::clone(&stop), Arc::clone(&stop));
        let writer = std::thread::spawn(move || {
            let producer = crate::topic::producer(&crate::topic::brokers(), &[]);
            let mut turns = 0;
            while !one.load(Ordering::SeqCst) {
                let records: Vec<_> = (0..20).map(|user| (format!("{{\"user_id\": {user}}}"), None)).collect();
                crate::topic::send(&producer, &topic, 0, &records);
                rdkafka::producer::Producer::flush(&producer, PATIENCE).unwrap();
                turns += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            turns
        });
        let reader = std::thread::spawn(move || {
            use mysql_async::prelude::Queryable;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = mysql_async::Conn::from_url(&store).await.unwrap();
                let mut newest = [0; 20];
                while !other.load(Ordering::SeqCst) {
                    let rows: Vec<(usize, u64)> = connection.query("SELECT user_id, n FROM visits").await.unwrap();
                    for (user, n) in &rows {
                        assert!(*n >= newest[*user], "user {user} went back from {} to {n}", newest[*user]);
                        newest[*user] = *n;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                newest[0]
            })
        });
        Traffic { stop, threads: vec![writer, reader] }
    }

    /// Orders a user.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let counts: Vec<u64> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        counts[0]
    }
}

fn newest(shop: &Shop) -> u64 {
    shop.registry("SELECT CONCAT(COALESCE(MAX(n), 0)) FROM visits")[0].parse().unwrap()
}

/// Waits until the table goes on; how long that took.
fn until_written(shop: &Shop, since: Instant) -> Duration {
    let before = newest(shop);
    while newest(shop) == before {
        assert!(since.elapsed() < PATIENCE, "nobody writes\n{}", shop.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    since.elapsed()
}

fn expect_counts(shop: &Shop, orders: u64) {
    shop.until_registry(
        "SELECT CONCAT(COUNT(*), ' ', MIN(n), ' ', MAX(n)) FROM visits",
        &format!("20 {orders} {orders}"),
    );
}

#[test]
fn standby_takes_over_from_a_killed_daemon_within_seconds_and_no_value_goes_back() {
    let topic = Topic::with_partitions("standby", 1);
    let shop = shop("standby", &topic);
    let mut active = shop.start();
    active.until("the tag lives", |status| status.tags.iter().any(|tag| tag.state == TagState::Live));
    let traffic = Traffic::start(&topic.name, &shop);
    let mut standby = shop.start_beside("--standby");
    let waiting = standby.until("it waits", |status| status.phase == Phase::Standby);
    let holder = waiting.holder.unwrap();
    assert!(holder.starts_with(&format!("process {} on ", active.pid())), "{holder}");
    assert_eq!(waiting.generation, None);
    until_written(&shop, Instant::now());
    active.until("there is a checkpoint", |status| status.checkpoint_epoch.is_some());
    active.kill();
    let took = until_written(&shop, Instant::now());
    assert!(took < TAKE_OVER, "{took:?}\n{}", shop.log());
    eprintln!("with the state directory of the killed one: {took:?}");

    // One without a state directory of its own has nothing to tell it that the active one is dead but the lease.
    let elsewhere = shop.elsewhere();
    let mut other = elsewhere.start_beside("--standby");
    other.until("the other waits", |status| status.phase == Phase::Standby);
    standby.kill();
    let took = until_written(&shop, Instant::now());
    assert!(took < TAKE_OVER, "{took:?}\n{}", elsewhere.log());
    eprintln!("without it: {took:?}");
    let status = other.until("it writes", |status| status.generation == Some(3) && status.holder.is_none());
    assert_eq!(status.phase, Phase::Running);

    // A graceful end gives the lease back at once.
    let mut last = shop.start_beside("--standby");
    last.until("the last waits", |status| status.phase == Phase::Standby);
    other.interrupt();
    let begun = Instant::now();
    last.until("the last writes", |status| status.generation == Some(4));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}\n{}", begun.elapsed(), shop.log());
    let orders = traffic.end();
    expect_counts(&shop, orders);
    last.interrupt();
    shop.verify();
}

#[test]
fn second_daemon_is_refused_by_name_or_takes_over_and_the_first_ends_with_a_code_of_its_own() {
    let topic = Topic::with_partitions("takeover", 1);
    let shop = shop("takeover", &topic);
    let elsewhere = shop.elsewhere();
    let mut first = shop.start();
    first.until("the tag lives", |status| status.tags.iter().any(|tag| tag.state == TagState::Live));
    let traffic = Traffic::start(&topic.name, &shop);
    let refused = |shop: &Shop, word: &str| {
        let output = shop.output(&["run", "--listen", "127.0.0.1:0"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains(&format!("process {} on ", first.pid())) && told.contains(word), "{told}");
    };
    refused(&shop, "uses this state directory");
    refused(&elsewhere, "--take-over takes the store from it");
    until_written(&shop, Instant::now());

    let mut second = elsewhere.start_beside("--take-over");
    second.until("the second writes", |status| status.generation == Some(2));
    assert_eq!(first.end(TAKE_OVER), 3, "{}", shop.log());
    assert!(shop.log().contains("another tagflow daemon (generation 2) has taken over"), "{}", shop.log());
    second.until("the tag lives", |status| status.tags.iter().any(|tag| tag.state == TagState::Live));

    // Stopped for longer than its lease, it finds another writer when it wakes up, and writes nothing.
    let mut third = shop.start_beside("--standby");
    third.until("the third waits", |status| status.phase == Phase::Standby);
    second.signal("STOP");
    let took = until_written(&shop, Instant::now());
    assert!(took < TAKE_OVER, "{took:?}\n{}", shop.log());
    second.signal("CONT");
    assert_eq!(second.end(TAKE_OVER), 3, "{}", elsewhere.log());

    // The same on one machine with one state directory: the lock of a stopped process does not count.
    let mut fourth = shop.start_beside("--standby");
    fourth.until("the fourth waits", |status| status.phase == Phase::Standby);
    third.signal("STOP");
    let took = until_written(&shop, Instant::now());
    assert!(took < TAKE_OVER, "{took:?}\n{}", shop.log());
    third.signal("CONT");
    assert_eq!(third.end(TAKE_OVER), 3, "{}", shop.log());
    let orders = traffic.end();
    expect_counts(&shop, orders);
    fourth.interrupt();
    shop.verify();
}
