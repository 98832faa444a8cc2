//! The version of a tag before: kept up to date, gone back to at once, and gone when its time is over.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use tagflow::engine::status::{Status, TagState};

use crate::shop::{Daemon, PATIENCE, Shop};
use crate::topic::Topic;

fn order(user: i64, amount: i64) -> (String, Option<i64>) {
    (format!("{{\"user_id\":{user},\"amount\":{amount}}}"), None)
}

fn spent(sum: &str) -> String {
    format!("SELECT user_id, {sum} AS v FROM orders GROUP BY user_id")
}

fn shop(name: &str, topic: &Topic) -> Shop {
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n\
         amount = \"BIGINT\"\n",
        topic.name
    );
    Shop::of(name, &[("schemas/orders.toml", schema), ("tags/spent.sql", spent("SUM(amount)"))])
}

fn rows(shop: &Shop, table: &str) -> Vec<String> {
    shop.registry(&format!("SELECT CONCAT(user_id, ' ', v) FROM {table} ORDER BY 1"))
}

/// The table in which a version is kept.
fn kept_table(shop: &Shop, version: u64) -> String {
    shop.registry(&format!("SELECT table_name FROM _tagflow_progress WHERE tag = 'spent@{version}'")).remove(0)
}

fn is_settled(status: &Status, version: u64, kept: &[u64]) -> bool {
    let tag = status.tags.iter().find(|tag| tag.tag == "spent");
    tag.is_some_and(|tag| tag.state == TagState::Live && tag.version == version)
        && status.fill.is_none()
        && status.kept.iter().map(|kept| kept.version).eq(kept.iter().copied())
}

fn until_version(daemon: &mut Daemon<'_>, version: u64, kept: &[u64]) -> Status {
    daemon.until(&format!("version {version} is live, {kept:?} kept"), |status| is_settled(status, version, kept))
}

fn until(shop: &Shop, what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}\n{}", shop.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn roll_back(shop: &Shop) -> (bool, String) {
    let output = shop.output(&["rollback", "spent"]);
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn fills(shop: &Shop) -> usize {
    shop.log().matches("filling").count()
}

#[test]
fn tag_goes_back_at_once_and_forth_again_and_both_versions_follow_whatever_happens() {
    let topic = Topic::with_partitions("rollback", 2);
    let shop = shop("rollback", &topic);
    topic.write(0, &[order(1, 5), order(2, 7)]);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    let (done, told) = roll_back(&shop);
    assert!(!done && told.contains("`spent` has no version to go back to: it has had no other version"), "{told}");
    fs::write(shop.path("tags/spent.sql"), spent("10 * SUM(amount)")).unwrap();
    until_version(&mut daemon, 2, &[1]);
    assert_eq!(rows(&shop, "spent"), ["1 50", "2 70"]);

    // Both follow, in one transaction.
    topic.write(1, &[order(1, 1), order(3, 2)]);
    shop.until_rows(&|table| rows(&shop, table), "spent", &["1 60", "2 70", "3 20"]);
    assert_eq!(rows(&shop, &kept_table(&shop, 1)), ["1 6", "2 7", "3 2"]);

    let filled = fills(&shop);
    let (done, told) = roll_back(&shop);
    assert!(done, "{told}");
    let status = until_version(&mut daemon, 1, &[2]);
    assert_eq!(rows(&shop, "spent"), ["1 6", "2 7", "3 2"]);
    assert_eq!(status.tags[0].rolled_back.as_ref().map(|back| back.version), Some(1));
    let described = String::from_utf8(shop.output(&["status"]).stdout).unwrap();
    assert!(described.contains("rolled back to version 1"), "{described}");
    assert!(described.contains("`tagflow rollback spent` goes back to version 2: 3 rows"), "{described}");
    shop.verify();

    // It holds through a crash, before and after any checkpoint, and both go on.
    topic.write(0, &[order(3, 10)]);
    daemon.kill();
    let mut daemon = shop.start();
    shop.until_rows(&|table| rows(&shop, table), "spent", &["1 6", "2 7", "3 12"]);
    until_version(&mut daemon, 1, &[2]);
    until(&shop, "the kept one follows", || rows(&shop, &kept_table(&shop, 2)) == ["1 60", "2 70", "3 120"]);

    let (done, told) = roll_back(&shop);
    assert!(done, "{told}");
    let status = until_version(&mut daemon, 2, &[1]);
    assert_eq!(status.tags[0].rolled_back, None, "the file says so itself");
    assert_eq!(rows(&shop, "spent"), ["1 60", "2 70", "3 120"]);
    shop.verify();
    assert_eq!(fills(&shop), filled, "nothing was filled: {}", shop.log());

    // The file decides again as soon as it changes: to a new version, or to one that is kept.
    let (done, told) = roll_back(&shop);
    assert!(done, "{told}");
    until_version(&mut daemon, 1, &[2]);
    fs::write(shop.path("tags/spent.sql"), spent("100 * SUM(amount)")).unwrap();
    until_version(&mut daemon, 3, &[1]);
    fs::write(shop.path("tags/spent.sql"), spent("SUM(amount)")).unwrap();
    until_version(&mut daemon, 1, &[3]);
    assert_eq!(rows(&shop, "spent"), ["1 6", "2 7", "3 12"]);
    assert_eq!(fills(&shop), filled + 1, "the third alone was filled: {}", shop.log());
    daemon.interrupt();
    shop.verify();
}

