//! Groups that leave memory and come back.

use std::sync::Arc;

use crate::operator::aggregate::Aggregate;
use crate::operator::aggregate::MemberPlan;
use crate::operator::aggregate::keys::{BatchKeys, KeyLayout};
use crate::operator::aggregate::shard::Shard;
use crate::operator::aggregate::state::{Taken, groups_table, values_table};
use crate::operator::cold::{Cold, Scratch, Spills, spill_shards};
use crate::operator::{OperatorError, StatePart};

impl Shard {
    /// Takes those groups of these rows back that are out.
    pub(super) fn bring_in(
        &mut self,
        layout: &KeyLayout,
        plans: &[Arc<MemberPlan>],
        keys: &BatchKeys,
        rows: &[u32],
    ) -> Result<(), OperatorError> {
        if self.cold.is_empty() || rows.is_empty() {
            return Ok(());
        }
        let parts = keys.take_from(&mut self.cold, layout, rows)?;
        for part in &parts {
            let keys = layout.read(&part.batch)?;
            let rows: Vec<u32> = (0..part.batch.num_rows() as u32).collect();
            let taken = Taken { keys: &keys, rows: &rows };
            for (position, plan) in plans.iter().enumerate() {
                let fingerprint = &plan.member.fingerprint;
                if part.name == groups_table(fingerprint) {
                    self.load(position, layout, &part.batch, &taken)?;
                }
                for aggregate in 0..plan.member.aggregates.len() {
                    if part.name == values_table(fingerprint, aggregate) {
                        self.load_values((position, aggregate), layout, &part.batch, &taken)?;
                    }
                }
            }
            let slots = self.index.intern(&keys, &rows);
            self.index.came_in(&slots);
        }
        Ok(())
    }

    fn spill(
        &mut self,
        most: usize,
        layout: &KeyLayout,
        plans: &[Arc<MemberPlan>],
        scratch: &Arc<dyn Scratch>,
    ) -> Result<usize, OperatorError> {
        let is_awaited = |slot: u32| self.members.iter().any(|member| member.changed.awaits(slot));
        let slots = self.index.idle_slots(&mut self.hand, most, is_awaited);
        if slots.is_empty() {
            return Ok(0);
        }
        self.cold.put(&self.rows_of(layout, plans, &slots)?, scratch)?;
        for member in &mut self.members {
            slots.iter().for_each(|slot| member.counts[*slot as usize] = 0);
            member.accumulators.iter_mut().for_each(|accumulator| accumulator.let_out(&slots));
        }
        self.index.let_out(&slots);
        Ok(slots.len())
    }

    /// All that the members keep of these slots.
    fn rows_of(
        &self,
        layout: &KeyLayout,
        plans: &[Arc<MemberPlan>],
        slots: &[u32],
    ) -> Result<Vec<StatePart>, OperatorError> {
        let width = layout.types().len();
        let mut parts = Vec::new();
        for (position, (plan, member)) in plans.iter().zip(&self.members).enumerate() {
            let fingerprint = &plan.member.fingerprint;
            let own: Vec<u32> = slots.iter().copied().filter(|slot| member.counts[*slot as usize] != 0).collect();
            let groups = self.groups(layout, position, &own)?;
            parts.push(StatePart::whole(groups_table(fingerprint), width, groups));
            for (aggregate, accumulator) in member.accumulators.iter().enumerate() {
                let Some(entries) = accumulator.entries_of(slots) else { continue };
                let [values, _] = self.values(layout, entries)?;
                parts.push(StatePart::whole(values_table(fingerprint, aggregate), width + 1, values));
            }
        }
        Ok(parts)
    }
}

impl Spills for Aggregate {
    fn in_memory(&self) -> usize {
        self.shards.iter().map(|shard| shard.index.len()).sum()
    }

    fn spill(&mut self, most: usize, scratch: &Arc<dyn Scratch>) -> Result<usize, OperatorError> {
        let Aggregate { layout, members, shards, .. } = self;
        spill_shards(shards, most, |shard, most| shard.spill(most, layout, members, scratch))
    }

    fn cold(&self) -> Vec<&Cold> {
        self.shards.iter().map(|shard| &shard.cold).collect()
    }
}
