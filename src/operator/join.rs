//! Joins by equal keys, with any further condition: inner, outer, semi, anti and mark.
//!
//! Both inputs are kept by key. New rows of the left meet the right as it was, then new rows of the right meet the left as
//! it is now, so that every pair is met once. Rows that show up without a partner (outer, anti, mark) know how many
//! partners they have, by weight; what they show changes when that becomes none or is none no more.

mod side;
mod spill;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::changed::ChangedRows;
use crate::operator::cold::{Cold, ColdSize, KeyColumns, Spills};
use crate::operator::join::side::{Bytes, Entry, KeyRows, Net, Packed, Side};
use crate::operator::state::Gone;
use crate::operator::{OperatorError, StatePart, Stateful, map, rows};
use crate::plan::flow::{JoinKind, JoinPlan};

/// Pairs that are looked at together: what bounds the memory where a key has many rows on both sides.
const MOST_PAIRS: usize = 100_000;

/// Rows of both inputs by key.
#[derive(Debug)]
struct Shard {
    keys: HashMap<Bytes, KeyRows>,
    /// How many there are of the left and of the right.
    rows: [usize; 2],
    /// Of the left and of the right.
    changed: [ChangedRows; 2],
    /// Keys that are not in memory.
    cold: Cold,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;
/// The tables of the state.
const TABLES: [&str; 2] = ["left", "right"];

/// Two inputs, kept by key.
#[derive(Debug)]
pub struct Join {
    plan: JoinPlan,
    left: Side,
    right: Side,
    /// Both inputs' columns behind one another, over which the condition is read.
    pair_schema: SchemaRef,
    schema: SchemaRef,
    shards: Vec<Shard>,
}

/// Output rows of one shard.
#[derive(Default)]
struct Out {
    /// The left and the right of pairs, and their weights.
    pairs: [Packed; 2],
    weights: Vec<i64>,
    /// Of the left and of the right: rows that come out alone, with a mark where the kind has one.
    alone: [Vec<(Bytes, bool, i64)>; 2],
}

/// A pair to look at: key, the row that is new and the one that it meets, and the weights of the two.
struct Pair<'n, 'k> {
    key: &'n [u8],
    new: &'n [u8],
    known: &'k [u8],
    weights: (i64, i64),
}

/// Partners that rows, by key, gain in one meeting.
#[derive(Default)]
struct Met<'n> {
    new: HashMap<(&'n [u8], &'n [u8]), i64>,
    known: BTreeMap<(&'n [u8], Bytes), i64>,
}

impl Join {
    /// Without rows; `pair_schema` has the columns of the left and then of the right, `schema` the output's.
    pub fn new(
        plan: JoinPlan,
        left: &SchemaRef,
        right: &SchemaRef,
        pair_schema: SchemaRef,
        schema: SchemaRef,
        shards: usize,
    ) -> Result<Self, OperatorError> {
        let left = Side::new(plan.left_keys.clone(), Arc::clone(left), plan.null_equals_null)?;
        let right = Side::new(plan.right_keys.clone(), Arc::clone(right), plan.null_equals_null)?;
        let shards = (0..shards.max(1)).map(|_| Shard::new()).collect();
        Ok(Join { plan, left, right, pair_schema, schema, shards })
    }

    /// Takes rows of both inputs; gives the change of the join.
    pub fn step(&mut self, left: &Delta, right: &Delta) -> Result<Delta, OperatorError> {
        if left.is_empty() && right.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let (left, right) = (self.left.encode(left)?, self.right.encode(right)?);
        let (left_news, right_news) = (left.by_shard(self.shards.len()), right.by_shard(self.shards.len()));
        let mut shards = std::mem::take(&mut self.shards);
        let outputs: Result<Vec<Delta>, OperatorError> = shards
            .par_iter_mut()
            .zip(left_news.par_iter().zip(&right_news))
            .map(|(shard, (left, right))| {
                let out = self.step_shard(shard, left, right)?;
                self.delta(out)
            })
            .collect();
        self.shards = shards;
        let mut outputs = outputs?;
        // Rows whose key holds a NULL have no partner, ever: they are not kept.
        let mut out = Out::default();
        for (side, input) in [(LEFT, &left), (RIGHT, &right)] {
            if let Some(mark) = self.shown_alone(side, 0) {
                out.alone[side].extend(input.without_key().map(|(row, weight)| (row.into(), mark, weight)));
            }
        }
        outputs.push(self.delta(out)?);
        Ok(Delta::concat(&self.schema, &outputs)?)
    }

    fn step_shard(&self, shard: &mut Shard, left: &Net<'_>, right: &Net<'_>) -> Result<Out, OperatorError> {
        let mut out = Out::default();
        shard.bring_in(left.keys().chain(right.keys()))?;
        self.take(shard, LEFT, left, &mut out)?;
        self.take(shard, RIGHT, right, &mut out)?;
        for key in left.keys().chain(right.keys()) {
            match shard.keys.get_mut(key) {
                Some(rows) if !rows.is_empty() => rows.is_recent = true,
                Some(_) => drop(shard.keys.remove(key)),
                None => {}
            }
        }
        Ok(out)
    }

