//! The files of one commit: one for each day of its records.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tracing::warn;

use super::commits::{FOLDER, sync_folder};
use super::error::{ArchiveError, failed};
use crate::catalog::Stream;
use crate::inside::leads_outside;

/// What the folders of days are called, below an archive's folder.
pub(crate) const PLACE_OF_DAYS: &str = "dt=";
/// The day of records that have no time, as Hive calls it.
const NO_DAY: &str = "__HIVE_DEFAULT_PARTITION__";
/// Most files that are written at once.
const MOST_FILES: usize = 400;
const HIDDEN_END: &str = ".unfinished";

/// Files that are being written.
pub(super) struct Segment {
    folder: PathBuf,
    root: PathBuf,
    stream: Arc<Stream>,
    number: u64,
    /// By their folders.
    files: BTreeMap<String, ArrowWriter<File>>,
    records: u64,
}

/// Files that are whole, below their archive's folder.
pub(super) struct Written {
    pub(super) files: Vec<String>,
    pub(super) records: u64,
}

impl Segment {
    pub(super) fn new(folder: &Path, root: &Path, stream: &Arc<Stream>, number: u64) -> Self {
        let (folder, root, stream) = (folder.to_path_buf(), root.to_path_buf(), Arc::clone(stream));
        Segment { folder, root, stream, number, files: BTreeMap::new(), records: 0 }
    }

    /// Bytes of the largest file as far as it is written.
    pub(super) fn largest(&self) -> u64 {
        self.files.values().map(|file| file.bytes_written() as u64).max().unwrap_or_default()
    }

    /// Adds rows of one partition as a row group of each of their days; gives how many there was room for, from the first on.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<usize, ArchiveError> {
        let days = days(rows, &self.stream)?;
        let mut places: BTreeMap<Option<NaiveDate>, Vec<u32>> = BTreeMap::new();
        let mut opened = self.files.len();
        let mut fit = 0;
        for (row, day) in (0..).zip(days) {
            let is_new = !places.contains_key(&day) && !self.files.contains_key(&folder_of(day));
            if is_new && opened >= MOST_FILES {
                break;
            }
            opened += usize::from(is_new);
            places.entry(day).or_default().push(row);
            fit += 1;
        }
        for (day, places) in places {
            let is_all = places.len() == rows.num_rows();
            let rows = if is_all { rows.clone() } else { take_record_batch(rows, &UInt32Array::from(places))? };
            let folder = folder_of(day);
            if !self.files.contains_key(&folder) {
                let file = self.open(&folder, rows.schema())?;
                self.files.insert(folder.clone(), file);
            }
            if let Some(file) = self.files.get_mut(&folder) {
                let written = file.write(&rows).and_then(|()| file.flush());
                written.map_err(encoding_failed(&self.folder.join(folder)))?;
            }
        }
        self.records += fit as u64;
        Ok(fit)
    }

    fn open(&self, folder: &str, schema: arrow::datatypes::SchemaRef) -> Result<ArrowWriter<File>, ArchiveError> {
        let place = self.folder.join(folder);
        fs::create_dir_all(&place).map_err(failed(&place))?;
        if leads_outside(&self.root, &place) {
            let message = format!("a symbolic link leads from {} out of the project", place.display());
            return Err(ArchiveError::Refused(message));
        }
        let path = unfinished(&self.folder.join(self.name_in(folder)));
        let file = File::create(&path).map_err(failed(&path))?;
        // What every reader of warehouses reads. A row group ends where it is said.
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(None)
            .set_created_by(concat!("tagflow ", env!("CARGO_PKG_VERSION")).to_string())
            .build();
        ArrowWriter::try_new(file, schema, Some(properties)).map_err(encoding_failed(&path))
    }

    fn name_in(&self, folder: &str) -> String {
        format!("{folder}/{}-{:020}.parquet", self.stream.name, self.number)
    }

    /// Closes the files; they are on the disk when this returns.
    pub(super) fn finish(&mut self) -> Result<Written, ArchiveError> {
        let files = std::mem::take(&mut self.files);
        let mut names = Vec::new();
        for (folder, writer) in files {
            let name = self.name_in(&folder);
            let path = unfinished(&self.folder.join(&name));
            let file = writer.into_inner().map_err(encoding_failed(&path))?;
            file.sync_all().map_err(failed(&path))?;
            sync_folder(&self.folder.join(&folder))?;
            names.push(name);
        }
        if !names.is_empty() {
            sync_folder(&self.folder)?;
        }
        Ok(Written { files: names, records: std::mem::take(&mut self.records) })
    }
}

