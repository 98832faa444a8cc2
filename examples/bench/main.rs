//! `make bench`: rows a second and CPU seconds for the work that `Flink` was measured with (see CONTRIBUTING.md), on
//! JSON orders of about 170 bytes, 9 fields, a million users, 4 partitions, lz4, already in a real Kafka.
//!
//! First a check of a thousand tags, which needs no server. Each figure is of one whole pass from the first batch to the last. `TAGFLOW_BENCH_EVENTS` sets how many orders.

mod check;
mod checkpoints;
mod recovery;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tagflow::config::Keeping;
use tagflow::delta::Offsets;
use tagflow::engine::checkpoint::{CheckpointThread, Checkpoints, Position, Taken};
use tagflow::engine::dataflow::Dataflow;
use tagflow::engine::desired::{Desired, plan_project, reads};
use tagflow::engine::intake::{Intake, Queue, Reads, World};
use tagflow::engine::stop::Stop;
use tagflow::engine::store::StoreThread;
use tagflow::project;
use tagflow::sink::lease::{Claim, Ends, Owner};
use tagflow::sink::open_store;
use tagflow::source::{DeadLetters, Registries, SourceContext, Tables, WallClock};

type Failure = Box<dyn Error>;

const USERS: u64 = 1_000_000;
const PARTITIONS: i32 = 4;

fn main() -> Result<(), Failure> {
    check::run()?;
    let brokers = std::env::var("TAGFLOW_TEST_KAFKA").map_err(|_| "run it with `make bench`, which starts a Kafka")?;
    let store = std::env::var("TAGFLOW_TEST_MYSQL").map_err(|_| "run it with `make bench`, which starts a MariaDB")?;
    let events: u64 = std::env::var("TAGFLOW_BENCH_EVENTS").ok().map_or(Ok(4_000_000), |text| text.parse())?;
    let topic = format!("bench.{}", std::process::id());
    produce(&brokers, &topic, events)?;

    let cores = std::thread::available_parallelism()?;
    println!(
        "{events} orders, {USERS} users, {PARTITIONS} partitions, {cores} cores, broker and database on the same machine"
    );
    println!("{:<34} {:>12} {:>9} {:>9}", "work", "rows/s", "seconds", "CPU s");
    let bench = |name: &str, tags: &[String], sink: bool| -> Result<(), Failure> {
        let folder = tempfile::tempdir()?;
        write_project(folder.path(), &brokers, &topic, &store, tags)?;
        let desired = load(folder.path())?;
        run(name, &desired, events, sink, None)
    };
    let folder = tempfile::tempdir()?;
    write_project(folder.path(), &brokers, &topic, &store, &filtered_tags(1))?;
    decode(&load(folder.path())?, events)?;
    bench("1 tag (sum, count by user)", &filtered_tags(1), false)?;
    bench("1 tag into MariaDB", &filtered_tags(1), true)?;
    bench("20 filtered tags", &filtered_tags(20), false)?;
    bench("100 filtered tags", &filtered_tags(100), false)?;
    for (name, sql) in OTHERS {
        bench(name, &[sql.to_string()], false)?;
    }
    let desired = load(folder.path())?;
    let places = tempfile::tempdir()?;
    let saver = Saver::start(&Checkpoints::new(places.path()))?;
    run("1 tag, a checkpoint each second", &desired, events, false, Some(saver))?;
    checkpoints::run(&desired)?;
    for keys in [1_000_000, 10_000_000] {
        recovery::run(&brokers, &store, keys)?;
    }
    Ok(())
}

