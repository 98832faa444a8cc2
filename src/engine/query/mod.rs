//! Batch queries over what streams hold now: the same meaning as a tag's, by DataFusion alone, without a daemon.
//!
//! Enters: a query, bounds, a clock. Leaves: batches, one after the other. Reads records when they are asked for, so that a
//! query that wants few rows reads few; sorts and groups take no more memory than the pool has, and spill. Never writes into
//! the state directory of a daemon.

mod events;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;

pub use self::events::{Bounds, Tell};
use self::events::{EventTable, Events, SILENT};
use crate::catalog::{Start, Stream};
use crate::config::{Config, Connection};
use crate::delta::{Clock, Moment, Offsets, Partition, Watermarks};
use crate::diagnostic::Diagnostic;
use crate::engine::desired::{PlannedTag, plan_project, planner};
use crate::engine::intake::{Intake, Queue, Reads, World};
use crate::oracle;
use crate::plan::watermark;
use crate::project::Project;
use crate::sink::{SinkError, open_store};
use crate::source::{DeadLetters, Registries, SourceContext, SourceError, Tables, WallClock};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The query is wrong.
    #[error("the query has errors")]
    Query(Vec<Diagnostic>),
    /// A source cannot start.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A stream cannot be read.
    #[error("stream `{stream}`: {reason}")]
    Stream {
        /// Which.
        stream: String,
        /// Why.
        reason: String,
    },
    /// The store says no.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A tag that the query reads has no table.
    #[error(
        "the store has no table of the tag `{0}`; `tagflow run` fills it, and `tagflow query --tag` computes it anew"
    )]
    NoTable(String),
    /// A step has no room for what it must keep in memory.
    #[error(
        "the query needs more memory than `memory_limit` has: raise it, or ask for fewer rows or columns; a join keeps its smaller \
         side in memory ({0})"
    )]
    Memory(String),
    /// DataFusion says no.
    #[error("{}", .0.strip_backtrace())]
    Batch(DataFusionError),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(reason) => {
                QueryError::Memory(reason.lines().next().unwrap_or_default().to_string())
            }
            _ => QueryError::Batch(error),
        }
    }
}

/// A query that can run.
pub struct Query {
    state: SessionState,
    plan: LogicalPlan,
}

/// Plans `sql`, which stands in `file` for diagnostics; tags that it reads are read out of the store.
///
/// # Errors
/// What is wrong with it, or why a table cannot be read.
pub fn plan_sql(project: &Project, file: &Path, sql: &str) -> Result<Query, QueryError> {
    let config = &project.config;
    let mut planner = planner(project)?;
    let read = planner.tags_read(file, sql);
    let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
    if !read.is_empty() {
        let (desired, _) = plan_project(project);
        let mut store = open_store(&config.store, &config.root, config.timezone)?;
        for tag in read {
            let Some(planned) = desired.tags.get(&tag) else {
                // Of a tag with errors the planner tells.
                match project.tags.get(&tag).is_some_and(|tag| !tag.runs()) {
                    true => return Err(QueryError::NoTable(tag)),
                    false => continue,
                }
            };
            let shown = store.read_shown(&planned.table, &|rows| Ok(rows))?.ok_or(QueryError::NoTable(tag.clone()))?;
            let table = MemTable::try_new(shown.rows.schema(), vec![vec![shown.rows]])?;
            tables.insert(tag, Arc::new(table));
        }
    }
    planner.for_batch(tables)?;
    let plan = planner.plan_batch(file, sql, None).map_err(QueryError::Query)?;
    Ok(Query { state: planner.state().clone(), plan })
}

/// The rows of a tag, by key.
///
/// # Errors
/// When the streams cannot be planned with.
pub fn plan_rows(project: &Project, tag: &PlannedTag) -> Result<Query, QueryError> {
    let state = crate::plan::session::session_state(&project.catalog, project.config.timezone)?;
    let columns: Vec<Expr> = tag.logical.schema().columns().into_iter().map(Expr::Column).collect();
    let keys: Vec<Expr> = tag.plan.key.iter().map(|column| columns[column.index].clone()).collect();
    let shown = tag.plan.key.iter().chain(&tag.plan.columns).map(|column| columns[column.index].clone());
    let mut plan = LogicalPlanBuilder::from(tag.logical.clone());
    for key in &keys {
        plan = plan.filter(key.clone().is_not_null())?;
    }
    let order = keys.into_iter().map(|key| key.sort(true, false));
    let plan = plan.project(shown.collect::<Vec<_>>())?.sort(order.collect::<Vec<_>>())?.build()?;
    Ok(Query { state, plan })
}

/// What a query is run with.
pub struct Run<'a> {
    /// The project.
    pub project: &'a Project,
    /// Which records count.
    pub bounds: Bounds,
    /// What NOW() is.
    pub clock: Clock,
    /// The most rows that are wanted.
    pub limit: Option<usize>,
    /// A folder for what is kept while the query runs.
    pub folder: &'a Path,
    /// Is told of rows that were read.
    pub tell: Tell,
}

