//! Keys that are not in memory: what an operator keeps of them lies in scratch files until an event asks for it.
//!
//! A key is in memory or out, never both. Which ones are out is told by an index of eight bytes a key, so that rows of
//! keys that are new or in memory cost no reading, and those of the others one read each. What is kept is the rows that
//! a checkpoint would hold, put together by key; the files themselves end with the process.

mod away;
mod hand;
mod index;
mod log;
mod records;
mod spills;

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;

pub use self::away::Away;
pub use self::hand::Hand;
use self::index::Index;
use self::log::{Log, LogFile, Place, Record, Scan};
pub use self::records::KeyColumns;
use self::records::Tables;
pub use self::spills::{Spills, bring_in_parts, spill_shards};
use crate::operator::state::primitive_column;
use crate::operator::{OperatorError, StatePart};

/// About how many bytes of rows are read at once of all that is out.
const PIECE_BYTES: usize = 4 << 20;

/// Where files for keys that are not in memory come from.
pub trait Scratch: std::fmt::Debug + Send + Sync {
    /// A new file that nobody else sees, and that goes with the last who holds it.
    fn file(&self) -> std::io::Result<Arc<dyn ScratchFile>>;
}

/// Bytes outside of memory.
pub trait ScratchFile: std::fmt::Debug + Send + Sync {
    /// Writes bytes, also behind its end.
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()>;
    /// Reads into the room, some bytes at least; none behind its end.
    fn read_at(&self, room: &mut [u8], offset: u64) -> std::io::Result<usize>;
}

/// The keys of one shard that are out.
#[derive(Debug)]
pub struct Cold {
    tables: Tables,
    index: Index,
    log: Option<Log>,
    /// Rows of all keys.
    rows: usize,
}

/// What is out of an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ColdSize {
    /// Keys.
    pub keys: usize,
    /// Their rows.
    pub rows: usize,
    /// Bytes outside of memory.
    pub bytes: usize,
    /// Bytes in memory that tell which they are.
    pub memory: usize,
}

impl std::ops::Add for ColdSize {
    type Output = ColdSize;

    fn add(self, other: ColdSize) -> ColdSize {
        ColdSize {
            keys: self.keys + other.keys,
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            memory: self.memory + other.memory,
        }
    }
}

impl std::iter::Sum for ColdSize {
    fn sum<I: Iterator<Item = ColdSize>>(sizes: I) -> ColdSize {
        sizes.fold(ColdSize::default(), |one, other| one + other)
    }
}

impl Cold {
    /// Nothing is out. `keys` are the columns of the operator's tables that are the key.
    pub fn new(keys: KeyColumns) -> Self {
        Cold { tables: Tables::new(keys), index: Index::default(), log: None, rows: 0 }
    }

    /// True where all keys are in memory.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What is out.
    pub fn size(&self) -> ColdSize {
        let log = |of: fn(&Log) -> usize| self.log.as_ref().map_or(0, of);
        ColdSize {
            keys: self.index.len(),
            rows: self.rows,
            bytes: log(Log::bytes),
            memory: self.index.bytes() + log(Log::memory),
        }
    }

    /// Keeps the rows of keys that leave memory, all rows of each; gives the hash of each row's key. With an error they
    /// are not kept.
    pub fn put(&mut self, parts: &[StatePart], scratch: &Arc<dyn Scratch>) -> Result<Vec<u32>, OperatorError> {
        let (records, hashes) = self.tables.encode(parts)?;
        let log = self.log.get_or_insert_with(|| Log::new(Arc::clone(scratch)));
        let places = log.append(&records)?;
        for (record, place) in records.iter().zip(places) {
            self.index.insert(record.hash, place);
        }
        self.rows += hashes.len();
        self.tables.count(records.iter().map(|record| record.bytes.as_slice()), |all, row| all + row)?;
        Ok(hashes)
    }

