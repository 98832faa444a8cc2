//! Which slots were not asked for of late.

use crate::operator::changed::SlotSet;

/// A hand that goes round over slots and passes those once that were met since it came by before.
#[derive(Debug, Default)]
pub struct Hand {
    /// Slots that were met; noted once some have to leave.
    recent: Option<SlotSet>,
    at: u32,
}

impl Hand {
    /// Takes note of slots that are met.
    pub fn note(&mut self, slots: &[u32]) {
        if let Some(recent) = &mut self.recent {
            recent.extend(slots);
        }
    }

    /// Up to `most` of so many slots, which can go and were not met of late.
    pub fn idle(&mut self, slots: u32, most: usize, can_go: impl Fn(u32) -> bool) -> Vec<u32> {
        let recent = self.recent.get_or_insert_default();
        let mut idle = Vec::new();
        for _ in 0..slots {
            if idle.len() >= most {
                break;
            }
            self.at = (self.at + 1) % slots;
            if !recent.remove(self.at) && can_go(self.at) {
                idle.push(self.at);
            }
        }
        idle
    }
}
