//! One shard of a GROUP BY: its keys and, for each member, the state of its groups.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};

use crate::delta::Delta;
use crate::operator::aggregate::MemberPlan;
use crate::operator::aggregate::accumulator::{Accumulator, Selection};
use crate::operator::aggregate::keys::{BatchKeys, KeyIndex, KeyLayout};
use crate::operator::aggregate::prepare::Prepared;
use crate::operator::changed::ChangedSlots;
use crate::operator::cold::{Cold, Hand};
use crate::operator::{OperatorError, rows};
use crate::plan::flow::Member;

/// Keys and states of a part of the groups.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) index: KeyIndex,
    pub(crate) members: Vec<MemberState>,
    /// Slots already met in this step, for each member in turn.
    seen: Vec<bool>,
    /// Groups that are not in memory.
    pub(crate) cold: Cold,
    pub(crate) hand: Hand,
}

/// One member's groups.
#[derive(Debug)]
pub(crate) struct MemberState {
    /// Rows of each slot that count, by weight; a group is there while they are more than none.
    pub(crate) counts: Vec<i64>,
    pub(crate) accumulators: Vec<Accumulator>,
    pub(crate) changed: ChangedSlots,
}

impl MemberState {
    pub(crate) fn new(member: &Member, append_only: bool) -> Result<Self, OperatorError> {
        let accumulators =
            member.aggregates.iter().map(|call| Accumulator::new(call, append_only)).collect::<Result<Vec<_>, _>>()?;
        Ok(MemberState { counts: Vec::new(), accumulators, changed: ChangedSlots::default() })
    }

    fn grow(&mut self, slots: usize) {
        if self.counts.len() < slots {
            self.counts.resize(slots, 0);
            self.accumulators.iter_mut().for_each(|accumulator| accumulator.grow(slots));
        }
    }

    fn evaluate(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        self.accumulators.iter().map(|accumulator| accumulator.evaluate(slots)).collect()
    }

    pub(crate) fn groups(&self) -> usize {
        self.counts.iter().filter(|count| **count > 0).count()
    }

    pub(crate) fn bytes(&self) -> usize {
        let accumulators: usize = self.accumulators.iter().map(Accumulator::bytes).sum();
        self.counts.capacity() * 8 + accumulators + self.changed.bytes()
    }
}

impl Shard {
    pub(crate) fn new(layout: &KeyLayout) -> Result<Self, OperatorError> {
        let cold = Cold::new(layout.cold_columns()?);
        Ok(Shard { index: layout.index(), members: Vec::new(), seen: Vec::new(), cold, hand: Hand::default() })
    }

    /// Makes room in all states for the slots of the index.
    pub(crate) fn grow(&mut self) {
        let slots = self.index.slots();
        self.seen.resize(slots, false);
        self.members.iter_mut().for_each(|member| member.grow(slots));
    }

    /// Takes the rows of this shard; a delta or a fault for each member.
    pub(crate) fn step(
        &mut self,
        layout: &KeyLayout,
        plans: &[Arc<MemberPlan>],
        keys: &BatchKeys,
        prepared: &[Result<Prepared, OperatorError>],
        rows: &[u32],
        weights: Option<&[i64]>,
    ) -> Vec<Result<Delta, OperatorError>> {
        if let Err(error) = self.bring_in(layout, plans, keys, rows) {
            return plans.iter().map(|_| Err(error.clone())).collect();
        }
        let slots = self.index.intern(keys, rows);
        self.grow();
        self.hand.note(&slots);
        let mut outputs = Vec::with_capacity(plans.len());
        for (position, plan) in plans.iter().enumerate() {
            outputs.push(match &prepared[position] {
                Err(error) => Err(error.clone()),
                Ok(prepared) => self.step_member(layout, position, plan, prepared, &slots, rows, weights),
            });
        }
        if weights.is_some() {
            self.release(&slots);
        }
        outputs
    }

