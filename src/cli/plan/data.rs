//! How the values of a tag change: the query as it is and as it was, answered side by side over the same records.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema};
use futures::StreamExt;
use serde::Serialize;

use super::chart::{Bin, histogram};
use super::old::Old;
use super::plan::{Fate, Plan};
use crate::cli::query::Progress;
use crate::delta::Clock;
use crate::engine::desired::{Desired, PlannedTag, streams};
use crate::engine::query::{Bounds, QueryError, Run, ends_now, plan_rows};
use crate::engine::verify::{Cell, Sample, Share, StoredRows, entity_column, stored_rows, unlike};

/// Bars of a chart.
const BINS: usize = 9;
/// The most frequent changes from one value to another that are told.
const TRANSITIONS: usize = 8;

/// How the values of a tag change.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum DataDiff {
    Known(Difference),
    /// Why that is not known.
    Unknown {
        unknown: String,
    },
}

/// How the rows of two versions differ.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    /// What a row is of: users, or rows of a detail tag.
    pub(super) of: String,
    /// Rows of the old and of the new version that were compared.
    pub(super) rows: (usize, usize),
    /// The part of all that was looked at, as it was asked for.
    pub(super) sample: Option<String>,
    pub(super) same: usize,
    pub(super) changed: usize,
    pub(super) appear: usize,
    pub(super) vanish: usize,
    /// Columns that both versions have, where any value differs.
    pub(super) columns: Vec<ColumnDiff>,
    /// The largest changes, and rows that appear or vanish.
    pub(super) biggest: Vec<RowDiff>,
}

/// How a column differs.
#[derive(Debug, Serialize)]
pub(super) struct ColumnDiff {
    pub(super) name: String,
    /// Rows of both versions with another value.
    pub(super) changed: usize,
    /// By how much numbers change.
    pub(super) distribution: Vec<Bin>,
    /// Other values by what becomes of them, the most frequent first.
    pub(super) transitions: Vec<Transition>,
}

/// So many rows go from one value to another.
#[derive(Debug, Serialize)]
pub(super) struct Transition {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) rows: usize,
}

/// A row that differs.
#[derive(Debug, Serialize)]
pub(super) struct RowDiff {
    pub(super) key: String,
    /// `None` where the whole row appears or vanishes.
    pub(super) column: Option<String>,
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
    pub(super) change: Option<f64>,
}

/// What is compared.
pub(super) struct Options {
    pub(super) sample: Sample,
    /// As it was asked for.
    pub(super) said: Option<String>,
    /// The most rows that are shown.
    pub(super) shown: usize,
}

/// Adds to each filled tag of a plan how its values change.
///
/// # Errors
/// What keeps all of them from being answered.
pub(super) fn add(plan: &mut Plan, old: &Old, new: &Desired, options: &Options) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    // The files as they were read what there is to read now.
    let old_desired = old.files.as_ref().map(|files| {
        let mut desired = files.desired.clone();
        desired.project.config.connections.clone_from(&new.project.config.connections);
        desired.project.config.engine.clone_from(&new.project.config.engine);
        desired
    });
    let clock = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
    for tag in plan.tags.iter_mut().filter(|tag| matches!(tag.fate, Fate::Added | Fate::Changed)) {
        let Some(wanted) = new.tags.get(&tag.tag) else { continue };
        let known = old_desired.as_ref().and_then(|desired| Some((desired, desired.tags.get(&tag.tag)?)));
        let found = if tag.fate == Fate::Changed && known.is_none() {
            Err("the query that runs is not known".to_string())
        } else {
            let versions = Versions { known, wanted, new, clock, folder: folder.path() };
            runtime.block_on(versions.compare(options, tag.rows)).map_err(|error| error.to_string())
        };
        tag.data = Some(found.map_or_else(|unknown| DataDiff::Unknown { unknown }, DataDiff::Known));
    }
    // A broker that does not answer keeps nobody.
    runtime.shutdown_background();
    Ok(())
}

