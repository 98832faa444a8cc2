//! The keys of `tagflow.toml`.

use super::shape::{Key, Object, Shape, key, lints, object, required, table};

/// The whole file.
pub(crate) fn settings() -> Object {
    let profile = vec![
        key("connection", named(connection()), "connections that replace those of the same names"),
        key("store", store(), "replaces [store] key by key"),
        key("engine", engine(), "replaces [engine] key by key"),
        key("serve", serve(), "replaces [serve] key by key"),
    ];
    object(vec![
        required("timezone", Shape::Text, "what CURRENT_DATE, date_trunc and a bare TIMESTAMP mean: \"Asia/Shanghai\""),
        required("entity", named(entity()), "what tags describe"),
        key("connection", named(connection()), "where streams come from"),
        required("store", store(), "where tags are kept"),
        key("engine", engine(), "how the daemon works"),
        key("serve", serve(), "where the console listens"),
        lints(),
        key("profile", named(table(profile)), "the same files elsewhere: tagflow --profile NAME"),
    ])
}

fn named(shape: Shape) -> Shape {
    Shape::Named(Box::new(shape))
}

fn entity() -> Shape {
    table(vec![
        required("key", Shape::Text, "the column that every tag of it has"),
        required("type", Shape::Text, "the SQL type of its key: BIGINT, VARCHAR, DATE …"),
        key("title", Shape::Text, "for people"),
    ])
}

/// What a store or a connection says of TLS.
fn tls() -> [Key; 3] {
    [
        key("ca", Shape::Text, "a PEM file: the authority that the server's certificate must come from"),
        key("cert", Shape::Text, "a PEM file: the client's certificate"),
        key("key", Shape::Text, "a PEM file: the key of the client's certificate"),
    ]
}

fn connection() -> Shape {
    let mut keys = vec![
        required("type", Shape::Word(&["kafka", "file", "mysql", "generator"]), "what it leads to"),
        key("brokers", Shape::Text, "kafka: host:port, separated by commas"),
        key("registry", Shape::Text, "kafka: the address of the schema registry of Avro streams"),
        key("kafka", Shape::Anything, "kafka: properties of librdkafka, such as SASL"),
        key("url", Shape::Text, "mysql: mysql://USER:${PASSWORD}@HOST:3306/DATABASE"),
        key("path", Shape::Text, "file: a folder of the project"),
        key("follow", Shape::Flag, "file: go on as files grow"),
        key("rate", Shape::Whole(0, i64::MAX), "generator: events a second"),
        key("seed", Shape::Whole(0, i64::MAX), "generator: other events for another seed"),
        key("users", Shape::Whole(1, i64::MAX), "generator: how many users there are"),
        key("history_days", Shape::Whole(0, 36_500), "generator: days of events before the first start"),
        key("history_events", Shape::Whole(0, i64::MAX), "generator: events before the first start"),
    ];
    keys.extend(tls());
    table(keys)
}

fn store() -> Shape {
    let mut keys = vec![key("url", Shape::Text, "mysql://USER:${PASSWORD}@HOST:3306/DATABASE, or sqlite:FILE")];
    keys.extend(tls());
    table(keys)
}

fn engine() -> Shape {
    let place = table(vec![
        required("url", Shape::Text, "s3://BUCKET/PREFIX, or file:///FOLDER"),
        key("endpoint", Shape::Text, "of a store that is not Amazon's: https://HOST:PORT"),
        key("region", Shape::Text, "the bucket's region"),
        key("allow_http", Shape::Flag, "an http:// endpoint may be used"),
        key("virtual_hosted", Shape::Flag, "the bucket is part of the host's name, not of the path"),
        key("access_key_id", Shape::Text, "${NAME} or ${file:PATH}; AWS_* where it is not given"),
        key("secret_access_key", Shape::Text, "${NAME} or ${file:PATH}; AWS_* where it is not given"),
        key("session_token", Shape::Text, "${NAME} or ${file:PATH}"),
        key("timeout", Shape::Duration, "how long one request may take (60s)"),
    ]);
    table(vec![
        key("state_dir", Shape::Text, "where state is kept (.tagflow)"),
        key("checkpoints", Shape::Either(vec![Shape::Text, place]), "where checkpoints lie (in the state directory)"),
        key("checkpoint_interval", Shape::Duration, "time between two checkpoints (30s)"),
        key("checkpoints_kept", Shape::Whole(2, 10_000), "how many checkpoints stay (3)"),
        key("checkpoints_kept_for", Shape::Duration, "younger checkpoints stay, however many (0s)"),
        key("flush_interval", Shape::Duration, "time between two writes to the store (500ms)"),
        key("epoch_interval", Shape::Duration, "the longest time that an event waits for others (100ms)"),
        key("epoch_rows", Shape::Whole(1, 100_000_000), "the most events taken at once (131072)"),
        key("shards", Shape::Whole(0, 1024), "how many parts of the keys are stepped in parallel (one a core)"),
        key("grace_period", Shape::Duration, "how long retired tables stay (7d)"),
        key("fill_lag", Shape::Duration, "while running tags are further behind, fills wait for them (5s)"),
        key("lease", Shape::Duration, "how long a dead daemon keeps the store from others (6s)"),
        key("state_limit", Shape::Bytes, "the most state of a tag that says nothing of its own (none)"),
        key("memory_limit", Shape::Bytes, "the most memory; state beyond a third of it goes to disk (none)"),
        key("dead_letters", Shape::Bytes, "room for the dead letters of a stream (128MiB)"),
    ])
}

fn serve() -> Shape {
    table(vec![
        key("listen", Shape::Text, "the console's address (127.0.0.1:7070)"),
        key("token", Shape::Text, "what a request must bring: \"${TAGFLOW_TOKEN}\""),
    ])
}
