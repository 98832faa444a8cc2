//! What loading gives besides diagnostics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};
use tagflow::catalog::{Start, TimestampFormat};
use tagflow::config::{CheckpointPlace, Connection, MysqlAddress, Store};
use tagflow::project::load_with_env;
use tagflow::tag::{Method, Status};

use crate::{environment, load};

const SETTINGS: &str = r#"
timezone = "Asia/Shanghai"

[entity.user]
key   = "user_id"
type  = "BIGINT"
title = "用户"

[connection.shop]
type    = "kafka"
brokers = "${SHOP_KAFKA}"
registry = "https://tagflow:${DB_PASSWORD}@registry.example/apis/ccompat/v7/"
[connection.shop.kafka]
security.protocol = "SSL"
"fetch.max.bytes" = 1_000_000
"sasl.password" = "$$${DB_PASSWORD}"
ssl.ca.location = "certs/ca.pem"
ssl.crl.location = "/etc/crl.pem"

[connection.other]
type = "kafka"
brokers = "${NOT_SET}"

[store]
url = "mysql://tagflow:${DB_PASSWORD}@db:3306/tags"

[engine]
flush_interval = "250ms"
epoch_rows = 4096

[profile.demo]
connection.shop = { type = "generator", rate = 5000 }
connection.other = { type = "file", path = "data", follow = true }
store.url = "sqlite:demo.db"
engine.shards = 2

[profile.late]
connection.other = { type = "generator" }
"#;

const ORDERS: &str = r#"
title      = "Paid orders"
connection = "shop"
topic      = "shop.orders"
format     = "json"
time       = { column = "ORDER_TIME", lateness = "10s" }
start      = 2026-01-31T00:00:00+08:00

[columns]
order_id   = "BIGINT NOT NULL"
user_id    = "BIGINT"
amount     = "DECIMAL(12,2)"
category   = { type = "VARCHAR", path = "$.item.category" }
order_time = { type = "TIMESTAMP(3)", format = "epoch_ms" }
"#;

const SPEND: &str = r#"/* tag
title  = "近30天消费"
method = "stat"
[columns.spend_30d]
unit = "CNY"
default = 0
labels = { 0 = "none" }
*/
SELECT user_id, SUM(amount) AS spend_30d FROM orders GROUP BY user_id
"#;

fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn shop() -> BTreeMap<String, String> {
    files(&[
        ("tagflow.toml", SETTINGS),
        ("schemas/orders.toml", ORDERS),
        ("schemas/paid.sql", "/* view title = 'Paid' */ SELECT * FROM orders"),
        ("tags/money/_folder.toml", "title = 'Money'\norder = 1\n"),
        ("tags/money/recent/spend_30d.sql", SPEND),
        ("tags/money/recent/spend_30d.test.toml", "this is = not read"),
        ("tags/money/.spend_30d.sql", "hidden"),
        ("tags/money/.spend_30d.sql.swp", "hidden"),
        ("tags/money/spend_30d.sql~", "hidden"),
        ("tags/ideas/next.sql", "/* tag status = 'planned' */"),
    ])
}

