//! Windows that close: rows that are shown once the watermark of their stream has passed the end of their window, and
//! events that are too late for it.
//!
//! Windows in FROM are written out with [`CLOSES`] in their WHERE. Where a tag emits on every change it is true.
//! Otherwise it becomes, once the plan is optimised, a comparison of the window's end with [`WATERMARK`] for every
//! stream below, whose late events are left out by [`PUNCTUAL`]. What is late is said by the partition of an event
//! alone, in the order of its offsets: a replay, a fill and a batch query find the same events late. A partition's newest
//! event before a punctual one is never further ahead than lateness allows, and the watermark is never ahead of the
//! newest event of any partition that is read, so that what has closed does not change any more. The exception are
//! partitions that were idle and wake up with old events: their windows are mended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, Result, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, TableScanBuilder, Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, cast, lit, when,
};

use crate::catalog::{Catalog, Stream};
use crate::delta::Watermarks;
use crate::plan::paced::pace;
use crate::tag::{Emission, Emit};

/// `#closes(time, end)`: true of a row whose window, which ends at `end`, is to be shown. Once it is known how the tag
/// emits, its third argument is whether the window must have closed, its fourth the allowed lateness in nanoseconds.
pub const CLOSES: &str = "#closes";
/// `#watermark('stream')`: up to when the events of a stream are known.
pub const WATERMARK: &str = "#watermark";
/// `#punctual(late_after, time, partition, offset, timestamp)`: true of an event that is at most `late_after` nanoseconds
/// older than the newest before it in its partition, or has no time. Events that lie more than [`MOST_AHEAD`] after the
/// broker's time of their record are not looked at: one year 9999 must not make all that follows late.
pub const PUNCTUAL: &str = "#punctual";

/// Milliseconds by which an event may lie after its record's own time and still move the watermark. Wall time may be 14
/// hours ahead of UTC.
pub const MOST_AHEAD: i64 = 86_400_000;

/// True of an event time (nanoseconds) that may move the newest of its partition, beside the broker's time of its record
/// (milliseconds), if there is one.
pub fn is_near(time: i64, arrived: Option<i64>) -> bool {
    arrived.is_none_or(|arrived| time / 1_000_000 <= arrived.saturating_add(MOST_AHEAD))
}

/// The same of two columns, for DataFusion.
pub fn is_near_expr(time: &Expr, timestamp: &Expr) -> Expr {
    let millis = cast(cast(time.clone(), DataType::Timestamp(TimeUnit::Millisecond, None)), DataType::Int64);
    let near = millis.lt_eq(cast(timestamp.clone(), DataType::Int64) + lit(MOST_AHEAD));
    timestamp.clone().is_null().or(near)
}

/// A function that stands for something in a plan and is never evaluated.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Placeholder {
    name: &'static str,
    output: DataType,
    signature: Signature,
}

impl Placeholder {
    fn udf(name: &'static str, output: DataType) -> ScalarUDF {
        // Volatile: nothing is moved over it, and it is not folded.
        ScalarUDF::from(Placeholder { name, output, signature: Signature::variadic_any(Volatility::Volatile) })
    }
}

impl ScalarUDFImpl for Placeholder {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.output.clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{} is not evaluated", self.name)))
    }
}

/// The function that windows in FROM are written out with.
pub fn closes() -> ScalarUDF {
    Placeholder::udf(CLOSES, DataType::Boolean)
}

fn call<'a>(expr: &'a Expr, name: &str) -> Option<&'a [Expr]> {
    match expr {
        Expr::ScalarFunction(function) if function.name() == name => Some(&function.args),
        _ => None,
    }
}

/// The stream of `#watermark('stream')`.
pub fn stream_of(expr: &Expr) -> Option<&str> {
    match call(expr, WATERMARK)? {
        [Expr::Literal(ScalarValue::Utf8(Some(stream)), _)] => Some(stream),
        _ => None,
    }
}

/// The nanoseconds after which [`PUNCTUAL`] calls an event late.
pub fn late_after(predicate: &Expr) -> Option<i64> {
    match call(predicate, PUNCTUAL)? {
        [Expr::Literal(ScalarValue::Int64(Some(late_after)), _), ..] => Some(*late_after),
        _ => None,
    }
}

/// Why a window cannot be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclosed {
    /// The query has no window in FROM.
    NoWindow,
    /// The window is over something else than the event time of a stream.
    NotEventTime(String),
}

