//! The key index of one shard: group keys to slots, slots back to keys, with slots used again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows};
use hashbrown::HashTable;

use crate::operator::cold::{Cold, Hand, KeyColumns};
use crate::operator::{OperatorError, StatePart, rows};

/// In place of when a slot got its key: it has none.
const FREE: u32 = u32::MAX;
/// In place of when a slot got its key: the key is gone, and the last checkpoint still has it.
const GONE: u32 = u32::MAX - 1;

/// The hash of the NULL key where keys are single integers.
const NULL_HASH: u64 = 0x5EED_0F41_1A6E_0001;

/// The group keys of a batch, hashed.
#[derive(Debug)]
pub struct BatchKeys {
    /// One hash a row.
    pub hashes: Vec<u64>,
    values: KeyValues,
}

#[derive(Debug)]
enum KeyValues {
    Integers(Int64Array),
    Rows(Rows),
}

impl BatchKeys {
    /// Takes those of the keys of these rows that are out of memory back.
    pub fn take_from(
        &self,
        cold: &mut Cold,
        layout: &KeyLayout,
        rows: &[u32],
    ) -> Result<Vec<StatePart>, OperatorError> {
        match &self.values {
            KeyValues::Rows(encoded) => cold.take(rows.iter().map(|row| encoded.row(*row as usize).data())),
            KeyValues::Integers(values) => {
                let picked: Int64Array = rows
                    .iter()
                    .map(|row| values.is_valid(*row as usize).then(|| values.value(*row as usize)))
                    .collect();
                let encoded = layout.converter.convert_columns(&[Arc::new(picked) as ArrayRef])?;
                cold.take(encoded.iter().map(|key| key.data()))
            }
        }
    }
}

/// How the keys of a node are laid out; shared by its shards.
#[derive(Debug)]
pub struct KeyLayout {
    types: Vec<DataType>,
    converter: RowConverter,
}

impl KeyLayout {
    /// For keys of these types.
    pub fn new(types: Vec<DataType>) -> Result<Self, OperatorError> {
        let converter = rows::converter(&types)?;
        Ok(KeyLayout { types, converter })
    }

    /// The types of the key columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Of the key columns.
    pub fn schema(&self) -> SchemaRef {
        let field =
            |(index, data_type): (usize, &DataType)| Field::new(format!("key {index}"), data_type.clone(), true);
        Arc::new(Schema::new(self.types.iter().enumerate().map(field).collect::<Vec<_>>()))
    }

    /// Hashes the keys that a part of the state begins with.
    pub fn read(&self, part: &RecordBatch) -> Result<BatchKeys, OperatorError> {
        let keys = part.columns().get(..self.types.len());
        let keys = keys.filter(|keys| keys.iter().zip(&self.types).all(|(column, known)| column.data_type() == known));
        self.prepare(keys.ok_or_else(|| OperatorError::State {
            what: "keys".to_string(),
            reason: "they are of other types".to_string(),
        })?)
    }

    /// The keys as the first columns of tables, for what leaves memory.
    pub fn cold_columns(&self) -> Result<KeyColumns, OperatorError> {
        KeyColumns::of(&self.types)
    }

    fn single_integer(&self) -> bool {
        self.types == [DataType::Int64]
    }

    /// Hashes the keys of a batch.
    pub fn prepare(&self, columns: &[ArrayRef]) -> Result<BatchKeys, OperatorError> {
        if self.single_integer() {
            let values = columns[0].as_primitive::<Int64Type>().clone();
            let hashes = if values.null_count() == 0 {
                values.values().iter().map(|value| rows::mix(*value as u64)).collect()
            } else {
                values.iter().map(|value| value.map_or(NULL_HASH, |value| rows::mix(value as u64))).collect()
            };
            return Ok(BatchKeys { hashes, values: KeyValues::Integers(values) });
        }
        let encoded = self.converter.convert_columns(columns)?;
        let hashes = encoded.iter().map(|row| rows::hash_bytes(row.data())).collect();
        Ok(BatchKeys { hashes, values: KeyValues::Rows(encoded) })
    }

