//! The tiles of one shard, by slot, and when they turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, nullif, take};
use arrow::datatypes::Int64Type;

use crate::delta::{Clock, Delta};
use crate::operator::aggregate::accumulator::{Accumulator, Argument, Selection};
use crate::operator::aggregate::keys::{BatchKeys, KeyIndex};
use crate::operator::bisect::NEVER;
use crate::operator::changed::ChangedSlots;
use crate::operator::cold::{Away, Cold, Hand, Scratch};
use crate::operator::state::primitive_column;
use crate::operator::tiles::TABLE;
use crate::operator::tiles::layout::TileLayout;
use crate::operator::{OperatorError, StatePart, rows};
use crate::plan::flow::AggregateCall;

/// So many tiles come back at once, each in memory several times over until it is kept.
const BACK_AT_ONCE: usize = 8192;
/// A slot that was not met in this step.
const NOT_MET: u32 = u32::MAX;

/// Rows, or tiles, on their way into tiles.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    /// Keys and turning points.
    pub(super) columns: &'a [ArrayRef],
    pub(super) keys: &'a BatchKeys,
    pub(super) arguments: &'a [Argument],
    /// How many rows each stands for; `None` for one each.
    pub(super) rows: Option<&'a [i64]>,
    /// How often each comes.
    pub(super) weights: Option<&'a [i64]>,
    /// True where the arguments are partial aggregates.
    pub(super) is_merged: bool,
}

#[derive(Debug)]
pub(super) struct Shard {
    index: KeyIndex,
    /// How many rows each slot stands for.
    rows: Vec<i64>,
    calls: Vec<Accumulator>,
    /// When the next comparison of each slot turns, and its place among those that turn then.
    due: Vec<(Clock, u32)>,
    schedule: BTreeMap<Clock, Vec<u32>>,
    /// The place of each slot among those met in this step.
    met: Vec<u32>,
    changed: ChangedSlots,
    /// Tiles that are not in memory, and when they turn.
    pub(super) cold: Cold,
    away: Away,
    hand: Hand,
}

fn merging(call: &AggregateCall) -> AggregateCall {
    AggregateCall { merges: true, ..call.clone() }
}

impl Shard {
    pub(super) fn new(layout: &TileLayout) -> Result<Self, OperatorError> {
        let calls = layout.calls().iter().map(|call| Accumulator::new(&merging(call), true));
        Ok(Shard {
            index: layout.keys().index(),
            rows: Vec::new(),
            calls: calls.collect::<Result<_, _>>()?,
            due: Vec::new(),
            schedule: BTreeMap::new(),
            met: Vec::new(),
            changed: ChangedSlots::default(),
            cold: Cold::new(layout.keys().cold_columns()?),
            away: Away::default(),
            hand: Hand::default(),
        })
    }

    pub(super) fn next_timer(&self) -> Option<Clock> {
        [self.schedule.keys().next().copied(), self.away.next()].into_iter().flatten().min()
    }

