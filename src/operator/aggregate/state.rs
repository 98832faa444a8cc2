//! The state of a GROUP BY as tables: for each member `member <fingerprint>`, a row for each of its groups, and
//! `member <fingerprint> <aggregate>` for the values that an aggregate keeps. Every table begins with the group keys, so
//! that members come and go by themselves.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, LargeBinaryArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rayon::prelude::*;

use crate::operator::aggregate::Aggregate;
use crate::operator::aggregate::accumulator::Accumulator;
use crate::operator::aggregate::keys::{BatchKeys, KeyLayout};
use crate::operator::aggregate::shard::{MemberState, Shard};
use crate::operator::aggregate::value_set::Entries;
use crate::operator::state::{Gone, binary_column, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful, rows};

pub(super) fn groups_table(member: &str) -> String {
    format!("member {member}")
}

pub(super) fn values_table(member: &str, aggregate: usize) -> String {
    format!("member {member} {aggregate}")
}

fn schema(layout: &KeyLayout, more: Vec<Field>) -> SchemaRef {
    let keys = layout.schema();
    Arc::new(Schema::new(keys.fields().iter().map(|field| field.as_ref().clone()).chain(more).collect::<Vec<_>>()))
}

/// Keys, rows of the group that count, then a count and a value for each aggregate.
fn groups_schema(layout: &KeyLayout, aggregates: usize) -> SchemaRef {
    let mut fields = vec![Field::new("rows", DataType::Int64, false)];
    for aggregate in 0..aggregates {
        fields.push(Field::new(format!("count{aggregate}"), DataType::Int64, false));
        fields.push(Field::new(format!("value{aggregate}"), DataType::LargeBinary, true));
    }
    schema(layout, fields)
}

/// Keys and a value, then its weight.
fn values_schema(layout: &KeyLayout) -> SchemaRef {
    schema(layout, vec![value_field(), Field::new("weight", DataType::Int64, false)])
}

fn value_field() -> Field {
    Field::new("value", DataType::LargeBinary, false)
}

impl MemberState {
    fn columns(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let counts: Int64Array = slots.iter().map(|slot| self.counts[*slot as usize]).collect();
        let of_aggregates = self.accumulators.iter().flat_map(|accumulator| accumulator.snapshot(slots));
        std::iter::once(Arc::new(counts) as ArrayRef).chain(of_aggregates).collect()
    }

    fn load(&mut self, slots: &[u32], taken: &[u32], part: &RecordBatch, width: usize) -> Result<(), OperatorError> {
        let counts = primitive_column::<Int64Type>(part, width)?;
        for (slot, row) in slots.iter().zip(taken) {
            self.counts[*slot as usize] = counts.value(*row as usize);
        }
        for (aggregate, accumulator) in self.accumulators.iter_mut().enumerate() {
            let counts = primitive_column::<Int64Type>(part, width + 1 + 2 * aggregate)?;
            let values = binary_column(part, width + 2 + 2 * aggregate)?;
            for (slot, row) in slots.iter().zip(taken) {
                let row = *row as usize;
                let value = values.is_valid(row).then(|| values.value(row));
                accumulator.load(*slot, counts.value(row), value)?;
            }
        }
        Ok(())
    }
}

impl Shard {
    pub(super) fn groups(
        &self,
        layout: &KeyLayout,
        position: usize,
        slots: &[u32],
    ) -> Result<RecordBatch, OperatorError> {
        let state = &self.members[position];
        let mut columns = self.index.columns(layout, slots)?;
        columns.extend(state.columns(slots));
        Ok(RecordBatch::try_new(groups_schema(layout, state.accumulators.len()), columns)?)
    }

    fn keys(&self, layout: &KeyLayout, slots: &[u32]) -> Result<RecordBatch, OperatorError> {
        Ok(RecordBatch::try_new(layout.schema(), self.index.columns(layout, slots)?)?)
    }

    /// The slots in which a member has rows.
    fn slots_of(&self, position: usize) -> Vec<u32> {
        let counts = &self.members[position].counts;
        self.index.live_slots().into_iter().filter(|slot| counts[*slot as usize] != 0).collect()
    }