#[test]
fn crash_at_any_step_of_going_back_leaves_both_versions_right() {
    let topic = Topic::with_partitions("rollback-crash", 1);
    let mut shop = shop("rollback_crash", &topic);
    topic.write(0, &[order(1, 5)]);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    fs::write(shop.path("tags/spent.sql"), spent("10 * SUM(amount)")).unwrap();
    until_version(&mut daemon, 2, &[1]);
    daemon.interrupt();
    let points = ["return.settled", "rename.begun", "rename.renamed", "rename.finished", "return.swapped"];
    for (number, point) in (0_i64..).zip(points) {
        let (live, kept) = if number % 2 == 0 { (1, 2) } else { (2, 1) };
        // Without a daemon it counts from the next start on.
        let (done, told) = roll_back(&shop);
        assert!(done && told.ends_with("when the daemon starts\n"), "{told}");
        shop.environment = vec![("TAGFLOW_CRASH_AT".to_string(), point.to_string())];
        assert_eq!(shop.start().end(PATIENCE), -1, "it does not get to {point}: {}", shop.log());
        shop.environment.clear();
        topic.write(0, &[order(1, 1)]);
        let sum = 6 + number;
        let mut daemon = shop.start();
        until_version(&mut daemon, live, &[kept]);
        let of = |version: u64| vec![format!("1 {}", if version == 1 { sum } else { 10 * sum })];
        until(&shop, "the live version follows", || rows(&shop, "spent") == of(live));
        assert_eq!(rows(&shop, &kept_table(&shop, kept)), of(kept), "{point}");
        daemon.interrupt();
        shop.verify();
    }
    assert_eq!(fills(&shop), 2, "{}", shop.log());
}

#[test]
fn tag_whose_file_is_gone_comes_back_with_it_or_by_a_rollback() {
    let topic = Topic::with_partitions("rollback-gone", 1);
    let shop = shop("rollback_gone", &topic);
    fs::write(shop.path("tags/other.sql"), "SELECT user_id, COUNT(*) AS v FROM orders GROUP BY user_id").unwrap();
    topic.write(0, &[order(1, 5)]);
    let mut daemon = shop.start();
    daemon.until_quiet(2);
    let text = fs::read_to_string(shop.path("tags/spent.sql")).unwrap();
    fs::remove_file(shop.path("tags/spent.sql")).unwrap();
    daemon.until("it is set aside and follows", |status| status.tags.len() == 1 && status.kept.len() == 1);
    topic.write(0, &[order(1, 2)]);
    until(&shop, "it follows", || rows(&shop, &kept_table(&shop, 1)) == ["1 7"]);
    fs::write(shop.path("tags/spent.sql"), &text).unwrap();
    until_version(&mut daemon, 1, &[]);
    assert_eq!(rows(&shop, "spent"), ["1 7"]);

    fs::remove_file(shop.path("tags/spent.sql")).unwrap();
    daemon.until("it is set aside again", |status| status.tags.len() == 1 && status.kept.len() == 1);
    let (done, told) = roll_back(&shop);
    assert!(done, "{told}");
    until_version(&mut daemon, 1, &[]);
    daemon.kill();
    topic.write(0, &[order(1, 1)]);
    let mut daemon = shop.start();
    shop.until_rows(&|table| rows(&shop, table), "spent", &["1 8"]);
    until_version(&mut daemon, 1, &[]);
    assert_eq!(fills(&shop), 1, "{}", shop.log());
    daemon.interrupt();
    shop.verify();
}

#[test]
fn readers_of_a_tag_that_goes_back_go_with_it() {
    let topic = Topic::with_partitions("rollback-readers", 1);
    let shop = shop("rollback_readers", &topic);
    fs::write(shop.path("tags/big.sql"), "SELECT user_id, v FROM tags.spent WHERE v > 40").unwrap();
    topic.write(0, &[order(1, 5), order(2, 50)]);
    let mut daemon = shop.start();
    daemon.until_quiet(2);
    assert_eq!(rows(&shop, "big"), ["2 50"]);
    fs::write(shop.path("tags/spent.sql"), spent("10 * SUM(amount)")).unwrap();
    daemon.until("both are new", |status| is_settled(status, 2, &[1, 1]));
    assert_eq!(rows(&shop, "big"), ["1 50", "2 500"]);
    let (done, told) = roll_back(&shop);
    assert!(done, "{told}");
    daemon.until("both are back", |status| is_settled(status, 1, &[2, 2]));
    assert_eq!(rows(&shop, "big"), ["2 50"]);
    daemon.interrupt();
    shop.verify();
}

