//! State larger than memory: what operators keep by key leaves memory when all of it takes more than it may.

use std::sync::Arc;

use tracing::warn;

use super::{Graph, Operator};
use crate::operator::OperatorError;
use crate::operator::cold::{Cold, ColdRows, ColdSize, Scratch, Spills};

/// The memory that state may take, and where the rest of it goes.
#[derive(Debug, Clone)]
pub struct Room {
    /// Where keys go that leave memory.
    pub scratch: Arc<dyn Scratch>,
    /// Bytes of all operators.
    pub bytes: usize,
    /// Keys leave although the next checkpoint waits for their changes: it then holds all state. Where no checkpoint can be
    /// taken, nothing else would help.
    pub is_urgent: bool,
}

/// How state fits into its room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// More is in memory than may be, and no key can leave before a checkpoint is taken.
    pub awaits_checkpoint: bool,
    /// Why keys cannot leave.
    pub trouble: Option<String>,
}

/// Bytes of an operator as they were last counted, with so many keys in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    keys: usize,
    bytes: usize,
}

impl Operator {
    pub(super) fn spills(&self) -> Option<&dyn Spills> {
        match self {
            Operator::Unique { operator, .. } => Some(operator.as_ref()),
            Operator::ClockFilter(filter) => Some(filter.as_ref()),
            Operator::ClockFlags(flags) => Some(flags.as_ref()),
            Operator::Tiles(tiles) => Some(tiles.as_ref()),
            Operator::Aggregate(aggregate) => Some(aggregate.as_ref()),
            Operator::Join(join) => Some(join.as_ref()),
            Operator::TopRows(top) => Some(top.state()),
            Operator::Window(window) => Some(window.state()),
            _ => None,
        }
    }

    fn spills_mut(&mut self) -> Option<&mut dyn Spills> {
        match self {
            Operator::Unique { operator, .. } => Some(operator.as_mut()),
            Operator::ClockFilter(filter) => Some(filter.as_mut()),
            Operator::ClockFlags(flags) => Some(flags.as_mut()),
            Operator::Tiles(tiles) => Some(tiles.as_mut()),
            Operator::Aggregate(aggregate) => Some(aggregate.as_mut()),
            Operator::Join(join) => Some(join.as_mut()),
            Operator::TopRows(top) => Some(top.state_mut()),
            Operator::Window(window) => Some(window.state_mut()),
            _ => None,
        }
    }

    fn cold(&self) -> Vec<&Cold> {
        self.spills().map(Spills::cold).unwrap_or_default()
    }

    /// What is out of memory.
    pub(super) fn cold_size(&self) -> ColdSize {
        self.cold().into_iter().map(Cold::size).sum()
    }

    /// The rows of some tables that are out of memory.
    pub(super) fn cold_rows(&self, tables: &[String]) -> Vec<ColdRows> {
        self.spills().map(|operator| operator.view(tables)).unwrap_or_default()
    }

    /// Lets all go that can before all is written: it would be in memory several times over. What is needed comes back.
    pub(super) fn spill_all(&mut self, room: &Room) {
        let is_large = self.size().is_some_and(|(_, bytes)| bytes > room.bytes / 8);
        if let Some(operator) = self.spills_mut().filter(|_| is_large)
            && let Err(error) = operator.spill(operator.in_memory(), &room.scratch)
        {
            warn!(%error, "all state is written from memory");
        }
    }

    /// Bytes in memory, counted again only where there are other keys than then.
    fn bytes_in_memory(&self, counted: &mut Counted) -> usize {
        let Some(operator) = self.spills() else { return self.size().map_or(0, |(_, bytes)| bytes) };
        let keys = operator.in_memory();
        if keys.abs_diff(counted.keys) > counted.keys / 8 {
            *counted = Counted { keys, bytes: self.size().map_or(0, |(_, bytes)| bytes) };
        }
        match counted.keys {
            0 => 0,
            known => (counted.bytes as f64 * keys as f64 / known as f64) as usize,
        }
    }
}

impl Graph {
    /// Lets state take so much memory and no more, from now on.
    pub fn set_room(&mut self, room: Room) {
        self.room = Some(room);
    }

    /// How state fits into its room after the last step.
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// What is out of memory of all operators.
    pub fn cold_size(&self) -> ColdSize {
        self.nodes.iter().map(|node| node.operator.cold_size()).sum()
    }

    /// Lets keys leave until what is left takes three quarters of its room.
    pub fn keep_in_room(&mut self) {
        let Some(room) = self.room.clone() else { return };
        self.fit = match self.spill(&room) {
            Ok(fits) => Fit { awaits_checkpoint: !fits, trouble: None },
            Err(error) => Fit { awaits_checkpoint: false, trouble: Some(error.to_string()) },
        };
    }

    /// True where it fits.
    fn spill(&mut self, room: &Room) -> Result<bool, OperatorError> {
        // Keys grow by what comes, also where none is new.
        if self.taken > room.bytes / 16 {
            self.taken = 0;
            self.nodes.iter_mut().for_each(|node| node.counted = Counted::default());
        }
        let (mut all, mut fixed) = (0, 0);
        let mut can_leave = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let bytes = node.operator.bytes_in_memory(&mut node.counted);
            match node.operator.spills() {
                Some(operator) => {
                    all += bytes;
                    fixed += node.operator.cold_size().memory;
                    can_leave.push((index, bytes, operator.in_memory()));
                }
                None => fixed += bytes,
            }
        }
        // However much cannot leave, some keys are in memory: those of the last events, at least.
        let most = room.bytes.saturating_sub(fixed).max(room.bytes / 4);
        if all <= most {
            return Ok(true);
        }
        let share = 1.0 - 0.75 * most as f64 / all as f64;
        let mut left = all as f64;
        for (index, bytes, keys) in can_leave {
            if keys == 0 {
                continue;
            }
            let wanted = (keys as f64 * share).ceil() as usize;
            let Some(operator) = self.nodes[index].operator.spills_mut() else { continue };
            let mut gone = operator.spill(wanted, &room.scratch)?;
            if gone < wanted && room.is_urgent {
                self.nodes[index].is_saved = false;
                if let Some(operator) = self.nodes[index].operator.stateful_mut() {
                    operator.set_saved(false);
                }
                let Some(operator) = self.nodes[index].operator.spills_mut() else { continue };
                gone += operator.spill(wanted - gone, &room.scratch)?;
            }
            left -= bytes as f64 * gone as f64 / keys as f64;
        }
        Ok(left <= most as f64)
    }
}
