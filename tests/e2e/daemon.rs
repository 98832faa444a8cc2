//! The daemon as a process: the sample project over Kafka into MariaDB, with edits and a kill in the middle.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tagflow::engine::status::{Status, TagState};

use crate::shop::Shop;

fn sample_tags() -> usize {
    fn count(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| match path.extension() {
                _ if path.is_dir() => count(&path),
                Some(extension) if extension == "sql" => 1,
                _ => 0,
            })
            .sum()
    }
    count(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tags"))
}

#[test]
fn sample_project_survives_edits_and_kills_and_every_table_is_right() {
    let shop = Shop::new("sample");
    let tags = sample_tags();
    let history = std::env::var("TAGFLOW_E2E_EVENTS").unwrap_or_else(|_| "30000".to_string());
    shop.produce(&history, "1");
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    // A fill has read the history; what follows tells how far event time is.
    shop.produce("200", "4");
    daemon.until("the streams have watermarks", |status| status.watermarks.len() == 3);

    // A changed tag, a new one, and one that only gets another title.
    let spend = shop.path("tags/consumption/spend_30d.sql");
    let text = fs::read_to_string(&spend).unwrap();
    fs::write(&spend, text.replace("INTERVAL '30' DAY", "INTERVAL '20' DAY")).unwrap();
    let new = "SELECT user_id, COUNT(*) AS orders FROM orders WHERE user_id IS NOT NULL GROUP BY user_id";
    fs::write(shop.path("tags/consumption/order_count.sql"), new).unwrap();
    shop.produce(&history, "2");
    daemon
        .until("the new tag is there", |status| status.tags.iter().any(|tag| tag.tag == "order_count" && tag.rows > 0));
    daemon.until_quiet(tags + 1);

    // In the middle of more events.
    let mut producer = shop
        .command(&["produce", "--rate", "0", "--history", &history, "--users", "2000", "--seed", "3"])
        .spawn()
        .unwrap();
    let before = daemon.status().map_or(0, |status| status.events);
    daemon.until("events come in", |status| status.events > before);
    daemon.kill();
    assert!(producer.wait().unwrap().success());

    let mut daemon = shop.start();
    daemon.until_quiet(tags + 1);
    // A broken file keeps the version that runs; a removed one retires its table.
    let vip = shop.path("tags/consumption/vip_level.sql");
    let sound = fs::read_to_string(&vip).unwrap();
    fs::write(&vip, sound.replace("user_id", "user_idd")).unwrap();
    daemon.until("the error shows", |status| !status.project_errors.is_empty());
    assert!(daemon.status().unwrap().tags.iter().any(|tag| tag.tag == "vip_level" && tag.state == TagState::Live));
    fs::write(&vip, sound).unwrap();
    fs::remove_file(shop.path("tags/consumption/order_count.sql")).unwrap();
    daemon.until("the tag is gone", |status| status.tags.len() == tags && status.project_errors.is_empty());
    daemon.until_quiet(tags);
    daemon.interrupt();
    shop.verify();

    let output = shop.output(&["show", "10001", "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn reload_touches_only_what_has_changed() {
    let shop = Shop::new("reload");
    let tags = sample_tags();
    // A topic that does not exist keeps nobody from starting.
    let users = shop.path("schemas/users.toml");
    let text = fs::read_to_string(&users).unwrap();
    fs::write(&users, text.replace(".users\"", ".not_there_yet\"")).unwrap();
    shop.produce("20000", "5");
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    let versions = |shop: &Shop| {
        shop.registry("SELECT CONCAT(tag, ' ', version, ' ', IFNULL(title, '')) FROM _tagflow_tags ORDER BY tag")
    };
    assert!(versions(&shop).iter().all(|line| line.contains(" 1 ")), "{:?}", versions(&shop));

    // Another title, a comment and another folder: state, table and version stay.
    let spend = fs::read_to_string(shop.path("tags/consumption/spend_30d.sql")).unwrap();
    fs::remove_file(shop.path("tags/consumption/spend_30d.sql")).unwrap();
    let moved = spend.replace("近30天消费", "三十天").replace("SELECT", "-- a comment\nSELECT");
    fs::write(shop.path("tags/preference/spend_30d.sql"), moved).unwrap();
    daemon.until("the tag has moved", |status| {
        status
            .tags
            .iter()
            .any(|tag| tag.tag == "spend_30d" && tag.folder == "preference" && tag.state == TagState::Live)
    });
    shop.until_registry(
        "SELECT CONCAT(version, title, folder) FROM _tagflow_tags WHERE tag = 'spend_30d'",
        "1三十天preference",
    );

    // A column more in a schema refills nothing; another type of a column refills the tags that read it.
    let orders = shop.path("schemas/orders.toml");
    let text = fs::read_to_string(&orders).unwrap();
    fs::write(
        &orders,
        text.replace("[columns]", "[columns]\nnote = \"VARCHAR\"").replace("DECIMAL(12,2)", "DECIMAL(14,3)"),
    )
    .unwrap();
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'spend_total'", "2");
    daemon.until_quiet(tags);
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'lapsing'", "1");
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'night_owl'", "1");

    // Twenty files at once, as by a checkout; half of the others go.
    for number in 0..20 {
        let sql = format!(
            "SELECT user_id, COUNT(*) AS n FROM page_views WHERE duration_ms > {} AND user_id IS NOT NULL GROUP BY user_id",
            number * 1000
        );
        fs::write(shop.path(&format!("tags/behaviour/views_over_{number}.sql")), sql).unwrap();
    }
    fs::remove_file(shop.path("tags/risk/refund_rate.sql")).unwrap();
    fs::rename(shop.path("tags/risk/city_hopper.sql"), shop.path("tags/risk/traveller.sql")).unwrap();
    daemon.until("twenty tags more", |status| status.tags.len() == tags + 19);
    shop.produce("20000", "6");
    daemon.until_quiet(tags + 19);
    // Ten tables that were replaced, two whose files are gone.
    shop.until_registry("SELECT CONCAT(COUNT(*)) FROM _tagflow_retired", "12");
    daemon.interrupt();
    shop.verify();

    // A lost state directory: all tags are filled anew and swapped in, at later epochs than ever.
    let epoch = || shop.registry("SELECT CONCAT(MAX(epoch)) FROM _tagflow_progress")[0].parse::<u64>().unwrap();
    let before = epoch();
    fs::remove_dir_all(shop.path(".tagflow")).unwrap();
    let mut daemon = shop.start();
    daemon.until_quiet(tags + 19);
    daemon.interrupt();
    assert!(epoch() > before, "{} after {before}", epoch());
    shop.verify();
}

/// Drops the records of a topic that are there, all but the newest of each partition.
fn forget_history(brokers: &str, topic: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(30)).unwrap();
    let mut offsets = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), Duration::from_secs(30)).unwrap();
        // A producer may leave a partition out.
        if end < 2 {
            continue;
        }
        offsets.add_partition_offset(topic, partition.id(), Offset::Offset(end - 1)).unwrap();
    }
    assert!(offsets.count() > 0, "{topic} has no history");
    let admin: AdminClient<_> = config.create().unwrap();
    let deleted = futures::executor::block_on(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
    assert!(deleted.elements().iter().all(|partition| partition.error().is_ok()), "{deleted:?}");
}

