//! Records that retention has taken, out of Parquet files that hold them with their partitions and offsets.
//!
//! Enters: the files that a stream names, a partition, a range of offsets. Leaves: batches as a reader of the topic gives them, in the
//! order of offsets, each record once, however often and in whatever order files hold it. Where the files end the topic
//! goes on, to the record: offsets say so. Of an archive of the daemon's its last commit says where they end, and whose they are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{
    CastOptions, can_cast_types, cast_with_options, concat_batches, filter_record_batch, sort_to_indices,
    take_record_batch,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::statistics::Statistics;

use crate::catalog::{Stream, place_of_name};
use crate::delta::Partition;
use crate::inside::leads_outside;
use crate::regular_file::open_regular;
use crate::source::SourceBatch;
use crate::source::archive::{Commit, PLACE_OF_DAYS, finished, latest, number_of, unfinished};

/// Most rows of a batch.
const BATCH_ROWS: usize = 16_384;
const PARTITION: &str = "_partition";
const OFFSET: &str = "_offset";

/// Looks at the files, while some of them go.
const LOOKS: usize = 4;

/// The files of a stream, as they were when reading began.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By partition, then by their first offsets.
    pieces: Vec<Piece>,
    /// What the archives say whose files these are, by their folders.
    archives: Vec<(PathBuf, Commit)>,
}

/// The records of one partition in one row group of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    partition: i32,
    first: i64,
    /// The offset behind the last.
    next: i64,
    file: PathBuf,
    row_group: usize,
}

impl History {
    /// Looks at all files below `root` that a stream names: those of its pattern, and those of its archive.
    pub(super) fn find(root: &Path, stream: &Stream) -> Result<Self, String> {
        let archive = stream.archive.as_ref().map(|archive| {
            let folder = glob::Pattern::escape(&archive.path.to_string_lossy());
            format!("{folder}/{PLACE_OF_DAYS}*/*.parquet")
        });
        let patterns: Vec<&String> = stream.history.iter().chain(&archive).collect();
        for _ in 1..LOOKS {
            match History::look(root, &patterns, stream) {
                Err(Missed::Gone(_)) => {}
                Err(Missed::Unreadable(message)) => return Err(message),
                Ok(found) => return Ok(found),
            }
        }
        History::look(root, &patterns, stream).map_err(|missed| match missed {
            Missed::Gone(message) | Missed::Unreadable(message) => message,
        })
    }

    fn look(root: &Path, patterns: &[&String], stream: &Stream) -> Result<Self, Missed> {
        // What an archive says comes before its files, of which more may turn up meanwhile.
        let mut folders: BTreeSet<PathBuf> =
            files_of(root, patterns)?.iter().filter_map(|file| archive_of(file)).collect();
        folders.extend(stream.archive.iter().map(|archive| root.join(&archive.path)));
        let mut archives = Vec::new();
        for folder in folders {
            let commit = latest(&folder).map_err(|error| Missed::Unreadable(format!("history: {error}")))?;
            archives.extend(commit.map(|commit| (folder, commit)));
        }
        let mut files: BTreeSet<PathBuf> = files_of(root, patterns)?;
        for (folder, commit) in &archives {
            files.retain(|file| {
                archive_of(file).as_ref() != Some(folder)
                    || number_of(file).is_none_or(|number| number <= commit.number)
            });
            files.extend(unseen(folder, commit, &files));
        }
        let mut pieces = Vec::new();
        for file in &files {
            if leads_outside(root, file) {
                let message = format!("history: a symbolic link leads from {} out of the project", file.display());
                return Err(Missed::Unreadable(message));
            }
            let told = |error| format!("history: {}: {error}", file.display());
            pieces.extend(pieces_of(file).map_err(|error| match file.exists() {
                true => Missed::Unreadable(told(error)),
                false => Missed::Gone(told(error)),
            })?);
        }
        pieces.sort_unstable();
        Ok(History { pieces, archives })
    }

    /// What keeps the files from being those of a stream, whose topic has this id where that is known.
    pub(super) fn belongs(&self, stream: &Stream, id: Option<&str>) -> Result<(), String> {
        let told = |(folder, commit): &(PathBuf, Commit)| {
            commit.belongs(stream, id).map_err(|reason| format!("history: {}: {reason}", folder.display()))
        };
        self.archives.iter().try_for_each(told)
    }

