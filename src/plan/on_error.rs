//! What an expression that fails on a row does: a tag's plan in words that do not fail.
//!
//! With `null` every expression that may fail is guarded, so that it gives NULL. With `skip` the rows of which one fails
//! are left out below it, by [`Sound`], which needs rows that are records: what is computed of several has no place to
//! name and nothing to leave out. Both are plain expressions to operators, replays and batch queries.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::plan::guards::{failure, guard_value};
use crate::plan::rewriting::each_expression;
use crate::plan::sound::Sound;
use crate::tag::OnError;

/// An expression that may fail on what is no record, in the author's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRecord(pub String);

/// The plan of a tag with what its header says of failing rows; it is not optimised yet.
///
/// # Errors
/// What cannot be skipped.
pub fn guarded(
    plan: LogicalPlan,
    on_error: OnError,
    state: &SessionState,
) -> Result<std::result::Result<LogicalPlan, NoRecord>> {
    if on_error == OnError::Stop {
        return Ok(Ok(plan));
    }
    // Which casts there are, and of what types, is known once it is analysed.
    let mut plan = state.analyzer().execute_and_check(plan, state.config().options(), |_, _| {})?;
    if on_error == OnError::Skip {
        let mut refused = None;
        plan = plan.transform_up_with_subqueries(|plan| skip(plan, &mut refused))?.data;
        if let Some(refused) = refused {
            return Ok(Err(refused));
        }
    }
    Ok(Ok(each_expression(plan, guard_value)?))
}

/// Leaves the rows out below a node of which one of its expressions fails.
fn skip(plan: LogicalPlan, refused: &mut Option<NoRecord>) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let mut failures: Vec<(String, Expr)> = Vec::new();
    plan.apply_expressions(|expr| {
        if let Some(fails) = failure(expr, &schema)? {
            failures.push((expr.clone().unalias().to_string(), fails));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if failures.is_empty() || Sound::of(&plan).is_some() {
        return Ok(Transformed::no(plan));
    }
    let is_single = plan.inputs().len() == 1 && !failures.iter().any(|(_, fails)| holds_query(fails));
    let record = if is_single { records(plan.inputs()[0].clone())? } else { None };
    let Some(Records { stream, place, plan: input }) = record else {
        refused.get_or_insert_with(|| NoRecord(failures.remove(0).0));
        return Ok(Transformed::no(plan));
    };
    let (texts, failures) = failures.into_iter().unzip();
    let place = place.into_iter().map(Expr::Column).collect();
    let sound = Sound { stream, texts, failures, place, input }.into_plan();
    let before: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let mut over = plan.with_new_exprs(plan.expressions(), vec![sound])?;
    if over.schema().fields().len() != before.len() {
        // A filter gives the columns of its input, which may be more now.
        over = LogicalPlanBuilder::from(over).project(before)?.build()?;
    }
    Ok(Transformed::yes(over))
}

fn holds_query(expr: &Expr) -> bool {
    let is_query = |expr: &Expr| matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_));
    expr.exists(|expr| Ok(is_query(expr))).unwrap_or(true)
}

/// A plan of whose rows each is one record of a stream.
struct Records {
    stream: String,
    /// Partition, offset and broker time of the record.
    place: [Column; 3],
    plan: LogicalPlan,
}

/// The plan with the places of its records among its columns; `None` where its rows are something else.
fn records(plan: LogicalPlan) -> Result<Option<Records>> {
    match plan {
        LogicalPlan::TableScan(ref scan) => {
            let schema = scan.source.schema();
            let names = ["_partition", "_offset", "_timestamp"];
            let is_known = names.iter().all(|name| plan_column(plan.schema(), name) && schema.index_of(name).is_ok());
            let place = names.map(|name| Column::new(Some(scan.table_name.clone()), name));
            let stream = scan.table_name.table().to_string();
            Ok(is_known.then_some(Records { stream, place, plan }))
        }
        LogicalPlan::Filter(mut filter) => {
            let Some(below) = records(Arc::unwrap_or_clone(filter.input))? else { return Ok(None) };
            filter.input = Arc::new(below.plan);
            Ok(Some(Records { plan: LogicalPlan::Filter(filter), ..below }))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(below) = records(Arc::unwrap_or_clone(alias.input))? else { return Ok(None) };
            let place = below.place.map(|column| Column::new(Some(alias.alias.clone()), column.name));
            let plan = LogicalPlanBuilder::from(below.plan).alias(alias.alias)?.build()?;
            Ok(Some(Records { place, plan, ..below }))
        }
        LogicalPlan::Projection(projection) => {
            let Some(below) = records(Arc::unwrap_or_clone(projection.input))? else { return Ok(None) };
            // Names of their own: a query may give the columns of a stream other ones, and theirs to others.
            let names = ["#partition", "#offset", "#timestamp"];
            let is_new = |name: &str| !projection.schema.fields().iter().any(|field| field.name() == name);
            let mut exprs = projection.expr;
            let places = below.place.into_iter().zip(names).filter(|(_, name)| is_new(name));
            exprs.extend(places.map(|(column, name)| Expr::Column(column).alias(name)));
            let plan = LogicalPlanBuilder::from(below.plan).project(exprs)?.build()?;
            Ok(Some(Records { place: names.map(Column::from_name), plan, ..below }))
        }
        LogicalPlan::Extension(_) => {
            let Some(sound) = Sound::of(&plan).cloned() else { return Ok(None) };
            let Some(below) = records(sound.input.clone())? else { return Ok(None) };
            let plan = Sound { input: below.plan, ..sound }.into_plan();
            Ok(Some(Records { plan, ..below }))
        }
        _ => Ok(None),
    }
}

fn plan_column(schema: &DFSchema, name: &str) -> bool {
    schema.fields().iter().any(|field| field.name() == name)
}
