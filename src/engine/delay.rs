//! How long records have waited that are known to be there, until what they change is in the store.
//!
//! Told without the records' own times, which are whatever producers say: by when it was known that there are so many.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two notes lies at least this time: the delay is known to within it.
const STEP: Duration = Duration::from_millis(50);

/// The oldest records that wait. Records are counted by the sum of offsets over all partitions.
#[derive(Debug, Default)]
pub struct Delay {
    /// When it was first known that there are so many, oldest first.
    known: VecDeque<(Instant, i64)>,
}

impl Delay {
    /// So many are known to be there.
    pub fn know(&mut self, records: i64, now: Instant) {
        let is_new = self.known.back().is_none_or(|(at, last)| records > *last && now.duration_since(*at) >= STEP);
        if is_new {
            self.known.push_back((now, records));
        }
    }

    /// What so many change is in the store.
    pub fn settle(&mut self, records: i64) {
        while self.known.front().is_some_and(|(_, known)| *known <= records) {
            self.known.pop_front();
        }
    }

    /// Offsets are counted over other partitions from now on.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// How long the oldest have waited.
    pub fn of(&self, now: Instant) -> Duration {
        self.known.front().map_or(Duration::ZERO, |(at, _)| now.duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_that_of_the_oldest_records_that_are_not_in_the_store() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let mut delay = Delay::default();
        assert_eq!(delay.of(at(5)), Duration::ZERO);
        delay.know(10, at(0));
        delay.know(10, at(500));
        delay.know(30, at(600));
        assert_eq!(delay.of(at(1_000)), Duration::from_millis(1_000));
        delay.settle(9);
        assert_eq!(delay.of(at(1_000)), Duration::from_millis(1_000), "the tenth waits");
        delay.settle(10);
        assert_eq!(delay.of(at(1_000)), Duration::from_millis(400), "those behind it came later");
        delay.settle(30);
        assert_eq!(delay.of(at(2_000)), Duration::ZERO);
        delay.know(31, at(3_000));
        delay.forget();
        assert_eq!(delay.of(at(9_000)), Duration::ZERO);
    }

    #[test]
    fn notes_are_bounded_by_time_and_the_newest_is_known_soon() {
        let begun = Instant::now();
        let mut delay = Delay::default();
        for milli in 0..1_000_u64 {
            delay.know(milli as i64, begun + Duration::from_millis(milli));
        }
        assert!(delay.known.len() <= 21, "{}", delay.known.len());
        delay.settle(950);
        assert_eq!(delay.of(begun + Duration::from_secs(1)), Duration::ZERO);
    }
}
