//! The first rows of each partition: ROW_NUMBER(), RANK() or DENSE_RANK() <= n.
//!
//! Rows are kept encoded, the order's columns before the whole row, so that bytes compare as the order does and ties
//! are broken by the rest of the row. Of a partition that changes the first rows alone are looked at, before and after.
//! Where no row is ever retracted, rows that can no longer be among the first are not kept: a rank only grows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;

use crate::delta::Delta;
use crate::operator::OperatorError;
use crate::operator::partitions::{Partition, Partitions, Placed, Placement};
use crate::plan::flow::{FirstRows, Ranking, Scalar};

/// Keeps the rows of each partition, or only the first where no row is ever retracted.
#[derive(Debug)]
pub struct TopRows {
    placement: Placement,
    first: FirstRows,
    /// Of the output: the input's columns, then the ranks that are read.
    schema: SchemaRef,
    append_only: bool,
    partitions: Partitions,
}

/// A row among the first, and its ranks.
type Ranked<'a> = (&'a [u8], Vec<u64>);

/// The same, out of the state that it was in, and how often it is there.
type Kept = (Box<[u8]>, Vec<u64>, i64);

impl TopRows {
    /// Without rows; `append_only` when the input never retracts.
    pub fn new(
        partition: Vec<Scalar>,
        order: Vec<(Scalar, SortOptions)>,
        first: FirstRows,
        schema: SchemaRef,
        append_only: bool,
        shards: usize,
    ) -> Result<Self, OperatorError> {
        let width = schema.fields().len() - first.ranks.len();
        let mut placement = Placement::new(partition, order, schema.fields().iter().take(width))?;
        if first.needs_peers() {
            placement = placement.with_peers()?;
        }
        Ok(TopRows { placement, first, schema, append_only, partitions: Partitions::new(shards) })
    }

