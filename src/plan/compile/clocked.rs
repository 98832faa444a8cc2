//! The clock anywhere in an expression: each comparison with it becomes a boolean column below, which the clock turns; what
//! is left of it becomes a column of the one row of [`NodeKind::ClockRow`], which meets every other row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit, not};

use super::{Compiler, Refusal, Relation, scalar_over};
use crate::plan::clock::{self, ClockBound, ClockSide, Comparison};
use crate::plan::codes;
use crate::plan::flow::{JoinKind, NodeIndex, NodeKind};

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
        let relation = self.with_flags(relation, columns, &comparisons)?;
        self.with_clock_row(relation, place)
    }

    /// The columns with what stands for comparisons resolved.
    fn with_flags(
        &mut self,
        relation: Relation,
        columns: Vec<Expr>,
        comparisons: &[Comparing],
    ) -> Result<Relation, Refusal> {
        if comparisons.is_empty() {
            return Ok(relation);
        }
        // Below stands what the columns and the comparisons need, and no more: rows are kept until they have turned.
        let (needed, kept) = below_comparisons(&columns, comparisons)?;
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

    /// The columns with values of the clock, if any reads them, out of one row.
    fn with_clock_row(&mut self, relation: Relation, place: &str) -> Result<Relation, Refusal> {
        let mut values: Vec<Expr> = Vec::new();
        for column in &relation.columns {
            if !take_steps(column, &mut values)? {
                return Err(Refusal::new(
                    codes::CLOCK_PLACE,
                    format!("this use of NOW() or CURRENT_DATE in {place} does not stream"),
                    "compare a column, alone on one side, with NOW() or CURRENT_DATE plus or minus an interval, or take a \
                     value that moves in steps: CURRENT_DATE, date_trunc('hour', NOW())",
                ));
            }
        }
        if values.is_empty() {
            return Ok(relation);
        }
        let columns = relation.columns.clone();
        let (needed, _) = below_comparisons(&columns, [])?;
        let places: HashMap<Expr, usize> = needed.iter().cloned().zip(0..).collect();
        // A row of nothing would be no row: what reads the clock alone still says who has it.
        let needed = if needed.is_empty() { vec![lit(true)] } else { needed };
        let left = self.narrow(Relation { columns: needed, ..relation })?.node;
        let right = self.clock_row(&values)?;
        let node = self.beside_one_row(JoinKind::Inner, left, right)?;
        let first_value = self.facts[left].columns.fields().len();
        let resolve = |expr: Expr| {
            let value = values.iter().position(|value| *value == expr).map(|value| first_value + value);
            Ok(match value.or_else(|| places.get(&expr).copied()) {
                Some(index) => Transformed::new(Expr::Column(self.column(node, index)), true, TreeNodeRecursion::Jump),
                None => Transformed::no(expr),
            })
        };
        let columns = columns.into_iter().map(|column| Ok(column.transform_down(resolve)?.data));
        let columns = columns.collect::<Result<Vec<_>, Refusal>>()?;
        Ok(Relation { node, columns, filters: vec![], bounds: vec![] })
    }

    /// One row with these values of the clock.
    fn clock_row(&mut self, values: &[Expr]) -> Result<NodeIndex, Refusal> {
        let schema: SchemaRef = Arc::new(clock::clock_schema(self.timezone));
        let mut steps = Vec::new();
        for value in values {
            let (clock, stepped) = clock::clock_side(value).map_err(|message| {
                Refusal::new(codes::CLOCK_STEPS, message, "take CURRENT_DATE or date_trunc('hour', NOW())")
            })?;
            let row = scalar_over(&schema, &clock)?;
            let (side, clock_text) = (ClockSide::Clock(Arc::clone(&row.expr)), clock.to_string());
            steps.push(ClockBound { row, comparison: Comparison::AtLeast, clock: side, clock_text, stepped });
        }
        let texts: Vec<String> = steps.iter().map(ClockBound::text).collect();
        let fields: Vec<Field> = (steps.iter().zip(values))
            .map(|(step, value)| Field::new(value.schema_name().to_string(), step.row.data_type.clone(), true))
            .collect();
        let text = format!("clock row {texts:?} {}", self.timezone.name());
        Ok(self.one_row(&text, fields, NodeKind::ClockRow { steps }))
    }

    fn clock_flags(&mut self, input: NodeIndex, flags: Vec<ClockBound>) -> NodeIndex {
        let texts: Vec<String> = flags.iter().map(ClockBound::text).collect();
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

/// Takes the largest parts of an expression that are values of the clock and move in steps. False where something else of
/// it reads the clock.
fn take_steps(expr: &Expr, values: &mut Vec<Expr>) -> Result<bool, DataFusionError> {
    let mut all = true;
    expr.apply(|expr| {
        if !clock::reads_clock(expr) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if matches!(clock::clock_side(expr), Ok((_, true))) {
            if !values.contains(expr) {
                values.push(expr.clone());
            }
            return Ok(TreeNodeRecursion::Jump);
        }
        all &= !clock::is_clock(expr);
        Ok(if all { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(all)
}

/// The comparisons with the clock that a condition is, where rows can be followed by them: a side that the clock moves back and
/// forth is a value of the clock like any other, as far as it moves in steps.
pub(super) fn comparisons_of(expr: &Expr) -> Option<Vec<Comparing>> {
    let parts = clock::split_comparison(expr)?;
    let follows = |(_, _, clock_side): &Comparing| {
        clock::clock_side(clock_side).is_ok() || !take_steps(clock_side, &mut Vec::new()).unwrap_or(false)
    };
    parts.iter().all(follows).then_some(parts)
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
        let Some(parts) = comparisons_of(&positive) else { return Ok(Transformed::no(expr)) };
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
