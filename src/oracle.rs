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
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DataFusionError};
use datafusion::datasource::{MemTable, ViewTable, provider_as_source};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Window};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::physical_plan::collect;

use crate::delta::Clock;
use crate::plan::functions::is_ordered;
use crate::plan::unique::UNIQUE;

/// The answer to an optimised plan over all rows of `events` (by stream, in the stream's full schema) at `clock`.
pub async fn answer(
    state: &SessionState,
    plan: &LogicalPlan,
    events: &HashMap<String, RecordBatch>,
    clock: Clock,
) -> Result<RecordBatch, DataFusionError> {
    let plan = over_events(plan.clone(), events, &without_resent(state, events).await?)?;
    let plan = with_ordered_aggregates(with_total_orders(plan)?)?;
    let mut state = state.clone();
    // It would make room for as many rows as the limit of a sort says.
    state.config_mut().options_mut().optimizer.enable_topk_aggregation = false;
    state.execution_props_mut().query_execution_start_time = Some(DateTime::from_timestamp_nanos(clock));
    // The plan is optimised; what is left is to put the clock's value in.
    let plan = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]).optimize(plan, &state, |_, _| {})?;
    let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
    let schema = physical.schema();
    let batches = collect(physical, state.task_ctx()).await?;
    Ok(concat_batches(&schema, &batches)?)
}

/// A sort with a limit is never weakened to what the window itself needs.
const MOST_ROWS: usize = 100_000_000;

/// The streams that drop resent records, each as a plan over its events.
async fn without_resent(
    state: &SessionState,
    events: &HashMap<String, RecordBatch>,
) -> Result<HashMap<String, LogicalPlan>, DataFusionError> {
    let mut plans = HashMap::new();
    let catalog = state.catalog_list().catalog(&state.config().options().catalog.default_catalog);
    let Some(views) = catalog.and_then(|catalog| catalog.schema(UNIQUE)) else { return Ok(plans) };
    for stream in events.keys() {
        if let Some(view) = views.table(stream).await?
            && let Some(plan) = view.get_logical_plan()
        {
            plans.insert(stream.clone(), over_events(plan.into_owned(), events, &HashMap::new())?);
        }
    }
    Ok(plans)
}

/// Every stream read from `views`, or as it is from its events.
fn over_events(
    plan: LogicalPlan,
    events: &HashMap<String, RecordBatch>,
    views: &HashMap<String, LogicalPlan>,
) -> Result<LogicalPlan, DataFusionError> {
    let replaced = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::TableScan(mut scan) => {
            if let Some(view) = views.get(scan.table_name.table()) {
                scan.source = provider_as_source(Arc::new(ViewTable::new(view.clone(), None)));
                return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
            }
            let batch = events.get(scan.table_name.table()).ok_or_else(|| {
                DataFusionError::Plan(format!("no events of stream `{}` were given", scan.table_name.table()))
            })?;
            scan.source = provider_as_source(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch.clone()]])?));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
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

/// Lets the values themselves break ties in the order of an aggregate.
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
            let total = Aggregate::try_new_with_schema(input, group_expr, aggregates, schema)?;
            Ok(Transformed::yes(LogicalPlan::Aggregate(total)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}