/// A plan that is not optimised yet, with how its own windows are emitted written into it.
///
/// # Errors
/// What must be true of a plan whose windows close and is not.
pub fn emitted(
    plan: LogicalPlan,
    emission: &Emission,
    state: &SessionState,
) -> Result<std::result::Result<LogicalPlan, Unclosed>> {
    let mut windows = 0;
    let plan = plan.transform_up_with_subqueries(|plan| {
        let plan = match (plan, emission.early) {
            (LogicalPlan::Filter(mut filter), Some(early)) if has_own_window(&filter.predicate) => {
                filter.input = Arc::new(pace(Arc::unwrap_or_clone(filter.input), early, state)?);
                LogicalPlan::Filter(filter)
            }
            (plan, _) => plan,
        };
        plan.map_expressions(|expr| {
            expr.transform_up(|expr| {
                let Expr::ScalarFunction(function) = &expr else { return Ok(Transformed::no(expr)) };
                if function.name() != CLOSES {
                    return Ok(Transformed::no(expr));
                }
                windows += 1;
                if function.args.len() > 2 {
                    // Of a tag that is read, which said it itself.
                    return Ok(Transformed::no(expr));
                }
                if !emission.has_late_events() {
                    return Ok(Transformed::yes(lit(true)));
                }
                let mut args = function.args.clone();
                args.push(lit(emission.emit == Emit::OnClose && emission.early.is_none()));
                args.push(lit(nanoseconds(emission.allowed_lateness.unwrap_or_default())));
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&function.func), args })))
            })
        })
    })?;
    if windows == 0 && emission.has_late_events() {
        return Ok(Err(Unclosed::NoWindow));
    }
    Ok(Ok(plan.data))
}

/// True of the condition of a window of which is not said yet how it is emitted.
fn has_own_window(predicate: &Expr) -> bool {
    split_conjunction(predicate).into_iter().any(|conjunct| call(conjunct, CLOSES).is_some_and(|args| args.len() == 2))
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// An optimised plan in which windows are compared with watermarks, over events that are not late.
///
/// # Errors
/// Which window cannot be closed.
pub fn settled(plan: LogicalPlan, catalog: &Catalog) -> Result<std::result::Result<LogicalPlan, Unclosed>> {
    let mut unclosed = None;
    let settled = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let mut conjuncts: Vec<Expr> = split_conjunction(&filter.predicate).into_iter().cloned().collect();
        let Some(at) = conjuncts.iter().position(|conjunct| call(conjunct, CLOSES).is_some()) else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let closing = conjuncts.remove(at);
        let Some([time, end, Expr::Literal(ScalarValue::Boolean(Some(on_close)), _), allowed]) = call(&closing, CLOSES)
        else {
            // Of a view, which is planned for its own sake: the tags that read it say how they emit.
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let Expr::Literal(ScalarValue::Int64(Some(allowed)), _) = allowed else {
            return Err(DataFusionError::Internal(format!("{CLOSES} without an allowed lateness")));
        };
        let streams = streams_with_time(&filter.input, catalog)?;
        if !is_event_time(&filter.input, time, &streams) {
            unclosed.get_or_insert_with(|| Unclosed::NotEventTime(time.to_string()));
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        if *on_close {
            let output = end.get_type(filter.input.schema())?;
            let watermark = |stream: &Stream| {
                let function = Placeholder::udf(WATERMARK, output.clone());
                end.clone().lt_eq(function.call(vec![lit(stream.name.as_str())]))
            };
            conjuncts.extend(streams.iter().map(|stream| watermark(stream)));
        }
        let input = without_late_events(filter.input.as_ref().clone(), &streams, *allowed)?;
        let plan = match conjunction(conjuncts) {
            Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?),
            None => input,
        };
        Ok(Transformed::yes(plan))
    })?;
    Ok(unclosed.map_or(Ok(settled.data), Err))
}