/// Rows that come.
pub struct Answer {
    /// The rows.
    pub batches: SendableRecordBatchStream,
    /// Records that there are to read, as far as offsets tell.
    pub records: u64,
}

impl Query {
    /// Begins to answer.
    ///
    /// # Errors
    /// When a stream that it reads cannot be read.
    pub async fn run(self, run: &Run<'_>) -> Result<Answer, QueryError> {
        let Query { state, mut plan } = self;
        if let Some(limit) = run.limit {
            plan = LogicalPlanBuilder::from(plan).limit(0, Some(limit))?.build()?;
        }
        let state = with_pool(state, run.project.config.engine.memory_limit)?;
        let streams = streams_of(&plan, run.project)?;
        let mut tables: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
        let mut records = 0;
        for stream in streams.values() {
            let world = world(&run.project.config, stream, run.folder);
            let (of_world, of_stream, wanted) = (world.clone(), Arc::clone(stream), run.bounds.clone());
            // Brokers may take their time: whoever waits for the answer may be waiting for Ctrl-C too.
            let looked = tokio::task::spawn_blocking(move || ends(&of_world, &of_stream, &wanted)).await;
            let bounds = looked.map_err(|error| DataFusionError::External(Box::new(error)))??;
            let of = |partition: &Partition, end: &i64| end - bounds.first.next(partition).unwrap_or_default();
            records += bounds.end.0.iter().map(|(partition, end)| of(partition, end).max(0) as u64).sum::<u64>();
            let events = Events {
                stream: Arc::clone(stream),
                schema: stream.schema(),
                world,
                bounds,
                tell: Arc::clone(&run.tell),
            };
            tables.insert(stream.name.clone(), Arc::new(EventTable(Arc::new(events))));
        }
        let mut moment = Moment { clock: run.clock, watermarks: Watermarks::new() };
        for stream in streams.values().filter(|stream| has_watermark(&plan, &stream.name)) {
            if let Some(watermark) = watermark_of(&state, stream, &tables, run.clock).await? {
                moment.watermarks.insert(stream.name.clone(), watermark);
            }
        }
        let physical = oracle::physical(&state, &plan, &tables, &moment).await?;
        Ok(Answer { batches: execute_stream(physical, state.task_ctx())?, records })
    }
}

/// Where streams end by now, so that several queries read the same records.
///
/// # Errors
/// When one cannot be read.
pub fn ends_now<'s>(
    project: &Project,
    streams: impl Iterator<Item = &'s Arc<Stream>>,
    folder: &Path,
) -> Result<Offsets, QueryError> {
    let mut all = Offsets::default();
    for stream in streams {
        let found = ends(&world(&project.config, stream, folder), stream, &Bounds::default())?;
        found.end.0.iter().for_each(|(partition, end)| all.advance(partition, *end));
    }
    Ok(all)
}

/// The session with as much memory as the project's settings say.
fn with_pool(state: SessionState, memory_limit: Option<u64>) -> Result<SessionState, DataFusionError> {
    let pool: Arc<dyn MemoryPool> = match memory_limit {
        Some(bytes) => Arc::new(FairSpillPool::new(usize::try_from(bytes).unwrap_or(usize::MAX))),
        None => Arc::new(UnboundedMemoryPool::default()),
    };
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
    Ok(SessionStateBuilder::new_from_existing(state).with_runtime_env(runtime).build())
}

