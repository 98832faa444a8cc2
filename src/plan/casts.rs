//! Expressions that differ by a CAST alone: DataFusion names both alike and refuses the query.
//!
//! `MAX(order_time)` beside `MAX(CAST(order_time AS DATE))` is planned again with every cast inside a function that does
//! nothing but bear the type in its name. The optimiser takes it away.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, SchemaError, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Value, VisitMut, VisitorMut, visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The function's name.
pub(crate) const TOLD_APART: &str = "#told_apart";

/// True where a query may be refused for its casts alone.
pub(crate) fn may_be_cause(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::SchemaError(error, _) => matches!(
            error.as_ref(),
            SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. }
        ),
        other => other.strip_backtrace().contains("have the same name"),
    }
}

/// True where groups of several sets are told by names alone, in which a cast is its column.
pub(crate) fn may_be_misread(query: &Query) -> bool {
    visit_expressions(query, |expr| match expr {
        ast::Expr::Rollup(_) | ast::Expr::Cube(_) | ast::Expr::GroupingSets(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Names every cast of a query by its type, and every change of the zone by its zone.
pub(crate) fn tell_apart(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Casts);
}

struct Casts;

impl VisitorMut for Casts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        let by = match &*expr {
            ast::Expr::Cast { data_type, kind, .. } => format!("{kind:?} {data_type}"),
            ast::Expr::AtTimeZone { time_zone, .. } => time_zone.to_string(),
            _ => return ControlFlow::Continue(()),
        };
        if let Some(call) = call(expr.clone(), by) {
            *expr = call;
        }
        ControlFlow::Continue(())
    }
}

fn call(value: ast::Expr, by: String) -> Option<ast::Expr> {
    let form = format!("\"{TOLD_APART}\"()");
    let mut call = Parser::new(&GenericDialect {}).try_with_sql(&form).ok()?.parse_expr().ok()?;
    let ast::Expr::Function(function) = &mut call else { return None };
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let by = ast::Expr::Value(Value::SingleQuotedString(by).into());
    list.args = [value, by].map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).to_vec();
    Some(call)
}

/// The function: its first argument.
pub(crate) fn told_apart() -> ScalarUDF {
    ScalarUDF::from(ToldApart { signature: Signature::any(2, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToldApart {
    signature: Signature,
}

impl ScalarUDFImpl for ToldApart {
    fn name(&self) -> &str {
        TOLD_APART
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(arguments[0].clone())
    }

    fn simplify(&self, mut arguments: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult, DataFusionError> {
        Ok(ExprSimplifyResult::Simplified(arguments.swap_remove(0)))
    }

    fn invoke_with_args(&self, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        match arguments.args.is_empty() {
            false => Ok(arguments.args.swap_remove(0)),
            true => internal_err!("{TOLD_APART} without arguments"),
        }
    }
}
