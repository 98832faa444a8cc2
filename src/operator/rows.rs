//! Rows as bytes (the order-preserving row format of arrow) and the shards that keys fall into.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, LargeBinaryArray, RecordBatch};
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use crate::delta::{Clock, Delta};
use crate::operator::OperatorError;
use crate::operator::row_map::RowMap;

/// Encoded rows in their order, with their weights.
pub type Multiset = RowMap<i64>;

/// Entries of a node of a tree.
const NODE: usize = 11;

/// Bytes that so many bytes take on the heap, with what an allocator adds.
pub fn heap_bytes(length: usize) -> usize {
    if length == 0 { 0 } else { (length + 8).next_multiple_of(16).max(32) }
}

/// Bytes of the nodes of a tree of boxes.
pub fn tree_bytes<V>(entries: usize) -> usize {
    nodes_bytes(entries, size_of::<(Box<[u8]>, V)>())
}

/// Bytes of the nodes of a tree with so many entries of this size: one node for few, else most are about two thirds full.
pub fn nodes_bytes(entries: usize, entry: usize) -> usize {
    let node = heap_bytes(NODE * entry + 16);
    match entries {
        0 => 0,
        few if few <= NODE => node,
        many => many * node / 7,
    }
}

/// Adds `weight` to a row; a row of weight zero is not kept.
pub fn add(rows: &mut Multiset, row: &[u8], weight: i64) {
    match rows.get_mut(row) {
        Some(known) if *known + weight == 0 => drop(rows.remove(row)),
        Some(known) => *known += weight,
        None => drop(rows.insert(row.into(), weight)),
    }
}

/// Every row as often as its weight says.
pub fn repeated(rows: &Multiset) -> impl Iterator<Item = &[u8]> {
    rows.iter().flat_map(|(row, weight)| (0..*weight).map(|_| row.as_ref()))
}

/// A converter for columns of these types, ascending and NULLs first.
pub fn converter<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Result<RowConverter, OperatorError> {
    Ok(RowConverter::new(types.into_iter().map(|data_type| SortField::new(data_type.clone())).collect())?)
}

/// Columns from encoded rows.
pub fn decode<'a>(
    converter: &RowConverter,
    rows: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<ArrayRef>, OperatorError> {
    let parser = converter.parser();
    Ok(converter.convert_rows(rows.into_iter().map(|row| parser.parse(row)))?)
}

/// A batch from encoded rows.
pub fn decode_batch<'a>(
    converter: &RowConverter,
    schema: &SchemaRef,
    rows: impl IntoIterator<Item = &'a [u8]>,
) -> Result<RecordBatch, OperatorError> {
    let columns = decode(converter, rows)?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// The columns by which state tells encoded rows apart: a key, and the row.
pub fn key_fields() -> Vec<Field> {
    ["key", "row"].map(|name| Field::new(name, DataType::LargeBinary, false)).to_vec()
}

/// Keys and rows as such columns.
pub fn key_columns<'a>(rows: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<ArrayRef> {
    let keys = LargeBinaryArray::from_iter_values(rows.clone().map(|(key, _)| key));
    vec![Arc::new(keys), Arc::new(LargeBinaryArray::from_iter_values(rows.map(|(_, row)| row)))]
}

/// The same as a batch.
pub fn key_batch<'a>(rows: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Result<RecordBatch, OperatorError> {
    Ok(RecordBatch::try_new(Arc::new(Schema::new(key_fields())), key_columns(rows))?)
}

/// The columns by which state tells rows apart to which something happens: when, and the row.
pub fn due_fields() -> Vec<Field> {
    vec![Field::new("when", DataType::Int64, false), Field::new("row", DataType::LargeBinary, false)]
}

/// Instants and rows as such columns.
pub fn due_columns<'a>(rows: impl Iterator<Item = (Clock, &'a [u8])> + Clone) -> Vec<ArrayRef> {
    let when = Int64Array::from_iter_values(rows.clone().map(|(when, _)| when));
    vec![Arc::new(when), Arc::new(LargeBinaryArray::from_iter_values(rows.map(|(_, row)| row)))]
}

/// The bytes that the rows of a batch take, without what else is in its buffers.
pub fn bytes_of(batch: &RecordBatch) -> usize {
    let of_column =
        |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    batch.columns().iter().map(of_column).sum()
}

/// For each row, whether two columns of one type differ; NULL equals NULL.
pub fn differences(old: &ArrayRef, new: &ArrayRef) -> Result<Vec<bool>, OperatorError> {
    if !old.data_type().is_nested() {
        return Ok(distinct(old, new)?.values().iter().collect());
    }
    let converter = converter([old.data_type()])?;
    let encode = |column: &ArrayRef| converter.convert_columns(std::slice::from_ref(column));
    let (old, new) = (encode(old)?, encode(new)?);
    Ok(old.iter().zip(&new).map(|(old, new)| old != new).collect())
}

/// The change that makes the rows of `before` those of `after`: rows that both have as often are not in it.
pub fn difference(schema: &SchemaRef, before: &RecordBatch, after: &RecordBatch) -> Result<Delta, OperatorError> {
    let converter = converter(schema.fields().iter().map(|field| field.data_type()))?;
    let (before, after) = (converter.convert_columns(before.columns())?, converter.convert_columns(after.columns())?);
    let mut weights: HashMap<&[u8], i64> = HashMap::new();
    for row in 0..before.num_rows() {
        *weights.entry(before.row(row).data()).or_default() -= 1;
    }
    for row in 0..after.num_rows() {
        *weights.entry(after.row(row).data()).or_default() += 1;
    }
    // In the order of the rows, so that a run can be repeated.
    let mut changed: Vec<(&[u8], i64)> = weights.into_iter().filter(|(_, weight)| *weight != 0).collect();
    changed.sort_unstable();
    let batch = decode_batch(&converter, schema, changed.iter().map(|(row, _)| *row))?;
    Ok(Delta::weighted(batch, changed.iter().map(|(_, weight)| *weight).collect::<Vec<_>>().into()))
}

/// A hash of bytes that is the same on every machine and in every run: shards and tables are laid out by it.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15_u64 ^ bytes.len() as u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        hash = mix(hash ^ u64::from_le_bytes(*chunk));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(last))
}

/// A hash of one integer; the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The shard of a hash; uses its high bits, tables use the low ones.
pub fn shard_of(hash: u64, shards: usize) -> usize {
    ((u128::from(hash) * shards as u128) >> 64) as usize
}

/// Lists, for each shard, the rows whose hash falls into it.
pub fn rows_by_shard(hashes: impl ExactSizeIterator<Item = u64>, shards: usize) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::with_capacity(hashes.len() / shards.max(1) + 16); shards];
    for (row, hash) in hashes.enumerate() {
        rows[shard_of(hash, shards)].push(row as u32);
    }
    rows
}
