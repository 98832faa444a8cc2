//! The SQL front end: the text of a tag or view becomes an optimised logical plan, or diagnostics.
//!
//! The syntax tree gives the places of problems, DataFusion their meaning. All problems of a file are told at once,
//! as far as one does not hide the next.

mod calls;
mod costs;
mod culprit;
mod date_formats;
mod dialect;
mod division;
mod epoch;
mod foreign;
pub mod format;
mod functions;
mod grouped;
mod grouping;
mod instants;
mod lints;
mod located;
mod lookups;
mod macros;
mod mentions;
mod misread;
mod names;
mod null_keys;
mod planning_error;
pub mod probes;
mod quantified;
mod relations;
mod series;
mod similar;
mod stars;
mod text;
mod ties;
mod times;
mod unsupported;
mod using;
mod views;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::{TableProvider, ViewTable};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{SessionContext, SessionState};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;

use self::macros::Macros;
pub use self::mentions::{Mentions, mentions};
use self::names::Tables;
use self::text::SqlText;
use self::views::{Next, Reads};
use crate::catalog::{Catalog, MARKS};
use crate::config::Entity;
use crate::diagnostic::{Diagnostic, Severity};
use crate::plan::casts;
use crate::plan::codes;
use crate::plan::compile::{KeyRequirement, Refusal, compile};
use crate::plan::flow::FlowPlan;
use crate::plan::limits::Limits;
use crate::plan::on_error::{NoRecord, guarded};
use crate::plan::paced::pace_population;
use crate::plan::session::{optimise, session_state};
use crate::plan::watermark::{self, Unclosed};
use crate::plan::wording::{sql_message, sql_text, without_prefix};
use crate::tag::{OnError, Status, TagDefinition, TagHeader};

/// Plans queries over the streams and views of a catalog.
pub struct QueryPlanner {
    state: SessionState,
    tables: Tables,
    macros: Macros,
    catalog: Catalog,
    view_problems: Vec<Diagnostic>,
    runtime: tokio::runtime::Runtime,
    /// Queries are answered once, and do not stream.
    is_batch: bool,
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

/// The schema in which tags are read: `FROM tags.spend_30d`.
pub const TAGS: &str = "tags";
/// What is said of a query that streams, and not of one that is answered once.
const OF_STREAMS: [&str; 4] = [codes::LIMIT, codes::ORDER_BY, codes::DISTINCT_ON, codes::VOLATILE];

/// What another query may read by a name of its own: a view, or a tag.
struct Readable<'a> {
    file: &'a Path,
    text: &'a str,
    /// The key of a tag's entity: rows without it are nobody's.
    key: Option<&'a str>,
    /// What a tag says of its windows and values of the population; a view's are as the tag says that reads it.
    header: Option<&'a TagHeader>,
}

impl QueryPlanner {
    /// For one catalog, the tags that may read each other with the keys of their entities, the project's functions by
    /// file, its zone, and the files of what is `broken`: streams, views and tags (`tags.spend_30d`) that have a name but
    /// cannot be made out.
    pub fn new(
        catalog: &Catalog,
        tags: &BTreeMap<String, TagDefinition>,
        entities: &BTreeMap<String, Entity>,
        functions: &BTreeMap<PathBuf, String>,
        timezone: Tz,
        broken: &BTreeMap<String, PathBuf>,
    ) -> Result<Self, DataFusionError> {
        let views = catalog.views.values().map(|view| {
            let readable = Readable { file: &view.file, text: &view.sql, key: None, header: None };
            (view.name.clone(), readable)
        });
        let tags = tags.values().filter(|tag| tag.header.status != Status::Planned).map(|tag| {
            let key = entities.get(&tag.entity).map(|entity| entity.key.as_str());
            let header = Some(&tag.header);
            (format!("{TAGS}.{}", tag.name), Readable { file: &tag.file, text: &tag.text, key, header })
        });
        let readable: BTreeMap<String, Readable<'_>> = views.chain(tags).collect();
        let columns = |stream: &crate::catalog::Stream| -> Vec<String> {
            let fields = stream.schema();
            let names = fields.fields().iter().map(|field| field.name().clone());
            names.filter(|name| !MARKS.contains(&name.as_str())).collect()
        };
        let streams = catalog.streams.keys().cloned().collect();
        let tables = catalog.streams.iter().filter(|(_, stream)| stream.is_table());
        let keys = tables.map(|(name, stream)| (name.clone(), stream.key.clone())).collect();
        let sound = catalog.streams.iter().map(|(name, stream)| (name.clone(), columns(stream))).collect();
        // A view is sound once it is planned.
        let unplanned = readable.iter().map(|(name, readable)| (name.clone(), readable.file.to_path_buf()));
        let broken = broken.clone().into_iter().chain(unplanned).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let state = session_state(catalog, timezone)?;
        if let Some(catalog) = state.catalog_list().catalog(&state.config().options().catalog.default_catalog) {
            catalog.register_schema(TAGS, Arc::new(MemorySchemaProvider::new()))?;
        }
        let (macros, view_problems) = Macros::new(functions);
        let mut planner = QueryPlanner {
            state,
            tables: Tables { sound, streams, keys, broken },
            macros,
            catalog: catalog.clone(),
            view_problems,
            runtime,
            is_batch: false,
        };
        planner.try_functions();
        let reads = planner.reads(&readable);
        for next in views::in_order(&reads) {
            match next {
                Next::View(name) => planner.add(&name, &readable[&name])?,
                Next::Circle(circle) => {
                    let span = reads[&circle[0]].get(&circle[1 % circle.len()]).cloned();
                    let what = if circle[0].starts_with("tags.") { "tags" } else { "views" };
                    let message = format!("{what} read each other in a circle: {} → {}", circle.join(" → "), circle[0]);
                    let problem = Diagnostic::error(codes::VIEW_CYCLE, readable[&circle[0]].file, span, message);
                    planner.view_problems.push(problem.help("let one of them read a stream"));
                }
            }
        }
        Ok(planner)
    }

