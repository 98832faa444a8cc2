//! Tables out of their records: whatever Debezium, Canal, Maxwell and producers of upserts write of random inserts,
//! updates, deletes, moved keys and TRUNCATEs, a tag over the stream is what the same SQL means over the table itself,
//! kept here as a plain map.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Decimal128Type, Int64Type};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use tagflow::engine::desired::plan_project;
use tagflow::operator::graph::Graph;
use tagflow::source::decode::{Decoder, RawRecord};

/// user, cents, city
type Account = (Option<i64>, i64, String);
/// By id.
type Accounts = BTreeMap<i64, Account>;

/// Formats, and the kind of a topic of upserts.
const FORMATS: [&str; 4] = ["debezium-json", "canal-json", "maxwell-json", UPSERTS];
const UPSERTS: &str = "kafka-upsert";

const TAGS: [(&str, &str); 4] = [
    (
        "balance",
        "SELECT user_id, SUM(amount) AS balance, COUNT(*) AS n FROM accounts WHERE user_id IS NOT NULL GROUP BY user_id",
    ),
    ("cities", "SELECT user_id, COUNT(DISTINCT city) AS n FROM accounts GROUP BY user_id"),
    ("rows", "SELECT id AS user_id, amount, CASE WHEN city = '' THEN 0 ELSE 1 END AS placed FROM accounts"),
    (
        "joined",
        "SELECT b.user_id, b.n FROM tags.balance b JOIN (SELECT DISTINCT user_id FROM accounts WHERE city = '上海') a \
         ON a.user_id = b.user_id",
    ),
];

fn project(format: &str, truncates: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["schemas", "tags"] {
        std::fs::create_dir(folder.path().join(part)).unwrap();
    }
    let settings = "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
                    [connection.shop]\ntype = \"kafka\"\nbrokers = \"nowhere:1\"\n[store]\nurl = \"sqlite:x.db\"\n";
    std::fs::write(folder.path().join("tagflow.toml"), settings).unwrap();
    let nature = match format {
        UPSERTS => "format = \"json\"\nkind = \"kafka-upsert\"".to_string(),
        _ => format!("format = \"{format}\"\ntruncates = {truncates}"),
    };
    let schema = format!(
        "connection = \"shop\"\ntopic = \"accounts\"\n{nature}\nkey = [\"id\"]\n[columns]\n\
         id = \"BIGINT NOT NULL\"\nuser_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\ncity = \"VARCHAR\"\n"
    );
    std::fs::write(folder.path().join("schemas/accounts.toml"), schema).unwrap();
    for (name, sql) in TAGS {
        std::fs::write(folder.path().join(format!("tags/{name}.sql")), sql).unwrap();
    }
    folder
}

fn row(format: &str, id: i64, account: &Account) -> Json {
    let amount = format!("{}.{:02}", account.1 / 100, account.1 % 100);
    match format {
        // Canal writes every value as text.
        "canal-json" => json!({
            "id": id.to_string(), "user_id": account.0.map(|user| user.to_string()), "amount": amount, "city": account.2
        }),
        _ => json!({ "id": id, "user_id": account.0, "amount": amount, "city": account.2 }),
    }
}

/// A record: its key and its payload.
type Record = (Option<String>, Option<String>);

/// One change as records: the row before, if there was one, and the row after.
fn records(format: &str, before: Option<Json>, after: Option<Json>, random: &mut StdRng) -> Vec<Record> {
    if format == UPSERTS {
        let key = |row: &Json| match random.random_bool(0.5) {
            true => row["id"].to_string(),
            false => json!({ "id": row["id"] }).to_string(),
        };
        let mut key = key;
        let moved = before.filter(|before| after.as_ref().is_none_or(|after| after["id"] != before["id"]));
        let deleted = moved.map(|before| (Some(key(&before)), None));
        let upserted = after.map(|after| (Some(key(&after)), Some(after.to_string())));
        return deleted.into_iter().chain(upserted).collect();
    }
    // A delete is followed by a tombstone.
    vec![(None, Some(change(format, before, after, random))), (Some("1".into()), None)]
}

/// A record that says that the table is empty.
fn truncate(format: &str) -> Record {
    let document = match format {
        "debezium-json" => json!({ "payload": { "op": "t", "before": null, "after": null } }),
        "canal-json" => json!({ "type": "TRUNCATE", "isDdl": true, "data": null, "sql": "TRUNCATE TABLE accounts" }),
        _ => json!({ "type": "truncate" }),
    };
    (None, Some(document.to_string()))
}

