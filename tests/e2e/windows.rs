//! Windows that close, over a real topic: idle partitions, late events, kills.

use tagflow::engine::status::TagState;

use crate::shop::Shop;
use crate::topic::Topic;

/// 2026-03-01 00:00 in Shanghai, in milliseconds.
const MIDNIGHT: i64 = 1_772_294_400_000;
const MINUTE: i64 = 60_000;

/// An order of a user at a minute of the day, which the broker gets at that time.
fn order(user: i64, minute: i64) -> (String, Option<i64>) {
    let at = MIDNIGHT + minute * MINUTE;
    (format!("{{\"user_id\": {user}, \"amount\": 10, \"order_time\": {at}}}"), Some(at))
}

fn project(topic: &str) -> Vec<(&'static str, String)> {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n\
         time = {{ column = \"order_time\", lateness = \"10m\", idle = \"2s\" }}\n[columns]\n\
         user_id = \"BIGINT\"\namount = \"BIGINT\"\norder_time = {{ type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }}\n"
    );
    let hours = |header: &str| {
        format!(
            "/* tag\n{header}\n*/\nSELECT user_id, window_start, COUNT(*) AS orders, SUM(amount) AS spent\n\
             FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR))\n\
             WHERE user_id IS NOT NULL GROUP BY user_id, window_start\n"
        )
    };
    vec![
        ("schemas/orders.toml", schema),
        ("tags/closed_hours.sql", hours("emit = \"on_close\"")),
        ("tags/patient_hours.sql", hours("emit = \"on_close\"\nallowed_lateness = \"2h\"")),
        ("tags/early_hours.sql", hours("emit = \"on_close\"\nearly = \"1s\"")),
        ("tags/open_hours.sql", hours("emit = \"on_change\"")),
    ]
}

#[test]
fn windows_close_once_past_idle_partitions_and_kills() {
    let topic = Topic::with_partitions("windows", 2);
    let shop = Shop::of("windows", &project(&topic.name));
    topic.write(0, &[order(1, 5), order(1, 50), order(2, 65)]);
    topic.write(1, &[order(1, 20), order(2, 68)]);
    let mut daemon = shop.start();
    daemon.until_quiet(4);
    let rows = |tag: &str| {
        let sql = format!(
            "SELECT CONCAT(user_id, ' ', DATE_FORMAT(window_start, '%H:%i'), ' ', orders) FROM {tag} ORDER BY 1"
        );
        shop.registry(&sql)
    };
    // The newest event is of 01:08: less ten minutes, no hour has passed for sure.
    assert_eq!(rows("closed_hours"), Vec::<String>::new());
    assert_eq!(rows("open_hours"), ["1 00:00 3", "2 01:00 2"]);
    assert_eq!(rows("early_hours"), ["1 00:00 3", "2 01:00 2"]);

    // Partition 0 goes on, partition 1 is idle after a while and holds nobody back.
    topic.write(0, &[order(2, 80)]);
    shop.until_rows(&rows, "closed_hours", &["1 00:00 3"]);
    daemon.kill();

    // While nobody looks: punctual, late by its partition but not for the patient, late for all but the open ones.
    topic.write(0, &[order(1, 85), order(1, 55), order(3, 140), order(4, -600)]);
    let mut daemon = shop.start();
    daemon.until_quiet(4);
    shop.until_rows(&rows, "closed_hours", &["1 00:00 3", "1 01:00 1", "2 01:00 3"]);
    shop.until_rows(&rows, "patient_hours", &["1 00:00 4", "1 01:00 1", "2 01:00 3"]);
    shop.until_rows(&rows, "early_hours", &["1 00:00 3", "1 01:00 1", "2 01:00 3", "3 02:00 1"]);
    let open = ["1 00:00 4", "1 01:00 1", "2 01:00 3", "3 02:00 1", "4 14:00 1"];
    shop.until_rows(&rows, "open_hours", &open);
    let status = daemon.until("late events are counted", |status| status.late_events.get("orders") == Some(&2));
    assert!(status.tags.iter().all(|tag| tag.state == TagState::Live));
    let letters = std::fs::read_to_string(shop.path(".tagflow/demo-kafka/dead-letters/orders.jsonl")).unwrap();
    assert!(letters.contains("late: order_time is 30m behind"), "{letters}");
    let listed = |tag: &str| {
        let output = shop.output(&["dead-letters", "list", "--tag", tag]);
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_string()
    };
    assert_eq!(listed("closed_hours"), "2 dead letters");
    assert_eq!(listed("patient_hours"), "1 dead letters");
    assert_eq!(listed("open_hours"), "no dead letters");

    // A new tag judges the same events as those that have run since then.
    let twin = std::fs::read_to_string(shop.path("tags/closed_hours.sql")).unwrap();
    std::fs::write(shop.path("tags/twin_hours.sql"), twin.replace("SUM(amount) AS spent", "MAX(amount) AS most"))
        .unwrap();
    daemon.until("the twin follows", |status| {
        status.tags.iter().any(|tag| tag.tag == "twin_hours" && tag.state == TagState::Live)
    });
    daemon.until_quiet(5);
    assert_eq!(rows("twin_hours"), rows("closed_hours"));

    // The idle partition wakes up with an event that is punctual in its own eyes: its window is mended.
    topic.write(1, &[order(2, 70)]);
    shop.until_rows(&rows, "closed_hours", &["1 00:00 3", "1 01:00 1", "2 01:00 4"]);
    daemon.interrupt();
    shop.verify();
}