    /// Takes rows; gives the first rows that changed, or whose rank did.
    pub fn step(&mut self, input: &Delta) -> Result<Delta, OperatorError> {
        if input.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let placed = self.placement.place(&input.batch)?;
        let by_shard = placed.by_shard(self.partitions.shards.len());
        let (first, append_only) = (&self.first, self.append_only);
        let changes: Result<Vec<Vec<Kept>>, OperatorError> = self
            .partitions
            .shards
            .par_iter_mut()
            .zip(by_shard)
            .map(|(shard, taken)| {
                shard.bring_in(taken.iter().map(|row| placed.key(*row as usize)))?;
                let mut before: BTreeMap<&[u8], Vec<Kept>> = BTreeMap::new();
                for row in taken {
                    let row = row as usize;
                    let key = placed.key(row);
                    let partition = shard.get(key);
                    if append_only && partition.is_some_and(|known| first.never_has(known, placed.row(row))) {
                        continue;
                    }
                    before.entry(key).or_insert_with(|| {
                        let ranked = partition.into_iter().flat_map(|partition| first.of(partition));
                        ranked.map(|((row, ranks), weight)| (row.into(), ranks, weight)).collect()
                    });
                    shard.add(key, placed.row(row), input.weight(row));
                }
                let mut changes = Vec::new();
                for (key, before) in before {
                    if append_only {
                        shard.change(key, |partition, note| first.trim(partition, note));
                    }
                    let Some(partition) = shard.get(key) else { continue };
                    let mut net = first.of(partition);
                    for (row, ranks, weight) in &before {
                        *net.entry((row.as_ref(), ranks.clone())).or_default() -= weight;
                    }
                    let differing = net.into_iter().filter(|(_, weight)| *weight != 0);
                    changes.extend(differing.map(|((row, ranks), weight)| (row.into(), ranks, weight)));
                    shard.forget_empty(key);
                }
                Ok(changes)
            })
            .collect();
        let changes: Vec<_> = changes?.into_iter().flatten().collect();
        if changes.is_empty() {
            return Ok(Delta::empty(Arc::clone(&self.schema)));
        }
        let mut columns = self.placement.decode(changes.iter().map(|(row, ..)| row.as_ref()))?;
        for rank in 0..self.first.ranks.len() {
            let ranks = UInt64Array::from_iter_values(changes.iter().map(|(_, ranks, _)| ranks[rank]));
            columns.push(Arc::new(ranks) as ArrayRef);
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(Delta::weighted(batch, changes.iter().map(|(.., weight)| *weight).collect::<Vec<_>>().into()))
    }

    /// Rows kept, and the bytes they take, estimated.
    pub fn size(&self) -> (usize, usize) {
        self.partitions.size()
    }

    /// What it keeps.
    pub fn state(&self) -> &Partitions {
        &self.partitions
    }

    /// The same, to be loaded.
    pub fn state_mut(&mut self) -> &mut Partitions {
        &mut self.partitions
    }
}

/// Rows that the order does not tell apart: they are behind one another, and RANK gives them one number.
struct Peers<'a> {
    rows: Vec<(&'a [u8], i64)>,
    /// RANK: one more than the rows before them.
    rank: u64,
    /// DENSE_RANK: one more than the groups of peers before them.
    dense: u64,
}

impl FirstRows {
    /// The peers of a partition in their order; without ranks that need them every row is its own peer.
    fn peers<'a>(&self, partition: &'a Partition) -> impl Iterator<Item = Peers<'a>> {
        let by_order = self.needs_peers();
        let mut left = partition.iter().peekable();
        let (mut rank, mut dense) = (1, 0);
        std::iter::from_fn(move || {
            let (row, weight) = left.next()?;
            let mut group = vec![(row.as_ref(), *weight)];
            if by_order {
                let order = Placed::order_of(row);
                while let Some((row, weight)) = left.next_if(|(row, _)| Placed::order_of(row) == order) {
                    group.push((row.as_ref(), *weight));
                }
            }
            dense += 1;
            let peers = Peers { rank, dense, rows: group };
            rank += peers.rows.iter().map(|(_, weight)| weight.max(&0).unsigned_abs()).sum::<u64>();
            Some(peers)
        })
    }

    /// The peers of whom some are among the first.
    fn first_peers<'a>(&self, partition: &'a Partition) -> impl Iterator<Item = Peers<'a>> {
        let (by, most) = (self.by, self.most);
        self.peers(partition).take_while(move |peers| match by {
            Ranking::RowNumber | Ranking::Rank => peers.rank <= most,
            Ranking::DenseRank => peers.dense <= most,
        })
    }

    /// The first rows with their ranks, each as often as it is there.
    fn of<'a>(&self, partition: &'a Partition) -> BTreeMap<Ranked<'a>, i64> {
        let mut ranked = BTreeMap::new();
        let is_numbered = self.ranks.contains(&Ranking::RowNumber);
        for peers in self.first_peers(partition) {
            let mut number = peers.rank;
            for (row, weight) in peers.rows.iter().filter(|(_, weight)| *weight > 0) {
                let taken = match self.by {
                    Ranking::RowNumber => (*weight).min((self.most + 1).saturating_sub(number) as i64),
                    Ranking::Rank | Ranking::DenseRank => *weight,
                };
                let ranks = |number: u64| {
                    let rank = |ranking: &Ranking| match ranking {
                        Ranking::RowNumber => number,
                        Ranking::Rank => peers.rank,
                        Ranking::DenseRank => peers.dense,
                    };
                    self.ranks.iter().map(rank).collect::<Vec<u64>>()
                };
                if is_numbered {
                    ranked.extend((0..taken).map(|copy| ((*row, ranks(number + copy.unsigned_abs())), 1)));
                } else if taken > 0 {
                    ranked.insert((*row, ranks(number)), taken);
                }
                number += weight.unsigned_abs();
            }
        }
        ranked
    }

    /// True for a row that is behind as many as can be first, whatever comes.
    fn never_has(&self, partition: &Partition, row: &[u8]) -> bool {
        if self.by != Ranking::RowNumber || partition.last().is_none_or(|last| last.as_ref() > row) {
            return false;
        }
        let kept = || partition.iter().map(|(_, weight)| weight.unsigned_abs()).sum::<u64>();
        partition.len() as u64 >= self.most || kept() >= self.most
    }

    /// Drops what is not among the first rows and never will be, and notes it.
    fn trim(&self, partition: &mut Partition, note: &mut dyn FnMut(&[u8])) {
        let last = match self.by {
            Ranking::RowNumber => {
                let mut before = 0;
                let mut last = None;
                for (row, weight) in partition.iter_mut() {
                    if before >= self.most {
                        break;
                    }
                    let most = (self.most - before) as i64;
                    if *weight > most {
                        note(row);
                        *weight = most;
                    }
                    before += weight.unsigned_abs();
                    last = Some(row.clone());
                }
                last
            }
            Ranking::Rank | Ranking::DenseRank => {
                self.first_peers(partition).last().and_then(|peers| peers.rows.last().map(|(row, _)| Box::from(*row)))
            }
        };
        let Some(last) = last else { return };
        if partition.last().is_some_and(|row| *row > last) {
            partition.split_behind(&last).iter().for_each(|row| note(row));
        }
    }
}
