//! When a row enters or leaves: the first instant at which the clock side has passed a value.
//!
//! The clock side never decreases, so bisection over instants finds it. Where the clock side moves in steps, all values
//! within one step share their instant, and the step is remembered. Where it moves with the clock, one value's instant
//! says where the others' should be; each such guess is checked, and what is not there is looked for.

use std::collections::BTreeMap;
use std::ops::Bound;

use chrono_tz::Tz;

use crate::delta::Clock;
use crate::operator::OperatorError;
use crate::plan::clock::{ClockBound, Comparison};

/// An instant after every other: the row never enters, or never leaves.
pub const NEVER: Clock = Clock::MAX;

/// No clock is taken beyond 2200-01-01: interval arithmetic on nanoseconds ends in 2262.
const END_OF_TIME: Clock = 7_258_118_400_000_000_000;

/// Finds turning points of one bound, remembering the steps of its clock side.
#[derive(Debug)]
pub struct TurningPoints {
    bound: ClockBound,
    timezone: Tz,
    /// For clock sides that move in steps: values from the key up to and excluding `.0` turn at `.1`.
    steps: BTreeMap<i64, (i64, Clock)>,
    /// For the others: a value and when it turned, from which guesses are made.
    anchor: Option<(i64, Clock)>,
}

impl TurningPoints {
    /// For one bound.
    pub fn new(bound: ClockBound, timezone: Tz) -> Self {
        TurningPoints { bound, timezone, steps: BTreeMap::new(), anchor: None }
    }

    /// The bound.
    pub fn bound(&self) -> &ClockBound {
        &self.bound
    }

    /// For each value the first instant, not before `clock`, at which the comparison turns: for lower bounds it
    /// becomes false there, for upper bounds true. `clock` itself means that it has turned already.
    pub fn turn(&mut self, values: &[i64], clock: Clock) -> Result<Vec<Clock>, OperatorError> {
        // `row >= f` ends, and `row < f` begins, when f has passed the value; the other two when f has reached it.
        let strictly = matches!(self.bound.comparison, Comparison::AtLeast | Comparison::Before);
        let threshold = |value: i64| if strictly { value.saturating_add(1) } else { value };
        let now = self.values_at(&[clock])?[0];
        let mut turns = vec![clock; values.len()];
        let mut open = Vec::new();
        // Rows that stand together are often of one step.
        let mut step: Option<(i64, i64, Clock)> = None;
        for (row, value) in values.iter().enumerate() {
            let threshold = threshold(*value);
            if now >= threshold {
                continue;
            }
            let is_in = |(start, end, _): &(i64, i64, Clock)| (*start..*end).contains(&threshold);
            step = step.filter(is_in).or_else(|| self.known_step(threshold));
            match step {
                Some((_, _, turn)) => turns[row] = turn.max(clock),
                None => open.push((row, threshold)),
            }
        }
        if open.is_empty() {
            return Ok(turns);
        }
        let mut thresholds: Vec<i64> = open.iter().map(|(_, threshold)| *threshold).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        if self.bound.stepped {
            // One at a time: the first value of a step answers for all others in it.
            for threshold in &thresholds {
                if self.known_step(*threshold).is_none() {
                    let turn = self.first_reaching(&[*threshold], clock)?[0];
                    self.remember(*threshold, turn)?;
                }
            }
            for (row, threshold) in open {
                turns[row] = self.known_step(threshold).map_or(NEVER, |(_, _, turn)| turn);
            }
            let forgotten = self.steps.range(..=now).next_back().map(|(value, _)| *value);
            if let Some(oldest) = forgotten {
                self.steps = self.steps.split_off(&oldest);
            }
        } else {
            let found = self.first_reaching(&thresholds, clock)?;
            for (row, threshold) in open {
                if let Ok(position) = thresholds.binary_search(&threshold) {
                    turns[row] = found[position];
                }
            }
        }
        Ok(turns)
    }

