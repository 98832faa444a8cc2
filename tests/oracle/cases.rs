//! The case files in `tests/sql/`: events, clocks, queries and the rows that must come out, each query run straight, in
//! random batches, and stopped and resumed at every turn. The rows were not computed by DataFusion.
//!
//! A file is one topic. `zone`, `function NAME CREATE FUNCTION …` and `schema NAME` (the lines of a schema's `[columns]`; the first TIMESTAMP is the event
//! time; `unique = {…}`, `kind`, `key` and `format` are the stream's) come first, then `at TIME` with the events that have arrived by then, one `STREAM {json}` a line. `--- name` begins a
//! query, `=>` the rows it gives at the last time, `=> TIME` those at an earlier one: columns in the order of the SELECT
//! list behind `|`. A query may read the ones before it as `tags.name`, and begin with a header of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tagflow::delta::{Clock, Delta, Moment, Watermarks};
use tagflow::diagnostic::Severity;
use tagflow::engine::desired::{Desired, plan_project};
use tagflow::operator::graph::Graph;
use tagflow::source::decode::{Decoder, RawRecord};

#[derive(Default)]
struct CaseFile {
    zone: String,
    schemas: BTreeMap<String, String>,
    functions: BTreeMap<String, String>,
    /// Times in order, with the events (stream, JSON) that arrive before each.
    steps: Vec<(String, Vec<(String, String)>)>,
    cases: Vec<Case>,
}

#[derive(Default)]
struct Case {
    name: String,
    sql: String,
    /// Time (empty for the last) and rows.
    expected: Vec<(String, BTreeSet<String>)>,
}

impl CaseFile {
    fn parse(text: &str) -> CaseFile {
        let mut file = CaseFile::default();
        let mut schema = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if let Some(name) = line.strip_prefix("--- ") {
                file.cases.push(Case { name: name.to_string(), ..Case::default() });
            } else if let Some(case) = file.cases.last_mut() {
                match (line.strip_prefix("=>"), case.expected.last_mut()) {
                    (Some(time), _) => case.expected.push((time.trim().to_string(), BTreeSet::new())),
                    (None, Some((_, rows))) => assert!(rows.insert(canonical(line)), "{}: {line} twice", case.name),
                    (None, None) => case.sql.push_str(&format!("{line}\n")),
                }
            } else if let Some(zone) = line.strip_prefix("zone ") {
                file.zone = zone.to_string();
            } else if let Some(function) = line.strip_prefix("function ") {
                let (name, text) = function.split_once(' ').expect("function NAME CREATE FUNCTION …");
                file.functions.insert(name.to_string(), text.to_string());
            } else if let Some(name) = line.strip_prefix("schema ") {
                schema = name.to_string();
            } else if let Some(time) = line.strip_prefix("at ") {
                file.steps.push((time.to_string(), Vec::new()));
            } else if let Some((_, events)) = file.steps.last_mut() {
                let (stream, json) = line.trim().split_once(' ').expect("STREAM {json}");
                events.push((stream.to_string(), json.to_string()));
            } else {
                file.schemas.entry(schema.clone()).or_default().push_str(&format!("{}\n", line.trim()));
            }
        }
        file
    }

    fn plan(&self, path: &Path) -> Desired {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: String, text: String| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let project = format!(
            "timezone = \"{}\"\n[entity.user]\nkey = \"user_id\"\ntype = \"BIGINT\"\n\
             [connection.shop]\ntype = \"kafka\"\nbrokers = \"nowhere:1\"\n[store]\nurl = \"sqlite:case.db\"\n",
            self.zone
        );
        write("tagflow.toml".to_string(), project);
        for (name, columns) in &self.schemas {
            let time = columns.lines().find(|line| line.contains("TIMESTAMP")).expect("a column of event time");
            let time = time.split('=').next().unwrap().trim();
            let is_of_stream = |line: &&str| {
                ["unique = {", "kind = ", "key = [", "format = "].iter().any(|start| line.starts_with(start))
            };
            let (mut settings, columns): (Vec<&str>, Vec<&str>) = columns.lines().partition(is_of_stream);
            if !settings.iter().any(|line| line.starts_with("format")) {
                settings.push("format = \"json\"");
            }
            let schema = format!(
                "connection = \"shop\"\ntopic = \"{name}\"\n\
                 time = {{ column = \"{time}\", lateness = \"0s\" }}\n{}\n[columns]\n{}",
                settings.join("\n"),
                columns.join("\n")
            );
            write(format!("schemas/{name}.toml"), schema);
        }
        for (name, text) in &self.functions {
            write(format!("functions/{name}.sql"), text.clone());
        }
        for case in &self.cases {
            write(format!("tags/{}.sql", case.name), case.sql.clone());
        }
        let loaded = tagflow::project::load(folder.path(), None);
        let (desired, diagnostics) = plan_project(&loaded.project.expect("a project"));
        let errors: Vec<_> = loaded
            .diagnostics
            .iter()
            .chain(&diagnostics)
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .map(|error| format!("{}: {} {} ({:?})", error.file.display(), error.code, error.message, error.help))
            .collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
        assert_eq!(desired.tags.len(), self.cases.len(), "{}: a name twice", path.display());
        desired
    }

    fn clock(&self, time: &str) -> Clock {
        let zone: Tz = self.zone.parse().unwrap();
        let time = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.f").unwrap();
        zone.from_local_datetime(&time).earliest().unwrap().timestamp_nanos_opt().unwrap()
    }
}

