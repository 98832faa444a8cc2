//! Completion, hover, definition and layout at a place of a text.

use std::ops::Range;
use std::path::{Path, PathBuf};

use lsp_types::{
    CompletionItem, CompletionItemKind, Documentation, Hover, HoverContents, Location, MarkupContent, MarkupKind,
    TextEdit,
};

use super::analysis::{Analysis, Relation};
use super::place::{range, uri_of};
use super::scan::{Word, is_name, relations, toml_path, words};
use crate::cli::new::ident;
use crate::plan::sql::format::format;
use crate::project::SETTINGS_FILE;
use crate::sql_header;

/// Words that begin what is not a name.
const KEYWORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "HAVING",
    "ORDER BY",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "AND",
    "OR",
    "NOT",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "AS",
    "WITH",
    "DISTINCT",
    "UNION ALL",
    "INTERVAL",
    "FILTER",
    "OVER",
    "PARTITION BY",
    "IS NOT NULL",
    "BETWEEN",
    "CURRENT_DATE",
];

/// What a place is in.
enum Within {
    /// TOML that begins at a byte.
    Toml(usize),
    /// SQL that begins at a byte.
    Sql(usize),
    /// Nothing that is known.
    Nothing,
}

/// What a word of SQL means.
enum Meant<'a> {
    /// What this very text declares, at a place.
    Here(Range<usize>),
    Relation(&'a str, &'a Relation),
    Column(&'a Relation, usize),
    Function(&'a str),
}

fn within(file: &Path, text: &str, byte: usize) -> Within {
    if file.extension().is_some_and(|extension| extension == "toml") {
        return Within::Toml(0);
    }
    let word = if file.starts_with(crate::catalog::FOLDER) { "view" } else { "tag" };
    match sql_header::cut(file, text, word).map(|parts| parts.toml) {
        Ok(Some(header)) if header.contains(&byte) || header.end == byte => Within::Toml(header.start),
        // Behind the sign that ends the comment.
        Ok(Some(header)) if byte > header.end => Within::Sql(header.end + 2),
        Ok(None) => Within::Sql(0),
        _ => Within::Nothing,
    }
}

/// What may be written at a place.
pub(super) fn completion(analysis: &Analysis, file: &Path, text: &str, byte: usize) -> Vec<CompletionItem> {
    match within(file, text, byte) {
        Within::Toml(from) => toml_items(analysis, file, text, from, byte),
        Within::Sql(from) => sql_items(analysis, text, from.min(byte), byte),
        Within::Nothing => Vec::new(),
    }
}

fn item(label: &str, kind: CompletionItemKind, detail: Option<String>, about: Option<&str>) -> CompletionItem {
    CompletionItem {
        label: label.to_string(),
        kind: Some(kind),
        detail,
        documentation: about.filter(|about| !about.is_empty()).map(|about| Documentation::String(about.to_string())),
        ..CompletionItem::default()
    }
}

fn toml_items(analysis: &Analysis, file: &Path, text: &str, from: usize, at: usize) -> Vec<CompletionItem> {
    let Some(keys) = analysis.keys.of(file) else { return Vec::new() };
    let (path, key) = toml_path(text, from, at);
    let line = text[from..at].rsplit('\n').next().unwrap_or_default();
    if line.trim_start().starts_with('[') {
        return Vec::new();
    }
    let Some(table) = keys.at(&path) else { return Vec::new() };
    let is_value = line.rsplit(['{', ',']).next().is_some_and(|part| part.contains('='));
    if !is_value {
        let of_key =
            |key: &crate::cli::schemas::Key| item(key.name, CompletionItemKind::PROPERTY, None, Some(key.about));
        return table.keys.iter().map(of_key).collect();
    }
    let is_quoted = line.rsplit('=').next().is_some_and(|value| value.trim_start().starts_with('"'));
    let shape = table.keys.iter().find(|known| known.name == key).map(|known| &known.shape);
    let words = shape.map(|shape| shape.words()).unwrap_or_default().into_iter().map(str::to_string);
    let declared = analysis.declared.get(key.as_str()).into_iter().flatten().cloned();
    words
        .chain(declared)
        .map(|word| {
            let is_plain = is_quoted || word == "true" || word == "false";
            let written = if is_plain { word.clone() } else { format!("\"{word}\"") };
            CompletionItem { insert_text: Some(written), ..item(&word, CompletionItemKind::VALUE, None, None) }
        })
        .collect()
}

fn sql_items(analysis: &Analysis, text: &str, from: usize, at: usize) -> Vec<CompletionItem> {
    let start = text[from..at]
        .rfind(|c| !is_name(c))
        .map_or(from, |last| from + last + text[from + last..].chars().next().map_or(1, char::len_utf8));
    let before = words(&text[..start], from);
    let known = relations(&words(text, from));
    let last = before.last();
    if last.is_some_and(|word| word.text == ".") {
        let Some(qualifier) = before.len().checked_sub(2).map(|place| before[place].text.to_lowercase()) else {
            return Vec::new();
        };
        if qualifier == "tags" {
            return analysis
                .relations
                .iter()
                .filter_map(|(name, tag)| relation_item(name.strip_prefix("tags.")?, tag))
                .collect();
        }
        let relation = known.get(&qualifier).and_then(|name| analysis.relations.get(name));
        return relation.into_iter().flat_map(column_items).collect();
    }
    if last.is_some_and(|word| ["from", "join", "table"].iter().any(|before| word.is(before))) {
        let all = analysis.relations.iter().filter_map(|(name, relation)| relation_item(name, relation));
        return all.collect();
    }
    let mut items: Vec<CompletionItem> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (alias, name) in &known {
        if let Some(relation) = analysis.relations.get(name) {
            if seen.insert(name) {
                items.extend(column_items(relation));
            }
            items.push(item(alias, CompletionItemKind::VARIABLE, Some(name.clone()), relation.title.as_deref()));
        }
    }
    items.extend(analysis.functions.iter().map(|(name, function)| CompletionItem {
        insert_text: Some(format!("{name}(")),
        ..item(name, CompletionItemKind::FUNCTION, Some(function.kind.to_string()), Some(&function.about))
    }));
    items.extend(KEYWORDS.iter().map(|word| item(word, CompletionItemKind::KEYWORD, None, None)));
    items
}

fn relation_item(name: &str, relation: &Relation) -> Option<CompletionItem> {
    let about = relation.title.as_deref().or(relation.about.as_deref());
    Some(item(name, CompletionItemKind::CLASS, Some(relation.kind.to_string()), about))
}

fn column_items(relation: &Relation) -> impl Iterator<Item = CompletionItem> {
    relation.columns.iter().map(|column| CompletionItem {
        insert_text: Some(ident(&column.name)),
        ..item(&column.name, CompletionItemKind::FIELD, Some(column.sql_type.clone()), column.about.as_deref())
    })
}

/// The word at a place, and what it means.
fn meant<'a>(analysis: &'a Analysis, text: &str, from: usize, byte: usize) -> Option<(Range<usize>, Meant<'a>)> {
    let all = words(text, from);
    let place = all
        .iter()
        .position(|word| word.bytes.start <= byte && byte <= word.bytes.end && word.text.starts_with(is_name))?;
    let word = &all[place];
    let bytes = word.bytes.clone();
    let name = word.text.to_lowercase();
    let before = |steps: usize| place.checked_sub(steps).map(|place| &all[place]);
    if before(1).is_some_and(|sign| sign.text == ".") {
        let qualifier = before(2)?.text.to_lowercase();
        if qualifier == "tags"
            && let Some((name, relation)) = analysis.relations.get_key_value(&format!("tags.{name}"))
        {
            return Some((bytes, Meant::Relation(name, relation)));
        }
        let known = relations(&all);
        let relation = analysis.relations.get(known.get(&qualifier)?)?;
        return column_of(relation, &name).map(|column| (bytes, Meant::Column(relation, column)));
    }
    if all.get(place + 1).is_some_and(|sign| sign.text == "(")
        && let Some((name, _)) = analysis.functions.get_key_value(&name)
    {
        return Some((bytes, Meant::Function(name)));
    }
    let declares = |at: &usize| {
        all[*at].text.eq_ignore_ascii_case(&name)
            && all.get(at + 1).is_some_and(|word| word.is("as"))
            && all.get(at + 2).is_some_and(|word| word.text == "(")
    };
    if let Some(own) = (0..all.len()).find(declares) {
        return Some((bytes, Meant::Here(all[own].bytes.clone())));
    }
    let names_table =
        before(1).is_some_and(|word: &Word<'_>| ["from", "join", "table", ","].iter().any(|before| word.is(before)));
    if names_table && let Some((name, relation)) = analysis.relations.get_key_value(&name) {
        return Some((bytes, Meant::Relation(name, relation)));
    }
    let known = relations(&all);
    let of_any = known
        .values()
        .filter_map(|name| analysis.relations.get(name))
        .find_map(|relation| column_of(relation, &name).map(|column| Meant::Column(relation, column)));
    let of_alias = || {
        let (name, relation) = analysis.relations.get_key_value(known.get(&name)?)?;
        Some(Meant::Relation(name, relation))
    };
    of_any.or_else(of_alias).map(|meant| (bytes, meant))
}

fn column_of(relation: &Relation, name: &str) -> Option<usize> {
    relation.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
}

/// What is known of what stands at a place.
pub(super) fn hover(analysis: &Analysis, file: &Path, text: &str, byte: usize) -> Option<Hover> {
    let (bytes, told) = match within(file, text, byte) {
        Within::Toml(from) => {
            let line_start = text[..byte].rfind('\n').map_or(0, |newline| newline + 1).max(from);
            let end = text[byte..].find(|c| !is_name(c)).map_or(text.len(), |end| byte + end);
            let start = text[line_start..byte].rfind(|c| !is_name(c)).map_or(line_start, |at| {
                line_start + at + text[line_start + at..].chars().next().map_or(1, char::len_utf8)
            });
            let (path, key) = toml_path(text, from, end);
            let table = analysis.keys.of(file)?.at(&path)?;
            let known = table.keys.iter().find(|known| known.name == key && known.name == &text[start..end])?;
            (start..end, format!("`{}`: {}", known.name, known.about))
        }
        Within::Sql(from) => {
            let (bytes, meant) = meant(analysis, text, from.min(byte), byte)?;
            let told = match meant {
                Meant::Here(_) => return None,
                Meant::Relation(name, relation) => told_of_relation(name, relation),
                Meant::Column(relation, column) => {
                    let column = &relation.columns[column];
                    let about = column.about.as_ref().map(|about| format!("\n\n{about}")).unwrap_or_default();
                    let from = relation.title.as_deref().unwrap_or_default();
                    format!(
                        "`{}` {}{about}\n\n{} in `{}` {from}",
                        column.name,
                        column.sql_type,
                        "column",
                        relation.file.display()
                    )
                }
                Meant::Function(name) => {
                    let function = analysis.functions.get(name)?;
                    let syntax = match function.syntax.as_str() {
                        "" => String::new(),
                        syntax => format!("\n\n```sql\n{syntax}\n```"),
                    };
                    format!("{} `{name}`{syntax}\n\n{}", function.kind, function.about).trim_end().to_string()
                }
            };
            (bytes, told)
        }
        Within::Nothing => return None,
    };
    let contents = HoverContents::Markup(MarkupContent { kind: MarkupKind::Markdown, value: told });
    Some(Hover { contents, range: Some(range(text, bytes)) })
}

fn told_of_relation(name: &str, relation: &Relation) -> String {
    let mut told = format!("{} `{name}`", relation.kind);
    for text in [&relation.title, &relation.about].into_iter().flatten() {
        told.push_str(&format!("\n\n{text}"));
    }
    told.push_str("\n\n| column | type | |\n|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    for column in &relation.columns {
        let about = column.about.as_deref().unwrap_or_default();
        told.push_str(&format!("| {} | {} | {} |\n", cell(&column.name), cell(&column.sql_type), cell(about)));
    }
    told
}

/// Where what stands at a place is declared.
pub(super) fn definition(analysis: &Analysis, root: &Path, file: &Path, text: &str, byte: usize) -> Option<Location> {
    let location = |file: &Path, text: &str, bytes: Range<usize>| {
        Some(Location { uri: uri_of(root, file)?, range: range(text, bytes) })
    };
    match within(file, text, byte) {
        Within::Toml(from) => {
            let (_, key) = toml_path(text, from, byte);
            let all = words(text, from);
            let name = all.iter().find(|word| word.bytes.start <= byte && byte <= word.bytes.end)?.text;
            analysis.declared.get(key.as_str())?.iter().find(|declared| *declared == name)?;
            let settings = analysis.sources.get(Path::new(SETTINGS_FILE))?;
            let table = format!("[{key}.{name}]");
            let at = settings.find(&table)?;
            location(Path::new(SETTINGS_FILE), settings, at..at + table.len())
        }
        Within::Sql(from) => {
            let source = |file: &PathBuf| analysis.sources.get(file).map_or("", String::as_str).to_string();
            match meant(analysis, text, from.min(byte), byte)?.1 {
                Meant::Here(bytes) => location(file, text, bytes),
                Meant::Relation(_, relation) => location(&relation.file, &source(&relation.file), 0..0),
                Meant::Column(relation, column) => {
                    let text = source(&relation.file);
                    let bytes = declaration(&relation.file, &text, &relation.columns[column].name);
                    location(&relation.file, &text, bytes)
                }
                Meant::Function(name) => {
                    let file = analysis.functions.get(name)?.file.as_ref()?;
                    location(file, &source(file), 0..0)
                }
            }
        }
        Within::Nothing => None,
    }
}

/// Where a file first says a column's name: among the columns of a schema, or in the SQL of a tag or view.
fn declaration(file: &Path, text: &str, column: &str) -> Range<usize> {
    let from = match file.extension().is_some_and(|extension| extension == "toml") {
        true => text.find("[columns").unwrap_or(0),
        false => 0,
    };
    let said = words(text, from);
    said.iter().find(|word| word.is(column)).map_or(0..0, |word| word.bytes.clone())
}

/// The whole text laid out as `tagflow fmt` does; nothing where that is so, or cannot be.
pub(super) fn formatting(file: &Path, text: &str) -> Vec<TextEdit> {
    if file.extension().is_none_or(|extension| extension != "sql") {
        return Vec::new();
    }
    match format(file, text) {
        Ok(laid_out) if laid_out != text => vec![TextEdit::new(range(text, 0..text.len()), laid_out)],
        _ => Vec::new(),
    }
}