    /// Tells what is wrong in the project's functions at their own files.
    fn try_functions(&mut self) {
        if !self.view_problems.is_empty() {
            // What is wrong in one would be told again of those that call it.
            return;
        }
        let mut problems = Vec::new();
        for (file, span, trial) in self.macros.trials() {
            let text = SqlText::new(file, &trial);
            let planned = text.parse().and_then(|mut query| {
                self.macros.inline(&text, &mut query).map_err(|problem| vec![problem])?;
                let unsound = similar::write_out(&text, &mut query);
                if !unsound.is_empty() {
                    return Err(unsound);
                }
                let problem = |message: String| Diagnostic::error(codes::FUNCTION, file, None, message);
                let outcome = self.plan(query).and_then(|plan| optimise(&self.state, plan));
                outcome.map(drop).map_err(|error| {
                    let message = error.find_root().strip_backtrace();
                    vec![problem(of_function(&message))]
                })
            });
            let found = planned.err().unwrap_or_default().into_iter();
            problems.extend(found.map(|problem| Diagnostic { span: Some(span.clone()), ..problem }));
        }
        problems.iter().for_each(|problem| self.macros.set_broken(&problem.file));
        self.view_problems.extend(problems);
    }

    /// What each view, and each tag that is read by anyone, reads of them, as far as its text can be parsed.
    fn reads(&self, readable: &BTreeMap<String, Readable<'_>>) -> Reads {
        let read_by = |of: &Readable<'_>| {
            let text = SqlText::new(of.file, of.text);
            let reads =
                text.parse().map(|mut query| names::resolve(&text, &mut query, &self.tables, &self.state).reads);
            reads.unwrap_or_default().into_iter().filter(|(name, _)| readable.contains_key(name)).collect()
        };
        let mut reads: Reads = readable.iter().map(|(name, of)| (name.clone(), read_by(of))).collect();
        let is_read: BTreeSet<String> = reads.values().flat_map(|reads| reads.keys().cloned()).collect();
        reads.retain(|name, _| readable[name].key.is_none() || is_read.contains(name));
        reads
    }

    /// What this one reads must have been added.
    fn add(&mut self, name: &str, readable: &Readable<'_>) -> Result<(), DataFusionError> {
        match self.plan_file(&SqlText::new(readable.file, readable.text), readable.header) {
            Ok(planned) => {
                let mut plan = planned.plan;
                let key = readable.key.and_then(|key| {
                    plan.schema().columns().into_iter().find(|column| column.name.eq_ignore_ascii_case(key))
                });
                if let Some(key) = key {
                    plan = LogicalPlanBuilder::from(plan).filter(Expr::Column(key).is_not_null())?.build()?;
                }
                let table = ViewTable::new(plan, Some(readable.text.to_string()));
                let columns = table.schema().fields().iter().map(|field| field.name().clone()).collect();
                let context = SessionContext::new_with_state(self.state.clone());
                context.register_table(name, Arc::new(table))?;
                self.state = context.state();
                self.tables.broken.remove(name);
                self.tables.sound.insert(name.to_string(), columns);
                // A tag's own problems are told when it is planned as one.
                if readable.key.is_none() {
                    self.view_problems.extend(planned.warnings);
                }
            }
            Err(problems) if readable.key.is_none() => self.view_problems.extend(problems),
            Err(_) => {}
        }
        Ok(())
    }

    /// The columns of a view, or of a tag that others read.
    pub fn schema_of(&self, relation: &str) -> Option<arrow::datatypes::SchemaRef> {
        let schema = self.state.schema_for_ref(relation).ok()?;
        let name = relation.rsplit('.').next().unwrap_or(relation);
        self.runtime.block_on(schema.table(name)).ok()?.map(|table| table.schema())
    }

    /// What a query names that others declare: streams, views, and tags as `tags.NAME`; nothing where it cannot be parsed.
    pub fn relations_read(&self, file: &Path, text: &str) -> BTreeSet<String> {
        let text = SqlText::new(file, text);
        let reads = text.parse().map(|mut query| names::resolve(&text, &mut query, &self.tables, &self.state).reads);
        reads.unwrap_or_default().into_keys().collect()
    }

    /// The tags that a query reads by their names.
    pub fn tags_read(&self, file: &Path, sql: &str) -> BTreeSet<String> {
        let names = self.relations_read(file, sql).into_iter();
        names.filter_map(|name| Some(name.strip_prefix(TAGS)?.strip_prefix('.')?.to_string())).collect()
    }

    /// Plans queries that are answered once from now on: they have an order and limits of their own, and read these tables
    /// of tags as they are.
    pub fn for_batch(&mut self, tags: BTreeMap<String, Arc<dyn TableProvider>>) -> Result<(), DataFusionError> {
        let limits = Limits.name().to_string();
        let rules = self.state.analyzer().rules.iter().filter(|rule| rule.name() != limits).cloned().collect();
        self.state = SessionStateBuilder::new_from_existing(self.state.clone()).with_analyzer_rules(rules).build();
        let context = SessionContext::new_with_state(self.state.clone());
        for (tag, table) in tags {
            let name = format!("{TAGS}.{tag}");
            let columns = table.schema().fields().iter().map(|field| field.name().clone()).collect();
            context.deregister_table(name.as_str())?;
            context.register_table(name.as_str(), table)?;
            self.tables.broken.remove(&name);
            self.tables.sound.insert(name, columns);
        }
        self.state = context.state();
        self.is_batch = true;
        Ok(())
    }

    /// Queries that count which conditions of a tag rows meet; none where its text cannot be parsed.
    pub fn probes(&self, tag: &TagDefinition) -> Vec<probes::ProbeQuery> {
        let text = SqlText::new(&tag.file, &tag.text);
        let is_aggregate = |name: &str| self.state.aggregate_functions().contains_key(name);
        text.parse().map(|query| probes::of(&text, &query, &is_aggregate)).unwrap_or_default()
    }

    /// Plans a query that is answered once; see [`QueryPlanner::for_batch`].
    pub fn plan_batch(
        &self,
        file: &Path,
        sql: &str,
        header: Option<&TagHeader>,
    ) -> Result<LogicalPlan, Vec<Diagnostic>> {
        Ok(self.plan_file(&SqlText::new(file, sql), header)?.optimised)
    }

    /// Problems of the views themselves, each at its own file.
    pub fn check_views(&self) -> Vec<Diagnostic> {
        self.view_problems.clone()
    }

    /// The session, for batch answers.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Plans the query of a tag.
    pub fn plan_query(&self, tag: &TagDefinition) -> Result<PlannedQuery, Vec<Diagnostic>> {
        let sql = SqlText::new(&tag.file, &tag.text);
        let planned = self.plan_file(&sql, Some(&tag.header))?;
        Ok(PlannedQuery { plan: planned.optimised, warnings: planned.warnings, body: sql.body() })
    }

    fn plan_file(&self, sql: &SqlText<'_>, header: Option<&TagHeader>) -> Result<PlannedFile, Vec<Diagnostic>> {
        let mut query = sql.parse()?;
        self.macros.inline(sql, &mut query).map_err(|problem| vec![problem])?;
        series::write_out(&mut query);
        let mut problems = unsupported::find(sql, &query, &self.state);
        problems.extend(similar::write_out(sql, &mut query));
        quantified::write_out(&mut query, &self.state);
        problems.extend(names::resolve(sql, &mut query, &self.tables, &self.state).problems);
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        // A window in FROM is written out with its column several times.
        problems.dedup();
        let on_error = header.map_or(OnError::Stop, |header| header.on_error);
        if on_error != OnError::Stop {
            problems.retain(|problem| problem.code != codes::ZERO_DIVISOR);
        }
        if self.is_batch {
            problems.retain(|problem| !OF_STREAMS.contains(&problem.code));
        }
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(problems);
        }
        let planned_of = |query: &ast::Query| {
            let plan = self.plan(query.clone())?;
            let headed = match header.map(|header| self.as_headed(plan.clone(), header)).transpose()? {
                None => plan,
                Some(Ok(headed)) => headed,
                Some(Err(unclosed)) => return Ok(Err(cannot_close(sql, &unclosed))),
            };
            let guarded = match guarded(headed.clone(), on_error, &self.state)? {
                Ok(guarded) => guarded,
                Err(no_record) => return Ok(Err(cannot_skip(sql, &no_record))),
            };
            let optimised = watermark::settled(optimise(&self.state, guarded.clone())?, &self.catalog)?;
            let planned = optimised.map(|optimised| (headed, guarded, optimised));
            Ok(planned.map_err(|unclosed| cannot_close(sql, &unclosed)))
        };
        if casts::may_be_misread(&query) {
            casts::tell_apart(&mut query);
        }
        let mut planned = planned_of(&query);
        if planned.as_ref().is_err_and(casts::may_be_cause) {
            let mut told_apart = query.clone();
            casts::tell_apart(&mut told_apart);
            let mended = planned_of(&told_apart);
            if mended.is_ok() {
                (query, planned) = (told_apart, mended);
            }
        }
        let (headed, plan, optimised) = match planned {
            Ok(Ok(planned)) => planned,
            Ok(Err(problem)) => {
                problems.push(problem);
                return Err(problems);
            }
            Err(error) => {
                let place = planning_error::place(sql, &error).or_else(|| self.culprit(sql, &query, &error));
                problems.push(planning_error::diagnostic(sql, &error, place));
                return Err(problems);
            }
        };
        problems.extend(misread::find(sql, &headed));
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(problems);
        }
        let plan_again = |query: ast::Query| self.plan(query).ok();
        problems.extend(division::of_integers(sql, &query, &headed, &plan_again));
        problems.extend(lints::find(sql, &query, &headed, &plan_again));
        problems.extend(epoch::of_wall_time(sql, &headed));
        problems.extend(ties::left_open(sql, &optimised));
        Ok(PlannedFile { plan, optimised, warnings: problems })
    }

    /// A tag's plan with what its header says of windows and of values of the population.
    fn as_headed(
        &self,
        plan: LogicalPlan,
        header: &TagHeader,
    ) -> Result<Result<LogicalPlan, Unclosed>, DataFusionError> {
        let plan = match header.recompute_every {
            Some(every) => pace_population(plan, every, &self.state)?,
            None => plan,
        };
        watermark::emitted(plan, &header.emission, &self.state)
    }

    fn plan(&self, query: ast::Query) -> Result<LogicalPlan, DataFusionError> {
        let statement = Statement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        self.runtime.block_on(self.state.statement_to_plan(statement))
    }

    /// The expression that an error is about.
    fn culprit(&self, sql: &SqlText<'_>, query: &ast::Query, error: &DataFusionError) -> Option<Range<usize>> {
        let root = |error: &DataFusionError| error.find_root().strip_backtrace();
        let message = root(error);
        let as_wrong = |query: ast::Query| {
            let planned = self.plan(query).and_then(|plan| optimise(&self.state, plan));
            planned.is_err_and(|error| root(&error) == message)
        };
        culprit::find(query, as_wrong).map(|expr| sql.expr(&expr))
    }
}

