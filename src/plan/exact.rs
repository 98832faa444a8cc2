//! Estimates of percentiles as exact ones: a sketch comes out otherwise when the same rows come in another order, and
//! nothing can be taken back from it. The values of a key are kept anyway.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::functions_aggregate::{median::median_udaf, percentile_cont::percentile_cont_udaf};
use datafusion::logical_expr::{AggregateUDF, Cast, Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::each_expression;

/// Computes approx_median and approx_percentile_cont exactly, in their own type; runs before type coercion.
#[derive(Debug)]
pub struct ExactPercentiles;

impl AnalyzerRule for ExactPercentiles {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        each_expression(plan, |expr, _| Ok(exact(expr)))
    }

    fn name(&self) -> &str {
        "exact_percentiles"
    }
}

/// The exact function and how many arguments it takes: a sketch's size is none of them.
fn exact_function(estimate: &AggregateUDF) -> Option<(Arc<AggregateUDF>, usize)> {
    match estimate.name() {
        "approx_median" => Some((median_udaf(), 1)),
        "approx_percentile_cont" => Some((percentile_cont_udaf(), 2)),
        _ => None,
    }
}

fn exact(expr: Expr) -> Transformed<Expr> {
    let Expr::AggregateFunction(mut call) = expr else { return Transformed::no(expr) };
    let Some((function, arguments)) = exact_function(&call.func) else {
        return Transformed::no(Expr::AggregateFunction(call));
    };
    let as_double = |value: &mut Expr| *value = Expr::Cast(Cast::new(Box::new(value.clone()), DataType::Float64));
    call.func = function;
    call.params.args.truncate(arguments);
    call.params.args.iter_mut().take(1).for_each(as_double);
    call.params.order_by.iter_mut().for_each(|sort| as_double(&mut sort.expr));
    Transformed::yes(Expr::AggregateFunction(call))
}
