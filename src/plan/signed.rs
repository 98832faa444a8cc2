//! Differences of row numbers and ranks below zero: DataFusion counts them without a sign, and 1 - 2 would be 2^64 - 1.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::each_expression;

/// Subtracts and negates unsigned numbers as BIGINT; runs before type coercion.
#[derive(Debug)]
pub struct SignedDifferences;

impl AnalyzerRule for SignedDifferences {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, |expr, schema| Ok(signed(expr, schema)))
    }

    fn name(&self) -> &str {
        "signed_differences"
    }
}

fn signed(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_unsigned = |expr: &Expr| expr.get_type(schema).is_ok_and(|found| found == DataType::UInt64);
    let as_bigint = |expr: Box<Expr>| Box::new(Expr::Cast(Cast::new(expr, DataType::Int64)));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right })
            if is_unsigned(&left) || is_unsigned(&right) =>
        {
            let cast = |side: Box<Expr>| if is_unsigned(&side) { as_bigint(side) } else { side };
            let (left, right) = (cast(left), cast(right));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }))
        }
        Expr::Negative(value) if is_unsigned(&value) => Transformed::yes(Expr::Negative(as_bigint(value))),
        other => Transformed::no(other),
    }
}