    /// Where the step of a threshold begins and ends, and when it turns.
    fn known_step(&self, threshold: i64) -> Option<(i64, i64, Clock)> {
        let (start, (end, turn)) = self.steps.range((Bound::Unbounded, Bound::Included(threshold))).next_back()?;
        (threshold < *end).then_some((*start, *end, *turn))
    }

    /// All thresholds above the clock side just before `turn`, up to its value at `turn`, turn there.
    fn remember(&mut self, threshold: i64, turn: Clock) -> Result<(), OperatorError> {
        if turn == NEVER {
            self.steps.insert(threshold, (i64::MAX, NEVER));
            return Ok(());
        }
        let around = self.values_at(&[turn - 1, turn])?;
        self.steps.insert(around[0].saturating_add(1).min(threshold), (around[1].saturating_add(1), turn));
        Ok(())
    }

    /// For each of the ascending thresholds the first instant after `clock` at which the clock side is at least that.
    fn first_reaching(&mut self, thresholds: &[i64], clock: Clock) -> Result<Vec<Clock>, OperatorError> {
        if self.bound.clock.stream().is_some() {
            let unit = self.bound.unit().unwrap_or(1);
            return Ok(thresholds.iter().map(|threshold| threshold.saturating_mul(unit)).collect());
        }
        let mut turns = vec![NEVER; thresholds.len()];
        let last = self.values_at(&[END_OF_TIME])?[0];
        let reached = thresholds.partition_point(|threshold| *threshold <= last);
        let mut open = self.guess(thresholds, (0..reached).collect(), clock, &mut turns)?;
        if !open.is_empty() {
            let middle = open.remove(open.len() / 2);
            turns[middle] = self.bisect(&[thresholds[middle]], clock)?[0];
            self.anchor = Some((thresholds[middle], turns[middle]));
            open = self.guess(thresholds, open, clock, &mut turns)?;
            let others: Vec<i64> = open.iter().map(|index| thresholds[*index]).collect();
            for (index, turn) in open.into_iter().zip(self.bisect(&others, clock)?) {
                turns[index] = turn;
            }
        }
        Ok(turns)
    }

    /// Sets the turns of those thresholds that lie as far from the anchor in time as in value; returns the others.
    fn guess(
        &self,
        thresholds: &[i64],
        open: Vec<usize>,
        clock: Clock,
        turns: &mut [Clock],
    ) -> Result<Vec<usize>, OperatorError> {
        let Some((value, turn)) = self.anchor else { return Ok(open) };
        let unit = self.bound.unit().unwrap_or(1);
        let guess = |index: &usize| {
            let distance = thresholds[*index].saturating_sub(value).saturating_mul(unit);
            turn.saturating_add(distance).min(END_OF_TIME).max(clock + 1)
        };
        let guesses: Vec<Clock> = open.iter().map(guess).collect();
        let around: Vec<Clock> = guesses.iter().flat_map(|guess| [guess - 1, *guess]).collect();
        let values = self.values_at(&around)?;
        let mut others = Vec::new();
        for ((index, guess), values) in open.into_iter().zip(guesses).zip(values.chunks_exact(2)) {
            if values[0] < thresholds[index] && thresholds[index] <= values[1] {
                turns[index] = guess;
            } else {
                others.push(index);
            }
        }
        Ok(others)
    }

    /// For each threshold, which the clock side does reach, the first instant after `clock` at which it has.
    fn bisect(&self, thresholds: &[i64], clock: Clock) -> Result<Vec<Clock>, OperatorError> {
        // Invariant: the clock side is below the threshold at `low` and has reached it at `high`.
        let mut low = vec![clock; thresholds.len()];
        let mut high = vec![END_OF_TIME; thresholds.len()];
        while low.iter().zip(&high).any(|(low, high)| high - low > 1) {
            let middle: Vec<Clock> = low.iter().zip(&high).map(|(low, high)| low + (high - low) / 2).collect();
            let values = self.values_at(&middle)?;
            for (index, value) in values.into_iter().enumerate() {
                if value >= thresholds[index] {
                    high[index] = middle[index];
                } else {
                    low[index] = middle[index];
                }
            }
        }
        Ok(high)
    }