    /// The offsets of a partition that the files reach over. A gap that an archive knows of is an end of what can be read, unless
    /// other files have what is missing.
    pub(super) fn range(&self, partition: i32) -> Option<Range<i64>> {
        let own = || self.pieces.iter().filter(|piece| piece.partition == partition);
        let others = || own().filter(|piece| !self.archives.iter().any(|(folder, _)| piece.file.starts_with(folder)));
        let reaches_over = |gap: &Range<i64>| {
            let near = || others().filter(|piece| piece.first < gap.end && piece.next > gap.start);
            near().map(|piece| piece.first).min().is_some_and(|first| first <= gap.start)
                && near().map(|piece| piece.next).max().is_some_and(|next| next >= gap.end)
        };
        let archived = || self.archives.iter().filter_map(|(_, commit)| commit.partitions.get(&partition));
        let gaps = archived().flat_map(|archived| &archived.gaps).filter(|gap| !reaches_over(gap));
        let behind = gaps.map(|gap| gap.end).max().unwrap_or(i64::MIN);
        let first = own().filter(|piece| piece.next > behind).map(|piece| piece.first.max(behind)).min()?;
        // Behind the last record there may be such that are none.
        let next = own().map(|piece| piece.next).chain(archived().map(|archived| archived.next)).max()?;
        (first < next).then_some(first..next)
    }

    /// Gives the records of a range, in the stream's columns of these indices; an error says which file is at fault.
    pub(super) fn read<E>(
        &self,
        request: &Wanted<'_>,
        mut give: impl FnMut(SourceBatch) -> Result<(), E>,
    ) -> Result<Result<(), E>, String> {
        let own = self.pieces.iter().filter(|piece| {
            piece.partition == request.partition.number
                && piece.first < request.offsets.end
                && piece.next > request.offsets.start
        });
        let own: Vec<&Piece> = own.collect();
        let mut rest = own.as_slice();
        while let Some(first) = rest.first() {
            // Pieces that overlap are put in order together.
            let mut next = first.next;
            let apart = rest.iter().position(|piece| {
                let is_apart = piece.first >= next;
                next = next.max(piece.next);
                is_apart
            });
            let (together, others) = rest.split_at(apart.unwrap_or(rest.len()));
            rest = others;
            let rows: Result<Vec<RecordBatch>, String> = together.iter().map(|piece| request.rows(piece)).collect();
            let rows = request.in_order(&rows?)?;
            for from in (0..rows.num_rows()).step_by(BATCH_ROWS) {
                let batch = rows.slice(from, BATCH_ROWS.min(rows.num_rows() - from));
                if let Err(stopped) = give(request.batch(&batch)) {
                    return Ok(Err(stopped));
                }
            }
        }
        Ok(Ok(()))
    }
}

/// Why files cannot be looked at.
enum Missed {
    /// One was there a moment ago.
    Gone(String),
    Unreadable(String),
}

/// The files that patterns below `root` mean.
fn files_of(root: &Path, patterns: &[&String]) -> Result<BTreeSet<PathBuf>, Missed> {
    let root = root.to_str().ok_or_else(|| Missed::Unreadable(format!("{} is not UTF-8", root.display())))?;
    let mut files = BTreeSet::new();
    for pattern in patterns {
        let whole = format!("{}/{pattern}", glob::Pattern::escape(root));
        let found = glob::glob(&whole).map_err(|error| Missed::Unreadable(format!("history {pattern:?}: {error}")))?;
        for file in found {
            files.insert(file.map_err(|error| Missed::Unreadable(format!("history: {error}")))?);
        }
    }
    Ok(files)
}

/// Files of a commit that were not among those that were seen: such as a crash has kept from getting their names, and such as have
/// got them since.
fn unseen(folder: &Path, commit: &Commit, seen: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let others = commit.files.iter().map(|file| folder.join(file)).filter(|file| !seen.contains(file));
    // In this order: one that gets its name in between is there by that.
    others.flat_map(|file| [unfinished(&file), file].into_iter().find(|file| file.exists())).collect()
}

/// The folder of the archive that a file belongs to by its place and name, if it looks so.
fn archive_of(file: &Path) -> Option<PathBuf> {
    let days = file.parent()?;
    let is_of_days = days.file_name()?.to_str()?.starts_with(PLACE_OF_DAYS);
    (is_of_days && number_of(file).is_some()).then(|| days.parent().map(Path::to_path_buf))?
}

/// What is asked of the files.
#[derive(Debug)]
pub(super) struct Wanted<'r> {
    pub(super) stream: &'r Stream,
    /// Indices into the stream's schema.
    pub(super) columns: &'r [usize],
    pub(super) partition: Arc<Partition>,
    pub(super) offsets: Range<i64>,
    /// The end of the partition as it is known, for the lag.
    pub(super) end: i64,
}

