//! Window functions over rows that are tied to the row around a sub-query. DataFusion takes the tie out of the sub-query and
//! joins by it, so that the window would be over the rows of everybody: such a query is refused.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::LogicalPlan;

/// What the error of such a query says.
pub const TIED_WINDOW: &str = "a window function over tied rows";

/// An error for a plan with one.
pub fn refuse_windows(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| match plan {
        LogicalPlan::Window(window) if !window.input.all_out_ref_exprs().is_empty() => plan_err!("{TIED_WINDOW}"),
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}
