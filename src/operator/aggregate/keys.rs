//! The key index of one shard: group keys to slots, slots back to keys, with slots used again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows};
use hashbrown::HashTable;

use crate::operator::{OperatorError, rows};

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
            SlotKeys::Integers { table: HashTable::new(), keys: Vec::new(), null: None }
        } else {
            SlotKeys::Rows { table: HashTable::new(), keys: Vec::new() }
        };
        KeyIndex { keys, free: Vec::new(), live: 0 }
    }
}

/// Group keys to slots.
#[derive(Debug)]
pub struct KeyIndex {
    keys: SlotKeys,
    free: Vec<u32>,
    live: usize,
}

#[derive(Debug)]
enum SlotKeys {
    Integers { table: HashTable<(i64, u32)>, keys: Vec<i64>, null: Option<u32> },
    Rows { table: HashTable<u32>, keys: Vec<Box<[u8]>> },
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
        let KeyIndex { keys, free, live } = self;
        match (keys, &batch.values) {
            (SlotKeys::Integers { table, keys, null }, KeyValues::Integers(values)) => batch_rows
                .iter()
                .map(|row| {
                    let row = *row as usize;
                    if values.is_null(row) {
                        return *null.get_or_insert_with(|| {
                            *live += 1;
                            new_slot(keys, free, 0)
                        });
                    }
                    let value = values.value(row);
                    let hash = batch.hashes[row];
                    match table.find(hash, |(key, _)| *key == value) {
                        Some((_, slot)) => *slot,
                        None => {
                            *live += 1;
                            let slot = new_slot(keys, free, value);
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
                            let slot = new_slot(keys, free, bytes.into());
                            table.insert_unique(hash, slot, |slot| rows::hash_bytes(&keys[*slot as usize]));
                            slot
                        }
                    }
                })
                .collect(),
            _ => unreachable!("batch and index have the layout of one node"),
        }
    }

    /// Forgets the key of a slot, which is then used for another.
    pub fn remove(&mut self, slot: u32) {
        let index = slot as usize;
        match &mut self.keys {
            SlotKeys::Integers { table, keys, null } => {
                if *null == Some(slot) {
                    *null = None;
                } else {
                    let hash = rows::mix(keys[index] as u64);
                    match table.find_entry(hash, |(_, known)| *known == slot) {
                        Ok(entry) => drop(entry.remove()),
                        Err(_) => return,
                    }
                }
            }
            SlotKeys::Rows { table, keys } => {
                let hash = rows::hash_bytes(&keys[index]);
                match table.find_entry(hash, |known| *known == slot) {
                    Ok(entry) => drop(entry.remove()),
                    Err(_) => return,
                }
                keys[index] = Box::default();
            }
        }
        self.live -= 1;
        self.free.push(slot);
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
            SlotKeys::Integers { keys, null, .. } => {
                let values: Int64Array = match null {
                    None => slots.iter().map(|slot| keys[*slot as usize]).collect::<Vec<_>>().into(),
                    Some(null) => slots.iter().map(|slot| (slot != null).then(|| keys[*slot as usize])).collect(),
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
        match &self.keys {
            SlotKeys::Integers { table, keys, .. } => table.capacity() * 17 + keys.capacity() * 8,
            SlotKeys::Rows { table, keys } => {
                table.capacity() * 5
                    + keys.capacity() * 16
                    + keys.iter().take(64).map(|key| key.len()).sum::<usize>() * keys.len() / keys.len().clamp(1, 64)
            }
        }
    }
}

fn new_slot<K>(keys: &mut Vec<K>, free: &mut Vec<u32>, key: K) -> u32 {
    match free.pop() {
        Some(slot) => {
            keys[slot as usize] = key;
            slot
        }
        None => {
            keys.push(key);
            (keys.len() - 1) as u32
        }
    }
}