    fn values_at(&self, instants: &[Clock]) -> Result<Vec<i64>, OperatorError> {
        let values = self.bound.clock_values(instants, self.timezone)?;
        Ok(values.iter().map(|value| value.unwrap_or(i64::MIN)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, TimeUnit};
    use datafusion::common::{DFSchema, ScalarValue};
    use datafusion::logical_expr::execution_props::ExecutionProps;
    use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
    use datafusion::logical_expr::{Expr, cast, col, lit, when};
    use datafusion::physical_expr::create_physical_expr;

    use super::*;
    use crate::plan::clock::{ClockSide, clock_schema};
    use crate::plan::flow::Scalar;

    const ZONE: Tz = chrono_tz::America::New_York;
    const HOUR: Clock = 3_600_000_000_000;
    /// 2026-10-31T00:00:00Z, a day before clocks are put back.
    const START: Clock = 1_793_404_800_000_000_000;

    fn points(clock_side: Expr, unit: TimeUnit) -> TurningPoints {
        let schema = DFSchema::try_from(clock_schema(ZONE)).unwrap();
        let data_type = DataType::Timestamp(unit, Some(ZONE.name().into()));
        let side = cast(clock_side, data_type.clone());
        let context = PhysicalPlanningContext::default();
        let expr = create_physical_expr(&side, &schema, &ExecutionProps::new(), &context).unwrap();
        let row = Scalar { text: String::new(), expr: Arc::clone(&expr), data_type, fallible: false };
        let bound = ClockBound {
            row,
            comparison: Comparison::AtLeast,
            clock: ClockSide::Clock(expr),
            clock_text: String::new(),
            stepped: false,
        };
        TurningPoints::new(bound, ZONE)
    }

    fn now() -> Expr {
        col("__clock")
    }

    fn ago(hours: i64) -> Expr {
        now() - lit(ScalarValue::DurationNanosecond(Some(hours * HOUR)))
    }

    fn instant(clock: Clock) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(clock), Some(ZONE.name().into())))
    }

    #[test]
    fn turns_are_the_first_instants_at_which_the_clock_side_has_passed() {
        let jumping = when(now().lt(instant(START + 20 * HOUR)), ago(30)).otherwise(ago(1)).unwrap();
        for (clock_side, unit) in [
            (ago(72), TimeUnit::Nanosecond),
            (ago(72), TimeUnit::Millisecond),
            (now(), TimeUnit::Second),
            (jumping, TimeUnit::Millisecond),
        ] {
            let mut points = points(clock_side, unit);
            let per_unit = points.bound().unit().unwrap();
            // In no order, some twice, some past already, in batches of which the second is guessed from the first.
            for batch in 0..3 {
                let clock = START + batch * HOUR;
                let values: Vec<i64> =
                    (0..200).map(|row| (START + (row * 7_919 % 200 - 100) * HOUR / 3 + row % 3) / per_unit).collect();
                let turns = points.turn(&values, clock).unwrap();
                for (value, turn) in values.iter().zip(turns) {
                    let around = points.values_at(&[turn - 1, turn]).unwrap();
                    assert!(turn >= clock && around[1] > *value, "{value} has not turned at {turn}");
                    assert!(turn == clock || around[0] <= *value, "{value} has turned before {turn}");
                }
            }
        }
    }

    #[test]
    fn what_the_clock_side_never_passes_never_turns() {
        let mut points = points(ago(1), TimeUnit::Nanosecond);
        assert_eq!(points.turn(&[END_OF_TIME, START], START).unwrap(), [NEVER, START + HOUR + 1]);
    }
}
