//! What `tags/` says: one SQL file a tag, its header and its place in the tree.
//!
//! Enters: text of `tags/**/*.sql` and `_folder.toml`. Leaves: [`TagDefinition`]s, or diagnostics.
//! Never looks inside the SQL: that is `plan`.

mod load;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Levels;

pub(crate) use load::{FOLDER, FOLDER_FILE, NAME_RULE, Tree, is_tag_name, load, place_of_column};

/// One tag as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct TagDefinition {
    /// The file name without `.sql`; unique in the project, and the name of its table.
    pub name: String,
    /// The file, relative to the project's root.
    pub file: PathBuf,
    /// Names of the folders below `tags/`, outermost first.
    pub folder: Vec<String>,
    /// The whole text of the file, header comment included, so that spans are those of the file.
    pub text: String,
    /// The name of the entity in `tagflow.toml` that the tag describes.
    pub entity: String,
    /// What the header says.
    pub header: TagHeader,
}

/// The metadata in a tag's first block comment; every key is optional.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TagHeader {
    /// For people.
    pub title: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Who answers for the tag.
    pub owner: Option<String>,
    /// How the value comes about.
    pub method: Option<Method>,
    /// Where the tag is in its life.
    pub status: Status,
    /// What an expression that fails on a row does.
    pub on_error: OnError,
    /// The most bytes of state that it may have.
    pub state_limit: Option<u64>,
    /// When the rows of its windows are shown.
    pub emission: Emission,
    /// How often values of the whole population may change.
    pub recompute_every: Option<Duration>,
    /// Who reads its table.
    pub readers: Vec<String>,
    /// What becomes of warnings about it.
    pub lints: Levels,
    /// More to say of single columns.
    pub columns: BTreeMap<String, ColumnHeader>,
}

/// How a tag's value comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are the tag platforms' own")]
pub enum Method {
    Stat,
    Rule,
    Mining,
    Manual,
}

/// Where a tag is in its life. A planned tag has no SQL yet and does not run; a draft is checked but does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "said above")]
pub enum Status {
    Planned,
    Draft,
    #[default]
    Live,
    Deprecated,
}

/// What an expression that fails on a row (cast, division, overflow) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The tag is set aside, naming the place.
    #[default]
    Stop,
    /// The row is a dead letter.
    Skip,
    /// The expression is NULL.
    Null,
}

/// When the rows of a tag's windows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emission {
    /// At every change, or once.
    pub emit: Emit,
    /// How much later than the streams' own lateness an event may still come; `None` keeps windows open for good where
    /// they emit on every change, and adds nothing where they emit on close.
    pub allowed_lateness: Option<Duration>,
    /// With [`Emit::OnClose`]: show windows before they close too, as they were at the last full step of this length.
    pub early: Option<Duration>,
}

impl Emission {
    /// True where events may come too late.
    pub fn has_late_events(&self) -> bool {
        self.emit == Emit::OnClose || self.allowed_lateness.is_some()
    }
}

/// When a window's rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Emit {
    /// From its first event on, at every change.
    #[default]
    OnChange,
    /// When the watermark has passed its end.
    OnClose,
}

/// What the header says of one column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnHeader {
    /// For people.
    pub title: Option<String>,
    /// For people: CNY, days …
    pub unit: Option<String>,
    /// What readers take when a user has no row.
    pub default: Option<String>,
    /// Display names of the values; values outside are counted.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl TagDefinition {
    /// True when it has no SQL yet.
    pub fn is_planned(&self) -> bool {
        self.header.status == Status::Planned
    }

    /// True when the daemon keeps a table for it.
    pub fn runs(&self) -> bool {
        matches!(self.header.status, Status::Live | Status::Deprecated)
    }
}

/// One branch of the tag tree: `_folder.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// For people; the folder's name where missing.
    pub title: Option<String>,
    /// Its place among its siblings; smaller comes first.
    pub order: Option<i64>,
    /// Who answers for the branch.
    pub owner: Option<String>,
}
