//! `FROM orders, UNNEST(items) AS t(item)`: a join with the elements of each row's own list becomes the rows with their
//! lists written out, which is what it means. DataFusion plans the join and can neither optimise nor run it.

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{NullHandling, Result, ScalarValue, TableReference};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{ColumnUnnestList, Expr, Join, JoinType, LogicalPlan, Projection, Unnest};
use datafusion::optimizer::AnalyzerRule;

/// Rewrites lateral joins with UNNEST; runs before type coercion.
#[derive(Debug)]
pub struct LateralUnnests;

impl AnalyzerRule for LateralUnnests {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
            Ok(match written_out(join)? {
                Some(rows) => Transformed::yes(rows),
                None => Transformed::no(plan),
            })
        })?;
        if rewritten.transformed { rewritten.data.recompute_schema() } else { Ok(rewritten.data) }
    }

    fn name(&self) -> &str {
        "lateral_unnests"
    }
}

/// The lists of one row: projections over the elements, and the lists as expressions over the outer row.
struct Elements<'a> {
    projections: Vec<&'a Projection>,
    unnest: &'a Unnest,
    lists: &'a Projection,
}

fn elements(plan: &LogicalPlan) -> Option<Elements<'_>> {
    let mut projections = Vec::new();
    let mut plan = plan;
    loop {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => plan = &alias.input,
            LogicalPlan::Subquery(query) => plan = &query.subquery,
            LogicalPlan::Projection(projection) => {
                projections.push(projection);
                plan = &projection.input;
            }
            LogicalPlan::Unnest(unnest) => {
                let LogicalPlan::Projection(lists) = unnest.input.as_ref() else { return None };
                let is_one_row = matches!(lists.input.as_ref(), LogicalPlan::EmptyRelation(one) if one.produce_one_row);
                return is_one_row.then_some(Elements { projections, unnest, lists });
            }
            _ => return None,
        }
    }
}

fn written_out(join: &Join) -> Result<Option<LogicalPlan>> {
    let is_true = |filter: &Expr| matches!(filter, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left)
        || !join.on.is_empty()
        || !join.filter.as_ref().is_none_or(is_true)
    {
        return Ok(None);
    }
    let Some(Elements { projections, unnest, lists }) = elements(&join.right) else { return Ok(None) };
    let own = join.left.schema().columns();
    let mut inner: Vec<Expr> = own.iter().cloned().map(Expr::Column).collect();
    let names = NamePreserver::new_for_projection();
    for list in &lists.expr {
        let name = names.save(list);
        let of_row = |expr: Expr| match expr {
            Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
            other => Ok(Transformed::no(other)),
        };
        inner.push(name.restore(list.clone().transform_up(of_row)?.data));
    }
    let inner = LogicalPlan::Projection(Projection::try_new(inner, Arc::clone(&join.left))?);
    let mut options = unnest.options.clone();
    if join.join_type == JoinType::Left {
        // Rows without elements stay, with NULL for one.
        options.null_handling = NullHandling::PreserveAndExpandEmpty;
    }
    let rows = Unnest::try_new(Arc::new(inner), unnest.exec_columns.clone(), options)?;
    // The columns of the elements as the outermost projection calls them.
    let mut output: Vec<Expr> = unnest.schema.columns().into_iter().map(Expr::Column).collect();
    for projection in projections.iter().rev() {
        let below = projection.input.schema();
        let resolve = |expr: &Expr| {
            let resolved = expr.clone().transform_up(|expr| match &expr {
                Expr::Column(column) => Ok(Transformed::yes(output[below.index_of_column(column)?].clone())),
                _ => Ok(Transformed::no(expr)),
            })?;
            Ok(resolved.data.unalias_nested().data)
        };
        output = projection.expr.iter().map(resolve).collect::<Result<_>>()?;
    }
    let named = |(expr, (relation, field)): (Expr, (Option<&TableReference>, &Arc<Field>))| {
        expr.alias_qualified(relation.cloned(), field.name())
    };
    let mut columns: Vec<Expr> = own.into_iter().map(Expr::Column).collect::<Vec<_>>();
    columns.extend(output.into_iter().zip(join.right.schema().iter()).map(named));
    Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::Unnest(rows)))?)))
}

/// True where every list of an UNNEST is taken apart once, one level deep.
pub fn is_one_level(unnest: &Unnest) -> bool {
    let of_one = |(index, list): &(usize, ColumnUnnestList)| {
        list.depth == 1 && unnest.list_type_columns.iter().filter(|(other, _)| other == index).count() == 1
    };
    // Either both NULL and empty lists have a row or neither has.
    let is_even = unnest.options.preserve_nulls() == unnest.options.expand_empty_as_null();
    is_even && unnest.list_type_columns.iter().all(of_one)
}
