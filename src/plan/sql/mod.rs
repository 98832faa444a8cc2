//! The SQL front end: the text of a tag or view becomes an optimised logical plan, or diagnostics.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::common::DataFusionError;
use datafusion::datasource::ViewTable;
use datafusion::execution::context::{SessionContext, SessionState};
use datafusion::logical_expr::LogicalPlan;

use crate::catalog::{Catalog, View};
use crate::config::Entity;
use crate::diagnostic::Diagnostic;
use crate::plan::compile::{KeyRequirement, Refusal, compile};
use crate::plan::flow::FlowPlan;
use crate::plan::session::{optimise, session_state};
use crate::tag::TagDefinition;

/// Plans queries over the streams and views of a catalog.
pub struct QueryPlanner {
    state: SessionState,
    view_problems: Vec<Diagnostic>,
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
        let mut planner = QueryPlanner { state: session_state(catalog, timezone)?, view_problems: Vec::new() };
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
                    Ok(plan) => {
                        let table = ViewTable::new(plan, Some(view.sql.clone()));
                        let context = SessionContext::new_with_state(self.state.clone());
                        context.register_table(view.name.as_str(), Arc::new(table))?;
                        self.state = context.state();
                    }
                    Err(problems) => failed.push((view, problems)),
                }
            }
            waiting = failed.iter().map(|(view, _)| *view).collect();
            if waiting.is_empty() || waiting.len() == before {
                self.view_problems = failed.into_iter().flat_map(|(_, problems)| problems).collect();
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
        let body = body(text);
        let planned = self.plan_unoptimised(file, text)?;
        let planned = optimise(&self.state, planned);
        match planned {
            Ok(plan) => Ok(PlannedQuery { plan, warnings: Vec::new(), body }),
            Err(error) => Err(vec![Diagnostic::error("T0400", file, body, error.strip_backtrace())]),
        }
    }

    fn plan_unoptimised(&self, file: &Path, text: &str) -> Result<LogicalPlan, Vec<Diagnostic>> {
        let body = body(text);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let planned = runtime
            .map_err(DataFusionError::IoError)
            .and_then(|runtime| runtime.block_on(self.state.create_logical_plan(&text[body.clone()])));
        planned.map_err(|error| vec![Diagnostic::error("T0400", file, body, error.strip_backtrace())])
    }
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
        Ok(flow) => Ok(PlannedTagQuery { logical: planned.plan, flow, warnings: planned.warnings }),
        Err(Refusal { code, message, help }) => {
            Err(vec![Diagnostic::error(code, &tag.file, planned.body, message).help(help)])
        }
    }
}

/// The text behind the header comment.
fn body(text: &str) -> Range<usize> {
    let start = match text.trim_start().starts_with("/*").then(|| text.find("*/")).flatten() {
        Some(end) => end + 2,
        None => 0,
    };
    let trimmed = text[start..].trim_end().trim_end_matches(';');
    start..start + trimmed.len()
}
