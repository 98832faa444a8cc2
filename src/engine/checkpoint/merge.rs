//! Runs of an operator put together, so that a checkpoint never consists of many.

use std::collections::BTreeSet;

use super::fold::{Fold, join};
use super::manifest::{Run, SegmentFile};
use super::segment::Packer;
use super::{CheckpointError, Checkpoints};
use crate::operator::StatePart;
use crate::operator::state::Extent;

/// How many of the last runs should be one: each is at most twice as long as all behind it. So runs grow by powers of
/// two, and a byte is written again a few times at most.
pub(super) fn last_to_join(runs: &[Run]) -> usize {
    let mut behind = 0_u64;
    let mut count = 0;
    for run in runs.iter().rev() {
        if count > 0 && run.bytes() > behind.saturating_mul(2) {
            break;
        }
        behind = behind.saturating_add(run.bytes());
        count += 1;
    }
    count
}

/// One run that says what `runs`, oldest first, say together; `is_all` where nothing is older than they are. `None` where
/// `is_stopped` says so before it is done.
pub(super) fn merge(
    checkpoints: &Checkpoints,
    tables: &BTreeSet<String>,
    runs: &[Run],
    is_all: bool,
    is_stopped: &dyn Fn() -> bool,
    put: &mut dyn FnMut(&[StatePart]) -> Result<SegmentFile, CheckpointError>,
) -> Result<Option<Run>, CheckpointError> {
    let mut fold = Fold::new(tables);
    let mut packer = Packer::default();
    let mut merged = Run::default();
    for run in runs.iter().rev() {
        for segment in &run.segments {
            if is_stopped() {
                return Ok(None);
            }
            let damaged = |reason: String| checkpoints.damaged(segment, reason);
            for mut part in fold.add(checkpoints.read_segment(segment)?).map_err(damaged)? {
                if is_all && matches!(part.extent, Extent::Changes(_)) {
                    part.extent = Extent::Rest;
                }
                for full in packer.add(part) {
                    merged.segments.push(put(&join(full).map_err(damaged)?)?);
                }
            }
        }
        fold.end_run();
    }
    if let (Some(rest), Some(segment)) = (packer.finish(), runs.last().and_then(|run| run.segments.last())) {
        let rest = join(rest).map_err(|reason| checkpoints.damaged(segment, reason))?;
        merged.segments.push(put(&rest)?);
    }
    Ok(Some(merged))
}