/// Tags with more to keep than a sum.
const OTHERS: [(&str, &str); 7] = [
    (
        "join of orders and their refunds",
        "SELECT a.user_id, COUNT(*) AS n, SUM(b.amount) AS back FROM orders a JOIN (SELECT user_id, category, amount \
         FROM orders WHERE status = 'refunded') b ON a.user_id = b.user_id AND a.category = b.category GROUP BY a.user_id",
    ),
    (
        "latest order (row number = 1)",
        "SELECT user_id, order_id, amount FROM (SELECT user_id, order_id, amount, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY order_time DESC, order_id DESC) AS n FROM orders) WHERE n = 1",
    ),
    (
        "top 3 orders",
        "SELECT user_id, n, order_id FROM (SELECT user_id, order_id, ROW_NUMBER() OVER (PARTITION BY user_id \
         ORDER BY amount DESC, order_id) AS n FROM orders) WHERE n <= 3",
    ),
    (
        "sums of 1, 7, 30, 90 days",
        "SELECT user_id, SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '1' DAY) AS d1, \
         SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '7' DAY) AS d7, \
         SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '30' DAY) AS d30, \
         SUM(amount) FILTER (WHERE order_time >= CURRENT_DATE - INTERVAL '90' DAY) AS d90 FROM orders GROUP BY user_id",
    ),
    (
        "sums of 1, 7, 30, 90 days, by row",
        "SELECT user_id, SUM(amount) FILTER (WHERE order_time >= NOW() - INTERVAL '1' DAY) AS d1, \
         SUM(amount) FILTER (WHERE order_time >= NOW() - INTERVAL '7' DAY) AS d7, \
         SUM(amount) FILTER (WHERE order_time >= NOW() - INTERVAL '30' DAY) AS d30, \
         SUM(amount) FILTER (WHERE order_time >= NOW() - INTERVAL '90' DAY) AS d90 FROM orders GROUP BY user_id",
    ),
    (
        "30-day sums by the hour",
        "SELECT user_id, SUM(amount) AS spend, COUNT(*) AS orders FROM orders \
         WHERE order_time >= date_trunc('hour', NOW()) - INTERVAL '720' HOUR GROUP BY user_id",
    ),
    (
        "sessions",
        "SELECT user_id, window_start, COUNT(*) AS n FROM TABLE(SESSION(TABLE orders PARTITION BY user_id, \
         DESCRIPTOR(order_time), INTERVAL '30' MINUTE)) GROUP BY user_id, window_start",
    ),
];

fn filtered_tags(count: usize) -> Vec<String> {
    let categories = ["phone", "food", "beauty", "books", "toys", "sport", "home", "garden"];
    let tag = |tag: usize| {
        let filter = match tag {
            0 => String::new(),
            _ => format!("WHERE category = '{}' AND quantity >= {}", categories[tag % 8], tag / 8 % 7),
        };
        format!("SELECT user_id, SUM(amount) AS spend, COUNT(*) AS orders FROM orders {filter} GROUP BY user_id")
    };
    (0..count).map(tag).collect()
}

