//! `tagflow query`: answers a query once over what there is, or shows the rows of a tag, without a daemon.

mod output;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::output::Output;
use crate::cli::{FAILED, OK, ProjectArgs, USAGE, complain, no_project, time_of, use_colour};
use crate::delta::Partition;
use crate::diagnostic::{Diagnostic, Severity, render_human};
use crate::engine::desired::plan_project;
use crate::engine::query::{Bounds, Query, QueryError, Run, plan_rows, plan_sql};
use crate::project::{self, Loaded, Project};
use crate::tag::Status;

/// Plans are walked recursively, also deep ones.
pub(super) const STACK: usize = 256 << 20;
/// What a shell says of a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;
/// Rows of a tag that are shown unless said otherwise.
const PREVIEW: usize = 20;
/// Rows that are shown as a table unless said otherwise.
const SHOWN: usize = 1000;

/// Arguments of `tagflow query`.
#[derive(Debug, Clone, clap::Args)]
pub struct QueryArgs {
    /// The query. FROM orders is a stream, FROM paid_orders a view, FROM tags.spend_30d the table of a tag in the store.
    #[arg(required_unless_present = "tag", conflicts_with = "tag")]
    sql: Option<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// Show the rows that the tag of this file would have, by key.
    #[arg(long, value_name = "FILE")]
    tag: Option<PathBuf>,
    /// What the clock is; events up to then are read. 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago; now unless given.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// Read records of this time and later, by the broker's clock, or from an offset: orders/0=100. May be given several times.
    #[arg(long, value_name = "TIME|STREAM/PARTITION=OFFSET")]
    from: Vec<String>,
    /// Read records up to this time, or before an offset; up to the ends as they are now unless given.
    #[arg(long, value_name = "TIME|STREAM/PARTITION=OFFSET")]
    to: Vec<String>,
    /// The most rows; 20 of a tag, 1000 in a table, all others unless given.
    #[arg(long, value_name = "ROWS")]
    limit: Option<usize>,
    /// How to write the rows.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write them to a file.
    #[arg(long, value_name = "FILE", required_if_eq("format", "parquet"))]
    output: Option<PathBuf>,
}

/// How to write rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// With a line of names; NULL is an empty field, and empty text one in quotes.
    Csv,
    /// One object a line.
    Json,
    /// A file.
    Parquet,
}

/// Why there is no answer, told already or not.
enum Failure {
    Told,
    Usage(String),
    Query(QueryError),
    Output(String),
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Failure::Query(error)
    }
}

/// Answers.
pub fn run(args: &QueryArgs, out: &mut (dyn Write + Send)) -> u8 {
    let answered = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("query".to_string()).stack_size(STACK);
        thread.spawn_scoped(scope, || answer(args, out)).map(std::thread::ScopedJoinHandle::join)
    });
    match answered {
        Ok(Ok(Ok(code))) => code,
        Ok(Ok(Err(Failure::Told))) => FAILED,
        Ok(Ok(Err(Failure::Usage(message)))) => {
            complain(message);
            USAGE
        }
        Ok(Ok(Err(Failure::Query(error)))) => complain(error),
        Ok(Ok(Err(Failure::Output(message)))) => complain(message),
        Ok(Err(_)) => complain("a panic in DataFusion: this is a bug"),
        Err(error) => complain(error),
    }
}

fn answer(args: &QueryArgs, out: &mut (dyn Write + Send)) -> Result<u8, Failure> {
    let mut loaded = project::load(&args.project.project, args.project.profile.as_deref());
    let Some(mut project) = loaded.project.take() else {
        return Err(Failure::Usage(no_project(&args.project.project)));
    };
    let zone = project.config.timezone;
    let time = |text: &String| time_of(text, zone).map_err(Failure::Usage);
    let as_of = args.as_of.as_ref().map(time).transpose()?;
    let bounds = bounds(args, &project, as_of)?;
    let (query, limit) = match (&args.tag, &args.sql) {
        (Some(file), _) => (of_tag(&mut project, &mut loaded, file)?, args.limit.or(Some(PREVIEW))),
        (None, sql) => (of_sql(&project, &mut loaded, sql.as_deref().unwrap_or_default())?, args.limit),
    };
    let folder = tempfile::tempdir().map_err(|error| Failure::Output(error.to_string()))?;
    let progress = Progress::new();
    let output = Output::new(args.format, args.output.clone(), out);
    // A table is laid out as a whole; one row more tells that there are more.
    let shown = (args.format == Format::Table && limit.is_none()).then_some(SHOWN);
    let clock = as_of.unwrap_or_else(|| chrono::Utc::now().timestamp_millis()).saturating_mul(1_000_000);
    let run = Run {
        project: &project,
        bounds,
        clock,
        limit: limit.or(shown.map(|shown| shown + 1)),
        folder: folder.path(),
        tell: progress.teller(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Output(error.to_string()))?;
    let code = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
            written = write(query, &run, &progress, output, shown) => written,
        }
    });
    progress.clear();
    // A broker that does not answer keeps nobody.
    runtime.shutdown_background();
    code
}