    /// New rows of one side meet those of the other that there are.
    fn take(&self, shard: &mut Shard, side: usize, news: &Net<'_>, out: &mut Out) -> Result<(), OperatorError> {
        let other = LEFT + RIGHT - side;
        let (mut pairs, mut met) = (Vec::new(), Met::default());
        for (key, rows) in news.iter() {
            let known = shard.keys.get(key).into_iter().flat_map(|known| known.side(other));
            for (known, entry) in known {
                let weights = |weight: i64| (weight, entry.weight);
                pairs.extend(rows.iter().map(|(_, new, weight)| Pair { key, new, known, weights: weights(*weight) }));
                self.meet(side, &mut pairs, MOST_PAIRS, &mut met, out)?;
            }
        }
        self.meet(side, &mut pairs, 0, &mut met, out)?;
        for ((key, row), weight) in met.known {
            let known = shard.keys.get_mut(key).and_then(|known| known.side_mut(other).get_mut(&row));
            let Some(entry) = known else { continue };
            shard.changed[other].note(key, &row);
            let before = self.shown_alone(other, entry.partners);
            entry.partners += weight;
            let after = self.shown_alone(other, entry.partners);
            if before != after {
                out.alone[other].extend(before.map(|mark| (row.clone(), mark, -entry.weight)));
                out.alone[other].extend(after.map(|mark| (row, mark, entry.weight)));
            }
        }
        for (key, rows) in news.iter() {
            let known = shard.keys.entry(key.into()).or_default().side_mut(side);
            let before = known.len();
            for (_, row, weight) in rows {
                shard.changed[side].note(key, row);
                let gained = met.new.get(&(key, *row)).copied().unwrap_or_default();
                let partners = side::add(known, row, *weight, gained);
                let shown = self.shown_alone(side, partners);
                out.alone[side].extend(shown.map(|mark| ((*row).into(), mark, *weight)));
            }
            shard.rows[side] = shard.rows[side] + known.len() - before;
        }
        Ok(())
    }

    /// Whether a row with so many partners comes out alone, and with which mark.
    fn shown_alone(&self, side: usize, partners: i64) -> Option<bool> {
        let kind = self.plan.kind;
        let is_shown = if side == LEFT { kind.shows_left(partners) } else { kind.shows_right(partners) };
        is_shown.then_some(partners != 0)
    }

    /// Once there are more than `most` pairs, gives out those that match, and counts the partners that rows gain by them.
    fn meet<'n>(
        &self,
        side: usize,
        pairs: &mut Vec<Pair<'n, '_>>,
        most: usize,
        met: &mut Met<'n>,
        out: &mut Out,
    ) -> Result<(), OperatorError> {
        if pairs.len() <= most {
            return Ok(());
        }
        let kind = self.plan.kind;
        for Pair { key, new, known, weights } in self.matching(side, std::mem::take(pairs))? {
            if kind.gives_pairs() {
                let [left, right] = if side == LEFT { [new, known] } else { [known, new] };
                out.pairs[LEFT].push(left);
                out.pairs[RIGHT].push(right);
                out.weights.push(weights.0 * weights.1);
            }
            if kind != JoinKind::Inner {
                *met.new.entry((key, new)).or_default() += weights.1;
                *met.known.entry((key, known.into())).or_default() += weights.0;
            }
        }
        Ok(())
    }

    /// The pairs for which the condition is true.
    fn matching<'n, 'k>(&self, side: usize, pairs: Vec<Pair<'n, 'k>>) -> Result<Vec<Pair<'n, 'k>>, OperatorError> {
        let Some(condition) = self.plan.condition.as_ref().filter(|_| !pairs.is_empty()) else { return Ok(pairs) };
        let of_side = |wanted: usize| pairs.iter().map(move |pair| if wanted == side { pair.new } else { pair.known });
        let batch = self.pair_batch(pairs.len(), of_side(LEFT), of_side(RIGHT))?;
        let mask: BooleanArray = map::evaluate_condition(condition, &batch)?;
        Ok(pairs.into_iter().zip(mask.values().iter()).filter(|(_, matches)| *matches).map(|(pair, _)| pair).collect())
    }

