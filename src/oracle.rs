//! The oracle: what DataFusion answers when it runs a tag's query as a batch over given events at a given clock.
//!
//! It shares with the engine the parsed and optimised logical plan and nothing else: scans, filters, aggregates and
//! windows are DataFusion's own. The engine's rules are given to it: ties in the order of a window are broken by the
//! whole row, those in the order of an aggregate by its values, and rows without a key are nobody's. A stream whose
//! schema drops resent records is read through the view that says so.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use chrono::DateTime;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, JoinType, NullEquality};
use datafusion::datasource::{MemTable, TableProvider, ViewTable, provider_as_source};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{
    Aggregate, EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableScan, TableSource, Union, Window,
};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::physical_plan::{ExecutionPlan, collect};

use crate::delta::Moment;
use crate::plan::functions::is_ordered;
use crate::plan::sound::as_filter;
use crate::plan::sql::TAGS;
use crate::plan::unique::UNIQUE;
use crate::plan::watermark;

/// The answer to an optimised plan over all rows of `events` (by stream, in the stream's full schema) at a moment.
pub async fn answer(
    state: &SessionState,
    plan: &LogicalPlan,
    events: &HashMap<String, RecordBatch>,
    moment: impl Into<Moment>,
) -> Result<RecordBatch, DataFusionError> {
    let table = |(stream, batch): (&String, &RecordBatch)| {
        let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch.clone()]])?);
        Ok::<_, DataFusionError>((stream.clone(), table))
    };
    let tables = events.iter().map(table).collect::<Result<_, _>>()?;
    let physical = physical(state, plan, &tables, &moment.into()).await?;
    let schema = physical.schema();
    let batches = collect(physical, state.task_ctx()).await?;
    Ok(concat_batches(&schema, &batches)?)
}

/// What DataFusion runs to answer an optimised plan at a moment; `tables` have the records of the streams.
pub async fn physical(
    state: &SessionState,
    plan: &LogicalPlan,
    tables: &HashMap<String, Arc<dyn TableProvider>>,
    moment: &Moment,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let plan = watermark::at(plan.clone(), &moment.watermarks)?;
    let plan = plan.transform_up_with_subqueries(as_filter)?.data;
    let plan = over_events(plan, tables, &views(state, tables.keys()).await?)?;
    let plan = with_ordered_aggregates(with_total_orders(plan)?)?;
    let mut state = state.clone();
    // It would make room for as many rows as the limit of a sort says.
    state.config_mut().options_mut().optimizer.enable_topk_aggregation = false;
    // What is known never to be NULL differs between a plan before and after the clock's value is put in.
    state.config_mut().options_mut().execution.skip_physical_aggregate_schema_check = true;
    state.execution_props_mut().query_execution_start_time = Some(DateTime::from_timestamp_nanos(moment.clock));
    // The plan is optimised; what is left is to put the clock's value in.
    let plan = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]).optimize(plan, &state, |_, _| {})?;
    state.query_planner().create_physical_plan(&plan, &state).await
}

/// True for the table of a tag as a store has it, which is no stream.
pub fn is_stored(scan: &TableScan) -> bool {
    scan.table_name.schema() == Some(TAGS)
}

/// A sort with a limit is never weakened to what the window itself needs.
const MOST_ROWS: usize = 100_000_000;

/// The views of streams that drop resent records, over their records.
async fn views(state: &SessionState, streams: impl Iterator<Item = &String>) -> Result<Views, DataFusionError> {
    let mut plans = HashMap::new();
    let catalog = state.catalog_list().catalog(&state.config().options().catalog.default_catalog);
    let Some(views) = catalog.and_then(|catalog| catalog.schema(UNIQUE)) else { return Ok(plans) };
    for stream in streams {
        if let Some(view) = views.table(stream).await?
            && let Some(plan) = view.get_logical_plan()
        {
            plans.insert(stream.clone(), plan.into_owned());
        }
    }
    Ok(plans)
}

