//! What should run: the project's tags, planned, and how they differ from what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

use crate::catalog::Stream;
use crate::diagnostic::codes::{HEADER_COLUMN, STREAMS};
use crate::diagnostic::{Diagnostic, Severity, nearest};
use crate::engine::commits::Commits;
use crate::engine::intake::Reads;
use crate::engine::replays::{self, Replays};
use crate::engine::rollbacks::{self, Rollbacks};
use crate::engine::versions::{Texts, files_of};
use crate::graph::Graph;
use crate::lint;
use crate::plan::codes;
use crate::plan::flow::FlowPlan;
use crate::plan::sql::{PlannedTagQuery, QueryPlanner, place_of, plan_tag};
use crate::plan::wording::sql_message;
use crate::project::Project;
use crate::sink::names::unusable;
use crate::sink::types::{StoreType, Unstorable};
use crate::sink::{ColumnRegistration, SinkColumn, TagRegistration, TagTable, shadow_table};
use crate::tag::{Status, TagDefinition, place_of_column};

/// Expressions are walked recursively, also deep ones.
pub(crate) const PLANNING_STACK: usize = 256 << 20;

/// A tag that runs or should run.
#[derive(Debug, Clone)]
pub struct PlannedTag {
    /// As its author wrote it.
    pub definition: TagDefinition,
    /// What a batch query would compute it by.
    pub logical: LogicalPlan,
    /// What computes it.
    pub plan: Arc<FlowPlan>,
    /// Its table.
    pub table: Arc<TagTable>,
    /// The table in which it is filled.
    pub shadow: Arc<TagTable>,
    /// The most bytes of state that it may have.
    pub state_limit: Option<u64>,
    /// What the registry says of it; version, commit and types are filled in when it is written.
    pub registration: TagRegistration,
}

/// A project whose tags are planned.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The files.
    pub project: Project,
    /// Tags that should run, by name.
    pub tags: BTreeMap<String, PlannedTag>,
    /// How often their streams were replayed.
    pub replays: Replays,
    /// Tags that somebody let go back to a version before, as far as that is in force.
    pub rollbacks: Rollbacks,
    /// What tags are made of that are planned over files of versions before, not over the project's own.
    pub laid_over: BTreeMap<String, Texts>,
    /// Who last touched the files of tags; filled in for a daemon alone.
    pub commits: Commits,
}

impl Desired {
    fn new(project: &Project, replays: Replays) -> Self {
        let (tags, rollbacks, laid_over, commits) = Default::default();
        Desired { project: project.clone(), tags, replays, rollbacks, laid_over, commits }
    }

    /// The files that a tag is made of; `graph` is that of the project's own.
    pub fn files_of(&self, graph: &Graph, tag: &str) -> Texts {
        self.laid_over.get(tag).cloned().unwrap_or_else(|| files_of(&self.project, graph, tag))
    }
}

/// Plans all tags; what is wrong or doubtful comes as diagnostics.
pub fn plan_project(project: &Project) -> (Desired, Vec<Diagnostic>) {
    // A panic in DataFusion is no reason to end the daemon: the project is refused.
    with_planning_stack(|| plan_all(project)).unwrap_or_else(|| {
        let message = "the planner has panicked; the tag or view that was changed last is the likely cause";
        let diagnostic = Diagnostic::error(codes::NOT_STREAMED, "tags", None, message);
        (Desired::new(project, Replays::new()), vec![diagnostic])
    })
}

/// `None` where it panics.
fn with_planning_stack<T: Send>(plan: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let planning = std::thread::Builder::new().name("plan".to_string()).stack_size(PLANNING_STACK);
        planning.spawn_scoped(scope, plan).ok()?.join().ok()
    })
}

/// Plans some tags of a project, those of them that can be planned.
pub fn plan_only(project: &Project, names: &BTreeSet<String>) -> BTreeMap<String, PlannedTag> {
    let plan = || {
        let replays = replays::read(&project.config.engine.state_dir).unwrap_or_default();
        let Ok(planner) = planner(project) else { return BTreeMap::new() };
        let outcomes = plan_tags(&planner, project, |tag| names.contains(&tag.name)).into_iter();
        let sound = outcomes.filter_map(|(definition, outcome)| Some((definition, outcome.ok()?)));
        sound
            .filter(|(definition, query)| definition.runs() && unstorable(definition, &query.flow).is_empty())
            .map(|(definition, query)| {
                let flow = query.flow.replayed(&replays);
                (definition.name.clone(), planned(project, definition, query.logical, flow))
            })
            .collect()
    };
    with_planning_stack(plan).unwrap_or_default()
}