/// Two versions of a tag, or a new one alone.
struct Versions<'a> {
    known: Option<(&'a Desired, &'a PlannedTag)>,
    wanted: &'a PlannedTag,
    new: &'a Desired,
    clock: Clock,
    folder: &'a Path,
}

impl Versions<'_> {
    async fn compare(&self, options: &Options, rows: Option<u64>) -> Result<Difference, QueryError> {
        if let Some((_, known)) = self.known
            && known.table.key != self.wanted.table.key
        {
            return Err(QueryError::Stream {
                stream: self.wanted.definition.name.clone(),
                reason: "its key is another, so that no row stands beside another".to_string(),
            });
        }
        // Both read the same records.
        let own = streams(self.known.iter().map(|(_, known)| &*known.plan).chain([&*self.wanted.plan]));
        let end = ends_now(&self.new.project, own.values(), self.folder)?;
        let share = Share {
            sample: options.sample,
            column: entity_column(self.wanted, self.new),
            rows: rows.unwrap_or_default(),
        };
        let bounds = Bounds { end, ..Bounds::default() };
        let old_rows = match self.known {
            Some((desired, known)) => self.rows(desired, known, &bounds, share).await?,
            None => StoredRows::new(),
        };
        let share = Share { rows: rows.unwrap_or(old_rows.len() as u64), ..share };
        let new_rows = self.rows(self.new, self.wanted, &bounds, share).await?;
        Ok(self.difference(&old_rows, &new_rows, options))
    }

    async fn rows(
        &self,
        desired: &Desired,
        tag: &PlannedTag,
        bounds: &Bounds,
        share: Share,
    ) -> Result<StoredRows, QueryError> {
        let progress = Progress::new();
        let run = Run {
            project: &desired.project,
            bounds: bounds.clone(),
            clock: self.clock,
            limit: None,
            folder: self.folder,
            tell: progress.teller(),
        };
        let mut answer = plan_rows(&desired.project, tag)?.run(&run).await?;
        progress.expect(answer.records);
        let schema = answer.batches.schema();
        let mut batches = Vec::new();
        // A part is taken as the rows come; of a number of keys the whole must be known first.
        let is_part = !matches!(share.sample, Sample::About(_)) || share.rows > 0;
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            batches.push(if is_part { share.of(batch).map_err(arrow_error)? } else { batch });
        }
        progress.clear();
        let whole = concat_batches(&schema, &batches).map_err(arrow_error)?;
        let whole = match is_part {
            true => whole,
            false => Share { rows: whole.num_rows() as u64, ..share }.of(whole).map_err(arrow_error)?,
        };
        let keys = tag.table.key.len();
        stored_rows(keys, &as_stored(tag, whole)?, desired.project.config.timezone).map_err(arrow_error)
    }

    fn difference(&self, old: &StoredRows, new: &StoredRows, options: &Options) -> Difference {
        let names =
            |tag: &PlannedTag| -> Vec<String> { tag.table.columns.iter().map(|column| column.name.clone()).collect() };
        let now = names(self.wanted);
        let then = self.known.map(|(_, known)| names(known)).unwrap_or_default();
        // Columns that both have, by their places in either.
        let shared: Vec<(usize, usize)> = now
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((then.iter().position(|known| known == name)?, at)))
            .collect();
        let only = |rows: &StoredRows, place: &dyn Fn(&(usize, usize)) -> usize| -> StoredRows {
            let row = |(key, cells): (&Vec<String>, &Vec<Cell>)| {
                (key.clone(), shared.iter().map(|pair| cells[place(pair)].clone()).collect())
            };
            rows.iter().map(row).collect()
        };
        let (old, new) = (only(old, &|pair| pair.0), only(new, &|pair| pair.1));
        let mut difference = Difference {
            of: if self.wanted.table.key.len() == 1 {
                format!("{}s", self.wanted.definition.entity)
            } else {
                "rows".into()
            },
            rows: (old.len(), new.len()),
            sample: options.said.clone(),
            same: 0,
            changed: 0,
            appear: 0,
            vanish: 0,
            columns: Vec::new(),
            biggest: Vec::new(),
        };
        let mut columns: Vec<Changes> = shared.iter().map(|_| Changes::default()).collect();
        let mut rows = Vec::new();
        for (key, before, after) in unlike(&old, &new) {
            let (Some(before), Some(after)) = (before, after) else {
                // Of a new tag all rows appear.
                if self.known.is_none() {
                    difference.appear += 1;
                    continue;
                }
                let count = if after.is_some() { &mut difference.appear } else { &mut difference.vanish };
                *count += 1;
                let text = |cells: Option<&Vec<Cell>>| cells.map(|cells| texts(cells));
                rows.push(RowDiff {
                    key: key.join(", "),
                    column: None,
                    old: text(before),
                    new: text(after),
                    change: None,
                });
                continue;
            };
            difference.changed += 1;
            for ((before, after), (changes, (_, at))) in before.iter().zip(after).zip(columns.iter_mut().zip(&shared)) {
                if before.equals(after) {
                    continue;
                }
                let change = number(after).zip(number(before)).map(|(after, before)| after - before);
                let change = change.filter(|_| is_number(&self.wanted.table.columns[*at].data_type));
                changes.add(before, after, change);
                rows.push(RowDiff {
                    key: key.join(", "),
                    column: Some(now[*at].clone()),
                    old: Some(before.to_string()),
                    new: Some(after.to_string()),
                    change,
                });
            }
        }
        difference.same = new.len() - difference.changed - difference.appear;
        let named = columns.into_iter().zip(&shared).filter(|(changes, _)| changes.rows > 0);
        difference.columns = named.map(|(changes, (_, at))| changes.named(&now[*at])).collect();
        let size = |row: &RowDiff| row.change.map_or(-1.0, f64::abs);
        rows.sort_by(|one, other| size(other).total_cmp(&size(one)));
        rows.truncate(options.shown);
        difference.biggest = rows;
        difference
    }
}

