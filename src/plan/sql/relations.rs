//! What a query reads: relations with their columns, by the names that DataFusion gives them.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{Ident, TableAlias};

/// The columns of a relation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Columns {
    pub(crate) names: Vec<String>,
    /// Those among them that `*` does not bring: the system columns of a stream.
    pub(crate) hidden: BTreeSet<String>,
    /// Those of which each row of a table has values of its own; empty where none are known.
    pub(crate) key: Vec<String>,
    /// There may be columns besides, whose names are not known here.
    pub(crate) open: bool,
}

impl Columns {
    /// Of which nothing is known.
    pub(crate) fn unknown() -> Self {
        Columns { open: true, ..Columns::default() }
    }

    pub(crate) fn known(names: Vec<String>) -> Self {
        Columns { names, ..Columns::default() }
    }

    /// Takes what a `*` brings of a relation.
    pub(crate) fn take(&mut self, of: &Columns, with_hidden: bool) {
        self.names.extend(of.names.iter().filter(|name| with_hidden || !of.hidden.contains(*name)).cloned());
        if with_hidden {
            self.hidden.extend(of.hidden.iter().cloned());
        }
        self.open |= of.open;
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Relation {
    /// As columns are qualified by it.
    pub(crate) name: Option<String>,
    pub(crate) columns: Columns,
}

/// The name that DataFusion gives to what is called so.
pub(crate) fn declared(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// Writes an identifier so that DataFusion reads exactly this name.
pub(crate) fn respell(ident: &mut Ident, name: &str) {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    ident.quote_style = (!plain || ident.quote_style.is_some()).then_some('"');
    name.clone_into(&mut ident.value);
}

/// The name among `known` that is meant: written so, or the only one that differs in case alone.
pub(crate) fn find<'a>(ident: &Ident, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let alike: BTreeSet<&str> = known.filter(|known| known.to_lowercase() == ident.value.to_lowercase()).collect();
    let declared = declared(ident);
    [ident.value.as_str(), declared.as_str()]
        .into_iter()
        .find_map(|name| alike.get(name).copied())
        .or_else(|| if alike.len() == 1 { alike.first().copied() } else { None })
}

/// `AS name (first, second)`.
pub(crate) fn renamed(mut columns: Columns, alias: &TableAlias) -> Columns {
    let new = alias.columns.iter().map(|column| declared(&column.name));
    for (at, name) in new.enumerate() {
        match columns.names.get_mut(at) {
            Some(column) if !columns.open => *column = name,
            _ => columns.names.push(name),
        }
    }
    if !alias.columns.is_empty() {
        columns.key.clear();
    }
    columns
}
