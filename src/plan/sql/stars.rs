//! `*` as it is meant: without the system columns of streams, which are read by their names.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, ObjectName, SelectItem, SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};

use crate::plan::sql::relations::{Relation, respell};
use crate::plan::sql::text::SqlText;
use crate::plan::sql::using::Merged;

/// True for a `*` that stands in the text. Those of windows that are written out bring all columns.
pub(crate) fn is_authors(text: &SqlText<'_>, star: &WildcardAdditionalOptions) -> bool {
    text.text()[text.span(star.wildcard_token.0.span)].starts_with('*')
}

/// The SELECT list with what each `*` of the author's leaves out; names in it are spelt as they are declared.
pub(crate) fn meant(
    text: &SqlText<'_>,
    items: Vec<SelectItem>,
    relations: &[Relation],
    merged: &[Merged],
) -> Vec<SelectItem> {
    items
        .into_iter()
        .flat_map(|item| match item {
            SelectItem::Wildcard(star) if is_authors(text, &star) => whole(star, relations, merged),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), star)
                if is_authors(text, &star) =>
            {
                let hidden = relations.iter().find(|relation| relation.name.as_deref() == last(&name));
                let star = without(star, hidden.into_iter().flat_map(|relation| &relation.columns.hidden));
                vec![SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), star)]
            }
            other => vec![other],
        })
        .collect()
}

fn last(name: &ObjectName) -> Option<&str> {
    Some(name.0.last()?.as_ident()?.value.as_str())
}

/// What `*` alone stands for.
fn whole(star: WildcardAdditionalOptions, relations: &[Relation], merged: &[Merged]) -> Vec<SelectItem> {
    let hidden: Vec<&String> = relations.iter().flat_map(|relation| &relation.columns.hidden).collect();
    let all = |name: &String| relations.iter().filter(|relation| relation.columns.names.contains(name)).count();
    // A name of several relations cannot be left out of all of them at once.
    if merged.is_empty() && hidden.iter().all(|name| all(name) == 1) {
        return vec![SelectItem::Wildcard(without(star, hidden))];
    }
    if !relations.iter().all(|relation| relation.name.is_some()) {
        return vec![SelectItem::Wildcard(star)];
    }
    let ident = |name: &str| {
        let mut ident = Ident::new(name);
        respell(&mut ident, name);
        ident
    };
    let once = merged.iter().map(|merged| SelectItem::UnnamedExpr(Expr::Identifier(ident(&merged.name))));
    let each = relations.iter().flat_map(|relation| {
        let columns = &relation.columns;
        let taken = merged.iter().map(|merged| &merged.name).filter(|name| columns.names.contains(name));
        let star = without(star.clone(), columns.hidden.iter().chain(taken));
        let name = ObjectName::from(vec![ident(relation.name.as_deref()?)]);
        Some(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), star))
    });
    once.chain(each).collect()
}

/// A `*` that leaves out columns besides what it says itself.
fn without<'a>(
    star: WildcardAdditionalOptions,
    hidden: impl IntoIterator<Item = &'a String>,
) -> WildcardAdditionalOptions {
    let mut left_out = match &star.opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => vec![name.clone()],
        Some(ExcludeSelectItem::Multiple(names)) => names.clone(),
        None => Vec::new(),
    };
    let said: BTreeSet<String> = {
        let excepted = star.opt_except.iter();
        let excepted = excepted.flat_map(|except| except.additional_elements.iter().chain([&except.first_element]));
        let excluded = left_out.iter().filter_map(last);
        excepted.map(|ident| ident.value.clone()).chain(excluded.map(str::to_string)).collect()
    };
    let hidden: BTreeSet<&String> = hidden.into_iter().filter(|name| !said.contains(*name)).collect();
    if hidden.is_empty() {
        return star;
    }
    left_out.extend(hidden.into_iter().map(|name| ObjectName::from(vec![Ident::new(name)])));
    WildcardAdditionalOptions { opt_exclude: Some(ExcludeSelectItem::Multiple(left_out)), ..star }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datafusion::sql::sqlparser::ast::SetExpr;

    use super::*;
    use crate::plan::sql::relations::Columns;

    fn items(sql: &str, relations: &[(&str, &[&str], bool)], using: &[&str]) -> String {
        let relations: Vec<Relation> = relations
            .iter()
            .map(|(name, columns, is_stream)| {
                let mut columns = Columns::known(columns.iter().map(|column| column.to_string()).collect());
                if *is_stream {
                    columns.names.push("_offset".to_string());
                    columns.hidden.insert("_offset".to_string());
                }
                Relation { name: Some(name.to_string()), columns }
            })
            .collect();
        let text = SqlText::new(Path::new("tag.sql"), sql);
        let SetExpr::Select(select) = *text.parse().unwrap().body else { panic!("no select") };
        let merged = using.iter().map(|name| {
            let ident = Ident::new(*name);
            Merged { name: name.to_string(), value: Expr::Identifier(ident) }
        });
        let items = meant(&text, select.projection.clone(), &relations, &merged.collect::<Vec<_>>());
        items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_star_brings_no_system_column() {
        let orders = ("o", &["user_id", "amount"][..], true);
        let users = ("u", &["user_id", "city"][..], true);
        let view = ("v", &["user_id", "_offset"][..], false);
        let cases = [
            ("SELECT * FROM orders AS o", vec![orders], "* EXCLUDE (_offset)"),
            ("SELECT _offset, * FROM orders AS o", vec![orders], "_offset, * EXCLUDE (_offset)"),
            ("SELECT * EXCLUDE (_offset) FROM orders AS o", vec![orders], "* EXCLUDE (_offset)"),
            ("SELECT * EXCLUDE amount FROM orders AS o", vec![orders], "* EXCLUDE (amount, _offset)"),
            ("SELECT * FROM v", vec![view], "*"),
            ("SELECT o.*, city FROM o JOIN u USING (user_id)", vec![orders, users], "o.* EXCLUDE (_offset), city"),
            (
                "SELECT * FROM o LEFT JOIN u USING (user_id)",
                vec![orders, users],
                "user_id, o.* EXCLUDE (_offset, user_id), u.* EXCLUDE (_offset, user_id)",
            ),
            ("SELECT * FROM o JOIN u ON a = b", vec![orders, users], "o.* EXCLUDE (_offset), u.* EXCLUDE (_offset)"),
            ("SELECT * FROM o JOIN v ON a = b", vec![orders, view], "o.* EXCLUDE (_offset), v.*"),
        ];
        for (sql, relations, meant) in cases {
            let using: &[&str] = if sql.contains("USING") { &["user_id"] } else { &[] };
            assert_eq!(items(sql, &relations, using), meant, "{sql}");
        }
    }
}
