//! INTERSECT ALL and EXCEPT ALL count equal rows: the second of them is there, or is not, where the other side has a second.
//!
//! DataFusion plans both as joins by all columns that ask for any partner. Here equal rows are numbered on both sides, and the
//! numbers are joined by, too.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

/// The number of a row among its equals, on the left and on the right.
const NUMBERS: [&str; 2] = ["#among_equals_left", "#among_equals_right"];

/// Numbers equal rows below both; runs on plans as they come from SQL.
#[derive(Debug)]
pub struct CountedSets;

impl AnalyzerRule for CountedSets {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let counted = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Join(join) if counts(&join) => Ok(Transformed::yes(counted(join)?)),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(counted.data)
    }

    fn name(&self) -> &str {
        "counted_sets"
    }
}

/// True of such a join: no other of a plan that has not been optimised takes NULL for equal to NULL. Rows that are distinct
/// need no numbers, as there is no second.
fn counts(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

fn counted(join: Join) -> Result<LogicalPlan> {
    let Join { left, right, mut on, filter, join_type, join_constraint, null_equality, null_aware, .. } = join;
    let columns: Vec<Expr> = left.schema().columns().into_iter().map(Expr::Column).collect();
    let (left, right) = (Arc::new(numbered(left, NUMBERS[0])?), Arc::new(numbered(right, NUMBERS[1])?));
    let [of_left, of_right] = NUMBERS.map(|name| Expr::Column(Column::from_name(name)));
    on.push((of_left, of_right));
    let join = Join::try_new(left, right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
    LogicalPlanBuilder::from(LogicalPlan::Join(join)).project(columns)?.build()
}

/// The rows with their numbers behind them.
fn numbered(plan: Arc<LogicalPlan>, name: &str) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let order = columns.iter().map(|column| Sort::new(column.clone(), true, true)).collect();
    let number = row_number().partition_by(columns.clone()).order_by(order).build()?;
    let unnamed = Expr::Column(Column::from_name(number.schema_name().to_string()));
    let columns: Vec<Expr> = columns.into_iter().chain([unnamed.alias(name)]).collect();
    LogicalPlanBuilder::from(plan).window(vec![number])?.project(columns)?.build()
}
