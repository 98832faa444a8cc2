//! What a database does to those who write to it. The daemon lives through all of it, the tags that are not concerned go
//! on, the reason is in the status, and in the end every table is right.

use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tagflow::engine::status::{Status, TagState, TagStatus};

use crate::mariadb::{Other, Server};
use crate::proxy::{Cut, Proxy};
use crate::shop::{Daemon, PATIENCE, Shop};
use crate::topic::Topic;

/// The rights that README asks for, and no other.
const RIGHTS: &str = "CREATE DATABASE shop; CREATE USER tagflow@'%' IDENTIFIED BY 'hunter2'; \
     GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP ON shop.* TO tagflow@'%'";

/// A project of two tags on a server of its own, whose user may do no more than it must.
struct Stage {
    server: Server,
    topic: Topic,
    shop: Shop,
    /// Orders of every user.
    orders: Cell<u64>,
}

impl Stage {
    fn on(name: &str, server: Server) -> Stage {
        let topic = Topic::with_partitions(name, 1);
        let schema = format!(
            "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n\
             size = \"BIGINT\"\n",
            topic.name
        );
        let files = [
            ("schemas/orders.toml", schema),
            ("tags/visits.sql", "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string()),
            (
                "tags/notes.sql",
                "SELECT user_id, COUNT(*) AS n, repeat('x', MAX(size)) AS note FROM orders GROUP BY user_id"
                    .to_string(),
            ),
        ];
        server.run(RIGHTS);
        let mut shop = Shop::of(name, &files);
        shop.store = format!("mysql://tagflow:hunter2@127.0.0.1:{}/shop", server.port());
        Stage { server, topic, shop, orders: Cell::new(0) }
    }

    /// One more order of each of twenty users.
    fn write(&self, size: u64) {
        let order = |user| (format!("{{\"user_id\": {user}, \"size\": {size}}}"), None);
        self.topic.write(0, &(0..20).map(order).collect::<Vec<_>>());
        self.orders.set(self.orders.get() + 1);
    }

    fn resume(&self, tag: &str) {
        let output = self.shop.output(&["resume", tag]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // The daemon may have tried it again by itself meanwhile.
        assert!(output.status.success() || told.contains("is not set aside"), "{told}");
    }

    fn counts(&self, table: &str) -> String {
        self.server.run(&format!("SELECT CONCAT(COUNT(*), ' ', MIN(n), ' ', MAX(n)) FROM shop.{table}"))
    }

    fn until_right(&self, table: &str) {
        let expected = format!("20 {0} {0}\n", self.orders.get());
        let begun = Instant::now();
        while self.counts(table) != expected {
            let told = format!("{}, not {expected}\n{}", self.counts(table), self.shop.log());
            assert!(begun.elapsed() < PATIENCE, "{table}: {told}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn tag<'a>(status: &'a Status, name: &str) -> &'a TagStatus {
    status.tags.iter().find(|tag| tag.tag == name).unwrap()
}

fn lives(daemon: &mut Daemon<'_>) {
    daemon.until("both tags live and nothing is wrong", |status| {
        status.tags.len() == 2
            && status.tags.iter().all(|tag| tag.state == TagState::Live)
            && status.troubles.is_empty()
    });
}

fn is_told(daemon: &mut Daemon<'_>, word: &str) {
    daemon.until(word, |status| status.troubles.iter().any(|trouble| trouble.contains(word)));
}

fn is_set_aside(daemon: &mut Daemon<'_>, name: &str, word: &str) {
    daemon.until(word, |status| {
        let tag = tag(status, name);
        tag.state == TagState::Failed && tag.message.as_ref().is_some_and(|message| message.contains(word))
    });
}

#[test]
fn server_that_is_killed_read_only_or_out_of_connections_is_waited_for() {
    let mut stage = Stage::on("away", Server::install());
    stage.write(1);
    let mut daemon = stage.shop.start();
    lives(&mut daemon);
    stage.server.kill();
    stage.write(1);
    is_told(&mut daemon, "Connection refused");
    stage.server.start();
    stage.until_right("visits");
    lives(&mut daemon);

    stage.server.run("SET GLOBAL read_only = 1");
    stage.write(1);
    is_told(&mut daemon, "read-only");
    stage.server.run("SET GLOBAL read_only = 0");
    stage.until_right("visits");
    lives(&mut daemon);

    stage.server.run("SET GLOBAL max_connections = 10");
    let mut others: Vec<Other> = Vec::new();
    let begun = Instant::now();
    let is_full = |status: &Status| status.troubles.iter().any(|trouble| trouble.contains("Too many connections"));
    stage.write(1);
    while !daemon.status().is_some_and(|status| is_full(&status)) {
        assert!(begun.elapsed() < PATIENCE, "{}", stage.shop.log());
        while let Ok(other) = Other::to(&stage.shop.store) {
            others.push(other);
        }
        let own: Vec<String> = others.iter().map(|other| other.connection.id().to_string()).collect();
        let daemons = format!(
            "SELECT GROUP_CONCAT('KILL ', ID SEPARATOR '; ') FROM information_schema.PROCESSLIST \
             WHERE USER = 'tagflow' AND ID NOT IN ({})",
            own.join(", ")
        );
        let kill = stage.server.run(&daemons);
        if kill.trim() != "NULL" {
            stage.server.run(&kill);
        }
    }
    drop(others);
    stage.until_right("visits");
    stage.until_right("notes");
    lives(&mut daemon);
    daemon.interrupt();
    stage.shop.verify();
}

#[test]
fn table_that_is_dropped_altered_or_locked_concerns_its_tag_alone() {
    let stage = Stage::on("hands", Server::install());
    stage.write(1);
    let mut daemon = stage.shop.start();
    lives(&mut daemon);
    let faults = [
        ("DROP TABLE shop.visits", "the table was dropped by someone else"),
        ("ALTER TABLE shop.visits DROP COLUMN n", "the table was altered by someone else"),
        ("ALTER TABLE shop.visits ADD CONSTRAINT few CHECK (n < 4)", "CONSTRAINT `few` failed"),
    ];
    for (statement, told) in faults {
        stage.server.run(statement);
        stage.write(1);
        is_set_aside(&mut daemon, "visits", told);
        stage.until_right("notes");
        stage.resume("visits");
        lives(&mut daemon);
        stage.until_right("visits");
    }

    // A table that is read for a long time keeps its own tag waiting only.
    let mut reader = Other::to(&stage.server.url("shop")).unwrap();
    reader.run("LOCK TABLES visits READ");
    stage.write(1);
    is_set_aside(&mut daemon, "visits", "locked by somebody else for too long");
    stage.until_right("notes");
    reader.run("UNLOCK TABLES");
    stage.resume("visits");
    lives(&mut daemon);
    stage.until_right("visits");

    // A deadlock with somebody who has more to lose, so that the daemon is its victim.
    reader.run("CREATE TABLE ballast (x INT)");
    reader.run("INSERT INTO ballast SELECT seq FROM seq_1_to_5000");
    reader.run("START TRANSACTION");
    reader.run("UPDATE ballast SET x = x + 1");
    reader.run("SELECT * FROM visits WHERE user_id = 7 FOR UPDATE");
    stage.write(1);
    let waits = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
    let begun = Instant::now();
    while stage.server.run(waits) == "0\n" {
        assert!(begun.elapsed() < PATIENCE, "the daemon does not come to the locked row\n{}", stage.shop.log());
        // InnoDB shows what it showed before to whoever asks more often than ten times a second.
        std::thread::sleep(Duration::from_millis(150));
    }
    reader.run("SELECT * FROM _tagflow_meta FOR UPDATE");
    reader.run("ROLLBACK");
    stage.until_right("visits");
    assert!(stage.shop.log().contains("Deadlock found"), "{}", stage.shop.log());
    lives(&mut daemon);
    daemon.interrupt();
    stage.shop.verify();
}

#[test]
fn commit_whose_answer_is_lost_is_neither_lost_nor_written_twice() {
    let mut stage = Stage::on("cut", Server::install());
    let proxy = Proxy::to(stage.server.port());
    stage.shop.store = stage.shop.store.replace(&stage.server.port().to_string(), &proxy.port.to_string());
    stage.write(1);
    let mut daemon = stage.shop.start();
    lives(&mut daemon);
    for (turn, cut) in [Cut::After, Cut::Before, Cut::After, Cut::Before, Cut::After].into_iter().enumerate() {
        proxy.cut(cut);
        stage.write(1);
        stage.until_right("visits");
        stage.until_right("notes");
        assert_eq!(proxy.cuts(), turn + 1, "{cut:?}");
    }
    lives(&mut daemon);
    daemon.interrupt();
    stage.shop.verify();
}

#[test]
fn row_too_large_for_the_server_sets_its_tag_aside_until_it_is_resumed() {
    let stage = Stage::on("packet", Server::with(&["--max-allowed-packet=1M"]));
    stage.write(1);
    let mut daemon = stage.shop.start();
    lives(&mut daemon);
    stage.write(3_000_000);
    is_set_aside(&mut daemon, "notes", "max_allowed_packet");
    stage.until_right("visits");
    let output = stage.shop.output(&["resume", "visits"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("`visits` is not set aside: it is live"), "{told}");

    stage.server.run("SET GLOBAL max_allowed_packet = 16777216");
    stage.resume("notes");
    lives(&mut daemon);
    stage.until_right("notes");
    assert_eq!(stage.server.run("SELECT DISTINCT LENGTH(note) FROM shop.notes"), "3000000\n");
    daemon.interrupt();
    stage.shop.verify();
}

/// A file system of its own size, gone at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(size: &str) -> Option<SmallDisk> {
        let folder = tempfile::Builder::new().prefix("tagflow-disk-").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("mode=755,size={size}"), "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then(|| SmallDisk(folder))
    }

    fn fill_up(&self) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn full_disk_is_waited_for() {
    let Some(disk) = SmallDisk::mount("160m") else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let folder = tempfile::Builder::new().prefix("mariadb-").tempdir_in(disk.0.path()).unwrap();
    let mut stage = Stage::on("full", Server::inside(folder, &[]));
    stage.write(1);
    let mut daemon = stage.shop.start();
    lives(&mut daemon);
    let filler = disk.fill_up();
    // Twenty rows of a megabyte find no room.
    stage.write(1_000_000);
    daemon.until("the full disk is told", |status| !status.troubles.is_empty());
    std::fs::remove_file(filler).unwrap();
    if stage.server.has_ended() {
        stage.server.start();
    }
    stage.until_right("notes");
    stage.until_right("visits");
    lives(&mut daemon);
    daemon.interrupt();
    stage.shop.verify();
}

#[test]
fn long_outage_ends_with_the_newest_value_of_each_key_and_no_other() {
    let mut stage = Stage::on("outage", Server::install());
    stage.write(1);
    let mut daemon = stage.shop.start();
    lives(&mut daemon);
    stage.until_right("notes");
    let before = daemon.status().unwrap();
    stage.server.kill();
    // Time enough for many flushes: each would have written every user of both tags.
    for _ in 0..40 {
        stage.write(1);
        std::thread::sleep(Duration::from_millis(50));
    }
    // It reads on while the database is away, so that nothing but the newest values is left to do.
    daemon.until("everything is read", |status| {
        status.events == before.events + 800 && status.lag == 0 && !status.troubles.is_empty()
    });
    stage.server.start();
    stage.until_right("visits");
    stage.until_right("notes");
    let after = daemon.until("nothing waits", |status| status.pending_keys == 0 && status.troubles.is_empty());
    // Two commits: the one that the outage met, and all the rest.
    let written = after.written - before.written;
    assert!(written <= 2 * 2 * 20, "{written} rows were written for 40 users' rows, 1600 changes");
    daemon.interrupt();
    stage.shop.verify();
}
