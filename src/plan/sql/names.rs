//! Names: matched whatever their case, and all that are unknown told at once, with the nearest that is known.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, SelectItem, Spanned, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut,
};

use crate::diagnostic::{Diagnostic, nearest};
use crate::plan::codes;
use crate::plan::sql::foreign;
use crate::plan::sql::text::SqlText;

/// Columns of every stream and view, in the catalog's spelling.
pub(crate) type Tables = BTreeMap<String, Vec<String>>;

/// Spells tables and columns as the catalog does.
pub(crate) fn normalise(query: &mut Query, tables: &Tables) {
    let mut spelling = Spelling {
        tables: tables.keys().map(|name| (name.to_lowercase(), name.clone())).collect(),
        columns: tables.values().flatten().map(|name| (name.to_lowercase(), name.clone())).collect(),
    };
    let _ = VisitMut::visit(query, &mut spelling);
}

struct Spelling {
    tables: BTreeMap<String, String>,
    columns: BTreeMap<String, String>,
}

fn respell(ident: &mut Ident, known: &BTreeMap<String, String>) {
    if let Some(name) = known.get(&ident.value.to_lowercase()) {
        ident.quote_style = (*name != name.to_lowercase()).then_some('"');
        ident.value.clone_from(name);
    } else if ident.quote_style == Some('`') {
        ident.quote_style = Some('"');
    }
}

impl VisitorMut for Spelling {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        if let [ObjectNamePart::Identifier(ident)] = relation.0.as_mut_slice() {
            respell(ident, &self.tables);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => respell(ident, &self.columns),
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.last_mut() {
                    respell(last, &self.columns);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// All names that nothing in the file or the catalog can be meant by.
pub(crate) fn unknown_names(
    text: &SqlText<'_>,
    query: &Query,
    tables: &Tables,
    state: &SessionState,
) -> Vec<Diagnostic> {
    let mut scope = Scope::default();
    let _ = Visit::visit(query, &mut scope);
    let tables: Tables = tables.iter().map(|(name, columns)| (name.to_lowercase(), columns.clone())).collect();
    for table in scope.tables.clone() {
        if let Some(columns) = tables.get(&table) {
            scope.columns.extend(columns.iter().cloned());
        }
    }
    let mut check = Check { text, scope, tables, state, found: Vec::new() };
    let _ = Visit::visit(query, &mut check);
    check.found
}

/// Everything that is named anywhere in the query.
#[derive(Default)]
struct Scope {
    tables: BTreeSet<String>,
    ctes: BTreeSet<String>,
    aliases: BTreeSet<String>,
    columns: BTreeSet<String>,
}

impl Visitor for Scope {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.ctes.insert(cte.alias.name.value.to_lowercase());
            self.columns.extend(cte.alias.columns.iter().map(|column| column.name.value.clone()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &datafusion::sql::sqlparser::ast::Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.columns.insert(alias.value.clone());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { name, alias, .. } => {
                self.tables.insert(last(name));
                alias
            }
            TableFactor::Derived { alias, .. } => alias,
            _ => return ControlFlow::Continue(()),
        };
        if let Some(alias) = alias {
            self.aliases.insert(alias.name.value.to_lowercase());
            self.columns.extend(alias.columns.iter().map(|column| column.name.value.clone()));
        }
        ControlFlow::Continue(())
    }
}

fn last(name: &ObjectName) -> String {
    name.0.last().and_then(ObjectNamePart::as_ident).map_or_else(String::new, |ident| ident.value.to_lowercase())
}

struct Check<'a> {
    text: &'a SqlText<'a>,
    scope: Scope,
    /// By name in lower case.
    tables: Tables,
    state: &'a SessionState,
    found: Vec<Diagnostic>,
}

impl Check<'_> {
    fn column(&mut self, ident: &Ident) {
        let name = &ident.value;
        let known = |candidates: &BTreeSet<String>| candidates.iter().any(|known| known.eq_ignore_ascii_case(name));
        if known(&self.scope.columns)
            || known(&self.scope.aliases)
            || known(&self.scope.ctes)
            || known(&self.scope.tables)
        {
            return;
        }
        // Where a table is unknown, its columns are too.
        if self
            .scope
            .tables
            .iter()
            .any(|table| !self.tables.contains_key(table) && !self.scope.ctes.contains(&table.to_lowercase()))
        {
            return;
        }
        let span = self.text.span(ident.span);
        let from: Vec<&str> = self.scope.tables.iter().map(String::as_str).collect();
        let mut diagnostic = self.text.error(
            codes::UNKNOWN_COLUMN,
            span,
            format!(
                "column `{name}` not found in {}",
                if from.is_empty() { "the query".to_string() } else { from.join(", ") }
            ),
        );
        diagnostic.help = match nearest(name, self.scope.columns.iter().map(String::as_str)) {
            _ if ident.quote_style == Some('"') => Some(format!("if it is text, write it in single quotes: '{name}'")),
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => {
                let columns: Vec<&str> = self.scope.columns.iter().map(String::as_str).take(20).collect();
                (!columns.is_empty()).then(|| format!("known here: {}", columns.join(", ")))
            }
        };
        self.found.push(diagnostic);
    }
}

impl Visitor for Check<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args: None, .. } = factor else { return ControlFlow::Continue(()) };
        let table = last(name);
        if self.tables.contains_key(&table) || self.scope.ctes.contains(&table.to_lowercase()) {
            return ControlFlow::Continue(());
        }
        let known = || self.tables.keys().map(String::as_str).chain(self.scope.ctes.iter().map(String::as_str));
        let mut diagnostic = self.text.error(
            codes::UNKNOWN_TABLE,
            self.text.span(name.span()),
            format!("there is no stream or view `{table}`"),
        );
        diagnostic.help = Some(match nearest(&table, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("schemas/ declares: {}", known().collect::<Vec<_>>().join(", ")),
        });
        self.found.push(diagnostic);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.column(ident),
            Expr::CompoundIdentifier(parts) => {
                if let Some(last) = parts.last() {
                    self.column(last);
                }
            }
            Expr::Function(function) => {
                let name = last(&function.name).to_lowercase();
                let known = self.state.scalar_functions().contains_key(&name)
                    || self.state.aggregate_functions().contains_key(&name)
                    || self.state.window_functions().contains_key(&name);
                if !known {
                    let span = self.text.span(function.name.span());
                    let mut diagnostic = self.text.error(
                        codes::UNKNOWN_FUNCTION,
                        span.clone(),
                        format!("there is no function `{name}`"),
                    );
                    match foreign::instead_of(&name, function) {
                        Some(instead) => {
                            diagnostic = self
                                .text
                                .error(codes::FOREIGN, span, format!("`{name}` is not known here"))
                                .help(instead);
                        }
                        None => {
                            let functions =
                                self.state.scalar_functions().keys().chain(self.state.aggregate_functions().keys());
                            diagnostic.help = nearest(&name, functions.map(String::as_str))
                                .map(|near| format!("did you mean `{near}`?"));
                        }
                    }
                    self.found.push(diagnostic);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
