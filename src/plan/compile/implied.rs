//! Clock bounds that a join's condition carries from one side to the other.
//!
//! Where `a.t >= NOW() - 7d` keeps the rows of one side and `b.t >= a.t - 2d` must hold of a pair, a row of the other
//! side with `b.t + 2d < NOW() - 7d` can have no partner any more and never will again: it is dropped below the join.
//! The bound is taken a day looser than it could be, so that no change of a zone's clocks can make it wrong.

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, Operator};

use super::{Compiler, Relation};
use crate::plan::clock::{self, Comparison};
use crate::plan::flow::JoinKind;
use crate::plan::zone_days;

const DAY: i64 = 86_400_000_000_000;

/// `low + shift <= high` of the columns at two places of a join's sides, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct NotAbove {
    low: usize,
    high: usize,
    /// True where `low` is of the left side and `high` of the right.
    is_left_low: bool,
    shift: i64,
}

/// A relation with the schema of the plan that it is of.
pub(super) type Side<'a> = (&'a mut Relation, &'a DFSchema);

impl Compiler<'_> {
    /// Adds to each side the bounds that the other's imply, where no row of the result depends on what they drop.
    pub(super) fn carry_bounds(&self, join: &Join, kind: JoinKind, left: Side<'_>, right: Side<'_>) {
        let filter = join.filter.iter().flat_map(split_conjunction);
        let facts: Vec<NotAbove> = filter.flat_map(|conjunct| not_above(conjunct, left.1, right.1)).collect();
        let (of_left, of_right) = (left.0.bounds.clone(), right.0.bounds.clone());
        // Rows that come out without a partner are kept for their own sake.
        if matches!(kind, JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti | JoinKind::Mark) {
            let facts = facts.iter().filter(|fact| fact.is_left_low);
            facts.for_each(|fact| self.carry(*fact, &of_left, left.0, right.0));
        }
        if matches!(kind, JoinKind::Inner | JoinKind::Right | JoinKind::Semi) {
            let facts = facts.iter().filter(|fact| !fact.is_left_low);
            facts.for_each(|fact| self.carry(*fact, &of_right, right.0, left.0));
        }
    }

    /// Carries lower bounds of `low` over to `high`.
    fn carry(&self, fact: NotAbove, bounds: &[(Expr, Comparison, Expr)], low: &Relation, high: &mut Relation) {
        let (Some(Expr::Column(of_low)), Some(of_high @ Expr::Column(column))) =
            (low.columns.get(fact.low), high.columns.get(fact.high))
        else {
            return;
        };
        // One that is there already drops as much, give or take.
        let is_bounded = |(row, comparison, _): &(Expr, Comparison, Expr)| {
            comparison.is_lower() && row.column_refs().contains(column)
        };
        if high.bounds.iter().any(is_bounded) {
            return;
        }
        let (low_columns, high_columns) = (&self.facts[low.node].columns, &self.facts[high.node].columns);
        let (Ok(low_type), Ok(schema)) =
            (low_columns.field_with_name(&of_low.name), DFSchema::try_from(high_columns.as_ref().clone()))
        else {
            return;
        };
        let Some(later) = fact.shift.checked_neg().and_then(|shift| shift.checked_add(DAY)) else { return };
        let interval = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, later)));
        let shifted = of_high.clone() + Expr::Literal(interval, None);
        if shifted.get_type(&schema).ok().as_ref() != Some(low_type.data_type()) {
            return;
        }
        let of_low = of_low.clone();
        let mut carried = Vec::new();
        for (row, comparison, clock_side) in bounds {
            let columns = row.column_refs();
            if !comparison.is_lower() || clock::rise(row).is_none() || !columns.iter().all(|column| **column == of_low)
            {
                continue;
            }
            let replace = |expr: Expr| match &expr {
                Expr::Column(column) if *column == of_low => Ok(Transformed::yes(shifted.clone())),
                _ => Ok(Transformed::no(expr)),
            };
            if let Ok(row) = row.clone().transform_up(replace) {
                carried.push((row.data, *comparison, clock_side.clone()));
            }
        }
        high.bounds.extend(carried);
    }
}

/// What a condition says of the times of both sides.
fn not_above(conjunct: &Expr, left: &DFSchema, right: &DFSchema) -> Vec<NotAbove> {
    let (low, high) = match conjunct {
        Expr::BinaryExpr(BinaryExpr { left: one, op, right: other }) => match op {
            Operator::Lt | Operator::LtEq => (one, other),
            Operator::Gt | Operator::GtEq => (other, one),
            Operator::Eq => {
                let both = [(one, other), (other, one)];
                return both.into_iter().filter_map(|(low, high)| ordered(low, high, left, right)).collect();
            }
            _ => return vec![],
        },
        Expr::Between(between) if !between.negated => {
            let both = [(&between.low, &between.expr), (&between.expr, &between.high)];
            return both.into_iter().filter_map(|(low, high)| ordered(low, high, left, right)).collect();
        }
        _ => return vec![],
    };
    ordered(low, high, left, right).into_iter().collect()
}

/// `low <= high`, where each is a time of another side.
fn ordered(low: &Expr, high: &Expr, left: &DFSchema, right: &DFSchema) -> Option<NotAbove> {
    let (low, (low_shift, _)) = shifted_column(low)?;
    let (high, (_, high_shift)) = shifted_column(high)?;
    let shift = low_shift.checked_sub(high_shift)?;
    let place = |schema: &DFSchema, expr: &Expr| match expr {
        Expr::Column(column) => {
            let index = schema.maybe_index_of_column(column)?;
            matches!(schema.field(index).data_type(), DataType::Timestamp(..)).then_some(index)
        }
        _ => None,
    };
    match (place(left, low), place(right, high)) {
        (Some(low), Some(high)) => Some(NotAbove { low, high, is_left_low: true, shift }),
        _ => {
            let (low, high) = (place(right, low)?, place(left, high)?);
            Some(NotAbove { low, high, is_left_low: false, shift })
        }
    }
}

/// A column, and the least and most nanoseconds that are added to it.
fn shifted_column(expr: &Expr) -> Option<(&Expr, (i64, i64))> {
    match expr {
        Expr::Column(_) => Some((expr, (0, 0))),
        Expr::Alias(alias) => shifted_column(&alias.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            let (time, interval) = match clock::interval_range(right) {
                Some(interval) => (left, interval),
                None => (right, clock::interval_range(left)?),
            };
            let (column, (least, most)) = shifted_column(time)?;
            Some((column, (least.checked_add(interval.0)?, most.checked_add(interval.1)?)))
        }
        Expr::ScalarFunction(function) => match (function.name(), function.args.as_slice()) {
            (zone_days::LATER, [time, interval, ..]) => {
                let interval = clock::interval_range(interval)?;
                let (column, (least, most)) = shifted_column(time)?;
                Some((column, (least.checked_add(interval.0)?, most.checked_add(interval.1)?)))
            }
            _ => None,
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            let interval = clock::interval_range(right)?;
            let (column, (least, most)) = shifted_column(left)?;
            Some((column, (least.checked_sub(interval.1)?, most.checked_sub(interval.0)?)))
        }
        _ => None,
    }
}
