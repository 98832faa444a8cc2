//! The SQL front end: the text of a tag or view becomes an optimised logical plan, or diagnostics.
//!
//! The syntax tree gives the places of problems, DataFusion their meaning. All problems of a file are told at once,
//! as far as one does not hide the next.

mod foreign;
mod names;
mod planning_error;
mod text;
mod unsupported;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::{TableProvider, ViewTable};
use datafusion::execution::context::{SessionContext, SessionState};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;

use self::text::SqlText;
use crate::catalog::{Catalog, View};
use crate::config::Entity;
use crate::diagnostic::{Diagnostic, Severity};
use crate::plan::codes;
use crate::plan::compile::{KeyRequirement, Refusal, compile};
use crate::plan::flow::FlowPlan;
use crate::plan::session::{optimise, session_state};
use crate::tag::TagDefinition;

/// Plans queries over the streams and views of a catalog.
pub struct QueryPlanner {
    state: SessionState,
    tables: names::Tables,
    view_problems: Vec<Diagnostic>,
    runtime: tokio::runtime::Runtime,
}

/// A query as DataFusion understands it.
#[derive(Debug, Clone)]
pub struct PlannedQuery {
    /// Optimised; the clock is still in it.
    pub plan: LogicalPlan,
    /// What the author should look at.
    pub warnings: Vec<Diagnostic>,
    /// Where the SQL is in the file.
    pub body: Range<usize>,
}

/// A tag as a whole.
#[derive(Debug, Clone)]
pub struct PlannedTagQuery {
    /// Optimised; the clock is still in it.
    pub logical: LogicalPlan,
    /// The operators.
    pub flow: FlowPlan,
    /// What the author should look at.
    pub warnings: Vec<Diagnostic>,
}

impl QueryPlanner {
    /// For one catalog and the project's zone.
    pub fn new(catalog: &Catalog, timezone: Tz) -> Result<Self, DataFusionError> {
        let columns = |stream: &crate::catalog::Stream| -> Vec<String> {
            stream.schema().fields().iter().map(|field| field.name().clone()).collect()
        };
        let tables = catalog.streams.iter().map(|(name, stream)| (name.clone(), columns(stream))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let state = session_state(catalog, timezone)?;
        let mut planner = QueryPlanner { state, tables, view_problems: Vec::new(), runtime };
        planner.add_views(catalog)?;
        Ok(planner)
    }

    /// Views may read views: each is planned once those that it reads are.
    fn add_views(&mut self, catalog: &Catalog) -> Result<(), DataFusionError> {
        let mut waiting: Vec<&View> = catalog.views.values().map(AsRef::as_ref).collect();
        loop {
            let mut failed: Vec<(&View, Vec<Diagnostic>)> = Vec::new();
            let before = waiting.len();
            for view in std::mem::take(&mut waiting) {
                match self.plan_unoptimised(&view.file, &view.sql) {
                    Ok((plan, _)) => {
                        let table = ViewTable::new(plan, Some(view.sql.clone()));
                        let columns = table.schema().fields().iter().map(|field| field.name().clone()).collect();
                        let context = SessionContext::new_with_state(self.state.clone());
                        context.register_table(view.name.as_str(), Arc::new(table))?;
                        self.state = context.state();
                        self.tables.insert(view.name.clone(), columns);
                    }
                    Err(problems) => failed.push((view, problems)),
                }
            }
            waiting = failed.iter().map(|(view, _)| *view).collect();
            if waiting.is_empty() || waiting.len() == before {
                self.view_problems = view_problems(failed);
                return Ok(());
            }
        }
    }

    /// Problems of the views themselves, each at its own file.
    pub fn check_views(&self) -> Vec<Diagnostic> {
        self.view_problems.clone()
    }

    /// The session, for batch answers.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Plans the query in a file.
    pub fn plan_query(&self, file: &Path, text: &str) -> Result<PlannedQuery, Vec<Diagnostic>> {
        let (plan, mut warnings) = self.plan_unoptimised(file, text)?;
        let sql = SqlText::new(file, text);
        let plan = optimise(&self.state, plan).map_err(|error| vec![planning_error::diagnostic(&sql, &error)])?;
        if divides_integers(&plan) {
            let span = sql.find_word(&["/"]).or_else(|| sql.text().find('/').map(|at| at..at + 1));
            let warning = sql.warning(
                codes::INTEGER_DIVISION,
                span.unwrap_or_else(|| sql.first_word()),
                "an integer divided by an integer gives an integer: 1 / 3 = 0",
            );
            warnings.push(warning.help("if a fraction is meant, CAST one of them AS DOUBLE, or write 100.0 for 100"));
        }
        Ok(PlannedQuery { plan, warnings, body: sql.body() })
    }

    fn plan_unoptimised(&self, file: &Path, text: &str) -> Result<(LogicalPlan, Vec<Diagnostic>), Vec<Diagnostic>> {
        let sql = SqlText::new(file, text);
        let mut query = sql.parse()?;
        let mut problems = names::unknown_names(&sql, &query, &self.tables, &self.state);
        problems.extend(unsupported::find(&sql, &query, &self.state));
        names::normalise(&mut query, &self.tables);
        let (errors, warnings): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| problem.severity == Severity::Error);
        if !errors.is_empty() {
            return Err(errors.into_iter().chain(warnings).collect());
        }
        let statement = Statement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        let plan = self.runtime.block_on(self.state.statement_to_plan(statement));
        match plan {
            Ok(plan) => Ok((plan, warnings)),
            Err(error) => Err(std::iter::once(planning_error::diagnostic(&sql, &error)).chain(warnings).collect()),
        }
    }
}