#[test]
fn shortened_history_never_replaces_a_complete_tag_until_accepted() {
    let shop = Shop::new("short");
    let tags = sample_tags();
    shop.produce("20000", "7");
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    let rows = shop.registry("SELECT CONCAT(COUNT(*)) FROM spend_total");

    let schema = fs::read_to_string(shop.path("schemas/orders.toml")).unwrap();
    let topic = schema.split('"').find(|word| word.ends_with(".orders")).unwrap();
    forget_history(&shop.kafka, topic);
    let spend = shop.path("tags/consumption/spend_total.sql");
    let text = fs::read_to_string(&spend).unwrap();
    fs::write(&spend, text.replace("COUNT(*) ", "COUNT(amount)")).unwrap();
    let waiting = daemon.until("the new version waits", |status| {
        status.tags.iter().any(|tag| tag.tag == "spend_total" && tag.state == TagState::Waiting)
    });
    let told = waiting.tags.iter().find(|tag| tag.tag == "spend_total").unwrap();
    assert!(told.message.as_ref().unwrap().contains("tagflow accept spend_total"), "{told:?}");
    // What ran goes on, also across a crash.
    assert_eq!(shop.registry("SELECT CONCAT(COUNT(*)) FROM spend_total"), rows);
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'spend_total'", "1");

    let output = shop.output(&["accept", "spend_total"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.until_quiet(tags);
    shop.until_registry(
        "SELECT CONCAT(version, complete_from IS NOT NULL) FROM _tagflow_tags WHERE tag = 'spend_total'",
        "21",
    );
    daemon.kill();
    let mut daemon = shop.start();
    let status = daemon.until_quiet(tags);
    let incomplete: Vec<&str> =
        status.tags.iter().filter(|tag| tag.complete_from.is_some()).map(|tag| tag.tag.as_str()).collect();
    assert_eq!(incomplete, ["spend_total"]);
    shop.produce("2000", "8");
    daemon.until_quiet(tags);
    daemon.interrupt();
    let output = shop.output(&["verify", "spend_total"]);
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), shop.log());
}

