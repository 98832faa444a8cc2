//! Names: matched whatever their case and spelt as the catalog spells them; all that are unknown told at once.
//!
//! A walk over the syntax tree with the scopes of SQL: FROM, WITH, sub-queries, aliases. What it cannot know (the name
//! that DataFusion gives to `count(*)`) it lets pass: DataFusion looks at every name once more.

mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Ident, JoinOperator, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAliasColumnDef, TableFactor, VisitMut, VisitorMut,
    WildcardAdditionalOptions, visit_expressions,
};

use crate::diagnostic::{Diagnostic, Edit, nearest};
use crate::plan::codes;
use crate::plan::sql::relations::{Columns, Relation, declared, find, renamed, respell};
use crate::plan::sql::text::{SqlText, WITHOUT_VARIABLES};
use crate::plan::sql::using::{self, Merged};
use crate::plan::sql::{foreign, functions, grouped, lookups, stars};

/// What a query may read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// Streams and views with their columns, in the catalog's spelling.
    pub(crate) sound: BTreeMap<String, Vec<String>>,
    /// The streams among them.
    pub(crate) streams: BTreeSet<String>,
    /// The keys of those that are tables.
    pub(crate) keys: BTreeMap<String, Vec<String>>,
    /// Streams, views and tags that cannot be read, with their files.
    pub(crate) broken: BTreeMap<String, PathBuf>,
}

/// What was found in a query.
pub(crate) struct Resolved {
    /// Names that nothing can be meant by.
    pub(crate) problems: Vec<Diagnostic>,
    /// Streams and views that are read, each with its first place.
    pub(crate) reads: BTreeMap<String, std::ops::Range<usize>>,
}

/// Spells all names of the query as they are declared, and tells those that are not.
pub(crate) fn resolve(text: &SqlText<'_>, query: &mut Query, tables: &Tables, state: &SessionState) -> Resolved {
    let resolved = Resolved { problems: Vec::new(), reads: BTreeMap::new() };
    let (ctes, outer, merged) = (Vec::new(), Vec::new(), Vec::new());
    let mut resolver = Resolver { text, tables, state, ctes, outer, merged, single: None, is_tied: false, resolved };
    resolver.query(query);
    resolver.resolved
}

struct Resolver<'a> {
    text: &'a SqlText<'a>,
    tables: &'a Tables,
    state: &'a SessionState,
    /// Those that can be seen, innermost last.
    ctes: Vec<Relation>,
    /// What the queries around a sub-query in an expression read, innermost last.
    outer: Vec<Vec<Relation>>,
    /// The columns of USING in the queries that are being read, innermost last.
    merged: Vec<Vec<Merged>>,
    /// Of the query that was read last: whether it gives one row for what is around it. None where its rows are not rows
    /// that it reads.
    single: Option<bool>,
    /// The sub-query that is being read names a column of the query around it.
    is_tied: bool,
    resolved: Resolved,
}

