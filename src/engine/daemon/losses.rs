//! Records that were gone before they could be taken, of streams that go on all the same: told in the registry and the
//! status, of every tag that lacks them.

use std::sync::Arc;

use tracing::error;

use super::{Daemon, DaemonError};
use crate::catalog::Stream;
use crate::delta::Lost;
use crate::engine::desired::reads;
use crate::engine::status::update;

/// The most gaps of a tag that are told one by one; of more the oldest are told as one.
const MOST_GAPS: usize = 100;

impl Daemon {
    /// Tells what the sources have found lost.
    pub(super) fn follow_losses(&mut self) -> Result<(), DaemonError> {
        for lost in std::mem::take(&mut self.intake.lost) {
            update(&self.status, |status| {
                *status.lost.entry(lost.stream.clone()).or_default() += (lost.next - lost.first).unsigned_abs();
            });
            let reading = |tag: &&String| reads([self.running[*tag].plan.as_ref()]).contains_key(&lost.stream);
            let tags: Vec<String> = self.running.keys().filter(reading).cloned().collect();
            let of_kept = |kept: &&String| reads([self.kept[*kept].planned.plan.as_ref()]).contains_key(&lost.stream);
            let kept: Vec<String> = self.kept.keys().filter(of_kept).cloned().collect();
            let Lost { stream, partition, first, next } = &lost;
            error!(
                ?tags,
                stream, partition, first, next, "{lost} were gone before they were read; their tags go on without them"
            );
            // A table whose records go on being lost is none to go back to.
            kept.iter().for_each(|name| self.give_kept_up(name, &format!("{lost} were gone before they were read")));
            for tag in tags {
                add(self.lost.entry(tag.clone()).or_default(), lost.clone());
                // All of them were written before now, whatever their times say.
                self.complete_from.insert(tag.clone(), Some((self.world.context.wall_clock)()));
                let running = self.running[&tag].clone();
                self.write_registration(&running)?;
            }
        }
        Ok(())
    }

    /// A stream that stands still before what is lost may be told to go on, or get files that have it: that changes no plan, only
    /// how it is read.
    pub(super) fn follow_on_lost(&mut self) -> Result<(), DaemonError> {
        let mut differs = false;
        for (name, running) in &mut self.running {
            let Some(wanted) = self.desired.tags.get(name) else { continue };
            if wanted.plan.fingerprint != running.plan.fingerprint {
                continue;
            }
            let pairs: Vec<_> = wanted
                .plan
                .sources()
                .zip(running.plan.sources())
                .map(|(wanted, running)| (wanted.0, running.0))
                .collect();
            let read_by = |stream: &Stream| (stream.on_lost, stream.history.clone(), stream.archive.clone());
            // Where the layout differs too, a fill is under way that brings both.
            if pairs.iter().all(|(wanted, running)| wanted.columns == running.columns)
                && pairs.iter().any(|(wanted, running)| read_by(wanted) != read_by(running))
            {
                running.plan = Arc::clone(&wanted.plan);
                differs = true;
            }
        }
        // A read up to a meeting is followed by another.
        if differs && self.meeting.is_none() {
            self.restart_intake(None)?;
        }
        Ok(())
    }
}

/// Adds a gap; the list stays short however often records are lost.
fn add(gaps: &mut Vec<Lost>, lost: Lost) {
    let is_known = |known: &&mut Lost| {
        (&known.stream, known.partition) == (&lost.stream, lost.partition) && lost.first <= known.next
    };
    match gaps.iter_mut().rev().find(is_known) {
        Some(known) => known.next = known.next.max(lost.next),
        None => gaps.push(lost),
    }
    if gaps.len() > MOST_GAPS {
        let same = |one: &Lost, other: &Lost| (&one.stream, one.partition) == (&other.stream, other.partition);
        let next_to = |at: usize| (at + 1..gaps.len()).find(|next| same(&gaps[at], &gaps[*next]));
        if let Some((oldest, next)) = (0..gaps.len()).find_map(|at| Some((at, next_to(at)?))) {
            gaps[next].first = gaps[oldest].first;
            gaps.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(partition: i32, first: i64, next: i64) -> Lost {
        Lost { stream: "orders".to_string(), partition, first, next }
    }

    #[test]
    fn gaps_that_meet_are_one_and_many_are_told_as_fewer() {
        let mut gaps = Vec::new();
        for (first, next) in [(4, 6), (4, 6), (6, 9), (12, 20)] {
            add(&mut gaps, lost(0, first, next));
        }
        add(&mut gaps, lost(1, 5, 6));
        assert_eq!(gaps, [lost(0, 4, 9), lost(0, 12, 20), lost(1, 5, 6)]);
        for at in 10..1000 {
            add(&mut gaps, lost(0, at * 10, at * 10 + 5));
        }
        assert_eq!(gaps.len(), MOST_GAPS);
        assert_eq!(gaps.last(), Some(&lost(0, 9990, 9995)));
        let own: Vec<&Lost> = gaps.iter().filter(|gap| gap.partition == 0).collect();
        assert_eq!(own[0].first, 4, "what was lost first is told still");
        assert!(own.windows(2).all(|pair| pair[0].next < pair[1].first));
    }
}
