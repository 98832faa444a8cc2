//! Rows as partial aggregates by key and step of the clock: all rows whose comparisons turn at the same instants are one tile.
//!
//! What leaves is what an aggregate above merges: the partial aggregates of the rows that came, and, when a comparison of
//! a tile turns, the whole tile taken away as it was and added as it is. A tile that no longer turns is not kept, but for
//! extremes, which cannot be taken away from what has been merged: they need to know what they were.

mod layout;
mod shard;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use rayon::prelude::*;

use crate::delta::{Clock, Delta};
use crate::operator::aggregate::MemberPlan;
use crate::operator::aggregate::accumulator::Argument;
use crate::operator::aggregate::prepare;
use crate::operator::bisect::{NEVER, TurningPoints};
use crate::operator::cold::{Cold, Scratch, Spills, spill_shards};
use crate::operator::state::{Gone, find_parts, primitive_column};
use crate::operator::tiles::layout::{PAST, TileLayout, UNKNOWN};
use crate::operator::tiles::shard::{Incoming, Shard};
use crate::operator::{OperatorError, StatePart, Stateful, map, rows};
use crate::plan::clock::as_integers;
use crate::plan::flow::{Member, Scalar, TilePlan};

/// The one table of the state.
const TABLE: &str = "tiles";

/// Keeps the tiles of which a comparison is still to turn.
#[derive(Debug)]
pub struct Tiles {
    keys: Vec<Scalar>,
    bounds: Vec<TurningPoints>,
    flags: Vec<TurningPoints>,
    /// The calls over the columns of the input and the flags.
    calls: [Arc<MemberPlan>; 1],
    layout: TileLayout,
    shards: Vec<Shard>,
}

impl Tiles {
    /// Over rows of `input`; `output` is as [`TilePlan`] says.
    pub fn new(plan: TilePlan, input: &SchemaRef, output: SchemaRef, shards: usize) -> Result<Self, OperatorError> {
        let layout = TileLayout::new(&plan, Arc::clone(&output))?;
        let flags = &output.fields()[plan.keys.len()..plan.keys.len() + plan.flags.len()];
        let schema = Arc::new(Schema::new(input.fields().iter().chain(flags).cloned().collect::<Vec<_>>()));
        let TilePlan { keys, bounds, flags, calls, timezone } = plan;
        let member = Member { fingerprint: String::new(), filter: vec![], rows: None, aggregates: calls };
        let points = |bounds: Vec<_>| bounds.into_iter().map(|bound| TurningPoints::new(bound, timezone)).collect();
        Ok(Tiles {
            keys,
            bounds: points(bounds),
            flags: points(flags),
            calls: [Arc::new(MemberPlan { member, schema })],
            shards: (0..shards.max(1)).map(|_| Shard::new(&layout)).collect::<Result<_, _>>()?,
            layout,
        })
    }

    /// Moves the clock and takes new rows.
    pub fn step(&mut self, input: &Delta, clock: Clock) -> Result<Delta, OperatorError> {
        let mut out = self.advance(clock)?;
        if !input.is_empty() {
            out.extend(self.take(input, clock)?);
        }
        let output = self.layout.output();
        if out.is_empty() { Ok(Delta::empty(Arc::clone(output))) } else { Ok(Delta::concat(output, &out)?) }
    }

    /// The next instant at which a comparison of a tile turns.
    pub fn next_timer(&self) -> Option<Clock> {
        self.shards.iter().filter_map(Shard::next_timer).min()
    }

    /// Tiles kept, and the bytes they take, estimated.
    pub fn size(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(Shard::size);
        sizes.fold((0, 0), |(tiles, bytes), (more, of_them)| (tiles + more, bytes + of_them))
    }

