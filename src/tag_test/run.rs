//! Runs a test: records through the decoders, batches through a dataflow, and the same records through the batch answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use chrono_tz::Tz;
use datafusion::common::DataFusionError;
use datafusion::execution::context::SessionState;

use super::compare::{self, Failure, What};
use super::coverage::{Hits, Probes};
use super::rows::{by_columns, decoder};
use super::{ExpectedLetter, Given, TagTest, TestFile, TestMoment};
use crate::delta::{Clock, Moment, Offsets, Partition};
use crate::engine::culprit::EventRow;
use crate::engine::dataflow::{Dataflow, TagFault};
use crate::engine::desired::{Desired, PlannedTag};
use crate::engine::letters::keep_left_out;
use crate::engine::verify::{StoredRows, answer_rows, stored_rows};
use crate::oracle;
use crate::plan::session::session_state;
use crate::source::DeadLetters;
use crate::source::dead_letter::DeadLetter;
use crate::source::decode::{DecodeError, Decoder, RawRecord};

/// Room for the letters of one test.
const LETTERS: u64 = 64 << 20;

/// Runs the tests of one project.
pub struct Runner<'a> {
    desired: &'a Desired,
    /// What is counted beside, where coverage is wanted.
    probes: Option<&'a Probes>,
    state: SessionState,
    folder: &'a Path,
}

/// What came of a test.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What is not as expected; nothing where the test passes.
    pub failures: Vec<Failure>,
    /// What was found at each moment, as far as it came.
    pub found: Vec<Found>,
    /// Which conditions of the tag were met, at each moment.
    pub hits: Vec<Hits>,
}

/// What was found at one moment.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The table as it was at the moment before.
    pub before: StoredRows,
    /// The table.
    pub rows: StoredRows,
    /// Records that were put aside.
    pub letters: Vec<DeadLetter>,
}

/// A test on its way.
struct Running<'a> {
    planned: &'a PlannedTag,
    zone: Tz,
    file: &'a TestFile,
    test: &'a TagTest,
    dataflow: Dataflow,
    dead_letters: DeadLetters,
    letters_known: BTreeMap<String, usize>,
    offsets: BTreeMap<Partition, i64>,
    /// When records last came of a partition, by the test's clock.
    active: BTreeMap<Partition, Clock>,
    /// Of the rows of each stream's last events, which of the given they are of.
    origins: HashMap<String, Vec<usize>>,
    /// All that has come.
    history: HashMap<String, Vec<RecordBatch>>,
    table: StoredRows,
}

impl<'a> Runner<'a> {
    /// For the tests of a project; dead letters go below `folder`.
    ///
    /// # Errors
    /// When the streams cannot be planned with.
    pub fn new(desired: &'a Desired, probes: Option<&'a Probes>, folder: &'a Path) -> Result<Self, DataFusionError> {
        let project = &desired.project;
        Ok(Runner { desired, probes, state: session_state(&project.catalog, project.config.timezone)?, folder })
    }

    /// Runs one.
    ///
    /// # Errors
    /// When the machine says no: that is no fault of tag or test.
    pub fn run(&self, file: &TestFile, test: &TagTest) -> Result<Outcome, String> {
        let planned =
            self.desired.tags.get(&file.tag).ok_or_else(|| format!("the tag `{}` is not planned", file.tag))?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
        let mut running = Running::new(self, planned, file, test)?;
        let mut outcome = Outcome { failures: Vec::new(), found: Vec::new(), hits: Vec::new() };
        for moment in &test.moments {
            let before = running.table.clone();
            if let Some(fault) = running.step(moment)? {
                let what = match &moment.fails {
                    Some(fails) if fault.reason.contains(fails.as_str()) => None,
                    _ => Some(What::Fault(fault.reason)),
                };
                let mut failure = what.map(|what| running.failure(moment, moment.span.clone(), what));
                if let (Some(failure), Some(given)) = (&mut failure, running.given_at(moment, fault.row.as_ref())) {
                    failure.place = given.place.clone();
                }
                outcome.failures.extend(failure);
                return Ok(outcome);
            }
            let letters = running.new_letters().map_err(|error| error.to_string())?;
            let found = Found { before, rows: running.table.clone(), letters };
            let events = running.events().map_err(|error| error.to_string())?;
            let until = Moment { clock: moment.at, watermarks: running.dataflow.watermarks.clone() };
            if let Some(probes) = self.probes {
                // A tag whose conditions fail is told of by its answer.
                outcome.hits.extend(runtime.block_on(probes.count(&file.tag, &events, &until)));
            }
            let answer = running.batch(&runtime, &self.state, &events, until);
            outcome.failures.extend(running.judge(moment, &found, answer)?);
            outcome.found.push(found);
        }
        Ok(outcome)
    }
}

