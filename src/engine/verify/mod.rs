//! Is a tag's table right? The batch answer over exactly the events that the table shows, compared row by row.
//!
//! For use at any time: a table is read with its progress as of one moment, without locks, so that a daemon that writes it is
//! not held up. What cannot be compared is said, with the reason, and is never taken for right.

mod compare;
mod sample;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;

pub use self::compare::{Cell, Comparison, Difference, StoredRows, answer_rows, stored_rows, unlike};
pub use self::sample::{Sample, Share, entity_column};
use crate::catalog::{Start, Stream};
use crate::config::EngineConfig;
use crate::delta::{Moment, Offsets, Partition};
use crate::engine::checkpoint::Checkpoints;
use crate::engine::desired::{Desired, PlannedTag, reads};
use crate::engine::intake::{Intake, PartitionState, Reads, World};
use crate::engine::stop::Stop;
use crate::oracle;
use crate::plan::flow::Reach;
use crate::plan::session::session_state;
use crate::sink::{Shown, Sink, SinkError, TagProgress};
use crate::source::SourceError;

/// How long a table that is being replaced is waited for.
const REPLACED: Duration = Duration::from_secs(30);
/// How long a source that gives nothing is waited for.
const SILENT: Duration = Duration::from_secs(60);

/// What was found of one tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The tag.
    pub tag: String,
    /// What its table shows, where it could be read.
    pub shows: Option<TagProgress>,
    /// How it compares, or why that cannot be said.
    pub finding: Result<Comparison, String>,
}

/// Why nothing can be said of any tag.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store says no.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A source cannot start.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The streams cannot be planned with, or the machine says no.
    #[error("the batch answers: {0}")]
    Batch(String),
}

/// How tables are compared.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which keys.
    pub sample: Sample,
    /// How many differences of a tag are shown.
    pub shown: usize,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The table of this tag is read.
    Table(&'a str),
    /// So many records were read, of so many.
    Events(u64, u64),
    /// This tag's answer is computed.
    Answer(&'a str),
}

/// A tag with what its table shows.
struct Candidate<'a> {
    planned: &'a PlannedTag,
    shown: Shown,
    share: Share,
    /// The first records of its history, where these are not the first ever.
    beginnings: Offsets,
}

/// Compares the tables of all tags. Tags read the events once; one that cannot be compared holds up no other.
pub fn verify(
    desired: &Desired,
    store: &mut dyn Sink,
    world: &World,
    options: Options,
    tell: &mut dyn FnMut(Step<'_>),
) -> Result<Vec<Verdict>, VerifyError> {
    let config = &desired.project.config;
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|error| VerifyError::Batch(error.to_string()))?;
    let state = session_state(&desired.project.catalog, config.timezone)
        .map_err(|error| VerifyError::Batch(error.strip_backtrace()))?;
    let mut histories = histories(&config.engine);
    let mut verdicts = Vec::new();
    let mut candidates = Vec::new();
    for planned in desired.tags.values() {
        let tag = &planned.definition.name;
        tell(Step::Table(tag));
        let share = Share { column: entity_column(planned, desired), sample: options.sample, rows: 0 };
        match read_shown(planned, share, store) {
            Ok((shown, share)) => {
                let beginnings = histories.remove(&(tag.clone(), shown.progress.fingerprint.clone()));
                candidates.push(Candidate { planned, shown, share, beginnings: beginnings.unwrap_or_default() });
            }
            Err(reason) => verdicts.push(Verdict { tag: tag.clone(), shows: None, finding: Err(reason) }),
        }
    }
    let history = History::read(desired, &candidates, world, tell)?;
    for Candidate { planned, shown, share, beginnings } in candidates {
        let tag = &planned.definition.name;
        tell(Step::Answer(tag));
        let progress = shown.progress;
        let finding = history.events_of(planned, &progress, &beginnings).and_then(|events| {
            let moment = Moment { clock: progress.clock, watermarks: progress.watermarks.clone() };
            let answer = runtime.block_on(oracle::answer(&state, &planned.logical, &events, moment));
            answer
                .and_then(|answer| {
                    Ok(compare::compare(planned, &answer, &shown.rows, &share, options.shown, config.timezone)?)
                })
                .map_err(|error| format!("its batch answer: {}", error.strip_backtrace()))
        });
        verdicts.push(Verdict { tag: tag.clone(), shows: Some(progress), finding });
    }
    verdicts.sort_by(|left, right| left.tag.cmp(&right.tag));
    Ok(verdicts)
}

