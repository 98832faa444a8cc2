//! Files that `tagflow new` writes: every template over events, schemas out of a topic, a registry's and a table's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use mysql_async::prelude::Queryable;
use rdkafka::producer::{BaseRecord, Producer};

use crate::shop::{environment, free_port};
use crate::topic::Topic;

fn tagflow(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tagflow"));
    command.args(arguments).arg("--project").arg(root).env("TAGFLOW_LOG", "warn");
    command.output().unwrap()
}

/// What a command prints that must succeed.
fn printed(root: &Path, arguments: &[&str]) -> String {
    let output = tagflow(root, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}\n{out}\n{err}");
    out.into_owned()
}

fn project(connections: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n{connections}\n\
         [store]\nurl = \"sqlite:tags.db\"\n[serve]\nlisten = \"127.0.0.1:{}\"\n",
        free_port()
    );
    fs::write(folder.path().join("tagflow.toml"), settings).unwrap();
    folder
}

const TEMPLATES: [&str; 17] = [
    "rolling_sum",
    "rolling_count",
    "lifetime",
    "daily",
    "active_days",
    "streak",
    "favourite",
    "top",
    "last",
    "last_seen",
    "level",
    "share",
    "segment",
    "churn_risk",
    "rfm",
    "funnel",
    "session",
];