#[test]
fn stream_that_moves_to_another_topic_is_filled_from_there() {
    let (shop, other) = (Shop::new("moves"), Shop::new("goal"));
    let tags = sample_tags();
    shop.produce("20000", "11");
    other.produce("4000", "12");
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    // The new topic is shorter than what was read of the old one.
    fs::copy(other.path("schemas/orders.toml"), shop.path("schemas/orders.toml")).unwrap();
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'spend_total'", "2");
    daemon.until_quiet(tags);
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'night_owl'", "1");
    daemon.interrupt();
    shop.verify();
    // The same while no daemon runs.
    let schema = fs::read_to_string(shop.path("schemas/page_views.toml")).unwrap();
    let topic = |text: &str| text.split('"').find(|word| word.ends_with(".page_views")).unwrap().to_string();
    let goal = topic(&fs::read_to_string(other.path("schemas/page_views.toml")).unwrap());
    fs::write(shop.path("schemas/page_views.toml"), schema.replace(&topic(&schema), &goal)).unwrap();
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    daemon.interrupt();
    shop.verify();
}

#[test]
fn table_that_goes_back_under_a_running_daemon_is_filled_again() {
    let shop = Shop::new("back");
    let tags = sample_tags();
    shop.produce("10000", "13");
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    // As a replica that takes over, or a backup: the last transactions are gone.
    shop.registry("DELETE FROM spend_total WHERE user_id % 3 = 0");
    shop.registry("UPDATE _tagflow_progress SET epoch = 0 WHERE tag = 'spend_total'");
    shop.produce("2000", "14");
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'spend_total'", "2");
    daemon.until_quiet(tags);
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'night_owl'", "1");
    daemon.interrupt();
    shop.verify();
}

#[test]
fn values_without_a_label_are_counted() {
    let shop = Shop::new("labels");
    let tags = sample_tags();
    shop.produce("10000", "9");
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    let outside = |status: &Status| {
        status.tags.iter().find(|tag| tag.tag == "vip_level").map_or(u64::MAX, |tag| tag.outside_labels)
    };
    let expected = |shop: &Shop| {
        let sql = "SELECT CONCAT(COUNT(*)) FROM vip_level WHERE vip_level IN ('gold', 'silver')";
        shop.registry(sql)[0].parse::<u64>().unwrap()
    };
    assert_eq!(outside(&daemon.status().unwrap()), 0);
    let vip = shop.path("tags/consumption/vip_level.sql");
    let text = fs::read_to_string(&vip).unwrap();
    fs::write(&vip, text.replace("gold = \"金卡\", silver = \"银卡\", ", "")).unwrap();
    // Labels alone have changed: the table stays, and is counted.
    let counted = |status: &Status| outside(status) > 0 && outside(status) == expected(&shop);
    daemon.until("values outside the labels are counted", counted);
    shop.until_registry("SELECT CONCAT(version) FROM _tagflow_tags WHERE tag = 'vip_level'", "1");
    shop.produce("10000", "10");
    daemon.until_quiet(tags);
    // What is on its way to the store is counted already.
    daemon.until("new values are counted", counted);
    daemon.kill();
    let mut daemon = shop.start();
    daemon.until_quiet(tags);
    daemon.until("they are counted after a crash", counted);
    daemon.interrupt();
}
