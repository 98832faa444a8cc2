//! Checkpoints of a daemon as a process: taken while it works, damaged, gone back from.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mariadb::Other;
use crate::shop::{Daemon, PATIENCE, Shop};

pub const TAGS: [(&str, &str); 4] = [
    (
        "tags/spend.sql",
        "SELECT user_id, SUM(amount) AS spend, COUNT(DISTINCT category) AS kinds FROM orders \
         WHERE user_id IS NOT NULL GROUP BY user_id",
    ),
    (
        "tags/recent.sql",
        "SELECT user_id, COUNT(*) AS n FROM orders WHERE order_time >= NOW() - INTERVAL '90' DAY AND user_id IS NOT NULL \
         GROUP BY user_id",
    ),
    (
        "tags/latest.sql",
        "SELECT user_id, order_id FROM (SELECT user_id, order_id, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY order_time DESC, order_id DESC) AS n FROM orders WHERE user_id IS NOT NULL) WHERE n = 1",
    ),
    (
        "tags/viewers.sql",
        "SELECT o.user_id, COUNT(*) AS n FROM orders o JOIN users u ON o.user_id = u.user_id \
         WHERE o.user_id IS NOT NULL GROUP BY o.user_id",
    ),
];

/// The sample's streams under a few tags that keep state of every kind.
pub fn shop(name: &str) -> Shop {
    let shop = Shop::new(name);
    fs::remove_dir_all(shop.path("tags")).unwrap();
    fs::create_dir(shop.path("tags")).unwrap();
    for (file, sql) in TAGS {
        fs::write(shop.path(file), sql).unwrap();
    }
    let settings = fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    let settings =
        settings.replace("checkpoint_interval = \"2s\"", "checkpoint_interval = \"300ms\"\ncheckpoints_kept = 4");
    fs::write(shop.path("tagflow.toml"), settings).unwrap();
    shop
}

