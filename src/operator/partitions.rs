//! Rows by partition and in their order: the state of operators that look at the rows of a partition together.

mod spill;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashMap;

use crate::operator::changed::{ChangedRows, NotedRows};
use crate::operator::cold::{Cold, ColdSize, KeyColumns, Spills};
use crate::operator::rows::Multiset;
use crate::operator::state::{Gone, binary_column, find_parts, primitive_column};
use crate::operator::{OperatorError, StatePart, Stateful, map, rows};
use crate::plan::flow::Scalar;

/// An encoded key.
type Key = Box<[u8]>;

/// Encoded rows of one partition in their order, with their weights.
pub type Partition = Multiset;

/// Which partition a row falls into, and its place there: by the order, then by the whole row.
#[derive(Debug)]
pub struct Placement {
    partition: Vec<Scalar>,
    order: Vec<(Scalar, SortOptions)>,
    key_converter: RowConverter,
    row_converter: RowConverter,
    /// Of the order alone, where its length is kept with each row.
    order_converter: Option<RowConverter>,
}

/// The rows of one batch, encoded.
#[derive(Debug)]
pub struct Placed {
    /// `None` without PARTITION BY: all rows are one partition.
    keys: Option<Rows>,
    rows: Rows,
    /// The rows with the length of their order behind each.
    with_peers: Option<Vec<Box<[u8]>>>,
}

/// Bytes behind a row that tell how long its order is.
const LENGTH: usize = size_of::<u32>();

impl Placement {
    /// Of rows with the columns `input`.
    pub fn new<'a>(
        partition: Vec<Scalar>,
        order: Vec<(Scalar, SortOptions)>,
        input: impl IntoIterator<Item = &'a FieldRef>,
    ) -> Result<Self, OperatorError> {
        let key_converter = rows::converter(partition.iter().map(|key| &key.data_type))?;
        let ordered = order.iter().map(|(key, options)| SortField::new_with_options(key.data_type.clone(), *options));
        let whole = input.into_iter().map(|field| SortField::new(field.data_type().clone()));
        let row_converter = RowConverter::new(ordered.chain(whole).collect())?;
        Ok(Placement { partition, order, key_converter, row_converter, order_converter: None })
    }

    /// Rows of which [`Placed::order_of`] can be asked.
    pub fn with_peers(self) -> Result<Self, OperatorError> {
        let ordered =
            self.order.iter().map(|(key, options)| SortField::new_with_options(key.data_type.clone(), *options));
        let order_converter = Some(RowConverter::new(ordered.collect())?);
        Ok(Placement { order_converter, ..self })
    }

    /// Encodes the rows of a batch.
    pub fn place(&self, batch: &RecordBatch) -> Result<Placed, OperatorError> {
        let evaluate = |scalar: &Scalar| map::evaluate(scalar, batch);
        let keys: Vec<ArrayRef> = self.partition.iter().map(evaluate).collect::<Result<_, _>>()?;
        let mut columns: Vec<ArrayRef> = self.order.iter().map(|(key, _)| evaluate(key)).collect::<Result<_, _>>()?;
        let order = match &self.order_converter {
            Some(converter) if !columns.is_empty() => Some(converter.convert_columns(&columns)?),
            _ => None,
        };
        columns.extend(batch.columns().iter().cloned());
        let keys = if keys.is_empty() { None } else { Some(self.key_converter.convert_columns(&keys)?) };
        let rows = self.row_converter.convert_columns(&columns)?;
        // Rows begin with their order, so that its length tells which bytes they are.
        let with_peers = self.order_converter.as_ref().map(|_| {
            let length = |row: usize| order.as_ref().map_or(0, |order| order.row(row).data().len() as u32);
            let with_length = |row: usize| [rows.row(row).data(), &length(row).to_be_bytes()].concat().into();
            (0..rows.num_rows()).map(with_length).collect()
        });
        Ok(Placed { keys, rows, with_peers })
    }

    /// The input's columns of encoded rows.
    pub fn decode<'a>(&self, encoded: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, OperatorError> {
        let behind = if self.order_converter.is_some() { LENGTH } else { 0 };
        let encoded = encoded.into_iter().map(|row| &row[..row.len().saturating_sub(behind)]);
        let mut columns = rows::decode(&self.row_converter, encoded)?;
        Ok(columns.split_off(self.order.len()))
    }
}

