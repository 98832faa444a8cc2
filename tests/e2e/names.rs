//! Names and texts of files, made to break out of SQL: they arrive as they are, and nothing else happens.

use mysql_async::prelude::Queryable;

use crate::shop::Shop;
use crate::topic::Topic;

/// Ends of quotes, comments and statements; what another session could take for another name.
const HOSTILE: [&str; 9] = [
    "a`b",
    "a\"b",
    "a'b",
    "x`; DROP TABLE canary; -- ",
    "x'); DROP TABLE canary; -- '",
    "back\\slash\\",
    "/* open",
    "%s ? :n ${x}",
    "n\u{430}me",
];

fn run(shop: &Shop, statements: &[&str]) {
    run_at(&shop.store, statements);
}

fn run_at(url: &str, statements: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = mysql_async::Conn::from_url(url).await.unwrap();
        for statement in statements {
            connection.query_drop(*statement).await.unwrap();
        }
        connection.disconnect().await.unwrap();
    });
}

#[test]
fn hostile_names_texts_and_values_arrive_as_they_are() {
    let topic = Topic::with_partitions("names", 1);
    let aliases: String = HOSTILE.iter().enumerate().fold(String::new(), |text, (number, name)| {
        let name = name.trim_end().replace('"', "\"\"");
        format!("{text}, COUNT(*) + {number} AS \"{name}\"")
    });
    // Text of a header in TOML, whose escapes bring what no editor would.
    let hostile_text = serde_json::Value::from(HOSTILE.join(" ") + "\u{1}").to_string();
    let tag = format!(
        "/* tag\ntitle = {text}\ndescription = {text}\nowner = {text}\n[columns.\"a`b\"]\nunit = {text}\n\
         labels = {{ 1 = {text} }}\n*/\nSELECT user_id{aliases} FROM orders GROUP BY user_id",
        text = hostile_text.replace("*/", "* /").replace("/*", "/ *")
    );
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"VARCHAR NOT NULL\"\n",
        topic.name
    );
    let shop = Shop::of("names", &[("schemas/orders.toml", schema), ("tags/odd.sql", tag)]);
    let settings = std::fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    std::fs::write(shop.path("tagflow.toml"), settings.replace("BIGINT", "VARCHAR")).unwrap();
    let users: Vec<String> = HOSTILE.iter().map(|name| format!("{name}\0\n\t\u{1}")).collect();
    let records: Vec<_> = users.iter().map(|user| (serde_json::json!({ "user_id": user }).to_string(), None)).collect();
    topic.write(0, &records);
    let output = shop.output(&["check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    assert!(shop.output(&["run", "--until-caught-up"]).status.success());
    run(&shop, &["CREATE TABLE canary (id INT)"]);
    topic.write(0, &records);
    let output = shop.output(&["run", "--until-caught-up"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    shop.verify();
    assert_eq!(shop.registry("SELECT CAST(COUNT(*) AS CHAR) FROM canary"), ["0"]);
    let mut names = shop.registry("SELECT name FROM _tagflow_columns WHERE is_key = 0 ORDER BY position");
    let expected: Vec<&str> = HOSTILE.iter().map(|name| name.trim_end()).collect();
    assert_eq!(names, expected);
    names = shop.registry(
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'odd' \
         AND COLUMN_KEY = '' AND COLUMN_NAME <> '_updated_at' ORDER BY ORDINAL_POSITION",
    );
    assert_eq!(names, expected);
    let mut shown = shop.registry("SELECT user_id FROM odd");
    let mut wanted = users.clone();
    shown.sort();
    wanted.sort();
    assert_eq!(shown, wanted);
    let titles = shop.registry("SELECT title FROM _tagflow_tags");
    assert!(titles[0].contains("DROP TABLE canary") && titles[0].ends_with('\u{1}'), "{titles:?}");
    let output = shop.output(&["show", "x`; DROP TABLE canary; -- ' OR '1'='1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(shop.registry("SELECT CAST(COUNT(*) AS CHAR) FROM canary"), ["0"]);
}

#[test]
fn table_of_a_hostile_name_is_read_and_nothing_else_is() {
    let table = "us`ers; DROP TABLE canary; -- '\"";
    let column = "le`vel'; -- \"";
    // All columns of a table are asked for by their names, declared or not.
    let schema = format!(
        "kind = \"mysql\"\nconnection = \"crm\"\ntable = {}\nkey = [\"id\"]\nresync = \"1s\"\n[columns]\nid = \"VARCHAR\"\n",
        serde_json::Value::from(table)
    );
    let tag = "SELECT id AS user_id FROM users".to_string();
    let shop = Shop::of("table_names", &[("schemas/users.toml", schema), ("tags/member.sql", tag)]);
    let settings = std::fs::read_to_string(shop.path("tagflow.toml")).unwrap().replace("BIGINT", "VARCHAR");
    let connection = "[connection.crm]\ntype = \"mysql\"\nurl = \"${TAGFLOW_STORE_URL}\"\n";
    std::fs::write(shop.path("tagflow.toml"), format!("{settings}{connection}")).unwrap();
    let (server, database) = shop.store.rsplit_once('/').unwrap();
    run_at(server, &[&format!("CREATE DATABASE {database}")]);
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    let create = format!("CREATE TABLE {} (id VARCHAR(200) PRIMARY KEY, {} INT)", quoted(table), quoted(column));
    let insert = format!("INSERT INTO {} VALUES ('x''; DROP TABLE canary; -- ', 1), ('\\\\', 2)", quoted(table));
    run(&shop, &["CREATE TABLE canary (id INT)", &create, &insert]);
    let output = shop.output(&["run", "--until-caught-up"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(shop.registry("SELECT user_id FROM member ORDER BY 1"), ["\\", "x'; DROP TABLE canary; -- "]);
    assert_eq!(shop.registry("SELECT CAST(COUNT(*) AS CHAR) FROM canary"), ["0"]);
}

#[test]
fn key_that_is_too_long_for_the_index_is_told_when_a_tag_is_filled() {
    let topic = Topic::with_partitions("long_keys", 1);
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{}\"\nformat = \"json\"\n[columns]\nuser_id = \"VARCHAR NOT NULL\"\n",
        topic.name
    );
    let tag = "SELECT user_id, COUNT(*) AS n FROM orders GROUP BY user_id".to_string();
    let shop = Shop::of("long_keys", &[("schemas/orders.toml", schema), ("tags/orders_of.sql", tag)]);
    let settings = std::fs::read_to_string(shop.path("tagflow.toml")).unwrap();
    std::fs::write(shop.path("tagflow.toml"), settings.replace("BIGINT", "VARCHAR")).unwrap();
    let record = |user: &str| (serde_json::json!({ "user_id": user }).to_string(), None);
    topic.write(0, &[record("short"), record(&"long".repeat(500))]);
    let output = shop.output(&["run", "--until-caught-up"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(shop.registry("SELECT user_id FROM orders_of"), ["short"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("keys do not fit the store's index"), "{log}");
}
