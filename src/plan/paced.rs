//! Events that count from the next full step on: what bounds how often windows are shown early, and how often a value of
//! the whole population moves every row.
//!
//! An event is seen from when the clock has passed the step of its record's own `_timestamp`. Written as a comparison with
//! the clock, so that it is the same for operators, replays and batch queries.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, Result, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Subquery};

use crate::plan::changes::EMPTIED;

/// The plan over events that count from the next full `every` on.
pub fn pace(plan: LogicalPlan, every: Duration, state: &SessionState) -> Result<LogicalPlan> {
    Pace { every, state }.walk(plan, true)
}

/// The plan in which values of the whole population change at most once in `every`.
pub fn pace_population(plan: LogicalPlan, every: Duration, state: &SessionState) -> Result<LogicalPlan> {
    Pace { every, state }.walk(plan, false)
}

struct Pace<'a> {
    every: Duration,
    state: &'a SessionState,
}

impl Pace<'_> {
    /// `is_within` says that all streams below are paced.
    fn walk(&self, plan: LogicalPlan, is_within: bool) -> Result<LogicalPlan> {
        let is_within = is_within || is_of_population(&plan);
        if let LogicalPlan::TableScan(scan) = &plan {
            let schema = scan.source.schema();
            let Ok(timestamp) = schema.field_with_name("_timestamp") else { return Ok(plan) };
            if !is_within {
                return Ok(plan);
            }
            let column = Expr::Column(Column::new(Some(scan.table_name.clone()), timestamp.name()));
            // What has no time of its own counts at once.
            let begin = ScalarValue::Int64(Some(0)).cast_to(timestamp.data_type())?;
            let arrived = self.function("coalesce")?.call(vec![column, Expr::Literal(begin, None)]);
            let predicate = arrived.lt(self.last_step()?);
            return Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?));
        }
        let plan = plan.map_expressions(|expr| expr.transform_down(|expr| self.sub_query(expr, is_within)))?.data;
        let plan = plan.map_children(|child| Ok(Transformed::yes(self.walk(child, is_within)?)))?.data;
        Ok(plan)
    }

    /// A sub-query that is tied to a row is of that row, and not of the population.
    fn sub_query(&self, expr: Expr, is_within: bool) -> Result<Transformed<Expr>> {
        let walked = |subquery: Subquery| {
            if !is_within && !subquery.outer_ref_columns.is_empty() {
                return Ok::<_, DataFusionError>(subquery);
            }
            let plan = Arc::unwrap_or_clone(Arc::clone(&subquery.subquery));
            Ok(subquery.with_plan(Arc::new(self.walk(plan, is_within)?)))
        };
        Ok(Transformed::yes(match expr {
            Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(walked(subquery)?),
            Expr::Exists(exists) => Expr::Exists(Exists { subquery: walked(exists.subquery)?, ..exists }),
            Expr::InSubquery(within) => Expr::InSubquery(InSubquery { subquery: walked(within.subquery)?, ..within }),
            other => return Ok(Transformed::no(other)),
        }))
    }

    /// `date_bin(INTERVAL …, NOW())`.
    fn last_step(&self) -> Result<Expr> {
        let every = i64::try_from(self.every.as_nanos()).unwrap_or(i64::MAX);
        let interval = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, every)));
        let now = self.function("now")?.call(vec![]);
        Ok(self.function("date_bin")?.call(vec![Expr::Literal(interval, None), now]))
    }

    fn function(&self, name: &str) -> Result<Arc<datafusion::logical_expr::ScalarUDF>> {
        let known = self.state.scalar_functions().get(name).cloned();
        known.ok_or_else(|| DataFusionError::Internal(format!("DataFusion has no function {name}")))
    }
}

/// True of what looks at all rows there are: an aggregate without GROUP BY, a window without PARTITION BY.
fn is_of_population(plan: &LogicalPlan) -> bool {
    let is_whole = |expr: &Expr| match expr {
        Expr::WindowFunction(function) => function.params.partition_by.is_empty(),
        _ => false,
    };
    match plan {
        // When a table was emptied last belongs to its rows.
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group_expr.is_empty() && !aggregate.schema.has_column_with_unqualified_name(EMPTIED)
        }
        LogicalPlan::Window(window) => window.window_expr.iter().any(|expr| is_whole(&expr.clone().unalias())),
        _ => false,
    }
}
