//! The oracle: what DataFusion answers when it runs a tag's query as a batch over given events at a given clock.
//!
//! It shares with the engine the parsed and optimised logical plan and nothing else: scans, filters, aggregates and
//! windows are DataFusion's own. Two rules are the engine's and are given to it: ties in the order of a ROW_NUMBER are
//! broken by the whole row, and rows without a key are nobody's.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use chrono::DateTime;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, LogicalPlan, Window};
use datafusion::physical_plan::collect;

use crate::delta::Clock;

/// The answer to an optimised plan over all rows of `events` (by stream, in the stream's full schema) at `clock`.
pub async fn answer(
    state: &SessionState,
    plan: &LogicalPlan,
    events: &HashMap<String, RecordBatch>,
    clock: Clock,
) -> Result<RecordBatch, DataFusionError> {
    let plan = over_events(plan.clone(), events)?;
    let plan = with_total_orders(plan)?;
    let mut state = state.clone();
    state.execution_props_mut().query_execution_start_time = Some(DateTime::from_timestamp_nanos(clock));
    let physical = state.create_physical_plan(&plan).await?;
    let schema = physical.schema();
    let batches = collect(physical, state.task_ctx()).await?;
    Ok(concat_batches(&schema, &batches)?)
}

fn over_events(plan: LogicalPlan, events: &HashMap<String, RecordBatch>) -> Result<LogicalPlan, DataFusionError> {
    let replaced = plan.transform_up(|plan| match plan {
        LogicalPlan::TableScan(mut scan) => {
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

fn with_total_orders(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let replaced = plan.transform_up(|plan| match plan {
        LogicalPlan::Window(window) => {
            let columns: Vec<Expr> = window
                .input
                .schema()
                .iter()
                .map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field))))
                .collect();
            let exprs = window
                .window_expr
                .iter()
                .map(|expr| {
                    let name = expr.schema_name().to_string();
                    let mut expr = expr.clone();
                    if let Expr::WindowFunction(function) = &mut expr {
                        let ties = columns.iter().map(|column| Sort::new(column.clone(), true, true));
                        function.params.order_by.extend(ties);
                    }
                    // The name tells the order, and is what the query above refers to.
                    expr.alias(name)
                })
                .collect();
            let schema = Arc::clone(&window.schema);
            let total = Window::try_new(exprs, Arc::clone(&window.input))?;
            Ok(Transformed::yes(LogicalPlan::Window(Window { schema, ..total })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}