/// What plans queries over a project.
///
/// # Errors
/// When its streams cannot be planned with.
pub fn planner(project: &Project) -> Result<QueryPlanner, DataFusionError> {
    let (entities, functions) = (&project.config.entities, &project.functions);
    let timezone = project.config.timezone;
    QueryPlanner::new(&project.catalog, &project.tags, entities, functions, timezone, &project.broken)
}

fn plan_all(project: &Project) -> (Desired, Vec<Diagnostic>) {
    let mut plans = BTreeMap::new();
    let state_dir = &project.config.engine.state_dir;
    let unreadable = |message: String| {
        let diagnostic = Diagnostic::error(STREAMS, "schemas", None, message);
        (Desired::new(project, Replays::new()), vec![diagnostic])
    };
    let replays = match replays::read(state_dir) {
        Ok(replays) => replays,
        Err(error) => return unreadable(format!("which dead letters were replayed cannot be read: {error}")),
    };
    let rollbacks = match rollbacks::read(state_dir) {
        Ok(rollbacks) => rollbacks,
        Err(error) => return unreadable(format!("which tags were rolled back cannot be read: {error}")),
    };
    let planner = match planner(project) {
        Ok(planner) => planner,
        Err(error) => {
            return unreadable(format!("the streams cannot be planned with: {}", error.strip_backtrace()));
        }
    };
    let mut diagnostics = planner.check_views();
    for (definition, outcome) in plan_tags(&planner, project, |_| true) {
        match outcome {
            Ok(PlannedTagQuery { logical, flow, warnings }) => {
                diagnostics.extend(warnings);
                diagnostics.extend(unstorable(definition, &flow));
                diagnostics.extend(not_there(definition, &flow));
                plans.insert(definition.name.as_str(), (definition, logical, flow));
            }
            Err(errors) => diagnostics.extend(errors),
        }
    }
    let flows = plans.iter().map(|(name, (_, _, flow))| (*name, flow)).collect();
    diagnostics.extend(lint::of_project(project, &flows));
    let diagnostics = project.levelled(diagnostics);
    let wrong: BTreeSet<&Path> = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(|diagnostic| diagnostic.file.as_path())
        .collect();
    let tags = plans
        .into_iter()
        .filter(|(_, (definition, ..))| definition.runs() && !wrong.contains(definition.file.as_path()))
        .map(|(name, (definition, logical, flow))| {
            (name.to_string(), planned(project, definition, logical, flow.replayed(&replays)))
        })
        .collect();
    let mut desired = Desired { tags, ..Desired::new(project, replays) };
    rollbacks::go_back(&mut desired, rollbacks);
    (desired, diagnostics)
}

