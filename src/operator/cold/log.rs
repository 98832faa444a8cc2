//! Records in scratch files: written one behind the other, read one by one, freed one by one.
//!
//! A file takes records until it is full and is not written again; it goes with its last record. Where most of what is in
//! the files is freed, the records of the emptiest are to be moved. Files outlive the log as long as somebody reads them.

use std::sync::Arc;

use super::{Scratch, ScratchFile};
use crate::operator::OperatorError;

/// Records begin at multiples of so many bytes, so that a place is a small number.
const UNIT: usize = 16;
/// Units of a file; a longer record has a file of its own. Small in tests, which have little to keep.
const FILE_UNITS: usize = if cfg!(debug_assertions) { 1 << 12 } else { 1 << 21 };
/// Length, hash and checksum of a record.
const HEAD: usize = 12;
/// What is read at first of a record: most are not longer.
const FIRST_READ: usize = 240;
/// What is read at once of records behind one another.
const LONG_READ: usize = 1 << 20;
/// What lies between two records is read with them if it is not more: a call to the system costs as much.
const GAP: usize = 8 << 10;

/// Where a record is.
pub(super) type Place = u32;

/// What was written, and the hash that it is found by.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) hash: u32,
    pub(super) bytes: Vec<u8>,
}

/// Files of records.
#[derive(Debug)]
pub(super) struct Log {
    scratch: Arc<dyn Scratch>,
    /// By number; one that holds nothing is given back.
    files: Vec<Option<LogFile>>,
    /// The one that takes records.
    last: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct LogFile {
    file: Arc<dyn ScratchFile>,
    units: usize,
    /// One bit a unit: a record begins there that is not freed.
    held: Vec<u64>,
    held_units: usize,
}

fn damaged(reason: impl ToString) -> OperatorError {
    OperatorError::State { what: "keys that are not in memory".to_string(), reason: reason.to_string() }
}

fn units_of(length: usize) -> usize {
    (HEAD + length).div_ceil(UNIT)
}

fn full(error: &std::io::Error) -> OperatorError {
    OperatorError::Scratch(error.to_string())
}

impl LogFile {
    fn has(&self, unit: usize) -> bool {
        self.held.get(unit / 64).is_some_and(|word| word & (1 << (unit % 64)) != 0)
    }

    /// Adds a record to the end, which is written later.
    fn push(&mut self, record: &Record) {
        let (unit, units) = (self.units, units_of(record.bytes.len()));
        self.held.resize((unit + units).div_ceil(64), 0);
        self.held[unit / 64] |= 1 << (unit % 64);
        self.units += units;
        self.held_units += units;
    }

    /// Forgets a record; true when the file holds no other.
    fn free(&mut self, unit: usize, length: usize) -> bool {
        if self.has(unit) {
            self.held[unit / 64] &= !(1 << (unit % 64));
            self.held_units -= units_of(length);
        }
        self.held_units == 0
    }

    fn read(&self, unit: usize, most: usize) -> Result<Vec<u8>, OperatorError> {
        let mut bytes = vec![0; most.min(self.units.saturating_sub(unit) * UNIT)];
        let mut known = 0;
        while known < bytes.len() {
            let read = self.file.read_at(&mut bytes[known..], (unit * UNIT + known) as u64);
            match read.map_err(|error| damaged(format!("their file cannot be read: {error}")))? {
                0 => return Err(damaged("their file is too short")),
                read => known += read,
            }
        }
        Ok(bytes)
    }