#[test]
fn sound_project_is_loaded_whole() {
    let (root, loaded) = load(&shop(), Some("late"));
    assert_eq!(loaded.diagnostics, []);
    let project = loaded.project.unwrap();
    let config = &project.config;
    assert_eq!(config.timezone, chrono_tz::Asia::Shanghai);
    assert_eq!(config.entities["user"].key_type, DataType::Int64);
    assert_eq!(config.engine.flush_interval, Duration::from_millis(250));
    assert_eq!(config.engine.epoch_rows, 4096);
    assert_eq!(config.engine.checkpoint_interval, Duration::from_secs(30));
    assert_eq!(config.engine.state_dir, root.path().join(".tagflow/late"));
    assert_eq!(config.serve.listen, "127.0.0.1:7070");

    let orders = &project.catalog.streams["orders"];
    let names: Vec<&str> = orders.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["order_id", "user_id", "amount", "category", "order_time"]);
    assert!(!orders.columns[0].nullable);
    assert_eq!(orders.columns[3].path, ["item", "category"]);
    assert_eq!(orders.columns[4].data_type, DataType::Timestamp(TimeUnit::Millisecond, None));
    assert_eq!(orders.columns[4].timestamp_format, TimestampFormat::EpochMillis);
    assert_eq!(orders.time.as_ref().unwrap().column, "order_time");
    assert_eq!(orders.start, Start::Timestamp(1_769_788_800_000));
    assert_eq!(project.catalog.views["paid"].title.as_deref(), Some("Paid"));

    assert_eq!(project.tags.keys().collect::<Vec<_>>(), ["next", "spend_30d"]);
    let spend = &project.tags["spend_30d"];
    assert_eq!(spend.folder, ["money", "recent"]);
    assert_eq!(spend.entity, "user");
    assert_eq!(spend.text, SPEND);
    assert_eq!(spend.header.method, Some(Method::Stat));
    assert_eq!(spend.header.columns["spend_30d"].default.as_deref(), Some("0"));
    assert_eq!(spend.header.columns["spend_30d"].labels["0"], "none");
    assert_eq!(project.tags["next"].header.status, Status::Planned);
    assert_eq!(project.folders["money"].order, Some(1));
}

#[test]
fn variables_are_filled_in_and_passwords_escaped_for_the_address() {
    let (root, loaded) = load(&shop(), Some("late"));
    let config = loaded.project.unwrap().config;
    assert_eq!(config.store, Store::Mysql(MysqlAddress::plain("mysql://tagflow:p%40ss%2Fw%25rd%20@db:3306/tags")));
    let Connection::Kafka { brokers, properties, registry } = &config.connections["shop"] else { panic!("not kafka") };
    assert_eq!(brokers, "kafka-1.example:9092");
    let registry = registry.as_ref().unwrap().expose();
    assert_eq!(registry, "https://tagflow:p%40ss%2Fw%25rd%20@registry.example/apis/ccompat/v7");
    assert_eq!(properties["security.protocol"].expose(), "SSL");
    assert_eq!(properties["fetch.max.bytes"].expose(), "1000000");
    assert_eq!(properties["sasl.password"].expose(), "$p@ss/w%rd ");
    assert_eq!(Path::new(properties["ssl.ca.location"].expose()), root.path().join("certs/ca.pem"));
    assert_eq!(properties["ssl.crl.location"].expose(), "/etc/crl.pem");
    assert!(!format!("{config:?}").contains("p@ss") && !format!("{config:?}").contains("p%40ss"));
}

#[test]
fn profile_replaces_connections_whole_and_other_keys_one_by_one() {
    let (root, loaded) = load(&shop(), Some("demo"));
    assert_eq!(loaded.diagnostics, []);
    let config = loaded.project.unwrap().config;
    let Connection::Generator(generator) = &config.connections["shop"] else { panic!("not the generator") };
    assert_eq!((generator.rate, generator.seed, generator.users), (5000, 42, 20_000));
    assert_eq!((generator.history_days, generator.history_events), (45, 200_000));
    assert_eq!(config.connections["other"], Connection::File { path: root.path().join("data"), follow: true });
    assert_eq!(config.store, Store::Sqlite(root.path().join("demo.db")));
    assert_eq!(config.engine.shards, 2);
    assert_eq!(config.engine.epoch_rows, 4096);
    assert_eq!(config.engine.state_dir, root.path().join(".tagflow/demo"));
}

