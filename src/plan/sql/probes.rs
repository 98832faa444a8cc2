//! Which conditions of a query rows meet: queries that count, for the branches of CASE and the conditions of WHERE, HAVING
//! and FILTER, how often each is true and how often it is not.
//!
//! Each SELECT is looked at by itself, with what WITH declares before it. A condition is looked at where SQL would: behind an AND
//! only on rows that what stands before it lets pass, a branch only where those before it do not hold. Sub-queries within
//! expressions are part of their condition and not looked into.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Cte, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query,
    Select, SelectItem, SetExpr, TableFactor, Value, Visit, Visitor,
};

use super::text::SqlText;
use crate::plan::watermark::CLOSES;

/// What a condition is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A condition of WHERE, HAVING or FILTER: it should be true of some rows, and not of others.
    Condition(&'static str),
    /// A branch of CASE: some rows should take it.
    Branch(&'static str),
}

/// One condition.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What it is of.
    pub kind: Kind,
    /// Its place in the file.
    pub span: Range<usize>,
    /// What is written there.
    pub text: String,
    /// Boolean SQL: NULL of rows on which it is not looked at.
    sql: String,
}

/// A query with two columns for each of its probes: how many rows it is true of, and how many not.
#[derive(Debug, Clone)]
pub struct ProbeQuery {
    /// The query.
    pub sql: String,
    /// What its columns are about.
    pub probes: Vec<Probe>,
}

/// On which rows of a SELECT an expression is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Those of FROM.
    Read,
    /// Those that WHERE lets pass.
    Kept,
    /// Groups.
    Grouped,
    /// Groups that HAVING lets pass.
    Shown,
}

/// The queries for all of a query; `is_aggregate` tells functions.
pub(crate) fn of(text: &SqlText<'_>, query: &Query, is_aggregate: &dyn Fn(&str) -> bool) -> Vec<ProbeQuery> {
    let mut search = Search { text, is_aggregate, found: Vec::new() };
    search.query(query, &mut Vec::new());
    search.found
}

struct Search<'a> {
    text: &'a SqlText<'a>,
    is_aggregate: &'a dyn Fn(&str) -> bool,
    found: Vec<ProbeQuery>,
}

impl Search<'_> {
    fn query(&mut self, query: &Query, scope: &mut Vec<Cte>) {
        let outer = scope.len();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.query(&cte.query, scope);
            scope.push(cte.clone());
        }
        self.body(&query.body, scope);
        scope.truncate(outer);
    }

    fn body(&mut self, body: &SetExpr, scope: &mut Vec<Cte>) {
        match body {
            SetExpr::Select(select) => self.select(select, scope),
            SetExpr::Query(query) => self.query(query, scope),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, scope);
                self.body(right, scope);
            }
            _ => {}
        }
    }

    fn select(&mut self, select: &Select, scope: &mut Vec<Cte>) {
        for from in &select.from {
            for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
                if let TableFactor::Derived { subquery, .. } = factor {
                    self.query(subquery, scope);
                }
            }
        }
        let shown = select.projection.iter().filter_map(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        let shown: Vec<&Expr> = shown.collect();
        let groups = groups(select, &shown);
        let has_aggregate = |expr: &&Expr| {
            outermost(expr, self.is_aggregate).iter().any(|found| holds_aggregate(found, self.is_aggregate))
        };
        let is_grouped = !groups.is_empty() || select.having.is_some() || shown.iter().any(has_aggregate);
        let mut looking = Looking { text: self.text, is_aggregate: self.is_aggregate, probes: BTreeMap::new() };
        if let Some(condition) = &select.selection {
            looking.conditions(condition, "WHERE", Level::Read, &[]);
        }
        for expr in &groups {
            looking.expr(expr, Level::Kept, &[]);
        }
        if let Some(condition) = &select.having {
            looking.conditions(condition, "HAVING", Level::Grouped, &[]);
        }
        let level = if is_grouped { Level::Shown } else { Level::Kept };
        // What is grouped by was looked at.
        for expr in shown.into_iter().filter(|expr| !groups.contains(expr)) {
            looking.expr(expr, level, &[]);
        }
        for (level, probes) in looking.probes {
            self.found.push(ProbeQuery { sql: sql_of(select, &groups, level, &probes, scope), probes });
        }
    }
}

