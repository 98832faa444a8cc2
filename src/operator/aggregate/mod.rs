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
pub mod value_set;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, LargeBinaryArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type};
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::aggregate::keys::KeyLayout;
use crate::operator::aggregate::shard::{MemberState, Shard};
use crate::operator::state::{binary_column, find_part, primitive_column};
use crate::operator::{OperatorError, StatePart, map, rows};
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

impl Aggregate {
    /// Without members; `append_only` when the input never retracts.
    pub fn new(keys: Vec<Scalar>, append_only: bool, shards: usize) -> Result<Self, OperatorError> {
        let layout = KeyLayout::new(keys.iter().map(|key| key.data_type.clone()).collect())?;
        let shards = (0..shards.max(1)).map(|_| Shard::new(&layout)).collect();
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
        self.members.remove(position);
        for shard in &mut self.shards {
            shard.members.remove(position);
            let slots = shard.index.live_slots();
            shard.release(&slots);
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

    /// Groups that are there, and the bytes of keys and all members.
    pub fn size(&self) -> (usize, usize) {
        let groups = self.shards.iter().map(|shard| shard.index.len()).sum();
        let members: usize = self.shards.iter().flat_map(|shard| &shard.members).map(|member| member.bytes()).sum();
        (groups, members + self.shards.iter().map(|shard| shard.index.bytes()).sum::<usize>())
    }

    /// Groups of one member, and the bytes of its own and of the keys.
    pub fn member_size(&self, fingerprint: &str) -> (usize, usize) {
        let Some(position) = self.members().position(|member| member == fingerprint) else { return (0, 0) };
        let of_shard = |shard: &Shard| {
            let own = &shard.members[position];
            (own.groups(), own.bytes() + shard.index.bytes())
        };
        self.shards.iter().map(of_shard).fold((0, 0), |one, other| (one.0 + other.0, one.1 + other.1))
    }

    /// Keys as `keys`; for each member `member <fingerprint>`, and `member <fingerprint> <aggregate>` for sets of values.
    pub fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let slots: Vec<Vec<u32>> = self.shards.iter().map(|shard| shard.index.live_slots()).collect();
        let starts: Vec<u32> = slots
            .iter()
            .scan(0, |start, slots| {
                let this = *start;
                *start += slots.len() as u32;
                Some(this)
            })
            .collect();
        let fields: Vec<Field> = self
            .layout
            .types()
            .iter()
            .enumerate()
            .map(|(index, data_type)| Field::new(format!("key{index}"), data_type.clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let batches = self
            .shards
            .iter()
            .zip(&slots)
            .map(|(shard, slots)| {
                Ok(RecordBatch::try_new(Arc::clone(&schema), shard.index.columns(&self.layout, slots)?)?)
            })
            .collect::<Result<Vec<_>, OperatorError>>()?;
        let mut parts =
            vec![StatePart { name: "keys".to_string(), batch: arrow::compute::concat_batches(&schema, &batches)? }];
        for (position, plan) in self.members.iter().enumerate() {
            let name = format!("member {}", plan.member.fingerprint);
            let mut batches = Vec::new();
            let mut entries: Vec<EntryColumns> = vec![EntryColumns::default(); plan.member.aggregates.len()];
            for ((shard, slots), start) in self.shards.iter().zip(&slots).zip(&starts) {
                let state = &shard.members[position];
                batches.push(state.snapshot(slots, |aggregate, found| {
                    let (positions, values, weights) = &mut entries[aggregate];
                    for (position, value, weight) in found {
                        positions.push(start + position);
                        values.push(value);
                        weights.push(weight);
                    }
                })?);
            }
            let schema = member_state_schema(plan.member.aggregates.len());
            parts.push(StatePart { name: name.clone(), batch: arrow::compute::concat_batches(&schema, &batches)? });
            for (aggregate, (positions, values, weights)) in entries.into_iter().enumerate() {
                if positions.is_empty() {
                    continue;
                }
                let schema = Schema::new(vec![
                    Field::new("position", DataType::UInt32, false),
                    Field::new("value", DataType::LargeBinary, false),
                    Field::new("weight", DataType::Int64, false),
                ]);
                let batch = RecordBatch::try_new(
                    Arc::new(schema),
                    vec![
                        Arc::new(UInt32Array::from(positions)),
                        Arc::new(LargeBinaryArray::from_iter_values(values)),
                        Arc::new(Int64Array::from(weights)),
                    ],
                )?;
                parts.push(StatePart { name: format!("{name} {aggregate}"), batch });
            }
        }
        Ok(parts)
    }

    /// Takes the state of those members over for which `wanted` is true; they must hold none yet.
    pub fn load(&mut self, parts: &[StatePart], wanted: &dyn Fn(&str) -> bool) -> Result<(), OperatorError> {
        let keys = find_part(parts, "keys")?;
        let batch = self.layout.prepare(keys.columns())?;
        let by_shard = rows::rows_by_shard(batch.hashes.iter().copied(), self.shards.len());
        // Where each stored group lives now: its shard and slot.
        let mut places = vec![(0_usize, 0_u32); keys.num_rows()];
        for (number, (shard, rows)) in self.shards.iter_mut().zip(&by_shard).enumerate() {
            for (slot, row) in shard.index.intern(&batch, rows).into_iter().zip(rows) {
                places[*row as usize] = (number, slot);
            }
            shard.grow();
        }
        for (position, plan) in self.members.iter().enumerate() {
            if !wanted(&plan.member.fingerprint) {
                continue;
            }
            let name = format!("member {}", plan.member.fingerprint);
            let batch = find_part(parts, &name)?;
            let damaged = |reason: &str| OperatorError::State { what: name.clone(), reason: reason.to_string() };
            if batch.num_rows() != places.len() {
                return Err(damaged("it has another number of groups than there are keys"));
            }
            let counts = primitive_column::<Int64Type>(batch, 0)?;
            for (aggregate, _) in plan.member.aggregates.iter().enumerate() {
                let aggregate_counts = primitive_column::<Int64Type>(batch, 1 + 2 * aggregate)?;
                let values = binary_column(batch, 2 + 2 * aggregate)?;
                for (row, (shard, slot)) in places.iter().enumerate() {
                    let state = &mut self.shards[*shard].members[position];
                    let value = values.is_valid(row).then(|| values.value(row));
                    state.accumulators[aggregate].load(*slot, aggregate_counts.value(row), value)?;
                }
                let entries = format!("{name} {aggregate}");
                let Some(part) = parts.iter().find(|part| part.name == entries) else { continue };
                let positions = primitive_column::<UInt32Type>(&part.batch, 0)?;
                let values = binary_column(&part.batch, 1)?;
                let weights = primitive_column::<Int64Type>(&part.batch, 2)?;
                for row in 0..part.batch.num_rows() {
                    let (shard, slot) = *places
                        .get(positions.value(row) as usize)
                        .ok_or_else(|| damaged("an entry belongs to no group"))?;
                    let state = &mut self.shards[shard].members[position];
                    state.accumulators[aggregate].load_entry(slot, values.value(row), weights.value(row));
                }
            }
            for (row, (shard, slot)) in places.iter().enumerate() {
                self.shards[*shard].members[position].counts[*slot as usize] = counts.value(row);
            }
        }
        // Groups that only members had that are not wanted any more.
        for shard in &mut self.shards {
            let slots = shard.index.live_slots();
            shard.release(&slots);
        }
        Ok(())
    }
}

/// Positions, values and weights of the entries of one aggregate.
type EntryColumns = (Vec<u32>, Vec<Box<[u8]>>, Vec<i64>);

/// Rows of the group that count, then a count and a value for each aggregate.
pub(crate) fn member_state_schema(aggregates: usize) -> SchemaRef {
    let mut fields = vec![Field::new("rows", DataType::Int64, false)];
    for aggregate in 0..aggregates {
        fields.push(Field::new(format!("count{aggregate}"), DataType::Int64, false));
        fields.push(Field::new(format!("value{aggregate}"), DataType::LargeBinary, true));
    }
    Arc::new(Schema::new(fields))
}
