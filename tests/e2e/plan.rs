//! `tagflow plan` beside a real daemon: what it tells is what the daemon then does.

use serde_json::Value;
use tagflow::engine::status::TagState;

use crate::shop::{Daemon, Shop};
use crate::topic::Topic;

const SPENT: &str = "SELECT user_id, SUM(amount) AS spent FROM orders WHERE user_id IS NOT NULL GROUP BY user_id";
const BIG: &str = "/* tag\nreaders = [\"crm\"]\n*/\nSELECT user_id FROM tags.spent WHERE spent > 100";
const LAST: &str = "SELECT user_id, MAX(order_id) AS last FROM orders WHERE user_id IS NOT NULL GROUP BY user_id";

fn project(topic: &str) -> Vec<(&'static str, String)> {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n[columns]\norder_id = \"BIGINT NOT NULL\"\n\
         user_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\n"
    );
    let tag = |name: &'static str, sql: &str| (name, sql.to_string());
    vec![
        ("schemas/orders.toml", schema),
        tag("tags/spent.sql", SPENT),
        tag("tags/big.sql", BIG),
        tag("tags/last.sql", LAST),
    ]
}

/// Orders 0 to 119 of the users 0 to 2, of 0.50 to 119.50.
fn write_orders(topic: &Topic) {
    for partition in [0, 1] {
        let own = (0..120).filter(|id| id % 2 == i64::from(partition));
        let order = |id: i64| (format!("{{\"order_id\":{id},\"user_id\":{},\"amount\":{id}.50}}", id % 3), None);
        topic.write(partition, &own.map(order).collect::<Vec<_>>());
    }
}

