//! Constants in FROM: rows that no stream gives. Joined, they are nothing but values in the place of columns: of one row, or
//! of the row that a key says. Else they are lists over the one row that always is there, taken apart.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::Field;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{JoinType, ScalarValue};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Values, lit};

use super::{Compiler, Refusal, Relation, substitute};
use crate::plan::codes;
use crate::plan::flow::{NodeIndex, NodeKind};

impl Compiler<'_> {
    /// `VALUES (…), (…)`.
    pub(super) fn values(&mut self, values: &Values) -> Result<Relation, Refusal> {
        let mut lists = Vec::new();
        for (index, field) in values.schema.fields().iter().enumerate() {
            let cells = values.values.iter().map(|row| match constant(&row[index]) {
                Some(value) => Ok(value.cast_to(field.data_type())?),
                None => Err(Refusal::new(
                    codes::NO_STREAM,
                    format!("`{}` in VALUES is no constant", row[index]),
                    "write numbers, texts and dates there",
                )
                .at("values")),
            });
            let cells = cells.collect::<Result<Vec<ScalarValue>, Refusal>>()?;
            lists.push(lit(ScalarValue::List(ScalarValue::new_list(&cells, field.data_type(), true))));
        }
        let width = lists.len();
        let seed = self.one();
        self.taken_apart(Relation { columns: lists, ..seed }, (0..width).collect(), false)
    }

    /// The row without columns that `SELECT 1` is about.
    pub(super) fn one(&mut self) -> Relation {
        let node = self.seed();
        Relation { node, columns: vec![], filters: vec![], bounds: vec![] }
    }

    /// A join with constants, which become columns: the values of one row, or those of the row with a key. None where rows
    /// would become several.
    pub(super) fn with_constants(&mut self, join: &Join) -> Result<Option<Relation>, Refusal> {
        let rows = (constant_rows(&join.left)?, constant_rows(&join.right)?);
        let (plan, constants, rows, is_before) = match rows {
            (None, Some(rows)) => (&join.left, &join.right, rows, false),
            (Some(rows), None) if join.join_type == JoinType::Inner => (&join.right, &join.left, rows, true),
            _ => return Ok(None),
        };
        let of_plan = |pair: &(Expr, Expr)| if is_before { pair.1.clone() } else { pair.0.clone() };
        let of_constants = |pair: &(Expr, Expr)| if is_before { pair.0.clone() } else { pair.1.clone() };
        let is_bare = join.filter.is_none();
        let mut relation = self.relation(plan)?;
        let row = match (rows.as_slice(), join.on.as_slice(), join.join_type) {
            ([row], _, JoinType::Inner) => row.clone(),
            ([row], [], JoinType::Left) if is_bare => row.clone(),
            (rows, [pair], JoinType::Inner | JoinType::Left) if is_bare || join.join_type == JoinType::Inner => {
                let key = substitute(&of_plan(pair), plan.schema(), &relation.columns)?;
                let Expr::Column(column) = of_constants(pair) else { return Ok(None) };
                let Some(keys) = different(rows, constants.schema().index_of_column(&column)?) else { return Ok(None) };
                by_key(&key, &keys, rows)
            }
            _ => return Ok(None),
        };
        let place = if is_before { 0 } else { relation.columns.len() };
        relation.columns.splice(place..place, row);
        if join.join_type == JoinType::Inner {
            let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
            for condition in equal.chain(join.filter.clone()) {
                self.push_filter(&mut relation, &condition, &join.schema)?;
            }
        }
        Ok(Some(relation))
    }

    /// True of rows that no stream gives: they are as few as the query says.
    pub(super) fn is_constant(&self, node: NodeIndex) -> bool {
        let node = &self.nodes[node];
        match node.kind {
            NodeKind::Source { .. } => false,
            _ => node.inputs.iter().all(|input| self.is_constant(*input)),
        }
    }
}

/// More rows are kept as a table.
const MOST_ROWS: usize = 200;

/// The values of a plan that reads nothing.
fn constant_rows(plan: &LogicalPlan) -> Result<Option<Vec<Vec<Expr>>>, Refusal> {
    Ok(match plan {
        LogicalPlan::SubqueryAlias(alias) => constant_rows(&alias.input)?,
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Some(vec![vec![]]),
        LogicalPlan::Values(values) if values.values.len() <= MOST_ROWS => {
            let cell =
                |(cell, field): (&Expr, &Arc<Field>)| Some(lit(constant(cell)?.cast_to(field.data_type()).ok()?));
            let row = |row: &Vec<Expr>| row.iter().zip(values.schema.fields()).map(cell).collect();
            values.values.iter().map(row).collect()
        }
        LogicalPlan::Projection(projection) => match constant_rows(&projection.input)? {
            Some(rows) if !projection.expr.iter().any(has_query) => {
                let value = |row: &Vec<Expr>| {
                    let exprs = projection.expr.iter();
                    exprs.map(|expr| substitute(expr, projection.input.schema(), row)).collect::<Result<_, _>>()
                };
                Some(rows.iter().map(value).collect::<Result<_, Refusal>>()?)
            }
            _ => None,
        },
        _ => None,
    })
}

/// The keys of rows, all different where they are not NULL.
fn different(rows: &[Vec<Expr>], index: usize) -> Option<Vec<ScalarValue>> {
    let keys = rows.iter().map(|row| constant(&row[index])).collect::<Option<Vec<ScalarValue>>>()?;
    let known: Vec<&ScalarValue> = keys.iter().filter(|key| !key.is_null()).collect();
    let are_different = known.iter().collect::<HashSet<_>>().len() == known.len();
    are_different.then_some(keys)
}

/// The columns of the row whose key is that value; NULL where there is none.
fn by_key(value: &Expr, keys: &[ScalarValue], rows: &[Vec<Expr>]) -> Vec<Expr> {
    let width = rows.first().map_or(0, Vec::len);
    let column = |column: usize| {
        let known = keys.iter().zip(rows).filter(|(key, _)| !key.is_null());
        let cases = known.map(|(key, row)| {
            let is_it = value.clone().eq(lit(key.clone()));
            (Box::new(is_it), Box::new(row[column].clone()))
        });
        Expr::Case(Case::new(None, cases.collect(), None))
    };
    (0..width).map(column).collect()
}

fn has_query(expr: &Expr) -> bool {
    let is_query = |expr: &Expr| Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_)));
    expr.exists(is_query).unwrap_or(true)
}

/// The value that an expression always has.
pub(super) fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Alias(alias) => constant(&alias.expr),
        Expr::Cast(cast) => constant(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
        _ => None,
    }
}

/// True of a list that is the same for every row and has nothing twice, and no NULL.
pub(super) fn is_of_different(list: &Expr) -> bool {
    let Some(ScalarValue::List(list)) = constant(list) else { return false };
    let elements = list.value(0);
    let mut seen = HashSet::new();
    (0..elements.len()).all(|index| {
        let element = ScalarValue::try_from_array(&elements, index);
        element.is_ok_and(|element| !element.is_null() && seen.insert(element))
    })
}