    /// Values of groups as rows; those that are gone as keys.
    pub(super) fn values(&self, layout: &KeyLayout, entries: Entries) -> Result<[RecordBatch; 2], OperatorError> {
        let known = entries.into_iter().filter(|(slot, ..)| self.index.holds(*slot) || self.index.has_lost(*slot));
        let (held, gone): (Entries, Entries) =
            known.partition(|(slot, _, weight)| self.index.holds(*slot) && *weight != 0);
        let keys = |entries: &Entries| -> Result<Vec<ArrayRef>, OperatorError> {
            let slots: Vec<u32> = entries.iter().map(|(slot, ..)| *slot).collect();
            let values = LargeBinaryArray::from_iter_values(entries.iter().map(|(_, value, _)| value));
            let mut columns = self.index.columns(layout, &slots)?;
            columns.push(Arc::new(values));
            Ok(columns)
        };
        let weights = Int64Array::from_iter_values(held.iter().map(|(.., weight)| *weight));
        let columns = keys(&held)?.into_iter().chain([Arc::new(weights) as ArrayRef]).collect();
        let rows = RecordBatch::try_new(values_schema(layout), columns)?;
        Ok([rows, RecordBatch::try_new(schema(layout, vec![value_field()]), keys(&gone)?)?])
    }

    pub(super) fn load(
        &mut self,
        position: usize,
        layout: &KeyLayout,
        part: &RecordBatch,
        taken: &Taken<'_>,
    ) -> Result<(), OperatorError> {
        let slots = self.index.intern(taken.keys, taken.rows);
        self.grow();
        self.members[position].load(&slots, taken.rows, part, layout.types().len())
    }

    pub(super) fn load_values(
        &mut self,
        accumulator: (usize, usize),
        layout: &KeyLayout,
        part: &RecordBatch,
        taken: &Taken<'_>,
    ) -> Result<(), OperatorError> {
        let width = layout.types().len();
        let (values, weights) = (binary_column(part, width)?, primitive_column::<Int64Type>(part, width + 1)?);
        let slots = self.index.intern(taken.keys, taken.rows);
        self.grow();
        let accumulator = &mut self.members[accumulator.0].accumulators[accumulator.1];
        for (slot, row) in slots.into_iter().zip(taken.rows) {
            accumulator.load_entry(slot, values.value(*row as usize), weights.value(*row as usize));
        }
        Ok(())
    }
}

/// Rows of a part that are of one shard.
pub(super) struct Taken<'a> {
    pub(super) keys: &'a BatchKeys,
    pub(super) rows: &'a [u32],
}

impl Aggregate {
    /// Takes the state of those members over for which `wanted` is true; they must hold none yet.
    pub fn load_members(&mut self, parts: &[StatePart], wanted: &dyn Fn(&str) -> bool) -> Result<(), OperatorError> {
        let members = self.members.clone();
        for (position, plan) in members.iter().enumerate().filter(|(_, plan)| wanted(&plan.member.fingerprint)) {
            let fingerprint = &plan.member.fingerprint;
            for part in find_parts(parts, &groups_table(fingerprint))? {
                self.load_part(part, |shard, layout, taken| shard.load(position, layout, part, taken))?;
            }
            for aggregate in 0..plan.member.aggregates.len() {
                let name = values_table(fingerprint, aggregate);
                let Ok(found) = find_parts(parts, &name) else { continue };
                for part in found {
                    let accumulator = (position, aggregate);
                    self.load_part(part, |shard, layout, taken| shard.load_values(accumulator, layout, part, taken))?;
                }
            }
        }
        Ok(())
    }

