//! Lints of queries: what is right and yet likely not what its author wants.
//!
//! Functions that mean something else in the databases that people come from (`meanings`, `nulls`), columns that nobody
//! named (`stars`), and operators that keep more than they need to (`state`).

mod meanings;
mod nulls;
mod stars;
mod state;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{self, Query};

pub(crate) use self::stars::of_output;
pub(crate) use self::state::kept;
use crate::diagnostic::Diagnostic;
use crate::plan::sql::foreign::arguments;
use crate::plan::sql::text::SqlText;

/// What a query, and its plan with the types as the author wrote them, are told of.
pub(crate) fn find(
    text: &SqlText<'_>,
    query: &Query,
    plan: &LogicalPlan,
    plan_again: &dyn Fn(Query) -> Option<LogicalPlan>,
) -> Vec<Diagnostic> {
    let mut found = meanings::find(text, query, plan, plan_again);
    found.extend(nulls::find(text, query, plan, plan_again));
    found
}

/// The arguments of a call of one of these functions, whatever its case.
fn called<'e>(expr: &'e ast::Expr, names: &[&str]) -> Option<Vec<&'e ast::Expr>> {
    let ast::Expr::Function(function) = expr else { return None };
    let name = function.name.to_string();
    names.iter().any(|known| name.eq_ignore_ascii_case(known)).then(|| arguments(function))
}
