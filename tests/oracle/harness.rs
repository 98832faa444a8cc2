//! Steps a graph of several tags over random epochs and compares each tag with the oracle after each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float64Type, Int32Type, TimestampMillisecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono_tz::Tz;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tagflow::catalog::Catalog;
use tagflow::delta::{Clock, Delta, Moment, Offsets, Partition, Watermarks};
use tagflow::diagnostic::Severity;
use tagflow::engine::desired::{Desired, plan_project};
use tagflow::engine::scratch;
use tagflow::operator::cold::Scratch;
use tagflow::operator::graph::{Graph, Room};
use tagflow::oracle;
use tagflow::plan::compile::{KeyRequirement, compile};
use tagflow::plan::flow::{FlowPlan, NodeKind};
use tagflow::plan::session::{optimise, session_state};
use tagflow::project::Project;

use crate::events;
use crate::saved::Saved;

/// One text a column; doubles are kept as such, to be compared with a tolerance.
type Row = Vec<Cell>;

#[derive(Debug, Clone)]
enum Cell {
    Text(String),
    Double(f64),
}

impl PartialEq for Cell {
    /// Doubles are equal to one part in 10^9: DataFusion adds them in the order of arrival, the engine exactly.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Cell::Text(left), Cell::Text(right)) => left == right,
            (Cell::Double(left), Cell::Double(right)) => {
                (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
            }
            _ => false,
        }
    }
}

struct Tag {
    name: String,
    sql: String,
    logical: LogicalPlan,
    plan: Arc<FlowPlan>,
    /// Its history begins behind so many rows of a stream: retention has taken them before the tag was filled.
    missed: HashMap<String, usize>,
    /// Its table: key to row, kept by the deltas alone.
    table: BTreeMap<Vec<String>, Row>,
    /// Rows that were ever taken back.
    retractions: usize,
}

fn key() -> KeyRequirement {
    KeyRequirement { entity: "user".to_string(), column: "user_id".to_string(), data_type: DataType::Int64 }
}

pub struct Run {
    random: StdRng,
    seed: u64,
    timezone: Tz,
    catalog: Catalog,
    state: SessionState,
    tags: Vec<Tag>,
    /// Most events of a stream in one epoch.
    most_rows: usize,
    runtime: tokio::runtime::Runtime,
    watermarks: Watermarks,
    saved_changes: usize,
    /// Where state goes that has no room in memory; `None` where all has.
    scratch: Option<(tempfile::TempDir, Arc<dyn Scratch>)>,
    /// Keys that were out of memory after a step, over all steps.
    spilled: usize,
}