/// Finds the conditions of one SELECT.
struct Looking<'a> {
    text: &'a SqlText<'a>,
    is_aggregate: &'a dyn Fn(&str) -> bool,
    probes: BTreeMap<Level, Vec<Probe>>,
}

impl Looking<'_> {
    /// Conditions that all have to hold, each looked at where those before it do.
    fn conditions(&mut self, condition: &Expr, word: &'static str, level: Level, guards: &[String]) {
        let mut guards = guards.to_vec();
        for condition in conjuncts(condition) {
            self.add(Kind::Condition(word), condition, &condition.to_string(), level, &guards);
            self.expr(condition, level, &guards);
            guards.push(format!("({condition})"));
        }
    }

    /// What stands within an expression.
    fn expr(&mut self, expr: &Expr, level: Level, guards: &[String]) {
        for found in outermost(expr, self.is_aggregate) {
            match &found {
                Expr::Case { operand, conditions, else_result, .. } => {
                    let mut guards = guards.to_vec();
                    for CaseWhen { condition, result } in conditions {
                        let test = match operand {
                            Some(operand) => format!("({operand}) = ({condition})"),
                            None => condition.to_string(),
                        };
                        self.add(Kind::Branch("WHEN"), condition, &test, level, &guards);
                        self.expr(condition, level, &guards);
                        let taken: Vec<String> = guards.iter().cloned().chain([format!("({test})")]).collect();
                        self.expr(result, level, &taken);
                        guards.push(format!("({test}) IS NOT TRUE"));
                    }
                    if let Some(result) = else_result {
                        self.add(Kind::Branch("ELSE"), result, "TRUE", level, &guards);
                        self.expr(result, level, &guards);
                    }
                }
                Expr::Function(function) => {
                    // It is of rows, wherever its result is used.
                    let mut guards = Vec::new();
                    if let Some(filter) = &function.filter {
                        self.conditions(filter, "FILTER", Level::Kept, &[]);
                        guards.push(format!("({filter})"));
                    }
                    for argument in arguments(function) {
                        self.expr(argument, Level::Kept, &guards);
                    }
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, kind: Kind, place: &Expr, test: &str, level: Level, guards: &[String]) {
        if !self.is_written(place) {
            return;
        }
        let sql = match guards {
            [] => format!("({test}) IS TRUE"),
            _ => format!("CASE WHEN {} THEN ({test}) IS TRUE END", guards.join(" AND ")),
        };
        self.probes.entry(level).or_default().push(Probe {
            kind,
            span: self.text.expr(place),
            text: place.to_string(),
            sql,
        });
    }

    /// False of what windows in FROM are written out with.
    fn is_written(&self, condition: &Expr) -> bool {
        if condition.to_string().contains(CLOSES) {
            return false;
        }
        let Expr::IsNotNull(_) = condition else { return true };
        let words = self.text.text().get(self.text.expr(condition).end..).unwrap_or_default().split_whitespace();
        words.zip(["is", "not", "null"]).all(|(found, word)| found.to_lowercase().starts_with(word))
    }
}

/// The parts of an AND.
fn conjuncts(condition: &Expr) -> Vec<&Expr> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left).into_iter().chain(conjuncts(right)).collect()
        }
        Expr::Nested(inner) if matches!(inner.as_ref(), Expr::BinaryOp { op: BinaryOperator::And, .. }) => {
            conjuncts(inner)
        }
        other => vec![other],
    }
}