/// How the same events are given to the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Straight,
    RandomBatches,
    Resumed,
}

/// A row as text that does not depend on how numbers are written.
fn canonical(line: &str) -> String {
    let cell = |cell: &str| match cell.trim().parse::<f64>() {
        Ok(number) => format!("{}", (number * 1e9).round() / 1e9),
        // As other databases write them.
        Err(_) => cell.trim().replace("true", "1").replace("false", "0"),
    };
    line.split('|').map(cell).collect::<Vec<_>>().join(" | ")
}

struct Running<'a> {
    file: &'a CaseFile,
    desired: &'a Desired,
    graph: Graph,
    random: StdRng,
    /// By tag: rows with their weights.
    tables: BTreeMap<String, BTreeMap<String, i64>>,
    read: HashMap<String, i64>,
    watermarks: Watermarks,
}

impl Running<'_> {
    fn graph(&mut self) -> Graph {
        let shards = self.random.random_range(1..4);
        let mut graph = Graph::new(shards, self.file.zone.parse().unwrap());
        for (name, tag) in &self.desired.tags {
            graph.add_tag(name, &tag.plan).unwrap();
        }
        graph
    }

    fn run(&mut self, way: Way) {
        self.graph = self.graph();
        let mut clock = 0;
        for (time, events) in &self.file.steps {
            let target = self.file.clock(time);
            let pieces = if way == Way::Straight { 1 } else { self.random.random_range(1..5) };
            let mut left: &[(String, String)] = events;
            for piece in 0..pieces {
                let is_last = piece + 1 == pieces;
                let take = if is_last { left.len() } else { self.random.random_range(0..=left.len()) };
                let (now, later) = left.split_at(take);
                left = later;
                // On its way the clock may stand anywhere.
                clock = if is_last { target } else { self.random.random_range(clock.min(target - 1)..target) };
                self.step(now, clock);
                if way == Way::Resumed {
                    let snapshot = self.graph.snapshot().unwrap();
                    let mut resumed = self.graph();
                    let all = resumed.outputs();
                    resumed.load(&snapshot, &all).unwrap();
                    self.graph = resumed;
                }
            }
            self.compare(time, way);
        }
    }

    fn step(&mut self, events: &[(String, String)], clock: Clock) {
        let mut batches: HashMap<String, Vec<RecordBatch>> = HashMap::new();
        for (name, json) in events {
            let stream = &self.desired.project.catalog.streams[name];
            let columns: Vec<usize> = (0..stream.schema().fields().len()).collect();
            let mut decoder = Decoder::new(stream, &columns).unwrap();
            let offset = self.read.entry(name.clone()).or_default();
            let record = RawRecord {
                topic: &stream.topic,
                partition: 0,
                offset: *offset,
                timestamp: None,
                key: None,
                payload: Some(json.as_bytes()),
            };
            decoder.decode(&record).unwrap_or_else(|error| panic!("{json}: {error}"));
            *offset += 1;
            batches.entry(name.clone()).or_default().push(decoder.finish());
        }
        let events = batches.into_iter().map(|(name, batches)| {
            let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
            (name, batch)
        });
        self.step_graph(&events.collect(), clock);
        // There is one partition: what has come of it is how far the watermark is.
        for (stream, newest) in self.graph.newest_events() {
            self.watermarks.extend(newest.partitions.get(&0).map(|time| (stream.to_string(), time - newest.lateness)));
        }
        self.step_graph(&HashMap::new(), clock);
    }

    fn step_graph(&mut self, events: &HashMap<String, RecordBatch>, clock: Clock) {
        let moment = Moment { clock, watermarks: self.watermarks.clone() };
        for (name, delta) in self.graph.step(events, moment) {
            let delta = delta.unwrap_or_else(|error| panic!("{name}: {error}"));
            self.apply(&name, &delta);
        }
    }

    fn apply(&mut self, name: &str, delta: &Delta) {
        let plan = &self.desired.tags[name].plan;
        let options = FormatOptions::default().with_null("NULL");
        let columns = delta.batch.columns();
        let formatters: Vec<ArrayFormatter> =
            columns.iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        let table = self.tables.entry(name.to_string()).or_default();
        let width = plan.key.len() + plan.columns.len();
        for row in 0..delta.num_rows() {
            if plan.key.iter().any(|key| columns[key.index].is_null(row)) {
                continue;
            }
            let cells: Vec<String> = (0..width).map(|index| formatters[index].value(row).to_string()).collect();
            let row_text = canonical(&cells.join("|"));
            let weight = table.entry(row_text.clone()).or_default();
            *weight += delta.weight(row);
            if *weight == 0 {
                table.remove(&row_text);
            }
        }
    }

    fn compare(&self, time: &str, way: Way) {
        let is_last = self.file.steps.last().is_some_and(|(last, _)| last == time);
        for case in &self.file.cases {
            for (at, expected) in &case.expected {
                if at != time && !(at.is_empty() && is_last) {
                    continue;
                }
                let table = self.tables.get(&case.name).cloned().unwrap_or_default();
                assert!(table.values().all(|weight| *weight == 1), "{} {way:?}: {table:#?}", case.name);
                let found: BTreeSet<String> = table.into_keys().collect();
                assert_eq!(&found, expected, "{} {way:?} at {time}\n{}", case.name, case.sql);
            }
        }
    }
}

#[test]
fn every_case_gives_its_rows_in_every_way() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases = 0;
    for path in files {
        let file = CaseFile::parse(&std::fs::read_to_string(&path).unwrap());
        assert!(
            !file.cases.is_empty() && file.cases.iter().all(|case| !case.expected.is_empty()),
            "{}",
            path.display()
        );
        for case in &file.cases {
            let known = |time: &String| time.is_empty() || file.steps.iter().any(|(known, _)| known == time);
            assert!(case.expected.iter().all(|(time, _)| known(time)), "{}: a time that is no step", case.name);
        }
        let desired = file.plan(&path);
        cases += file.cases.len();
        for way in [Way::Straight, Way::RandomBatches, Way::Resumed] {
            for seed in 0..3 {
                println!("{} {way:?} seed {seed}", path.display());
                let mut running = Running {
                    file: &file,
                    desired: &desired,
                    graph: Graph::new(1, chrono_tz::UTC),
                    random: StdRng::seed_from_u64(seed),
                    tables: BTreeMap::new(),
                    read: HashMap::new(),
                    watermarks: Watermarks::new(),
                };
                running.run(way);
                if way == Way::Straight {
                    break;
                }
            }
        }
    }
    println!("{cases} cases");
}
