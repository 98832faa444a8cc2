//! Sub-queries that are tied to the row around them in ways that DataFusion would answer wrongly, or with words that say nothing
//! to their author: such a query is refused.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

/// What the error of a query with a window function over tied rows says. DataFusion takes the tie out of the sub-query and joins
/// by it, so that the window would be over the rows of everybody.
pub const TIED_WINDOW: &str = "a window function over tied rows";
/// What the error of a query says that has a sub-query in a sub-query, tied to the row around both.
pub const FAR_TIE: &str = "a sub-query is tied past the one around it";

/// An error for a plan with a sub-query that does not stream for the way in which it is tied.
pub fn refuse(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::Window(window) = plan
            && !window.input.all_out_ref_exprs().is_empty()
        {
            return plan_err!("{TIED_WINDOW}");
        }
        for expr in plan.expressions() {
            expr.apply(|expr| match subquery(expr) {
                Some(subquery) if is_far(subquery, plan) => plan_err!("{FAR_TIE}"),
                _ => Ok(TreeNodeRecursion::Continue),
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn subquery(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        Expr::Exists(exists) => Some(&exists.subquery),
        _ => None,
    }
}

/// True where a sub-query speaks of a column that the plan it stands in does not read.
fn is_far(subquery: &Subquery, around: &LogicalPlan) -> bool {
    let is_read = |expr: &Expr| match expr {
        Expr::OuterReferenceColumn(_, column) => {
            around.inputs().iter().any(|input| input.schema().maybe_index_of_column(column).is_some())
        }
        _ => true,
    };
    !subquery.outer_ref_columns.iter().all(is_read)
}