impl Run {
    /// Over the queries of a table.
    pub fn of_queries(seed: u64, timezone: Tz, queries: &[(&str, &str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let catalog = events::catalog(timezone);
        let state = session_state(&catalog, timezone).unwrap();
        let tags = queries
            .iter()
            .map(|(name, sql)| {
                let logical = runtime
                    .block_on(state.create_logical_plan(sql))
                    .and_then(|plan| optimise(&state, plan))
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                let plan = compile(&logical, &catalog, timezone, &key())
                    .unwrap_or_else(|refusal| panic!("{name}: {refusal:?}\n{}", logical.display_indent()));
                let (name, sql) = (name.to_string(), sql.to_string());
                Tag {
                    name,
                    sql,
                    logical,
                    plan: Arc::new(plan),
                    missed: HashMap::new(),
                    table: BTreeMap::new(),
                    retractions: 0,
                }
            })
            .collect();
        Run::new(seed, timezone, catalog, state, tags, runtime)
    }

    /// Over those of the queries that `tagflow check` accepts; why it does not accept the others is printed.
    pub fn of_accepted(seed: u64, timezone: Tz, queries: &[(String, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "timezone = \"{}\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n[store]\nurl = \"sqlite:tags.db\"\n",
            timezone.name()
        );
        std::fs::write(folder.path().join("tagflow.toml"), settings).unwrap();
        std::fs::create_dir(folder.path().join("tags")).unwrap();
        for (name, sql) in queries {
            std::fs::write(folder.path().join(format!("tags/{name}.sql")), sql).unwrap();
        }
        let loaded = tagflow::project::load(folder.path(), None);
        assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
        let project = Project { catalog: events::catalog(timezone), ..loaded.project.unwrap() };
        let (desired, diagnostics) = plan_project(&project);
        for problem in diagnostics.iter().filter(|problem| problem.severity == Severity::Error) {
            assert!(!problem.message.contains("panicked"), "planning panicked, seed {seed}: {queries:#?}");
            let sql =
                queries.iter().find(|(name, _)| problem.file.file_stem().is_some_and(|stem| stem == name.as_str()));
            println!(
                "{} is refused: {} {}\n  {}",
                problem.file.display(),
                problem.code,
                problem.message,
                sql.unwrap().1
            );
        }
        Run::of_desired(seed, desired)
    }

    fn of_desired(seed: u64, desired: Desired) -> Self {
        let timezone = desired.project.config.timezone;
        let state = session_state(&desired.project.catalog, timezone).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tags = desired
            .tags
            .into_iter()
            .map(|(name, tag)| Tag {
                name,
                sql: tag.definition.text,
                logical: tag.logical,
                plan: tag.plan,
                missed: HashMap::new(),
                table: BTreeMap::new(),
                retractions: 0,
            })
            .collect();
        Run::new(seed, timezone, desired.project.catalog, state, tags, runtime)
    }

    /// Rows of a tag that were ever taken back.
    pub fn retractions(&self, tag: &str) -> usize {
        self.tags.iter().filter(|known| known.name == tag).map(|known| known.retractions).sum()
    }

    /// The operators of a tag.
    pub fn plan(&self, tag: &str) -> &FlowPlan {
        &self.tags.iter().find(|known| known.name == tag).expect("a tag of that name").plan
    }

    /// Rows that a tag has.
    pub fn rows(&self, tag: &str) -> usize {
        self.tags.iter().filter(|known| known.name == tag).map(|known| known.table.len()).sum()
    }

    /// How many tags there are.
    pub fn tags(&self) -> usize {
        self.tags.len()
    }

    /// How many tags have an operator of that kind.
    pub fn tags_with(&self, kind: impl Fn(&NodeKind) -> bool) -> usize {
        self.tags.iter().filter(|tag| tag.plan.nodes.iter().any(|node| kind(&node.kind))).count()
    }

    /// Over the tags of the sample project, as `tagflow check` plans them.
    pub fn of_sample(seed: u64) -> Self {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let loaded = tagflow::project::load(root, Some("demo"));
        assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
        let (desired, diagnostics) = plan_project(&loaded.project.unwrap());
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        Run::of_desired(seed, desired)
    }

    fn new(
        seed: u64,
        timezone: Tz,
        catalog: Catalog,
        state: SessionState,
        mut tags: Vec<Tag>,
        runtime: tokio::runtime::Runtime,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let names: BTreeSet<&str> = tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(names.len(), tags.len(), "every tag needs a name of its own");
        tags.shuffle(&mut random);
        let watermarks = Watermarks::new();
        let (most_rows, saved_changes, scratch, spilled) = (60, 0, None, 0);
        Run {
            random,
            seed,
            timezone,
            catalog,
            state,
            tags,
            most_rows,
            runtime,
            watermarks,
            saved_changes,
            scratch,
            spilled,
        }
    }

    /// With little room in memory, so that keys leave and come back all the time.
    pub fn with_little_room(self) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let files = scratch::below(folder.path());
        Run { scratch: Some((folder, files)), ..self }
    }

    /// Keys that were out of memory after a step, over all steps.
    pub fn spilled(&self) -> usize {
        self.spilled
    }

    /// A graph without tags, in as much room as there is.
    fn graph(&mut self, shards: usize) -> Graph {
        let mut graph = Graph::new(shards, self.timezone);
        if let Some((_, scratch)) = &self.scratch {
            // At times nothing stays that can leave, at others there is no hurry.
            let bytes = [0, 2_000, 50_000][self.random.random_range(0..3)];
            let is_urgent = self.random.random_bool(0.5);
            graph.set_room(Room { scratch: Arc::clone(scratch), bytes, is_urgent });
        }
        graph
    }

    /// With up to so many events of a stream in one epoch.
    pub fn with_rows(self, most_rows: usize) -> Self {
        Run { most_rows, ..self }
    }

    pub fn check(&mut self) {
        let shards = self.random.random_range(1..5);
        let mut graph = self.graph(shards);
        // Some tags join later, filled beside the running ones.
        let early = self.random.random_range(1..=self.tags.len());
        for tag in &self.tags[..early] {
            graph.add_tag(&tag.name, &tag.plan).unwrap();
        }
        let mut running = early;
        let mut history: HashMap<String, Vec<RecordBatch>> = HashMap::new();
        let mut saved = Saved::new();
        let mut clock: Clock = 1_790_000_000_000_000_000 + self.random.random_range(0..400) * 86_400_000_000_000;
        for epoch in 0..14 {
            // As in the daemon, a new tag may bring an operator that has not heard of them.
            graph.note_partitions(events::partitions(&self.catalog).iter());
            let arrived = self.arrive(clock, &mut history);
            clock += self.clock_step();
            let moment = self.moment(clock);
            let deltas = graph.step(&arrived, moment.clone());
            assert_eq!(graph.fit().trouble, None);
            self.spilled += graph.cold_size().keys;
            for tag in &mut self.tags[..running] {
                let delta = deltas[&tag.name].as_ref().unwrap_or_else(|error| {
                    panic!("seed {}: {} failed in epoch {epoch}: {error}\n{}", self.seed, tag.name, tag.sql)
                });
                tag.apply(delta, &format!("seed {} epoch {epoch}", self.seed));
            }
            self.compare(running, &history, &moment, epoch);
            if running < self.tags.len() && self.random.random_bool(0.4) {
                running = self.fill(&mut graph, running, &history, clock);
                self.compare(running, &history, &moment, epoch);
            }
            self.move_watermarks(&history);
            if self.random.random_bool(0.3) {
                let loaded = self.save(&mut saved, &mut graph, running);
                if self.random.random_bool(0.3) {
                    // Another process with another number of shards takes the state up.
                    graph = loaded;
                    saved.restart();
                }
            }
        }
        self.saved_changes += saved.changes;
    }

    /// Parts of checkpoints that were changes alone.
    pub fn saved_changes(&self) -> usize {
        self.saved_changes
    }

    fn save(&mut self, saved: &mut Saved, graph: &mut Graph, running: usize) -> Graph {
        let tags: Vec<_> = self.tags[..running].iter().map(|tag| (tag.name.clone(), Arc::clone(&tag.plan))).collect();
        let shards = self.random.random_range(1..5);
        saved.save(graph, &tags, self.graph(shards))
    }

    /// New events of this epoch, added to the history.
    fn arrive(
        &mut self,
        clock: Clock,
        history: &mut HashMap<String, Vec<RecordBatch>>,
    ) -> HashMap<String, RecordBatch> {
        let offset = chrono::DateTime::from_timestamp_nanos(clock).with_timezone(&self.timezone).naive_local();
        let wall_time = offset.and_utc().timestamp_millis();
        let mut arrived = HashMap::new();
        for stream in self.catalog.streams.values() {
            let batches = history.entry(stream.name.clone()).or_default();
            let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let rows = if self.random.random_bool(0.25) { 0 } else { self.random.random_range(1..self.most_rows) };
            let batch = events::batch(stream, rows, wall_time, read as i64, &mut self.random);
            batches.push(batch.clone());
            if rows > 0 {
                arrived.insert(stream.name.clone(), batch);
            }
        }
        arrived
    }

    fn moment(&self, clock: Clock) -> Moment {
        Moment { clock, watermarks: self.watermarks.clone() }
    }

    /// What the watermarks of the next step are, or at times of a later one: never ahead of the events of a partition.
    fn move_watermarks(&mut self, history: &HashMap<String, Vec<RecordBatch>>) {
        if self.random.random_bool(0.3) {
            return;
        }
        for (name, batches) in history {
            let Some(time) = &self.catalog.streams[name].time else { continue };
            let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
            for batch in batches {
                let millis = |column: &str| {
                    batch.column_by_name(column).unwrap().as_primitive::<TimestampMillisecondType>().clone()
                };
                let (times, arrived) = (millis(&time.column), millis("_timestamp"));
                let partitions = batch.column_by_name("_partition").unwrap().as_primitive::<Int32Type>();
                for row in (0..batch.num_rows()).filter(|row| times.is_valid(*row)) {
                    if times.value(row) <= arrived.value(row) + events::DAY {
                        let known = newest.entry(partitions.value(row)).or_insert(i64::MIN);
                        *known = times.value(row).max(*known);
                    }
                }
            }
            // Before every partition has an event, nothing is known.
            let Some(oldest) = newest.values().min().filter(|_| newest.len() == 3) else { continue };
            let watermark = oldest * 1_000_000 - time.lateness.as_nanos() as i64;
            let known = self.watermarks.entry(name.clone()).or_insert(watermark);
            *known = watermark.max(*known);
        }
    }

    fn clock_step(&mut self) -> Clock {
        const HOUR: Clock = 3_600_000_000_000;
        match self.random.random_range(0..4) {
            0 => self.random.random_range(0..1_000_000),
            1 => self.random.random_range(0..HOUR),
            2 => self.random.random_range(0..30 * HOUR),
            _ => self.random.random_range(0..8 * 24 * HOUR),
        }
    }

    /// A graph of its own reads the history, in other batches and sometimes without its beginning, and is then absorbed.
    fn fill(
        &mut self,
        graph: &mut Graph,
        running: usize,
        history: &HashMap<String, Vec<RecordBatch>>,
        clock: Clock,
    ) -> usize {
        let joined = self.random.random_range(running + 1..=self.tags.len());
        let shards = self.random.random_range(1..4);
        let mut filling = self.graph(shards);
        for tag in &self.tags[running..joined] {
            filling.add_tag(&tag.name, &tag.plan).unwrap();
        }
        filling.note_partitions(events::partitions(&self.catalog).iter());
        let whole = self.whole(history);
        let mut missed: HashMap<String, usize> = HashMap::new();
        if self.random.random_bool(0.4) {
            for (stream, batch) in &whole {
                missed.insert(stream.clone(), self.random.random_range(0..=batch.num_rows()));
            }
        }
        let mut deltas = Vec::new();
        let mut start: HashMap<&str, usize> = missed.iter().map(|(stream, rows)| (stream.as_str(), *rows)).collect();
        loop {
            let mut events = HashMap::new();
            for (stream, batch) in &whole {
                let from = start.entry(stream).or_default();
                let length = self.random.random_range(1..200).min(batch.num_rows() - *from);
                if length > 0 {
                    events.insert(stream.clone(), batch.slice(*from, length));
                    *from += length;
                }
            }
            if events.is_empty() {
                break;
            }
            deltas.push(filling.step(&events, self.moment(clock - 1)));
        }
        deltas.push(filling.step(&HashMap::new(), self.moment(clock)));
        for tag in &mut self.tags[running..joined] {
            for delta in &deltas {
                tag.apply(delta[&tag.name].as_ref().unwrap(), "fill");
            }
        }
        let beginning =
            |(stream, rows): (&String, &usize)| (Partition { stream: stream.clone(), number: 0 }, *rows as i64);
        let beginnings = Offsets(missed.iter().map(beginning).collect());
        for tag in &mut self.tags[running..joined] {
            tag.plan = Arc::new(tag.plan.since(&beginnings));
            tag.missed.clone_from(&missed);
        }
        let filled = &self.tags[running..joined];
        filling.rename(&filled.iter().map(|tag| (tag.name.clone(), Arc::clone(&tag.plan))).collect());
        graph.absorb(filling).unwrap();
        joined
    }

    fn whole(&self, history: &HashMap<String, Vec<RecordBatch>>) -> HashMap<String, RecordBatch> {
        history
            .iter()
            .map(|(stream, batches)| {
                let schema = self.catalog.streams[stream].schema();
                (stream.clone(), concat_batches(&schema, batches).unwrap())
            })
            .collect()
    }

    fn compare(&self, running: usize, history: &HashMap<String, Vec<RecordBatch>>, moment: &Moment, epoch: usize) {
        let clock = moment.clock;
        let whole = self.whole(history);
        for tag in &self.tags[..running] {
            let seen = whole.iter().map(|(stream, batch)| {
                let missed = tag.missed.get(stream).copied().unwrap_or_default();
                (stream.clone(), batch.slice(missed, batch.num_rows() - missed))
            });
            let answer = self
                .runtime
                .block_on(oracle::answer(&self.state, &tag.logical, &seen.collect(), moment.clone()))
                .unwrap_or_else(|error| panic!("the oracle of {} failed: {error}", tag.name));
            let mut expected = BTreeMap::new();
            for (_, (key, row)) in tag.rows(&answer) {
                assert!(expected.insert(key, row).is_none(), "{}: the oracle has a key twice", tag.name);
            }
            let context = || {
                let at = chrono::DateTime::from_timestamp_nanos(clock).with_timezone(&self.timezone);
                format!("seed {} {} epoch {epoch} at {at}, tag {}:\n{}", self.seed, self.timezone, tag.name, tag.sql)
            };
            for (key, row) in &expected {
                match tag.table.get(key) {
                    None => panic!("{}\nkey {key:?} is missing; expected {row:?}", context()),
                    Some(found) if found != row => panic!("{}\nkey {key:?} is {found:?}; expected {row:?}", context()),
                    Some(_) => {}
                }
            }
            for (key, row) in &tag.table {
                assert!(expected.contains_key(key), "{}\nkey {key:?} should not be there: {row:?}", context());
            }
        }
    }
}

impl Tag {
    /// Rows by key, without those whose key holds a NULL: they are nobody's, and a FULL JOIN may give several.
    /// Columns are found by position, which is the same in the plan's output and the answer.
    fn rows(&self, batch: &RecordBatch) -> Vec<(usize, (Vec<String>, Row))> {
        let options = FormatOptions::default().with_null("∅");
        let formatters: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        let cell = |index: usize, row: usize| {
            let column = batch.column(index);
            match column.as_primitive_opt::<Float64Type>() {
                Some(doubles) if doubles.is_valid(row) => Cell::Double(doubles.value(row)),
                _ => Cell::Text(formatters[index].value(row).to_string()),
            }
        };
        let is_somebodys = |row: &usize| self.plan.key.iter().all(|column| batch.column(column.index).is_valid(*row));
        (0..batch.num_rows())
            .filter(is_somebodys)
            .map(|row| {
                let key = self.plan.key.iter().map(|column| formatters[column.index].value(row).to_string()).collect();
                (row, (key, self.plan.columns.iter().map(|column| cell(column.index, row)).collect()))
            })
            .collect()
    }

    /// The delta's rows, summed up: what is retracted must be there, and no key may then have two rows.
    fn apply(&mut self, delta: &Delta, context: &str) {
        let mut net: BTreeMap<(Vec<String>, String), (Row, i64)> = BTreeMap::new();
        for (index, (key, row)) in self.rows(&delta.batch) {
            net.entry((key, format!("{row:?}"))).or_insert((row, 0)).1 += delta.weight(index);
        }
        let (gone, come): (Vec<_>, Vec<_>) =
            net.into_iter().filter(|(_, (_, weight))| *weight != 0).partition(|(_, (_, weight))| *weight < 0);
        for ((key, _), (row, weight)) in gone {
            assert_eq!(weight, -1, "{context}: {} {key:?}", self.name);
            self.retractions += 1;
            let removed = self.table.remove(&key);
            assert_eq!(removed, Some(row), "{context}: {} retracts what is not there, {key:?}", self.name);
        }
        for ((key, _), (row, weight)) in come {
            assert_eq!(weight, 1, "{context}: {} {key:?}", self.name);
            let known = self.table.insert(key.clone(), row);
            assert!(known.is_none(), "{context}: {} has key {key:?} twice", self.name);
        }
    }
}