#[test]
fn version_that_fails_or_whose_time_is_over_goes_without_harm_to_the_tag() {
    let topic = Topic::with_partitions("rollback-over", 1);
    let shop = shop("rollback_over", &topic);
    let settings = fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    fs::write(shop.path("tagflow.toml"), settings.replace("[engine]", "[engine]\ngrace_period = \"5s\"")).unwrap();
    fs::write(shop.path("tags/spent.sql"), spent("SUM(100 / amount)")).unwrap();
    topic.write(0, &[order(1, 5)]);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    fs::write(shop.path("tags/spent.sql"), spent("SUM(amount)")).unwrap();
    until_version(&mut daemon, 2, &[1]);
    topic.write(0, &[order(1, 0)]);
    until_version(&mut daemon, 2, &[]);
    let (done, told) = roll_back(&shop);
    assert!(!done && told.contains("version 1 is not kept up to date any more: ") && told.contains("ivi"), "{told}");
    until(&shop, "its table is dropped", || shop.registry("SELECT table_name FROM _tagflow_retired").is_empty());

    fs::write(shop.path("tags/spent.sql"), spent("2 * SUM(amount)")).unwrap();
    until_version(&mut daemon, 3, &[2]);
    let table = kept_table(&shop, 2);
    until_version(&mut daemon, 3, &[]);
    assert_eq!(shop.registry(&format!("SHOW TABLES LIKE '{table}'")), Vec::<String>::new());
    let (done, told) = roll_back(&shop);
    assert!(!done && told.contains("version 2 is dropped, as its grace period is over"), "{told}");
    topic.write(0, &[order(1, 1)]);
    shop.until_rows(&|table| rows(&shop, table), "spent", &["1 12"]);
    daemon.interrupt();
    shop.verify();
}

fn git(shop: &Shop, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]).args(arguments);
    let output = git.current_dir(shop.folder.path()).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn history_tells_who_made_each_version_when_and_why() {
    let topic = Topic::with_partitions("rollback-history", 1);
    let mut shop = shop("rollback_history", &topic);
    shop.environment = vec![("USER".to_string(), "bob".to_string())];
    topic.write(0, &[order(1, 5)]);
    git(&shop, &["init", "-q"]);
    git(&shop, &["add", "tags", "schemas"]);
    git(&shop, &["commit", "-q", "-m", "spent: the first one"]);
    let mut daemon = shop.start();
    daemon.until_quiet(1);
    fs::write(shop.path("tags/spent.sql"), spent("10 * SUM(amount)")).unwrap();
    until_version(&mut daemon, 2, &[1]);
    let (done, told) = roll_back(&shop);
    assert!(done, "{told}");
    until_version(&mut daemon, 1, &[2]);
    let schema = fs::read_to_string(shop.path("schemas/orders.toml")).unwrap();
    fs::write(shop.path("schemas/orders.toml"), schema.replace("amount = \"BIGINT\"", "amount = \"INT\"")).unwrap();
    // The other layout of its stream ends the rollback, and the versions before.
    until_version(&mut daemon, 3, &[]);
    fs::write(shop.path("schemas/orders.toml"), schema.replace("amount = \"BIGINT\"", "amount = \"SMALLINT\""))
        .unwrap();
    until_version(&mut daemon, 4, &[]);
    daemon.interrupt();

    let output = shop.output(&["history", "spent", "--format", "json"]);
    let history: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = |period: &serde_json::Value| {
        let text = |key: &str| period[key].as_str().unwrap_or("-").to_string();
        (period["version"].as_u64().unwrap(), text("who"), text("why"), text("commit").len())
    };
    let periods: Vec<_> = history["versions"].as_array().unwrap().iter().map(told).collect();
    let period = |version, who: &str, why: &str| (version, who.to_string(), why.to_string(), 40);
    let expected = [
        period(1, "Ann <ann@example.com>", "spent: the first one"),
        period(2, "-", "tags/spent.sql changed, not committed"),
        period(1, "bob", "rolled back by bob"),
        period(3, "-", "tags/spent.sql changed, not committed"),
        period(4, "-", "schema of orders changed"),
    ];
    assert_eq!(periods, expected);
    let refused = "streams that it reads have other columns now, or their dead letters were replayed";
    assert_eq!(history["versions"][2]["not_kept"], refused);
    let shown = String::from_utf8(shop.output(&["history", "spent"]).stdout).unwrap();
    assert!(shown.lines().nth(1).is_some_and(|line| line.contains("live")), "{shown}");
    assert_eq!(shop.output(&["history", "unknown"]).status.code(), Some(1));
}
