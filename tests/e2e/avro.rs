//! Avro over a real Kafka and a real schema registry (Apicurio, started here by `scripts/registry`): schemas change
//! while the daemon runs, and the registry is killed in the middle.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Longest wait for anything; the registry is fetched within it, once a machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A registry of this test's own.
struct Registry {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Registry {
    fn start(folder: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut registry = Registry { child: Self::run(port, folder), port, folder: folder.to_path_buf() };
        registry.until_ready();
        registry
    }

    fn run(port: u16, folder: &Path) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/registry");
        let log = fs::File::options().create(true).append(true).open(folder.join("registry.log")).unwrap();
        let mut command = Command::new(script);
        command.arg(port.to_string()).arg(folder.join("registry"));
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn until_ready(&mut self) {
        let begun = Instant::now();
        while self.ask("GET", "/subjects", None).is_none() {
            assert!(begun.elapsed() < PATIENCE, "the registry does not answer; see scripts/registry");
            if let Some(code) = self.child.try_wait().unwrap() {
                let log = fs::read_to_string(self.folder.join("registry.log")).unwrap_or_default();
                panic!("the registry has ended with {code}:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::run(self.port, &self.folder);
        self.until_ready();
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    /// The answer to a request; `None` when there is none, or a refusal.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let head = format!(
            "{method} /apis/ccompat/v7{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Content-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).filter(|status| *status == "200")?;
        serde_json::from_str(body).ok()
    }

    /// Tells the registry of a schema; gives its id.
    fn register(&self, subject: &str, schema: &Value) -> u32 {
        let request = json!({ "schema": schema.to_string() });
        let answer = self.ask("POST", &format!("/subjects/{subject}/versions"), Some(&request));
        answer.unwrap()["id"].as_u64().unwrap().try_into().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A project with one tag over one topic, and what the tag must show.
struct Orders {
    folder: tempfile::TempDir,
    topic: String,
    producer: BaseProducer,
    /// Of each user: orders, and what was spent in cents.
    expected: BTreeMap<i64, (i64, i64)>,
    written: i64,
}

/// Appends an order, a user and cents, as a version of the schema has them.
type Writer = fn(&mut Vec<u8>, i64, i64, i64);

fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn first_version(out: &mut Vec<u8>, order: i64, user: i64, cents: i64) {
    long(order, out);
    long(user, out);
    long(8, out);
    out.extend(cents.to_be_bytes());
}

fn second_version(out: &mut Vec<u8>, order: i64, user: i64, cents: i64) {
    long(5, out);
    out.extend(b"Paris");
    out.extend((cents as f64 / 100.0).to_le_bytes());
    long(1, out);
    long(user, out);
    long(order, out);
}

fn third_version(out: &mut Vec<u8>, order: i64, user: i64, cents: i64) {
    long(order, out);
    long(1, out);
    long(user, out);
    long(0, out);
    out.extend((cents as i32).to_be_bytes());
}

impl Orders {
    fn new(registry: &Registry) -> Self {
        let brokers = std::env::var("TAGFLOW_TEST_KAFKA")
            .expect("TAGFLOW_TEST_KAFKA must name a Kafka broker (host:port); `make test` starts one and sets it");
        let folder = tempfile::tempdir().unwrap();
        let topic = format!("tagflow-test.avro.{}", registry.port);
        let write = |file: &str, text: String| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        write(
            "tagflow.toml",
            format!(
                "timezone = \"UTC\"\nstore.url = \"sqlite:tags.db\"\nserve.listen = \"{listen}\"\n\
                 engine = {{ checkpoint_interval = \"2s\", flush_interval = \"100ms\" }}\n\
                 [entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
                 [connection.shop]\ntype = \"kafka\"\nbrokers = \"{brokers}\"\nregistry = \"{}\"\n",
                registry.address()
            ),
        );
        write(
            "schemas/orders.toml",
            format!(
                "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"avro\"\n[columns]\n\
                 order_id = \"BIGINT NOT NULL\"\nuser_id = \"BIGINT NOT NULL\"\namount = \"DECIMAL(12,2)\"\n"
            ),
        );
        let sql = "SELECT user_id, COUNT(*) AS orders, SUM(amount) AS spend FROM orders GROUP BY user_id";
        write("tags/spend.sql", sql.to_owned());
        let producer = crate::topic::producer(&brokers, &[]);
        Orders { folder, topic, producer, expected: BTreeMap::new(), written: 0 }
    }

    /// Writes that many orders, each in the version whose id comes with it, in turns.
    fn write(&mut self, count: i64, versions: &[(u32, Writer)]) {
        for _ in 0..count {
            let order = self.written;
            let (user, cents) = (order % 7, order * 37 % 10_000 - 5_000);
            let (id, version) = versions[order as usize % versions.len()];
            let mut payload = vec![0];
            payload.extend(id.to_be_bytes());
            version(&mut payload, order, user, cents);
            self.send(&payload);
            let (orders, spent) = self.expected.entry(user).or_default();
            (*orders, *spent) = (*orders + 1, *spent + cents);
            self.written += 1;
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn send(&self, payload: &[u8]) {
        let key = self.written.to_string();
        self.producer.send(BaseRecord::to(&self.topic).key(&key).payload(payload)).map_err(|(error, _)| error).unwrap();
    }

    fn command(&self, command: &str) -> Command {
        let mut started = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        started.args([command, "--project"]).arg(self.folder.path());
        started
    }

    fn new_schema(&self) -> Output {
        let mut started = Command::new(env!("CARGO_BIN_EXE_tagflow"));
        started.args(["new", "schema", "seen", "--from-topic", &self.topic, "--project"]).arg(self.folder.path());
        started.output().unwrap()
    }

    fn start(&self) -> Daemon {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        Daemon(self.command("run").stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn troubles(&self) -> Vec<String> {
        let output = self.command("status").args(["--format", "json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        serde_json::from_value(status["troubles"].clone()).unwrap_or_default()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What the tag's table shows, or nothing where there is none yet.
    fn shown(&self) -> Option<BTreeMap<i64, (i64, i64)>> {
        let store = Connection::open(self.folder.path().join("tags.db")).ok()?;
        let mut rows = store.prepare("SELECT user_id, orders, ROUND(spend * 100) FROM spend").ok()?;
        let rows = rows
            .query_map([], |row| Ok((row.get::<_, i64>(0)?, (row.get::<_, i64>(1)?, row.get::<_, f64>(2)? as i64))));
        rows.ok()?.collect::<Result<_, _>>().ok()
    }

    fn dead_letters(&self) -> Vec<String> {
        let file = self.folder.path().join(".tagflow/default/dead-letters/orders.jsonl");
        fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

struct Daemon(Child);

impl Daemon {
    /// Waits until the table shows every order that was written.
    fn until_right(&mut self, orders: &Orders, what: &str) {
        self.until(orders, what, |orders, _| orders.shown().as_ref() == Some(&orders.expected));
    }

    fn until(&mut self, orders: &Orders, what: &str, holds: impl Fn(&Orders, &Daemon) -> bool) {
        let begun = Instant::now();
        while !holds(orders, self) {
            if let Some(code) = self.0.try_wait().unwrap() {
                panic!("the daemon has ended with {code}:\n{}", orders.log());
            }
            let late = begun.elapsed() > PATIENCE;
            let letters = orders.dead_letters();
            let (shown, expected) = (orders.shown(), &orders.expected);
            assert!(!late, "still not: {what}\n{shown:?}\n{expected:?}\n{letters:?}\n{}", orders.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As a crash does.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// As Ctrl-C does.
    fn interrupt(mut self) {
        assert!(Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn schemas_change_while_the_daemon_runs_and_a_registry_that_is_away_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = Registry::start(folder.path());
    let mut orders = Orders::new(&registry);
    let subject = format!("{}-value", orders.topic);
    let register = |registry: &Registry, fields: Value| {
        registry
            .register(&subject, &json!({ "type": "record", "name": "Order", "namespace": "shop", "fields": fields }))
    };
    let decimal = json!({ "type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2 });
    let first = register(
        &registry,
        json!([
            { "name": "order_id", "type": "long" }, { "name": "user_id", "type": "long" },
            { "name": "amount", "type": decimal }
        ]),
    );
    orders.write(2_000, &[(first, first_version)]);
    let mut daemon = orders.start();
    daemon.until_right(&orders, "the history is in the table");

    // Another order of fields, other types, a field more; nobody tells the daemon.
    let second = register(
        &registry,
        json!([
            { "name": "city", "type": "string" }, { "name": "amount", "type": "double" },
            { "name": "user_id", "type": ["null", "long"] }, { "name": "order_id", "type": "long" }
        ]),
    );
    orders.write(3_000, &[(first, first_version), (second, second_version)]);
    daemon.until_right(&orders, "records of both schemas are in the table");

    // Who has no schema file yet gets one out of what the registry knows.
    let output = orders.new_schema();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = orders.folder.path().join("schemas/seen.toml");
    let seen = fs::read_to_string(&file).unwrap();
    let lines: Vec<String> = seen
        .lines()
        .map(|line| line.split('#').next().unwrap().split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in ["format = \"avro\"", "order_id = \"BIGINT\"", "city = \"VARCHAR\""] {
        assert!(lines.iter().any(|found| found == line), "{line}: {seen}");
    }
    let output = orders.command("check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    fs::remove_file(&file).unwrap();

    // A schema that the daemon has not seen, and no registry to ask.
    let fixed =
        json!({ "type": "fixed", "name": "Cents", "size": 4, "logicalType": "decimal", "precision": 9, "scale": 2 });
    let third = register(
        &registry,
        json!([
            { "name": "order_id", "type": "long" }, { "name": "user_id", "type": ["null", "long"] },
            { "name": "note", "type": ["null", "string"], "default": null }, { "name": "amount", "type": fixed }
        ]),
    );
    registry.kill();
    let before = orders.expected.clone();
    orders.write(3_000, &[(third, third_version), (second, second_version), (first, first_version)]);
    let is_troubled = |orders: &Orders, _: &Daemon| {
        orders.troubles().iter().any(|trouble| trouble.contains("no answer from the schema registry"))
    };
    daemon.until(&orders, "the status tells of the registry", is_troubled);
    daemon.kill();
    // Whoever asks the world is told what is away and which stream waits for it, and not that the records are wrong.
    let output = orders.command("check").args(["--live", "--format", "json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> =
        told["diagnostics"].as_array().unwrap().iter().map(|told| told["code"].as_str().unwrap()).collect();
    assert_eq!((output.status.code(), codes), (Some(1), vec!["T1001", "T1005"]), "{told:#}");
    let output = orders.new_schema();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("no answer from the schema registry"), "{said}");
    assert!(!file.exists());

    // What a new process knows of schemas is nothing; it waits at the same records.
    let mut daemon = orders.start();
    daemon.until(&orders, "the status tells of the registry again", is_troubled);
    let total = |shown: &BTreeMap<i64, (i64, i64)>| shown.values().map(|(count, _)| count).sum::<i64>();
    let shown = orders.shown().unwrap();
    assert!(total(&before) <= total(&shown) && total(&shown) < total(&orders.expected), "{shown:?}");
    registry.start_again();
    daemon.until_right(&orders, "all records are in the table");
    daemon.until(&orders, "the trouble is over", |orders, _| orders.troubles().is_empty());
    assert_eq!(orders.dead_letters(), [""; 0]);

    // What nobody can read is put aside, and the stream goes on.
    orders.send(&[&[0][..], &4_000_000u32.to_be_bytes(), b"x"].concat());
    orders.send(&[&[0][..], &first.to_be_bytes(), &[2]].concat());
    orders.send(b"{\"order_id\":1}");
    orders.write(700, &[(third, third_version), (first, first_version)]);
    daemon.until_right(&orders, "the records behind the broken ones are in the table");
    daemon.until(&orders, "three dead letters", |orders, _| orders.dead_letters().len() == 3);
    let letters = orders.dead_letters().join("\n");
    for reason in [
        "the registry knows no schema 4000000",
        "not Avro of its schema: too few bytes at byte 1",
        "not in Confluent's wire format",
    ] {
        assert!(letters.contains(reason), "{letters}");
    }
    daemon.interrupt();
    let output = orders.command("verify").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
