//! Net changes of one tag between two flushes.
//!
//! Enters: the weighted output rows of a tag, epoch by epoch. Leaves: what its table must do, each key at most once:
//! rows to write in primary-key order and keys to delete.
//! Never touches a store; never looks at what a value means: rows are compared as bytes of `arrow::row`.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::array_value_to_string;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::delta::Delta;

/// Compaction waits until this much is dead, so that small tags never pay for it.
const COMPACT_ABOVE_BYTES: usize = 1 << 20;
/// Longer chains of one key in one epoch are netted by sorting instead of by comparing pairs.
const LONG_CHAIN: usize = 16;
const NO_ROW: u32 = u32::MAX;

/// What went wrong between a tag's operators and its table.
#[derive(Debug, thiserror::Error)]
pub enum CollapseError {
    /// After an epoch a key has more than one row, or one row several times.
    #[error("tag \"{tag}\": key ({key}) has {rows} rows after the epoch, its table can hold one")]
    ManyRows {
        /// The tag.
        tag: String,
        /// The key's values.
        key: String,
        /// Sum of the positive weights.
        rows: i64,
    },
    /// A row was retracted that the tag does not have.
    #[error("tag \"{tag}\": a row of key ({key}) was retracted that the tag does not hold")]
    UnknownRow {
        /// The tag.
        tag: String,
        /// The key's values.
        key: String,
    },
    /// The tag's schema has no key column.
    #[error("tag \"{tag}\" has no key column")]
    NoKey {
        /// The tag.
        tag: String,
    },
    /// A column's type cannot be compared, or a batch does not fit the schema.
    #[error("tag \"{tag}\": {source}")]
    Arrow {
        /// The tag.
        tag: String,
        /// What arrow says.
        source: ArrowError,
    },
}

/// What a tag's table must do; nothing in it is a no-op.
#[derive(Debug, Clone)]
pub struct NetChanges {
    /// Rows to insert or replace, key columns first, sorted by key.
    pub upserts: RecordBatch,
    /// Key columns of the rows to delete, sorted by key.
    pub deletes: RecordBatch,
    /// By how much the table's row count changes.
    pub rows_delta: i64,
}

/// A stretch of the arena.
#[derive(Debug, Clone, Copy)]
struct Slot {
    start: usize,
    len: u32,
}

impl Slot {
    fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start..self.start + self.len as usize]
    }
}

/// One key since the last drain. `before` is what the table holds, `now` what it must hold; their slots are never shared.
#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Slot,
    before: Option<Slot>,
    now: Option<Slot>,
    /// False until an epoch's rows of the key leave a net change: only then is `now` known.
    settled: bool,
    /// Newest row of this epoch in `Epoch::rows`.
    head: u32,
}

/// One output row of the epoch that is being added.
#[derive(Debug, Clone, Copy)]
struct EpochRow {
    delta: u32,
    row: u32,
    weight: i64,
    next: u32,
}

/// Where a value's bytes are while an epoch is settled.
#[derive(Debug, Clone, Copy)]
enum ValueAt {
    Arena(Slot),
    Row(u32),
}

/// The rows of one epoch and the encoded values of its deltas (`None` where the tag has no value columns).
struct Epoch {
    rows: Vec<EpochRow>,
    values: Vec<Option<Rows>>,
}

impl Epoch {
    fn value(&self, index: u32) -> &[u8] {
        let row = &self.rows[index as usize];
        match &self.values[row.delta as usize] {
            Some(values) => values.row(row.row as usize).data(),
            None => &[],
        }
    }
}

/// Changes of one tag that are not yet in its table, one entry a key.
pub struct PendingChanges {
    tag: String,
    schema: SchemaRef,
    key_indices: Vec<usize>,
    value_indices: Vec<usize>,
    upsert_schema: SchemaRef,
    delete_schema: SchemaRef,
    key_converter: RowConverter,
    value_converter: RowConverter,
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    arena: Vec<u8>,
    dead_bytes: usize,
    rows_delta: i64,
    null_keys: u64,
}

