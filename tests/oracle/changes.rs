//! Tables out of their changes: whatever Debezium, Canal and Maxwell write of random inserts, updates, deletes and moved
//! keys, a tag over the stream is what the same SQL means over the table itself, kept here as a plain map.

use std::collections::{BTreeMap, HashMap};

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

const FORMATS: [&str; 3] = ["debezium-json", "canal-json", "maxwell-json"];

const TAGS: [(&str, &str); 3] = [
    (
        "balance",
        "SELECT user_id, SUM(amount) AS balance, COUNT(*) AS n FROM accounts WHERE user_id IS NOT NULL GROUP BY user_id",
    ),
    ("cities", "SELECT user_id, COUNT(DISTINCT city) AS n FROM accounts GROUP BY user_id"),
    (
        "joined",
        "SELECT b.user_id, b.n FROM tags.balance b JOIN (SELECT DISTINCT user_id FROM accounts WHERE city = '上海') a \
         ON a.user_id = b.user_id",
    ),
];

fn project(format: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["schemas", "tags"] {
        std::fs::create_dir(folder.path().join(part)).unwrap();
    }
    let settings = "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
                    [connection.shop]\ntype = \"kafka\"\nbrokers = \"nowhere:1\"\n[store]\nurl = \"sqlite:x.db\"\n";
    std::fs::write(folder.path().join("tagflow.toml"), settings).unwrap();
    let schema = format!(
        "connection = \"shop\"\ntopic = \"accounts\"\nformat = \"{format}\"\nkey = [\"id\"]\n[columns]\n\
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

/// One change as a record: the row before, if there was one, and the row after.
fn record(format: &str, before: Option<Json>, after: Option<Json>, random: &mut StdRng) -> String {
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
fn expected(accounts: &Accounts) -> BTreeMap<&'static str, BTreeMap<i64, String>> {
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
    BTreeMap::from([("balance", balance.collect()), ("cities", cities.collect()), ("joined", joined.collect())])
}

#[test]
fn tags_over_changes_equal_tags_over_the_table() {
    for (number, format) in FORMATS.iter().enumerate() {
        for seed in 0..6 {
            println!("{format} seed {seed}");
            run(format, seed * 10 + number as u64);
        }
    }
}

fn run(format: &str, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let folder = project(format);
    let loaded = tagflow::project::load(folder.path(), None);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let (desired, problems) = plan_project(&loaded.project.unwrap());
    assert_eq!(desired.tags.len(), TAGS.len(), "{problems:?}");
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
            let record = match &before {
                Some(_) if random.random_bool(0.3) => {
                    accounts.remove(&id);
                    record(format, old, None, &mut random)
                }
                // The key moves where there is room.
                Some(_) if to == id || !accounts.contains_key(&to) => {
                    accounts.remove(&id);
                    let after = row(format, to, &new);
                    accounts.insert(to, new);
                    record(format, old, Some(after), &mut random)
                }
                Some(_) => continue,
                None => {
                    let after = row(format, id, &new);
                    accounts.insert(id, new);
                    record(format, None, Some(after), &mut random)
                }
            };
            // A producer that is not sure sends it again; a delete is followed by a tombstone.
            let again = if random.random_bool(0.1) { 2 } else { 1 };
            for payload in std::iter::repeat_n(Some(record.as_bytes()), again).chain([None]) {
                let mut decoder = Decoder::new(stream, &columns).unwrap();
                let topic = &stream.topic;
                let raw = RawRecord { topic, partition: 0, offset, timestamp: Some(0), key: None, payload };
                decoder.decode(&raw).unwrap_or_else(|error| panic!("{record}: {error}"));
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
                let cells: Vec<String> = (1..=desired.tags[&name].plan.columns.len()).map(cell).collect();
                let row = (users.value(index), cells.join(" "));
                let weight = table.entry(row.clone()).or_default();
                *weight += delta.weight(index);
                if *weight == 0 {
                    table.remove(&row);
                }
            }
        }
        for (name, expected) in expected(&accounts) {
            let found: BTreeMap<i64, String> = tables[name].keys().cloned().collect();
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
