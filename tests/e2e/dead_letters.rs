//! Dead letters while the daemon runs: listed, shown, dropped and kept within their room.

use std::fs;

use crate::shop::Shop;
use crate::topic::Topic;

const TAG: &str = "SELECT user_id, SUM(amount) AS spent FROM orders WHERE user_id IS NOT NULL GROUP BY user_id";

fn project(topic: &str) -> Vec<(&'static str, String)> {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n[columns]\n\
         order_id = \"BIGINT NOT NULL\"\nuser_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\n"
    );
    vec![("schemas/orders.toml", schema), ("tags/spent.sql", TAG.to_string())]
}

fn order(id: i64, amount: &str) -> (String, Option<i64>) {
    (format!("{{\"order_id\":{id},\"user_id\":{},\"amount\":{amount}}}", id % 3), Some(1_700_000_000_000 + id))
}

fn run(shop: &Shop, arguments: &[&str]) -> String {
    let output = shop.output(&[&["dead-letters"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn offsets(shop: &Shop, arguments: &[&str]) -> Vec<i64> {
    let listed = run(shop, &[&["list", "--format", "json"], arguments].concat());
    let letters: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    letters.iter().map(|letter| letter["offset"].as_i64().unwrap()).collect()
}

#[test]
fn letters_are_listed_shown_and_dropped_while_the_daemon_runs_and_dropped_ones_do_not_come_back() {
    let topic = Topic::with_partitions("letters", 2);
    let shop = Shop::of("letters", &project(&topic.name));
    topic.write(0, &[order(0, "1"), order(1, "\"many\""), order(2, "2"), ("{\u{1b}[2J".to_string(), None)]);
    topic.write(1, &[order(3, "\"\""), order(4, "5")]);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    daemon.until("three letters are counted", |status| {
        status.dead_letters.get("orders") == Some(&3) && status.letters_kept.get("orders") == Some(&3)
    });

    let listed = run(&shop, &["list"]);
    assert!(listed.contains("column \"amount\": ") && listed.ends_with("3 dead letters\n"), "{listed}");
    assert!(run(&shop, &["list", "--limit", "1"]).ends_with("the newest 1 of 3 dead letters\n"));
    assert_eq!(offsets(&shop, &["--partition", "0"]), [1, 3]);
    assert_eq!(offsets(&shop, &["--error", "AMOUNT", "--partition", "1"]), [0]);
    assert_eq!(offsets(&shop, &["--topic", &topic.name, "--offset", "3"]), [3]);
    assert_eq!(offsets(&shop, &["--until", "1h"]), [0i64; 0]);
    assert_eq!(offsets(&shop, &["--since", "1h", "--kind", "decode"]).len(), 3);
    let shown = run(&shop, &["show", "orders", "0", "1"]);
    assert!(shown.contains("record     {\"order_id\":1,\"user_id\":1,\"amount\":\"many\"}"), "{shown}");
    assert!(!run(&shop, &["show", "orders", "0", "3"]).contains('\u{1b}'), "records do not steer the terminal");

    for (unknown, told) in
        [("--stream", "there is no stream `nix`; there are: orders"), ("--tag", "there is no tag `nix`")]
    {
        let refused = shop.output(&["dead-letters", "list", unknown, "nix"]);
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && error.contains(told), "{error}");
    }
    let refused = shop.output(&["dead-letters", "drop"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(run(&shop, &["drop", "--partition", "0", "--offset", "1"]), "1 dead letters dropped\n");
    daemon.until("the daemon sees it", |status| status.letters_kept.get("orders") == Some(&2));
    // A new tag reads all records again.
    fs::write(shop.path("tags/count.sql"), TAG.replace("SUM(amount) AS spent", "COUNT(amount) AS orders")).unwrap();
    daemon.until_quiet(2);
    topic.write(1, &[order(5, "\"x\"")]);
    daemon.until("new letters are kept beside", |status| status.letters_kept.get("orders") == Some(&3));
    assert_eq!(offsets(&shop, &["--partition", "0"]), [3]);
    daemon.kill();
    let mut daemon = shop.start();
    daemon.until_quiet(2);
    assert_eq!(offsets(&shop, &[]).len(), 3);
    assert_eq!(run(&shop, &["drop", "--all"]), "3 dead letters dropped\n");
    daemon.until("none is left", |status| status.letters_kept.get("orders") == Some(&0));
    daemon.interrupt();
    shop.verify();
}

#[test]
fn letters_stay_within_their_room_and_the_metrics_tell_what_went() {
    let topic = Topic::with_partitions("bounded-letters", 1);
    let shop = Shop::of("bounded_letters", &project(&topic.name));
    let settings = fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    fs::write(shop.path("tagflow.toml"), settings.replace("[engine]\n", "[engine]\ndead_letters = \"40kB\"\n"))
        .unwrap();
    let mut daemon = shop.start();
    let status = daemon.until_quiet(1);
    assert_eq!(status.dead_letters.get("orders"), Some(&0), "a counter is there before its first letter");
    topic.write(0, &(0..1000).map(|id| order(id, "\"many\"")).collect::<Vec<_>>());
    let status = daemon.until("all are counted", |status| status.dead_letters.get("orders") == Some(&1000));
    let (kept, dropped) = (status.letters_kept["orders"], status.letters_dropped["orders"]);
    assert!(kept + dropped == 1000 && (50..250).contains(&kept), "{kept} and {dropped}");
    let listed = offsets(&shop, &[]);
    assert_eq!(listed, (1000 - kept as i64..1000).collect::<Vec<_>>());
    let folder = shop.path(".tagflow/demo-kafka/dead-letters");
    let bytes: u64 =
        ["orders.jsonl", "orders.1.jsonl"].iter().map(|name| fs::metadata(folder.join(name)).unwrap().len()).sum();
    assert!(bytes <= 40_000, "{bytes}");
    let metrics = shop.get("/metrics");
    for line in [
        "tagflow_dead_letters{stream=\"orders\"} 1000".to_string(),
        format!("tagflow_dead_letters_dropped{{stream=\"orders\"}} {dropped}"),
        format!("tagflow_dead_letters_kept{{stream=\"orders\"}} {kept}"),
    ] {
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    let newest =
        metrics.lines().find_map(|line| line.strip_prefix("tagflow_dead_letter_newest_seconds{stream=\"orders\"} "));
    let age = chrono::Utc::now().timestamp() as f64 - newest.unwrap().parse::<f64>().unwrap();
    assert!((-1.0..600.0).contains(&age), "{age}");
    daemon.interrupt();
}