    /// Tiles of which a comparison turns up to `clock` go, and come as they are then.
    fn advance(&mut self, clock: Clock) -> Result<Vec<Delta>, OperatorError> {
        if self.next_timer().is_none_or(|first| first > clock) {
            return Ok(vec![]);
        }
        let layout = &self.layout;
        let due = self.shards.par_iter_mut().map(|shard| shard.take_due(layout, clock));
        let due = due.collect::<Result<Vec<Option<(Delta, RecordBatch)>>, OperatorError>>()?;
        let (mut out, turned): (Vec<Delta>, Vec<RecordBatch>) = due.into_iter().flatten().unzip();
        // In the shard of its new turning points, where another tile with the same may be.
        let turned = concat_batches(layout.state(), &turned)?;
        out.extend(self.absorb(&turned)?);
        Ok(out)
    }

    fn take(&mut self, input: &Delta, clock: Clock) -> Result<Vec<Delta>, OperatorError> {
        let turns = turning_points(&mut self.bounds, &input.batch, clock)?;
        let (kept, mut turns) = self.visible(input, &turns)?;
        if kept.is_empty() {
            return Ok(vec![]);
        }
        turns.extend(turning_points(&mut self.flags, &kept.batch, clock)?);
        let turns: Vec<ArrayRef> =
            turns.into_iter().map(|turns| Arc::new(Int64Array::from(turns)) as ArrayRef).collect();
        let keys = self.keys.iter().map(|key| map::evaluate(key, &kept.batch));
        let columns = keys.chain(turns.into_iter().map(Ok)).collect::<Result<Vec<ArrayRef>, _>>()?;
        let read = kept.batch.columns().iter().cloned().chain(self.layout.flags(&columns)?).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
        let read = RecordBatch::try_new_with_options(Arc::clone(&self.calls[0].schema), read, &options)?;
        let prepared = prepare::prepare(&self.calls, &read).pop();
        let prepared = prepared.ok_or_else(|| OperatorError::Expression("no aggregate was prepared".to_string()))??;
        let weights = kept.weights.as_ref().map(|weights| weights.values().as_ref());
        self.spread(&columns, &prepared.arguments, weights, weights, false)
    }

    /// The rows that are or will be visible, and of these when they enter and when they leave.
    fn visible(&self, input: &Delta, turns: &[Vec<Clock>]) -> Result<(Delta, Vec<Vec<Clock>>), OperatorError> {
        let count = input.num_rows();
        let (mut enter, mut leave, mut known) = (vec![PAST; count], vec![NEVER; count], vec![true; count]);
        for (points, turns) in self.bounds.iter().zip(turns) {
            let is_lower = points.bound().comparison.is_lower();
            for (row, turn) in turns.iter().enumerate() {
                known[row] &= *turn != UNKNOWN;
                if is_lower {
                    leave[row] = leave[row].min(*turn);
                } else {
                    enter[row] = enter[row].max(*turn);
                }
            }
        }
        let is_kept = |row: usize| known[row] && enter[row] != NEVER && enter[row] < leave[row];
        let mask: BooleanArray = (0..count).map(|row| Some(is_kept(row))).collect();
        let both = [(self.layout.enters(), enter), (self.layout.leaves(), leave)];
        let both = both.into_iter().filter(|(is_there, _)| *is_there).map(|(_, turns)| turns);
        if mask.true_count() == count {
            return Ok((input.clone(), both.collect()));
        }
        let of_kept = |turns: Vec<Clock>| -> Result<Vec<Clock>, OperatorError> {
            let kept = filter(&Int64Array::from(turns), &mask)?;
            Ok(as_integers(&kept)?.values().to_vec())
        };
        Ok((map::filter_delta(input, &mask)?, both.map(of_kept).collect::<Result<_, _>>()?))
    }