/// What happens to one column.
#[derive(Default)]
struct Changes {
    rows: usize,
    by: Vec<f64>,
    from_to: BTreeMap<(String, String), usize>,
}

impl Changes {
    fn add(&mut self, before: &Cell, after: &Cell, change: Option<f64>) {
        self.rows += 1;
        match change {
            Some(change) => self.by.push(change),
            None => *self.from_to.entry((before.to_string(), after.to_string())).or_default() += 1,
        }
    }

    fn named(self, name: &str) -> ColumnDiff {
        let transition = |((from, to), rows)| Transition { from, to, rows };
        let mut transitions: Vec<Transition> = self.from_to.into_iter().map(transition).collect();
        transitions.sort_by_key(|transition| std::cmp::Reverse(transition.rows));
        transitions.truncate(TRANSITIONS);
        ColumnDiff { name: name.to_string(), changed: self.rows, distribution: histogram(self.by, BINS), transitions }
    }
}

fn texts(cells: &[Cell]) -> String {
    cells.iter().map(Cell::to_string).collect::<Vec<_>>().join(", ")
}

fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Null => None,
        Cell::Double(value) => Some(*value),
        Cell::Text(text) => text.parse().ok(),
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn arrow_error(error: arrow::error::ArrowError) -> QueryError {
    QueryError::Batch(error.into())
}

/// Rows of a query in the types of the tag's table.
fn as_stored(tag: &PlannedTag, rows: RecordBatch) -> Result<RecordBatch, QueryError> {
    let types = tag.table.key.iter().chain(&tag.table.columns).map(|column| &column.data_type);
    let columns = rows.columns().iter().zip(types).map(|(column, data_type)| cast(column, data_type));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(arrow_error)?;
    let schema = rows.schema();
    let fields =
        schema.fields().iter().zip(&columns).map(|(field, column)| {
            field.as_ref().clone().with_data_type(column.data_type().clone()).with_nullable(true)
        });
    RecordBatch::try_new(Schema::new(fields.collect::<Vec<_>>()).into(), columns).map_err(arrow_error)
}
