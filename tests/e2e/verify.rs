//! `tagflow verify` beside a daemon that writes: right tables are right at every moment, a row that was changed by hand is told,
//! and what cannot be compared is not taken for right.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::shop::Shop;
use crate::topic::Topic;

const COUNT: &str = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
const SPEND: &str = "SELECT user_id, SUM(amount) AS spend, MAX(word) AS word FROM orders GROUP BY user_id";
const RECENT: &str = "SELECT user_id, SUM(amount) AS spend FROM orders \
    WHERE order_time >= NOW() - INTERVAL '3' SECOND GROUP BY user_id";

fn shop(topic: &Topic, tags: &[(&str, &str)]) -> Shop {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\ntime = {{ column = \"order_time\" }}\n[columns]\n\
         user_id = \"BIGINT NOT NULL\"\namount = \"DECIMAL(12,2)\"\nword = \"VARCHAR\"\n\
         order_time = {{ type = \"TIMESTAMP(3) WITH TIME ZONE\", format = \"epoch_ms\" }}\n",
        topic.name
    );
    let mut files = vec![("schemas/orders.toml".to_string(), schema)];
    files.extend(tags.iter().map(|(tag, sql)| (format!("tags/{tag}.sql"), sql.to_string())));
    let files: Vec<(&str, String)> = files.iter().map(|(file, text)| (file.as_str(), text.clone())).collect();
    Shop::of("verify", &files)
}

fn order(user: u64, amount: u64) -> (String, Option<i64>) {
    order_of(user, amount, 0)
}

/// Of so many days ago.
fn order_of(user: u64, amount: u64, days: i64) -> (String, Option<i64>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let at = now - days * 86_400_000;
    (format!("{{\"user_id\":{user},\"amount\":{amount},\"word\":\"w{amount}\",\"order_time\":{at}}}"), Some(at))
}

/// The exit code of `verify`, and what it says.
fn verify(shop: &Shop, arguments: &[&str]) -> (i32, Value) {
    let output = shop.output(&[&["verify", "--format", "json"], arguments].concat());
    let told = serde_json::from_slice(&output.stdout);
    let told = told.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), told)
}

