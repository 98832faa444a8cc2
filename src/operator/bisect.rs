//! When a row enters or leaves: the first instant at which the clock side has passed a value.
//!
//! The clock side never decreases, so bisection over instants finds it, for all rows of a batch at once. Where the
//! clock side moves in steps, all values within one step share their instant, and the step is remembered.

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
}

impl TurningPoints {
    /// For one bound.
    pub fn new(bound: ClockBound, timezone: Tz) -> Self {
        TurningPoints { bound, timezone, steps: BTreeMap::new() }
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

    /// For each threshold the first instant after `clock` at which the clock side is at least that.
    fn first_reaching(&self, thresholds: &[i64], clock: Clock) -> Result<Vec<Clock>, OperatorError> {
        if self.bound.clock.stream().is_some() {
            let unit = self.bound.unit().unwrap_or(1);
            return Ok(thresholds.iter().map(|threshold| threshold.saturating_mul(unit)).collect());
        }
        let last = self.values_at(&[END_OF_TIME])?[0];
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
        Ok(high
            .into_iter()
            .zip(thresholds)
            .map(|(high, threshold)| if last < *threshold { NEVER } else { high })
            .collect())
    }

    fn values_at(&self, instants: &[Clock]) -> Result<Vec<i64>, OperatorError> {
        let values = self.bound.clock_values(instants, self.timezone)?;
        Ok(values.iter().map(|value| value.unwrap_or(i64::MIN)).collect())
    }
}