/// What is wrong in a function, which reads nothing but its parameters.
fn of_function(message: &str) -> String {
    let message = without_prefix(message.lines().next().unwrap_or(message));
    if let Some(name) = message.strip_prefix("No field named ") {
        return format!("`{}` is no parameter of the function", name.trim_end_matches('.'));
    }
    if let Some(name) = message.strip_prefix("Invalid function '").and_then(|name| name.split_once('\'')) {
        return format!("there is no function `{}`", name.0);
    }
    sql_message(message.split(": Invalid argument").next().unwrap_or(message))
}

/// What the text of a tag or view becomes.
struct PlannedFile {
    plan: LogicalPlan,
    optimised: LogicalPlan,
    warnings: Vec<Diagnostic>,
}

/// Says why windows cannot be closed.
fn cannot_close(sql: &SqlText<'_>, unclosed: &Unclosed) -> Diagnostic {
    let (message, words, help) = match unclosed {
        Unclosed::NoWindow => (
            "`emit = \"on_close\"` and `allowed_lateness` are about windows, and this query has none in FROM"
                .to_string(),
            "select",
            "write FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR)), or leave them out of the header",
        ),
        Unclosed::NotEventTime(time) => (
            format!("a window over `{time}` cannot be closed: it is not the event time of a stream"),
            "descriptor",
            "name the column of `time` in the stream's schema in DESCRIPTOR(…); a sub-query may rename it, not compute it",
        ),
    };
    let span = sql.find_word(&[words]).unwrap_or_else(|| sql.first_word());
    sql.error(codes::WINDOW_CLOSE, span, message).help(help)
}