#[test]
fn tables_are_compared_while_a_daemon_writes_them_and_a_row_changed_by_hand_is_told() {
    let topic = Topic::with_partitions("verify", 2);
    let shop = shop(&topic, &[("count", COUNT), ("spend", SPEND), ("recent", RECENT)]);
    // Users of whom nothing more comes.
    topic.write(0, &(0..100).map(|user| order(user, 7)).collect::<Vec<_>>());
    let mut daemon = shop.start();
    daemon.until_quiet(3);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            for round in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    return round;
                }
                let orders: Vec<_> = (0..2_000).map(|user| order(1_000 + (round * 37 + user) % 5_000, user)).collect();
                topic.write((round % 2) as i32, &orders);
            }
            unreachable!("rounds do not end")
        });
        // However the others end, the load does.
        let _over = Over(&is_over);
        let mut offsets = Vec::new();
        for sample in [&[][..], &["--sample", "30%"], &["--sample", "500"], &[]] {
            let (code, told) = verify(&shop, sample);
            assert_eq!((code, &told["right"], &told["different"]), (0, &json!(3), &json!(0)), "{told:#}");
            let rows = told["tags"][0]["rows"].as_u64().unwrap();
            assert!(told["sampled"] == !sample.is_empty() && rows > 0, "{told:#}");
            offsets.push(told["tags"][0]["true_offsets"].to_string());
        }
        offsets.dedup();
        assert!(offsets.len() > 1, "the daemon wrote nothing meanwhile: {offsets:?}");

        for sql in [
            "UPDATE spend SET spend = spend + 0.01, word = NULL WHERE user_id = 41",
            "DELETE FROM spend WHERE user_id = 42",
            "INSERT INTO spend SELECT 4200000, spend, word, _updated_at FROM spend WHERE user_id = 43",
        ] {
            shop.registry(sql);
        }
        let (code, told) = verify(&shop, &[]);
        assert_eq!((code, &told["right"], &told["different"]), (1, &json!(2), &json!(1)), "{told:#}");
        let spend = told["tags"].as_array().unwrap().iter().find(|tag| tag["tag"] == "spend").unwrap();
        let row = |spend: &str, word: Option<&str>| json!({ "spend": spend, "word": word });
        assert_eq!(
            (&spend["verdict"], &spend["differences"], &spend["shown"]),
            (
                &json!("different"),
                &json!(3),
                &json!([
                    { "key": { "user_id": "41" }, "found": row("7.01", None), "expected": row("7.00", Some("w7")) },
                    { "key": { "user_id": "42" }, "found": null, "expected": row("7.00", Some("w7")) },
                    { "key": { "user_id": "4200000" }, "found": row("7.00", Some("w7")), "expected": null },
                ])
            )
        );
        assert_eq!(verify(&shop, &["count"]).0, 0);
        let output = shop.output(&["verify", "spend", "--show", "1"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("  3 DIFFER\n    user_id = 41: spend is 7.01, not 7.00; word is NULL, not w7\n"),
            "{text}"
        );
        assert!(text.ends_with("    and 2 more\n"), "{text}");
        is_over.store(true, Ordering::SeqCst);
        assert!(load.join().unwrap() > 1);
    });
    daemon.until_quiet(3);
    daemon.interrupt();
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn what_cannot_be_compared_is_told_and_is_no_success() {
    let topic = Topic::with_partitions("unverified", 1);
    let shop = shop(&topic, &[("count", COUNT), ("recent", RECENT)]);
    topic.write(0, &(0..10).map(|user| order(user, 7)).collect::<Vec<_>>());
    // Nothing has ever run.
    let (code, told) = verify(&shop, &["count"]);
    assert_eq!((code, &told["not_verified"]), (1, &json!(1)), "{told:#}");
    let mut daemon = shop.start();
    daemon.until_quiet(2);
    daemon.interrupt();
    shop.verify();

    // Of another version than its file says.
    fs::write(shop.path("tags/count.sql"), COUNT.replace("*", "amount")).unwrap();
    fs::write(shop.path("tags/broken.sql"), "SELECT user_id, COUNT(amuont) AS n FROM orders GROUP BY user_id").unwrap();
    let (code, told) = verify(&shop, &[]);
    assert_eq!((code, &told["right"], &told["not_verified"]), (1, &json!(1), &json!(2)), "{told:#}");
    let reason = |told: &Value, tag: &str| {
        let tag = told["tags"].as_array().unwrap().iter().find(|found| found["tag"] == tag).unwrap().clone();
        assert_eq!(tag["verdict"], "not_verified");
        tag["reason"].as_str().unwrap().to_string()
    };
    assert_eq!(reason(&told, "broken"), "its file has errors; `tagflow check` tells them");
    let other = "its table shows another version of the tag, which was not filled with this one";
    assert_eq!(reason(&told, "count"), other);
    fs::write(shop.path("tags/count.sql"), COUNT).unwrap();
    fs::remove_file(shop.path("tags/broken.sql")).unwrap();

    // Retention has taken what the table was computed of; what looks back three seconds does not need it.
    let mut daemon = shop.start();
    daemon.until_quiet(2);
    let rows = "SELECT CONCAT(COUNT(*)) FROM recent";
    shop.until_registry(rows, "0");
    // Three seconds are taken for two days and three seconds: clocks that are put back are in that.
    topic.write(0, &[order_of(1, 5, 3)]);
    shop.until_registry("SELECT CONCAT(SUM(n)) FROM count", "11");
    daemon.interrupt();
    topic.delete_before(0, 10);
    let (code, told) = verify(&shop, &[]);
    assert_eq!((code, &told["right"], &told["not_verified"]), (1, &json!(1), &json!(1)), "{told:#}");
    let gone =
        "stream `orders`: partition 0 does not hold the records from 0 up to 10 any more, which its table has taken";
    assert_eq!(reason(&told, "count"), gone);
    let text = String::from_utf8(shop.output(&["verify"]).stdout).unwrap();
    assert!(text.contains(&format!("NOT VERIFIED: {gone}\n")), "{text}");
}