impl Placed {
    /// The partition of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        self.keys.as_ref().map_or(&[][..], |keys| keys.row(row).data())
    }

    /// A row as it is kept.
    pub fn row(&self, row: usize) -> &[u8] {
        match &self.with_peers {
            Some(rows) => &rows[row],
            None => self.rows.row(row).data(),
        }
    }

    /// What the order sees of a row that a placement with peers has placed.
    pub fn order_of(row: &[u8]) -> &[u8] {
        let Some((row, length)) = row.split_last_chunk::<LENGTH>() else { return row };
        &row[..(u32::from_be_bytes(*length) as usize).min(row.len())]
    }

    /// The rows of each shard.
    pub fn by_shard(&self, shards: usize) -> Vec<Vec<u32>> {
        let hashes: Vec<u64> = (0..self.rows.num_rows()).map(|row| rows::hash_bytes(self.key(row))).collect();
        rows::rows_by_shard(hashes.into_iter(), shards)
    }
}

/// The partitions of one shard, by encoded key.
#[derive(Debug)]
pub struct Shard {
    partitions: HashMap<Key, Kept>,
    /// Rows of all partitions.
    rows: usize,
    changed: ChangedRows,
    /// Partitions that are not in memory.
    cold: Cold,
}

#[derive(Debug, Default)]
struct Kept {
    rows: Partition,
    /// Met since it was looked for partitions that can leave memory.
    is_recent: bool,
}

impl Shard {
    fn new() -> Self {
        let cold = Cold::new(KeyColumns::Encoded);
        Shard { partitions: HashMap::new(), rows: 0, changed: ChangedRows::default(), cold }
    }

    /// The rows of a partition, if it has any; it must be in memory.
    pub fn get(&self, key: &[u8]) -> Option<&Partition> {
        self.partitions.get(key).map(|kept| &kept.rows)
    }

    /// Adds `weight` to a row.
    pub fn add(&mut self, key: &[u8], row: &[u8], weight: i64) {
        self.changed.note(key, row);
        let kept = self.partitions.entry(key.into()).or_default();
        let before = kept.rows.len();
        rows::add(&mut kept.rows, row, weight);
        kept.is_recent = true;
        self.rows = self.rows + kept.rows.len() - before;
    }

    /// Changes a partition; `change` is to note the rows that it touches.
    pub fn change(&mut self, key: &[u8], change: impl FnOnce(&mut Partition, &mut dyn FnMut(&[u8]))) {
        if let Some(Kept { rows, .. }) = self.partitions.get_mut(key) {
            let before = rows.len();
            change(rows, &mut |row| self.changed.note(key, row));
            self.rows = self.rows + rows.len() - before;
        }
    }

    /// Forgets a partition without rows.
    pub fn forget_empty(&mut self, key: &[u8]) {
        if self.get(key).is_some_and(Partition::is_empty) {
            self.partitions.remove(key);
        }
    }

    fn insert(&mut self, key: &[u8], row: &[u8], weight: i64) {
        let known = self.partitions.entry(key.into()).or_default().rows.insert(row.into(), weight);
        self.rows += usize::from(known.is_none());
    }
}

/// All partitions, in shards by the hash of their keys.
#[derive(Debug)]
pub struct Partitions {
    /// Stepped in parallel.
    pub shards: Vec<Shard>,
}

impl Partitions {
    /// Without rows.
    pub fn new(shards: usize) -> Self {
        Partitions { shards: (0..shards.max(1)).map(|_| Shard::new()).collect() }
    }

