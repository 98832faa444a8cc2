//! How many steps of the clock a row lives through, which bounds the tiles of a key, and how long they are.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use chrono_tz::Tz;

use crate::delta::Clock;
use crate::plan::clock::ClockBound;
use crate::plan::flow::TilePlan;

const SECOND: Clock = 1_000_000_000;
const DAY: Clock = 86_400 * SECOND;
/// More steps are not counted.
const MOST_SAMPLES: i64 = 400_000;

/// How many tiles a key has at most, of rows that are not ahead of the clock; `None` where it is not known.
pub fn most_tiles(plan: &TilePlan) -> Option<usize> {
    // Noon of the first of every month of a year sees every length of a month and change of clocks.
    let firsts = [0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335].map(|day| 1_704_110_400 * SECOND + day * DAY);
    let clocks: Vec<&ClockBound> = plan.bounds.iter().chain(&plan.flags).collect();
    let mut most = 0;
    for now in firsts {
        let mut steps: BTreeSet<(&DataType, i64)> = BTreeSet::new();
        for clock in clocks.iter().filter(|clock| clock.stepped) {
            steps.extend(
                values_until(clock, now, plan.timezone)?.into_iter().map(|value| (&clock.row.data_type, value)),
            );
        }
        most = most.max(steps.len());
    }
    // Between two steps lies a tile; before the first are those that have turned, which extremes keep.
    Some(most + usize::from(!plan.flags.is_empty()))
}

/// How long a step of the clock side is, to the second; `None` where it cannot be told.
pub fn shortest_step(clock: &ClockBound, timezone: Tz) -> Option<Clock> {
    let at = |instant: Clock| clock.clock_values(&[instant], timezone).ok()?.iter().next().flatten();
    // Noon of 2024-01-01.
    let first = next_change(&at, 1_704_110_400 * SECOND)?;
    Some(next_change(&at, first)? - first)
}

/// The values that the clock side takes from `now` on, up to that of a row of `now`.
fn values_until(clock: &ClockBound, now: Clock, timezone: Tz) -> Option<BTreeSet<i64>> {
    let at = |instant: Clock| clock.clock_values(&[instant], timezone).ok()?.iter().next().flatten();
    let last = clock.row_value(now, timezone)?;
    let (first_change, second_change) = (next_change(&at, now)?, next_change(&at, next_change(&at, now)?)?);
    // Steps differ in length, by an hour or a few days; none is passed over by half of one.
    let half = ((second_change - first_change) / 2).max(1);
    let mut values = BTreeSet::from([at(now)?]);
    let mut samples = 0;
    let mut from = first_change;
    while values.last().is_some_and(|value| *value < last) {
        let instants: Vec<Clock> = (0..1024).map(|sample| from + sample * half).collect();
        values.extend(clock.clock_values(&instants, timezone).ok()?.iter().flatten());
        from += 1024 * half;
        samples += 1024;
        if samples > MOST_SAMPLES {
            return None;
        }
    }
    values.retain(|value| *value <= last);
    Some(values)
}

/// The next instant, to the second, at which the clock side has another value.
fn next_change(at: &impl Fn(Clock) -> Option<i64>, from: Clock) -> Option<Clock> {
    let value = at(from)?;
    let mut low = from;
    let mut distance = SECOND;
    while at(from + distance)? == value {
        low = from + distance;
        distance *= 2;
        if distance > 800 * DAY {
            return None;
        }
    }
    let mut high = from + distance;
    while high - low > SECOND {
        let middle = low + (high - low) / 2;
        if at(middle)? == value { low = middle } else { high = middle }
    }
    Some(high)
}