impl Wanted<'_> {
    /// The rows of a piece in the wanted columns, and behind them their offsets and times.
    fn rows(&self, piece: &Piece) -> Result<RecordBatch, String> {
        let told = |error: String| format!("history: {}: {error}", piece.file.display());
        self.read(piece).map_err(told)
    }

    fn read(&self, piece: &Piece) -> Result<RecordBatch, String> {
        let file = open(&piece.file).map_err(|error| error.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
        let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let place = |name: &str| place_of_name(names.iter().map(String::as_str), name);
        let schema = self.stream.schema();
        let wanted = self.columns.iter().map(|index| schema.field(*index).name().as_str());
        let read: Vec<usize> = wanted.chain([PARTITION, OFFSET, "_timestamp"]).filter_map(place).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), read);
        let reader = builder.with_row_groups(vec![piece.row_group]).with_projection(mask).build();
        let mut batches = Vec::new();
        for batch in reader.map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            batches.push(self.wanted_of(&batch)?);
        }
        concat_batches(&self.row_schema(), &batches).map_err(|error| error.to_string())
    }

    /// The wanted columns, all nullable, then offset and time.
    fn row_schema(&self) -> Arc<Schema> {
        let schema = self.stream.schema();
        let of = |field: &Field| Field::new(field.name(), field.data_type().clone(), true);
        let wanted = self.columns.iter().map(|index| of(schema.field(*index)));
        let added = [OFFSET, "_timestamp"].map(|name| {
            let field = schema.field_with_name(name).expect("every stream has it");
            Field::new(format!(" {name}"), field.data_type().clone(), true)
        });
        Arc::new(Schema::new(wanted.chain(added).collect::<Vec<_>>()))
    }

    fn wanted_of(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let (partitions, offsets) = (whole_numbers(batch, PARTITION)?, whole_numbers(batch, OFFSET)?);
        let (partitions, offsets) = (partitions.as_primitive::<Int64Type>(), offsets.as_primitive::<Int64Type>());
        let number = i64::from(self.partition.number);
        let own = |row: usize| partitions.value(row) == number && self.offsets.contains(&offsets.value(row));
        let own: BooleanArray = (0..batch.num_rows()).map(|row| Some(own(row))).collect();
        let batch = filter_record_batch(batch, &own).map_err(|error| error.to_string())?;
        let schema = self.row_schema();
        let columns = schema.fields().iter().enumerate().map(|(position, field)| {
            let name = field.name().trim_start();
            let is_needed =
                self.columns.get(position).is_some_and(|index| !self.stream.schema().field(*index).is_nullable());
            self.column(&batch, name, field.data_type(), is_needed)
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
        RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())
    }

    fn column(
        &self,
        batch: &RecordBatch,
        name: &str,
        data_type: &DataType,
        is_needed: bool,
    ) -> Result<ArrayRef, String> {
        let schema = batch.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let Some(place) = place_of_name(names, name) else {
            return match name {
                "_topic" => {
                    let topic = std::iter::repeat_n(Some(self.stream.topic.as_str()), batch.num_rows());
                    Ok(Arc::new(topic.collect::<StringArray>()))
                }
                _ if is_needed => Err(format!("it has no column {name:?}")),
                _ => Ok(new_null_array(data_type, batch.num_rows())),
            };
        };
        let column = batch.column(place);
        let found = column.data_type();
        if !holds(data_type, found) {
            return Err(format!("column {name:?} is {found}, and {data_type} in the schema"));
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let cast = cast_with_options(column, data_type, &strict);
        let cast = cast.map_err(|error| format!("column {name:?} does not fit the schema: {error}"))?;
        match is_needed && cast.null_count() > 0 {
            true => Err(format!("column {name:?} is NOT NULL, and has NULLs")),
            false => Ok(cast),
        }
    }

    /// Rows of one or several pieces by their offsets, each offset once.
    fn in_order(&self, rows: &[RecordBatch]) -> Result<RecordBatch, String> {
        let failed = |error: arrow::error::ArrowError| error.to_string();
        let rows = concat_batches(&self.row_schema(), rows).map_err(failed)?;
        let order = sort_to_indices(rows.column(self.columns.len()), None, None).map_err(failed)?;
        let rows = take_record_batch(&rows, &order).map_err(failed)?;
        let offsets = rows.column(self.columns.len()).as_primitive::<Int64Type>();
        let is_first = |row: usize| row == 0 || offsets.value(row) != offsets.value(row - 1);
        let firsts: BooleanArray = (0..rows.num_rows()).map(|row| Some(is_first(row))).collect();
        filter_record_batch(&rows, &firsts).map_err(failed)
    }

    fn batch(&self, rows: &RecordBatch) -> SourceBatch {
        let offsets = rows.column(self.columns.len()).as_primitive::<Int64Type>().values().to_vec();
        let times = rows.column(self.columns.len() + 1).as_primitive::<TimestampMillisecondType>();
        let schema = self.stream.schema();
        let fields = Schema::new(self.columns.iter().map(|index| schema.field(*index).clone()).collect::<Vec<_>>());
        let columns = rows.columns()[..self.columns.len()].to_vec();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        SourceBatch {
            partition: Arc::clone(&self.partition),
            batch: RecordBatch::try_new_with_options(Arc::new(fields), columns, &options)
                .expect("columns were cast to these fields, and NULLs looked for"),
            next_offset: offsets.last().map_or(self.offsets.start, |last| last + 1),
            offsets,
            end_offset: self.end,
            newest_timestamp: arrow::compute::max(times),
            raw_bytes: rows.get_array_memory_size(),
        }
    }
}

/// A file as it was found, or by the name that it has got since.
fn open(path: &Path) -> io::Result<File> {
    open_regular(path).or_else(|error| match finished(path).filter(|_| error.kind() == io::ErrorKind::NotFound) {
        Some(named) => open_regular(&named),
        None => Err(error),
    })
}

/// True where a column takes values of another type as they are; a value that is too large for it is an error of its own.
fn holds(column: &DataType, found: &DataType) -> bool {
    let is_text = |found: &DataType| match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        // Text of writers that do not say that it is some.
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        _ => false,
    };
    match (column, found) {
        (DataType::Dictionary(..) | DataType::List(_) | DataType::Struct(_), _) => can_cast_types(found, column),
        (_, DataType::Dictionary(_, values)) => holds(column, values),
        (DataType::Utf8, found) => is_text(found),
        (DataType::Float64, DataType::Float32) => true,
        (DataType::Decimal128(_, scale), DataType::Decimal128(_, of)) => scale >= of,
        (DataType::Decimal128(..) | DataType::Float64, found) if found.is_integer() => true,
        // A cast would take wall time for that of UTC.
        (DataType::Timestamp(_, zone), DataType::Timestamp(_, of)) => zone.is_some() == of.is_some(),
        (column, found) => column == found || column.is_integer() && found.is_integer(),
    }
}