    /// Rows kept, and the bytes they take in memory, estimated.
    pub fn size(&self) -> (usize, usize) {
        let cold: ColdSize = self.cold().into_iter().map(Cold::size).sum();
        let partitions = self.shards.iter().flat_map(|shard| &shard.partitions);
        let of_partition = |(key, kept): (&Key, &Kept)| rows::heap_bytes(key.len()) + kept.rows.bytes();
        let bytes: usize = partitions.map(of_partition).sum();
        let of_shard = |shard: &Shard| shard.partitions.allocation_size() + shard.changed.bytes();
        let beside: usize = self.shards.iter().map(of_shard).sum();
        (self.in_memory() + cold.rows, bytes + beside + cold.memory)
    }
}

/// The one table of partitions.
const ROWS: &str = "rows";

/// Every row of that table: key, row, weight.
fn each(parts: &[StatePart], mut take: impl FnMut(&[u8], &[u8], i64)) -> Result<(), OperatorError> {
    for batch in find_parts(parts, ROWS)? {
        let (keys, kept) = (binary_column(batch, 0)?, binary_column(batch, 1)?);
        let weights = primitive_column::<Int64Type>(batch, 2)?;
        (0..batch.num_rows()).for_each(|row| take(keys.value(row), kept.value(row), weights.value(row)));
    }
    Ok(())
}

/// The same of partitions in memory.
fn rows_of<'a>(partitions: impl Iterator<Item = (&'a Key, &'a Kept)>) -> Vec<(&'a [u8], &'a [u8], i64)> {
    let of_key = |(key, kept): (&'a Key, &'a Kept)| {
        kept.rows.iter().map(move |(row, weight)| (key.as_ref(), row.as_ref(), *weight))
    };
    partitions.flat_map(of_key).collect()
}

fn batch<'a>(rows: impl Iterator<Item = (&'a [u8], &'a [u8], i64)> + Clone) -> Result<RecordBatch, OperatorError> {
    let weights = Arc::new(Int64Array::from_iter_values(rows.clone().map(|(.., weight)| weight))) as ArrayRef;
    let schema = Schema::new([rows::key_fields(), vec![Field::new("weight", DataType::Int64, false)]].concat());
    let columns = rows::key_columns(rows.map(|(key, row, _)| (key, row))).into_iter().chain([weights]).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

impl Stateful for Partitions {
    fn snapshot(&self) -> Result<Vec<StatePart>, OperatorError> {
        let all = rows_of(self.shards.iter().flat_map(|shard| &shard.partitions));
        Ok(vec![StatePart::whole(ROWS, 2, batch(all.iter().copied())?)])
    }

    fn changes(&mut self) -> Result<Vec<StatePart>, OperatorError> {
        let noted: Option<Vec<NotedRows>> =
            self.shards.iter_mut().map(|shard| shard.changed.take(shard.rows + shard.cold.size().rows)).collect();
        let Some(noted) = noted else {
            let all = self.snapshot();
            self.set_saved(true);
            return all;
        };
        let (mut held, mut gone) = (Vec::new(), Vec::new());
        for (shard, noted) in self.shards.iter().zip(&noted) {
            for (key, row) in noted.iter() {
                match shard.get(key).and_then(|partition| partition.get(row)) {
                    Some(weight) => held.push((key, row, *weight)),
                    None => gone.push((key, row)),
                }
            }
        }
        let gone = Gone { keys: rows::key_batch(gone.into_iter())?, below: None };
        Ok(vec![StatePart::changes(ROWS, 2, batch(held.into_iter())?, gone)])
    }

    fn load(&mut self, parts: &[StatePart]) -> Result<(), OperatorError> {
        self.bring_in(parts)?;
        let shards = self.shards.len();
        each(parts, |key, row, weight| {
            self.shards[rows::shard_of(rows::hash_bytes(key), shards)].insert(key, row, weight);
        })
    }

    fn set_saved(&mut self, is_saved: bool) {
        for shard in &mut self.shards {
            shard.changed.set_saved(is_saved, shard.rows);
        }
    }
}
