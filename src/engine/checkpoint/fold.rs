//! Runs of one operator laid over one another: the newest says what holds, older ones add what it does not speak of.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashSet;

use crate::operator::StatePart;
use crate::operator::state::{Extent, Gone};

/// Takes the runs of an operator from the newest to the oldest, the segments of each in any order.
#[derive(Debug)]
pub(super) struct Fold {
    /// The operator's tables: others have gone with the tags that they were of.
    names: BTreeSet<String>,
    newer: BTreeMap<String, Newer>,
}

/// What stands for a key: 128 bits, so that two keys have the same by no chance that matters, and with secrets of its own, so that
/// nobody can choose such keys. The keys themselves would take several times the memory.
#[derive(Debug, Default)]
struct Digest(RandomState, RandomState);

impl Digest {
    fn of(&self, key: &[u8]) -> u128 {
        u128::from(self.0.hash_one(key)) << 64 | u128::from(self.1.hash_one(key))
    }
}

/// What newer runs have said of a table, and what this one says.
#[derive(Debug, Default)]
struct Newer {
    digest: Digest,
    is_complete: bool,
    said: Said,
    saying: Said,
    says_all: bool,
}

#[derive(Debug, Default)]
struct Said {
    /// Digests of the encoded keys of rows that are there, or gone.
    keys: HashSet<u128>,
    below: Option<i64>,
}

impl Fold {
    /// Of an operator with these tables.
    pub(super) fn new(names: &BTreeSet<String>) -> Self {
        Fold { names: names.clone(), newer: BTreeMap::new() }
    }

    /// What a segment of this run adds. Over all segments no key is added twice.
    pub(super) fn add(&mut self, parts: Vec<StatePart>) -> Result<Vec<StatePart>, String> {
        let mut added = Vec::with_capacity(parts.len());
        for part in parts.into_iter().filter(|part| self.names.contains(&part.name)) {
            let newer = self.newer.entry(part.name.clone()).or_default();
            if !newer.is_complete {
                added.push(newer.add(part).map_err(|error| error.to_string())?);
            }
        }
        Ok(added)
    }

    /// What follows is of an older run.
    pub(super) fn end_run(&mut self) {
        for newer in self.newer.values_mut() {
            newer.is_complete |= newer.says_all;
            if newer.is_complete {
                newer.said = Said::default();
                continue;
            }
            let saying = std::mem::take(&mut newer.saying);
            newer.said.keys.extend(saying.keys);
            newer.said.below = newer.said.below.max(saying.below);
        }
    }
}

impl Newer {
    fn add(&mut self, part: StatePart) -> Result<StatePart, ArrowError> {
        let StatePart { name, key, batch, extent } = part;
        let mut batch = batch;
        if let Some(below) = self.said.below
            && let Some(first) = batch.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>())
        {
            let stays: BooleanArray =
                first.iter().map(|value| Some(value.is_none_or(|value| value >= below))).collect();
            batch = filter_record_batch(&batch, &stays)?;
        }
        let batch = self.unsaid(batch, key)?;
        let extent = match extent {
            Extent::Whole => {
                self.says_all = true;
                Extent::Whole
            }
            Extent::Rest => Extent::Rest,
            Extent::Changes(Gone { keys, below }) => {
                let keys = self.unsaid(keys, key)?;
                self.say(&batch, key)?;
                self.say(&keys, key)?;
                self.saying.below = self.saying.below.max(below);
                Extent::Changes(Gone { keys, below })
            }
        };
        Ok(StatePart { name, key, batch, extent })
    }

    /// Rows of whose keys nothing was said.
    fn unsaid(&self, batch: RecordBatch, key: usize) -> Result<RecordBatch, ArrowError> {
        if self.said.keys.is_empty() || batch.num_rows() == 0 {
            return Ok(batch);
        }
        let encoded = encode_keys(&batch, key)?;
        let unsaid: BooleanArray =
            encoded.iter().map(|row| Some(!self.said.keys.contains(&self.digest.of(row.data())))).collect();
        if unsaid.true_count() == batch.num_rows() { Ok(batch) } else { filter_record_batch(&batch, &unsaid) }
    }

    fn say(&mut self, batch: &RecordBatch, key: usize) -> Result<(), ArrowError> {
        if batch.num_rows() > 0 {
            let keys = encode_keys(batch, key)?;
            self.saying.keys.extend(keys.iter().map(|row| self.digest.of(row.data())));
        }
        Ok(())
    }
}

fn encode_keys(batch: &RecordBatch, key: usize) -> Result<arrow::row::Rows, ArrowError> {
    let less = || ArrowError::SchemaError(format!("{} columns are less than a key of {key}", batch.num_columns()));
    let keys = batch.columns().get(..key).ok_or_else(less)?;
    let fields = keys.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    RowConverter::new(fields)?.convert_columns(keys)
}

/// Parts of several segments, as [`Fold`] gives them, with one part for each table.
pub(super) fn join(parts: Vec<StatePart>) -> Result<Vec<StatePart>, String> {
    let mut by_name: BTreeMap<String, Vec<StatePart>> = BTreeMap::new();
    for part in parts {
        by_name.entry(part.name.clone()).or_default().push(part);
    }
    let concat =
        |batches: &[RecordBatch]| concat_batches(&batches[0].schema(), batches).map_err(|error| error.to_string());
    let mut joined = Vec::with_capacity(by_name.len());
    for (name, parts) in by_name {
        let key = parts[0].key;
        let (mut batches, mut gone, mut below) = (Vec::new(), Vec::new(), None);
        let (mut is_whole, mut is_rest) = (false, false);
        for part in parts {
            batches.push(part.batch);
            match part.extent {
                Extent::Whole => is_whole = true,
                Extent::Rest => is_rest = true,
                Extent::Changes(Gone { keys, below: also }) => {
                    gone.push(keys);
                    below = below.max(also);
                }
            }
        }
        let extent = match (is_whole, is_rest) {
            // All there is of the table: nothing older is left for what is gone to be taken from.
            (true, _) => Extent::Whole,
            (false, true) => Extent::Rest,
            (false, false) => Extent::Changes(Gone { keys: concat(&gone)?, below }),
        };
        joined.push(StatePart { name, key, batch: concat(&batches)?, extent });
    }
    Ok(joined)
}
