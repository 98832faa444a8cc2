//! Which columns of a stream, view or tag a template means.

use arrow::datatypes::DataType;

use super::templates::Need;
use crate::catalog::MARKS;
use crate::plan::sql::QueryPlanner;
use crate::project::Project;
use crate::tag::{TagDefinition, TagHeader};

/// What a tag can read, as SQL sees it.
pub(super) struct Readable {
    /// How SQL calls it.
    pub(super) name: String,
    pub(super) columns: Vec<ReadColumn>,
    /// The event time that is declared, if any.
    time: Option<String>,
    /// What tells any two rows apart; empty where that takes all of the columns.
    pub(super) ties: Vec<String>,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ReadColumn {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
}

/// What an analyst most likely means by a column of money, and of kinds.
const AMOUNTS: &[&str] =
    &["amount", "money", "paid", "pay", "price", "total", "spend", "revenue", "value", "cost", "fee", "quantity"];
const KINDS: &[&str] =
    &["category", "brand", "type", "kind", "event", "action", "step", "channel", "status", "device", "page", "city"];
/// Words of names that tell one record, and are not to be added up or grouped by.
const IDENTITIES: &[&str] = &["id", "no", "uuid", "key", "name", "title", "note", "comment", "url", "email", "phone"];

impl Readable {
    /// What `name` is to a new tag called `tag`; `None` where nothing sound is called so.
    pub(super) fn find(project: &Project, name: &str, tag: &str, entity: &str) -> Option<Readable> {
        if let Some(stream) = project.catalog.streams.get(name) {
            let schema = stream.schema();
            let fields = schema.fields().iter().filter(|field| !MARKS.contains(&field.name().as_str()));
            let ties = match stream.is_table() {
                true => stream.key.clone(),
                false => vec!["_partition".to_string(), "_offset".to_string()],
            };
            return Some(Readable {
                name: name.to_string(),
                columns: fields.map(|field| ReadColumn::new(field)).collect(),
                time: stream.time.as_ref().map(|time| time.column.clone()),
                ties,
            });
        }
        // Of a view or another tag the planner knows the columns: a tag that reads all of them is planned.
        let text = format!("SELECT * FROM {name}");
        let probe = TagDefinition {
            name: tag.to_string(),
            file: format!("tags/{tag}.sql").into(),
            folder: Vec::new(),
            text,
            entity: entity.to_string(),
            header: TagHeader::default(),
        };
        let mut tags = project.tags.clone();
        tags.insert(tag.to_string(), probe.clone());
        let (config, catalog) = (&project.config, &project.catalog);
        let planner =
            QueryPlanner::new(catalog, &tags, &config.entities, &project.functions, config.timezone, &project.broken)
                .ok()?;
        let planned = planner.plan_query(&probe).ok()?;
        let columns = planned.plan.schema().fields().iter().map(|field| ReadColumn::new(field)).collect();
        Some(Readable { name: name.to_string(), columns, time: None, ties: Vec::new() })
    }

    pub(super) fn column(&self, name: &str) -> Option<&ReadColumn> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The columns that its author declared.
    pub(super) fn declared(&self) -> impl Iterator<Item = &ReadColumn> {
        self.columns.iter().filter(|column| !column.name.starts_with('_'))
    }

    /// The column that most likely serves a need, other than the key.
    pub(super) fn guess(&self, need: Need, key: &str) -> Option<&ReadColumn> {
        let others = || self.declared().filter(|column| column.name != key);
        match need {
            Need::Time => {
                let declared = self.time.as_deref().and_then(|time| self.column(time));
                declared.or_else(|| others().find(|column| column.serves(need))).or_else(|| self.column("_timestamp"))
            }
            Need::Amount | Need::By => {
                let words = if need == Need::Amount { AMOUNTS } else { KINDS };
                let suits = |column: &&ReadColumn| column.serves(need) && !column.has_word(IDENTITIES);
                let place = |column: &ReadColumn| words.iter().position(|word| column.has_word(&[word]));
                // The sort is stable: of equals the first that is declared.
                let mut found: Vec<&ReadColumn> = others().filter(suits).collect();
                found.sort_by_key(|column| (place(column).unwrap_or(words.len()), column.rank()));
                found.first().copied()
            }
        }
    }
}

impl ReadColumn {
    fn new(field: &arrow::datatypes::Field) -> Self {
        ReadColumn { name: field.name().clone(), data_type: field.data_type().clone(), nullable: field.is_nullable() }
    }

    /// True where its type is right for a need.
    pub(super) fn serves(&self, need: Need) -> bool {
        match need {
            Need::Time => matches!(self.data_type, DataType::Timestamp(..)),
            Need::Amount => self.data_type.is_numeric(),
            Need::By => matches!(self.data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8),
        }
    }

    /// Exact numbers before others.
    fn rank(&self) -> u8 {
        match self.data_type {
            DataType::Decimal128(..) => 0,
            DataType::Float32 | DataType::Float64 => 1,
            _ => 2,
        }
    }

    fn has_word(&self, words: &[&str]) -> bool {
        let name = self.name.to_lowercase();
        name.split('_').any(|part| words.contains(&part))
    }
}