impl<'a> Running<'a> {
    fn new(
        runner: &Runner<'a>,
        planned: &'a PlannedTag,
        file: &'a TestFile,
        test: &'a TagTest,
    ) -> Result<Self, String> {
        let zone = runner.desired.project.config.timezone;
        let mut dataflow = Dataflow::new(1, zone);
        let tag = &planned.definition.name;
        dataflow.add_tag(&planned.table, tag, &planned.plan, 0, &Offsets::default()).map_err(|fault| fault.reason)?;
        let numbers = |(stream, numbers): (&String, &BTreeSet<i32>)| {
            let partition = |number: &i32| Partition { stream: stream.clone(), number: *number };
            numbers.iter().map(partition).collect::<Vec<_>>()
        };
        let partitions: Vec<Partition> = test.partitions.iter().flat_map(numbers).collect();
        dataflow.graph.note_partitions(partitions.iter());
        let begun = test.moments.first().map_or(0, |moment| moment.at);
        let active = partitions.into_iter().map(|partition| (partition, begun)).collect();
        let folder = runner.folder.join(tag).join(test.index.to_string());
        Ok(Running {
            planned,
            zone,
            file,
            test,
            dataflow,
            dead_letters: DeadLetters::new(folder, LETTERS, Arc::new(move || begun / 1_000_000)),
            letters_known: BTreeMap::new(),
            offsets: BTreeMap::new(),
            active,
            origins: HashMap::new(),
            history: HashMap::new(),
            table: StoredRows::new(),
        })
    }

    /// One epoch: what is given, then the clock, then the watermarks that follow from it.
    fn step(&mut self, moment: &TestMoment) -> Result<Option<TagFault>, String> {
        let events = self.decode(moment).map_err(|error| error.to_string())?;
        for (stream, batch) in &events {
            self.history.entry(stream.clone()).or_default().push(batch.clone());
        }
        let mut faults = self.dataflow.step(&events, moment.at);
        keep_left_out(&self.dataflow.graph, &self.dead_letters);
        let (catalog, active) = (&self.planned.plan, &self.active);
        let awaited = |stream: &str| {
            let time = catalog.sources().find(|(known, _)| known.name == stream)?.0.time.clone()?;
            let idle = i64::try_from(time.idle.as_nanos()).unwrap_or(i64::MAX);
            let own = active.iter().filter(|(partition, _)| partition.stream == stream);
            let is_awaited = |since: Clock| moment.at.saturating_sub(since) < idle;
            Some(own.filter(|(_, since)| is_awaited(**since)).map(|(partition, _)| partition.number).collect())
        };
        if faults.is_empty() && self.dataflow.look_ahead(awaited) {
            faults = self.dataflow.step(&HashMap::new(), moment.at);
        }
        let (changes, of_drain) = self.dataflow.drain();
        faults.extend(of_drain);
        for change in changes {
            let keys = self.planned.table.key.len();
            let upserts = stored_rows(keys, &change.upserts, self.zone).map_err(|error| error.to_string())?;
            let deletes = stored_rows(keys, &change.deletes, self.zone).map_err(|error| error.to_string())?;
            deletes.keys().for_each(|key| drop(self.table.remove(key)));
            self.table.extend(upserts);
        }
        Ok(faults.into_iter().next())
    }

    /// What is given, by stream; what does not decode is a dead letter.
    fn decode(&mut self, moment: &TestMoment) -> Result<HashMap<String, RecordBatch>, DecodeError> {
        let mut decoders: HashMap<(String, bool), Decoder> = HashMap::new();
        let mut batches: HashMap<String, Vec<RecordBatch>> = HashMap::new();
        self.origins.clear();
        for (index, given) in moment.given.iter().enumerate() {
            let Given { stream, partition, .. } = given;
            let partition = Partition { stream: stream.name.clone(), number: *partition };
            let offset = self.offsets.entry(partition.clone()).or_default();
            let record = RawRecord {
                topic: &stream.topic,
                partition: partition.number,
                offset: *offset,
                timestamp: Some(given.timestamp.unwrap_or(moment.at / 1_000_000)),
                key: given.key.as_deref().map(str::as_bytes),
                payload: given.payload.as_deref().map(str::as_bytes),
            };
            let kind = (stream.name.clone(), given.is_by_columns);
            if !decoders.contains_key(&kind) {
                let decoder = match given.is_by_columns {
                    true => decoder(stream, &by_columns(stream))?,
                    false => decoder(stream, stream)?,
                };
                decoders.insert(kind.clone(), decoder);
            }
            if let Some(decoder) = decoders.get_mut(&kind) {
                match decoder.decode(&record) {
                    Ok(()) => {
                        let rows = decoder.finish();
                        let origins = self.origins.entry(stream.name.clone()).or_default();
                        origins.extend(std::iter::repeat_n(index, rows.num_rows()));
                        batches.entry(stream.name.clone()).or_default().push(rows);
                    }
                    Err(error) => self.dead_letters.put(&stream.name, &record, &error),
                }
            }
            *offset += 1;
            self.dataflow.offsets.advance(&partition, *offset);
            self.active.insert(partition, moment.at);
        }
        let whole = batches.into_iter().map(|(stream, batches)| {
            let whole =
                concat_batches(&batches[0].schema(), &batches).map_err(|error| DecodeError(error.to_string()))?;
            Ok((stream, whole))
        });
        whole.collect()
    }