impl PendingChanges {
    /// For a tag whose output has this schema, of which `key` are the key columns' indices.
    ///
    /// # Errors
    /// When there is no key, or a column's type cannot be encoded.
    pub fn new(tag: &str, schema: SchemaRef, key: &[usize]) -> Result<Self, CollapseError> {
        if key.is_empty() {
            return Err(CollapseError::NoKey { tag: tag.to_string() });
        }
        let arrow_error = |source| CollapseError::Arrow { tag: tag.to_string(), source };
        let value_indices: Vec<usize> = (0..schema.fields().len()).filter(|index| !key.contains(index)).collect();
        let converter = |indices: &[usize]| {
            let fields = indices.iter().map(|&index| SortField::new(schema.field(index).data_type().clone()));
            RowConverter::new(fields.collect()).map_err(arrow_error)
        };
        let key_converter = converter(key)?;
        let value_converter = converter(&value_indices)?;
        let columns: Vec<usize> = key.iter().chain(&value_indices).copied().collect();
        let upsert_schema = Arc::new(schema.project(&columns).map_err(arrow_error)?);
        let delete_schema = Arc::new(schema.project(key).map_err(arrow_error)?);
        Ok(PendingChanges {
            tag: tag.to_string(),
            upsert_schema: strip_metadata(&upsert_schema),
            delete_schema: strip_metadata(&delete_schema),
            schema,
            key_indices: key.to_vec(),
            value_indices,
            key_converter,
            value_converter,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            entries: Vec::new(),
            arena: Vec::new(),
            dead_bytes: 0,
            rows_delta: 0,
            null_keys: 0,
        })
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The schema of the deltas.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Keys touched since the last drain; some may turn out to be no-ops.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no key was touched since the last drain.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// By how much the pending changes change the table's row count.
    pub fn rows_delta(&self) -> i64 {
        self.rows_delta
    }

    /// Inserted rows that were left out since the start because their key holds a NULL.
    pub fn null_keys(&self) -> u64 {
        self.null_keys
    }

    /// Bytes held, for limits and metrics.
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * size_of::<Entry>() + self.index.len() * (size_of::<u32>() + 1)
    }