/// A record that is about no row.
fn beside(format: &str, random: &mut StdRng) -> Record {
    let document = match format {
        "debezium-json" => match random.random_range(0..4) {
            0 => json!({ "ts_ms": 1 }),
            1 => json!({ "status": "BEGIN", "id": "1", "event_count": null, "data_collections": null }),
            2 => json!({ "payload": { "databaseName": "shop", "ddl": "ALTER TABLE accounts", "tableChanges": [] } }),
            _ => json!({ "op": "m", "message": {} }),
        },
        "canal-json" => json!({ "type": "ALTER", "isDdl": true, "data": null, "sql": "ALTER TABLE accounts" }),
        _ => json!({ "type": "table-alter", "old": {}, "def": {} }),
    };
    (None, Some(document.to_string()))
}

fn change(format: &str, before: Option<Json>, after: Option<Json>, random: &mut StdRng) -> String {
    let changed = |before: &Json, after: &Json| {
        let fields = before.as_object().unwrap().iter().filter(|(name, value)| after.get(name) != Some(value));
        Json::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    let document = match format {
        "debezium-json" => {
            let op = match (&before, &after) {
                (None, _) if random.random_bool(0.3) => "r",
                (None, _) => "c",
                (Some(_), Some(_)) => "u",
                (Some(_), None) => "d",
            };
            // A replica identity of the key alone: no old row of an update, and only the key of a delete.
            let before = match (&before, &after) {
                (Some(_), Some(after)) if random.random_bool(0.4) && before.as_ref().unwrap()["id"] == after["id"] => {
                    None
                }
                (Some(old), None) if random.random_bool(0.4) => Some(json!({ "id": old["id"] })),
                _ => before,
            };
            let body = json!({ "before": before, "after": after, "op": op, "ts_ms": 1 });
            if random.random_bool(0.5) { json!({ "schema": {}, "payload": body }) } else { body }
        }
        "canal-json" => match (before, after) {
            (Some(before), Some(after)) => {
                json!({ "type": "UPDATE", "isDdl": false, "old": [changed(&before, &after)], "data": [after] })
            }
            (before, after) => {
                let kind = if after.is_some() { "INSERT" } else { "DELETE" };
                json!({ "type": kind, "isDdl": false, "old": null, "data": [after.or(before)] })
            }
        },
        _ => match (before, after) {
            (Some(before), Some(after)) => {
                json!({ "type": "update", "old": changed(&before, &after), "data": after })
            }
            (before, after) => {
                let kind = if after.is_some() { "insert" } else { "delete" };
                json!({ "type": kind, "data": after.or(before) })
            }
        },
    };
    document.to_string()
}

/// The tags' rows as text, from the table itself.
fn expected(accounts: &Accounts) -> BTreeMap<&'static str, BTreeSet<(i64, String)>> {
    let mut users: BTreeMap<i64, Vec<&Account>> = BTreeMap::new();
    for account in accounts.values() {
        if let Some(user) = account.0 {
            users.entry(user).or_default().push(account);
        }
    }
    let balance = users
        .iter()
        .map(|(user, own)| (*user, format!("{} {}", own.iter().map(|account| account.1).sum::<i64>(), own.len())));
    let cities = users.iter().map(|(user, own)| {
        let mut cities: Vec<&String> = own.iter().map(|account| &account.2).collect();
        cities.sort();
        cities.dedup();
        (*user, cities.len().to_string())
    });
    let there = users.iter().filter(|(_, own)| own.iter().any(|account| account.2 == "上海"));
    let joined = there.map(|(user, own)| (*user, own.len().to_string()));
    let rows =
        accounts.iter().map(|(id, (_, amount, city))| (*id, format!("{amount} {}", usize::from(!city.is_empty()))));
    BTreeMap::from([
        ("rows", rows.collect()),
        ("balance", balance.collect()),
        ("cities", cities.collect()),
        ("joined", joined.collect()),
    ])
}

#[test]
fn tags_over_changes_equal_tags_over_the_table() {
    for (number, format) in FORMATS.iter().enumerate() {
        for seed in 0..6 {
            let truncates = seed % 2 == 1 && *format != UPSERTS;
            println!("{format} seed {seed} truncates {truncates}");
            run(format, truncates, seed * 10 + number as u64);
        }
    }
}