#[test]
fn each_profile_has_a_place_of_its_own_for_checkpoints() {
    let mut files = shop();
    let settings = SETTINGS.replace("epoch_rows = 4096", "checkpoints = \"s3://tags/shops/\"");
    let settings = format!(
        "{settings}\n[profile.cloud.engine.checkpoints]\nurl = \"s3://tags\"\n\
         endpoint = \"https://minio:9000\"\naccess_key_id = \"${{DB_PASSWORD}}\"\nsecret_access_key = \"${{DB_PASSWORD}}\"\n\
         timeout = \"5s\"\n[profile.shared.engine]\ncheckpoints = \"file:///mnt/tags\"\n"
    );
    files.insert("tagflow.toml".to_owned(), settings);
    let place = |profile| {
        let (_root, loaded) = load(&files, profile);
        assert_eq!(loaded.diagnostics, []);
        loaded.project.unwrap().config.engine.checkpoints
    };
    assert_eq!(place(Some("shared")), CheckpointPlace::Folder("/mnt/tags/shared".into()));
    let CheckpointPlace::S3(default) = place(None) else { panic!("not an object store") };
    assert_eq!((default.bucket.as_str(), default.prefix.as_str(), &default.endpoint), ("tags", "shops/default", &None));
    let CheckpointPlace::S3(cloud) = place(Some("cloud")) else { panic!("not an object store") };
    assert_eq!((cloud.prefix.as_str(), cloud.timeout), ("cloud", Duration::from_secs(5)));
    assert_eq!(cloud.secret_access_key.as_ref().unwrap().expose(), "p@ss/w%rd ");
    assert!(!format!("{cloud:?}").contains("p@ss"), "{cloud:?}");
}

#[test]
fn tags_of_a_project_with_bad_settings_are_checked_all_the_same() {
    let mut files = shop();
    files.insert("tagflow.toml".to_owned(), SETTINGS.replace("timezone", "timezon"));
    files.insert("tags/Wrong.sql".to_owned(), "SELECT 1".to_owned());
    let (_root, loaded) = load(&files, Some("demo"));
    assert!(loaded.project.is_none());
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, ["T0104", "T0402"]);
}

#[test]
fn unreadable_file_is_told_and_remembered() {
    let (root, _) = load(&shop(), Some("demo"));
    std::fs::write(root.path().join("tags/latin.sql"), b"SELECT 1\n-- caf\xe9\n").unwrap();
    std::os::unix::fs::symlink("nowhere", root.path().join("tags/gone.sql")).unwrap();
    let loaded = load_with_env(root.path(), Some("demo"), &environment);
    let unreadable: Vec<&Path> = loaded.unreadable.iter().map(PathBuf::as_path).collect();
    assert_eq!(unreadable, [Path::new("tags/gone.sql"), Path::new("tags/latin.sql")]);
    let messages: Vec<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert_eq!(messages[1], "this file is not UTF-8 text: see line 2");
    assert!(messages[0].starts_with("cannot read this file"), "{}", messages[0]);
    assert!(loaded.project.unwrap().tags.contains_key("spend_30d"));
}

#[test]
fn variables_of_connections_that_no_stream_reads_need_not_be_set() {
    let (_root, loaded) = load(&shop(), None);
    assert_eq!(loaded.diagnostics, []);
    assert_eq!(loaded.project.unwrap().config.connections.keys().collect::<Vec<_>>(), ["shop"]);
    let mut files = shop();
    files.insert("schemas/orders.toml".to_owned(), ORDERS.replace("\"shop\"", "\"other\""));
    let (_root, loaded) = load(&files, None);
    assert_eq!(loaded.diagnostics[0].message, "the environment variable NOT_SET is not set");
    assert_eq!(loaded.diagnostics.len(), 1);
}

#[test]
fn files_of_windows_editors_are_read() {
    let windows = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let files = shop().iter().map(|(path, text)| (path.clone(), windows(text))).collect();
    let (_root, loaded) = load(&files, Some("demo"));
    assert_eq!(loaded.diagnostics, []);
    assert_eq!(loaded.project.unwrap().tags["spend_30d"].header.title.as_deref(), Some("近30天消费"));
}

#[test]
fn folder_without_settings_is_no_project() {
    let (_root, loaded) = load(&BTreeMap::new(), None);
    assert!(loaded.project.is_none());
    assert_eq!(loaded.diagnostics[0].message, "there is no tagflow.toml in this folder");
}
