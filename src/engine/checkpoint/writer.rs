//! Writes checkpoints: segments of what has changed, then a manifest; drops those that are not kept any more, and puts
//! runs together, from the files alone.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::manifest::{Manifest, OperatorFiles, Position, Run, SegmentFile};
use super::merge::{last_to_join, merge};
use super::segment::{Packer, encode};
use super::{CheckpointError, Checkpoints, State, manifest_name, segment_name};
use crate::config::Keeping;
use crate::crash_point::crash_point;
use crate::delta::Offsets;
use crate::operator::cold::ColdRows;
use crate::operator::graph::Further;
use crate::operator::state::Extent;
use crate::operator::{OperatorError, StatePart};

/// What the epoch loop hands over.
#[derive(Debug)]
pub struct Taken {
    /// Where it stood.
    pub position: Position,
    /// Of every operator with state what has changed since the checkpoint before, or all.
    pub state: State,
    /// Rows of tables of which all is written, that are out of memory.
    pub further: Further,
}

/// The one writer of a place.
#[derive(Debug)]
pub struct Writer {
    checkpoints: Checkpoints,
    keeping: Keeping,
    /// The checkpoints that are there, newest first.
    kept: Vec<Manifest>,
    /// The files of what the operators' changes are changes of.
    resting_on: BTreeMap<String, OperatorFiles>,
    /// Files that were written and that no manifest speaks of yet.
    unspoken: BTreeSet<String>,
    /// Tells the files of this writer from those of others.
    token: u64,
    files: u64,
    /// Bytes of all files so far.
    bytes: u64,
}

impl Writer {
    /// Looks at what is there and removes what a crash has left. `resting_on` is what the operators' state was loaded from.
    pub fn open(
        checkpoints: Checkpoints,
        keeping: Keeping,
        resting_on: BTreeMap<String, OperatorFiles>,
    ) -> Result<Self, CheckpointError> {
        let (mut kept, mut of_others) = (Vec::new(), Vec::new());
        let mut is_ours = true;
        for found in checkpoints.manifests()? {
            match found {
                Ok(manifest) => kept.push(manifest),
                Err(CheckpointError::Version { .. }) => is_ours = false,
                Err(CheckpointError::Foreign { epoch, .. }) if checkpoints.is_own => {
                    of_others.push(manifest_name(epoch))
                }
                Err(error @ CheckpointError::Foreign { .. }) => return Err(error),
                // Its files are of use to nobody; it stays to be told of until it is too old.
                Err(_) => {}
            }
        }
        checkpoints.place.remove(&of_others)?;
        // Who goes back to the version that wrote the others will need their files.
        let garbage = if is_ours { checkpoints.collect_garbage(&kept)? } else { 0 };
        if garbage > 0 {
            info!(files = garbage, "files of checkpoints that were never finished are removed");
        }
        let (unspoken, token) = (BTreeSet::new(), rand::random());
        Ok(Writer { checkpoints, keeping, kept, resting_on, unspoken, token, files: 0, bytes: 0 })
    }

    /// Bytes of all files that were written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the segments of a checkpoint; it is none before [`Writer::publish`]. `now` is in milliseconds since the
    /// Unix epoch.
    pub fn write(&mut self, taken: Taken, now: i64) -> Result<Manifest, CheckpointError> {
        let Taken { position, state, mut further } = taken;
        let mut operators = BTreeMap::new();
        for (operator, parts) in state {
            let further = further.remove(&operator).unwrap_or_default();
            let files = self.write_operator(&operator, parts, further, position.epoch)?;
            operators.insert(operator, files);
        }
        crash_point("checkpoint.written");
        Ok(Manifest { position, written_at: now, store: self.checkpoints.store.clone(), operators })
    }

    fn write_operator(
        &mut self,
        operator: &str,
        parts: Vec<StatePart>,
        further: Vec<ColdRows>,
        epoch: u64,
    ) -> Result<OperatorFiles, CheckpointError> {
        let tables = parts.iter().map(|part| part.name.clone()).collect();
        let known = self.resting_on.get(operator);
        if let Some(known) = known
            && known.tables == tables
            && parts.iter().all(StatePart::is_unchanged)
        {
            return Ok(known.clone());
        }
        let is_all = parts.iter().all(|part| matches!(part.extent, Extent::Whole));
        let mut runs = match known {
            _ if is_all => vec![],
            Some(known) => known.runs.clone(),
            None => {
                let reason = "its changes have nothing to rest on".to_string();
                return Err(CheckpointError::Damaged { file: format!("the state of operator {operator}"), reason });
            }
        };
        let mut packer = Packer::default();
        let mut run = Run::default();
        for full in packer.add_run(parts) {
            run.segments.push(self.put(&full, epoch)?);
        }
        for piece in further.into_iter().flatten() {
            let unreadable = |error: OperatorError| {
                let file = format!("the state of operator {operator} outside of memory");
                CheckpointError::Damaged { file, reason: error.to_string() }
            };
            for part in piece.map_err(unreadable)? {
                for full in packer.add(part) {
                    run.segments.push(self.put(&full, epoch)?);
                }
            }
        }
        if let Some(rest) = packer.finish() {
            run.segments.push(self.put(&rest, epoch)?);
        }
        runs.push(run);
        Ok(OperatorFiles { tables, runs })
    }