/// The expressions of GROUP BY; a number means one of the SELECT list.
fn groups<'a>(select: &'a Select, shown: &[&'a Expr]) -> Vec<&'a Expr> {
    let GroupByExpr::Expressions(expressions, _) = &select.group_by else { return Vec::new() };
    let named = |expr: &'a Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => {
                let place = number.parse::<usize>().ok().and_then(|place| place.checked_sub(1));
                place.and_then(|place| shown.get(place).copied()).unwrap_or(expr)
            }
            _ => expr,
        },
        _ => expr,
    };
    expressions.iter().map(named).collect()
}

fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let exprs = list.args.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => Some(expr),
        _ => None,
    });
    exprs.collect()
}

/// The CASEs and aggregates in an expression that are in no other one, nor in a sub-query.
fn outermost(expr: &Expr, is_aggregate: &dyn Fn(&str) -> bool) -> Vec<Expr> {
    struct Finder<'a> {
        is_aggregate: &'a dyn Fn(&str) -> bool,
        depth: usize,
        found: Vec<Expr>,
    }
    impl Finder<'_> {
        fn is_meant(&self, expr: &Expr) -> bool {
            matches!(expr, Expr::Case { .. }) || is_aggregate_call(expr, self.is_aggregate)
        }
    }
    impl Visitor for Finder<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if self.is_meant(expr) {
                if self.depth == 0 {
                    self.found.push(expr.clone());
                }
                self.depth += 1;
            }
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if self.is_meant(expr) {
                self.depth -= 1;
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder { is_aggregate, depth: 0, found: Vec::new() };
    let _ = Visit::visit(expr, &mut finder);
    finder.found
}

fn is_aggregate_call(expr: &Expr, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    matches!(expr, Expr::Function(function)
        if function.over.is_none() && is_aggregate(&function.name.to_string().to_lowercase()))
}

/// True of an aggregate, and of a CASE with one in it.
fn holds_aggregate(expr: &Expr, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    let Expr::Case { operand, conditions, else_result, .. } = expr else {
        return is_aggregate_call(expr, is_aggregate);
    };
    let branches = conditions.iter().flat_map(|when| [&when.condition, &when.result]);
    let mut parts = branches.chain(operand.as_deref()).chain(else_result.as_deref());
    parts.any(|part| outermost(part, is_aggregate).iter().any(|found| holds_aggregate(found, is_aggregate)))
}

/// Counts each probe over the rows of one level of a SELECT.
fn sql_of(select: &Select, groups: &[&Expr], level: Level, probes: &[Probe], scope: &[Cte]) -> String {
    let list = |texts: Vec<String>| texts.join(", ");
    let mut sql = String::new();
    if !scope.is_empty() {
        sql.push_str(&format!("WITH {} ", list(scope.iter().map(Cte::to_string).collect())));
    }
    let count = |index: usize| format!("COUNT(*) FILTER (WHERE p{index}), COUNT(*) FILTER (WHERE NOT p{index})");
    let columns = probes.iter().enumerate().map(|(index, probe)| format!("{} AS p{index}", probe.sql));
    let from = select.from.iter().map(|from| from.to_string()).collect();
    sql.push_str(&format!(
        "SELECT {} FROM (SELECT {} FROM {}",
        list((0..probes.len()).map(count).collect()),
        list(columns.collect()),
        list(from)
    ));
    if let Some(condition) = select.selection.as_ref().filter(|_| level >= Level::Kept) {
        sql.push_str(&format!(" WHERE {condition}"));
    }
    if level >= Level::Grouped && !groups.is_empty() {
        sql.push_str(&format!(" GROUP BY {}", list(groups.iter().map(|expr| expr.to_string()).collect())));
    }
    if let Some(condition) = select.having.as_ref().filter(|_| level >= Level::Shown) {
        sql.push_str(&format!(" HAVING {condition}"));
    }
    sql.push_str(") AS probes");
    sql
}