    /// Takes those of these keys back that are out; gives their rows.
    pub fn take<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<StatePart>, OperatorError> {
        if self.is_empty() {
            return Ok(vec![]);
        }
        let mut asked: Vec<(&[u8], u32)> = keys.map(|key| (key, records::hash(key))).collect();
        asked.retain(|(_, hash)| self.index.has(*hash));
        asked.sort_unstable();
        asked.dedup();
        let places = |(key, hash): (&'a [u8], u32)| self.index.places(hash).map(move |place| (place, Some(key)));
        let found = asked.into_iter().flat_map(places).collect();
        self.take_found(found)
    }

    /// Takes all keys back that have one of these hashes; gives their rows.
    pub fn take_hashed(&mut self, hashes: &[u32]) -> Result<Vec<StatePart>, OperatorError> {
        // One is there twice where two keys share it.
        let mut hashes = hashes.to_vec();
        hashes.sort_unstable();
        hashes.dedup();
        let found = hashes.iter().flat_map(|hash| self.index.places(*hash)).map(|place| (place, None)).collect();
        self.take_found(found)
    }

    /// Takes back what is at these places, where it is of the key that is asked for.
    fn take_found(&mut self, mut found: Vec<(Place, Option<&[u8]>)>) -> Result<Vec<StatePart>, OperatorError> {
        let Some(log) = &mut self.log else { return Ok(vec![]) };
        // In the order in which they lie in the files.
        found.sort_unstable();
        let places: Vec<Place> = found.iter().map(|(place, _)| *place).collect();
        let mut taken = Vec::with_capacity(found.len());
        for ((place, key), record) in found.into_iter().zip(log.read(&places)?) {
            // Another key may have the same hash.
            if key.is_none_or(|key| records::key_of(&record.bytes).is_ok_and(|own| own == key)) {
                taken.push((place, record));
            }
        }
        let records = || taken.iter().map(|(_, record)| record.bytes.as_slice());
        let (parts, rows) = self.tables.decode(records(), &|_| true)?;
        for (place, record) in &taken {
            self.index.remove(record.hash, *place);
            log.free(*place, record.bytes.len());
        }
        self.tables.count(records(), |all, row| all.saturating_sub(row))?;
        self.rows -= rows.min(self.rows);
        if !taken.is_empty() {
            self.tidy()?;
        }
        Ok(parts)
    }

    /// Gives files back that hold little.
    fn tidy(&mut self) -> Result<(), OperatorError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if self.index.is_empty() {
            self.log = None;
            return Ok(());
        }
        let Some((number, file)) = log.emptiest() else { return Ok(()) };
        let (units, records): (Vec<usize>, Vec<Record>) =
            file.scan().collect::<Result<Vec<(usize, Record)>, _>>()?.into_iter().unzip();
        // Without room for them they stay where they are.
        let Ok(places) = log.append(&records) else { return Ok(()) };
        for ((unit, record), place) in units.into_iter().zip(&records).zip(places) {
            let before = Log::place(number, unit);
            self.index.remove(record.hash, before);
            self.index.insert(record.hash, place);
            log.free(before, record.bytes.len());
        }
        Ok(())
    }

    /// Bytes outside of memory that are of these tables alone.
    pub fn bytes_of(&self, is_wanted: impl Fn(&str) -> bool) -> usize {
        self.tables.bytes_of(is_wanted)
    }

    /// Rows of this table mean nothing from now on, also where another gets its name.
    pub fn forget_table(&mut self, name: &str) {
        self.tables.forget(name);
    }

    /// All rows of some tables as they are out now, whatever leaves or comes back later.
    pub fn view(&self, tables: &[String]) -> ColdRows {
        let files = self.log.as_ref().map(Log::view).unwrap_or_default();
        let (tables, wanted) = (self.tables.clone(), tables.to_vec());
        ColdRows { tables, wanted, files: files.into_iter(), scan: None, from: Vec::new() }
    }
}

/// Rows that are out, piece by piece.
#[derive(Debug)]
pub struct ColdRows {
    tables: Tables,
    wanted: Vec<String>,
    files: std::vec::IntoIter<LogFile>,
    scan: Option<Scan>,
    /// Tables of which rows whose first column lies below are left out.
    from: Vec<(&'static str, i64)>,
}

impl ColdRows {
    /// Of that table only rows whose first column, a number, does not lie below.
    pub fn from(mut self, table: &'static str, least: i64) -> Self {
        self.from.push((table, least));
        self
    }

    fn cut(&self, mut part: StatePart) -> Result<StatePart, OperatorError> {
        if let Some((_, least)) = self.from.iter().find(|(table, _)| *table == part.name) {
            let first = primitive_column::<Int64Type>(&part.batch, 0)?;
            let stays: BooleanArray = first.values().iter().map(|value| Some(value >= least)).collect();
            part.batch = filter_record_batch(&part.batch, &stays)?;
        }
        Ok(part)
    }

    fn next_record(&mut self) -> Option<Result<Record, OperatorError>> {
        loop {
            match self.scan.as_mut().and_then(Iterator::next) {
                Some(found) => return Some(found.map(|(_, record)| record)),
                None => self.scan = Some(self.files.next()?.scan()),
            }
        }
    }
}

impl Iterator for ColdRows {
    /// Rows of some keys: more of each table.
    type Item = Result<Vec<StatePart>, OperatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES {
            match self.next_record() {
                Some(Ok(record)) => {
                    bytes += record.bytes.len();
                    records.push(record.bytes);
                }
                Some(Err(error)) => return Some(Err(error)),
                None if records.is_empty() => return None,
                None => break,
            }
        }
        let is_wanted = |name: &str| self.wanted.iter().any(|wanted| wanted == name);
        let decoded = self.tables.decode(records.iter().map(Vec::as_slice), &is_wanted);
        Some(decoded.and_then(|(parts, _)| parts.into_iter().map(|part| self.cut(part)).collect()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