#[test]
fn every_template_runs_over_events_and_is_what_a_batch_gives() {
    let folder = project("[connection.files]\ntype = \"file\"\npath = \"data\"");
    let root = folder.path();
    fs::create_dir(root.join("data")).unwrap();
    let now = chrono::Utc::now().timestamp_millis();
    let day = 86_400_000;
    // Three days one after the other, long enough ago that none is today's or beyond a week.
    let events = [
        (1, now - 4 * day, "10.50", "view"),
        (1, now - 3 * day, "20.00", "cart"),
        (1, now - 2 * day, "30.00", "pay"),
        (2, now - 20 * day, "500.00", "refunded"),
    ];
    let event = |(user, at, amount, step): (i32, i64, &str, &str)| {
        format!("{{\"user_id\":{user},\"amount\":{amount},\"step\":\"{step}\",\"event_time\":{at}}}\n")
    };
    fs::write(root.join("data/events.json"), events.map(event).concat()).unwrap();
    let said = printed(root, &["new", "schema", "events", "--from-topic", "events.json"]);
    assert!(said.contains("4 of 4 sampled records fit it"), "{said}");
    for template in TEMPLATES {
        printed(root, &["new", "tag", &format!("made/t_{template}"), "--template", template]);
    }
    let listed = String::from_utf8(tagflow(root, &["new", "tag", "one_more"]).stderr).unwrap();
    assert_eq!(listed.lines().filter(|line| line.starts_with("  ")).count(), TEMPLATES.len(), "{listed}");
    printed(root, &["fmt", "--check"]);
    printed(root, &["run", "--until-caught-up"]);
    printed(root, &["verify"]);

    let database = rusqlite::Connection::open(root.join("tags.db")).unwrap();
    let rows = |tag: &str, columns: &str| -> Vec<String> {
        let mut query = database.prepare(&format!("SELECT {columns} FROM t_{tag} ORDER BY 1")).unwrap();
        let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let of = |tag: &str, value: &str| rows(tag, &format!("user_id || ' ' || {value}"));
    let named = |tag: &str| of(tag, &format!("t_{tag}"));
    let expected = BTreeMap::from([
        ("rolling_count", vec!["1 3"]),
        ("active_days", vec!["1 3", "2 1"]),
        ("streak", vec!["1 3", "2 1"]),
        ("level", vec!["1 none", "2 bronze"]),
        ("churn_risk", vec!["1 active"]),
        ("funnel", vec!["1 3", "2 0"]),
        ("rfm", vec!["1 321", "2 211"]),
    ]);
    for (tag, values) in expected {
        assert_eq!(named(tag), values, "{tag}");
    }
    assert_eq!(of("segment", "''"), ["1 "]);
    assert_eq!(of("rolling_sum", "CAST(t_rolling_sum AS REAL)"), ["1 60.5", "2 500.0"]);
    assert_eq!(of("favourite", "t_favourite"), ["1 pay", "2 refunded"]);
    assert_eq!(of("daily", "COUNT(*)").len(), 1, "an aggregate of all of them");
    assert_eq!(of("last", "step"), ["1 pay", "2 refunded"]);
    assert_eq!(of("top", "place || t_top"), ["1 1pay", "1 2cart", "1 3view", "2 1refunded"]);
}

#[test]
fn schema_is_proposed_out_of_a_topic_that_is_read_then() {
    let topic = Topic::with_partitions("new_schema", 3);
    let folder = project(&format!("[connection.shop]\ntype = \"kafka\"\nbrokers = \"{}\"", topic.brokers));
    let root = folder.path();
    let output = tagflow(root, &["new", "schema", "clicks", "--from-topic", &topic.name]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("has no records yet"), "{told}");
    let misspelt = format!("{}x", topic.name);
    let output = tagflow(root, &["new", "schema", "clicks", "--from-topic", &misspelt]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&format!("did you mean {:?}", topic.name)), "{told}");

    let producer = topic.producer(&[]);
    for n in 0..300_i64 {
        let at = 1_760_000_000_000 + n * 1000;
        let payload = format!(
            "{{\"click_id\":{n},\"user\":{{\"id\":{n}}},\"page\":\"home\",\"price\":1.25,\"happened_at\":{at},\"ok\":true}}"
        );
        let record = BaseRecord::<(), str>::to(&topic.name).partition((n % 3) as i32).payload(&payload).timestamp(at);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(crate::topic::PATIENCE).unwrap();
    let said =
        printed(root, &["new", "schema", "clicks", "--from-topic", &topic.name, "--sample", "90", "--format", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["facts"]["sampled"], &said["facts"]["decoded"]), (&90.into(), &90.into()), "{said}");
    let text = fs::read_to_string(root.join("schemas/clicks.toml")).unwrap();
    assert!(text.contains("{ column = \"happened_at\", lateness = \"10s\" }"), "{text}");
    assert!(text.contains("user_id     = { type = \"BIGINT\", path = \"$.user.id\" }"), "{text}");
    printed(root, &["check"]);
}

#[test]
fn schema_is_proposed_out_of_a_table() {
    let server = environment("TAGFLOW_TEST_MYSQL");
    let server = server.rsplit_once('/').unwrap().0.to_string();
    let database = format!("new_schema_{}", std::process::id());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |sql: Vec<String>| {
        runtime.block_on(async {
            let mut conn = mysql_async::Conn::from_url(&format!("{server}/mysql")).await.unwrap();
            for sql in sql {
                conn.query_drop(sql).await.unwrap();
            }
            conn.disconnect().await.unwrap();
        });
    };
    run(vec![
        format!("CREATE DATABASE {database}"),
        format!(
            "CREATE TABLE {database}.users (id BIGINT UNSIGNED PRIMARY KEY, level ENUM('a', 'b') NOT NULL COMMENT 'of\nlife', \
             score DECIMAL(10,2), seen TIMESTAMP(3) NULL, born DATE, photo BLOB, `odd name` INT, \
             updated_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, KEY (updated_at))"
        ),
    ]);
    let folder = project(&format!("[connection.crm]\ntype = \"mysql\"\nurl = \"{server}/{database}\""));
    let root = folder.path();
    let output = tagflow(root, &["new", "schema", "none", "--from-mysql", "no_such"]);
    assert_eq!(output.status.code(), Some(1));
    printed(root, &["new", "schema", "users", "--from-mysql", "users"]);
    let text = fs::read_to_string(root.join("schemas/users.toml")).unwrap();
    let said: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        said,
        [
            "# The column \"photo\" is left out: blob is no text. A view that has HEX(…) of it can be read.",
            "kind       = \"mysql\"",
            "connection = \"crm\"",
            "table      = \"users\"",
            "key        = [\"id\"]",
            "changes    = { column = \"updated_at\", every = \"5s\" }",
            "resync     = \"10m\"",
            "",
            "[columns]",
            "id         = \"BIGINT UNSIGNED\"",
            "level      = \"VARCHAR NOT NULL\"  # of life",
            "score      = \"DECIMAL(10,2)\"",
            "seen       = \"TIMESTAMP(3) WITH TIME ZONE\"",
            "born       = \"DATE\"",
            "\"odd name\" = \"INT\"",
            "updated_at = \"TIMESTAMP(3) NOT NULL\"",
        ]
    );
    printed(root, &["check"]);
    run(vec![format!("DROP DATABASE {database}")]);
}