    #[allow(clippy::too_many_arguments, reason = "one call, private to the shard")]
    fn step_member(
        &mut self,
        layout: &KeyLayout,
        position: usize,
        plan: &MemberPlan,
        prepared: &Prepared,
        slots: &[u32],
        rows: &[u32],
        weights: Option<&[i64]>,
    ) -> Result<Delta, OperatorError> {
        let kept;
        let (slots, rows): (&[u32], &[u32]) = match &prepared.mask {
            None => (slots, rows),
            Some(mask) => {
                let passing = slots.iter().zip(rows).filter(|(_, row)| mask.value(**row as usize));
                kept = passing.map(|(slot, row)| (*slot, *row)).unzip::<u32, u32, Vec<u32>, Vec<u32>>();
                (&kept.0, &kept.1)
            }
        };
        let mut touched = Vec::new();
        for slot in slots {
            let seen = &mut self.seen[*slot as usize];
            if !*seen {
                *seen = true;
                touched.push(*slot);
            }
        }
        touched.iter().for_each(|slot| self.seen[*slot as usize] = false);
        if touched.is_empty() {
            return Ok(Delta::empty(Arc::clone(&plan.schema)));
        }

        let state = &mut self.members[position];
        touched.iter().for_each(|slot| state.changed.note(*slot));
        let existed: Vec<bool> = touched.iter().map(|slot| state.counts[*slot as usize] > 0).collect();
        let old = state.evaluate(&touched)?;
        let selection = Selection { slots, rows, weights };
        for (slot, row) in slots.iter().zip(rows) {
            let row = *row as usize;
            let rows = prepared.rows.as_ref().map_or(1, |rows| rows[row]);
            state.counts[*slot as usize] += rows * weights.map_or(1, |weights| weights[row]);
        }
        for (accumulator, argument) in state.accumulators.iter_mut().zip(&prepared.arguments) {
            accumulator.update(selection, argument)?;
        }
        let exists: Vec<bool> = touched.iter().map(|slot| state.counts[*slot as usize] > 0).collect();
        let new = state.evaluate(&touched)?;

        let mut changed: Vec<bool> = existed.iter().zip(&exists).map(|(existed, exists)| existed != exists).collect();
        for (old, new) in old.iter().zip(&new) {
            rows::differences(old, new)?
                .into_iter()
                .zip(&mut changed)
                .for_each(|(differs, changed)| *changed |= differs);
        }
        let pick = |there: &[bool]| -> UInt32Array {
            (0..touched.len() as u32)
                .filter(|at| there[*at as usize] && changed[*at as usize])
                .collect::<Vec<_>>()
                .into()
        };
        let (gone, come) = (pick(&existed), pick(&exists));
        if gone.is_empty() && come.is_empty() {
            return Ok(Delta::empty(Arc::clone(&plan.schema)));
        }
        let emitted: Vec<u32> = gone.values().iter().chain(come.values()).map(|at| touched[*at as usize]).collect();
        let mut columns = self.index.columns(layout, &emitted)?;
        for (old, new) in old.iter().zip(&new) {
            let (old, new) = (take(old, &gone, None)?, take(new, &come, None)?);
            columns.push(concat(&[&old, &new])?);
        }
        let batch = RecordBatch::try_new(Arc::clone(&plan.schema), columns)?;
        if gone.is_empty() {
            return Ok(Delta::inserts(batch));
        }
        let weights = std::iter::repeat_n(-1, gone.len()).chain(std::iter::repeat_n(1, come.len()));
        Ok(Delta::weighted(batch, Int64Array::from_iter_values(weights)))
    }

    /// Gives back those of the slots in which no member has rows.
    pub(crate) fn release(&mut self, slots: &[u32]) {
        let mut slots: Vec<u32> = slots
            .iter()
            .copied()
            .filter(|slot| self.members.iter().all(|member| member.counts[*slot as usize] == 0))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            for member in &mut self.members {
                member.accumulators.iter_mut().for_each(|accumulator| accumulator.clear(slot));
            }
            self.index.remove(slot);
        }
    }
}
