//! What a tag does of a row that fails: stop and name it, skip it, or go on with NULL; the others never notice.

use std::fs;

use tagflow::engine::status::TagState;

use crate::shop::Shop;
use crate::topic::Topic;

const QUERY: &str = "SELECT user_id, COUNT(*) AS n, SUM(amount / pieces) AS per FROM orders GROUP BY user_id";

fn order(user: i64, amount: i64, pieces: i64) -> (String, Option<i64>) {
    (format!("{{\"user_id\":{user},\"amount\":{amount},\"pieces\":{pieces}}}"), None)
}

#[test]
fn failing_row_is_named_by_the_tag_that_stops_and_skipped_or_null_in_the_others() {
    let topic = Topic::with_partitions("on-error", 2);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\n\
         user_id = \"BIGINT NOT NULL\"\namount = \"BIGINT\"\npieces = \"BIGINT\"\n",
        topic.name
    );
    let tag = |on_error: &str| format!("/* tag\non_error = \"{on_error}\"\n*/\n{QUERY}");
    let files = [
        ("schemas/orders.toml", schema),
        ("tags/stops.sql", tag("stop")),
        ("tags/skips.sql", tag("skip")),
        ("tags/nulls.sql", tag("null")),
        ("tags/calm.sql", "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string()),
    ];
    let shop = Shop::of("on_error", &files);
    topic.write(0, &[order(1, 10, 2), order(1, 8, 4)]);
    topic.write(1, &[order(2, 9, 3)]);
    let mut daemon = shop.start();
    daemon.until_quiet(4);
    topic.write(1, &[order(2, 6, 1), order(1, 1, 0), order(2, 0, 0), order(2, 5, 1)]);
    let status = daemon.until("one tag is set aside, the others have taken all", |status| {
        let is = |name: &str, state: TagState| status.tags.iter().any(|tag| tag.tag == name && tag.state == state);
        is("stops", TagState::Failed)
            && ["skips", "nulls", "calm"].iter().all(|tag| is(tag, TagState::Live))
            && status.lag == 0
            && status.pending_keys == 0
            && status.partitions.iter().map(|partition| partition.next_offset).sum::<i64>() == 7
    });
    let stopped = status.tags.iter().find(|tag| tag.tag == "stops").unwrap().message.clone().unwrap();
    let place = format!("(at topic \"{}\", partition 1, offset 2)", topic.name);
    assert!(stopped.contains("ivide by zero") && stopped.ends_with(&place), "{stopped}");
    let rows = |tag: &str| {
        shop.registry(&format!("SELECT CONCAT(user_id, ' ', n, ' ', COALESCE(per, 'NULL')) FROM {tag} ORDER BY 1"))
    };
    shop.until_rows(&rows, "skips", &["1 2 7", "2 3 14"]);
    shop.until_rows(&rows, "nulls", &["1 3 7", "2 4 14"]);
    assert_eq!(rows("stops"), ["1 2 7", "2 1 3"], "its table stays as it was");
    let skipped = status.tags.iter().find(|tag| tag.tag == "skips").unwrap().skipped;
    assert_eq!((skipped, status.skipped.get("orders"), status.dead_letters.get("orders")), (2, Some(&2), Some(&2)));
    let listed = shop.output(&["dead-letters", "list", "--tag", "skips", "--kind", "skip", "--format", "json"]);
    let letters: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let places: Vec<_> =
        letters.as_array().unwrap().iter().map(|letter| (&letter["partition"], &letter["offset"])).collect();
    assert_eq!(places, [(&1.into(), &2.into()), (&1.into(), &3.into())]);
    let error = letters[0]["error"].as_str().unwrap();
    assert!(error.contains("pieces") && error.ends_with("cannot be computed"), "{error}");
    assert!(letters[0]["raw"].as_str().unwrap().contains("\"user_id\":\"1\""), "{letters}");

    // Mended, it is filled past the rows; what was skipped once is not told twice by fills and restarts.
    fs::write(shop.path("tags/stops.sql"), tag("skip")).unwrap();
    daemon.until_quiet(4);
    shop.until_rows(&rows, "stops", &["1 2 7", "2 3 14"]);
    daemon.kill();
    let mut daemon = shop.start();
    daemon.until_quiet(4);
    let listed = shop.output(&["dead-letters", "list", "--tag", "skips", "--format", "json"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&listed.stdout).unwrap(), letters);
    // A tag that fails while it is filled names the row too.
    fs::write(shop.path("tags/late_comer.sql"), QUERY.replace("COUNT(*)", "COUNT(amount)")).unwrap();
    let status = daemon.until("the new tag is set aside", |status| {
        status.tags.iter().any(|tag| tag.tag == "late_comer" && tag.state == TagState::Failed)
    });
    let failed = status.tags.iter().find(|tag| tag.tag == "late_comer").unwrap().message.clone().unwrap();
    assert!(failed.ends_with(&place), "{failed}");
    daemon.interrupt();
    // It has no table that could be compared.
    fs::remove_file(shop.path("tags/late_comer.sql")).unwrap();
    shop.verify();
}
