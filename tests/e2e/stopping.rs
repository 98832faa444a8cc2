//! A daemon that is told to stop ends within ten seconds, whoever does not answer it, and the next one goes on from there.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use tagflow::engine::status::{Phase, TagState};

use crate::mariadb::Server;
use crate::shop::{Daemon, Shop};
use crate::topic::{Topic, send};

/// What supervisors give.
const STOP: Duration = Duration::from_secs(10);

fn shop(name: &str, topic: &str) -> Shop {
    let schema =
        format!("connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT\"\n");
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders WHERE user_id IS NOT NULL GROUP BY user_id";
    Shop::of(name, &[("schemas/orders.toml", schema), ("tags/visits.sql", tag.to_string())])
}

fn orders(users: std::ops::Range<u64>) -> Vec<(String, Option<i64>)> {
    users.map(|user| (format!("{{\"user_id\": {user}}}"), None)).collect()
}

fn live(daemon: &mut Daemon<'_>) {
    daemon.until("the tag lives", |status| status.tags.iter().any(|tag| tag.state == TagState::Live));
}

fn rows_are(server: &Server, shop: &Shop, users: u64) {
    let begun = std::time::Instant::now();
    let expected = format!("{users}\n");
    while server.run("SELECT COUNT(*) FROM stop.visits") != expected {
        assert!(begun.elapsed() < crate::shop::PATIENCE, "{}", shop.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn silent_or_dead_database_keeps_no_daemon_from_stopping() {
    let mut server = Server::install();
    let topic = Topic::with_partitions("stopping", 1);
    let mut shop = shop("stopping", &topic.name);
    shop.store = server.url("stop");
    topic.write(0, &orders(0..150_000));

    // In the middle of a fill, which writes hundreds of thousands of rows.
    let mut daemon = shop.start();
    daemon.until("it fills", |status| status.fill.as_ref().is_some_and(|fill| fill.rows > 0));
    server.signal("STOP");
    daemon.signal("TERM");
    assert_eq!(daemon.end(STOP), 1);
    assert!(shop.log().contains("the store did not answer before the daemon stopped"), "{}", shop.log());
    // While it waits for the store to open.
    let mut daemon = shop.start();
    daemon.until("it asks for the store", |status| status.phase == Phase::Starting);
    daemon.signal("INT");
    assert_eq!(daemon.end(STOP), 0);
    server.signal("CONT");
    let mut daemon = shop.start();
    live(&mut daemon);
    rows_are(&server, &shop, 150_000);

    // With a large flush under way.
    topic.write(0, &orders(100_000..300_000));
    daemon.until("it reads them", |status| status.events > 0);
    server.signal("STOP");
    daemon.signal("TERM");
    assert_eq!(daemon.end(STOP), 1);
    server.signal("CONT");
    let mut daemon = shop.start();
    live(&mut daemon);
    rows_are(&server, &shop, 300_000);

    // Gone for good, with keys that wait for it.
    server.kill();
    topic.write(0, &orders(300_000..300_100));
    daemon.until("keys wait", |status| status.pending_keys > 0 || !status.troubles.is_empty());
    daemon.signal("INT");
    assert_eq!(daemon.end(STOP), 1);
    server.start();
    let mut daemon = shop.start();
    live(&mut daemon);
    rows_are(&server, &shop, 300_100);
    daemon.interrupt();
    shop.verify();
}

#[test]
fn silent_or_dead_broker_keeps_no_daemon_from_stopping() {
    // Connections are taken and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut shop = shop("brokers", "orders");
    shop.kafka = silent.local_addr().unwrap().to_string();
    let mut daemon = shop.start();
    daemon.until("it fills", |status| status.fill.is_some());
    daemon.signal("TERM");
    assert_eq!(daemon.end(STOP), 0);

    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    shop.kafka = cluster.bootstrap_servers();
    let producer = crate::topic::producer(&shop.kafka, &[]);
    send(&producer, "orders", 0, &orders(0..10));
    rdkafka::producer::Producer::flush(&producer, STOP).unwrap();
    let mut daemon = shop.start();
    live(&mut daemon);
    shop.until_registry("SELECT CONCAT(COUNT(*)) FROM visits", "10");
    drop((producer, cluster));
    daemon.until("the broker is missed", |status| !status.troubles.is_empty());
    daemon.signal("TERM");
    assert_eq!(daemon.end(STOP), 0);
}

#[test]
fn daemon_that_has_heard_of_nothing_new_stops_with_its_checkpoint_written() {
    let topic = Topic::with_partitions("quiet_stop", 1);
    let shop = shop("quiet_stop", &topic.name);
    topic.write(0, &orders(0..10));
    let mut daemon = shop.start();
    live(&mut daemon);
    shop.until_registry("SELECT CONCAT(COUNT(*)) FROM visits", "10");
    daemon.kill();
    for _ in 0..2 {
        let mut daemon = shop.start();
        live(&mut daemon);
        daemon.signal("TERM");
        assert_eq!(daemon.end(STOP), 0);
    }
    assert_eq!(shop.log().matches("run: stopped").count(), 2, "{}", shop.log());
    assert!(!shop.log().contains("not written in time"), "{}", shop.log());
}