/// A column of whole numbers, none of which is missing.
fn whole_numbers(batch: &RecordBatch, name: &str) -> Result<ArrayRef, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("it has no column {name:?}"))?;
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let numbers = cast_with_options(column, &DataType::Int64, &strict);
    let numbers = numbers.map_err(|error| format!("column {name:?} holds no whole numbers: {error}"))?;
    if numbers.null_count() > 0 { Err(format!("column {name:?} has NULLs")) } else { Ok(numbers) }
}

/// The partitions of each row group with their ranges of offsets: out of its statistics where these tell, else out of its rows.
fn pieces_of(path: &Path) -> Result<Vec<Piece>, String> {
    let open = || {
        let file = open_regular(path).map_err(|error| error.to_string())?;
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| format!("no whole Parquet file: {error}"))
    };
    let builder = open()?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let place =
        |name: &str| names.iter().position(|known| known == name).ok_or_else(|| format!("it has no column {name:?}"));
    let (partition, offset) = (place(PARTITION)?, place(OFFSET)?);
    let mut pieces = Vec::new();
    for row_group in 0..builder.metadata().num_row_groups() {
        let columns = builder.metadata().row_group(row_group).columns();
        let range = |place: usize| {
            columns
                .iter()
                .find(|column| column.column_path().string() == names[place])
                .and_then(|column| bounds(column.statistics()?))
        };
        let piece = |partition: i32, first, last: i64| Piece {
            partition,
            first,
            next: last + 1,
            file: path.to_path_buf(),
            row_group,
        };
        match (range(partition), range(offset)) {
            (Some((number, same)), Some((first, last))) if number == same => {
                pieces.push(piece(i32::try_from(number).map_err(|error| error.to_string())?, first, last));
            }
            _ => {
                let mask = ProjectionMask::roots(builder.parquet_schema(), [partition, offset]);
                let reader = open()?.with_row_groups(vec![row_group]).with_projection(mask).build();
                let mut ranges: std::collections::BTreeMap<i64, (i64, i64)> = Default::default();
                for batch in reader.map_err(|error| error.to_string())? {
                    let batch = batch.map_err(|error| error.to_string())?;
                    let (numbers, offsets) = (whole_numbers(&batch, PARTITION)?, whole_numbers(&batch, OFFSET)?);
                    let numbers = numbers.as_primitive::<Int64Type>().values().iter();
                    for (number, offset) in numbers.zip(offsets.as_primitive::<Int64Type>().values()) {
                        let known = ranges.entry(*number).or_insert((*offset, *offset));
                        *known = (known.0.min(*offset), known.1.max(*offset));
                    }
                }
                for (number, (first, last)) in ranges {
                    pieces.push(piece(i32::try_from(number).map_err(|error| error.to_string())?, first, last));
                }
            }
        }
    }
    Ok(pieces)
}

fn bounds(statistics: &Statistics) -> Option<(i64, i64)> {
    match statistics {
        Statistics::Int32(values) => Some((i64::from(*values.min_opt()?), i64::from(*values.max_opt()?))),
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