/// What the table of a tag shows, or why that is not the answer of its plan.
fn read_shown(planned: &PlannedTag, share: Share, store: &mut dyn Sink) -> Result<(Shown, Share), String> {
    let table = &planned.table;
    let read = |store: &mut dyn Sink| -> Result<Option<(Shown, Share)>, SinkError> {
        let progress = store.progress()?.into_iter().find(|progress| progress.tag == table.table);
        let share = Share { rows: progress.map_or(0, |progress| progress.rows), ..share };
        let shown = store.read_shown(table, &|piece| share.of(piece))?;
        Ok(shown.map(|shown| (shown, share)))
    };
    let begun = Instant::now();
    let (shown, share) = loop {
        match read(store) {
            Ok(Some(shown)) => break shown,
            Ok(None) => return Err("the store has no table of it; `tagflow status` says why".to_string()),
            Err(error) if error.is_retryable() && begun.elapsed() < REPLACED => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => return Err(format!("its table cannot be read: {error}")),
        }
    };
    match shown.progress.fingerprint == planned.plan.fingerprint {
        true => Ok((shown, share)),
        false => Err("its table shows another version of the tag, which was not filled with this one".to_string()),
    }
}

/// Where the state of tags begins in history, by tag and fingerprint of its plan, as far as checkpoints tell.
fn histories(engine: &EngineConfig) -> BTreeMap<(String, String), Offsets> {
    let mut histories = BTreeMap::new();
    let checkpoints = Checkpoints::open(engine, &Arc::new(Stop::new(Arc::default())));
    // The newest first. What cannot be read is the daemon's to tell, and stands for a history from its first record on.
    let manifests = checkpoints.and_then(|checkpoints| checkpoints.manifests()).unwrap_or_default();
    for manifest in manifests.into_iter().flatten() {
        for (name, version) in manifest.position.tags {
            // A version that is kept beside its tag may be live by now.
            let tag = name.split('@').next().unwrap_or(&name).to_string();
            histories.entry((tag, version.plan)).or_insert(version.beginnings);
        }
    }
    histories
}

/// Events as the broker still has them.
struct History {
    /// By stream, in the streams' full schemas.
    events: HashMap<String, RecordBatch>,
    /// Streams that could not be read to the end, and why.
    failed: BTreeMap<String, String>,
    partitions: BTreeMap<Partition, PartitionState>,
}

