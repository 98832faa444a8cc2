//! Names of tables: streams, views, tags and what WITH declares.

use std::path::Path;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Spanned};

use super::Resolver;
use crate::catalog::SYSTEM_COLUMNS;
use crate::diagnostic::nearest;
use crate::plan::codes;
use crate::plan::sql::relations::{Columns, find, respell};

impl Resolver<'_> {
    /// The name and the columns of a table in FROM.
    pub(super) fn table(&mut self, name: &mut ObjectName) -> (Option<String>, Columns) {
        let unknown = Columns::unknown();
        let span = self.text.span(name.span());
        let ident = match name.0.as_mut_slice() {
            [ObjectNamePart::Identifier(ident)] => ident,
            [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(tag)]
                if schema.value.eq_ignore_ascii_case("tags") =>
            {
                respell(schema, "tags");
                return self.tag(tag, span);
            }
            _ => {
                self.qualified_table(name, span);
                return (None, unknown);
            }
        };
        // The innermost of that name.
        for cte in self.ctes.iter().rev() {
            if let Some(found) = find(ident, cte.name.as_deref().into_iter()) {
                respell(ident, found);
                return (Some(found.to_string()), cte.columns.clone());
            }
        }
        if let Some(found) = find(ident, self.tables.sound.keys().map(String::as_str)) {
            respell(ident, found);
            self.resolved.reads.entry(found.to_string()).or_insert(span);
            let mut columns = Columns::known(self.tables.sound[found].clone());
            if self.tables.streams.contains(found) {
                let is_system = |name: &&String| SYSTEM_COLUMNS.contains(&name.as_str());
                columns.hidden = columns.names.iter().filter(is_system).cloned().collect();
                columns.key = self.tables.keys.get(found).cloned().unwrap_or_default();
            }
            return (Some(found.to_string()), columns);
        }
        if let Some(found) = find(ident, self.tables.broken.keys().map(String::as_str)) {
            self.resolved.reads.entry(found.to_string()).or_insert_with(|| span.clone());
            self.broken(&format!("`{found}`"), &self.tables.broken[found], span);
            return (Some(found.to_string()), unknown);
        }
        let written = ident.value.clone();
        let message = format!("there is no stream or view `{written}`");
        let tag = format!("tags.{}", written.to_lowercase());
        let help = match nearest(&written, self.known_tables()) {
            _ if self.tables.sound.contains_key(&tag) || self.tables.broken.contains_key(&tag) => {
                format!("a tag is read as `{tag}`")
            }
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("schemas/ declares: {}", self.known_tables().collect::<Vec<_>>().join(", ")),
        };
        self.resolved.problems.push(self.text.error(codes::UNKNOWN_TABLE, span, message).help(help));
        (Some(written.to_lowercase()), unknown)
    }

    /// A tag that is read as a table, `tags.spend_30d`.
    fn tag(&mut self, ident: &mut Ident, span: std::ops::Range<usize>) -> (Option<String>, Columns) {
        let (sound, broken) = (&self.tables.sound, &self.tables.broken);
        let tags = || sound.keys().chain(broken.keys()).filter_map(|name| name.strip_prefix("tags."));
        let Some(found) = find(ident, tags()).map(str::to_string) else {
            let message = format!("there is no tag `{}`", ident.value);
            let error = self.text.error(codes::UNKNOWN_TABLE, span, message);
            let help = match nearest(&ident.value, tags()) {
                Some(near) => format!("did you mean `tags.{near}`?"),
                None => "a tag is named by its file below tags/, without .sql".to_string(),
            };
            self.resolved.problems.push(error.help(help));
            return (Some(ident.value.to_lowercase()), Columns::unknown());
        };
        respell(ident, &found);
        let name = format!("tags.{found}");
        self.resolved.reads.entry(name.clone()).or_insert_with(|| span.clone());
        if let Some(columns) = self.tables.sound.get(&name) {
            return (Some(found), Columns::known(columns.clone()));
        }
        self.broken(&format!("tag `{found}`"), &self.tables.broken[&name], span);
        (Some(found), Columns::unknown())
    }

    fn broken(&mut self, what: &str, file: &Path, span: std::ops::Range<usize>) {
        let message = format!("{what} cannot be read: its own file has errors");
        let problem = self.text.error(codes::BROKEN_VIEW, span, message).follows(file);
        self.resolved.problems.push(problem.help(format!("mend {}", file.display())));
    }

    /// Streams have no database before their name.
    fn qualified_table(&mut self, name: &ObjectName, span: std::ops::Range<usize>) {
        let last = name.0.last().and_then(ObjectNamePart::as_ident).map_or_else(String::new, |last| last.value.clone());
        let help = match nearest(&last, self.known_tables()) {
            Some(near) => format!("streams and views have no database before their name: write `{near}`"),
            None => format!("schemas/ declares: {}", self.known_tables().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("there is no stream or view `{name}`");
        self.resolved.problems.push(self.text.error(codes::UNKNOWN_TABLE, span, message).help(help));
    }

    fn known_tables(&self) -> impl Iterator<Item = &str> {
        let ctes = self.ctes.iter().filter_map(|cte| cte.name.as_deref());
        let streams_and_views = self.tables.sound.keys().map(String::as_str).filter(|name| !name.starts_with("tags."));
        ctes.chain(streams_and_views)
    }
}