    /// An empty index.
    pub fn index(&self) -> KeyIndex {
        let keys = if self.single_integer() {
            SlotKeys::Integers { table: HashTable::new(), keys: Vec::new(), null: None, gone_nulls: Vec::new() }
        } else {
            SlotKeys::Rows { table: HashTable::new(), keys: Vec::new() }
        };
        KeyIndex { keys, slots: Slots::default(), live: 0 }
    }
}

/// Group keys to slots.
#[derive(Debug)]
pub struct KeyIndex {
    keys: SlotKeys,
    slots: Slots,
    live: usize,
}

/// Which slots hold a key.
#[derive(Debug, Default)]
struct Slots {
    /// When each got its key, counted in checkpoints; [`FREE`] or [`GONE`] where it has none.
    since: Vec<u32>,
    /// How many checkpoints there have been.
    checkpoints: u32,
    free: Vec<u32>,
    gone: Vec<u32>,
}

impl Slots {
    fn take<K>(&mut self, keys: &mut Vec<K>, key: K) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                keys[slot as usize] = key;
                self.since[slot as usize] = self.checkpoints;
                slot
            }
            None => {
                keys.push(key);
                self.since.push(self.checkpoints);
                (keys.len() - 1) as u32
            }
        }
    }
}

#[derive(Debug)]
enum SlotKeys {
    Integers {
        table: HashTable<(i64, u32)>,
        keys: Vec<i64>,
        null: Option<u32>,
        /// Slots that have held the NULL key and are not used again yet.
        gone_nulls: Vec<u32>,
    },
    Rows {
        table: HashTable<u32>,
        keys: Vec<Box<[u8]>>,
    },
}

impl KeyIndex {
    /// Slots ever used, free ones included: what states must have room for.
    pub fn slots(&self) -> usize {
        match &self.keys {
            SlotKeys::Integers { keys, .. } => keys.len(),
            SlotKeys::Rows { keys, .. } => keys.len(),
        }
    }

    /// Keys that are there.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True without any key.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The slots of these rows, new ones for new keys.
    pub fn intern(&mut self, batch: &BatchKeys, batch_rows: &[u32]) -> Vec<u32> {
        let KeyIndex { keys, slots, live } = self;
        match (keys, &batch.values) {
            (SlotKeys::Integers { table, keys, null, .. }, KeyValues::Integers(values)) => batch_rows
                .iter()
                .map(|row| {
                    let row = *row as usize;
                    if values.is_null(row) {
                        return *null.get_or_insert_with(|| {
                            *live += 1;
                            slots.take(keys, 0)
                        });
                    }
                    let value = values.value(row);
                    let hash = batch.hashes[row];
                    match table.find(hash, |(key, _)| *key == value) {
                        Some((_, slot)) => *slot,
                        None => {
                            *live += 1;
                            let slot = slots.take(keys, value);
                            table.insert_unique(hash, (value, slot), |(key, _)| rows::mix(*key as u64));
                            slot
                        }
                    }
                })
                .collect(),
            (SlotKeys::Rows { table, keys }, KeyValues::Rows(values)) => batch_rows
                .iter()
                .map(|row| {
                    let row = *row as usize;
                    let bytes = values.row(row).data();
                    let hash = batch.hashes[row];
                    match table.find(hash, |slot| keys[*slot as usize].as_ref() == bytes) {
                        Some(slot) => *slot,
                        None => {
                            *live += 1;
                            let slot = slots.take(keys, bytes.into());
                            table.insert_unique(hash, slot, |slot| rows::hash_bytes(&keys[*slot as usize]));
                            slot
                        }
                    }
                })
                .collect(),
            _ => unreachable!("batch and index have the layout of one node"),
        }
    }

    /// Up to `most` slots whose keys can leave memory: no step has met them since `hand` passed them last, and no checkpoint
    /// waits for them. The slot of the key without a value stays.
    pub fn idle_slots(&self, hand: &mut Hand, most: usize, is_awaited: impl Fn(u32) -> bool) -> Vec<u32> {
        let null = match &self.keys {
            SlotKeys::Integers { null, .. } => *null,
            SlotKeys::Rows { .. } => None,
        };
        hand.idle(self.slots() as u32, most, |slot| self.holds(slot) && null != Some(slot) && !is_awaited(slot))
    }

    /// Forgets the keys of slots that leave memory and that no checkpoint waits for; the slots are free at once.
    pub fn let_out(&mut self, slots: &[u32]) {
        for slot in slots {
            if self.take_out(*slot) {
                self.free(*slot);
            }
        }
    }