fn run(format: &str, truncates: bool, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let folder = project(format, truncates);
    let loaded = tagflow::project::load(folder.path(), None);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let (desired, problems) = plan_project(&loaded.project.unwrap());
    assert_eq!(desired.tags.len(), TAGS.len(), "{problems:?}");
    // That a TRUNCATE moves everybody is not the tag's doing.
    assert!(problems.iter().all(|problem| problem.code == "T0703"), "{problems:?}");
    let stream = &desired.project.catalog.streams["accounts"];
    let schema = stream.schema();
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let graph = |random: &mut StdRng| {
        let mut graph = Graph::new(random.random_range(1..4), chrono_tz::Asia::Shanghai);
        for (name, tag) in &desired.tags {
            graph.add_tag(name, &tag.plan).unwrap();
        }
        graph
    };
    let mut running = graph(&mut random);
    let mut accounts = Accounts::new();
    let mut tables: BTreeMap<String, BTreeMap<(i64, String), i64>> = BTreeMap::new();
    let mut offset = 0;
    for epoch in 0..30 {
        let mut batches: Vec<RecordBatch> = Vec::new();
        for _ in 0..random.random_range(0..12) {
            let id = random.random_range(0..12);
            let before = accounts.get(&id).cloned();
            let old = before.as_ref().map(|account| row(format, id, account));
            let city = ["上海", "北京", ""][random.random_range(0..3)].to_string();
            let new =
                (random.random_bool(0.9).then(|| random.random_range(0..5)), random.random_range(0..100_000), city);
            let to = if random.random_bool(0.2) { random.random_range(0..12) } else { id };
            let records = match &before {
                _ if truncates && random.random_bool(0.04) => {
                    accounts.clear();
                    vec![truncate(format)]
                }
                _ if format != UPSERTS && random.random_bool(0.05) => vec![beside(format, &mut random)],
                Some(_) if random.random_bool(0.3) => {
                    accounts.remove(&id);
                    records(format, old, None, &mut random)
                }
                // The key moves where there is room.
                Some(_) if to == id || !accounts.contains_key(&to) => {
                    accounts.remove(&id);
                    let after = row(format, to, &new);
                    accounts.insert(to, new);
                    records(format, old, Some(after), &mut random)
                }
                Some(_) => continue,
                None => {
                    let after = row(format, id, &new);
                    accounts.insert(id, new);
                    records(format, None, Some(after), &mut random)
                }
            };
            // A producer that is not sure sends them again.
            let again = if random.random_bool(0.1) { 2 } else { 1 };
            for (key, payload) in std::iter::repeat_n(&records, again).flatten() {
                let mut decoder = Decoder::new(stream, &columns).unwrap();
                let topic = &stream.topic;
                let (key, payload) = (key.as_ref().map(String::as_bytes), payload.as_ref().map(String::as_bytes));
                let raw = RawRecord { topic, partition: 0, offset, timestamp: Some(0), key, payload };
                decoder.decode(&raw).unwrap_or_else(|error| panic!("{records:?}: {error}"));
                offset += 1;
                batches.push(decoder.finish());
            }
        }
        let events = match batches.is_empty() {
            true => HashMap::new(),
            false => HashMap::from([("accounts".to_string(), concat_batches(&schema, &batches).unwrap())]),
        };
        for (name, delta) in running.step(&events, epoch) {
            let delta = delta.unwrap();
            let table = tables.entry(name.clone()).or_default();
            let users = delta.batch.column(0).as_primitive::<Int64Type>();
            for index in 0..delta.num_rows() {
                if users.is_null(index) {
                    continue;
                }
                let cell = |column: usize| match delta.batch.column(column).as_primitive_opt::<Decimal128Type>() {
                    Some(decimals) => decimals.value(index).to_string(),
                    None => delta.batch.column(column).as_primitive::<Int64Type>().value(index).to_string(),
                };
                let cells: Vec<String> = (1..delta.batch.num_columns()).map(cell).collect();
                let row = (users.value(index), cells.join(" "));
                let weight = table.entry(row.clone()).or_default();
                *weight += delta.weight(index);
                if *weight == 0 {
                    table.remove(&row);
                }
            }
        }
        for (name, expected) in expected(&accounts) {
            let found: BTreeSet<(i64, String)> = tables[name].keys().cloned().collect();
            assert_eq!(found, expected, "{format} seed {seed} epoch {epoch} {name}");
            assert!(tables[name].values().all(|weight| *weight == 1), "{name}");
        }
        if random.random_bool(0.2) {
            let snapshot = running.snapshot().unwrap();
            running = graph(&mut random);
            let all = running.outputs();
            running.load(&snapshot, &all).unwrap();
        }
    }
}
