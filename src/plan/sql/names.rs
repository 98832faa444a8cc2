//! Names: matched whatever their case and spelt as the catalog spells them; all that are unknown told at once.
//!
//! A walk over the syntax tree with the scopes of SQL: FROM, WITH, sub-queries, aliases. What it cannot know (the name
//! that DataFusion gives to `count(*)`) it lets pass: DataFusion looks at every name once more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, Spanned, TableFactor, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use crate::catalog::SYSTEM_COLUMNS;
use crate::diagnostic::{Diagnostic, nearest};
use crate::plan::codes;
use crate::plan::sql::relations::{Columns, Relation, declared, find, renamed, respell};
use crate::plan::sql::text::{SqlText, WITHOUT_VARIABLES};
use crate::plan::sql::{foreign, functions, stars};

/// What a query may read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// Streams and views with their columns, in the catalog's spelling.
    pub(crate) sound: BTreeMap<String, Vec<String>>,
    /// The streams among them.
    pub(crate) streams: BTreeSet<String>,
    /// Views that cannot be read, with their files.
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
    let mut resolver = Resolver { text, tables, state, ctes: Vec::new(), outer: Vec::new(), resolved };
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
        // The first query names the columns; a long chain of UNION ALL is as deep on its left as it is long.
        loop {
            match body {
                SetExpr::Select(select) => return self.select(select),
                SetExpr::Query(query) => return self.query(query),
                SetExpr::SetOperation { left, right, .. } => {
                    self.body(right);
                    body = left;
                }
                _ => return Columns::unknown(),
            }
        }
    }

    fn select(&mut self, select: &mut Select) -> Columns {
        let mut relations = Vec::new();
        for from in &mut select.from {
            relations.extend(self.factor(&mut from.relation, &relations));
            for join in &mut from.joins {
                relations.extend(self.factor(&mut join.relation, &relations));
                self.names(&mut join.join_operator, &relations, &[]);
            }
        }
        let mut output = Columns::default();
        for item in &mut select.projection {
            self.item(item, &relations, &mut output);
        }
        let items = std::mem::take(&mut select.projection);
        select.projection = stars::meant(self.text, items, &relations, &select.from);
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
        output
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
            TableFactor::Derived { subquery, alias, .. } => {
                let columns = self.query(subquery);
                vec![match alias {
                    Some(alias) => Relation { name: Some(declared(&alias.name)), columns: renamed(columns, alias) },
                    None => Relation { name: None, columns },
                }]
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                let mut relations = self.factor(&mut table_with_joins.relation, before);
                for join in &mut table_with_joins.joins {
                    relations.extend(self.factor(&mut join.relation, &relations));
                    self.names(&mut join.join_operator, &relations, &[]);
                }
                relations
            }
            TableFactor::UNNEST { array_exprs, alias, .. } => {
                self.names(array_exprs, before, &[]);
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

    /// The name and the columns of a table in FROM.
    fn table(&mut self, name: &mut ObjectName) -> (Option<String>, Columns) {
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
            }
            return (Some(found.to_string()), columns);
        }
        if let Some(found) = find(ident, self.tables.broken.keys().map(String::as_str)) {
            self.resolved.reads.entry(found.to_string()).or_insert_with(|| span.clone());
            let message = format!("view `{found}` cannot be read: its own file has errors");
            let help = format!("mend {}", self.tables.broken[found].display());
            self.resolved.problems.push(self.text.error(codes::BROKEN_VIEW, span, message).help(help));
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
        let message = format!("tag `{found}` cannot be read: its own file has errors");
        let help = format!("mend {}", self.tables.broken[&name].display());
        self.resolved.problems.push(self.text.error(codes::BROKEN_VIEW, span, message).help(help));
        (Some(found), Columns::unknown())
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

    /// The relation that a column is said to be of.
    fn qualifier<'r>(&mut self, ident: &mut Ident, relations: &'r [Relation]) -> Option<&'r Relation> {
        let found = find(ident, relations.iter().filter_map(|relation| relation.name.as_deref()))?;
        respell(ident, found);
        relations.iter().find(|relation| relation.name.as_deref() == Some(found))
    }

    /// A sub-query in an expression sees what the query around it reads.
    fn subquery(&mut self, query: &mut Query, relations: &[Relation]) {
        self.outer.push(relations.to_vec());
        self.query(query);
        self.outer.pop();
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
        self.resolved.problems.push(self.text.error(codes::UNKNOWN_COLUMN, span, message).help(help));
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

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) if self.nested == 0 && self.unit.as_ref() == Some(ident) => self.unit = None,
            Expr::Identifier(ident) if self.nested == 0 => self.resolver.column(ident, self.relations, self.aliases),
            Expr::CompoundIdentifier(parts) if self.nested == 0 => {
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
