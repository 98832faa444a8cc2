//! `SELECT *` that brings the columns of a stream or view into a tag's table: a column more in the schema is one more in
//! the table, and fills the tag anew.

use std::collections::BTreeMap;
use std::ops::Range;

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectNamePart, Query, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, TableFactor,
    TableWithJoins,
};

use crate::diagnostic::{Diagnostic, Edit};
use crate::plan::codes;
use crate::plan::sql::stars::is_authors;
use crate::plan::sql::text::SqlText;

/// A warning for each `*` through which columns come into the table that nobody named; `columns` are those of the table.
pub(crate) fn of_output(text: &SqlText<'_>, columns: &[&str]) -> Vec<Diagnostic> {
    // Names are respelt and stars are written out in what is planned: the file itself is looked at.
    let parsed = if text.text().contains('*') { text.parse().ok() } else { None };
    let Some(query) = parsed else { return Vec::new() };
    let mut search = Search { text, found: Vec::new() };
    search.query(&query, &BTreeMap::new());
    let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    // The columns of the table are those of the star where nothing else is selected.
    let is_all = is_one_star(&query) && search.found.len() == 1;
    let found = search.found.into_iter();
    found
        .map(|place| {
            let message = "`*` takes every column that its schema has, also those that are declared later";
            let warning = text.warning(codes::SELECT_STAR, place.clone(), message);
            match is_all {
                true => warning
                    .help(format!("name the columns: `{}`", names.join(", ")))
                    .fix([Edit { span: place, text: names.join(", ") }]),
                false => warning.help("name the columns that the tag is to have"),
            }
        })
        .collect()
}

/// A name as it can be written in a query.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn is_one_star(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select)
        if matches!(select.projection.as_slice(), [SelectItem::Wildcard(star)]
            if star.opt_exclude.is_none() && star.opt_except.is_none() && star.opt_replace.is_none()
                && star.opt_rename.is_none() && star.opt_ilike.is_none()))
}

struct Search<'a> {
    text: &'a SqlText<'a>,
    found: Vec<Range<usize>>,
}

/// What WITH declares, by name in small letters.
type Ctes<'q> = BTreeMap<String, &'q Query>;

impl Search<'_> {
    /// Follows the columns that come out of a query.
    fn query<'q>(&mut self, query: &'q Query, outer: &Ctes<'q>) {
        let mut ctes = outer.clone();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            ctes.insert(cte.alias.name.value.to_lowercase(), &cte.query);
        }
        self.body(&query.body, &ctes);
    }

    fn body<'q>(&mut self, body: &'q SetExpr, ctes: &Ctes<'q>) {
        match body {
            SetExpr::Query(query) => self.query(query, ctes),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, ctes);
                self.body(right, ctes);
            }
            SetExpr::Select(select) => {
                for item in &select.projection {
                    match item {
                        SelectItem::Wildcard(star) if is_authors(self.text, star) => {
                            let place = self.text.span(star.wildcard_token.0.span);
                            self.star(place, &select.from, None, ctes);
                        }
                        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), star) => {
                            let end = self.text.span(star.wildcard_token.0.span).end;
                            let place = self.text.span(name.span()).start..end;
                            let of = name.0.last().and_then(ObjectNamePart::as_ident);
                            self.star(place, &select.from, of, ctes);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// A `*` of all relations, or of one.
    fn star<'q>(&mut self, place: Range<usize>, from: &'q [TableWithJoins], of: Option<&Ident>, ctes: &Ctes<'q>) {
        let relations = from
            .iter()
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
        for relation in relations {
            let (name, alias) = match relation {
                TableFactor::Table { name, alias, .. } => (name.0.last().and_then(ObjectNamePart::as_ident), alias),
                TableFactor::Derived { alias, .. } => (None, alias),
                _ => continue,
            };
            let called = alias.as_ref().map(|alias| &alias.name).or(name);
            let is_meant = |of: &Ident| called.is_some_and(|called| called.value.eq_ignore_ascii_case(&of.value));
            if !of.is_none_or(is_meant) {
                continue;
            }
            let below = match (relation, name) {
                (TableFactor::Derived { subquery, .. }, _) => Some(subquery.as_ref()),
                (_, Some(name)) => ctes.get(&name.value.to_lowercase()).copied(),
                _ => None,
            };
            match below {
                Some(query) => {
                    // A query cannot read itself: those that do are refused.
                    let mut outer = ctes.clone();
                    outer.retain(|_, known| !std::ptr::eq(*known, query));
                    self.query(query, &outer);
                }
                None if !self.found.contains(&place) => self.found.push(place.clone()),
                None => {}
            }
        }
    }
}
