//! The columns of a tile: its keys, when its comparisons turn, how many rows it stands for, its partial aggregates.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::delta::{Clock, Delta};
use crate::operator::OperatorError;
use crate::operator::aggregate::keys::KeyLayout;
use crate::operator::bisect::NEVER;
use crate::plan::flow::{AggregateCall, AggregateFunction, TilePlan};

/// In place of a turning point: the row's side is NULL, and so is the comparison for ever.
pub(super) const UNKNOWN: Clock = Clock::MIN;
/// In place of a turning point: it lies behind the clock. All tiles that differ in nothing else are one.
pub(super) const PAST: Clock = Clock::MIN + 1;

/// What the shards share.
#[derive(Debug)]
pub(super) struct TileLayout {
    /// Of keys and turning points.
    keys: KeyLayout,
    key_width: usize,
    enters: bool,
    leaves: bool,
    /// For each flag, whether it is true until it turns.
    lower: Vec<bool>,
    /// Over rows.
    calls: Vec<AggregateCall>,
    state: SchemaRef,
    output: SchemaRef,
}

impl TileLayout {
    pub(super) fn new(plan: &TilePlan, output: SchemaRef) -> Result<Self, OperatorError> {
        let has = |is_lower: bool| plan.bounds.iter().any(|bound| bound.comparison.is_lower() == is_lower);
        let (enters, leaves) = (has(false), has(true));
        let key_width = plan.keys.len();
        let turns = usize::from(enters) + usize::from(leaves) + plan.flags.len();
        let mut types: Vec<DataType> = plan.keys.iter().map(|key| key.data_type.clone()).collect();
        types.extend(std::iter::repeat_n(DataType::Int64, turns));
        let partials = plan.calls.iter().map(|call| &call.data_type);
        let kept = types.iter().chain([&DataType::Int64]).chain(partials).enumerate();
        let fields = kept.map(|(index, data_type)| Field::new(format!("c{index}"), data_type.clone(), true));
        Ok(TileLayout {
            keys: KeyLayout::new(types.clone())?,
            key_width,
            enters,
            leaves,
            lower: plan.flags.iter().map(|flag| flag.comparison.is_lower()).collect(),
            calls: plan.calls.clone(),
            state: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            output,
        })
    }

    pub(super) fn keys(&self) -> &KeyLayout {
        &self.keys
    }

    /// How many columns the keys and turning points are.
    pub(super) fn width(&self) -> usize {
        self.keys.types().len()
    }

    /// True where rows may wait until a bound lets them in.
    pub(super) fn enters(&self) -> bool {
        self.enters
    }

    /// True where a bound drops rows.
    pub(super) fn leaves(&self) -> bool {
        self.leaves
    }

    pub(super) fn calls(&self) -> &[AggregateCall] {
        &self.calls
    }

    /// Of a tile in a checkpoint.
    pub(super) fn state(&self) -> &SchemaRef {
        &self.state
    }

    pub(super) fn output(&self) -> &SchemaRef {
        &self.output
    }

    pub(super) fn is_extreme(call: &AggregateCall) -> bool {
        matches!(call.function, AggregateFunction::Min | AggregateFunction::Max)
    }

    pub(super) fn has_extremes(&self) -> bool {
        self.calls.iter().any(Self::is_extreme)
    }

    /// The turning points of tiles with these keys and turning points.
    fn turns<'a>(&self, columns: &'a [ArrayRef]) -> Vec<&'a Int64Array> {
        columns[self.key_width..self.width()].iter().map(|turns| turns.as_primitive::<Int64Type>()).collect()
    }

    /// When the next comparison of each tile turns; [`NEVER`] where none does.
    pub(super) fn next_turns(&self, columns: &[ArrayRef]) -> Vec<Clock> {
        let turns = self.turns(columns);
        let of_tile = |tile: usize| {
            let still = turns.iter().map(|turns| turns.value(tile)).filter(|turn| *turn > PAST);
            still.min().unwrap_or(NEVER)
        };
        (0..columns.first().map_or(0, |column| column.len())).map(of_tile).collect()
    }

    /// The columns as they are at `clock`, and which of the tiles are still there.
    pub(super) fn turned(&self, columns: &[ArrayRef], clock: Clock) -> (Vec<ArrayRef>, BooleanArray) {
        let turn = |turn: Clock| if turn > PAST && turn <= clock { PAST } else { turn };
        let turns: Vec<Int64Array> = self.turns(columns).into_iter().map(|turns| turns.unary(turn)).collect();
        let leave = self.leaves.then(|| &turns[usize::from(self.enters)]);
        let there = match leave {
            Some(leave) => leave.values().iter().map(|leave| Some(*leave != PAST)).collect(),
            None => BooleanArray::from(vec![true; columns.first().map_or(0, |column| column.len())]),
        };
        let keys = columns[..self.key_width].iter().cloned();
        (keys.chain(turns.into_iter().map(|turns| Arc::new(turns) as ArrayRef)).collect(), there)
    }

    /// The flags of tiles or rows with these keys and turning points.
    pub(super) fn flags(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>, OperatorError> {
        let turns = self.turns(columns).into_iter().skip(usize::from(self.enters) + usize::from(self.leaves));
        let flag = |(turns, lower): (&Int64Array, &bool)| {
            let flag = |turn: &Clock| (*turn != UNKNOWN).then_some((*turn == PAST) != *lower);
            Arc::new(turns.values().iter().map(flag).collect::<BooleanArray>()) as ArrayRef
        };
        Ok(turns.zip(&self.lower).map(flag).collect())
    }

    /// Those that are visible of tiles with these keys and turning points, as rows of the output.
    pub(super) fn emit(
        &self,
        columns: &[ArrayRef],
        rows: Int64Array,
        partials: Vec<ArrayRef>,
        of_these: Option<&BooleanArray>,
        weight: i64,
    ) -> Result<Delta, OperatorError> {
        let keys = columns[..self.key_width].iter().cloned();
        let rest = std::iter::once(Arc::new(rows) as ArrayRef).chain(partials);
        let all = keys.chain(self.flags(columns)?).chain(rest).collect();
        let mut batch = RecordBatch::try_new(Arc::clone(&self.output), all)?;
        if let Some(these) = of_these {
            batch = filter_record_batch(&batch, these)?;
        }
        if self.enters
            && let Some(enter) = self.turns(columns).first()
        {
            let is_in: BooleanArray = enter.values().iter().map(|enter| Some(*enter == PAST)).collect();
            let is_in = match of_these {
                Some(these) => arrow::compute::filter(&is_in, these)?.as_boolean().clone(),
                None => is_in,
            };
            batch = filter_record_batch(&batch, &is_in)?;
        }
        let weights = Int64Array::from(vec![weight; batch.num_rows()]);
        Ok(Delta::weighted(batch, weights))
    }
}