    /// Takes all output rows of one epoch, in whatever order they come.
    ///
    /// # Errors
    /// When a key is left with more than one row or a row is retracted that is not there;
    /// the changes are then not to be used any further: the tag is to be set aside.
    pub fn add_epoch(&mut self, deltas: &[Delta]) -> Result<(), CollapseError> {
        let mut epoch = Epoch { rows: Vec::new(), values: Vec::with_capacity(deltas.len()) };
        let mut touched: Vec<u32> = Vec::new();
        for (number, delta) in deltas.iter().enumerate() {
            let keys = self.encode(delta, &self.key_indices, &self.key_converter)?;
            let values = match self.value_indices.is_empty() {
                true => None,
                false => Some(self.encode(delta, &self.value_indices, &self.value_converter)?),
            };
            epoch.values.push(values);
            epoch.rows.reserve(delta.num_rows());
            let null_keys = self.null_keys_of(delta);
            for row in 0..delta.num_rows() {
                let weight = delta.weight(row);
                if weight == 0 {
                    continue;
                }
                if null_keys.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    self.null_keys += u64::try_from(weight).unwrap_or(0);
                    continue;
                }
                let entry = self.entry_of(keys.row(row).data());
                let head = &mut self.entries[entry as usize].head;
                if *head == NO_ROW {
                    touched.push(entry);
                }
                let next = std::mem::replace(head, epoch.rows.len() as u32);
                epoch.rows.push(EpochRow { delta: number as u32, row: row as u32, weight, next });
            }
        }
        let mut nets = Vec::new();
        for entry in touched {
            self.settle(entry, &epoch, &mut nets)?;
        }
        if self.dead_bytes > COMPACT_ABOVE_BYTES && self.dead_bytes * 2 > self.arena.len() {
            self.compact();
        }
        Ok(())
    }

    /// Takes everything out: what the table must do to become what the last epoch says.
    ///
    /// # Errors
    /// Only if arrow cannot decode what it has encoded.
    pub fn drain(&mut self) -> Result<NetChanges, CollapseError> {
        let arena = &self.arena;
        let mut upserts = Vec::new();
        let mut deletes = Vec::new();
        for entry in &self.entries {
            match (entry.before, entry.now) {
                (_, Some(now)) if entry.before.is_none_or(|before| before.of(arena) != now.of(arena)) => {
                    upserts.push((entry.key.of(arena), now.of(arena)));
                }
                (Some(_), None) => deletes.push(entry.key.of(arena)),
                _ => {}
            }
        }
        upserts.sort_unstable_by_key(|(key, _)| *key);
        deletes.sort_unstable();

        let arrow_error = |source| CollapseError::Arrow { tag: self.tag.clone(), source };
        let mut columns = decode(&self.key_converter, upserts.iter().map(|(key, _)| *key)).map_err(arrow_error)?;
        if !self.value_indices.is_empty() {
            let values = decode(&self.value_converter, upserts.iter().map(|(_, value)| *value));
            columns.extend(values.map_err(arrow_error)?);
        }
        let upserts = RecordBatch::try_new(self.upsert_schema.clone(), columns).map_err(arrow_error)?;
        let columns = decode(&self.key_converter, deletes.into_iter()).map_err(arrow_error)?;
        let deletes = RecordBatch::try_new(self.delete_schema.clone(), columns).map_err(arrow_error)?;

        let rows_delta = std::mem::take(&mut self.rows_delta);
        self.entries = Vec::new();
        self.arena = Vec::new();
        self.index.clear();
        self.dead_bytes = 0;
        Ok(NetChanges { upserts, deletes, rows_delta })
    }

    fn encode(&self, delta: &Delta, indices: &[usize], converter: &RowConverter) -> Result<Rows, CollapseError> {
        let columns: Vec<ArrayRef> = indices.iter().map(|&index| delta.batch.column(index).clone()).collect();
        converter.convert_columns(&columns).map_err(|source| CollapseError::Arrow { tag: self.tag.clone(), source })
    }

    fn null_keys_of(&self, delta: &Delta) -> Option<NullBuffer> {
        self.key_indices.iter().fold(None, |nulls, &index| {
            NullBuffer::union(nulls.as_ref(), delta.batch.column(index).logical_nulls().as_ref())
        })
    }

    /// The entry of a key, made when it is new.
    fn entry_of(&mut self, key: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(key);
        let (arena, entries) = (&self.arena, &self.entries);
        let found = self.index.find(hash, |&entry| {
            let entry = &entries[entry as usize];
            entry.hash == hash && entry.key.of(arena) == key
        });
        if let Some(&entry) = found {
            return entry;
        }
        let key = store(&mut self.arena, key);
        let number = self.entries.len() as u32;
        self.entries.push(Entry { hash, key, before: None, now: None, settled: false, head: NO_ROW });
        let entries = &self.entries;
        self.index.insert_unique(hash, number, |&entry| entries[entry as usize].hash);
        number
    }

    /// Adds up the epoch's rows of one key and moves the key to the one row that is left, or to none.
    fn settle(&mut self, number: u32, epoch: &Epoch, nets: &mut Vec<(ValueAt, i64)>) -> Result<(), CollapseError> {
        let entry = &mut self.entries[number as usize];
        nets.clear();
        if let Some(now) = entry.now {
            nets.push((ValueAt::Arena(now), 1));
        }
        let mut next = std::mem::replace(&mut entry.head, NO_ROW);
        while next != NO_ROW {
            let row = &epoch.rows[next as usize];
            nets.push((ValueAt::Row(next), row.weight));
            next = row.next;
        }
        sum_equal_values(nets, |value| match value {
            ValueAt::Arena(slot) => slot.of(&self.arena),
            ValueAt::Row(row) => epoch.value(row),
        });

        let (mut live, mut gone) = (None, None);
        let (mut live_rows, mut gone_rows) = (0i64, 0i64);
        for &(value, weight) in nets.iter() {
            match weight {
                1.. => {
                    live_rows = live_rows.saturating_add(weight);
                    live = Some(value);
                }
                0 => {}
                _ => {
                    gone_rows = gone_rows.saturating_add(weight);
                    gone = Some(value);
                }
            }
        }
        let entry = &self.entries[number as usize];
        if live_rows > 1 {
            return Err(CollapseError::ManyRows { tag: self.tag.clone(), key: self.key_text(entry), rows: live_rows });
        }
        // The row that the table holds is first heard of when it is retracted; after that every retraction must meet its row.
        if gone_rows < -1 || (gone_rows < 0 && entry.settled) {
            return Err(CollapseError::UnknownRow { tag: self.tag.clone(), key: self.key_text(entry) });
        }

        // Rows that cancel say nothing of what the table holds: the key stays as unknown as it was.
        if !entry.settled && live.is_none() && gone.is_none() {
            return Ok(());
        }

        let entry = &mut self.entries[number as usize];
        let was = if entry.settled { entry.now.is_some() } else { gone.is_some() };
        self.rows_delta += i64::from(live.is_some()) - i64::from(was);
        if !entry.settled {
            entry.settled = true;
            if let Some(ValueAt::Row(row)) = gone {
                entry.before = Some(store(&mut self.arena, epoch.value(row)));
            }
        }
        match live {
            Some(ValueAt::Arena(_)) => {}
            Some(ValueAt::Row(row)) => {
                let value = epoch.value(row);
                match entry.now {
                    Some(now) if now.len as usize >= value.len() => {
                        self.arena[now.start..now.start + value.len()].copy_from_slice(value);
                        self.dead_bytes += now.len as usize - value.len();
                        entry.now = Some(Slot { start: now.start, len: value.len() as u32 });
                    }
                    old => {
                        self.dead_bytes += old.map_or(0, |old| old.len as usize);
                        entry.now = Some(store(&mut self.arena, value));
                    }
                }
            }
            None => self.dead_bytes += entry.now.take().map_or(0, |old| old.len as usize),
        }
        Ok(())
    }

    fn key_text(&self, entry: &Entry) -> String {
        let columns = decode(&self.key_converter, std::iter::once(entry.key.of(&self.arena))).unwrap_or_default();
        let texts: Vec<String> = columns
            .iter()
            .zip(self.delete_schema.fields())
            .map(|(column, field)| {
                format!("{} = {}", field.name(), array_value_to_string(column, 0).unwrap_or_else(|_| "?".to_string()))
            })
            .collect();
        texts.join(", ")
    }

    fn compact(&mut self) {
        let old = std::mem::take(&mut self.arena);
        self.arena.reserve(old.len().saturating_sub(self.dead_bytes));
        for entry in &mut self.entries {
            entry.key = store(&mut self.arena, entry.key.of(&old));
            entry.before = entry.before.map(|slot| store(&mut self.arena, slot.of(&old)));
            entry.now = entry.now.map(|slot| store(&mut self.arena, slot.of(&old)));
        }
        self.dead_bytes = 0;
    }
}

