//! A stream as a table of DataFusion: its records within bounds, read when they are asked for, and no further than that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use tokio::sync::mpsc::{Sender, channel};

use crate::catalog::{Start, Stream};
use crate::delta::Offsets;
use crate::engine::intake::{Intake, Reads, World, instant_of};

/// How long a source that gives nothing is waited for.
pub(super) const SILENT: Duration = Duration::from_secs(30);
/// How long it is waited for at a time.
const WAIT: Duration = Duration::from_millis(50);
/// Rows that are handed on at a time.
const ROWS: usize = 8192;
/// Batches that may wait.
const WAITING: usize = 4;

/// Which records are read. What is not said is not bounded.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Of this time or later, milliseconds since the Unix epoch.
    pub from: Option<i64>,
    /// Of this time or earlier.
    pub to: Option<i64>,
    /// The first records.
    pub first: Offsets,
    /// The records behind the last ones.
    pub end: Offsets,
}

/// What is told of records that were read.
pub type Tell = Arc<dyn Fn(u64) + Send + Sync>;

/// The records of one stream.
pub(super) struct Events {
    pub(super) stream: Arc<Stream>,
    pub(super) schema: SchemaRef,
    pub(super) world: World,
    /// With an end for every partition.
    pub(super) bounds: Bounds,
    pub(super) tell: Tell,
}

impl Debug for Events {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Events").field("stream", &self.stream.name).finish_non_exhaustive()
    }
}

/// A provider of the records of one stream.
#[derive(Debug)]
pub(super) struct EventTable(pub(super) Arc<Events>);

#[async_trait]
impl TableProvider for EventTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let all = || (0..self.0.schema.fields().len()).collect();
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(all);
        let schema: SchemaRef = Arc::new(self.0.schema.project(&columns)?);
        let scan = Arc::new(Scan { events: Arc::clone(&self.0), columns, schema: Arc::clone(&schema) });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![scan], None, None, false, limit)?))
    }
}

/// One reading of some columns.
#[derive(Debug)]
struct Scan {
    events: Arc<Events>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (sender, receiver) = channel(WAITING);
        let (events, columns, schema) = (Arc::clone(&self.events), self.columns.clone(), Arc::clone(&self.schema));
        let failed = sender.clone();
        let read = move || {
            if let Err(error) = events.read(&columns, &schema, &sender) {
                // Nobody may listen any more.
                let _ = sender.blocking_send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name(format!("query-{}", self.events.stream.name)).spawn(read);
        if let Err(error) = thread {
            let _ = failed.try_send(Err(error.into()));
        }
        drop(failed);
        let batches = futures::stream::unfold(receiver, |mut receiver| async move {
            let batch = receiver.recv().await?;
            Some((batch, receiver))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

impl Events {
    /// Reads up to the ends, or as long as anybody listens.
    fn read(
        &self,
        columns: &[usize],
        schema: &SchemaRef,
        batches: &Sender<Result<RecordBatch, DataFusionError>>,
    ) -> Result<(), DataFusionError> {
        let failed = |message: String| DataFusionError::Execution(format!("stream `{}`: {message}", self.stream.name));
        if self.bounds.end.0.is_empty() {
            return Ok(());
        }
        let mut intake = Intake::start(&self.world, &self.reads(columns), &self.bounds.first, Some(&self.bounds.end))
            .map_err(|error| failed(error.to_string()))?;
        let mut heard = Instant::now();
        while !intake.is_finished() {
            let arrived = intake.collect(WAIT, ROWS)?;
            if !arrived.next.is_empty() {
                heard = Instant::now();
            }
            (self.tell)(arrived.rows as u64);
            for batch in arrived.events.into_values() {
                let batch = self.within(&batch)?;
                let read = schema.fields().iter().filter_map(|field| batch.column_by_name(field.name()).cloned());
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let batch = RecordBatch::try_new_with_options(Arc::clone(schema), read.collect(), &options)?;
                if batches.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
            if batches.is_closed() {
                return Ok(());
            }
            if heard.elapsed() >= SILENT {
                let trouble = intake.troubles.values().next().cloned();
                return Err(failed(trouble.unwrap_or_else(|| format!("nothing came for {SILENT:?}"))));
            }
        }
        match intake.failed.values().next() {
            Some(reason) => Err(failed(reason.clone())),
            None => Ok(()),
        }
    }

    fn reads(&self, columns: &[usize]) -> Reads {
        let mut needed: BTreeSet<usize> = columns.iter().copied().collect();
        let times = self.stream.time.iter().map(|time| time.column.as_str()).chain(["_timestamp"]);
        // Without any column rows could not be counted.
        needed.extend(times.filter_map(|name| self.schema.index_of(name).ok()));
        let start = match self.bounds.from {
            Some(from) if self.bounds.first.0.is_empty() => Start::Timestamp(from),
            _ => Start::Earliest,
        };
        let stream = Arc::new(Stream { start, ..Stream::clone(&self.stream) });
        BTreeMap::from([(stream.name.clone(), (stream, needed))])
    }

    /// The rows within the bounds of time: by the broker's, else by the event's own; rows without either are there always.
    fn within(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.bounds.from.is_none() && self.bounds.to.is_none() {
            return Ok(batch.clone());
        }
        let millis = |name: &str| -> Result<Option<(arrow::array::ArrayRef, DataType)>, ArrowError> {
            let Some(column) = batch.column_by_name(name) else { return Ok(None) };
            let unit = match column.data_type() {
                DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
                other => other.clone(),
            };
            Ok(Some((cast(&cast(column, &unit)?, &DataType::Int64)?, unit)))
        };
        let arrived = millis("_timestamp")?;
        let happened = match &self.stream.time {
            Some(time) => millis(&time.column)?,
            None => None,
        };
        let zone = self.world.context.timezone;
        let at = |times: &Option<(arrow::array::ArrayRef, DataType)>, row: usize| {
            let (times, data_type) = times.as_ref()?;
            let millis = times.is_valid(row).then(|| times.as_primitive::<Int64Type>().value(row))?;
            Some(instant_of(millis, data_type, zone))
        };
        let is_within = |row: usize| {
            let time = at(&arrived, row).or_else(|| at(&happened, row));
            time.is_none_or(|time| {
                self.bounds.from.is_none_or(|from| time >= from) && self.bounds.to.is_none_or(|to| time <= to)
            })
        };
        let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_within(row))).collect();
        filter_record_batch(batch, &mask)
    }
}
