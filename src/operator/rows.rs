//! Rows as bytes (the order-preserving row format of arrow) and the shards that keys fall into.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};

use crate::operator::OperatorError;

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