/// Streams of events below a plan whose time is known; a table has no late rows.
fn streams_with_time(plan: &LogicalPlan, catalog: &Catalog) -> Result<Vec<Arc<Stream>>> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan {
            names.insert(scan.table_name.table().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let known = names.iter().filter_map(|name| catalog.streams.get(name));
    Ok(known.filter(|stream| stream.time.is_some() && !stream.is_table()).cloned().collect())
}

/// True where an expression is nothing but the event time of one of the streams below.
fn is_event_time(plan: &LogicalPlan, expr: &Expr, streams: &[Arc<Stream>]) -> bool {
    let column = match expr {
        Expr::Column(column) => column,
        Expr::Alias(alias) => return is_event_time(plan, &alias.expr, streams),
        _ => return false,
    };
    match plan {
        LogicalPlan::TableScan(scan) => streams.iter().any(|stream| {
            let is_time = stream.time.as_ref().is_some_and(|time| time.column == column.name);
            is_time && stream.name == scan.table_name.table()
        }),
        LogicalPlan::Projection(projection) => {
            let position = plan.schema().index_of_column(column);
            position.is_ok_and(|position| is_event_time(&projection.input, &projection.expr[position], streams))
        }
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Union(_) => {
            let Ok(position) = plan.schema().index_of_column(column) else { return false };
            let below = |input: &&LogicalPlan| {
                is_event_time(input, &Expr::Column(Column::from(input.schema().qualified_field(position))), streams)
            };
            plan.inputs().iter().all(below)
        }
        LogicalPlan::Filter(_) | LogicalPlan::Window(_) | LogicalPlan::Join(_) => {
            plan.inputs().iter().any(|input| input.schema().has_column(column) && is_event_time(input, expr, streams))
        }
        _ => false,
    }
}

/// The same plan over the punctual events of its streams.
fn without_late_events(plan: LogicalPlan, streams: &[Arc<Stream>], allowed: i64) -> Result<LogicalPlan> {
    let replaced = plan.transform_down_with_subqueries(|plan| {
        let scan = match plan {
            LogicalPlan::TableScan(scan) => scan,
            // Of a window within this one.
            LogicalPlan::Filter(ref filter) if call(&filter.predicate, PUNCTUAL).is_some() => {
                return Ok(Transformed::new(plan, false, TreeNodeRecursion::Jump));
            }
            _ => return Ok(Transformed::no(plan)),
        };
        let Some(stream) = streams.iter().find(|stream| stream.name == scan.table_name.table()) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let Some(time) = &stream.time else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
        let name = scan.table_name.clone();
        let column = |column: &str| Expr::Column(Column::new(Some(name.clone()), column));
        let late_after = nanoseconds(time.lateness).saturating_add(allowed);
        let punctual = Placeholder::udf(PUNCTUAL, DataType::Boolean).call(vec![
            lit(late_after),
            column(&time.column),
            column("_partition"),
            column("_offset"),
            column("_timestamp"),
        ]);
        let schema = scan.source.schema();
        let needed = [time.column.as_str(), "_partition", "_offset", "_timestamp"];
        let read_here = scan.projected_schema.fields().iter().map(|field| field.name().as_str()).chain(needed);
        let projection: BTreeSet<usize> = read_here.map(|name| Ok(schema.index_of(name)?)).collect::<Result<_>>()?;
        // What the scan filters must not be taken out before it is known what is late.
        let read: Vec<Expr> = scan.projected_schema.iter().map(|named| Expr::Column(Column::from(named))).collect();
        let whole = TableScanBuilder::new(name.clone(), Arc::clone(&scan.source))
            .with_projection(Some(projection.into_iter().collect()))
            .build()?;
        let filter = Filter::try_new(punctual, Arc::new(LogicalPlan::TableScan(whole)))?;
        let mut builder = LogicalPlanBuilder::from(LogicalPlan::Filter(filter));
        for filter in scan.filters {
            builder = builder.filter(filter)?;
        }
        let plan = builder.project(read)?.build()?;
        Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump))
    })?;
    replaced.data.recompute_schema()
}

/// The plan with watermarks as the numbers that they are, for a batch query.
pub fn at(plan: LogicalPlan, watermarks: &Watermarks) -> Result<LogicalPlan> {
    let number = |expr: Expr| {
        let (Some(stream), Expr::ScalarFunction(function)) = (stream_of(&expr), &expr) else {
            return Ok(Transformed::no(expr));
        };
        let output = function.func.return_type(&[DataType::Utf8])?;
        let value = ScalarValue::TimestampNanosecond(watermarks.get(stream).copied(), None);
        let plain = match &output {
            DataType::Timestamp(unit, _) => value.cast_to(&DataType::Timestamp(*unit, None))?,
            _ => value,
        };
        // The same number under the type of the other side.
        Ok(Transformed::yes(Expr::Literal(plain.cast_to(&DataType::Int64)?.cast_to(&output)?, None)))
    };
    let replaced = plan.transform_up_with_subqueries(|plan| plan.map_expressions(|expr| expr.transform_up(number)))?;
    Ok(replaced.data)
}

/// The records that [`PUNCTUAL`] is true of, in DataFusion's own words, where times too far ahead are NULL:
/// `MAX(time) OVER (PARTITION BY _partition ORDER BY _offset ROWS … 1 PRECEDING) - late_after <= time`.
pub fn punctual(records: LogicalPlan, is_punctual: Expr) -> Result<LogicalPlan> {
    let unqualified = is_punctual.transform_up(|expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::from_name(column.name)))),
        other => Ok(Transformed::no(other)),
    })?;
    let Some([Expr::Literal(ScalarValue::Int64(Some(late_after)), _), time, partition, offset, timestamp]) =
        call(&unqualified.data, PUNCTUAL)
    else {
        return Err(DataFusionError::Internal(format!("{PUNCTUAL} has other arguments")));
    };
    let before = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
    );
    let moving = when(is_near_expr(time, timestamp), time.clone()).end()?;
    let newest = WindowFunction::new(WindowFunctionDefinition::AggregateUDF(max_udaf()), vec![moving]);
    let newest = Expr::WindowFunction(Box::new(newest))
        .partition_by(vec![partition.clone()])
        .order_by(vec![offset.clone().sort(true, true)])
        .window_frame(before)
        .build()?
        .alias("#newest");
    let columns: Vec<Expr> = records.schema().iter().map(|named| Expr::Column(Column::from(named))).collect();
    let newest_before = Expr::Column(Column::from_name("#newest"));
    let lateness = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, *late_after)));
    let punctual = time
        .clone()
        .is_null()
        .or(newest_before.clone().is_null())
        .or(time.clone().gt_eq(newest_before - Expr::Literal(lateness, None)));
    LogicalPlanBuilder::from(records).window(vec![newest])?.filter(punctual)?.project(columns)?.build()
}