/// Writes the rows as they come.
async fn write(
    query: Query,
    run: &Run<'_>,
    progress: &Progress,
    mut output: Output<'_>,
    shown: Option<usize>,
) -> Result<u8, Failure> {
    let mut answer = query.run(run).await?;
    progress.expect(answer.records);
    output.begin(&answer.batches.schema()).map_err(Failure::Output)?;
    let mut left = shown.unwrap_or(usize::MAX);
    let mut has_more = false;
    while let Some(batch) = answer.batches.next().await {
        let batch = batch.map_err(QueryError::from)?;
        let rows = batch.num_rows().min(left);
        has_more |= batch.num_rows() > rows;
        left -= rows;
        if rows > 0 && !output.rows(&batch.slice(0, rows)).map_err(Failure::Output)? {
            // Whoever read it has seen enough.
            break;
        }
        // Batches that are there already come without a pause, and Ctrl-C is heard in pauses alone.
        tokio::task::yield_now().await;
    }
    progress.clear();
    output.end().map_err(Failure::Output)?;
    if has_more {
        let _ = writeln!(std::io::stderr(), "the first {SHOWN} rows: --limit or another --format gives more");
    }
    Ok(OK)
}

/// The query that the command line has.
fn of_sql(project: &Project, loaded: &mut Loaded, sql: &str) -> Result<Query, Failure> {
    let file = Path::new("query");
    let planned = plan_sql(project, file, sql);
    if let Err(QueryError::Query(problems)) = planned {
        loaded.sources.insert(file.to_path_buf(), sql.to_string());
        return Err(told(&problems, loaded));
    }
    Ok(planned?)
}

/// The rows of a tag, of the project or of a file that lies anywhere.
fn of_tag(project: &mut Project, loaded: &mut Loaded, file: &Path) -> Result<Query, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
    let (name, problems) = project::put_tag(project, file, &text);
    loaded.sources.insert(file.to_path_buf(), text);
    if !problems.is_empty() {
        return Err(told(&problems, loaded));
    }
    // A draft is shown as if it were live.
    if let Some(tag) = project.tags.get_mut(&name).filter(|tag| tag.header.status == Status::Draft) {
        tag.header.status = Status::Live;
    }
    let (desired, problems) = plan_project(project);
    let Some(planned) = desired.tags.get(&name) else {
        let is_error = |problem: &&Diagnostic| problem.severity == Severity::Error;
        let problems: Vec<Diagnostic> = problems.iter().filter(is_error).cloned().collect();
        if problems.is_empty() {
            return Err(Failure::Usage(format!("{} has no query yet", file.display())));
        }
        return Err(told(&problems, loaded));
    };
    Ok(plan_rows(project, planned)?)
}

fn told(problems: &[Diagnostic], loaded: &Loaded) -> Failure {
    let colour = use_colour(std::io::stderr().is_terminal());
    let text = render_human(problems, &loaded.sources, colour);
    let _ = std::io::stderr().write_all(text.as_bytes());
    Failure::Told
}

/// Which records are asked for.
fn bounds(args: &QueryArgs, project: &Project, as_of: Option<i64>) -> Result<Bounds, Failure> {
    let mut bounds = Bounds::default();
    let sides = [(&args.from, &mut bounds.from, &mut bounds.first), (&args.to, &mut bounds.to, &mut bounds.end)];
    for (texts, time, offsets) in sides {
        for text in texts {
            match text.split_once('=') {
                Some((place, offset)) => {
                    let (partition, offset) = offset_of(project, place, offset).ok_or_else(|| {
                        Failure::Usage(format!(
                            "`{text}` is no offset of a stream: write STREAM/PARTITION=OFFSET, as in orders/0=100"
                        ))
                    })?;
                    offsets.advance(&partition, offset);
                }
                None => *time = Some(time_of(text, project.config.timezone).map_err(Failure::Usage)?),
            }
        }
    }
    // What came after the clock is not known to it.
    bounds.to = match (bounds.to, as_of) {
        (Some(to), Some(as_of)) => Some(to.min(as_of)),
        (to, as_of) => to.or(as_of),
    };
    Ok(bounds)
}

fn offset_of(project: &Project, place: &str, offset: &str) -> Option<(Partition, i64)> {
    let (stream, number) = place.split_once('/')?;
    let offset = offset.parse().ok().filter(|offset: &i64| *offset >= 0)?;
    let partition = Partition { stream: stream.to_string(), number: number.parse().ok()? };
    project.catalog.streams.contains_key(stream).then_some((partition, offset))
}

/// A bar on a terminal that says how many records were read.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        let is_terminal = std::io::stderr().is_terminal();
        bar.set_draw_target(if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() });
        bar.set_message("looks where the streams end");
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar }
    }

    pub(super) fn teller(&self) -> Arc<dyn Fn(u64) + Send + Sync> {
        let bar = self.bar.clone();
        Arc::new(move |records| bar.inc(records))
    }

    /// So many records are there to be read.
    pub(super) fn expect(&self, records: u64) {
        let style = "{bar:30} {human_pos} of about {human_len} records, {per_sec}, {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.bar.set_style(style);
        }
        self.bar.set_length(records);
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
