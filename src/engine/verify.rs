//! Is a tag's table right? The batch answer over exactly the events that the table shows, compared row by row.
//!
//! For use while no daemon writes: the table and its progress are read one after the other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{Float64Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DataFusionError;

use crate::delta::{Moment, Offsets};
use crate::engine::desired::{Desired, PlannedTag, reads};
use crate::engine::intake::{Intake, World};
use crate::oracle;
use crate::plan::session::session_state;
use crate::sink::{Sink, SinkError, TagProgress};
use crate::source::SourceError;

/// How many differing rows are told of each tag.
const SHOWN: usize = 5;

/// What was found of one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The tag.
    pub tag: String,
    /// Rows that the batch answer has.
    pub rows: usize,
    /// Rows that are missing, too many, or different.
    pub differences: usize,
    /// Some of them, for people.
    pub samples: Vec<String>,
}

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store says no.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A source cannot start.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The batch query failed.
    #[error("the batch answer of `{tag}`: {message}")]
    Batch {
        /// The tag, or empty.
        tag: String,
        /// What DataFusion says.
        message: String,
    },
    /// The events are not there any more.
    #[error("stream `{stream}`: {reason}")]
    Gone {
        /// The stream.
        stream: String,
        /// What the source says.
        reason: String,
    },
}

/// Rows of a table by the text of their key.
type Rows = BTreeMap<Vec<String>, Vec<Cell>>;

#[derive(Debug, Clone)]
enum Cell {
    Text(String),
    Double(f64),
}

impl Cell {
    /// Doubles are equal to one part in 10^9: a batch adds them in another order than the engine's exact sum.
    fn equals(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Text(left), Cell::Text(right)) => left == right,
            (Cell::Double(left), Cell::Double(right)) => {
                (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
            }
            _ => false,
        }
    }
}

/// Compares the tables of all tags that have a progress. Tags that stand at the same offsets read the events once; one
/// whose batch answer fails has no verdict and holds up no other.
pub fn verify(
    desired: &Desired,
    store: &mut dyn Sink,
    world: &World,
) -> Result<Vec<Result<Verdict, VerifyError>>, VerifyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| VerifyError::Batch { tag: String::new(), message: error.to_string() })?;
    let progress = store.progress()?;
    let mut offsets = Offsets::default();
    let mut tags: Vec<(&PlannedTag, &TagProgress)> = Vec::new();
    for progress in &progress {
        let Some(planned) = desired.tags.get(&progress.tag) else { continue };
        tags.push((planned, progress));
        for (partition, next) in &progress.offsets.0 {
            offsets.advance(partition, *next);
        }
    }
    let events = read_events(desired, &tags, &offsets, world)?;
    let state = session_state(&desired.project.catalog, desired.project.config.timezone)
        .map_err(|error| VerifyError::Batch { tag: String::new(), message: error.to_string() })?;
    let mut verdicts = Vec::new();
    for (planned, progress) in tags {
        let table = store.read_table(&planned.table)?;
        let moment = Moment { clock: progress.clock, watermarks: progress.watermarks.clone() };
        let expected = up_to(&events, &progress.offsets).map_err(DataFusionError::from).and_then(|own| {
            let answer = runtime.block_on(oracle::answer(&state, &planned.logical, &own, moment))?;
            Ok((answer_rows(planned, &answer)?, rows(planned.plan.key.len(), &table)?))
        });
        let tag = planned.definition.name.clone();
        verdicts.push(match expected {
            Ok((expected, found)) => Ok(compare(tag, &expected, &found)),
            Err(error) => Err(VerifyError::Batch { tag, message: error.strip_backtrace() }),
        });
    }
    Ok(verdicts)
}

/// All events before `offsets`, in the streams' full schemas.
///
/// Columns that no tag reads are NULL here, as nobody looks at them in the daemon either: a value there that does not
/// fit its column makes no dead letter.
fn read_events(
    desired: &Desired,
    tags: &[(&PlannedTag, &TagProgress)],
    offsets: &Offsets,
    world: &World,
) -> Result<HashMap<String, Vec<RecordBatch>>, VerifyError> {
    let mut reads = reads(tags.iter().map(|(planned, _)| planned.plan.as_ref()));
    for (stream, columns) in reads.values_mut() {
        let schema = stream.schema();
        let fields = schema.fields().iter().enumerate();
        columns.extend(fields.filter(|(_, field)| !field.is_nullable()).map(|(index, _)| index));
    }
    let mut intake = Intake::start(world, &reads, &Offsets::default(), Some(offsets))?;
    let mut events: HashMap<String, Vec<RecordBatch>> = HashMap::new();
    for name in reads.keys() {
        let schema = desired.project.catalog.streams.get(name).map(|stream| stream.schema());
        events.insert(name.clone(), schema.into_iter().map(RecordBatch::new_empty).collect());
    }
    while !intake.is_finished() {
        let arrived = intake
            .collect(Duration::from_millis(100), 1 << 20)
            .map_err(|error| VerifyError::Batch { tag: String::new(), message: error.to_string() })?;
        for (stream, batch) in arrived.events {
            let Some((declared, _)) = reads.get(&stream) else { continue };
            let schema = declared.schema();
            let whole = widened(&batch, &schema);
            let whole = whole.map_err(|error| VerifyError::Batch { tag: String::new(), message: error.to_string() })?;
            events.entry(stream).or_default().push(whole);
        }
    }
    match intake.failed.first_key_value() {
        Some((stream, reason)) => Err(VerifyError::Gone { stream: stream.clone(), reason: reason.clone() }),
        None => Ok(events),
    }
}