    /// All records that are not freed.
    pub(super) fn scan(self) -> Scan {
        Scan { file: self, unit: 0, ahead: Ahead::default() }
    }
}

fn encode(record: &Record, bytes: &mut Vec<u8>) {
    let end = bytes.len() + units_of(record.bytes.len()) * UNIT;
    bytes.extend((record.bytes.len() as u32).to_le_bytes());
    bytes.extend(record.hash.to_le_bytes());
    bytes.extend(crc32fast::hash(&record.bytes).to_le_bytes());
    bytes.extend(&record.bytes);
    bytes.resize(end, 0);
}

fn word(bytes: &[u8], index: usize) -> Result<u32, OperatorError> {
    let word = bytes.as_chunks::<4>().0.get(index).ok_or_else(|| damaged("a record ends too early"))?;
    Ok(u32::from_le_bytes(*word))
}

fn length_of(bytes: &[u8]) -> Result<usize, OperatorError> {
    Ok(word(bytes, 0)? as usize)
}

fn decode(bytes: &[u8]) -> Result<Record, OperatorError> {
    let (length, hash, checksum) = (length_of(bytes)?, word(bytes, 1)?, word(bytes, 2)?);
    let bytes = bytes.get(HEAD..HEAD + length).ok_or_else(|| damaged("a record ends too early"))?;
    if crc32fast::hash(bytes) != checksum {
        return Err(damaged("a checksum differs"));
    }
    Ok(Record { hash, bytes: bytes.to_vec() })
}

impl Log {
    pub(super) fn new(scratch: Arc<dyn Scratch>) -> Self {
        Log { scratch, files: Vec::new(), last: None }
    }

    fn open_files(&self) -> impl Iterator<Item = &LogFile> {
        self.files.iter().flatten()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> usize {
        self.open_files().map(|file| file.units * UNIT).sum()
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        self.open_files().map(|file| file.held.capacity() * 8).sum()
    }

    fn file(&self, number: usize) -> Result<&LogFile, OperatorError> {
        self.files.get(number).and_then(Option::as_ref).ok_or_else(|| damaged("a file is missing"))
    }

    /// Writes records and says where they are; with an error none of them is there.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<Vec<Place>, OperatorError> {
        let last = self.last;
        let before = last.and_then(|last| self.files[last].clone());
        let mut begun = Vec::new();
        let places = self.write(records, &mut begun);
        if places.is_err() {
            begun.into_iter().for_each(|number| self.files[number] = None);
            self.last = last;
            if let Some(last) = last {
                self.files[last] = before;
            }
        }
        places
    }

    fn write(&mut self, records: &[Record], begun: &mut Vec<usize>) -> Result<Vec<Place>, OperatorError> {
        let mut places = Vec::with_capacity(records.len());
        let mut unwritten = Vec::new();
        for record in records {
            let units = units_of(record.bytes.len());
            let has_room = |file: &LogFile| file.units + units <= FILE_UNITS;
            let number = match self.last {
                Some(last) if self.files[last].as_ref().is_some_and(has_room) => last,
                _ => {
                    self.write_out(&mut unwritten)?;
                    let number = self.begin_file()?;
                    begun.push(number);
                    number
                }
            };
            let Some(file) = &mut self.files[number] else { continue };
            let place = Place::try_from(number * FILE_UNITS + file.units);
            places.push(place.map_err(|_| OperatorError::Scratch("it holds as much as it can".to_string()))?);
            file.push(record);
            encode(record, &mut unwritten);
        }
        self.write_out(&mut unwritten)?;
        Ok(places)
    }

    fn begin_file(&mut self) -> Result<usize, OperatorError> {
        let file = self.scratch.file().map_err(|error| full(&error))?;
        let file = Some(LogFile { file, units: 0, held: Vec::new(), held_units: 0 });
        let number = self.files.iter().position(Option::is_none).unwrap_or(self.files.len());
        if number == self.files.len() {
            self.files.push(file);
        } else {
            self.files[number] = file;
        }
        self.last = Some(number);
        Ok(number)
    }

    /// Writes what was added to the end of the last file.
    fn write_out(&self, unwritten: &mut Vec<u8>) -> Result<(), OperatorError> {
        let bytes = std::mem::take(unwritten);
        let Some(file) = self.last.and_then(|last| self.files[last].as_ref()).filter(|_| !bytes.is_empty()) else {
            return Ok(());
        };
        file.file.write_at(&bytes, (file.units * UNIT - bytes.len()) as u64).map_err(|error| full(&error))
    }

