//! What can be told of a text that is being typed and that nothing can parse yet: its words, and what they stand for.

use std::collections::BTreeMap;
use std::ops::Range;

/// A word or a sign, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word<'t> {
    pub(super) text: &'t str,
    pub(super) bytes: Range<usize>,
}

impl Word<'_> {
    pub(super) fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }
}

/// Words and signs from a byte on; comments and texts in quotes are passed over, names in quotes are words.
pub(super) fn words(text: &str, from: usize) -> Vec<Word<'_>> {
    let mut found = Vec::new();
    let mut at = from;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            '"' => {
                let inner = rest[1..].find('"').unwrap_or(rest.len() - 1);
                found.push(Word { text: &rest[1..1 + inner], bytes: at..(at + inner + 2).min(text.len()) });
                (inner + 2).min(rest.len())
            }
            c if is_name(c) => {
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                found.push(Word { text: &rest[..length], bytes: at..at + length });
                length
            }
            c if c.is_whitespace() => c.len_utf8(),
            c => {
                found.push(Word { text: &rest[..c.len_utf8()], bytes: at..at + c.len_utf8() });
                c.len_utf8()
            }
        };
        at += length;
    }
    found
}

pub(super) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What the names before a dot stand for in a query: each relation by its own name, and by its alias.
pub(super) fn relations(words: &[Word<'_>]) -> BTreeMap<String, String> {
    const ENDS: &[&str] = &[
        "where",
        "group",
        "order",
        "having",
        "join",
        "left",
        "right",
        "inner",
        "full",
        "cross",
        "on",
        "using",
        "union",
        "limit",
        "select",
        "natural",
        "except",
        "intersect",
        "from",
    ];
    let mut found = BTreeMap::new();
    for (at, word) in words.iter().enumerate() {
        let follows_table = at > 0 && ["from", "join", ",", "table"].iter().any(|before| words[at - 1].is(before));
        if !follows_table || !word.text.starts_with(is_name) {
            continue;
        }
        let mut next = at + 1;
        let mut name = word.text.to_lowercase();
        if words.get(next).is_some_and(|word| word.text == ".")
            && let Some(tag) = words.get(next + 1)
        {
            name = format!("{name}.{}", tag.text.to_lowercase());
            next += 2;
        }
        if words.get(next).is_some_and(|word| word.is("as")) {
            next += 1;
        }
        let alias =
            words.get(next).filter(|word| word.text.starts_with(is_name) && !ENDS.iter().any(|end| word.is(end)));
        if let Some(alias) = alias {
            found.insert(alias.text.to_lowercase(), name.clone());
        }
        let own = name.strip_prefix("tags.").unwrap_or(&name).to_string();
        found.insert(own, name);
    }
    found
}

/// The path of the table that a line of TOML is in, and its key: the table in brackets above it, then dots.
pub(super) fn toml_path(text: &str, from: usize, at: usize) -> (Vec<String>, String) {
    let before = &text[from..at];
    let line = before.rsplit('\n').next().unwrap_or_default();
    let mut lines = before.lines().rev().skip(usize::from(!before.ends_with('\n'))).map(str::trim);
    let header = lines.find(|line| line.starts_with('[') && line.contains(']'));
    let header = header.map(|line| line.trim_matches(['[', ']']).split(']').next().unwrap_or_default());
    let names = |path: &str| -> Vec<String> {
        let parts = path.split('.').map(|part| part.trim().trim_matches(['"', '\'']).to_string());
        parts.filter(|part| !part.is_empty()).collect()
    };
    let mut path = header.map(names).unwrap_or_default();
    // A table in braces is below its key.
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    let mut keys = names(key);
    let mut inner = value;
    while let Some(open) = inner.find('{') {
        path.append(&mut keys);
        let inside = inner[open + 1..].rsplit_once(',').map_or(&inner[open + 1..], |(_, last)| last);
        let (key, rest) = inside.split_once('=').unwrap_or((inside, ""));
        keys = names(key);
        inner = rest;
    }
    let key = keys.pop().unwrap_or_default();
    path.append(&mut keys);
    (path, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_stand_for_their_relations() {
        let text = "SELECT 'from x' FROM orders o JOIN tags.vip AS v ON /* from y */ o.a = v.a, page_views WHERE";
        let found = relations(&words(text, 0));
        let expected = [
            ("o", "orders"),
            ("orders", "orders"),
            ("page_views", "page_views"),
            ("v", "tags.vip"),
            ("vip", "tags.vip"),
        ];
        assert_eq!(found, expected.map(|(name, of)| (name.to_string(), of.to_string())).into());
    }

    #[test]
    fn unfinished_text_ends_somewhere() {
        for text in ["'", "\"", "/*", "--", "a.", "标'", "\"a"] {
            assert!(words(text, 0).len() <= 2, "{text}");
        }
    }

    #[test]
    fn line_of_toml_is_in_the_table_above_it_or_in_its_braces() {
        let path = |text: &str| {
            let (path, key) = toml_path(text, 0, text.len());
            (path.join("."), key)
        };
        assert_eq!(path("timez"), (String::new(), "timez".into()));
        assert_eq!(path("a = 1\n[store]\nu"), ("store".into(), "u".into()));
        assert_eq!(path("[columns]\nb = { type = \"X\", pa"), ("columns.b".into(), "pa".into()));
        assert_eq!(path("time = { column = \"a"), ("time".into(), "column".into()));
        assert_eq!(path("[a.\"b c\"]\nx.y = "), ("a.b c.x".into(), "y".into()));
    }
}