/// Plans those tags that have a query, on all cores; the outcomes are in the order of the tags.
fn plan_tags<'p>(
    planner: &QueryPlanner,
    project: &'p Project,
    is_wanted: impl Fn(&TagDefinition) -> bool,
) -> Vec<(&'p TagDefinition, Result<PlannedTagQuery, Vec<Diagnostic>>)> {
    let with_query = project.tags.values().filter(|tag| tag.header.status != Status::Planned && is_wanted(tag));
    let wanted: Vec<_> = with_query.filter_map(|tag| Some((tag, project.config.entities.get(&tag.entity)?))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut planned = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((tag, entity)) = wanted.get(number) else { break planned };
            let outcome = plan_tag(planner, &project.catalog, project.config.timezone, tag, entity);
            planned.push((number, (*tag, outcome)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
    let mut planned = std::thread::scope(|scope| {
        let spawn = |_| {
            let thread = std::thread::Builder::new().name("plan".to_string()).stack_size(PLANNING_STACK);
            // A machine that has no room for one more does with those that it has.
            thread.spawn_scoped(scope, work).ok()
        };
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut planned = work();
        for other in others {
            match other.join() {
                Ok(more) => planned.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        planned
    });
    planned.sort_by_key(|(number, _)| *number);
    planned.into_iter().map(|(_, planned)| planned).collect()
}

/// Columns that no store can hold, for their types or their names.
fn unstorable(tag: &TagDefinition, flow: &FlowPlan) -> Vec<Diagnostic> {
    let names = flow.key.iter().chain(&flow.columns).map(|column| column.name.as_str());
    let unnamed = unusable(names).into_iter().map(|(name, problem)| {
        let message = format!("the name of the column `{}` {problem}", name.escape_debug());
        Diagnostic::error(codes::COLUMN_NAME, &tag.file, place_of(tag, name), message)
            .help("give it another name with AS")
    });
    let keys = flow.key.iter().map(|column| (column, StoreType::of_key(&column.data_type)));
    let columns = flow.columns.iter().map(|column| (column, StoreType::of(&column.data_type)));
    keys.chain(columns)
        .filter_map(|(column, kind)| {
            let Unstorable { message, help } = kind.err()?;
            let message = format!("column `{}`: {}", column.name, sql_message(&message));
            let place = place_of(tag, &column.name);
            Some(Diagnostic::error(codes::COLUMN_TYPE, &tag.file, place, message).help(help))
        })
        .chain(unnamed)
        .collect()
}

/// Columns that the header says something of, and that the tag does not have.
fn not_there(tag: &TagDefinition, flow: &FlowPlan) -> Vec<Diagnostic> {
    let names: Vec<&str> = flow.key.iter().chain(&flow.columns).map(|column| column.name.as_str()).collect();
    let unknown = tag.header.columns.keys().filter(|column| !names.contains(&column.as_str()));
    unknown
        .map(|column| {
            let message = format!("the header speaks of a column `{column}`, which the tag does not have");
            let help = match nearest(column, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its columns are: {}", names.join(", ")),
            };
            let place = place_of_column(&tag.file, &tag.text, column);
            Diagnostic::error(HEADER_COLUMN, &tag.file, place, message).help(help)
        })
        .collect()
}

/// True when a project with these diagnostics is accepted.
pub fn is_sound(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error)
}

fn planned(project: &Project, definition: &TagDefinition, logical: LogicalPlan, flow: FlowPlan) -> PlannedTag {
    let columns = |columns: &[crate::plan::flow::OutputColumn]| {
        let column = |column: &crate::plan::flow::OutputColumn| SinkColumn {
            name: column.name.clone(),
            data_type: column.data_type.clone(),
        };
        columns.iter().map(column).collect()
    };
    let table = TagTable { table: definition.name.clone(), key: columns(&flow.key), columns: columns(&flow.columns) };
    let shadow = TagTable { table: shadow_table(&definition.name), ..table.clone() };
    PlannedTag {
        state_limit: definition.header.state_limit.or(project.config.engine.state_limit),
        registration: registration(project, definition, &table),
        definition: definition.clone(),
        logical,
        plan: Arc::new(flow),
        table: Arc::new(table),
        shadow: Arc::new(shadow),
    }
}

fn registration(project: &Project, definition: &TagDefinition, table: &TagTable) -> TagRegistration {
    let header = &definition.header;
    let mut folder_titles = Vec::new();
    for depth in 1..=definition.folder.len() {
        let path = definition.folder[..depth].join("/");
        let title = project.folders.get(&path).and_then(|folder| folder.title.clone());
        folder_titles.push(title.unwrap_or_else(|| definition.folder[depth - 1].clone()));
    }
    let word = |value: Option<serde_json::Value>| value.and_then(|value| Some(value.as_str()?.to_string()));
    let columns =
        table.key.iter().map(|column| (column, true)).chain(table.columns.iter().map(|column| (column, false)));
    let columns = columns
        .map(|(column, is_key)| {
            let said = header.columns.get(&column.name).cloned().unwrap_or_default();
            ColumnRegistration {
                name: column.name.clone(),
                sql_type: column.data_type.to_string(),
                is_key,
                title: said.title,
                unit: said.unit,
                default: said.default,
                labels: said.labels,
            }
        })
        .collect();
    TagRegistration {
        tag: definition.name.clone(),
        folder: definition.folder.join("/"),
        folder_titles,
        entity: definition.entity.clone(),
        version: 1,
        git_commit: None,
        file: definition.file.display().to_string(),
        title: header.title.clone(),
        description: header.description.clone(),
        owner: header.owner.clone(),
        method: word(header.method.and_then(|method| serde_json::to_value(method).ok())),
        status: word(serde_json::to_value(header.status).ok()).unwrap_or_default(),
        sql: definition.text.clone(),
        timezone: project.config.timezone.name().to_string(),
        complete_from: None,
        lost: Vec::new(),
        columns,
    }
}

/// The streams that plans read, with the columns that they need.
pub fn reads<'a>(plans: impl IntoIterator<Item = &'a FlowPlan>) -> Reads {
    let mut reads = Reads::new();
    for plan in plans {
        for (stream, columns) in plan.sources() {
            let known = reads.entry(stream.name.clone()).or_insert_with(|| (Arc::clone(stream), Default::default()));
            known.1.extend(columns);
        }
    }
    reads
}

/// The streams of plans, for telling whether they lay them out alike.
pub fn streams<'a>(plans: impl IntoIterator<Item = &'a FlowPlan>) -> BTreeMap<String, Arc<Stream>> {
    reads(plans).into_iter().map(|(name, (stream, _))| (name, stream)).collect()
}
