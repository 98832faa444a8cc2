//! Comparisons with the clock anywhere in an expression: each becomes a boolean column below it, which the clock turns.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, not};

use super::{Compiler, Refusal, Relation};
use crate::plan::clock::{self, Comparison};
use crate::plan::codes;
use crate::plan::flow::{NodeIndex, NodeKind};

/// A comparison with the clock: row side, how, clock side.
pub(super) type Comparing = (Expr, Comparison, Expr);

impl Compiler<'_> {
    /// The same columns without the clock: its comparisons are columns of the node from here on.
    pub(super) fn without_clock(&mut self, relation: Relation, place: &str) -> Result<Relation, Refusal> {
        if !relation.columns.iter().any(clock::reads_clock) {
            return Ok(relation);
        }
        let mut comparisons: Vec<Comparing> = Vec::new();
        let columns = relation
            .columns
            .iter()
            .map(|column| take_comparisons(column, &mut comparisons))
            .collect::<Result<Vec<_>, _>>()?;
        if columns.iter().any(clock::reads_clock) {
            return Err(Refusal::new(
                codes::CLOCK_PLACE,
                format!("this use of NOW() or CURRENT_DATE in {place} does not stream"),
                "compare a column, alone on one side, with NOW() or CURRENT_DATE plus or minus an interval",
            ));
        }
        // Below stands what the columns and the comparisons need, and no more: rows are kept until they have turned.
        let (needed, kept) = below_comparisons(&columns, &comparisons)?;
        let places: HashMap<Expr, usize> =
            needed.iter().enumerate().map(|(index, expr)| (expr.clone(), index)).collect();
        let below = self.narrow(Relation { columns: needed, ..relation })?.node;
        let bounds = comparisons
            .iter()
            .map(|(row, comparison, clock_side)| {
                let row = Expr::Column(self.column(below, places[row]));
                self.bound(below, &row, *comparison, clock_side)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let width = self.facts[below].columns.fields().len();
        let node = self.clock_flags(below, bounds);
        let resolve = |expr: Expr| {
            let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
            let index = match flag_number(column) {
                Some(flag) => width + flag,
                None => *places
                    .get(&expr)
                    .filter(|place| **place < kept)
                    .ok_or_else(|| DataFusionError::Internal(format!("column {column} is lost below the clock")))?,
            };
            Ok(Transformed::yes(Expr::Column(self.column(node, index))))
        };
        let columns = columns.into_iter().map(|column| Ok(column.transform_up(resolve)?.data));
        let columns = columns.collect::<Result<Vec<_>, Refusal>>()?;
        Ok(Relation { node, columns, filters: vec![], bounds: vec![] })
    }

    fn clock_flags(&mut self, input: NodeIndex, flags: Vec<clock::ClockBound>) -> NodeIndex {
        let texts: Vec<String> = flags.iter().map(clock::ClockBound::text).collect();
        let text = format!("flags {} {texts:?} {}", self.facts[input].output, self.timezone.name());
        let mut fields: Vec<Field> =
            self.nodes[input].schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        fields.extend((0..flags.len()).map(|number| Field::new(format!("clock_{number}"), DataType::Boolean, true)));
        let unique = self.facts[input].unique.clone();
        self.over(input, &text, NodeKind::ClockFlags { flags }, fields, unique)
    }
}

/// What stands for a comparison until its column is known.
const FLAG: &str = "#clock";

pub(super) fn flag_column(number: usize) -> Column {
    Column::from_name(format!("{FLAG}{number}"))
}

pub(super) fn flag_number(column: &Column) -> Option<usize> {
    column.name.strip_prefix(FLAG)?.parse().ok()
}

/// What must stand below comparisons: the columns that `exprs` read, then the row sides; and how many the former are.
pub(super) fn below_comparisons<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    comparisons: impl IntoIterator<Item = &'a Comparing>,
) -> Result<(Vec<Expr>, usize), DataFusionError> {
    let mut needed: Vec<Expr> = Vec::new();
    for expr in exprs {
        expr.apply(|expr| {
            if matches!(expr, Expr::Column(column) if flag_number(column).is_none()) && !needed.contains(expr) {
                needed.push(expr.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let read = needed.len();
    for (row, ..) in comparisons {
        if !needed.contains(row) {
            needed.push(row.clone());
        }
    }
    Ok((needed, read))
}

/// The expression with a placeholder for each comparison with the clock.
pub(super) fn take_comparisons(expr: &Expr, comparisons: &mut Vec<Comparing>) -> Result<Expr, Refusal> {
    let replaced = expr.clone().transform_down(|expr| {
        if !clock::reads_clock(&expr) {
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        }
        let (positive, negated) = match &expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::NotEq, right }) => {
                let equal = BinaryExpr { left: left.clone(), op: Operator::Eq, right: right.clone() };
                (Expr::BinaryExpr(equal), true)
            }
            Expr::Between(between) if between.negated => {
                let mut within = between.clone();
                within.negated = false;
                (Expr::Between(within), true)
            }
            _ => (expr.clone(), false),
        };
        let Some(parts) = clock::split_comparison(&positive) else { return Ok(Transformed::no(expr)) };
        let flags = parts.into_iter().map(|part| {
            let number = comparisons.iter().position(|known| *known == part).unwrap_or_else(|| {
                comparisons.push(part);
                comparisons.len() - 1
            });
            Expr::Column(flag_column(number))
        });
        let Some(all) = flags.reduce(Expr::and) else { return Ok(Transformed::no(expr)) };
        let all = if negated { not(all) } else { all };
        Ok(Transformed::new(all, true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}