impl Resolver<'_> {
    fn query(&mut self, query: &mut Query) -> Columns {
        let outer = self.ctes.len();
        for cte in query.with.iter_mut().flat_map(|with| {
            // A recursive one is refused; that it reads itself is not another problem.
            let recursive = with.recursive;
            with.cte_tables.iter_mut().map(move |cte| (cte, recursive))
        }) {
            let (cte, recursive) = cte;
            let name = Some(declared(&cte.alias.name));
            if recursive {
                let columns = Columns::unknown();
                self.ctes.push(Relation { name: name.clone(), columns });
            }
            let columns = renamed(self.query(&mut cte.query), &cte.alias);
            self.ctes.push(Relation { name, columns });
        }
        let columns = self.body(&mut query.body);
        self.ctes.truncate(outer);
        columns
    }

    fn body(&mut self, body: &mut SetExpr) -> Columns {
        let mut body = body;
        let mut is_set = false;
        // The first query names the columns; a long chain of UNION ALL is as deep on its left as it is long.
        let mut columns = loop {
            match body {
                SetExpr::Select(select) => break self.select(select),
                SetExpr::Query(query) => break self.query(query),
                SetExpr::SetOperation { left, right, .. } => {
                    self.body(right);
                    is_set = true;
                    body = left;
                }
                SetExpr::Values(values) => {
                    let width = values.rows.first().map_or(0, |row| row.content.len());
                    break Columns::known((1..=width).map(|number| format!("column{number}")).collect());
                }
                _ => break Columns::unknown(),
            }
        };
        if is_set {
            columns.key.clear();
            self.single = None;
        }
        columns
    }

    fn select(&mut self, select: &mut Select) -> Columns {
        let mut relations = Vec::new();
        self.merged.push(Vec::new());
        for from in &mut select.from {
            relations.extend(self.factor(&mut from.relation, &relations));
            for join in &mut from.joins {
                let right = self.factor(&mut join.relation, &relations);
                self.join(&mut join.join_operator, &relations, &right);
                relations.extend(right);
                self.names(&mut join.join_operator, &relations, &[]);
            }
        }
        let mut output = Columns::default();
        let merged = self.merged.last().cloned().unwrap_or_default();
        let with_merged = |item: SelectItem| using::item(item, &merged);
        let mut items: Vec<SelectItem> = std::mem::take(&mut select.projection).into_iter().map(with_merged).collect();
        for item in &mut items {
            self.item(item, &relations, &mut output);
        }
        let items = stars::meant(self.text, items, &relations, &merged);
        select.projection = items.into_iter().map(with_merged).collect();
        let aliases: Vec<String> = (select.projection.iter())
            .filter_map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => Some(declared(alias)),
                _ => None,
            })
            .collect();
        self.names(&mut select.selection, &relations, &[]);
        if let GroupByExpr::Expressions(expressions, _) = &mut select.group_by {
            self.names(expressions, &relations, &aliases);
        }
        self.names(&mut select.having, &relations, &aliases);
        self.names(&mut select.qualify, &relations, &aliases);
        self.names(&mut select.named_window, &relations, &[]);
        if let Some(Distinct::On(expressions)) = &mut select.distinct {
            self.names(expressions, &relations, &aliases);
        }
        self.merged.pop();
        grouped::with_told(select, &relations, self.state);
        let keeps_rows = keeps_rows(select, self.state);
        if let [relation] = relations.as_slice()
            && keeps_rows
            && relation.columns.key.iter().all(|column| carries(&select.projection, column))
        {
            output.key.clone_from(&relation.columns.key);
        }
        self.single = keeps_rows.then(|| lookups::gives_one_row(select, &relations));
        output
    }

    /// Writes out USING and NATURAL.
    fn join(&mut self, operator: &mut JoinOperator, left: &[Relation], right: &[Relation]) {
        let Some(merged) = self.merged.last_mut() else { return };
        let is_written_out = using::written_out(operator, left, right, merged).is_some();
        if !is_written_out && using::is_natural(operator) {
            let span = self.text.find_word(&["natural"]).unwrap_or_else(|| self.text.first_word());
            let message =
                "NATURAL JOIN ties by all names that both sides have, and here that are none, or not known which";
            let problem = self.text.error(codes::JOIN, span, message);
            self.resolved.problems.push(problem.help("say by which: JOIN … USING (user_id)"));
        }
    }

    fn names<T: VisitMut>(&mut self, part: &mut T, relations: &[Relation], aliases: &[String]) {
        let mut names = Names { resolver: self, relations, aliases, unit: None, nested: 0 };
        let _ = VisitMut::visit(part, &mut names);
    }

    fn item(&mut self, item: &mut SelectItem, relations: &[Relation], output: &mut Columns) {
        match item {
            SelectItem::Wildcard(options) => {
                let with_hidden = !stars::is_authors(self.text, options);
                relations.iter().for_each(|relation| output.take(&relation.columns, with_hidden));
                output.open |= changes_names(options);
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let found = match name.0.as_mut_slice() {
                    [ObjectNamePart::Identifier(ident)] => self.qualifier(ident, relations),
                    _ => None,
                };
                match found {
                    Some(relation) => output.take(&relation.columns, !stars::is_authors(self.text, options)),
                    None => output.open = true,
                }
                output.open |= changes_names(options);
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                self.names(expr, relations, &[]);
                output.names.push(declared(alias));
            }
            SelectItem::UnnamedExpr(expr) => {
                self.names(expr, relations, &[]);
                let mut named = &*expr;
                while let Expr::Nested(inner) = named {
                    named = inner;
                }
                match named {
                    Expr::Identifier(ident) => output.names.push(declared(ident)),
                    Expr::CompoundIdentifier(parts) => output.names.extend(parts.last().map(declared)),
                    _ => output.open = true,
                }
            }
            other => {
                self.names(other, relations, &[]);
                output.open = true;
            }
        }
    }

    /// What a part of FROM gives; `before` is what stands before it, which UNNEST reads.
    fn factor(&mut self, factor: &mut TableFactor, before: &[Relation]) -> Vec<Relation> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let (declared_name, columns) = self.table(name);
                let name = alias.as_ref().map(|alias| declared(&alias.name)).or(declared_name);
                let columns = match alias {
                    Some(alias) => renamed(columns, alias),
                    None => columns,
                };
                vec![Relation { name, columns }]
            }
            TableFactor::Derived { subquery, alias, lateral, .. } => {
                let columns = if *lateral { self.subquery(subquery, before) } else { self.query(subquery) };
                vec![match alias {
                    Some(alias) => Relation { name: Some(declared(&alias.name)), columns: renamed(columns, alias) },
                    None => Relation { name: None, columns },
                }]
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                let mut relations = self.factor(&mut table_with_joins.relation, before);
                for join in &mut table_with_joins.joins {
                    let right = self.factor(&mut join.relation, &relations);
                    self.join(&mut join.join_operator, &relations, &right);
                    relations.extend(right);
                    self.names(&mut join.join_operator, &relations, &[]);
                }
                relations
            }
            TableFactor::UNNEST { array_exprs, alias, .. } => {
                self.names(array_exprs, before, &[]);
                if let (Some(alias), [_]) = (alias.as_mut(), array_exprs.as_slice())
                    && alias.columns.is_empty()
                {
                    // One name for the table and its only column: `UNNEST(items) AS item`.
                    alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
                }
                let Some(alias) = alias else {
                    return vec![Relation { name: None, columns: Columns::unknown() }];
                };
                let names: Vec<String> = alias.columns.iter().map(|column| declared(&column.name)).collect();
                let open = names.len() < array_exprs.len();
                let columns = Columns { open, ..Columns::known(names) };
                vec![Relation { name: Some(declared(&alias.name)), columns }]
            }
            // Refused elsewhere; what it gives is not known.
            _ => vec![Relation { name: None, columns: Columns::unknown() }],
        }
    }

    /// The relation that a column is said to be of.
    fn qualifier<'r>(&mut self, ident: &mut Ident, relations: &'r [Relation]) -> Option<&'r Relation> {
        let found = find(ident, relations.iter().filter_map(|relation| relation.name.as_deref()))?;
        respell(ident, found);
        relations.iter().find(|relation| relation.name.as_deref() == Some(found))
    }

    /// A sub-query in an expression sees what the query around it reads.
    fn subquery(&mut self, query: &mut Query, relations: &[Relation]) -> Columns {
        self.is_tied = false;
        self.outer.push(relations.to_vec());
        let columns = self.query(query);
        self.outer.pop();
        columns
    }

    /// What the queries around read, innermost first.
    fn surrounding(&self) -> impl Iterator<Item = &Relation> {
        self.outer.iter().rev().flatten()
    }

    fn column(&mut self, ident: &mut Ident, relations: &[Relation], aliases: &[String]) {
        let names = || relations.iter().flat_map(|relation| relation.columns.names.iter().map(String::as_str));
        let found = find(ident, names()).or_else(|| find(ident, aliases.iter().map(String::as_str)));
        if let Some(found) = found {
            respell(ident, found);
            return;
        }
        let around = self.surrounding().flat_map(|relation| relation.columns.names.iter().map(String::as_str));
        if let Some(found) = find(ident, around) {
            let found = found.to_string();
            respell(ident, &found);
            self.is_tied = true;
            return;
        }
        if self.surrounding().any(|relation| relation.columns.open) {
            return;
        }
        let differ_in_case = names().any(|name| name.to_lowercase() == ident.value.to_lowercase());
        // A name with a bracket is one that DataFusion has made: `count(*)`.
        if relations.iter().any(|relation| relation.columns.open) || ident.value.contains('(') || differ_in_case {
            return;
        }
        let known: Vec<&str> = names().chain(aliases.iter().map(String::as_str)).collect();
        let wanted = ident.clone();
        self.unknown_column(&wanted, &known, relations, false);
    }

    fn qualified_column(&mut self, parts: &mut [Ident], relations: &[Relation]) {
        let [first, second, rest @ ..] = parts else { return };
        let is_outer = find(first, relations.iter().filter_map(|relation| relation.name.as_deref())).is_none();
        let surrounding: Vec<Relation> = if is_outer { self.surrounding().cloned().collect() } else { Vec::new() };
        if find(first, surrounding.iter().filter_map(|relation| relation.name.as_deref())).is_some() {
            self.is_tied = true;
            let outer = std::mem::take(&mut self.outer);
            self.qualified_column(parts, &surrounding);
            self.outer = outer;
            return;
        }
        let Some(relation) = self.qualifier(first, relations) else {
            let columns = relations.iter().flat_map(|relation| relation.columns.names.iter().map(String::as_str));
            // A field of a STRUCT column.
            if let Some(found) = find(first, columns) {
                respell(first, found);
            } else if rest.is_empty() && relations.iter().all(|relation| relation.name.is_some()) {
                self.unknown_qualifier(first, second, relations);
            }
            return;
        };
        if let Some(found) = find(second, relation.columns.names.iter().map(String::as_str)) {
            respell(second, found);
        } else if !relation.columns.open {
            let known: Vec<&str> = relation.columns.names.iter().map(String::as_str).collect();
            let wanted = second.clone();
            self.unknown_column(&wanted, &known, std::slice::from_ref(relation), true);
        }
    }

    fn unknown_qualifier(&mut self, qualifier: &Ident, column: &Ident, relations: &[Relation]) {
        let names: Vec<&str> = relations.iter().filter_map(|relation| relation.name.as_deref()).collect();
        let message = format!("there is no table `{}` in this FROM", qualifier.value);
        let help = match (nearest(&qualifier.value, names.iter().copied()), names.as_slice()) {
            (Some(near), _) => format!("write `{near}.{}`", column.value),
            (None, [only]) => format!("write `{only}.{}`", column.value),
            (None, _) => format!("there is: {}", names.join(", ")),
        };
        let span = self.text.span(qualifier.span);
        self.resolved.problems.push(self.text.error(codes::UNKNOWN_TABLE, span, message).help(help));
    }

    fn unknown_column(&mut self, ident: &Ident, known: &[&str], relations: &[Relation], qualified: bool) {
        let name = &ident.value;
        let span = self.text.span(ident.span);
        let places: Vec<&str> =
            relations.iter().map(|relation| relation.name.as_deref().unwrap_or("the sub-query")).collect();
        let place = if places.is_empty() { "the query".to_string() } else { places.join(", ") };
        if name.starts_with('@') {
            let message = format!("`{name}` is a variable, and a tag has none");
            self.resolved.problems.push(self.text.error(codes::PLACEHOLDER, span, message).help(WITHOUT_VARIABLES));
            return;
        }
        let text = format!("if it is text, write it in single quotes: '{name}'");
        let help = match nearest(name, known.iter().copied()) {
            // "Paid" in double quotes is a name in SQL, whatever MySQL and Hive say.
            _ if ident.quote_style == Some('"') => text,
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let own: Vec<&str> = known.iter().copied().filter(|name| !name.starts_with('_')).take(20).collect();
                let text = if qualified { String::new() } else { format!("; {text}") };
                format!("there is: {}{text}", own.join(", "))
            }
        };
        let message = format!("column `{name}` not found in {place}");
        // With no column of such a name nothing else can be meant by it.
        let is_text = ident.quote_style == Some('"') && !qualified && nearest(name, known.iter().copied()).is_none();
        let quoted = Edit { span: span.clone(), text: format!("'{}'", name.replace('\'', "''")) };
        let problem = self.text.error(codes::UNKNOWN_COLUMN, span, message).help(help);
        self.resolved.problems.push(problem.fix(is_text.then_some(quoted)));
    }
}

