//! Grouping sets without a part of the tag's key: their rows have NULL there and are nobody's.

use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Expr, GroupingSet, LogicalPlan};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::flow::FlowPlan;
use crate::plan::sql::text::SqlText;

/// A warning for the first column of the key that some grouping set is without.
pub(crate) fn nobodys(text: &SqlText<'_>, plan: &LogicalPlan, flow: &FlowPlan) -> Option<Diagnostic> {
    let column = flow.key.iter().find(|column| is_missing(plan, column.index))?;
    let name = &column.name;
    let span = text.find_word(&["rollup", "cube", "grouping"]).unwrap_or_else(|| text.first_word());
    let message =
        format!("the rows of the grouping sets without `{name}` have NULL in the key, are nobody's and left out");
    let help = format!("give them a tag of their own, grouped without `{name}`");
    Some(text.warning(codes::NULL_KEY, span, message).help(help))
}

/// True where the column of a plan is a grouping key that some set is without.
fn is_missing(plan: &LogicalPlan, index: usize) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_missing(&alias.input, index),
        LogicalPlan::Filter(filter) => is_missing(&filter.input, index),
        LogicalPlan::Projection(projection) => {
            let Some(Expr::Column(column)) = projection.expr.get(index).map(|expr| expr.clone().unalias()) else {
                return false;
            };
            let below = projection.input.schema().maybe_index_of_column(&column);
            below.is_some_and(|below| is_missing(&projection.input, below))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else { return false };
            let keys = grouping_set_to_exprlist(&aggregate.group_expr).unwrap_or_default();
            let Some(key) = keys.get(index) else { return false };
            match sets {
                GroupingSet::Rollup(_) | GroupingSet::Cube(_) => true,
                GroupingSet::GroupingSets(sets) => sets.iter().any(|set| !set.contains(key)),
            }
        }
        _ => false,
    }
}
