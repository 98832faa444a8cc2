//! Ties: an ORDER BY that leaves open which of two rows is the first.

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Window};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::text::SqlText;

/// Columns that an order leaves open, in words.
const MOST_NAMED: usize = 3;

/// Warnings for every ROW_NUMBER of an optimised plan whose order does not decide all columns that are read of its rows.
pub(crate) fn left_open(text: &SqlText<'_>, plan: &LogicalPlan) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    // What cannot be walked has been told as an error.
    let _ = plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::Window(window) = plan {
            for function in window.window_expr.iter().filter_map(numbering) {
                warnings.extend(warning(text, &open_columns(window, function)));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    warnings
}

fn numbering(expr: &Expr) -> Option<&WindowFunction> {
    let named = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        expr => expr,
    };
    let Expr::WindowFunction(function) = named else { return None };
    (function.fun.name() == "row_number").then_some(function.as_ref())
}

/// The input's columns that may differ between two rows which the order takes as equal.
fn open_columns(window: &Window, function: &WindowFunction) -> Vec<String> {
    let schema = window.input.schema();
    let params = &function.params;
    let keys = params.partition_by.iter().chain(params.order_by.iter().map(|sort| &sort.expr));
    let mut decided: BTreeSet<usize> = keys
        .filter_map(|key| match key {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        })
        .collect();
    let mut order = params.order_by.iter().map(|sort| &sort.expr).filter(|key| !params.partition_by.contains(key));
    if order.any(|key| matches!(key, Expr::Column(column) if names_one_row(&column.name))) {
        return Vec::new();
    }
    // Groups of an aggregate are known by their keys.
    for dependence in schema.functional_dependencies().iter() {
        if dependence.source_indices.iter().all(|index| decided.contains(index)) {
            decided.extend(&dependence.target_indices);
        }
    }
    let open = (0..schema.fields().len()).filter(|index| !decided.contains(index));
    open.map(|index| schema.field(index).name().clone()).collect()
}

/// Schemas do not say which columns are unique; an id that is ordered by is meant to be.
fn names_one_row(column: &str) -> bool {
    let column = column.to_lowercase();
    column == "_offset" || column == "id" || column.ends_with("_id") || column.ends_with("_no")
}

fn warning(text: &SqlText<'_>, open: &[String]) -> Option<Diagnostic> {
    let (named, more) = open.split_at(open.len().min(MOST_NAMED));
    let named = named.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    // Where a view does it, the view is told.
    let span = text.find_word(&["row_number", "limit", "distinct on"]).filter(|_| !open.is_empty())?;
    let message =
        format!("rows that are equal in ORDER BY may differ in {named}{more}: which is the first is left open");
    Some(
        text.warning(codes::TIES, span, message)
            .help("end the ORDER BY with a column that tells rows apart: an id, or `_offset`"),
    )
}
