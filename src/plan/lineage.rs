//! Which columns of streams each column of a query is computed of.
//!
//! Enters: an optimised logical plan. Leaves: for every column of it the columns that its value is made of, and all
//! columns that are read, those that only decide which rows there are included.

use std::collections::BTreeSet;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan};

/// A column of a stream: the stream's name, then the column's.
pub type Origin = (String, String);

/// For each column of a plan, in order, what its value is made of.
pub fn lineage(plan: &LogicalPlan) -> Vec<BTreeSet<Origin>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.table_name.table();
            let fields = scan.projected_schema.fields().iter();
            fields.map(|field| BTreeSet::from([(table.to_string(), field.name().clone())])).collect()
        }
        LogicalPlan::Projection(projection) => of_all(&projection.expr, &projection.input),
        LogicalPlan::Aggregate(aggregate)
            if aggregate.schema.fields().len() == aggregate.group_expr.len() + aggregate.aggr_expr.len() =>
        {
            let mut found = of_all(&aggregate.group_expr, &aggregate.input);
            found.extend(of_all(&aggregate.aggr_expr, &aggregate.input));
            found
        }
        LogicalPlan::Window(window) => {
            let mut found = lineage(&window.input);
            found.extend(of_all(&window.window_expr, &window.input));
            found
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (lineage(&join.left), lineage(&join.right));
            match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti => left,
                JoinType::RightSemi | JoinType::RightAnti => right,
                // What a mark says is made of the other side's rows.
                JoinType::LeftMark => with_mark(left, right),
                JoinType::RightMark => with_mark(right, left),
                _ => left.into_iter().chain(right).collect(),
            }
        }
        LogicalPlan::Union(union) => {
            let inputs: Vec<Vec<BTreeSet<Origin>>> = union.inputs.iter().map(|input| lineage(input)).collect();
            let at = |place: usize| inputs.iter().filter_map(|input| input.get(place)).flatten().cloned().collect();
            (0..union.schema.fields().len()).map(at).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => lineage(&alias.input),
        LogicalPlan::Filter(filter) => lineage(&filter.input),
        LogicalPlan::Sort(sort) => lineage(&sort.input),
        LogicalPlan::Limit(limit) => lineage(&limit.input),
        other => by_name(other),
    }
}

/// All columns of streams that a plan reads.
pub fn columns_read(plan: &LogicalPlan) -> BTreeSet<Origin> {
    let mut found = BTreeSet::new();
    // The visit itself never fails.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(_) = node {
            found.extend(lineage(node).into_iter().flatten());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn with_mark(side: Vec<BTreeSet<Origin>>, other: Vec<BTreeSet<Origin>>) -> Vec<BTreeSet<Origin>> {
    side.into_iter().chain([other.into_iter().flatten().collect()]).collect()
}

fn of_all(expressions: &[Expr], input: &LogicalPlan) -> Vec<BTreeSet<Origin>> {
    let below = lineage(input);
    expressions.iter().map(|expression| of(expression, input, &below)).collect()
}

fn of(expression: &Expr, input: &LogicalPlan, below: &[BTreeSet<Origin>]) -> BTreeSet<Origin> {
    let mut found = BTreeSet::new();
    let _ = expression.apply(|part| {
        match part {
            Expr::Column(column) => found.extend(of_column(column, input, below)),
            Expr::ScalarSubquery(query) => found.extend(lineage(&query.subquery).into_iter().flatten()),
            Expr::Exists(exists) => found.extend(columns_read(&exists.subquery.subquery)),
            Expr::InSubquery(query) => found.extend(lineage(&query.subquery.subquery).into_iter().flatten()),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn of_column(column: &Column, input: &LogicalPlan, below: &[BTreeSet<Origin>]) -> BTreeSet<Origin> {
    let place = input.schema().index_of_column(column).ok();
    place.and_then(|place| below.get(place)).cloned().unwrap_or_default()
}

/// Of a node that is like no other: what is called alike below, else all of it.
fn by_name(plan: &LogicalPlan) -> Vec<BTreeSet<Origin>> {
    let inputs: Vec<(&LogicalPlan, Vec<BTreeSet<Origin>>)> =
        plan.inputs().into_iter().map(|input| (input, lineage(input))).collect();
    let of_field = |name: &String| {
        let alike = inputs.iter().find_map(|(input, found)| {
            let place = input.schema().fields().iter().position(|field| field.name() == name)?;
            found.get(place).cloned()
        });
        alike.unwrap_or_else(|| inputs.iter().flat_map(|(_, found)| found.iter().flatten().cloned()).collect())
    };
    plan.schema().fields().iter().map(|field| of_field(field.name())).collect()
}
