//! What means something else in MySQL and Hive: the base of LOG, and casts to whole numbers, which cut here.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Query, Visit, Visitor};

use super::called;
use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::located::{self, Kind};
use crate::plan::sql::text::{SqlText, expression};

pub(super) fn find(
    text: &SqlText<'_>,
    query: &Query,
    plan: &LogicalPlan,
    plan_again: &dyn Fn(Query) -> Option<LogicalPlan>,
) -> Vec<Diagnostic> {
    let mut written = Written { text, found: Vec::new() };
    let _ = Visit::visit(query, &mut written);
    let mut found = written.found;
    let cuts = Kind { is_of: &cuts, instead: &of_nothing };
    for cast in located::find(query, plan, &cuts, plan_again) {
        let ast::Expr::Cast { expr, data_type, .. } = &cast else { continue };
        let message = format!("a cast to {data_type} cuts the fraction off: 99.9 becomes 99, and not 100 as in MySQL");
        let help =
            format!("say which is meant: `CAST(round({expr}) AS {data_type})` or `CAST(trunc({expr}) AS {data_type})`");
        found.push(text.warning(codes::CAST_TRUNCATES, text.expr(&cast), message).help(help));
    }
    found
}

/// Finds what the text alone tells.
struct Written<'a> {
    text: &'a SqlText<'a>,
    found: Vec<Diagnostic>,
}

impl Visitor for Written<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let (ast::Expr::Function(function), Some(&[value])) = (expr, called(expr, &["log"]).as_deref()) {
            let message = format!("`LOG({value})` has the base 10 here, and e in MySQL and Hive");
            let help = format!("say which is meant: `ln({value})` or `log10({value})`");
            self.found.push(self.text.warning(codes::LOG_BASE, self.text.call(function), message).help(help));
        }
        ControlFlow::Continue(())
    }
}

/// Functions after which nothing is left to cut, or of whose fraction nobody speaks.
const WHOLE: &[&str] = &["floor", "ceil", "round", "trunc", "date_part"];

/// A cast to a whole number that the author wrote, of what may have a fraction.
fn cuts(expr: &Expr, schema: &DFSchema) -> bool {
    let (target, inner) = match expr {
        Expr::Cast(cast) => (cast.field.data_type(), &cast.expr),
        Expr::TryCast(cast) => (cast.field.data_type(), &cast.expr),
        _ => return false,
    };
    let has_fraction = || match inner.get_type(schema) {
        Ok(DataType::Decimal128(_, scale)) => scale > 0,
        Ok(data_type) => data_type.is_floating(),
        Err(_) => false,
    };
    let is_whole = |expr: &Expr| matches!(expr, Expr::ScalarFunction(function) if WHOLE.contains(&function.name()));
    target.is_integer() && !is_whole(inner) && has_fraction()
}

/// A cast with nothing to cut.
fn of_nothing(expr: &ast::Expr) -> Option<ast::Expr> {
    let mut cast = expr.clone();
    let ast::Expr::Cast { expr: inner, .. } = &mut cast else { return None };
    **inner = expression("NULL")?;
    Some(cast)
}