    /// Adds tiles to those that are here.
    fn absorb(&mut self, tiles: &RecordBatch) -> Result<Vec<Delta>, OperatorError> {
        let (columns, rest) = tiles.columns().split_at(self.layout.width());
        let rows = primitive_column::<Int64Type>(tiles, columns.len())?;
        let calls = self.layout.calls().iter().zip(&rest[1..]);
        let arguments = calls.map(|(call, values)| Argument::new(call, Some(Arc::clone(values)), None));
        self.spread(columns, &arguments.collect::<Result<Vec<_>, _>>()?, Some(rows.values()), None, true)
    }

    fn spread(
        &mut self,
        columns: &[ArrayRef],
        arguments: &[Argument],
        rows: Option<&[i64]>,
        weights: Option<&[i64]>,
        is_merged: bool,
    ) -> Result<Vec<Delta>, OperatorError> {
        let keys = self.layout.keys().prepare(columns)?;
        let by_shard = rows::rows_by_shard(keys.hashes.iter().copied(), self.shards.len());
        let incoming = Incoming { columns, keys: &keys, arguments, rows, weights, is_merged };
        let layout = &self.layout;
        let deltas = self.shards.par_iter_mut().zip(by_shard).map(|(shard, own)| shard.take(layout, &incoming, &own));
        Ok(deltas.collect::<Result<Vec<Vec<Delta>>, OperatorError>>()?.into_iter().flatten().collect())
    }
}

impl Stateful for Tiles {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let batches = self.shards.iter().map(|shard| shard.snapshot(&self.layout));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        let batch = concat_batches(self.layout.state(), &batches)?;
        Ok(vec![StatePart::whole(TABLE, self.layout.width(), batch)])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let changed: Option<Vec<Vec<u32>>> = self.shards.iter_mut().map(Shard::take_changed).collect();
        let parts = match changed {
            None => self.snapshot()?,
            Some(changed) => {
                let layout = &self.layout;
                let batches = self.shards.iter().zip(changed).map(|(shard, changed)| shard.changes(layout, changed));
                let batches = batches.collect::<Result<Vec<_>, OperatorError>>()?;
                let tiles = concat_batches(layout.state(), batches.iter().map(|[tiles, _]| tiles))?;
                let keys = concat_batches(&layout.keys().schema(), batches.iter().map(|[_, gone]| gone))?;
                vec![StatePart::changes(TABLE, layout.width(), tiles, Gone { keys, below: None })]
            }
        };
        self.set_saved(true);
        Ok(parts)
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        for batch in find_parts(parts, TABLE)? {
            if types(&batch.schema()) != types(self.layout.state()) {
                let reason = "its columns have other types".to_string();
                return Err(OperatorError::State { what: TABLE.to_string(), reason });
            }
            self.absorb(batch)?;
        }
        Ok(())
    }

    fn set_saved(&mut self, is_saved: bool) {
        self.shards.iter_mut().for_each(|shard| shard.set_saved(is_saved));
    }
}

impl Spills for Tiles {
    fn in_memory(&self) -> usize {
        self.shards.iter().map(Shard::in_memory).sum()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let Tiles { layout, shards, .. } = self;
        spill_shards(shards, most, |shard, most| shard.spill(most, layout, scratch))
    }

    fn cold(&self) -> Vec<&Cold> {
        self.shards.iter().map(|shard| &shard.cold).collect()
    }
}

/// When each comparison turns for each row, as it stands in the key of a tile.
fn turning_points(
    bounds: &mut [TurningPoints],
    batch: &RecordBatch,
    clock: Clock,
) -> Result<Vec<Vec<Clock>>, OperatorError> {
    let of_one = |points: &mut TurningPoints| {
        let values = as_integers(&map::evaluate(&points.bound().row, batch)?)?;
        let mut turns = points.turn(values.values(), clock)?;
        for (row, turn) in turns.iter_mut().enumerate() {
            if values.is_null(row) {
                *turn = UNKNOWN;
            } else if *turn <= clock {
                *turn = PAST;
            }
        }
        Ok(turns)
    };
    bounds.par_iter_mut().map(of_one).collect()
}