fn encoding_failed(path: &Path) -> impl Fn(ParquetError) -> ArchiveError + use<> {
    let path = path.to_path_buf();
    move |error| ArchiveError::Io { path: path.clone(), error: std::io::Error::other(error) }
}

/// Gives files of a commit their names, those that have not got them yet.
pub(super) fn settle(folder: &Path, files: &[String]) -> Result<(), ArchiveError> {
    for file in files {
        let path = folder.join(file);
        match fs::rename(unfinished(&path), &path) {
            Ok(()) => {
                if let Some(days) = path.parent() {
                    sync_folder(days)?;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !path.exists() {
                    warn!(file = %path.display(), "a file of the archive is gone: somebody has removed it");
                }
            }
            Err(error) => return Err(failed(&path)(error)),
        }
    }
    Ok(())
}

/// Removes what no commit speaks of.
pub(super) fn remove_unfinished(folder: &Path) -> Result<(), ArchiveError> {
    let of_commits = entries(&folder.join(FOLDER))?;
    for file in files_of_days(folder)?.into_iter().chain(of_commits) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(HIDDEN_END) {
            fs::remove_file(&file).map_err(failed(&file))?;
        }
    }
    Ok(())
}

/// True where files have the names of a stream's archive.
pub(super) fn holds_files(folder: &Path, stream: &str) -> Result<bool, ArchiveError> {
    let is_named = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(&format!("{stream}-")) && number_of(file).is_some()
    };
    Ok(files_of_days(folder)?.iter().any(is_named))
}

fn files_of_days(folder: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let mut files = Vec::new();
    for days in entries(folder)? {
        let is_of_days = days.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PLACE_OF_DAYS));
        if is_of_days && days.is_dir() && !days.is_symlink() {
            files.extend(entries(&days)?);
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(failed(folder))
}

/// What a file of an archive is called before it counts.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{HIDDEN_END}"))
}

/// What a file is called once it counts, of which the name says that it does not yet.
pub(crate) fn finished(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(HIDDEN_END)?;
    Some(path.with_file_name(name))
}

/// The number of the commit that a file belongs to, as its name says.
pub(crate) fn number_of(path: &Path) -> Option<u64> {
    let (_, number) = path.file_name()?.to_str()?.strip_suffix(".parquet")?.rsplit_once('-')?;
    (number.len() == 20).then(|| number.parse().ok())?
}

fn folder_of(day: Option<NaiveDate>) -> String {
    day.map_or_else(|| format!("{PLACE_OF_DAYS}{NO_DAY}"), |day| format!("{PLACE_OF_DAYS}{day}"))
}

/// The day of each row: of its event time, or else of its broker time, which a producer may have set to anything.
fn days(rows: &RecordBatch, stream: &Stream) -> Result<Vec<Option<NaiveDate>>, ArchiveError> {
    let of = |name: &str| -> Result<Vec<Option<i64>>, ArchiveError> {
        let Some(column) = rows.column_by_name(name) else { return Ok(vec![None; rows.num_rows()]) };
        let is_wall_time = matches!(column.data_type(), DataType::Timestamp(_, None));
        let of_day = |millis: i64| if is_wall_time { day_of(millis) } else { local_day(millis, stream.timezone) };
        let zone = match column.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let millis = cast(&cast(column, &DataType::Timestamp(TimeUnit::Millisecond, zone))?, &DataType::Int64)?;
        Ok(millis.as_primitive::<Int64Type>().iter().map(|millis| millis.map(of_day)).collect())
    };
    let mut days = of("_timestamp")?;
    if let Some(time) = &stream.time {
        days = of(&time.column)?.into_iter().zip(days).map(|(event, broker)| event.or(broker)).collect();
    }
    Ok(days.into_iter().map(|day| date_of(day?)).collect())
}

/// Days since 1970-01-01 as a date, unless it is beyond what folders are named after.
fn date_of(day: i64) -> Option<NaiveDate> {
    let date = NaiveDate::from_epoch_days(i32::try_from(day).ok()?)?;
    (1..=9999).contains(&date.year()).then_some(date)
}

fn day_of(millis: i64) -> i64 {
    millis.div_euclid(86_400_000)
}

fn local_day(millis: i64, zone: Tz) -> i64 {
    // Of an instant that no calendar has, no zone knows anything.
    let offset = DateTime::from_timestamp_millis(millis)
        .map_or(0, |instant| zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc());
    day_of(millis.saturating_add(i64::from(offset) * 1000))
}