/// Says why rows cannot be skipped.
fn cannot_skip(sql: &SqlText<'_>, no_record: &NoRecord) -> Diagnostic {
    let NoRecord(expression) = no_record;
    let expression = sql_text(expression);
    let message = format!(
        "`on_error = \"skip\"` leaves out records, and `{expression}` may fail on what is computed of several or put together"
    );
    let span = sql.find_word(&["on_error"]).unwrap_or_else(|| sql.first_word());
    sql.error(codes::SKIP_PLACE, span, message).help(
        "write `on_error = \"null\"`, or an expression that cannot fail, with NULLIF or TRY_CAST; \
         or compute it in a sub-query that reads nothing but a stream",
    )
}

/// Where a column of a tag is first spoken of.
pub(crate) fn place_of(tag: &TagDefinition, column: &str) -> Range<usize> {
    let sql = SqlText::new(&tag.file, &tag.text);
    sql.find_word(&[column]).unwrap_or_else(|| sql.first_word())
}

/// Plans a tag and compiles it to operators.
pub fn plan_tag(
    planner: &QueryPlanner,
    catalog: &Catalog,
    timezone: Tz,
    tag: &TagDefinition,
    entity: &Entity,
) -> Result<PlannedTagQuery, Vec<Diagnostic>> {
    let planned = planner.plan_query(tag)?;
    let key =
        KeyRequirement { entity: tag.entity.clone(), column: entity.key.clone(), data_type: entity.key_type.clone() };
    match compile(&planned.plan, catalog, timezone, &key) {
        Ok(flow) => {
            let mut warnings = planned.warnings;
            let sql = SqlText::new(&tag.file, &tag.text);
            let of_sets = grouping::nobodys(&sql, &planned.plan, &flow);
            // Of the other keys one warning is enough.
            let key = if of_sets.is_some() { &flow.key[..1] } else { &flow.key };
            warnings.extend(null_keys::left_out(&sql, &planned.plan, key));
            warnings.extend(of_sets);
            warnings.extend(costs::of(&sql, &flow, &tag.header, timezone));
            warnings.extend(instants::as_keys(&sql, &flow, timezone));
            warnings.extend(lints::kept(&sql, &flow));
            let columns: Vec<&str> = flow.key.iter().chain(&flow.columns).map(|column| column.name.as_str()).collect();
            warnings.extend(lints::of_output(&sql, &columns));
            Ok(PlannedTagQuery { logical: planned.plan, flow, warnings })
        }
        Err(Refusal { code, message, help, word }) => {
            let sql = SqlText::new(&tag.file, &tag.text);
            let words: &[&str] = match code {
                codes::CLOCK_STEPS | codes::CLOCK_TYPES | codes::CLOCK_PLACE => {
                    &["now", "current_date", "current_timestamp", "current_time"]
                }
                codes::OTHER_KEY | codes::NO_KEY | codes::KEY_TYPE => &[entity.key.as_str(), "select"],
                _ => &["select"],
            };
            let named = word.and_then(|word| sql.find_word(&[&word]));
            let innermost = sql.text().to_ascii_lowercase().rfind("select").map(|at| at..at + "select".len());
            let span = innermost
                .filter(|_| code == codes::SUBQUERY)
                .or(named)
                .or_else(|| words.iter().find_map(|word| sql.find_word(&[word])))
                .unwrap_or_else(|| sql.first_word());
            let refusal = Diagnostic::error(code, &tag.file, span, message).help(help);
            Err(std::iter::once(refusal).chain(planned.warnings).collect())
        }
    }
}
