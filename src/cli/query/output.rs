//! Rows as they are written: a table, CSV, JSON lines, a Parquet file.
//!
//! A file is there as a whole or not at all: it is written beside, and renamed.

use std::fs::{File, Permissions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{CellAlignment, Table, presets};
use parquet::arrow::ArrowWriter;
use tempfile::{Builder, NamedTempFile};

use super::Format;
use crate::csv_line::csv_line;

/// Where rows go.
pub(super) struct Output<'a> {
    format: Format,
    path: Option<PathBuf>,
    screen: &'a mut (dyn Write + Send),
    state: State,
}

enum State {
    Waiting,
    /// Laid out at the end.
    Table(Table),
    /// To the screen.
    Lines,
    /// To a file beside the one that is wanted.
    File(BufWriter<NamedTempFile>),
    Parquet(Box<ArrowWriter<NamedTempFile>>, PathBuf),
}

impl<'a> Output<'a> {
    /// Nothing is touched before the first rows are there.
    pub(super) fn new(format: Format, path: Option<PathBuf>, screen: &'a mut (dyn Write + Send)) -> Self {
        Output { format, path, screen, state: State::Waiting }
    }

    /// Rows of this schema come.
    pub(super) fn begin(&mut self, schema: &SchemaRef) -> Result<(), String> {
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        self.state = match (self.format, &self.path) {
            (Format::Table, _) => {
                let mut table = Table::new();
                table.load_preset(presets::UTF8_FULL_CONDENSED).force_no_tty().set_header(&names);
                for (index, field) in schema.fields().iter().enumerate() {
                    if field.data_type().is_numeric()
                        && let Some(column) = table.column_mut(index)
                    {
                        column.set_cell_alignment(CellAlignment::Right);
                    }
                }
                State::Table(table)
            }
            (Format::Parquet, Some(path)) => {
                let file = beside(path)?;
                let writer = ArrowWriter::try_new(file, schema.clone(), None).map_err(|error| error.to_string())?;
                State::Parquet(Box::new(writer), path.clone())
            }
            (_, Some(path)) => State::File(BufWriter::new(beside(path)?)),
            (_, None) => State::Lines,
        };
        if self.format == Format::Csv {
            let header = csv_line(names.into_iter().map(|name| Some(name.clone())));
            self.text(header.as_bytes())?;
        }
        Ok(())
    }

    /// Takes rows. False where nobody reads them any more.
    pub(super) fn rows(&mut self, rows: &RecordBatch) -> Result<bool, String> {
        match (&mut self.state, self.format) {
            (State::Table(table), _) => {
                each_row(rows, |cells| {
                    let shown = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".to_string());
                    table.add_row(cells.into_iter().map(shown).map(|text| printable(&text)));
                })?;
                Ok(true)
            }
            (State::Parquet(writer, _), _) => writer.write(rows).map(|()| true).map_err(|error| error.to_string()),
            (_, Format::Csv) => {
                let mut text = String::new();
                each_row(rows, |cells| text.push_str(&csv_line(cells.into_iter())))?;
                self.text(text.as_bytes())
            }
            _ => {
                let mut text = Vec::new();
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, LineDelimited>(&mut text);
                writer.write(rows).and_then(|()| writer.finish()).map_err(|error| error.to_string())?;
                drop(writer);
                self.text(&text)
            }
        }
    }

    /// All rows were taken.
    pub(super) fn end(mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.state, State::Waiting) {
            State::Table(table) => {
                let text = format!("{table}\n");
                match self.path.clone() {
                    Some(path) => {
                        let mut file = beside(&path)?;
                        file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
                        keep(file, &path)
                    }
                    None => {
                        self.state = State::Lines;
                        self.text(text.as_bytes()).map(drop)
                    }
                }
            }
            State::Parquet(writer, path) => keep(writer.into_inner().map_err(|error| error.to_string())?, &path),
            State::File(writer) => {
                let file = writer.into_inner().map_err(|error| error.to_string())?;
                self.path.as_ref().map_or(Ok(()), |path| keep(file, path))
            }
            State::Lines | State::Waiting => Ok(()),
        }
    }

    fn text(&mut self, text: &[u8]) -> Result<bool, String> {
        let written = match &mut self.state {
            State::File(file) => file.write_all(text),
            _ => self.screen.write_all(text).and_then(|()| self.screen.flush()),
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A new file in the folder of another.
fn beside(path: &Path) -> Result<NamedTempFile, String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As readable as any file that is made here.
    let open = Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    open.map_err(|error| format!("{}: {error}", folder.display()))
}

/// Gives it its name.
fn keep(file: NamedTempFile, path: &Path) -> Result<(), String> {
    let kept: Result<File, _> = file.persist(path);
    kept.map(drop).map_err(|error| format!("{}: {}", path.display(), error.error))
}

/// The cells of each row; NULL is `None`.
fn each_row(rows: &RecordBatch, mut take: impl FnMut(Vec<Option<String>>)) -> Result<(), String> {
    let options = FormatOptions::default();
    let formatters: Result<Vec<ArrayFormatter<'_>>, _> =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect();
    let formatters = formatters.map_err(|error| error.to_string())?;
    for row in 0..rows.num_rows() {
        let cell = |(column, formatter): (&arrow::array::ArrayRef, &ArrayFormatter<'_>)| {
            column.is_valid(row).then(|| formatter.value(row).to_string())
        };
        take(rows.columns().iter().zip(&formatters).map(cell).collect());
    }
    Ok(())
}

/// Text without what breaks a line of a table, or a terminal would obey.
fn printable(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}