/// The streams that a plan reads.
fn streams_of(plan: &LogicalPlan, project: &Project) -> Result<BTreeMap<String, Arc<Stream>>, DataFusionError> {
    let mut streams = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && !oracle::is_stored(scan)
            && let Some(stream) = project.catalog.streams.get(scan.table_name.table())
        {
            streams.insert(stream.name.clone(), Arc::clone(stream));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(streams)
}

/// A world beside the daemon's: what is read leaves no trace in its state. The generator's history is that of the state.
pub(crate) fn world(config: &Config, stream: &Stream, folder: &Path) -> World {
    let wall_clock: WallClock = Arc::new(|| chrono::Utc::now().timestamp_millis());
    let engine = &config.engine;
    let is_generated = matches!(config.connections.get(&stream.connection), Some(Connection::Generator(_)));
    World {
        connections: config.connections.clone(),
        queue: engine.memory_limit.map_or_else(Queue::unlimited, |bytes| {
            // The rest is for what the query keeps.
            Queue::within(usize::try_from(bytes / 8).unwrap_or(usize::MAX))
        }),
        context: SourceContext {
            timezone: config.timezone,
            root: config.root.clone(),
            dead_letters: Arc::new(DeadLetters::new(folder, engine.dead_letters, Arc::clone(&wall_clock))),
            tables: Arc::new(Tables::new(folder)),
            state_dir: if is_generated { engine.state_dir.clone() } else { folder.to_path_buf() },
            wall_clock,
            registries: Registries::default(),
        },
    }
}

/// The bounds with an end for every partition: where it ends now, unless an earlier one is wanted.
fn ends(world: &World, stream: &Arc<Stream>, wanted: &Bounds) -> Result<Bounds, QueryError> {
    let failed = |reason: String| QueryError::Stream { stream: stream.name.clone(), reason };
    let of_stream = |offsets: &Offsets| {
        let own = offsets.0.iter().filter(|(partition, _)| partition.stream == stream.name);
        Offsets(own.map(|(partition, offset)| (partition.clone(), *offset)).collect())
    };
    let first = of_stream(&wanted.first);
    let latest = Arc::new(Stream { start: Start::Earliest, ..Stream::clone(stream) });
    let column = stream.schema().index_of("_offset").map_err(DataFusionError::from)?;
    let reads = Reads::from([(stream.name.clone(), (latest, BTreeSet::from([column])))]);
    let mut intake = Intake::start(world, &reads, &Offsets::default(), None)?;
    let begun = Instant::now();
    // A table outside has been seen once all of its rows are in its log.
    let is_known = |intake: &Intake| match stream.kind.is_outside() {
        true => intake.is_caught_up(),
        false => intake.is_announced(&stream.name) || intake.is_caught_up(),
    };
    while !is_known(&intake) {
        intake.collect(Duration::from_millis(20), 1 << 16).map_err(DataFusionError::from)?;
        if begun.elapsed() >= SILENT {
            let trouble = intake.troubles.values().next().cloned();
            return Err(failed(trouble.unwrap_or_else(|| format!("nothing is known of it after {SILENT:?}"))));
        }
    }
    // A topic that is not there has no partition, and says so.
    let without = intake.troubles.values().next().filter(|_| intake.partitions.is_empty());
    if let Some(reason) = intake.failed.values().next().or(without) {
        return Err(failed(reason.clone()));
    }
    let mut bounds = Bounds { first: Offsets::default(), end: Offsets::default(), ..wanted.clone() };
    for (partition, known) in &intake.partitions {
        let end = if stream.kind.is_outside() { known.next.max(known.first_end) } else { known.first_end };
        let end = wanted.end.next(partition).map_or(end, |wanted| wanted.min(end));
        // Where one partition has a beginning, the others need theirs too.
        let begin = first.next(partition).map_or(known.beginning, |first| first.max(known.beginning));
        if begin < end {
            bounds.end.advance(partition, end);
        }
        if !first.0.is_empty() {
            bounds.first.advance(partition, begin.min(end));
        }
    }
    Ok(bounds)
}

/// True where the answer looks at the watermark of a stream.
fn has_watermark(plan: &LogicalPlan, stream: &str) -> bool {
    let mut found = false;
    let looked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= watermark::stream_of(expr) == Some(stream);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found && looked.is_ok()
}

/// How far a stream is known at a clock: as the engine says it of partitions that came to their end when their newest record
/// did.
async fn watermark_of(
    state: &SessionState,
    stream: &Stream,
    tables: &HashMap<String, Arc<dyn TableProvider>>,
    clock: Clock,
) -> Result<Option<i64>, QueryError> {
    let (Some(time), Some(table)) = (&stream.time, tables.get(&stream.name)) else { return Ok(None) };
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let source = datafusion::datasource::provider_as_source(Arc::clone(table));
    let nanos = |name: &str, zone: Option<Arc<str>>| {
        let nanos = datafusion::logical_expr::cast(column(name), DataType::Timestamp(TimeUnit::Nanosecond, zone));
        datafusion::logical_expr::cast(nanos, DataType::Int64)
    };
    let near = watermark::is_near_expr(&column(&time.column), &column("_timestamp"));
    let zone = |name: &str| match stream.schema().field_with_name(name).map(|field| field.data_type().clone()) {
        Ok(DataType::Timestamp(_, zone)) => zone,
        _ => None,
    };
    let newest = |expr: Expr, name: &str| datafusion::functions_aggregate::expr_fn::max(expr).alias(name);
    let plan = LogicalPlanBuilder::scan(stream.name.as_str(), source, None)?
        .filter(near)?
        .aggregate(
            vec![column("_partition")],
            vec![
                newest(nanos(&time.column, zone(&time.column)), "newest"),
                newest(nanos("_timestamp", zone("_timestamp")), "arrived"),
            ],
        )?
        .build()?;
    let physical = state.query_planner().create_physical_plan(&state.optimize(&plan)?, state).await?;
    let batches = datafusion::physical_plan::collect(physical, state.task_ctx()).await?;
    let idle = i64::try_from(time.idle.as_nanos()).unwrap_or(i64::MAX);
    let (mut awaited, mut all): (Option<i64>, Option<i64>) = (None, None);
    for batch in &batches {
        let (newest, arrived) =
            (batch.column(1).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Int64Type>());
        for (newest, arrived) in newest.iter().zip(arrived) {
            let Some(newest) = newest else { continue };
            all = all.max(Some(newest));
            let is_idle = arrived.is_none_or(|at| clock.saturating_sub(at) >= idle);
            if !is_idle {
                awaited = Some(awaited.map_or(newest, |least| least.min(newest)));
            }
        }
    }
    let lateness = i64::try_from(time.lateness.as_nanos()).unwrap_or(i64::MAX);
    Ok(awaited.or(all).map(|newest| newest.saturating_sub(lateness)))
}
