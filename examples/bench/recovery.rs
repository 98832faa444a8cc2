//! How long a daemon that was killed by -9 takes until it writes again: the process is started, loads its checkpoint, goes
//! through what came after it in silence, and the first new row is in the database.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use rdkafka::ClientConfig;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};
use tagflow::engine::status::Status;

use crate::{Failure, create_topic, send};

/// Orders behind the checkpoint, which are gone through again.
const BEHIND: u64 = 100_000;
/// A user of whom there is no order before the crash.
const NEWCOMER: i64 = -1;
/// Longest wait for anything: ten million rows take a while to write.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Prints the figures for a tag that sums orders by user, over this many users.
pub fn run(brokers: &str, store: &str, keys: u64) -> Result<(), Failure> {
    let topic = format!("bench.recovery.{}.{keys}", std::process::id());
    create_topic(brokers, &topic)?;
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "50")
        .create()?;
    let order = |user: i64| {
        send(&producer, &topic, (user.unsigned_abs() % 4) as i32, &format!(r#"{{"user_id":{user},"amount":1.5}}"#))
    };
    (0..keys as i64).for_each(order);
    producer.flush(PATIENCE)?;

    let folder = tempfile::tempdir()?;
    let (server, _) = store.rsplit_once('/').ok_or("the store names no database")?;
    let store = format!("{server}/bench_recovery_{}_{keys}", std::process::id());
    write_project(folder.path(), brokers, &topic, &store)?;
    let mut daemon = Daemon::start(folder.path())?;
    let is_whole = |status: &Status| {
        let rows = status.tags.iter().map(|tag| tag.rows).sum::<u64>();
        rows == keys && status.lag == 0 && status.pending_keys == 0 && status.fill.is_none()
    };
    let full = daemon.until("all keys are there", is_whole)?;
    daemon.until("a checkpoint has all of them", |status| status.checkpoint_epoch >= Some(full.epoch))?;
    (0..BEHIND as i64).for_each(order);
    producer.flush(PATIENCE)?;
    let before = daemon.until("nothing waits", |status| {
        let read: i64 = status.partitions.iter().map(|partition| partition.next_offset).sum();
        read.unsigned_abs() >= keys + BEHIND && status.pending_keys == 0
    })?;
    let memory = daemon.memory("VmRSS");
    drop(daemon);

    order(NEWCOMER);
    producer.flush(PATIENCE)?;
    let begun = Instant::now();
    let mut daemon = Daemon::start(folder.path())?;
    daemon.until_written(&store)?;
    let took = begun.elapsed();
    let name = format!("kill -9 with {} M keys of state", keys / 1_000_000);
    println!(
        "{name:<34} {:>9.1} s until it writes; {} MB of memory at most, {memory} MB before the kill, {} MB of it state",
        took.as_secs_f64(),
        daemon.memory("VmHWM"),
        before.state_bytes >> 20,
    );
    drop_database(&store)
}

fn write_project(root: &Path, brokers: &str, topic: &str, store: &str) -> Result<(), Failure> {
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let settings = format!(
        "timezone = \"UTC\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[connection.shop]\ntype = \"kafka\"\n\
         brokers = \"{brokers}\"\n[store]\nurl = \"{store}\"\n[serve]\nlisten = \"{listen}\"\n[engine]\ncheckpoint_interval = \"60s\"\n"
    );
    let schema = format!(
        "connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n[columns]\nuser_id = \"BIGINT NOT NULL\"\n\
         amount = \"DECIMAL(12,2)\"\n"
    );
    let tag = "SELECT user_id, SUM(amount) AS spend, COUNT(*) AS orders FROM orders GROUP BY user_id";
    for (file, text) in [("tagflow.toml", settings.as_str()), ("schemas/orders.toml", &schema), ("tags/spend.sql", tag)]
    {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(root))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// The daemon of the same build, as a process; dropping it is kill -9.
struct Daemon {
    child: Child,
    program: PathBuf,
    project: PathBuf,
}

impl Daemon {
    fn start(project: &Path) -> Result<Self, Failure> {
        let examples = std::env::current_exe()?;
        let program =
            examples.parent().and_then(Path::parent).ok_or("the benchmark lies in no folder")?.join("tagflow");
        let log = std::fs::File::options().create(true).append(true).open(project.join("log"))?;
        let mut command = Command::new(&program);
        let child = command.arg("run").arg("--project").arg(project).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Daemon { child, program, project: project.to_path_buf() })
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Result<Status, Failure> {
        let begun = Instant::now();
        loop {
            self.check(what, begun)?;
            let mut command = Command::new(&self.program);
            let asked = command.args(["status", "--format", "json", "--project"]).arg(&self.project).output()?;
            if let Ok(status) = serde_json::from_slice::<Status>(&asked.stdout)
                && holds(&status)
            {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the row is there of the user who came while nobody wrote.
    fn until_written(&mut self, store: &str) -> Result<(), Failure> {
        let begun = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut connection = runtime.block_on(mysql_async::Conn::from_url(store))?;
        let sql = format!("SELECT COUNT(*) FROM spend WHERE user_id = {NEWCOMER}");
        while runtime.block_on(connection.query_first::<u64, _>(&sql))? != Some(1) {
            self.check("the first new row", begun)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn check(&mut self, what: &str, begun: Instant) -> Result<(), Failure> {
        let ended = self.child.try_wait()?.is_some();
        if ended || begun.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(self.project.join("log")).unwrap_or_default();
            return Err(
                format!("still not: {what}; the daemon {}\n{log}", if ended { "has ended" } else { "runs" }).into()
            );
        }
        Ok(())
    }

    /// A line of `/proc`, in MB.
    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let found = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        found.and_then(|found| found.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() >> 10
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Of a process that has ended already there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drop_database(store: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut connection = runtime.block_on(mysql_async::Conn::from_url(store))?;
    let (_, database) = store.rsplit_once('/').ok_or("the store names no database")?;
    Ok(runtime.block_on(connection.query_drop(format!("DROP DATABASE `{database}`")))?)
}
