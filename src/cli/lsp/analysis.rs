//! What is known of the project, as of the texts that were planned last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::datatypes::DataType;
use datafusion::logical_expr::Documentation;

use crate::catalog::{MARKS, SYSTEM_COLUMNS};
use crate::cli::schemas::Keys;
use crate::cli::variable_or_stand_in;
use crate::diagnostic::{Diagnostic, hold_back};
use crate::engine::desired::{Desired, plan_project};
use crate::plan::sql::QueryPlanner;
use crate::plan::wording::sql_type;
use crate::project::{self, Project};
use crate::tag::TagDefinition;
use crate::tag_test::Suite;

/// The project and its problems.
#[derive(Default)]
pub(super) struct Analysis {
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) sources: BTreeMap<PathBuf, String>,
    /// Streams, views, and tags as `tags.NAME`.
    pub(super) relations: BTreeMap<String, Relation>,
    /// Functions of SQL and of the project, by name.
    pub(super) functions: BTreeMap<String, Function>,
    /// Names that the settings declare, by the key that takes them: connections, entities.
    pub(super) declared: BTreeMap<&'static str, Vec<String>>,
    pub(super) keys: Keys,
}

/// What a query can read.
pub(super) struct Relation {
    pub(super) kind: &'static str,
    pub(super) file: PathBuf,
    pub(super) title: Option<String>,
    pub(super) about: Option<String>,
    pub(super) columns: Vec<Column>,
}

/// A column of it.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) sql_type: String,
    pub(super) about: Option<String>,
}

/// A function.
pub(super) struct Function {
    pub(super) kind: &'static str,
    pub(super) about: String,
    pub(super) syntax: String,
    /// Where a function of the project is.
    pub(super) file: Option<PathBuf>,
}

/// Loads and plans the project with these texts over its files.
pub(super) fn analyse(root: &Path, profile: Option<&str>, texts: &BTreeMap<PathBuf, String>) -> Analysis {
    let mut loaded = project::load_all(root, profile, texts, &variable_or_stand_in);
    let mut analysis = Analysis { sources: std::mem::take(&mut loaded.sources), ..Analysis::default() };
    analysis.diagnostics = std::mem::take(&mut loaded.diagnostics);
    let Some(project) = &loaded.project else {
        analysis.diagnostics = hold_back(analysis.diagnostics);
        return analysis;
    };
    let (desired, problems) = plan_project(project);
    analysis.diagnostics.extend(problems);
    let tests = Suite::load_over(root, texts, &desired, &|_| true);
    analysis.diagnostics.extend(tests.diagnostics);
    analysis.sources.extend(tests.sources);
    analysis.diagnostics = hold_back(analysis.diagnostics);
    analysis.add_relations(project, &desired);
    analysis.add_functions(project);
    analysis.declared = BTreeMap::from([
        ("connection", project.config.connections.keys().cloned().collect()),
        ("entity", project.config.entities.keys().cloned().collect()),
    ]);
    analysis
}

impl Analysis {
    fn add_relations(&mut self, project: &Project, desired: &Desired) {
        for (name, stream) in &project.catalog.streams {
            let schema = stream.schema();
            let fields = schema.fields().iter().filter(|field| !MARKS.contains(&field.name().as_str()));
            let columns = fields.map(|field| Column {
                name: field.name().clone(),
                sql_type: shown(field.data_type(), field.is_nullable()),
                about: SYSTEM_COLUMNS.contains(&field.name().as_str()).then(|| "of the record itself".to_string()),
            });
            let relation = Relation {
                kind: if stream.is_table() { "table" } else { "stream" },
                file: stream.file.clone(),
                title: stream.title.clone(),
                about: Some(format!("`{}` of the connection `{}`", stream.topic, stream.connection)),
                columns: columns.collect(),
            };
            self.relations.insert(name.clone(), relation);
        }
        let (config, catalog) = (&project.config, &project.catalog);
        let planner = QueryPlanner::new(
            catalog,
            &project.tags,
            &config.entities,
            &project.functions,
            config.timezone,
            &project.broken,
        )
        .ok();
        for (name, view) in &catalog.views {
            let fields = planner.as_ref().and_then(|planner| planner.schema_of(name));
            let columns = fields.iter().flat_map(|schema| schema.fields().iter()).map(|field| Column {
                name: field.name().clone(),
                sql_type: shown(field.data_type(), field.is_nullable()),
                about: None,
            });
            let (file, title) = (view.file.clone(), view.title.clone());
            let relation = Relation { kind: "view", file, title, about: None, columns: columns.collect() };
            self.relations.insert(name.clone(), relation);
        }
        for (name, tag) in &project.tags {
            let columns = desired.tags.get(name).map(|planned| {
                let table = &planned.table;
                table
                    .key
                    .iter()
                    .chain(&table.columns)
                    .map(|column| described(tag, &column.name, &column.data_type))
                    .collect()
            });
            let relation = Relation {
                kind: "tag",
                file: tag.file.clone(),
                title: tag.header.title.clone(),
                about: tag.header.description.clone(),
                columns: columns.unwrap_or_default(),
            };
            self.relations.insert(format!("tags.{name}"), relation);
        }
        if let Some(planner) = planner {
            self.add_sql_functions(&planner);
        }
    }

    fn add_sql_functions(&mut self, planner: &QueryPlanner) {
        let state = planner.state();
        let scalars = state.scalar_functions().iter().map(|(name, f)| (name, "function", f.documentation()));
        let aggregates = state.aggregate_functions().iter().map(|(name, f)| (name, "aggregate", f.documentation()));
        let windows = state.window_functions().iter().map(|(name, f)| (name, "window function", f.documentation()));
        for (name, kind, documentation) in scalars.chain(aggregates).chain(windows) {
            // An aggregate that is a window function too is an aggregate.
            self.functions.entry(name.clone()).or_insert_with(|| Function::new(kind, documentation));
        }
    }

    fn add_functions(&mut self, project: &Project) {
        for (file, text) in &project.functions {
            let Some(name) = file.file_stem().map(|name| name.to_string_lossy().into_owned()) else { continue };
            let syntax = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let (about, file) = (String::new(), Some(file.clone()));
            self.functions.insert(name, Function { kind: "function of the project", about, syntax, file });
        }
    }
}

impl Function {
    fn new(kind: &'static str, documentation: Option<&Documentation>) -> Self {
        let text = |of: fn(&Documentation) -> &str| documentation.map(of).unwrap_or_default().to_string();
        Function { kind, about: text(|told| &told.description), syntax: text(|told| &told.syntax_example), file: None }
    }
}

fn described(tag: &TagDefinition, name: &str, data_type: &DataType) -> Column {
    let header = tag.header.columns.get(name);
    let title = header.and_then(|column| column.title.clone());
    let unit = header.and_then(|column| column.unit.as_ref()).map(|unit| format!("in {unit}"));
    let about: Vec<String> = title.into_iter().chain(unit).collect();
    let about = (!about.is_empty()).then(|| about.join(", "));
    Column { name: name.to_string(), sql_type: sql_type(data_type), about }
}

fn shown(data_type: &DataType, nullable: bool) -> String {
    format!("{}{}", sql_type(data_type), if nullable { "" } else { " NOT NULL" })
}
