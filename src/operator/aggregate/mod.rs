//! GROUP BY: one key index shared by all tags that group the same input by the same keys.
//!
//! Each tag is a *member*: a filter and aggregates of its own over the shared slots. A member's output for a group is
//! computed before and after a step for the groups that the step touches, so that nothing but the state itself is
//! kept, and a group whose result did not change gives no rows.

pub mod accumulator;
pub mod collected;
pub mod exact_sum;
pub mod keys;
mod partial;
pub(crate) mod prepare;
mod shard;
mod spill;
mod state;
pub mod value_set;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::aggregate::keys::KeyLayout;
use crate::operator::aggregate::shard::{MemberState, Shard};
use crate::operator::{OperatorError, map, rows};
use crate::plan::flow::{Member, Scalar};

/// A shared GROUP BY.
#[derive(Debug)]
pub struct Aggregate {
    keys: Vec<Scalar>,
    layout: KeyLayout,
    members: Vec<Arc<MemberPlan>>,
    shards: Vec<Shard>,
    append_only: bool,
}

/// A member with the schema of its output.
#[derive(Debug)]
pub(crate) struct MemberPlan {
    pub(crate) member: Member,
    pub(crate) schema: SchemaRef,
}

impl MemberPlan {
    /// The tables of its state.
    fn tables(&self) -> impl Iterator<Item = String> {
        let Member { fingerprint, aggregates, .. } = &self.member;
        let values = (0..aggregates.len()).map(|aggregate| state::values_table(fingerprint, aggregate));
        std::iter::once(state::groups_table(fingerprint)).chain(values)
    }
}

impl Aggregate {
    /// Without members; `append_only` when the input never retracts.
    pub fn new(keys: Vec<Scalar>, append_only: bool, shards: usize) -> Result<Self, OperatorError> {
        let layout = KeyLayout::new(keys.iter().map(|key| key.data_type.clone()).collect())?;
        let shards = (0..shards.max(1)).map(|_| Shard::new(&layout)).collect::<Result<_, _>>()?;
        Ok(Aggregate { keys, layout, members: Vec::new(), shards, append_only })
    }

    /// Fingerprints of the members, in the order of the outputs.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|plan| plan.member.fingerprint.as_str())
    }

    /// Adds a member without state; its rows come from a fill or from the steps after this.
    pub fn add_member(&mut self, member: Member, schema: SchemaRef) -> Result<(), OperatorError> {
        for shard in &mut self.shards {
            shard.members.push(MemberState::new(&member, self.append_only)?);
            shard.grow();
        }
        self.members.push(Arc::new(MemberPlan { member, schema }));
        Ok(())
    }

    /// Forgets a member and the groups that only it had.
    pub fn remove_member(&mut self, fingerprint: &str) {
        let Some(position) = self.members.iter().position(|plan| plan.member.fingerprint == fingerprint) else {
            return;
        };
        let tables: Vec<String> = self.members.remove(position).tables().collect();
        for shard in &mut self.shards {
            shard.members.remove(position);
            let slots = shard.index.live_slots();
            shard.release(&slots);
            tables.iter().for_each(|table| shard.cold.forget_table(table));
        }
    }

    /// One step: a delta, or a fault, for each member.
    pub fn step(&mut self, input: &Delta) -> Vec<Result<Delta, OperatorError>> {
        if input.is_empty() {
            return self.members.iter().map(|plan| Ok(Delta::empty(Arc::clone(&plan.schema)))).collect();
        }
        let keys = self.keys.iter().map(|key| map::evaluate(key, &input.batch)).collect::<Result<Vec<ArrayRef>, _>>();
        let keys = match keys.and_then(|keys| self.layout.prepare(&keys)) {
            Ok(keys) => keys,
            Err(error) => return self.members.iter().map(|_| Err(error.clone())).collect(),
        };
        let prepared = prepare::prepare(&self.members, &input.batch);
        let wanted = prepare::any_mask(&prepared, input.num_rows());
        let mut by_shard = rows::rows_by_shard(keys.hashes.iter().copied(), self.shards.len());
        if let Some(wanted) = &wanted {
            for rows in &mut by_shard {
                rows.retain(|row| wanted.value(*row as usize));
            }
        }
        let weights = input.weights.as_ref().map(|weights| weights.values().as_ref());
        let Aggregate { layout, members, shards, .. } = self;
        let outputs: Vec<Vec<Result<Delta, OperatorError>>> = shards
            .par_iter_mut()
            .zip(by_shard)
            .map(|(shard, rows)| shard.step(layout, members, &keys, &prepared, &rows, weights))
            .collect();
        let mut by_member: Vec<Vec<Delta>> = members.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
        let mut faults: Vec<Option<OperatorError>> = vec![None; members.len()];
        for output in outputs {
            for (member, delta) in output.into_iter().enumerate() {
                match delta {
                    Ok(delta) if delta.is_empty() => {}
                    Ok(delta) => by_member[member].push(delta),
                    Err(error) => faults[member] = Some(error),
                }
            }
        }
        by_member
            .into_iter()
            .zip(faults)
            .zip(members.iter())
            .map(|((deltas, fault), plan)| match fault {
                Some(error) => Err(error),
                None if deltas.is_empty() => Ok(Delta::empty(Arc::clone(&plan.schema))),
                None => Ok(Delta::concat(&plan.schema, &deltas)?),
            })
            .collect()
    }

    /// Groups that there are, and the bytes in memory of keys and all members.
    pub fn size(&self) -> (usize, usize) {
        let groups = self.shards.iter().map(|shard| shard.index.len() + shard.cold.size().keys).sum();
        let members: usize = self.shards.iter().flat_map(|shard| &shard.members).map(|member| member.bytes()).sum();
        let keys = self.shards.iter().map(|shard| shard.index.bytes() + shard.cold.size().memory);
        (groups, members + keys.sum::<usize>())
    }

    /// Groups of one member, those that are out as if it had all of them, and the bytes of its own and of the keys.
    pub fn member_size(&self, fingerprint: &str) -> (usize, usize) {
        let Some(position) = self.members().position(|member| member == fingerprint) else { return (0, 0) };
        let tables: Vec<String> = self.members[position].tables().collect();
        let of_shard = |shard: &Shard| {
            let own = &shard.members[position];
            let cold = shard.cold.size();
            let out = shard.cold.bytes_of(|table| tables.iter().any(|own| own == table));
            (own.groups() + cold.keys, own.bytes() + shard.index.bytes() + out + cold.memory)
        };
        self.shards.iter().map(of_shard).fold((0, 0), |one, other| (one.0 + other.0, one.1 + other.1))
    }
}
