//! One run: a project of its own, a producer, a reader, and faults from a seed, in rounds. After each round all is well
//! again and everything has to catch up.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::daemon::Daemon;
use crate::events::{CATEGORIES, Held, LATENESS_MS, Topics};
use crate::expected::{EXTRA_SQL, THRESHOLDS, names, over_sql, tags};
use crate::reader::{self, Found, Truth};
use crate::schedule::{self, Act, Edit, Process, Step};
use crate::servers::{Server, Servers};

/// Faults between two times at which everything catches up.
const ROUND: usize = 10;
/// Events a second, beside bursts: a debug build keeps up with it while the machine does other things too.
const RATE: u64 = 200;
/// Longest time to catch up once everything runs again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest time for a graceful stop: ten seconds, and what a debug build on a busy machine needs more.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// What came of one or several runs.
#[derive(Debug, Default)]
pub struct Summary {
    pub kills: u64,
    pub stops: u64,
    pub freezes: u64,
    pub restarts: BTreeMap<Server, u64>,
    pub edits: u64,
    pub clock_steps: u64,
    pub events: u64,
    pub snapshots: u64,
    pub rows_checked: u64,
    pub panics: usize,
    pub longest_recovery: Duration,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        self.kills += other.kills;
        self.stops += other.stops;
        self.freezes += other.freezes;
        other.restarts.iter().for_each(|(server, count)| *self.restarts.entry(*server).or_default() += count);
        self.edits += other.edits;
        self.clock_steps += other.clock_steps;
        self.events += other.events;
        self.snapshots += other.snapshots;
        self.rows_checked += other.rows_checked;
        self.panics += other.panics;
        self.longest_recovery = self.longest_recovery.max(other.longest_recovery);
    }
}

pub struct Run<'a> {
    project: &'a Path,
    servers: Servers,
    pub daemon: Daemon,
    topics: &'a Topics,
    held: &'a Mutex<Held>,
    found: &'a Mutex<Found>,
    factors: &'a Mutex<Vec<BTreeMap<String, i64>>>,
    rng: StdRng,
    begun: Instant,
    /// The threshold that the file of `over` says when it is whole.
    pub threshold: i64,
    /// True while nothing that a graceful stop needs is away.
    servers_are_well: bool,
    pub summary: Summary,
    history: Vec<String>,
}