/// `EXCEPT (…)`, `RENAME (…)` and the like behind a star.
fn changes_names(options: &WildcardAdditionalOptions) -> bool {
    options.opt_exclude.is_some()
        || options.opt_except.is_some()
        || options.opt_rename.is_some()
        || options.opt_ilike.is_some()
        || options.opt_alias.is_some()
}

/// True for a name behind that of a table whose only column has the table's name, and not this one.
fn is_of_element(parts: &[Ident], relations: &[Relation]) -> bool {
    let [table, column] = parts else { return false };
    let names = relations.iter().filter_map(|relation| relation.name.as_deref());
    let Some(name) = find(table, names) else { return false };
    relations.iter().any(|relation| {
        let is_it = relation.name.as_deref() == Some(name) && !relation.columns.open;
        is_it && relation.columns.names == [name] && find(column, [name].into_iter()).is_none()
    })
}

/// True where the rows of a query are rows that it reads, each at most once.
fn keeps_rows(select: &Select, state: &SessionState) -> bool {
    let is_grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let others = visit_expressions(&select.projection, |expr| match expr {
        Expr::Function(function) if grouped::is_aggregate(function, state) => ControlFlow::Break(()),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("unnest") => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    !is_grouped && select.having.is_none() && others.is_continue()
}

/// True where a SELECT list has a column under its own name.
fn carries(items: &[SelectItem], column: &str) -> bool {
    items.iter().any(|item| match item {
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => declared(ident) == column,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().is_some_and(|last| declared(last) == column)
        }
        _ => false,
    })
}

/// The names in the expressions of one SELECT. Sub-queries inside expressions have names of their own.
struct Names<'r, 'a> {
    resolver: &'r mut Resolver<'a>,
    relations: &'r [Relation],
    /// Of the SELECT list, where they can be meant.
    aliases: &'r [String],
    /// A unit of time that comes next, which is no column.
    unit: Option<Ident>,
    nested: usize,
}

impl VisitorMut for Names<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if self.nested == 0 {
            self.resolver.subquery(query, self.relations);
        }
        self.nested += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.nested -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let (Expr::Subquery(query), 0) = (expr, self.nested)
            && let Some(is_single) = self.resolver.single.take()
        {
            lookups::write_out(query, is_single, self.resolver.is_tied);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let (Expr::Identifier(ident), 0, Some(merged)) = (&*expr, self.nested, self.resolver.merged.last())
            && let Some(meant) = using::meant(ident, merged)
        {
            *expr = meant;
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Identifier(ident) if self.nested == 0 && self.unit.as_ref() == Some(ident) => self.unit = None,
            Expr::Identifier(ident) if self.nested == 0 => self.resolver.column(ident, self.relations, self.aliases),
            Expr::CompoundIdentifier(parts) if self.nested == 0 => {
                // A field of an element that is a STRUCT: `item.sku`.
                if is_of_element(parts, self.relations) {
                    parts.insert(1, parts[0].clone());
                }
                self.resolver.qualified_column(parts, self.relations);
            }
            Expr::Function(function) if self.nested == 0 => {
                self.unit = foreign::unit(function).cloned().or(self.unit.take());
                let problem = functions::unknown(self.resolver.text, function, self.resolver.state);
                self.resolver.resolved.problems.extend(problem);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
