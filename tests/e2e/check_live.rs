//! `tagflow check --live`: what Kafka and MariaDB say of a project.

use std::process::Output;

use crate::mariadb::Server;
use crate::shop::{Shop, free_port};
use crate::topic::Topic;

const TAG: &str = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";

fn schema(topic: &str) -> String {
    format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n\
         amount = \"DECIMAL(12,2)\"\n"
    )
}

fn order(amount: &str) -> (String, Option<i64>) {
    (format!("{{\"user_id\":1,\"amount\":{amount}}}"), None)
}

/// What is told, as code, severity and message, and the exit code.
fn told(shop: &Shop) -> (Vec<(String, String, String)>, Option<i32>) {
    let Output { stdout, stderr, status } = shop.output(&["check", "--live", "--format", "json"]);
    let value: serde_json::Value =
        serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    let text = |told: &serde_json::Value, key: &str| told[key].as_str().unwrap().to_owned();
    let told = value["diagnostics"].as_array().unwrap().iter();
    (told.map(|told| (text(told, "code"), text(told, "severity"), text(told, "message"))).collect(), status.code())
}

#[test]
fn topics_and_their_newest_records_are_looked_at() {
    let (good, bad, worse, empty) = (
        Topic::with_partitions("live-good", 2),
        Topic::with_partitions("live-bad", 2),
        Topic::with_partitions("live-worse", 1),
        Topic::with_partitions("live-empty", 1),
    );
    let fine: Vec<_> = (0..300).map(|amount| order(&amount.to_string())).collect();
    good.write(0, &fine);
    bad.write(0, &fine);
    bad.write(1, &[order("1"), order("\"many\""), order("3")]);
    worse.write(0, &[order("\"many\""), order("\"more\"")]);
    let missing = Topic::named("live-missing");
    let shop = Shop::of(
        "live",
        &[
            ("schemas/orders.toml", schema(&good.name)),
            ("schemas/bad.toml", schema(&bad.name)),
            ("schemas/worse.toml", schema(&worse.name)),
            ("schemas/empty.toml", schema(&empty.name)),
            ("schemas/missing.toml", schema(&missing.name)),
            ("tags/n.sql", TAG.to_string()),
        ],
    );
    let (found, code) = told(&shop);
    let bad_message =
        "1 of the newest 103 records of `bad` do not decode; the first is partition 1, offset 1: column \"amount\": ";
    let worse_message =
        "2 of the newest 2 records of `worse` do not decode; the first is partition 0, offset 0: column \"amount\": ";
    let missing_message = format!("the topic \"{}\" does not exist", missing.name);
    let expected = [
        ("T1003", "warning", bad_message),
        ("T1004", "note", "the stream `empty` has no records yet"),
        ("T1002", "error", &missing_message),
        ("T1003", "error", worse_message),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((code, severity, message), (known, level, begins)) in found.iter().zip(expected) {
        assert_eq!((code.as_str(), severity.as_str()), (known, level), "{found:?}");
        assert!(message.starts_with(begins), "{message}, not {begins}");
    }
    assert_eq!(code, Some(1));
    assert!(!shop.path(".tagflow").exists(), "nothing is left behind");
    assert_eq!(shop.registry("SHOW TABLES"), [""; 0]);
}

#[test]
fn a_store_that_lets_nobody_in_and_one_that_grants_too_little_are_told_apart() {
    let topic = Topic::with_partitions("live-store", 1);
    topic.write(0, &[order("1")]);
    let mut shop =
        Shop::of("live_store", &[("schemas/orders.toml", schema(&topic.name)), ("tags/n.sql", TAG.to_string())]);
    assert_eq!(told(&shop), (vec![], Some(0)));

    let server = Server::install();
    server.run(
        "CREATE DATABASE shop; CREATE USER reader@'%' IDENTIFIED BY 'secret'; \
         GRANT SELECT, INSERT, CREATE, DROP ON shop.* TO reader@'%'",
    );
    shop.store = format!("mysql://reader:secret@127.0.0.1:{}/shop", server.port());
    let (found, code) = told(&shop);
    assert_eq!((found[0].0.as_str(), code), ("T1007", Some(1)), "{found:?}");
    assert!(found[0].2.starts_with("the store does not let its account change rows: "), "{found:?}");

    shop.store = format!("mysql://reader:wrong@127.0.0.1:{}/shop", server.port());
    let (found, code) = told(&shop);
    assert_eq!((found[0].0.as_str(), code), ("T1006", Some(1)), "{found:?}");
    assert!(!format!("{found:?}").contains("wrong"), "{found:?}");
}

#[test]
fn a_broker_that_is_away_is_told_and_not_waited_for() {
    let mut shop = Shop::of("live_away", &[("schemas/orders.toml", schema("orders")), ("tags/n.sql", TAG.to_string())]);
    shop.kafka = format!("127.0.0.1:{}", free_port());
    let (found, code) = told(&shop);
    assert_eq!((found[0].0.as_str(), code), ("T1001", Some(1)), "{found:?}");
    assert!(found[0].2.starts_with("the stream `orders` cannot be read: "), "{found:?}");
}