/// Views that wait for each other are a circle; the others have problems of their own.
fn view_problems(failed: Vec<(&View, Vec<Diagnostic>)>) -> Vec<Diagnostic> {
    let names: Vec<&str> = failed.iter().map(|(view, _)| view.name.as_str()).collect();
    let waits = |problems: &[Diagnostic]| {
        let names_view = |problem: &Diagnostic| {
            problem.code == codes::UNKNOWN_TABLE
                && names.iter().any(|name| problem.message.contains(&format!("`{name}`")))
        };
        !problems.is_empty() && problems.iter().all(names_view)
    };
    let all_wait = failed.iter().all(|(_, problems)| waits(problems));
    failed
        .iter()
        .flat_map(|(view, problems)| match (waits(problems), all_wait) {
            (false, _) => problems.clone(),
            // It reads a view that has problems of its own: those are told there.
            (true, false) => Vec::new(),
            (true, true) => {
                let span = problems.first().and_then(|problem| problem.span.clone());
                let message = format!("views read each other in a circle: {}", names.join(", "));
                vec![
                    Diagnostic::error(codes::VIEW_CYCLE, &view.file, span, message)
                        .help("let one of them read a stream"),
                ]
            }
        })
        .collect()
}

fn divides_integers(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|plan| {
        let mut schema = datafusion::logical_expr::utils::merge_schema(&plan.inputs());
        schema.merge(plan.schema());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) = expr {
                    let integer = |side: &Expr| side.get_type(&schema).is_ok_and(|data_type| data_type.is_integer());
                    found |= integer(left) && integer(right);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found && walked.is_ok()
}

/// Says that rows without a key are left out, where the key may be NULL and no condition looks at it.
fn null_key(plan: &LogicalPlan, tag: &TagDefinition, key: &str) -> Option<Diagnostic> {
    let field = plan.schema().fields().iter().find(|field| field.name().eq_ignore_ascii_case(key))?;
    if !field.is_nullable() {
        return None;
    }
    // The key and the columns that became it under another name.
    let mut names = BTreeSet::from([key.to_lowercase()]);
    let mut looked_at = BTreeSet::new();
    let walked = plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            if let Expr::Alias(alias) = expr
                && alias.name.eq_ignore_ascii_case(key)
            {
                names.extend(alias.expr.column_refs().iter().map(|column| column.name.to_lowercase()));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if let LogicalPlan::Filter(filter) = plan {
            looked_at.extend(filter.predicate.column_refs().iter().map(|column| column.name.to_lowercase()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if !names.is_disjoint(&looked_at) || walked.is_err() {
        return None;
    }
    let sql = SqlText::new(&tag.file, &tag.text);
    let span = sql.find_word(&[key]).unwrap_or_else(|| sql.first_word());
    let message = format!("`{key}` may be NULL; such rows are nobody's tag and are left out");
    Some(
        sql.warning(codes::NULL_KEY, span, message)
            .help(format!("say so with `WHERE {key} IS NOT NULL`, which also saves their state")),
    )
}

/// Plans a tag and compiles it to operators.
pub fn plan_tag(
    planner: &QueryPlanner,
    catalog: &Catalog,
    timezone: Tz,
    tag: &TagDefinition,
    entity: &Entity,
) -> Result<PlannedTagQuery, Vec<Diagnostic>> {
    let planned = planner.plan_query(&tag.file, &tag.text)?;
    let key =
        KeyRequirement { entity: tag.entity.clone(), column: entity.key.clone(), data_type: entity.key_type.clone() };
    match compile(&planned.plan, catalog, timezone, &key) {
        Ok(flow) => {
            let mut warnings = planned.warnings;
            warnings.extend(null_key(&planned.plan, tag, &entity.key));
            Ok(PlannedTagQuery { logical: planned.plan, flow, warnings })
        }
        Err(Refusal { code, message, help }) => {
            let sql = SqlText::new(&tag.file, &tag.text);
            let words: &[&str] = match code {
                "T0520" | "T0521" | "T0522" | "T0523" => &["now", "current_date", "current_timestamp", "current_time"],
                "T0508" => &["row_number"],
                "T0603" | "T0604" | "T0605" => &[entity.key.as_str(), "select"],
                _ => &["select"],
            };
            let span = words.iter().find_map(|word| sql.find_word(&[word])).unwrap_or_else(|| sql.first_word());
            let refusal = Diagnostic::error(code, &tag.file, span, message).help(help);
            Err(std::iter::once(refusal).chain(planned.warnings).collect())
        }
    }
}