    /// The keys of these slots were out of memory: the last checkpoint may have them.
    pub fn came_in(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.slots.since[*slot as usize] = 0);
    }

    /// Forgets the key of a slot, which is then used for another: at once, or when the next checkpoint has told that the
    /// key is gone.
    pub fn remove(&mut self, slot: u32) {
        let index = slot as usize;
        if !self.take_out(slot) {
            return;
        }
        if self.slots.since[index] < self.slots.checkpoints {
            self.slots.since[index] = GONE;
            self.slots.gone.push(slot);
        } else {
            self.free(slot);
        }
    }

    /// Takes a key out of the table; false where the slot holds none.
    fn take_out(&mut self, slot: u32) -> bool {
        let index = slot as usize;
        match &mut self.keys {
            SlotKeys::Integers { table, keys, null, gone_nulls } => {
                if *null == Some(slot) {
                    *null = None;
                    gone_nulls.push(slot);
                } else {
                    let hash = rows::mix(keys[index] as u64);
                    match table.find_entry(hash, |(_, known)| *known == slot) {
                        Ok(entry) => drop(entry.remove()),
                        Err(_) => return false,
                    }
                }
            }
            SlotKeys::Rows { table, keys } => {
                let hash = rows::hash_bytes(&keys[index]);
                match table.find_entry(hash, |known| *known == slot) {
                    Ok(entry) => drop(entry.remove()),
                    Err(_) => return false,
                }
            }
        }
        self.live -= 1;
        true
    }

    fn free(&mut self, slot: u32) {
        match &mut self.keys {
            SlotKeys::Integers { gone_nulls, .. } => gone_nulls.retain(|null| *null != slot),
            SlotKeys::Rows { keys, .. } => keys[slot as usize] = Box::default(),
        }
        self.slots.since[slot as usize] = FREE;
        self.slots.free.push(slot);
    }

    /// A checkpoint knows of all keys that are here and of those that are gone.
    pub fn set_saved(&mut self) {
        for slot in std::mem::take(&mut self.slots.gone) {
            self.free(slot);
        }
        self.slots.checkpoints += 1;
    }

    /// True for a slot that holds a key.
    pub fn holds(&self, slot: u32) -> bool {
        self.slots.since[slot as usize] < GONE
    }

    /// True for a slot whose key is gone since the last checkpoint, and is still known.
    pub fn has_lost(&self, slot: u32) -> bool {
        self.slots.since[slot as usize] == GONE
    }

    /// The slots that hold a key.
    pub fn live_slots(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = match &self.keys {
            SlotKeys::Integers { table, null, .. } => table.iter().map(|(_, slot)| *slot).chain(*null).collect(),
            SlotKeys::Rows { table, .. } => table.iter().copied().collect(),
        };
        slots.sort_unstable();
        slots
    }

    /// The key columns of these slots.
    pub fn columns(&self, layout: &KeyLayout, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        match &self.keys {
            SlotKeys::Integers { keys, null, gone_nulls, .. } => {
                let is_null = |slot: &u32| *null == Some(*slot) || gone_nulls.contains(slot);
                let values: Int64Array = match null.is_none() && gone_nulls.is_empty() {
                    true => slots.iter().map(|slot| keys[*slot as usize]).collect::<Vec<_>>().into(),
                    false => slots.iter().map(|slot| (!is_null(slot)).then(|| keys[*slot as usize])).collect(),
                };
                Ok(vec![Arc::new(values)])
            }
            SlotKeys::Rows { keys, .. } => {
                rows::decode(&layout.converter, slots.iter().map(|slot| keys[*slot as usize].as_ref()))
            }
        }
    }

    /// Bytes in use, estimated.
    pub fn bytes(&self) -> usize {
        let slots = self.slots.since.capacity() * 4;
        match &self.keys {
            SlotKeys::Integers { table, keys, .. } => slots + table.capacity() * 17 + keys.capacity() * 8,
            SlotKeys::Rows { table, keys } => {
                slots
                    + table.capacity() * 5
                    + keys.capacity() * 16
                    + keys.iter().take(64).map(|key| key.len()).sum::<usize>() * keys.len() / keys.len().clamp(1, 64)
            }
        }
    }
}