    fn load_part(
        &mut self,
        part: &RecordBatch,
        load: impl Fn(&mut Shard, &KeyLayout, &Taken<'_>) -> Result<(), OperatorError> + Sync,
    ) -> Result<(), OperatorError> {
        let keys = self.layout.read(part)?;
        let by_shard = rows::rows_by_shard(keys.hashes.iter().copied(), self.shards.len());
        let (layout, members) = (&self.layout, &self.members);
        let loads = self.shards.par_iter_mut().zip(&by_shard);
        loads.try_for_each(|(shard, rows)| {
            // Other members may know these groups, and what was loaded of them before may have left again.
            shard.bring_in(layout, members, &keys, rows)?;
            load(shard, layout, &Taken { keys: &keys, rows })
        })
    }

    /// The groups of a member: in these slots of each shard, or all.
    fn groups(&self, position: usize, changed: Option<Vec<Vec<u32>>>) -> Result<StatePart, OperatorError> {
        let plan = &self.members[position].member;
        let (layout, name) = (&self.layout, groups_table(&plan.fingerprint));
        let key = layout.types().len();
        let rows_schema = groups_schema(layout, plan.aggregates.len());
        let Some(changed) = changed else {
            let batches = self.shards.iter().map(|shard| shard.groups(layout, position, &shard.slots_of(position)));
            let batches = batches.collect::<Result<Vec<_>, _>>()?;
            return Ok(StatePart::whole(name, key, concat_batches(&rows_schema, &batches)?));
        };
        let (mut batches, mut gone) = (Vec::new(), Vec::new());
        for (shard, changed) in self.shards.iter().zip(changed) {
            let counts = &shard.members[position].counts;
            let known = changed.into_iter().filter(|slot| shard.index.holds(*slot) || shard.index.has_lost(*slot));
            let (held, lost): (Vec<u32>, Vec<u32>) = known.partition(|slot| counts[*slot as usize] != 0);
            batches.push(shard.groups(layout, position, &held)?);
            gone.push(shard.keys(layout, &lost)?);
        }
        let gone = Gone { keys: concat_batches(&layout.schema(), &gone)?, below: None };
        Ok(StatePart::changes(name, key, concat_batches(&rows_schema, &batches)?, gone))
    }

    /// The values that an aggregate of a member keeps: these of each shard, or all.
    fn values(
        &self,
        position: usize,
        aggregate: usize,
        changed: Option<Vec<Entries>>,
    ) -> Result<Option<StatePart>, OperatorError> {
        let is_all = changed.is_none();
        let all = |shard: &Shard| shard.members[position].accumulators[aggregate].entries();
        let Some(entries) = changed.or_else(|| self.shards.iter().map(all).collect()) else { return Ok(None) };
        let layout = &self.layout;
        let batches = self.shards.iter().zip(entries).map(|(shard, entries)| shard.values(layout, entries));
        let batches = batches.collect::<Result<Vec<_>, OperatorError>>()?;
        let [rows_schema, keys_schema] = [values_schema(layout), schema(layout, vec![value_field()])];
        let rows = concat_batches(&rows_schema, batches.iter().map(|[rows, _]| rows))?;
        let gone = Gone { keys: concat_batches(&keys_schema, batches.iter().map(|[_, gone]| gone))?, below: None };
        let (name, key) =
            (values_table(&self.members[position].member.fingerprint, aggregate), keys_schema.fields().len());
        Ok(Some(if is_all { StatePart::whole(name, key, rows) } else { StatePart::changes(name, key, rows, gone) }))
    }
}

impl Stateful for Aggregate {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let mut parts = Vec::new();
        for (position, plan) in self.members.iter().enumerate() {
            parts.push(self.groups(position, None)?);
            for aggregate in 0..plan.member.aggregates.len() {
                parts.extend(self.values(position, aggregate, None)?);
            }
        }
        Ok(parts)
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let mut parts = Vec::new();
        for position in 0..self.members.len() {
            let members = self.shards.iter_mut().map(|shard| &mut shard.members[position]);
            let changed: Option<Vec<Vec<u32>>> = members.map(|member| member.changed.take()).collect();
            let groups = self.size().0;
            let few = |changed: &Vec<Vec<u32>>| changed.iter().map(Vec::len).sum::<usize>() <= groups / 2;
            parts.push(self.groups(position, changed.filter(few))?);
            for aggregate in 0..self.members[position].member.aggregates.len() {
                let accumulators =
                    self.shards.iter_mut().map(|shard| &mut shard.members[position].accumulators[aggregate]);
                let changed: Option<Vec<Entries>> = accumulators.map(Accumulator::changed_entries).collect();
                let is_all = changed.is_none();
                parts.extend(self.values(position, aggregate, changed)?);
                if is_all {
                    for shard in &mut self.shards {
                        shard.members[position].accumulators[aggregate].set_saved(true);
                    }
                }
            }
        }
        for shard in &mut self.shards {
            shard.members.iter_mut().for_each(|member| member.changed.set_saved(true));
            shard.index.set_saved();
        }
        Ok(parts)
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        self.load_members(parts, &|_| true)
    }

    fn set_saved(&mut self, is_saved: bool) {
        for shard in &mut self.shards {
            for member in &mut shard.members {
                member.changed.set_saved(is_saved);
                member.accumulators.iter_mut().for_each(|accumulator| accumulator.set_saved(is_saved));
            }
            if is_saved {
                shard.index.set_saved();
            }
        }
    }
}