fn store(arena: &mut Vec<u8>, bytes: &[u8]) -> Slot {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    Slot { start, len: u32::try_from(bytes.len()).expect("arrow rows of one value are below 4 GiB") }
}

/// Leaves one entry a distinct value, with the sum of its weights. The earliest entry of a value stays,
/// so a value that is already in the arena is not copied there again.
fn sum_equal_values<'a>(nets: &mut Vec<(ValueAt, i64)>, bytes: impl Fn(ValueAt) -> &'a [u8]) {
    if nets.len() > LONG_CHAIN {
        nets.sort_by(|(left, _), (right, _)| bytes(*left).cmp(bytes(*right)));
        nets.dedup_by(|later, earlier| {
            let equal = bytes(later.0) == bytes(earlier.0);
            if equal {
                earlier.1 = earlier.1.saturating_add(later.1);
            }
            equal
        });
        return;
    }
    let mut kept = 0;
    for index in 0..nets.len() {
        let (value, weight) = nets[index];
        match nets[..kept].iter().position(|(other, _)| bytes(*other) == bytes(value)) {
            Some(same) => nets[same].1 = nets[same].1.saturating_add(weight),
            None => {
                nets[kept] = (value, weight);
                kept += 1;
            }
        }
    }
    nets.truncate(kept);
}

fn decode<'a>(converter: &RowConverter, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, ArrowError> {
    let parser = converter.parser();
    converter.convert_rows(rows.map(|row| parser.parse(row)))
}

fn strip_metadata(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_metadata(Default::default())).collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests;