/// Orders with the fields that were measured elsewhere; the same for everyone.
fn produce(brokers: &str, topic: &str, events: u64) -> Result<(), Failure> {
    create_topic(brokers, topic)?;
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "50")
        .set("batch.num.messages", "50000")
        .set("queue.buffering.max.kbytes", "262144")
        .create()?;
    let categories = ["phone", "food", "beauty", "books", "toys", "sport", "home", "garden"];
    let cities = ["上海", "北京", "深圳", "杭州", "成都"];
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    // Just before now: a window that ends at the clock has them all.
    let begin = chrono::Utc::now().timestamp_millis() as u64 - events;
    for number in 0..events {
        // SplitMix64: cheap, and the same everywhere.
        random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut dice = random;
        dice = (dice ^ (dice >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        dice = (dice ^ (dice >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        dice ^= dice >> 31;
        let record = format!(
            r#"{{"order_id":{number},"user_id":{},"amount":{}.{:02},"status":"{}","category":"{}","city":"{}","channel":"app","quantity":{},"order_time":{}}}"#,
            dice % USERS,
            dice >> 20 & 0x3FF,
            dice >> 32 & 0x3F,
            if dice & 15 == 0 { "refunded" } else { "paid" },
            categories[(dice >> 40 & 7) as usize],
            cities[(dice >> 44) as usize % cities.len()],
            dice >> 50 & 7,
            begin + number,
        );
        send(&producer, topic, (number % PARTITIONS as u64) as i32, &record);
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

fn create_topic(brokers: &str, topic: &str) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    futures::executor::block_on(admin.create_topics([&new], &AdminOptions::new()))?;
    Ok(())
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, partition: i32, record: &str) {
    // The queue is full: its other end is this same machine.
    while producer.send(BaseRecord::<(), str>::to(topic).payload(record).partition(partition)).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write_project(root: &Path, brokers: &str, topic: &str, store: &str, tags: &[String]) -> Result<(), Failure> {
    let settings = format!(
        "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.shop]\n\
         type = \"kafka\"\nbrokers = \"{brokers}\"\n[store]\nurl = \"{store}\"\n"
    );
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n[columns]\norder_id = \"BIGINT NOT NULL\"\nuser_id = \"BIGINT\"\n\
         amount = \"DECIMAL(12,2)\"\nstatus = \"VARCHAR\"\ncategory = \"VARCHAR\"\ncity = \"VARCHAR\"\nchannel = \"VARCHAR\"\nquantity = \"BIGINT\"\n\
         order_time = {{ type = \"TIMESTAMP(3)\", format = \"epoch_ms\" }}\n"
    );
    std::fs::create_dir_all(root.join("schemas"))?;
    std::fs::create_dir_all(root.join("tags"))?;
    std::fs::write(root.join("tagflow.toml"), settings)?;
    std::fs::write(root.join("schemas/orders.toml"), schema)?;
    for (tag, sql) in tags.iter().enumerate() {
        std::fs::write(root.join(format!("tags/tag_{tag:03}.sql")), sql)?;
    }
    Ok(())
}

fn load(root: &Path) -> Result<Desired, Failure> {
    let loaded = project::load(root, None);
    let project = loaded.project.ok_or_else(|| format!("{:?}", loaded.diagnostics))?;
    Ok(plan_project(&project).0)
}

fn world(desired: &Desired) -> World {
    let wall_clock: WallClock = Arc::new(|| chrono::Utc::now().timestamp_millis());
    let config = &desired.project.config;
    let letters = config.engine.state_dir.join("dead-letters");
    World {
        connections: config.connections.clone(),
        queue: Queue::unlimited(),
        context: SourceContext {
            timezone: config.timezone,
            root: config.root.clone(),
            dead_letters: Arc::new(DeadLetters::new(letters, 1 << 20, Arc::clone(&wall_clock))),
            tables: Arc::new(Tables::new(&config.engine.state_dir)),
            state_dir: config.engine.state_dir.clone(),
            wall_clock,
            registries: Registries::default(),
        },
    }
}

/// The end of a pass: that many records in each partition.
fn ends(events: u64) -> Offsets {
    let partition = |number: i32| tagflow::delta::Partition { stream: "orders".to_string(), number };
    let count = |number: i32| (events as i64 + i64::from(PARTITIONS - 1 - number)) / i64::from(PARTITIONS);
    Offsets((0..PARTITIONS).map(|number| (partition(number), count(number))).collect())
}

fn start(desired: &Desired, reads: &Reads, events: u64) -> Result<Intake, Failure> {
    Ok(Intake::start(&world(desired), reads, &Offsets::default(), Some(&ends(events)))?)
}

fn decode(desired: &Desired, events: u64) -> Result<(), Failure> {
    let mut wanted: Reads = reads(desired.tags.values().map(|tag| tag.plan.as_ref()));
    if let Some((stream, columns)) = wanted.get_mut("orders") {
        let schema = stream.schema();
        *columns = ["user_id", "amount", "category", "order_time"]
            .iter()
            .filter_map(|name| schema.index_of(name).ok())
            .collect();
    }
    let mut intake = start(desired, &wanted, events)?;
    let (mut clock, mut rows) = (Stopwatch::default(), 0);
    while !intake.is_finished() {
        let arrived = intake.collect(Duration::from_millis(100), 1 << 17)?;
        clock.begin(arrived.rows);
        rows += arrived.rows;
    }
    clock.print("decode 4 columns", rows);
    Ok(())
}

fn run(name: &str, desired: &Desired, events: u64, sink: bool, mut saver: Option<Saver>) -> Result<(), Failure> {
    let config = &desired.project.config;
    let shards = rayon::current_num_threads();
    let mut dataflow = Dataflow::new(shards, config.timezone);
    for (tag, planned) in &desired.tags {
        dataflow.add_tag(&planned.table, tag, &planned.plan, 0, &Default::default())?;
    }
    let store = if sink {
        let sink = open_store(&config.store, &config.root, config.timezone)?;
        let stop = Arc::new(Stop::new(Arc::default()));
        let store = StoreThread::start(sink, config.engine.lease, stop, Arc::default())?;
        let claim = Claim { owner: Owner::new(), length: config.engine.lease, ends: Ends::Anybody };
        store.call("open", move |sink| sink.open(&claim))?;
        for planned in desired.tags.values() {
            let table = Arc::clone(&planned.table);
            store.call("create", move |sink| sink.create_table(&table))?;
        }
        Some(store)
    } else {
        None
    };
    let mut intake = start(desired, &reads(desired.tags.values().map(|tag| tag.plan.as_ref())), events)?;
    let (mut clock, mut rows) = (Stopwatch::default(), 0);
    let mut in_flight: Option<tagflow::engine::store::InFlight> = None;
    let mut written: BTreeMap<&str, u64> = BTreeMap::new();
    while !intake.is_finished() {
        let arrived = intake.collect(Duration::from_millis(100), 1 << 17)?;
        clock.begin(arrived.rows);
        rows += arrived.rows;
        for (partition, next) in &arrived.next {
            dataflow.offsets.advance(partition, *next);
        }
        let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        if sink {
            dataflow.step(&arrived.events, now);
        } else {
            // Without a store nothing is collapsed: the result is thrown away, as it was in what this is compared with.
            dataflow.replay(&arrived.events, now);
        }
        if let Some(saver) = &mut saver {
            dataflow.epoch += 1;
            saver.follow(&mut dataflow)?;
        }
        if let Some(store) = &store {
            let done = in_flight.as_ref().is_none_or(|commit| match commit.try_outcome() {
                Some(outcome) => {
                    outcome.inspect(|done| *written.entry("rows").or_default() += done.stats.upserted).is_ok()
                }
                None => false,
            });
            if done {
                in_flight = Some(store.commit(dataflow.drain().0));
            }
        }
    }
    if let Some(store) = &store {
        for commit in in_flight.into_iter().chain(std::iter::once_with(|| store.commit(dataflow.drain().0))) {
            store.outcome(&commit)?;
        }
    }
    clock.print(name, rows);
    let (keys, bytes) =
        dataflow.graph.sizes().iter().fold((0, 0), |(keys, all), size| (keys + size.rows, all + size.bytes));
    println!("{:<34} {:>12} bytes of state a key, {keys} keys", "", bytes / keys.max(1));
    Ok(())
}

/// Takes checkpoints as the daemon does, of what is in no store.
struct Saver {
    thread: CheckpointThread,
    last: Instant,
}

impl Saver {
    fn start(checkpoints: &Checkpoints) -> Result<Self, Failure> {
        let keeping = Keeping { count: 2, age: Duration::ZERO };
        let stop = Arc::new(Stop::new(Arc::default()));
        let letters = Arc::new(DeadLetters::new("", 0, Arc::new(|| 0)));
        let thread = CheckpointThread::start(checkpoints, keeping, BTreeMap::new(), stop, letters)?;
        Ok(Saver { thread, last: Instant::now() })
    }

    fn follow(&mut self, dataflow: &mut Dataflow) -> Result<(), Failure> {
        self.thread.saved(Duration::ZERO);
        if self.thread.is_busy() || self.last.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        self.last = Instant::now();
        let position = Position { epoch: dataflow.epoch, ..Position::default() };
        let (state, further) = dataflow.graph.changes()?;
        self.thread.write(Taken { position, state, further }, 0);
        self.thread.committed(dataflow.epoch);
        Ok(())
    }
}

/// From the first rows on.
#[derive(Default)]
struct Stopwatch(Option<(Instant, f64)>);

impl Stopwatch {
    fn begin(&mut self, rows: usize) {
        if rows > 0 && self.0.is_none() {
            self.0 = Some((Instant::now(), cpu_seconds()));
        }
    }

    fn print(&self, name: &str, rows: usize) {
        let Some((begun, cpu)) = self.0 else { return println!("{name:<34} nothing was read") };
        let seconds = begun.elapsed().as_secs_f64();
        println!("{name:<34} {:>12.0} {seconds:>9.2} {:>9.2}", rows as f64 / seconds, cpu_seconds() - cpu);
    }
}

/// CPU seconds of this process so far, from /proc; clock ticks there are hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
