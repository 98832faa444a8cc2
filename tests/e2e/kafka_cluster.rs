//! A cluster of two brokers under a daemon that reads: leaders that move, brokers that die, and one that says nothing.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

use crate::broker::Cluster;
use crate::shop::{PATIENCE, Shop};
use crate::topic::Topic;

/// A project that counts orders, of a topic that both brokers have, whose leader is the first.
fn shop_on(cluster: &Cluster) -> (Topic, Shop) {
    let topic = Topic::at(cluster.bootstrap(), "cluster");
    let settings = NewTopic::new(&topic.name, 1, TopicReplication::Variable(&[&[1, 2]]));
    let begun = Instant::now();
    // The second broker may be up and not yet known to the first.
    while block_on(topic.admin.create_topics([&settings], &AdminOptions::new())).unwrap().remove(0).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the topic cannot be made");
        std::thread::sleep(Duration::from_millis(100));
    }
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string();
    let mut shop = Shop::of("cluster", &[("schemas/orders.toml", schema), ("tags/visits.sql", tag)]);
    shop.kafka = cluster.bootstrap();
    (topic, shop)
}

/// Writes orders to whichever broker leads, and waits until the table has them too.
fn write(topic: &Topic, shop: &Shop, total: &mut i64, what: &str) {
    topic.write(0, &vec![("{\"user_id\": 7}".to_string(), None); 100]);
    *total += 100;
    println!("{what}: {total} orders");
    shop.until_registry("SELECT CAST(COALESCE(SUM(n), 0) AS CHAR) FROM visits", &total.to_string());
}

fn leader(topic: &Topic) -> i32 {
    let found = topic.admin.inner().fetch_metadata(Some(&topic.name), Duration::from_secs(5));
    found.map_or(-1, |found| found.topics()[0].partitions()[0].leader())
}

fn until_led_by(topic: &Topic, broker: i32) {
    let begun = Instant::now();
    while leader(topic) != broker {
        assert!(begun.elapsed() < PATIENCE, "broker {broker} does not lead");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn leader_that_moves_and_a_broker_that_dies_cost_no_record() {
    let mut cluster = Cluster::of(2);
    let (topic, shop) = shop_on(&cluster);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    let mut total = 0;
    write(&topic, &shop, &mut total, "led by the first broker");
    let place = format!(
        "{{\"version\": 1, \"partitions\": [{{\"topic\": \"{}\", \"partition\": 0, \"replicas\": [2, 1]}}]}}",
        topic.name
    );
    let plan = cluster.path("plan.json");
    std::fs::write(&plan, place).unwrap();
    let reassign = ["--reassignment-json-file", plan.to_str().unwrap(), "--execute"];
    cluster.tool("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", &reassign);
    let elect = ["--election-type", "preferred", "--all-topic-partitions"];
    cluster.tool("org.apache.kafka.tools.LeaderElectionCommand", &elect);
    until_led_by(&topic, 2);
    write(&topic, &shop, &mut total, "led by the second, both alive");
    cluster.kill(2);
    until_led_by(&topic, 1);
    write(&topic, &shop, &mut total, "the second is dead");
    cluster.launch(2);
    cluster.until_up(2);
    write(&topic, &shop, &mut total, "the second is back");
    daemon.interrupt();
    shop.verify();
}

/// A broker that is stopped for so long; told once that is longer than an answer may take.
fn silent_for(silence: Duration, is_told: bool) {
    let cluster = Cluster::of(1);
    let topic = Topic::at(cluster.bootstrap(), "silent");
    topic.create(1);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string();
    let mut shop = Shop::of("silent", &[("schemas/orders.toml", schema), ("tags/visits.sql", tag)]);
    shop.kafka = cluster.bootstrap();
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    let mut total = 0;
    write(&topic, &shop, &mut total, "before");
    cluster.signal(1, "STOP");
    let begun = Instant::now();
    if is_told {
        daemon.until("the silence is told", |status| status.troubles.iter().any(|told| told.contains("no answer")));
    }
    std::thread::sleep(silence.saturating_sub(begun.elapsed()));
    cluster.signal(1, "CONT");
    write(&topic, &shop, &mut total, "after");
    daemon.until("the trouble is over", |status| status.troubles.is_empty());
    daemon.interrupt();
    shop.verify();
}

#[test]
fn broker_that_is_silent_for_seconds_costs_no_record() {
    silent_for(Duration::from_secs(5), false);
}

#[test]
#[ignore = "takes more than a minute"]
fn broker_that_is_silent_for_a_minute_is_trouble_and_costs_no_record() {
    silent_for(Duration::from_secs(65), true);
}
