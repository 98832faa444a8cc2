//! What fails in one tag's SQL concerns that tag alone, and is brought back exactly by `tagflow resume` or a mended file.

use std::fs;
use std::io::{Read, Write};

use tagflow::engine::status::{Status, TagState};

use crate::shop::{Daemon, Shop};
use crate::topic::Topic;

const COUNT: &str = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id";
const TOTAL: &str = "SELECT user_id, SUM(amount) AS total FROM orders GROUP BY user_id";
const SHARE: &str = "SELECT user_id, MAX(100 / parts) AS share FROM orders GROUP BY user_id";
const NUMBER: &str = "SELECT user_id, MAX(CAST(word AS BIGINT)) AS number FROM orders GROUP BY user_id";

fn state(status: &Status, tag: &str) -> (TagState, String) {
    let tag = status.tags.iter().find(|status| status.tag == tag).unwrap();
    (tag.state, tag.message.clone().unwrap_or_default())
}

fn until_live(daemon: &mut Daemon<'_>, tags: &[&str]) {
    daemon.until(&format!("{tags:?} live"), |status| {
        status.tags.len() == 4 && tags.iter().all(|tag| state(status, tag).0 == TagState::Live)
    });
}

fn metrics(shop: &Shop) -> String {
    let settings = fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    let address = settings.split("listen = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn overflow_division_and_cast_set_their_tags_aside_alone_and_they_come_back_exactly() {
    let topic = Topic::with_partitions("aside", 1);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n\
         amount = \"BIGINT\"\nparts = \"BIGINT\"\nword = \"VARCHAR\"\n",
        topic.name
    );
    let tags = [("count", COUNT), ("total", TOTAL), ("share", SHARE), ("number", NUMBER)];
    let names = tags.map(|(name, _)| format!("tags/{name}.sql"));
    let mut files = vec![("schemas/orders.toml", schema)];
    files.extend(names.iter().zip(tags).map(|(file, (_, sql))| (file.as_str(), sql.to_string())));
    let shop = Shop::of("aside", &files);
    let order = |user: u64, amount: i64, parts: i64, word: &str| {
        let text = format!("{{\"user_id\": {user}, \"amount\": {amount}, \"parts\": {parts}, \"word\": \"{word}\"}}");
        topic.write(0, &[(text, None)]);
    };
    order(1, 5, 4, "7");
    let mut daemon = shop.start();
    until_live(&mut daemon, &["count", "total", "share", "number"]);

    // Each of them fails on an order of its own, and none takes another one with it.
    let faults = [
        ("total", (1, i64::MAX, 4, "7"), "sum does not fit BIGINT", &["count", "share", "number"][..]),
        ("share", (2, 1, 0, "7"), "ivide by zero", &["count", "number"]),
        ("number", (3, 1, 4, "seven"), "seven", &["count"]),
    ];
    for (expected, (tag, (user, amount, parts, word), told, others)) in (2..).zip(faults) {
        order(user, amount, parts, word);
        let status = daemon.until(told, |status| state(status, tag).0 == TagState::Failed);
        assert!(state(&status, tag).1.contains(told), "{:?}", state(&status, tag));
        assert!(shop.log().contains(&format!("tag=\"{tag}\"")) && shop.log().contains(told), "{}", shop.log());
        assert!(metrics(&shop).contains(&format!("tagflow_tag_failed{{tag=\"{tag}\"}} 1.0\n")));
        until_live(&mut daemon, others);
        shop.until_registry("SELECT CONCAT(SUM(n)) FROM count", &expected.to_string());
    }

    // What it failed on is still there: it fails again, and says so again.
    let resumed = |tag: &str| {
        let output = shop.output(&["resume", tag]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    resumed("total");
    let log = "the tag cannot be filled";
    daemon.until("it has failed again", |status| {
        shop.log().contains(log) && state(status, "total").0 == TagState::Failed
    });
    // An order that is taken back leaves a sum that fits.
    order(1, -9, 4, "7");
    resumed("total");
    until_live(&mut daemon, &["count", "total"]);
    shop.until_registry("SELECT CONCAT(total) FROM total WHERE user_id = 1", &(i64::MAX - 4).to_string());

    // A mended file needs no word.
    fs::write(shop.path("tags/share.sql"), SHARE.replace("parts)", "NULLIF(parts, 0))")).unwrap();
    fs::write(shop.path("tags/number.sql"), NUMBER.replace("CAST", "TRY_CAST")).unwrap();
    until_live(&mut daemon, &["count", "total", "share", "number"]);
    order(2, 1, 50, "8");
    shop.until_registry("SELECT COALESCE(CONCAT(share), 'none') FROM share WHERE user_id = 2", "2");
    shop.until_registry("SELECT CONCAT(number) FROM number WHERE user_id = 2", "8");
    daemon.interrupt();
    shop.verify();
}
