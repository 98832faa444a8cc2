//! When the clock asks for keys that are out.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use crate::delta::Clock;

/// What happens within a minute comes back together before it begins: single instants would take as much memory as rows.
const MINUTE: Clock = 60_000_000_000;

/// The hashes of keys that are out, by the minute in which something happens to them. Keys that have come back before
/// may still be among them.
#[derive(Debug, Default)]
pub struct Away {
    minutes: BTreeMap<Clock, HashSet<u32>>,
}

impl Away {
    /// Something happens then to a key that has this hash.
    pub fn add(&mut self, when: Clock, hash: u32) {
        self.minutes.entry(when.div_euclid(MINUTE)).or_default().insert(hash);
    }

    /// When the next keys come back.
    pub fn next(&self) -> Option<Clock> {
        self.minutes.first_key_value().map(|(minute, _)| minute.saturating_mul(MINUTE))
    }

    /// The hashes of keys that come back up to the minute of `clock`.
    pub fn take(&mut self, clock: Clock) -> Vec<u32> {
        if self.next().is_none_or(|next| next > clock) {
            return vec![];
        }
        let later = self.minutes.split_off(&(clock.div_euclid(MINUTE) + 1));
        std::mem::replace(&mut self.minutes, later).into_values().flatten().collect()
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.minutes.values().map(|hashes| size_of::<(Clock, HashSet<u32>)>() + hashes.allocation_size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_with_the_minute_in_which_something_happens_to_them() {
        let mut away = Away::default();
        for (when, hash) in [(MINUTE + 1, 1), (2 * MINUTE - 1, 2), (2 * MINUTE, 3), (2 * MINUTE, 3)] {
            away.add(when, hash);
        }
        assert_eq!(away.next(), Some(MINUTE));
        assert!(away.take(MINUTE - 1).is_empty());
        let mut back = away.take(MINUTE);
        back.sort_unstable();
        assert_eq!(back, [1, 2]);
        assert_eq!(away.take(5 * MINUTE), [3]);
        assert_eq!(away.next(), None);
    }
}