fn plan(shop: &Shop, arguments: &[&str]) -> Value {
    let output = shop.output(&[&["plan", "--format", "json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `tag fate` of each tag that a plan tells of.
fn fates(plan: &Value) -> Vec<String> {
    let tags = plan["tags"].as_array().unwrap().iter();
    tags.map(|tag| format!("{} {}", tag["tag"].as_str().unwrap(), tag["fate"].as_str().unwrap())).collect()
}

fn edit(shop: &Shop, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(shop.path(file)).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(shop.path(file), text.replace(from, to)).unwrap();
}

/// Waits until tables are of these versions, and nothing is filled any more.
fn until_versions(shop: &Shop, daemon: &mut Daemon<'_>, expected: &str) {
    let versions = "SELECT GROUP_CONCAT(tag, ' ', version ORDER BY tag SEPARATOR ', ') FROM _tagflow_tags";
    shop.until_registry(versions, expected);
    daemon.until_quiet(3);
}

#[test]
fn what_is_told_before_is_what_the_daemon_does_then() {
    let topic = Topic::with_partitions("plan", 2);
    let shop = Shop::of("plan", &project(&topic.name));
    write_orders(&topic);
    let first = plan(&shop, &[]);
    assert_eq!(fates(&first), ["big added", "last added", "spent added"]);
    assert_eq!((first["fill"]["records"].as_u64(), first["fill"]["tags"].as_u64()), (Some(120), Some(3)), "{first:#}");

    let mut daemon = shop.start();
    daemon.until_quiet(3);
    assert_eq!(fates(&plan(&shop, &[])), [""; 0]);

    // The change is tried out elsewhere: what the daemon has planned from is then known by the saved state alone.
    let branch = shop.elsewhere();
    edit(&branch, "tags/spent.sql", "IS NOT NULL", "IS NOT NULL AND amount > 50");
    edit(&branch, "tags/last.sql", "SELECT", "/* tag\ntitle = \"Last order\"\n*/\nSELECT");
    let state = branch.path("state.json");
    let saved = shop.output(&["plan", "--save", state.to_str().unwrap()]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let expected = ["big changed", "spent changed", "last metadata"];
    let beside = plan(&branch, &["--offline"]);
    assert_eq!(fates(&beside), expected);
    assert_eq!(beside["tags"][1]["why"][0]["what"], "its query", "{beside:#}");
    let told = plan(&branch, &["--state", state.to_str().unwrap(), "--data", "--sample", "100%"]);
    assert_eq!(fates(&told), expected);
    let (big, spent) = (&told["tags"][0], &told["tags"][1]);
    assert_eq!(big["why"][0]["file"], "tags/spent.sql");
    assert_eq!((&big["kind"], &big["readers"][0]), (&"segment".into(), &"crm".into()));
    assert_eq!(spent["downstream"][0]["tag"], "big");
    assert_eq!(told["fill"]["records"], 120);
    // Users lose their orders of 0.50 to 49.50, of 1.50, 4.50 … 49.50 the user 1; the segment keeps everybody.
    let data = &spent["data"];
    assert_eq!((data["changed"].as_u64(), data["same"].as_u64()), (Some(3), Some(0)), "{data:#}");
    assert_eq!(data["biggest"][0]["change"].as_f64(), Some(-433.5), "{data:#}");
    assert_eq!((big["data"]["changed"].as_u64(), big["data"]["same"].as_u64()), (Some(0), Some(3)), "{big:#}");

    for file in ["tags/spent.sql", "tags/last.sql"] {
        std::fs::copy(branch.path(file), shop.path(file)).unwrap();
    }
    until_versions(&shop, &mut daemon, "big 2, last 1, spent 2");
    shop.until_registry("SELECT title FROM _tagflow_tags WHERE tag = 'last'", "Last order");
    assert_eq!(fates(&plan(&shop, &[])), [""; 0]);
    // As it was before, which is kept up to date: nothing is filled.
    edit(&branch, "tags/spent.sql", " AND amount > 50", "");
    let back = plan(&branch, &[]);
    assert_eq!(fates(&back), ["big changed", "spent changed"]);
    assert_eq!((&back["tags"][1]["returns_to"], &back["fill"]), (&1.into(), &Value::Null), "{back:#}");
    daemon.interrupt();

    // What changes while no daemon runs is told by its notes, and done at the next start.
    edit(&shop, "tags/last.sql", "Last order", "Newest order");
    edit(&shop, "schemas/orders.toml", "DECIMAL(12,2)", "DECIMAL(14,2)");
    let told = plan(&shop, &[]);
    assert_eq!(fates(&told), expected);
    assert_eq!(told["tags"][1]["why"][0]["what"], "column `amount`: DECIMAL(12,2) → DECIMAL(14,2)");
    let mut daemon = shop.start();
    until_versions(&shop, &mut daemon, "big 3, last 1, spent 3");
    shop.until_registry("SELECT title FROM _tagflow_tags WHERE tag = 'last'", "Newest order");
    assert_eq!(fates(&plan(&shop, &[])), [""; 0]);
    daemon.interrupt();

    let mut away = shop;
    away.store = "mysql://nobody@127.0.0.1:1/nothing".to_string();
    let told = plan(&away, &["--offline"]);
    assert_eq!(fates(&told), [""; 0]);
    assert!(told["remarks"][0].as_str().unwrap().starts_with("the store was not asked: "), "{told:#}");
    std::fs::remove_dir_all(away.path(".tagflow")).unwrap();
    let output = away.output(&["plan", "--offline"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && message.contains("compare with a saved state (--state FILE)"),
        "{message}"
    );
}

#[test]
fn history_that_is_not_whole_any_more_is_told_before_the_tag_waits() {
    let topic = Topic::with_partitions("plan_cut", 2);
    let shop = Shop::of("plan_cut", &project(&topic.name));
    write_orders(&topic);
    let mut daemon = shop.start();
    daemon.until_quiet(3);
    daemon.interrupt();
    topic.delete_before(0, 10);

    edit(&shop, "tags/last.sql", "MAX(order_id)", "MIN(order_id)");
    let told = plan(&shop, &[]);
    assert_eq!(fates(&told), ["last changed"]);
    let last = &told["tags"][0];
    assert!(last["waits_for_accept"] == true && last["complete_from"].is_string(), "{last:#}");
    assert_eq!(told["fill"]["records"], 110);
    let human = String::from_utf8(shop.output(&["plan"]).stdout).unwrap();
    assert!(human.contains("it waits for `tagflow accept last`"), "{human}");

    let mut daemon = shop.start();
    daemon.until("the new version waits", |status| {
        status.tags.iter().any(|tag| tag.tag == "last" && tag.state == TagState::Waiting)
    });
}
