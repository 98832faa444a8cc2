//! NULLs that behave otherwise in MySQL and Hive: first in ORDER BY … DESC, left out by CONCAT, GREATEST and LEAST.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, OrderByExpr, OrderByOptions, Query, WindowType};

use super::called;
use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::located::{self, Kind};
use crate::plan::sql::null_keys::Origins;
use crate::plan::sql::text::{SqlText, expression};

/// Functions for which the order says which row is the first.
const RANKING: &[&str] =
    &["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "first_value", "nth_value"];

pub(super) fn find(
    text: &SqlText<'_>,
    query: &Query,
    plan: &LogicalPlan,
    plan_again: &dyn Fn(Query) -> Option<LogicalPlan>,
) -> Vec<Diagnostic> {
    // What a FULL JOIN has merged is not known; then nothing is said of what conditions look at.
    let origins = Origins::of(plan).unwrap_or_default();
    let may_be_null = |expr: &Expr, schema: &DFSchema| {
        let columns = expr.column_refs();
        let is_open = columns.is_empty() || columns.iter().any(|column| !origins.are_looked_at(&column.name));
        is_open && expr.nullable(schema).unwrap_or(false) && !matches!(expr, Expr::Literal(..))
    };
    let mut found = Vec::new();

    let begins_with_nulls = |expr: &Expr, schema: &DFSchema| {
        let Expr::WindowFunction(function) = expr else { return false };
        RANKING.contains(&function.fun.name())
            && function
                .params
                .order_by
                .iter()
                .any(|sort| !sort.asc && sort.nulls_first && may_be_null(&sort.expr, schema))
    };
    let ranked = Kind { is_of: &begins_with_nulls, instead: &with_nulls_last };
    for ranking in located::find(query, plan, &ranked, plan_again) {
        let Some(first) = descending(&ranking).next() else { continue };
        let message = format!("`{} DESC` puts NULLs first here, and last in MySQL and Hive", first.expr);
        let place = text.expr(&first.expr);
        let help = format!("write `{} DESC NULLS LAST`, or NULLS FIRST where that is meant", first.expr);
        found.push(text.warning(codes::NULLS_FIRST, place, message).help(help));
    }

    let skips = |names: &'static [&'static str]| {
        move |expr: &Expr, schema: &DFSchema| {
            let Expr::ScalarFunction(function) = expr else { return false };
            let is_null = |argument: &Expr| argument.get_type(schema).is_ok_and(|found| found == DataType::Null);
            names.contains(&function.name())
                && function.args.iter().any(|argument| may_be_null(argument, schema) && !is_null(argument))
        }
    };
    let is_concat = skips(&["concat"]);
    let concat = Kind { is_of: &is_concat, instead: &|expr| called(expr, &["concat"]).and_then(|_| expression("''")) };
    for call in located::find(query, plan, &concat, plan_again) {
        let parts = called(&call, &["concat"]).unwrap_or_default();
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        let message = "`CONCAT` leaves out what is NULL here, and is NULL as a whole in MySQL and Hive";
        let help = format!("write `{}` to get NULL, or COALESCE(…, '') around what may be NULL", parts.join(" || "));
        found.push(text.warning(codes::CONCAT_NULL, text.expr(&call), message).help(help));
    }
    let is_extreme = skips(&["greatest", "least"]);
    let first_argument = |expr: &ast::Expr| called(expr, &["greatest", "least"])?.first().map(|first| (*first).clone());
    let extreme = Kind { is_of: &is_extreme, instead: &first_argument };
    for call in located::find(query, plan, &extreme, plan_again) {
        let name = if called(&call, &["least"]).is_some() { "LEAST" } else { "GREATEST" };
        let message = format!("`{name}` leaves out what is NULL here, and is NULL as a whole in MySQL and Hive");
        let help = "say what a missing value counts as: COALESCE(…, 0); or guard it: CASE WHEN a IS NOT NULL AND b IS NOT NULL \
                    THEN … END";
        found.push(text.warning(codes::GREATEST_NULL, text.expr(&call), message).help(help));
    }
    found
}

/// The keys of a window's order that go down and do not say where NULLs are.
fn descending(expr: &ast::Expr) -> impl Iterator<Item = &OrderByExpr> {
    let over = match expr {
        ast::Expr::Function(function) => function.over.as_ref(),
        _ => None,
    };
    let order = match over {
        Some(WindowType::WindowSpec(window)) => window.order_by.as_slice(),
        _ => &[],
    };
    order.iter().filter(|key| is_open(&key.options))
}

fn is_open(options: &OrderByOptions) -> bool {
    options.asc == Some(false) && options.nulls_first.is_none()
}

/// The same function with NULLs at the end of what goes down.
fn with_nulls_last(expr: &ast::Expr) -> Option<ast::Expr> {
    descending(expr).next()?;
    let mut changed = expr.clone();
    if let ast::Expr::Function(function) = &mut changed
        && let Some(WindowType::WindowSpec(window)) = &mut function.over
    {
        for key in window.order_by.iter_mut().filter(|key| is_open(&key.options)) {
            key.options.nulls_first = Some(false);
        }
    }
    Some(changed)
}
