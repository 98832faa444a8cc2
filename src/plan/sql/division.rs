//! Integers that are divided by integers: 1 / 3 = 0, which MySQL and Hive do not say.

use datafusion::common::DFSchema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Query};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::located::{self, Kind};
use crate::plan::sql::text::{SqlText, expression};

/// Warnings for divisions of two integers.
pub(crate) fn of_integers(
    text: &SqlText<'_>,
    query: &Query,
    plan: &LogicalPlan,
    plan_again: &dyn Fn(Query) -> Option<LogicalPlan>,
) -> Vec<Diagnostic> {
    let kind = Kind { is_of: &is_of_integers, instead: &of_a_double };
    let divisions = located::find(query, plan, &kind, plan_again);
    divisions
        .iter()
        .map(|division| {
            let message = "an integer divided by an integer gives an integer: 1 / 3 = 0";
            let warning = text.warning(codes::INTEGER_DIVISION, text.expr(division), message);
            warning.help(match division {
                ast::Expr::BinaryOp { left, right, .. } => {
                    format!("if a fraction is meant, write `CAST({left} AS DOUBLE) / {right}`")
                }
                _ => "if a fraction is meant, CAST one of them AS DOUBLE".to_string(),
            })
        })
        .collect()
}

fn is_of_integers(expr: &Expr, schema: &DFSchema) -> bool {
    let integer = |side: &Expr| side.get_type(schema).is_ok_and(|data_type| data_type.is_integer());
    matches!(expr, Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) if integer(left) && integer(right))
}

/// A division with its left side cast.
fn of_a_double(expr: &ast::Expr) -> Option<ast::Expr> {
    let ast::Expr::BinaryOp { left, op: BinaryOperator::Divide, right } = expr else { return None };
    let mut cast = expression("CAST(NULL AS DOUBLE)")?;
    if let ast::Expr::Cast { expr: inner, .. } = &mut cast {
        *inner = left.clone();
    }
    Some(ast::Expr::BinaryOp { left: Box::new(cast), op: BinaryOperator::Divide, right: right.clone() })
}