    fn put(&mut self, parts: &[StatePart], epoch: u64) -> Result<SegmentFile, CheckpointError> {
        self.files += 1;
        let name = format!("{epoch:020}-{:016x}-{}", self.token, self.files);
        let file = segment_name(&name);
        let place = &self.checkpoints.place;
        let damaged = |reason| CheckpointError::Damaged { file: place.describe(&file), reason };
        let bytes = encode(parts).map_err(damaged)?;
        let segment = SegmentFile { name, bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes) };
        place.put(&file, &bytes.into())?;
        self.bytes += segment.bytes;
        self.unspoken.insert(segment.name.clone());
        Ok(segment)
    }

    /// Makes a checkpoint the newest one, and drops those that need not be kept: manifests first, then the files that no
    /// other needs, so that a crash between leaves garbage, never a manifest without its files.
    pub fn publish(&mut self, manifest: Manifest) -> Result<(), CheckpointError> {
        let name = manifest_name(manifest.position.epoch);
        let place = &self.checkpoints.place;
        let damaged = |reason| CheckpointError::Damaged { file: place.describe(&name), reason };
        let bytes = manifest.encode().map_err(damaged)?;
        self.bytes += bytes.len() as u64;
        place.put(&name, &bytes.into())?;
        crash_point("checkpoint.published");
        let (now, epoch) = (manifest.written_at, manifest.position.epoch);
        self.resting_on.clone_from(&manifest.operators);
        // One of the same epoch was replaced, and where the store went back later ones are of what is no more: their files may
        // not be needed.
        let (replaced, mut kept): (Vec<Manifest>, Vec<Manifest>) =
            std::mem::take(&mut self.kept).into_iter().partition(|known| known.position.epoch >= epoch);
        let later = replaced.iter().map(|known| known.position.epoch).filter(|later| *later > epoch);
        self.checkpoints.place.remove(&later.map(manifest_name).collect::<Vec<_>>())?;
        kept.insert(0, manifest);
        let young = |manifest: &Manifest| now.saturating_sub(manifest.written_at) < self.keeping.age.as_millis() as i64;
        let stays = |(index, manifest): (usize, &Manifest)| index < self.keeping.count.max(1) || young(manifest);
        let count = kept.iter().enumerate().filter(|entry| stays(*entry)).count();
        let dropped = kept.split_off(count);
        self.kept = kept;
        self.checkpoints.drop_before(self.kept.last().map_or(0, |oldest| oldest.position.epoch))?;
        let all = dropped.iter().chain(&replaced).flat_map(Manifest::segments).map(|segment| segment.name.clone());
        let mut names: BTreeSet<String> = all.chain(std::mem::take(&mut self.unspoken)).collect();
        for segment in self.kept.iter().flat_map(Manifest::segments) {
            names.remove(&segment.name);
        }
        crash_point("checkpoint.superseded");
        let names: Vec<String> = names.iter().map(|name| segment_name(name)).collect();
        self.checkpoints.place.remove(&names)?;
        crash_point("checkpoint.pruned");
        Ok(())
    }

    /// Puts runs together where there are many of an operator, unless `is_stopped`. False where their files cannot be read
    /// any more: the next checkpoint must hold all.
    pub fn join_runs(&mut self, is_stopped: &dyn Fn() -> bool) -> Result<bool, CheckpointError> {
        let mut is_sound = true;
        let epoch = self.kept.first().map_or(0, |newest| newest.position.epoch);
        for (operator, mut files) in std::mem::take(&mut self.resting_on) {
            let count = last_to_join(&files.runs);
            if count > 1 {
                let last = files.runs.split_off(files.runs.len() - count);
                let (checkpoints, is_all) = (self.checkpoints.clone(), files.runs.is_empty());
                let mut put = |parts: &[StatePart]| self.put(parts, epoch);
                match merge(&checkpoints, &files.tables, &last, is_all, is_stopped, &mut put) {
                    Ok(Some(run)) => files.runs.push(run),
                    Ok(None) => files.runs.extend(last),
                    Err(error @ CheckpointError::Io { .. }) => return Err(error),
                    Err(error) => {
                        warn!(%error, "a file of the checkpoints is damaged; the next one holds all state");
                        is_sound = false;
                        continue;
                    }
                }
            }
            self.resting_on.insert(operator, files);
        }
        Ok(is_sound)
    }

    /// The least offsets at which a checkpoint that is kept goes on.
    pub fn kept_from(&self) -> Offsets {
        let mut least = Offsets::default();
        for (partition, next) in self.kept.iter().flat_map(|manifest| &manifest.position.offsets.0) {
            let known = least.0.entry(partition.clone()).or_insert(*next);
            *known = (*next).min(*known);
        }
        least
    }
}