pub fn checkpoints(shop: &Shop) -> Vec<Value> {
    let output = shop.output(&["checkpoint", "list", "--format", "json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    listed["checkpoints"].as_array().unwrap().clone()
}

pub fn epochs(shop: &Shop) -> Vec<u64> {
    checkpoints(shop).iter().map(|one| one["epoch"].as_u64().unwrap()).collect()
}

fn folder(shop: &Shop, part: &str) -> PathBuf {
    shop.path(".tagflow/demo-kafka/checkpoints").join(part)
}

/// Events, and a checkpoint behind each lot of them.
pub fn work(shop: &Shop, daemon: &mut Daemon<'_>, lots: std::ops::Range<u64>) {
    for lot in lots {
        let before = daemon.status().unwrap().checkpoint_epoch;
        // Of a twentieth of the users, whose records come once more too.
        let lot = lot.to_string();
        let output = shop.output(&["produce", "--rate", "0", "--history", "60", "--users", "100", "--seed", &lot]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        daemon.until_quiet(TAGS.len());
        daemon.until("a checkpoint more", |status| status.checkpoint_epoch > before);
    }
}

/// No tag was filled a second time.
pub fn nothing_was_filled_again(shop: &Shop) {
    shop.until_registry("SELECT CONCAT(COUNT(*), ' ', MAX(version)) FROM _tagflow_tags", &format!("{} 1", TAGS.len()));
}

#[test]
fn checkpoints_follow_what_changed_and_survive_crashes_damage_and_going_back() {
    let shop = shop("saved");
    shop.produce("60000", "1");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 2..6);
    let listed = checkpoints(&shop);
    assert_eq!(listed.len(), 4, "{listed:?}");
    let bytes = |one: &Value, key: &str| one[key].as_u64().unwrap();
    let least = listed.iter().map(|one| bytes(one, "new_bytes")).min().unwrap();
    assert!(least * 5 < bytes(&listed[0], "bytes"), "{listed:?}");
    let output = shop.output(&["checkpoint", "verify"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let refused = shop.output(&["checkpoint", "restore", &epochs(&shop)[1].to_string()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop it first"), "{refused:?}");
    daemon.kill();

    // The newest is damaged: the one before serves.
    let newest = epochs(&shop)[0];
    let manifest = folder(&shop, "manifests").join(format!("{newest:020}"));
    let mut text = fs::read(&manifest).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 1;
    fs::write(&manifest, text).unwrap();
    let output = shop.output(&["checkpoint", "verify"]);
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("its checksum differs from what it says") && told.contains("sound"), "{told}");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    assert!(shop.log().contains("a checkpoint is skipped"), "{}", shop.log());
    work(&shop, &mut daemon, 6..8);
    nothing_was_filled_again(&shop);
    daemon.kill();

    let known = epochs(&shop);
    let oldest = known.last().unwrap().to_string();
    let output = shop.output(&["checkpoint", "restore", &oldest, "--dry-run"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("would be"), "{output:?}");
    assert_eq!(epochs(&shop), known);
    let output = shop.output(&["checkpoint", "restore", &oldest]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(epochs(&shop), known[known.len() - 1..]);
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 8..9);
    nothing_was_filled_again(&shop);
    daemon.interrupt();
    shop.verify();
    assert!(!shop.log().contains("panicked"), "{}", shop.log());

    // What nobody needs is not there.
    let needed = fs::read_dir(folder(&shop, "segments")).unwrap().count();
    assert!(needed < 200, "{needed} files");
}

/// A checkpoint that is ahead of the tables would have their tags filled anew after a crash.
#[test]
fn checkpoint_is_none_before_the_store_has_confirmed_its_epoch() {
    let shop = shop("confirmed");
    shop.produce("2000", "1");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 2..3);
    // Every commit waits for somebody who holds this row.
    let mut other = Other::to(&shop.store).unwrap();
    other.run("START TRANSACTION");
    other.run("SELECT * FROM _tagflow_meta FOR UPDATE");
    let segments = || fs::read_dir(folder(&shop, "segments")).unwrap().count();
    let before = segments();
    shop.produce("300", "3");
    let begun = Instant::now();
    while segments() <= before {
        assert!(begun.elapsed() < PATIENCE, "no checkpoint is begun\n{}", shop.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let confirmed: u64 = shop.registry("SELECT CONCAT(MAX(epoch)) FROM _tagflow_progress")[0].parse().unwrap();
    // Writing it out takes as long as it takes; that it is published would follow at once.
    for _ in 0..20 {
        assert!(epochs(&shop)[0] <= confirmed, "{:?} of {confirmed}", epochs(&shop));
    }
    daemon.kill();
    other.run("ROLLBACK");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    nothing_was_filled_again(&shop);
    daemon.interrupt();
    shop.verify();
}

#[test]
fn database_that_was_set_back_goes_on_from_an_older_checkpoint() {
    let shop = shop("set_back");
    shop.produce("2000", "1");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 2..4);
    daemon.kill();
    let tables = || TAGS.iter().map(|(file, _)| &file[5..file.len() - 4]).chain(["_tagflow_progress"]);
    for table in tables() {
        shop.registry(&format!("CREATE TABLE backup_{table} AS SELECT * FROM {table}"));
    }
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 4..5);
    daemon.kill();
    let ahead = epochs(&shop)[0];
    for table in tables() {
        shop.registry(&format!("DELETE FROM {table}"));
        shop.registry(&format!("INSERT INTO {table} SELECT * FROM backup_{table}"));
        shop.registry(&format!("DROP TABLE backup_{table}"));
    }
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    assert!(shop.log().contains("no table goes with the checkpoint"), "{}", shop.log());
    nothing_was_filled_again(&shop);
    work(&shop, &mut daemon, 5..6);
    daemon.kill();
    // What is newest was written after that, whatever number it has.
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    nothing_was_filled_again(&shop);
    daemon.interrupt();
    let is_looked_at = |line: &&str| line.contains("no table goes with") && line.ends_with(&format!("epoch={ahead}"));
    let log = shop.log();
    assert_eq!(log.lines().filter(is_looked_at).count(), 1, "{log}");
    shop.verify();
}

#[test]
fn a_full_disk_is_told_and_costs_no_row() {
    let shop = shop("fulldisk");
    shop.produce("5000", "1");
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    work(&shop, &mut daemon, 2..4);
    // Where segments go there is a file now: nothing can be written.
    let (segments, aside) = (folder(&shop, "segments"), folder(&shop, "aside"));
    fs::rename(&segments, &aside).unwrap();
    fs::write(&segments, "no folder").unwrap();
    shop.produce("300", "4");
    daemon
        .until("the trouble shows", |status| status.troubles.iter().any(|trouble| trouble.starts_with("checkpoints:")));
    shop.produce("300", "5");
    daemon.until_quiet(TAGS.len());
    fs::remove_file(&segments).unwrap();
    fs::rename(&aside, &segments).unwrap();
    daemon.until("the trouble is over", |status| status.troubles.is_empty());
    work(&shop, &mut daemon, 6..7);
    daemon.kill();
    let mut daemon = shop.start();
    daemon.until_quiet(TAGS.len());
    nothing_was_filled_again(&shop);
    daemon.interrupt();
    shop.verify();
}