/// By the name of the stream.
type Views = HashMap<String, LogicalPlan>;

/// Every stream read from its events.
fn over_events(
    plan: LogicalPlan,
    tables: &HashMap<String, Arc<dyn TableProvider>>,
    views: &Views,
) -> Result<LogicalPlan, DataFusionError> {
    let replaced = plan.transform_down_with_subqueries(|plan| {
        let (mut scan, is_punctual) = match plan {
            LogicalPlan::TableScan(scan) if is_stored(&scan) => {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            }
            LogicalPlan::TableScan(scan) => (scan, None),
            LogicalPlan::Filter(filter) if watermark::late_after(&filter.predicate).is_some() => {
                match Arc::unwrap_or_clone(filter.input) {
                    LogicalPlan::TableScan(scan) => (scan, Some(filter.predicate)),
                    other => return Err(DataFusionError::Internal(format!("late events of {}", other.display()))),
                }
            }
            other => return Ok(Transformed::no(other)),
        };
        scan.source = records(scan.table_name.table(), is_punctual, tables, views)?;
        Ok(Transformed::new(LogicalPlan::TableScan(scan), true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

/// The events of a stream, without those that are late and those that were sent again.
fn records(
    stream: &str,
    is_punctual: Option<Expr>,
    tables: &HashMap<String, Arc<dyn TableProvider>>,
    views: &Views,
) -> Result<Arc<dyn TableSource>, DataFusionError> {
    let table = tables
        .get(stream)
        .ok_or_else(|| DataFusionError::Plan(format!("no events of stream `{stream}` were given")))?;
    let all = provider_as_source(Arc::clone(table));
    let view = views.get(stream);
    if view.is_none() && is_punctual.is_none() {
        return Ok(all);
    }
    let mut plan = LogicalPlanBuilder::scan(stream, all, None)?.build()?;
    if let Some(is_punctual) = is_punctual {
        plan = watermark::punctual(plan, is_punctual)?;
    }
    if let Some(view) = view {
        let over = |node: LogicalPlan| match node {
            LogicalPlan::TableScan(_) => Ok(Transformed::yes(plan.clone())),
            other => Ok(Transformed::no(other)),
        };
        plan = view.clone().transform_up(over)?.data;
    }
    Ok(provider_as_source(Arc::new(ViewTable::new(plan, None))))
}

/// Sorts the input of every window by its partition, its order, and then the whole row.
fn with_total_orders(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let replaced = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Window(window) => {
            let Some(Expr::WindowFunction(first)) = window.window_expr.first().map(|expr| expr.clone().unalias())
            else {
                return Ok(Transformed::no(LogicalPlan::Window(window)));
            };
            let whole = window.input.schema().iter().map(|named| Expr::Column(Column::from(named)));
            let params = &first.params;
            let ascending = |expr: Expr| Sort::new(expr, true, true);
            let partition = params.partition_by.iter().cloned().map(ascending);
            let order: Vec<Sort> =
                partition.chain(params.order_by.iter().cloned()).chain(whole.map(ascending)).collect();
            let input =
                LogicalPlanBuilder::from(Arc::clone(&window.input)).sort_with_limit(order, Some(MOST_ROWS))?.build()?;
            Ok(Transformed::yes(LogicalPlan::Window(Window { input: Arc::new(input), ..window })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

/// The same rows, of which no order is known. DataFusion takes what it makes of sorted rows by grouping sets as sorted too, which
/// it is not, and finds the groups above twice.
fn unsorted(input: Arc<LogicalPlan>) -> Arc<LogicalPlan> {
    let schema = Arc::clone(input.schema());
    let nothing = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::clone(&schema) });
    Arc::new(LogicalPlan::Union(Union { inputs: vec![input, Arc::new(nothing)], schema }))
}

/// Lets the values themselves break ties in the order of an aggregate; grouping sets get their rows unsorted.
fn with_ordered_aggregates(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let replaced = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let ordered = |expr: &Expr| {
                let name = expr.schema_name().to_string();
                let mut expr = expr.clone().unalias();
                if let Expr::AggregateFunction(function) = &mut expr
                    && is_ordered(function.func.name())
                {
                    let decided: Vec<Expr> = function.params.order_by.iter().map(|sort| sort.expr.clone()).collect();
                    let is_open =
                        |argument: &&Expr| !matches!(argument, Expr::Literal(..)) && !decided.contains(argument);
                    let values = function.params.args.iter().filter(is_open);
                    let ties: Vec<Sort> = values.map(|value| Sort::new(value.clone(), true, true)).collect();
                    function.params.order_by.extend(ties);
                }
                expr.alias(name)
            };
            let aggregates = aggregate.aggr_expr.iter().map(ordered).collect();
            let Aggregate { input, group_expr, schema, .. } = aggregate;
            let input = if group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
                unsorted(input)
            } else {
                input
            };
            let total = Aggregate::try_new_with_schema(input, group_expr, aggregates, schema)?;
            Ok(Transformed::yes(one_order_each(total)?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

/// An aggregate whose functions want their input in several orders, which DataFusion refuses, as one aggregate for each
/// order, joined by the groups.
fn one_order_each(aggregate: Aggregate) -> Result<LogicalPlan, DataFusionError> {
    let order = |expr: &Expr| match expr.clone().unalias() {
        // First and last values keep the order of what they have seen themselves.
        Expr::AggregateFunction(function)
            if matches!(function.func.name(), "array_agg" | "string_agg" | "nth_value") =>
        {
            function.params.order_by
        }
        _ => Vec::new(),
    };
    let mut parts: Vec<(Vec<Sort>, Vec<usize>)> = vec![(Vec::new(), Vec::new())];
    for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
        let order = order(expr);
        // What takes any order goes along with the first.
        match parts.iter_mut().find(|(known, _)| order.is_empty() || *known == order || known.is_empty()) {
            Some((known, members)) => {
                *known = if order.is_empty() { std::mem::take(known) } else { order };
                members.push(index);
            }
            None => parts.push((order, vec![index])),
        }
    }
    let has_sets = matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]);
    if parts.len() == 1 || has_sets {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let keys = aggregate.group_expr.len();
    let key = |part: usize, key: usize| format!("#key {part} {key}");
    let value = |index: usize| format!("#value {index}");
    let part = |number: usize, members: &[usize]| {
        let calls = members.iter().map(|index| aggregate.aggr_expr[*index].clone());
        let part = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), calls.collect())?;
        let names = (0..keys).map(|index| key(number, index)).chain(members.iter().map(|index| value(*index)));
        let named = part.schema.columns().into_iter().zip(names);
        let named: Vec<Expr> = named.map(|(column, name)| Expr::Column(column).alias(name)).collect();
        LogicalPlanBuilder::from(LogicalPlan::Aggregate(part)).project(named)?.build()
    };
    let mut joined = LogicalPlanBuilder::from(part(0, &parts[0].1)?);
    for (number, (_, members)) in parts.iter().enumerate().skip(1) {
        let other = part(number, members)?;
        let on = |part: usize| (0..keys).map(|index| Column::from_name(key(part, index))).collect::<Vec<_>>();
        joined = match keys {
            0 => joined.cross_join(other)?,
            _ => {
                joined.join_detailed(other, JoinType::Inner, (on(0), on(number)), None, NullEquality::NullEqualsNull)?
            }
        };
    }
    let names = (0..keys).map(|index| key(0, index)).chain((0..aggregate.aggr_expr.len()).map(value));
    let named = names.zip(aggregate.schema.iter()).map(|(name, (qualifier, field))| {
        Expr::Column(Column::from_name(name)).alias_qualified(qualifier.cloned(), field.name())
    });
    let columns = named.collect();
    let whole = Projection::try_new_with_schema(columns, Arc::new(joined.build()?), aggregate.schema)?;
    Ok(LogicalPlan::Projection(whole))
}
