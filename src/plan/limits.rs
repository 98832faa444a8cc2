//! ORDER BY … LIMIT and DISTINCT ON as the first rows of a ROW_NUMBER; an ORDER BY alone means nothing for a table and is
//! left out, as is the LIMIT of an EXISTS.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::Sort as Order;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, ExprFunctionExt, FetchType, Limit, LogicalPlan, LogicalPlanBuilder, Projection,
    SkipType, Sort, lit,
};
use datafusion::optimizer::AnalyzerRule;

/// Rewrites limits; runs before type coercion.
#[derive(Debug)]
pub struct Limits;

impl AnalyzerRule for Limits {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_down_with_subqueries(|plan| {
            let plan = plan.map_expressions(|expr| expr.transform_up(|expr| Ok(exists_without_limit(expr))))?;
            plan.transform_data(written_out)
        })?;
        if rewritten.transformed { rewritten.data.recompute_schema() } else { Ok(rewritten.data) }
    }

    fn name(&self) -> &str {
        "limits"
    }
}

/// One row is as good as many for EXISTS.
fn exists_without_limit(expr: Expr) -> Transformed<Expr> {
    let Expr::Exists(mut exists) = expr else { return Transformed::no(expr) };
    let input = match exists.subquery.subquery.as_ref() {
        LogicalPlan::Limit(limit) if matches!(limits(limit), Some((0, most)) if most > 0) => Arc::clone(&limit.input),
        _ => return Transformed::no(Expr::Exists(exists)),
    };
    exists.subquery.subquery = input;
    Transformed::yes(Expr::Exists(exists))
}

fn written_out(mut plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    // One with a limit of its own was put in for a purpose.
    while let LogicalPlan::Sort(Sort { input, fetch: None, .. }) = plan {
        plan = Arc::unwrap_or_clone(input);
        changed = true;
    }
    let first = match &plan {
        LogicalPlan::Limit(limit) => match limits(limit) {
            Some((skipped, most)) => of_sorted(&limit.input, skipped, most)?,
            None => None,
        },
        LogicalPlan::Distinct(Distinct::On(DistinctOn {
            on_expr,
            select_expr,
            sort_expr: Some(order),
            input,
            schema,
        })) => {
            // Within one of them they are all alike.
            let order = order.iter().filter(|sort| !on_expr.contains(&sort.expr)).cloned().collect();
            let rows = first_rows(input, on_expr.clone(), order, 0, 1)?;
            let columns = select_expr.iter().zip(schema.iter());
            let columns =
                columns.map(|(expr, (relation, field))| expr.clone().alias_qualified(relation.cloned(), field.name()));
            Some(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(rows))?))
        }
        _ => None,
    };
    Ok(match first {
        Some(first) => Transformed::yes(first),
        None => Transformed::new_transformed(plan, changed),
    })
}

/// How many rows are left out and how many are then kept, where that is known.
fn limits(limit: &Limit) -> Option<(usize, usize)> {
    match (limit.get_skip_type(), limit.get_fetch_type()) {
        (Ok(SkipType::Literal(skipped)), Ok(FetchType::Literal(Some(most)))) => Some((skipped, most)),
        _ => None,
    }
}

/// The rows of a sort behind projections, from one place on.
fn of_sorted(plan: &LogicalPlan, skipped: usize, most: usize) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Sort(sort) => Some(first_rows(&sort.input, vec![], sort.expr.clone(), skipped, most)?),
        LogicalPlan::Projection(projection) => match of_sorted(&projection.input, skipped, most)? {
            Some(rows) => Some(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(rows))?)),
            None => None,
        },
        _ => None,
    })
}

fn first_rows(
    input: &Arc<LogicalPlan>,
    partition: Vec<Expr>,
    order: Vec<Order>,
    skipped: usize,
    most: usize,
) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let number = row_number().partition_by(partition).order_by(order).build()?;
    let place = Expr::Column(Column::from_name(number.schema_name().to_string()));
    let mut kept = place.clone().lt_eq(lit(skipped.saturating_add(most) as u64));
    if skipped > 0 {
        kept = kept.and(place.gt(lit(skipped as u64)));
    }
    LogicalPlanBuilder::from(Arc::clone(input)).window(vec![number])?.filter(kept)?.project(columns)?.build()
}
