//! What the text of a file names: relations in FROM and functions, as they are written; and nothing of what they are.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, ObjectName, ObjectNamePart, Query, Visit, Visitor, visit_expressions, visit_relations,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use crate::plan::sql::dialect::Bound;
use crate::plan::sql::text::SqlText;

/// Names in small letters; a relation that WITH declares is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Streams and views by their names, tags as `tags.spend_30d`.
    pub relations: BTreeSet<String>,
    /// Functions, those of SQL among them.
    pub functions: BTreeSet<String>,
}

/// What a query, or a CREATE FUNCTION, names; nothing where it cannot be parsed.
pub fn mentions(file: &Path, text: &str) -> Mentions {
    let sql = SqlText::new(file, text);
    if let Ok(query) = sql.parse() {
        return of(&query);
    }
    let tokens = Tokenizer::new(&Bound::default(), sql.text()).tokenize().unwrap_or_default();
    of(&Parser::new(&Bound::default()).with_tokens(tokens).parse_statements().unwrap_or_default())
}

fn of<V: Visit>(node: &V) -> Mentions {
    let mut found = Mentions::default();
    let _ = visit_relations(node, |name| {
        found.relations.insert(written(name));
        ControlFlow::<()>::Continue(())
    });
    let _ = visit_expressions(node, |expr| {
        if let Expr::Function(call) = expr {
            found.functions.insert(written(&call.name));
        }
        ControlFlow::<()>::Continue(())
    });
    let mut declared = Declared::default();
    let _ = Visit::visit(node, &mut declared);
    found.relations.retain(|name| !declared.0.contains(name));
    found
}

fn written(name: &ObjectName) -> String {
    let parts = name.0.iter().filter_map(ObjectNamePart::as_ident).map(|part| part.value.to_lowercase());
    parts.collect::<Vec<_>>().join(".")
}

/// What WITH declares anywhere.
#[derive(Default)]
struct Declared(BTreeSet<String>);

impl Visitor for Declared {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes: &[Cte] = query.with.as_ref().map_or(&[], |with| &with.cte_tables);
        self.0.extend(ctes.iter().map(|cte| cte.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> (String, String) {
        let found = mentions(Path::new("a.sql"), sql);
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" ");
        (list(found.relations), list(found.functions))
    }

    #[test]
    fn relations_and_functions_are_named_wherever_they_stand() {
        let sql = "/* tag */ WITH recent AS (SELECT * FROM Orders) SELECT user_id, Band(MAX(x)) FROM recent r \
                   JOIN tags.Spend s USING (user_id) WHERE EXISTS (SELECT 1 FROM views) GROUP BY user_id";
        assert_eq!(names(sql), ("orders tags.spend views".into(), "band max".into()));
        let window = "SELECT user_id, COUNT(*) FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(at), INTERVAL '1' HOUR)) GROUP BY user_id";
        assert_eq!(names(window).0, "orders");
        let function = "CREATE FUNCTION f(x INT) RETURNS INT RETURN other(x) + 1";
        assert_eq!(names(function), (String::new(), "other".into()));
        assert_eq!(names("SELEC"), (String::new(), String::new()));
    }
}