/// The rows in all columns of `schema`; those that are not there are NULL.
fn widened(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

/// The events that one tag has taken.
fn up_to(
    events: &HashMap<String, Vec<RecordBatch>>,
    offsets: &Offsets,
) -> Result<HashMap<String, RecordBatch>, arrow::error::ArrowError> {
    let mut own = HashMap::new();
    for (stream, batches) in events {
        let Some(first) = batches.first() else { continue };
        let whole = concat_batches(&first.schema(), batches)?;
        let partitions = whole.column_by_name("_partition").and_then(|column| column.as_primitive_opt());
        let numbers = whole.column_by_name("_offset").and_then(|column| column.as_primitive_opt());
        let mask: arrow::array::BooleanArray = match (partitions, numbers) {
            (Some(partitions), Some(numbers)) => {
                let partitions: &arrow::array::Int32Array = partitions;
                let numbers: &arrow::array::Int64Array = numbers;
                let taken = |row: usize| {
                    let partition = crate::delta::Partition { stream: stream.clone(), number: partitions.value(row) };
                    offsets.next(&partition).is_some_and(|next| numbers.value(row) < next)
                };
                (0..whole.num_rows()).map(|row| Some(taken(row))).collect()
            }
            _ => std::iter::repeat_n(Some(true), whole.num_rows()).collect(),
        };
        own.insert(stream.clone(), arrow::compute::filter_record_batch(&whole, &mask)?);
    }
    Ok(own)
}

/// The answer's rows in the order and types of the table, without those whose key has a NULL.
fn answer_rows(planned: &PlannedTag, answer: &RecordBatch) -> Result<Rows, arrow::error::ArrowError> {
    let columns = planned.plan.key.iter().chain(&planned.plan.columns);
    let columns: Vec<ArrayRef> =
        columns.map(|column| cast(answer.column(column.index), &column.data_type)).collect::<Result<_, _>>()?;
    let named = columns.iter().enumerate().map(|(index, column)| (format!("c{index}"), column.clone(), true));
    let batch = RecordBatch::try_from_iter_with_nullable(named)?;
    let mut all = rows(planned.plan.key.len(), &batch)?;
    all.retain(|key, _| key.iter().all(|part| part != NULL));
    Ok(all)
}

/// How NULL is told apart from every text.
const NULL: &str = "\u{0}NULL";

fn rows(keys: usize, batch: &RecordBatch) -> Result<Rows, arrow::error::ArrowError> {
    let options = FormatOptions::default().with_null(NULL);
    let formatters: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
    let cell = |index: usize, row: usize| {
        let column = batch.column(index);
        match column.as_primitive_opt::<Float64Type>() {
            Some(doubles) if doubles.is_valid(row) && doubles.value(row).is_finite() => {
                Cell::Double(doubles.value(row))
            }
            // The stores have no NaN and no infinity.
            Some(_) => Cell::Text(NULL.to_string()),
            None => Cell::Text(formatters[index].value(row).to_string()),
        }
    };
    Ok((0..batch.num_rows())
        .map(|row| {
            let key = (0..keys).map(|index| formatters[index].value(row).to_string()).collect();
            (key, (keys..batch.num_columns()).map(|index| cell(index, row)).collect())
        })
        .collect())
}

fn compare(tag: String, expected: &Rows, found: &Rows) -> Verdict {
    let mut verdict = Verdict { tag, rows: expected.len(), differences: 0, samples: Vec::new() };
    let mut differs = |sample: String| {
        verdict.differences += 1;
        if verdict.samples.len() < SHOWN {
            verdict.samples.push(sample);
        }
    };
    for (key, row) in expected {
        match found.get(key) {
            None => differs(format!("{key:?} is missing, expected {row:?}")),
            Some(found)
                if found.len() != row.len() || !found.iter().zip(row).all(|(left, right)| left.equals(right)) =>
            {
                differs(format!("{key:?} is {found:?}, expected {row:?}"));
            }
            Some(_) => {}
        }
    }
    for (key, row) in found.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        differs(format!("{key:?} should not be there: {row:?}"));
    }
    verdict
}