    /// Tiles in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.index.len()
    }

    /// Tiles, and the bytes they take, estimated.
    pub(super) fn size(&self) -> (usize, usize) {
        let a_slot = size_of::<i64>() + size_of::<(Clock, u32)>() + 2 * size_of::<u32>();
        let calls: usize = self.calls.iter().map(Accumulator::bytes).sum();
        let cold = self.cold.size();
        let beside = self.changed.bytes() + cold.memory + self.away.bytes();
        (self.index.len() + cold.keys, self.index.bytes() + self.rows.capacity() * a_slot + calls + beside)
    }

    fn grow(&mut self) {
        let slots = self.index.slots();
        self.rows.resize(slots, 0);
        self.due.resize(slots, (NEVER, 0));
        self.met.resize(slots, NOT_MET);
        self.calls.iter_mut().for_each(|call| call.grow(slots));
    }

    /// Takes those of the incoming rows that are of this shard.
    pub(super) fn take(
        &mut self,
        layout: &TileLayout,
        incoming: &Incoming<'_>,
        own: &[u32],
    ) -> Result<Vec<Delta>, OperatorError> {
        if own.is_empty() {
            return Ok(vec![]);
        }
        if !self.cold.is_empty() {
            let back = incoming.keys.take_from(&mut self.cold, layout.keys(), own)?;
            self.come_in(layout, &back)?;
        }
        let slots = self.index.intern(incoming.keys, own);
        self.grow();
        self.hand.note(&slots);
        let (mut touched, mut firsts): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut counts: Vec<i64> = Vec::new();
        let mut places = Vec::with_capacity(own.len());
        for (slot, row) in slots.iter().zip(own) {
            let place = &mut self.met[*slot as usize];
            if *place == NOT_MET {
                *place = touched.len() as u32;
                touched.push(*slot);
                firsts.push(*row);
                counts.push(0);
            }
            counts[*place as usize] += incoming.rows.map_or(1, |rows| rows[*row as usize]);
            places.push(*place);
        }
        for slot in &touched {
            self.met[*slot as usize] = NOT_MET;
            self.changed.note(*slot);
        }

        let all: Vec<u32> = (0..touched.len() as u32).collect();
        let selection = Selection { slots: &places, rows: own, weights: incoming.weights };
        let mut partials = Vec::with_capacity(layout.calls().len());
        for (call, argument) in layout.calls().iter().zip(incoming.arguments) {
            let call = if incoming.is_merged { merging(call) } else { call.clone() };
            let mut fresh = Accumulator::new(&call, true)?;
            fresh.grow(touched.len());
            fresh.update(selection, argument)?;
            partials.push(fresh.partials(&all)?);
        }
        let firsts = UInt32Array::from(firsts);
        let columns = incoming.columns.iter().map(|column| take(column, &firsts, None));
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;

        for (slot, count) in touched.iter().zip(&counts) {
            self.rows[*slot as usize] += count;
        }
        let gone = self.merge(layout, &touched, &all, &mut partials)?;
        let mut out = Vec::with_capacity(2);
        if let Some((these, partials)) = gone {
            let none = Int64Array::from(vec![0; touched.len()]);
            out.push(layout.emit(&columns, none, partials, Some(&these), -1)?);
        }
        out.push(layout.emit(&columns, counts.into(), partials, None, 1)?);
        self.settle(layout, &touched, &layout.next_turns(&columns));
        Ok(out)
    }

    /// Adds partial aggregates to the tiles of the slots. In place of extremes come those that are new; what they were is
    /// given back, with the tiles of which there was anything.
    fn merge(
        &mut self,
        layout: &TileLayout,
        touched: &[u32],
        all: &[u32],
        partials: &mut [ArrayRef],
    ) -> Result<Option<(BooleanArray, Vec<ArrayRef>)>, OperatorError> {
        let mut were: Vec<ArrayRef> = Vec::with_capacity(partials.len());
        let mut is_gone = vec![false; touched.len()];
        for ((call, kept), partial) in layout.calls().iter().zip(&mut self.calls).zip(partials) {
            let argument = Argument::new(call, Some(Arc::clone(partial)), None)?;
            let selection = Selection { slots: touched, rows: all, weights: None };
            if !TileLayout::is_extreme(call) {
                kept.update(selection, &argument)?;
                were.push(new_null_array(partial.data_type(), touched.len()));
                continue;
            }
            let before = kept.evaluate(touched)?;
            kept.update(selection, &argument)?;
            let after = kept.evaluate(touched)?;
            let differs = rows::differences(&before, &after)?;
            let is_same: BooleanArray = differs.iter().map(|differs| Some(!differs)).collect();
            for (tile, differs) in differs.into_iter().enumerate() {
                is_gone[tile] |= differs && before.is_valid(tile);
            }
            were.push(nullif(&before, &is_same)?);
            *partial = nullif(&after, &is_same)?;
        }
        Ok(is_gone.contains(&true).then(|| (is_gone.into(), were)))
    }

    /// Keeps the tiles that will turn, until then, and forgets those that need not be known any more.
    fn settle(&mut self, layout: &TileLayout, touched: &[u32], next: &[Clock]) {
        for (slot, next) in touched.iter().zip(next) {
            // Without retractions no tile is ever empty, and extremes are had without retractions alone.
            let is_over = *next == NEVER || self.rows[*slot as usize] == 0;
            if is_over && !layout.has_extremes() {
                self.unschedule(*slot);
                self.forget(*slot);
            } else if self.due[*slot as usize].0 == NEVER && *next != NEVER {
                let due = self.schedule.entry(*next).or_default();
                self.due[*slot as usize] = (*next, due.len() as u32);
                due.push(*slot);
            }
        }
    }

    fn unschedule(&mut self, slot: u32) {
        let (when, place) = std::mem::replace(&mut self.due[slot as usize], (NEVER, 0));
        let Some(due) = self.schedule.get_mut(&when) else { return };
        due.swap_remove(place as usize);
        match due.get(place as usize) {
            Some(moved) => self.due[*moved as usize].1 = place,
            None if due.is_empty() => drop(self.schedule.remove(&when)),
            None => {}
        }
    }

    fn forget(&mut self, slot: u32) {
        self.rows[slot as usize] = 0;
        self.calls.iter_mut().for_each(|call| call.clear(slot));
        self.index.remove(slot);
    }

    /// Takes out the tiles that turn up to `clock`: what no longer is, and the tiles as they are then.
    pub(super) fn take_due(
        &mut self,
        layout: &TileLayout,
        clock: Clock,
    ) -> Result<Option<(Delta, RecordBatch)>, OperatorError> {
        let back = self.away.take(clock);
        for some in back.chunks(BACK_AT_ONCE) {
            let tiles = self.cold.take_hashed(some)?;
            self.come_in(layout, &tiles)?;
        }
        if self.schedule.keys().next().is_none_or(|first| *first > clock) {
            return Ok(None);
        }
        let later = self.schedule.split_off(&(clock + 1));
        let due: Vec<u32> = std::mem::replace(&mut self.schedule, later).into_values().flatten().collect();
        let tiles = self.tiles(layout, &due)?;
        for slot in due {
            self.due[slot as usize] = (NEVER, 0);
            self.changed.note(slot);
            self.forget(slot);
        }
        let (columns, rest) = tiles.columns().split_at(layout.width());
        let rows = primitive_column::<Int64Type>(&tiles, layout.width())?.clone();
        let gone = layout.emit(columns, rows, rest[1..].to_vec(), None, -1)?;
        let (turned, there) = layout.turned(columns, clock);
        let turned = turned.into_iter().chain(rest.iter().cloned()).collect();
        let turned = RecordBatch::try_new(Arc::clone(layout.state()), turned)?;
        Ok(Some((gone, filter_record_batch(&turned, &there)?)))
    }

    /// Tiles that were out are here again.
    fn come_in(&mut self, layout: &TileLayout, parts: &[StatePart]) -> Result<(), OperatorError> {
        for StatePart { batch, .. } in parts {
            let keys = layout.keys().read(batch)?;
            let all: Vec<u32> = (0..batch.num_rows() as u32).collect();
            let slots = self.index.intern(&keys, &all);
            self.index.came_in(&slots);
            self.grow();
            let (columns, rest) = batch.columns().split_at(layout.width());
            let rows = primitive_column::<Int64Type>(batch, layout.width())?;
            slots.iter().zip(rows.values()).for_each(|(slot, rows)| self.rows[*slot as usize] = *rows);
            let selection = Selection { slots: &slots, rows: &all, weights: None };
            for ((call, kept), partials) in layout.calls().iter().zip(&mut self.calls).zip(&rest[1..]) {
                kept.update(selection, &Argument::new(call, Some(Arc::clone(partials)), None)?)?;
            }
            self.settle(layout, &slots, &layout.next_turns(columns));
        }
        Ok(())
    }

    /// Lets tiles go that were not met of late.
    pub(super) fn spill(
        &mut self,
        most: usize,
        layout: &TileLayout,
        scratch: &Arc<dyn Scratch>,
    ) -> Result<usize, OperatorError> {
        let slots = self.index.idle_slots(&mut self.hand, most, |slot| self.changed.awaits(slot));
        if slots.is_empty() {
            return Ok(0);
        }
        let tiles = StatePart::whole(TABLE, layout.width(), self.tiles(layout, &slots)?);
        let hashes = self.cold.put(&[tiles], scratch)?;
        for (slot, hash) in slots.iter().zip(hashes) {
            let (when, _) = self.due[*slot as usize];
            if when != NEVER {
                self.away.add(when, hash);
            }
            self.unschedule(*slot);
            self.rows[*slot as usize] = 0;
        }
        self.calls.iter_mut().for_each(|call| call.let_out(&slots));
        self.index.let_out(&slots);
        Ok(slots.len())
    }

    fn tiles(&self, layout: &TileLayout, slots: &[u32]) -> Result<RecordBatch, OperatorError> {
        let mut columns = self.index.columns(layout.keys(), slots)?;
        columns.push(Arc::new(slots.iter().map(|slot| self.rows[*slot as usize]).collect::<Int64Array>()));
        for call in &self.calls {
            columns.push(call.partials(slots)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(layout.state()), columns)?)
    }

    /// All tiles.
    pub(super) fn snapshot(&self, layout: &TileLayout) -> Result<RecordBatch, OperatorError> {
        self.tiles(layout, &self.index.live_slots())
    }

    /// The slots that have changed; `None` for all, or most.
    pub(super) fn take_changed(&mut self) -> Option<Vec<u32>> {
        self.changed.take().filter(|changed| changed.len() <= (self.index.len() + self.cold.size().keys) / 2)
    }

    /// Of slots that have changed, the tiles that are here and the keys of those that are gone.
    pub(super) fn changes(&self, layout: &TileLayout, changed: Vec<u32>) -> Result<[RecordBatch; 2], OperatorError> {
        let known = changed.into_iter().filter(|slot| self.index.holds(*slot) || self.index.has_lost(*slot));
        let (held, gone): (Vec<u32>, Vec<u32>) = known.partition(|slot| self.index.holds(*slot));
        let gone = RecordBatch::try_new(layout.keys().schema(), self.index.columns(layout.keys(), &gone)?)?;
        Ok([self.tiles(layout, &held)?, gone])
    }

    pub(super) fn set_saved(&mut self, is_saved: bool) {
        self.changed.set_saved(is_saved);
        if is_saved {
            self.index.set_saved();
        }
    }
}