    /// The record of a row that the tag failed on.
    fn given_at<'m>(&self, moment: &'m TestMoment, row: Option<&EventRow>) -> Option<&'m Given> {
        let EventRow { stream, row, .. } = row?;
        moment.given.get(*self.origins.get(stream)?.get(*row)?)
    }

    /// Letters since the moment before.
    fn new_letters(&mut self) -> std::io::Result<Vec<DeadLetter>> {
        let mut new = Vec::new();
        for stream in self.test.partitions.keys() {
            let letters = self.dead_letters.read(stream)?;
            let known = self.letters_known.insert(stream.clone(), letters.len()).unwrap_or_default();
            new.extend(letters.into_iter().skip(known));
        }
        Ok(new)
    }

    /// All that has come, by stream.
    fn events(&self) -> Result<HashMap<String, RecordBatch>, ArrowError> {
        let mut events = HashMap::new();
        for (stream, _) in self.planned.plan.sources() {
            let batches = self.history.get(&stream.name).map_or(&[][..], Vec::as_slice);
            events.insert(stream.name.clone(), concat_batches(&stream.schema(), batches)?);
        }
        Ok(events)
    }

    /// The batch answer over all that has come.
    fn batch(
        &self,
        runtime: &tokio::runtime::Runtime,
        state: &SessionState,
        events: &HashMap<String, RecordBatch>,
        moment: Moment,
    ) -> Result<StoredRows, DataFusionError> {
        let answer = runtime.block_on(oracle::answer(state, &self.planned.logical, events, moment))?;
        Ok(stored_rows(self.planned.table.key.len(), &answer_rows(self.planned, &answer)?, self.zone)?)
    }

    /// Compares what was found at a moment with what is expected, and with the batch answer.
    fn judge(
        &self,
        moment: &TestMoment,
        found: &Found,
        answer: Result<StoredRows, DataFusionError>,
    ) -> Result<Vec<Failure>, String> {
        let compared = &self.test.compared;
        let mut failures = Vec::new();
        let mut fail = |span: &Range<usize>, what: What| failures.push(self.failure(moment, span.clone(), what));
        if let Some(fails) = &moment.fails {
            fail(&moment.span, What::NoFault(fails.clone()));
        }
        if let Some(expected) = &moment.rows {
            let what = compare::compare_rows(self.planned, compared, &found.rows, expected, self.zone);
            what.map_err(|error| error.to_string())?.into_iter().for_each(|what| fail(&expected.span, what));
        }
        if let Some(expected) = &moment.changes {
            let tables = (&found.before, &found.rows);
            let what = compare::compare_changes(self.planned, compared, tables, expected, self.zone);
            what.map_err(|error| error.to_string())?.into_iter().for_each(|what| fail(&expected.span, what));
        }
        let (letters, missing) = compare::unmatched(&found.letters, &moment.dead_letters);
        letters.into_iter().for_each(|letter| fail(&moment.span, What::Letter(told(letter))));
        missing.into_iter().for_each(|letter| fail(&letter.span, What::NoLetter(expectation(letter))));
        let whole: Vec<usize> = (0..self.planned.table.columns.len()).collect();
        match answer {
            Ok(answer) => {
                let differences = compare::differences(self.planned, &whole, &found.rows, &answer);
                if !differences.is_empty() {
                    fail(&moment.span, What::Disagreement(differences));
                }
            }
            Err(error) => fail(&moment.span, What::Batch(error.strip_backtrace())),
        }
        Ok(failures)
    }

    fn failure(&self, moment: &TestMoment, span: Range<usize>, what: What) -> Failure {
        let index = self.test.moments.iter().position(|known| std::ptr::eq(known, moment)).unwrap_or_default();
        Failure { moment: index, at: moment.at, place: (self.file.file.clone(), span), what }
    }
}

fn told(letter: &DeadLetter) -> String {
    let DeadLetter { kind, stream, partition, offset, error, .. } = letter;
    format!("{} letter: {stream}, partition {partition}, offset {offset}: {error}", kind.name())
}

fn expectation(letter: &ExpectedLetter) -> String {
    let selection = &letter.selection;
    let parts = [
        selection.stream.as_ref().map(|stream| format!("of {stream}")),
        selection.kind.map(|kind| format!("of kind {}", kind.name())),
        selection.partition.map(|partition| format!("of partition {partition}")),
        selection.offset.map(|offset| format!("at offset {offset}")),
        selection.error.as_ref().map(|error| format!("with \"{error}\" in its error")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "any".to_string() } else { parts.join(" ") }
}