    fn pair_batch<'a>(
        &self,
        count: usize,
        left: impl Iterator<Item = &'a [u8]>,
        right: impl Iterator<Item = &'a [u8]>,
    ) -> Result<RecordBatch, OperatorError> {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let mut columns = self.left.decode(left)?;
        columns.extend(self.right.decode(right)?);
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.pair_schema), columns, &options)?)
    }

    fn delta(&self, out: Out) -> Result<Delta, OperatorError> {
        let Out { pairs, weights, alone: [left, right] } = out;
        let mut deltas = Vec::new();
        let weighted = |columns: Vec<ArrayRef>, weights: Vec<i64>| -> Result<Delta, OperatorError> {
            let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
            Ok(Delta::weighted(batch, weights.into()))
        };
        let nulls = |side: &Side, rows: usize| -> Vec<ArrayRef> {
            side.schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect()
        };
        if !weights.is_empty() {
            let batch = self.pair_batch(weights.len(), pairs[LEFT].iter(), pairs[RIGHT].iter())?;
            deltas.push(weighted(batch.columns().to_vec(), weights)?);
        }
        if !left.is_empty() {
            let mut columns = self.left.decode(left.iter().map(|(row, _, _)| row.as_ref()))?;
            match self.plan.kind {
                JoinKind::Semi | JoinKind::Anti => {}
                JoinKind::Mark => {
                    columns
                        .push(Arc::new(BooleanArray::from(left.iter().map(|(_, mark, _)| *mark).collect::<Vec<_>>())));
                }
                _ => columns.extend(nulls(&self.right, left.len())),
            }
            deltas.push(weighted(columns, left.iter().map(|(_, _, weight)| *weight).collect())?);
        }
        if !right.is_empty() {
            let mut columns = nulls(&self.left, right.len());
            columns.extend(self.right.decode(right.iter().map(|(row, _, _)| row.as_ref()))?);
            deltas.push(weighted(columns, right.iter().map(|(_, _, weight)| *weight).collect())?);
        }
        if deltas.is_empty() {
            Ok(Delta::empty(Arc::clone(&self.schema)))
        } else {
            Ok(Delta::concat(&self.schema, &deltas)?)
        }
    }

    /// Rows kept of both inputs, and the bytes they take in memory, estimated.
    pub fn size(&self) -> (usize, usize) {
        let cold: ColdSize = self.cold().into_iter().map(Cold::size).sum();
        let known = self.shards.iter().flat_map(|shard| &shard.keys);
        let bytes: usize = known.map(|(key, rows)| rows::heap_bytes(key.len()) + rows.bytes()).sum();
        let tables: usize = self.shards.iter().map(|shard| shard.keys.allocation_size()).sum();
        let notes = self.shards.iter().flat_map(|shard| &shard.changed).map(ChangedRows::bytes);
        (self.in_memory() + cold.rows, bytes + tables + notes.sum::<usize>() + cold.memory)
    }
}

impl Shard {
    fn new() -> Self {
        let cold = Cold::new(KeyColumns::Encoded);
        Shard { keys: HashMap::new(), rows: [0; 2], changed: Default::default(), cold }
    }

    fn insert(&mut self, side: usize, key: &[u8], row: &[u8], entry: Entry) {
        let known = self.keys.entry(key.into()).or_default().side_mut(side).insert(row.into(), entry);
        self.rows[side] += usize::from(known.is_none());
    }

    fn find(&self, side: usize, key: &[u8], row: &[u8]) -> Option<Entry> {
        self.keys.get(key)?.side(side).get(row).copied()
    }
}

/// Every row of one side: its key, itself, and what is known of it.
fn rows_of<'a>(keys: impl Iterator<Item = (&'a Bytes, &'a KeyRows)>, side: usize) -> Vec<(&'a [u8], &'a [u8], Entry)> {
    let of_key = |(key, rows): (&'a Bytes, &'a KeyRows)| {
        rows.side(side).iter().map(move |(row, entry)| (key.as_ref(), row.as_ref(), *entry))
    };
    keys.flat_map(of_key).collect()
}

impl Stateful for Join {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let part = |side: usize| {
            let rows = rows_of(self.shards.iter().flat_map(|shard| &shard.keys), side);
            Ok(StatePart::whole(TABLES[side], 2, side::batch(rows.iter().copied())?))
        };
        [LEFT, RIGHT].into_iter().map(part).collect()
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let noted = self.shards.iter_mut().map(|shard| {
            // Of the keys that are out all rows may be of either side.
            let most = |side: usize| shard.rows[side] + shard.cold.size().rows;
            let most = [most(LEFT), most(RIGHT)];
            Some([shard.changed[LEFT].take(most[LEFT])?, shard.changed[RIGHT].take(most[RIGHT])?])
        });
        let Some(noted) = noted.collect::<Option<Vec<_>>>() else {
            let all = self.snapshot();
            self.set_saved(true);
            return all;
        };
        let part = |side: usize| {
            let (mut held, mut gone) = (Vec::new(), Vec::new());
            for (shard, noted) in self.shards.iter().zip(&noted) {
                for (key, row) in noted[side].iter() {
                    match shard.find(side, key, row) {
                        Some(entry) => held.push((key, row, entry)),
                        None => gone.push((key, row)),
                    }
                }
            }
            let gone = Gone { keys: rows::key_batch(gone.into_iter())?, below: None };
            Ok(StatePart::changes(TABLES[side], 2, side::batch(held.into_iter())?, gone))
        };
        [LEFT, RIGHT].into_iter().map(part).collect()
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        self.bring_in(parts)?;
        let shards = self.shards.len();
        for side in [LEFT, RIGHT] {
            side::each(parts, TABLES[side], |key, row, entry| {
                self.shards[rows::shard_of(rows::hash_bytes(key), shards)].insert(side, key, row, entry);
            })?;
        }
        Ok(())
    }

    fn set_saved(&mut self, is_saved: bool) {
        for shard in &mut self.shards {
            for side in [LEFT, RIGHT] {
                shard.changed[side].set_saved(is_saved, shard.rows[side]);
            }
        }
    }
}