/// Does `act` to a run, `again` being the command that does the same.
///
/// # Panics
/// With all that is needed to run it again, when a table was wrong, a value went back, or the daemon did not recover.
pub fn run(seed: u64, again: &str, act: impl FnOnce(&mut Run<'_>) -> Result<(), String>) -> Summary {
    let servers = Servers::given();
    let folder = tempfile::Builder::new().prefix("tagflow-chaos-").tempdir().expect("a folder");
    let id = format!("chaos_{}_{seed}", std::process::id());
    let topics = Topics::new(&servers.kafka, &id);
    topics.create();
    let url = format!("{}/{id}", servers.mysql);
    let (held, found) = (Mutex::new(Held::default()), Mutex::new(Found::default()));
    let factors = Mutex::new(vec![CATEGORIES.iter().map(|category| (category.to_string(), 1)).collect()]);
    write_project(folder.path(), &topics, &url);
    let daemon = Daemon::of(folder.path());
    let (stop_recording, stop_reading) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut run = Run {
        project: folder.path(),
        servers,
        daemon,
        topics: &topics,
        held: &held,
        found: &found,
        factors: &factors,
        rng: StdRng::seed_from_u64(seed),
        begun: Instant::now(),
        threshold: THRESHOLDS[0],
        servers_are_well: true,
        summary: Summary::default(),
        history: Vec::new(),
    };
    run.write_factors();
    let outcome = std::thread::scope(|scope| {
        let producing = scope.spawn(|| topics.produce(seed, RATE));
        let recording = scope.spawn(|| topics.record(&held, &stop_recording));
        let reading = scope.spawn(|| {
            reader::follow(&url, &Truth { held: &held, factors: &factors }, &found, &stop_reading);
        });
        let outcome = act(&mut run).and_then(|()| {
            topics.stop_producing();
            run.end()
        });
        // However it went, the threads must end.
        topics.stop_producing();
        run.servers.heal();
        stop_reading.store(true, Ordering::SeqCst);
        let (produced, read) = (producing.join(), reading.join());
        stop_recording.store(true, Ordering::SeqCst);
        let recorded = recording.join();
        let of_thread = |name: &str| format!("the {name} has panicked");
        produced.map_err(|_| of_thread("producer")).and(read.map_err(|_| of_thread("reader")))?;
        recorded.map_err(|_| of_thread("recorder")).and(outcome)
    });
    let outcome = outcome.and_then(|()| run.verify());
    if let Err(reason) = outcome {
        let log = run.daemon.log();
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let history = run.history.join("\n");
        drop(run);
        let kept = folder.keep();
        panic!(
            "seed {seed}: {reason}\nwhat was done:\n{history}\nthe daemon's last lines:\n{}\n\
             again: {again}\nproject and log are kept in {}, the database is {id}",
            tail.join("\n"),
            kept.display()
        );
    }
    topics.delete();
    reader::drop_database(&url, &id);
    let found = found.lock().expect("all threads have ended");
    run.summary.events = topics.produced.load(Ordering::SeqCst);
    run.summary.snapshots = found.snapshots;
    run.summary.rows_checked = found.rows_checked;
    std::mem::take(&mut run.summary)
}

fn write_project(project: &Path, topics: &Topics, url: &str) {
    for folder in ["schemas", "tags", "data"] {
        fs::create_dir(project.join(folder)).expect("a folder");
    }
    let listen = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let settings = format!(
        "timezone = \"Asia/Shanghai\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
         [connection.shop]\ntype = \"kafka\"\nbrokers = \"{}\"\n[connection.files]\ntype = \"file\"\npath = \"data\"\n\
         [store]\nurl = \"{url}\"\n[serve]\nlisten = \"{listen}\"\n\
         [engine]\ncheckpoint_interval = \"1s\"\nflush_interval = \"100ms\"\nepoch_interval = \"50ms\"\n",
        topics.kafka()
    );
    let stream =
        |topic: &str, rest: &str| format!("connection = \"shop\"\ntopic = \"{topic}\"\nformat = \"json\"\n{rest}");
    let orders = format!(
        "time = {{ column = \"order_time\", lateness = \"{LATENESS_MS}ms\", idle = \"2s\" }}\n\
         archive = {{ path = \"archive/orders\", every = \"2s\" }}\n[columns]\n\
         order_id = \"BIGINT NOT NULL\"\nuser_id = \"BIGINT NOT NULL\"\namount = \"DECIMAL(12,2)\"\npoints = \"BIGINT\"\ncategory = \"VARCHAR\"\n\
         order_time = {{ type = \"TIMESTAMP(3) WITH TIME ZONE\", format = \"epoch_ms\" }}\n"
    );
    let refunds = "[columns]\norder_id = \"BIGINT\"\namount = \"DECIMAL(12,2)\"\n";
    let factors = "kind = \"file\"\nconnection = \"files\"\npath = \"factors.csv\"\nformat = \"csv\"\nkey = [\"category\"]\n\
                   [columns]\ncategory = \"VARCHAR\"\nfactor = \"BIGINT\"\n";
    let write = |file: &str, text: &str| fs::write(project.join(file), text).expect("a file of the project");
    write("tagflow.toml", &settings);
    write("schemas/orders.toml", &stream(&topics.orders, &orders));
    write("schemas/refunds.toml", &stream(&topics.refunds, refunds));
    write("schemas/factors.toml", factors);
    for tag in tags() {
        write(&format!("tags/{}.sql", tag.name), &tag.sql);
    }
}

impl Run<'_> {
    /// Faults as the seed says.
    pub fn rounds(&mut self, faults: usize) -> Result<(), String> {
        self.daemon.start();
        self.recover()?;
        let mut left = faults;
        while left > 0 {
            let now = left.min(ROUND);
            left -= now;
            let steps = schedule::round(&mut self.rng, now);
            let begun = Instant::now();
            for Step { at, act } in steps {
                while begun.elapsed() < at {
                    self.look()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                self.note(&format!("{act:?}"));
                self.perform(act)?;
                self.look()?;
            }
            self.recover()?;
        }
        Ok(())
    }

    pub fn note(&mut self, what: &str) {
        self.history.push(format!("{:9.3} s  {what}", self.begun.elapsed().as_secs_f64()));
    }

    /// Fails when the reader has found something, or the daemon has ended by itself.
    fn look(&mut self) -> Result<(), String> {
        if let Some(violation) = &self.found.lock().expect("no thread panics with it").violation {
            return Err(violation.clone());
        }
        match self.daemon.ended() {
            Some(status) => Err(format!("the daemon has ended by itself: {status}")),
            None => Ok(()),
        }
    }

    fn perform(&mut self, act: Act) -> Result<(), String> {
        match act {
            Act::Kill(Process::Daemon) => {
                self.summary.kills += u64::from(self.daemon.runs());
                self.daemon.kill();
            }
            Act::Stop(Process::Daemon) => self.stop_daemon()?,
            Act::Start(Process::Daemon) => self.daemon.start(),
            Act::Freeze(Process::Daemon) => {
                self.summary.freezes += 1;
                self.daemon.signal("-STOP");
            }
            Act::Thaw(Process::Daemon) => self.daemon.signal("-CONT"),
            Act::Kill(Process::Server(server)) => {
                self.servers_are_well = false;
                *self.summary.restarts.entry(server).or_default() += 1;
                self.servers.signal(server, "-KILL");
            }
            Act::Stop(Process::Server(server)) => {
                self.servers_are_well = false;
                *self.summary.restarts.entry(server).or_default() += 1;
                self.servers.stop(server);
            }
            Act::Start(Process::Server(server)) => self.servers.revive(server),
            Act::Freeze(Process::Server(server)) => {
                self.servers_are_well = false;
                self.summary.freezes += 1;
                self.servers.signal(server, "-STOP");
            }
            Act::Thaw(Process::Server(server)) => self.servers.signal(server, "-CONT"),
            Act::Edit(edit) => {
                self.summary.edits += 1;
                self.edit(edit);
            }
            Act::Clock(seconds) => {
                self.summary.clock_steps += 1;
                self.daemon.set_clock(seconds);
            }
            Act::Burst(events) => {
                self.topics.burst.fetch_add(events, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn stop_daemon(&mut self) -> Result<(), String> {
        if !self.daemon.runs() {
            return Ok(());
        }
        self.summary.stops += 1;
        match self.daemon.stop(STOP_PATIENCE) {
            None => Err(format!("the daemon does not stop within {STOP_PATIENCE:?}")),
            // What it cannot write any more it says.
            // Before it has begun there is nothing that it could end well.
            Some(status) if !status.success() && self.servers_are_well && self.daemon.listens() => {
                Err(format!("the daemon, told to stop, ended with {status}"))
            }
            Some(_) => Ok(()),
        }
    }

    fn write(&self, file: &str, text: &str) {
        // As editors do it.
        let (path, beside) = (self.project.join(file), self.project.join(format!("{file}.new")));
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
        written.expect("the project can be written");
    }

    pub fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Over(threshold) => {
                self.threshold = threshold;
                self.write("tags/over.sql", &over_sql(threshold));
            }
            Edit::Break => self.write("tags/over.sql", &over_sql(self.threshold).replace("user_id", "user_idd")),
            Edit::Mend => self.write("tags/over.sql", &over_sql(self.threshold)),
            Edit::Extra if self.has_extra() => {
                fs::remove_file(self.project.join("tags/extra.sql")).expect("the file is there");
            }
            Edit::Extra => self.write("tags/extra.sql", EXTRA_SQL),
            Edit::Factors => {
                let mut factors: BTreeMap<String, i64> = BTreeMap::new();
                for category in CATEGORIES {
                    // One that is not there takes its rows with it.
                    if self.rng.random_bool(0.8) {
                        factors.insert(category.to_string(), self.rng.random_range(1..9));
                    }
                }
                self.factors.lock().expect("no thread panics with it").push(factors);
                self.write_factors();
            }
        }
    }

    fn has_extra(&self) -> bool {
        self.project.join("tags/extra.sql").exists()
    }

    fn write_factors(&self) {
        let versions = self.factors.lock().expect("no thread panics with it");
        let newest = versions.last().expect("there is a first version");
        let rows = newest.iter().map(|(category, factor)| format!("{category},{factor}\n"));
        self.write("data/factors.csv", &format!("category,factor\n{}", rows.collect::<String>()));
    }

    /// Everything runs again; waits until all tables show all that is there now.
    pub fn recover(&mut self) -> Result<(), String> {
        self.note("all is well again");
        self.servers.heal();
        // A broker that is told to stop while it starts takes its time, which is not the daemon's.
        let begun = Instant::now();
        self.servers_are_well = true;
        self.edit(Edit::Mend);
        self.daemon.signal("-CONT");
        self.daemon.start();
        self.until_caught_up(begun)?;
        self.summary.longest_recovery = self.summary.longest_recovery.max(begun.elapsed());
        self.note("caught up");
        Ok(())
    }

    fn until_caught_up(&mut self, begun: Instant) -> Result<(), String> {
        let target = self.held.lock().expect("no thread panics with it").ends();
        loop {
            self.look()?;
            let Some(missing) = self.missing(&target) else { return Ok(()) };
            if begun.elapsed() > PATIENCE {
                let trouble = self.found.lock().expect("no thread panics with it").trouble.clone();
                return Err(format!("not caught up after {PATIENCE:?}: {missing}; the reader's trouble: {trouble:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is not yet as the files say and the events are.
    fn missing(&self, target: &BTreeMap<(&'static str, i32), usize>) -> Option<String> {
        let found = self.found.lock().expect("no thread panics with it");
        for tag in names().into_iter().filter(|tag| *tag != "extra" || self.has_extra()) {
            let Some(progress) = found.progress.get(tag) else { return Some(format!("tag {tag} has no table")) };
            if tag == "over" && progress.moment.sql.trim() != over_sql(self.threshold).trim() {
                return Some(format!("tag {tag} shows {}", progress.moment.sql));
            }
            for ((stream, partition), next) in &progress.offsets {
                let end = target.get(&(stream.as_str(), *partition)).copied().unwrap_or_default();
                if (*next as usize) < end {
                    return Some(format!("tag {tag} is at {next} of {end} in partition {partition} of {stream}"));
                }
            }
        }
        let newest = self.factors.lock().expect("no thread panics with it").len() - 1;
        (found.factors < newest).then(|| format!("the factors are those of version {} of {newest}", found.factors))
    }

    /// The last events, and the end that a daemon should have.
    fn end(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        let produced = || self.topics.produced.load(Ordering::SeqCst);
        let held = || self.held.lock().expect("no thread panics with it").ends().values().sum::<usize>() as u64;
        // A broker that is killed may forget that it has a batch, and take it again: such events are events too.
        while held() < produced() {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} events were written, the broker holds {}", produced(), held()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.until_caught_up(begun)?;
        self.stop_daemon()
    }

    /// After the end: the last rows that the reader saw are checked by it; now DataFusion's answer, and the log.
    fn verify(&mut self) -> Result<(), String> {
        self.look()?;
        self.summary.panics = self.daemon.log().matches("panicked at").count();
        if self.summary.panics > 0 {
            return Err(format!("{} panics in the daemon's log", self.summary.panics));
        }
        let output = self.daemon.verify();
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "tagflow verify: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
}