impl History {
    /// Reads all that is left of what the tags have taken.
    ///
    /// Columns that no tag reads are NULL here, as nobody looks at them in the daemon either: a value there that does not
    /// fit its column makes no dead letter.
    fn read(
        desired: &Desired,
        candidates: &[Candidate<'_>],
        world: &World,
        tell: &mut dyn FnMut(Step<'_>),
    ) -> Result<Self, VerifyError> {
        let mut until = Offsets::default();
        for (partition, next) in candidates.iter().flat_map(|candidate| &candidate.shown.progress.offsets.0) {
            until.advance(partition, *next);
        }
        let reads = whole_history(reads(candidates.iter().map(|candidate| candidate.planned.plan.as_ref())));
        let mut intake = Intake::start(world, &reads, &Offsets::default(), Some(&until))?;
        let mut batches: HashMap<String, Vec<RecordBatch>> = HashMap::new();
        let (mut heard, mut taken) = (Instant::now(), 0);
        while !intake.is_finished() && heard.elapsed() < SILENT {
            let arrived = intake
                .collect(Duration::from_millis(100), 1 << 20)
                .map_err(|error| VerifyError::Batch(error.to_string()))?;
            if !arrived.next.is_empty() {
                heard = Instant::now();
            }
            for (stream, batch) in arrived.events {
                let Some((declared, _)) = reads.get(&stream) else { continue };
                taken += batch.num_rows() as u64;
                let whole = widened(&batch, &declared.schema());
                batches.entry(stream).or_default().push(whole.map_err(|error| VerifyError::Batch(error.to_string()))?);
            }
            let wanted = intake.partitions.iter().filter_map(|(partition, state)| {
                u64::try_from(until.next(partition)?.saturating_sub(state.beginning)).ok()
            });
            tell(Step::Events(taken, wanted.sum()));
        }
        let mut failed = intake.failed.clone();
        for stream in reads.keys().filter(|stream| !intake.has_finished(stream)) {
            let trouble = intake.troubles.get(stream).cloned();
            let trouble = trouble.unwrap_or_else(|| format!("nothing came for {SILENT:?}"));
            failed.entry(stream.clone()).or_insert(trouble);
        }
        let mut events = HashMap::new();
        for (name, stream) in reads.keys().filter_map(|name| Some((name, desired.project.catalog.streams.get(name)?))) {
            let batches = batches.remove(name).unwrap_or_default();
            let whole = concat_batches(&stream.schema(), &batches);
            events.insert(name.clone(), whole.map_err(|error| VerifyError::Batch(error.to_string()))?);
        }
        Ok(History { events, failed, partitions: intake.partitions.clone() })
    }

    /// The events that a tag has taken, or why they are not to be had.
    fn events_of(
        &self,
        planned: &PlannedTag,
        progress: &TagProgress,
        beginnings: &Offsets,
    ) -> Result<HashMap<String, RecordBatch>, String> {
        let own = reads([planned.plan.as_ref()]);
        if let Some((stream, reason)) = self.failed.iter().find(|(stream, _)| own.contains_key(*stream)) {
            return Err(format!("stream `{stream}`: {reason}"));
        }
        for (partition, next) in &progress.offsets.0 {
            let first = beginnings.next(partition).unwrap_or(0);
            let Some(state) = self.partitions.get(partition) else { continue };
            let last_gone = state.beginning.min(*next);
            if last_gone > first && !is_behind_reach(planned, state, progress) {
                let Partition { stream, number } = partition;
                return Err(format!(
                    "stream `{stream}`: partition {number} does not hold the records from {first} up to {last_gone} any \
                     more, which its table has taken"
                ));
            }
        }
        let mut events = HashMap::new();
        for (stream, whole) in self.events.iter().filter(|(stream, _)| own.contains_key(*stream)) {
            let taken = taken(stream, whole, beginnings, &progress.offsets).map_err(|error| error.to_string())?;
            events.insert(stream.clone(), taken);
        }
        Ok(events)
    }
}

/// True where the records before those that are still there are older than the tag's answer looks back.
fn is_behind_reach(planned: &PlannedTag, state: &PartitionState, progress: &TagProgress) -> bool {
    match (planned.plan.reach, state.first_timestamp) {
        (Reach::Within(reach), Some(first)) => first.saturating_mul(1_000_000) <= progress.clock - reach,
        _ => false,
    }
}

/// The streams from their first record on, wherever a daemon would start.
fn whole_history(reads: Reads) -> Reads {
    let whole = |(name, (stream, mut columns)): (String, (Arc<Stream>, _))| {
        let schema = stream.schema();
        let fields = schema.fields().iter().enumerate();
        let needed = fields.filter(|(_, field)| !field.is_nullable()).map(|(index, _)| index);
        std::collections::BTreeSet::extend(&mut columns, needed);
        (name, (Arc::new(Stream { start: Start::Earliest, ..Stream::clone(&stream) }), columns))
    };
    reads.into_iter().map(whole).collect()
}

/// The rows in all columns of `schema`; those that are not there are NULL.
fn widened(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

/// The events of a stream that one tag has taken.
fn taken(
    stream: &str,
    whole: &RecordBatch,
    beginnings: &Offsets,
    offsets: &Offsets,
) -> Result<RecordBatch, ArrowError> {
    let partitions = whole.column_by_name("_partition").and_then(|column| column.as_primitive_opt::<Int32Type>());
    let numbers = whole.column_by_name("_offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (Some(partitions), Some(numbers)) = (partitions, numbers) else { return Ok(whole.clone()) };
    let mut ranges: HashMap<i32, (i64, i64)> = HashMap::new();
    for (partition, next) in offsets.0.iter().filter(|(partition, _)| partition.stream == stream) {
        ranges.insert(partition.number, (beginnings.next(partition).unwrap_or(0), *next));
    }
    let is_taken = |row: usize| {
        let range = ranges.get(&partitions.value(row));
        range.is_some_and(|(first, next)| (*first..*next).contains(&numbers.value(row)))
    };
    let mask: BooleanArray = (0..whole.num_rows()).map(|row| Some(is_taken(row))).collect();
    filter_record_batch(whole, &mask)
}
