//! A schema file as it may be meant: the columns, their types and the event time, with what is unsure of them.
//!
//! Enters: raw records, or what a schema or a database declares. Leaves: a [`Proposal`], and its text.

mod avro;
mod changes;
mod event_time;
mod json;
mod mysql;
mod names;
mod seen;

use super::toml_text;

pub(super) use avro::of_avro;
pub(super) use json::of_records;
pub(super) use mysql::of_table;

/// What is proposed.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Proposal {
    /// What is said above everything.
    pub(super) head: Vec<String>,
    /// Keys of the file with their values in TOML, and what is to be said of them.
    pub(super) settings: Vec<Setting>,
    pub(super) columns: Vec<ProposedColumn>,
}

/// One key of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) remark: Option<String>,
}

/// One column.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct ProposedColumn {
    pub(super) name: String,
    pub(super) sql_type: String,
    /// Where it is in the record, where its name does not say it.
    pub(super) path: Option<String>,
    /// How a time is written.
    pub(super) format: Option<&'static str>,
    /// What its author should know of it.
    pub(super) remark: Option<String>,
    /// The guess may be wrong.
    pub(super) is_unsure: bool,
}

impl Setting {
    pub(super) fn new(key: &'static str, value: String) -> Self {
        Setting { key, value, remark: None }
    }

    pub(super) fn text(key: &'static str, value: &str) -> Self {
        Setting::new(key, toml_text(value))
    }

    pub(super) fn with(self, remark: impl Into<String>) -> Self {
        Setting { remark: Some(remark.into()), ..self }
    }
}

impl Proposal {
    /// How many columns may be wrong.
    pub(super) fn unsure(&self) -> usize {
        self.columns.iter().filter(|column| column.is_unsure).count()
    }

    /// The file.
    pub(super) fn text(&self) -> String {
        let mut text: String = self.head.iter().map(|line| format!("# {line}\n")).collect();
        let width = self.settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
        for Setting { key, value, remark } in &self.settings {
            text.push_str(&line(&format!("{key:<width$} = {value}"), remark.as_deref()));
        }
        text.push_str("\n[columns]\n");
        let keys: Vec<String> = self.columns.iter().map(|column| toml_key(&column.name)).collect();
        let width = keys.iter().map(|key| key.chars().count()).max().unwrap_or(0);
        for (key, column) in keys.iter().zip(&self.columns) {
            let remark = match (&column.remark, column.is_unsure) {
                (Some(remark), true) => Some(format!("unsure: {remark}")),
                (remark, _) => remark.clone(),
            };
            text.push_str(&line(&format!("{key:<width$} = {}", column.value()), remark.as_deref()));
        }
        text
    }
}

/// A line with a remark behind it, which stays one line whatever it quotes.
fn line(said: &str, remark: Option<&str>) -> String {
    match remark {
        Some(remark) => format!("{said}  # {}\n", remark.replace(|c: char| c.is_control(), " ")),
        None => format!("{said}\n"),
    }
}

impl ProposedColumn {
    fn value(&self) -> String {
        if self.path.is_none() && self.format.is_none() {
            return toml_text(&self.sql_type);
        }
        let mut fields = vec![format!("type = {}", toml_text(&self.sql_type))];
        fields.extend(self.path.iter().map(|path| format!("path = {}", toml_text(path))));
        fields.extend(self.format.iter().map(|format| format!("format = {}", toml_text(format))));
        format!("{{ {} }}", fields.join(", "))
    }
}

/// A key as TOML takes it.
fn toml_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { name.to_string() } else { toml_text(name) }
}

/// A list of texts as TOML takes it.
pub(super) fn toml_list(names: &[String]) -> String {
    format!("[{}]", names.iter().map(|name| toml_text(name)).collect::<Vec<_>>().join(", "))
}