    /// The records at these places, which are in their order.
    pub(super) fn read(&self, places: &[Place]) -> Result<Vec<Record>, OperatorError> {
        let split = |place: &Place| (*place as usize / FILE_UNITS, *place as usize % FILE_UNITS);
        let mut records = Vec::with_capacity(places.len());
        let mut left = places;
        while let Some(first) = left.first() {
            // Those that are near to one another are read at once.
            let (number, begin) = split(first);
            let mut end = begin * UNIT + FIRST_READ;
            let is_near = |place: &&Place| {
                let (file, unit) = split(place);
                let is_near = file == number && unit * UNIT <= end + GAP && unit * UNIT < begin * UNIT + LONG_READ;
                end = if is_near { unit * UNIT + FIRST_READ } else { end };
                is_near
            };
            let count = left.iter().take_while(is_near).count();
            let (near, rest) = left.split_at(count);
            let file = self.file(number)?;
            let mut ahead = Ahead::read(file, begin, end - begin * UNIT)?;
            for place in near {
                records.push(ahead.record(file, split(place).1, FIRST_READ)?);
            }
            left = rest;
        }
        Ok(records)
    }

    /// Forgets a record of so many bytes.
    pub(super) fn free(&mut self, place: Place, length: usize) {
        let (number, unit) = (place as usize / FILE_UNITS, place as usize % FILE_UNITS);
        let Some(file) = self.files.get_mut(number).and_then(Option::as_mut) else { return };
        if file.free(unit, length) {
            self.files[number] = None;
            self.last = self.last.filter(|last| *last != number);
        }
    }

    /// A file that should be given back by moving its records: more than half of all is freed, and it holds the least.
    pub(super) fn emptiest(&self) -> Option<(usize, LogFile)> {
        let (held, all) = self.open_files().fold((0, 0), |sum, file| (sum.0 + file.held_units, sum.1 + file.units));
        if all <= 2 * held + FILE_UNITS {
            return None;
        }
        let full = self.files.iter().enumerate().filter(|(number, _)| self.last != Some(*number));
        let full = full.filter_map(|(number, file)| Some((number, file.as_ref()?)));
        let (number, file) = full.min_by_key(|(_, file)| file.held_units)?;
        Some((number, file.clone()))
    }

    /// The place of a record of a file that [`Log::emptiest`] gave.
    pub(super) fn place(number: usize, unit: usize) -> Place {
        (number * FILE_UNITS + unit) as Place
    }

    /// All files as they are now.
    pub(super) fn view(&self) -> Vec<LogFile> {
        self.open_files().cloned().collect()
    }
}

/// Bytes of a file that were read before they are asked for.
#[derive(Debug, Default)]
struct Ahead {
    bytes: Vec<u8>,
    /// The unit that they begin with.
    begin: usize,
}

impl Ahead {
    fn read(file: &LogFile, begin: usize, most: usize) -> Result<Self, OperatorError> {
        Ok(Ahead { bytes: file.read(begin, most)?, begin })
    }

    /// A record that does not lie before them; what is not there is read, with so many bytes.
    fn record(&mut self, file: &LogFile, unit: usize, most: usize) -> Result<Record, OperatorError> {
        let whole = |bytes: &[u8]| length_of(bytes).is_ok_and(|length| HEAD + length <= bytes.len());
        let known = self.bytes.get((unit - self.begin) * UNIT..).unwrap_or_default();
        if whole(known) {
            return decode(known);
        }
        *self = Ahead::read(file, unit, most)?;
        if whole(&self.bytes) {
            return decode(&self.bytes);
        }
        *self = Ahead::read(file, unit, HEAD + length_of(&self.bytes)?)?;
        decode(&self.bytes)
    }
}

/// Reads a file from its beginning: where each record is, and the record.
#[derive(Debug)]
pub(super) struct Scan {
    file: LogFile,
    unit: usize,
    ahead: Ahead,
}

impl Iterator for Scan {
    type Item = Result<(usize, Record), OperatorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let unit = (self.unit..self.file.units).find(|unit| self.file.has(*unit))?;
        let record = self.ahead.record(&self.file, unit, LONG_READ);
        // Behind an error nothing more is read.
        self.unit = record.as_ref().map_or(self.file.units, |record| unit + units_of(record.bytes.len()));
        Some(record.map(|record| (unit, record)))
    }
}
