//! The command line: one file per command. Exit code 0: done; 1: the project or the daemon has errors; 2: wrong usage;
//! 3: another daemon writes the store; 4: there is something to do, where that was asked for.

pub mod accept;
pub mod backfill;
pub mod check;
pub mod checkpoint;
pub mod dead_letters;
pub mod demo;
pub mod docs;
pub mod explain;
pub mod fmt;
mod git;
pub mod history;
pub mod init;
pub mod lsp;
pub mod man;
pub mod new;
pub mod plan;
pub mod produce;
pub mod query;
pub mod resume;
pub mod rollback;
pub mod run;
pub mod schemas;
pub mod screen;
pub mod show;
pub mod status;
pub mod test;
pub mod verify;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::diagnostic::{Diagnostic, hold_back, render_human, render_json};
use crate::engine::desired::{Desired, plan_project};
use crate::project::{self, Loaded, SETTINGS_FILE};
use crate::source::decode::instant;
use crate::tag::Status;

/// Done.
pub const OK: u8 = 0;
/// The project or the daemon has errors.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// Another daemon writes the store.
pub const OTHER_DAEMON: u8 = 3;
/// There is something to do, where that was asked for.
pub const CHANGES: u8 = 4;

/// SQL tag files become live tag tables.
#[derive(Debug, Parser)]
#[command(name = "tagflow", version, about, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// More (-v, -vv) or less (-q) to read in the log.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Only errors in the log.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// How to write the log.
    #[arg(long, value_enum, default_value_t, global = true, env = "TAGFLOW_LOG_FORMAT")]
    log_format: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new project that runs at once.
    Init(init::InitArgs),
    /// Write a tag or a schema to begin with, in the columns that there are.
    New(new::NewArgs),
    /// Run the sample shop and watch its tags change; needs no server.
    Demo(demo::DemoArgs),
    /// Run the project: keep every tag's table equal to its query's answer.
    Run(run::RunArgs),
    /// Find every problem of every file; needs no Kafka and no database.
    Check(check::CheckArgs),
    /// Tell what a change of the files would do: which tags are filled anew and why, and with --data whose values change.
    Plan(plan::PlanArgs),
    /// Answer a query once, over topics, files and tables of tags; or show the rows of a tag that is not running yet.
    Query(query::QueryArgs),
    /// Run the tests beside the tags, by streaming and by batch.
    Test(test::TestArgs),
    /// Write the catalogue of all tags as one page.
    Docs(docs::DocsArgs),
    /// Lay the SQL of all files out alike; headers, comments and meaning stay.
    Fmt(fmt::FmtArgs),
    /// Serve an editor: problems while typing, completion, hover, definitions.
    Lsp(lsp::LspArgs),
    /// Write JSON Schemas of the project's files, for editors.
    Schemas(schemas::SchemasArgs),
    /// Show all tags of one user as the tag tree.
    Show(show::ShowArgs),
    /// Show how a tag is computed: operators, keys, state, clock, and what it shares.
    Explain(explain::ExplainArgs),
    /// Ask the running daemon how it is.
    Status(status::StatusArgs),
    /// Let a less complete new version of a tag replace the one that runs.
    Accept(accept::AcceptArgs),
    /// Fill tags again from history beside what runs.
    Backfill(backfill::BackfillArgs),
    /// List and check the checkpoints of the state, or go back to an older one.
    Checkpoint(checkpoint::CheckpointArgs),
    /// Look at records that could not be taken, take them out, or replay them.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Try a tag again that was set aside.
    Resume(resume::ResumeArgs),
    /// Let a tag go back to the version before, at once.
    Rollback(rollback::RollbackArgs),
    /// List the versions of a tag: when they were live, who made them, and why.
    History(history::HistoryArgs),
    /// Compare every table, or a sample of its keys, with the batch answer over the same events.
    Verify(verify::VerifyArgs),
    /// Write generated shop events to the project's Kafka topics.
    #[command(hide = true)]
    Produce(produce::ProduceArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages.
    Man(man::ManArgs),
}

/// Where the project is and which profile of it is meant.
#[derive(Debug, Clone, clap::Args)]
pub struct ProjectArgs {
    /// The folder of tagflow.toml.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    pub project: PathBuf,
    /// A profile of tagflow.toml.
    #[arg(long, env = "TAGFLOW_PROFILE")]
    pub profile: Option<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
}

/// Reads the arguments, runs the command, returns the exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let shown = error.print();
            return if error.use_stderr() && shown.is_ok() { USAGE } else { OK };
        }
    };
    init_log(&cli);
    // The operators' threads evaluate expressions recursively, also deep ones; a pool that is there already is kept.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(64 << 20).build_global();
    let mut out = std::io::stdout();
    match cli.command {
        Command::Init(args) => init::run(&args, &mut out),
        Command::New(args) => new::run(&args, &mut out),
        Command::Demo(args) => demo::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args, &mut out),
        Command::Plan(args) => plan::run(&args, &mut out),
        Command::Query(args) => query::run(&args, &mut out),
        Command::Test(args) => test::run(&args, &mut out),
        Command::Docs(args) => docs::run(&args, &mut out),
        Command::Fmt(args) => fmt::run(&args, &mut out),
        Command::Lsp(args) => lsp::run(&args),
        Command::Schemas(args) => schemas::run(&args, &mut out),
        Command::Show(args) => show::run(&args, &mut out),
        Command::Explain(args) => explain::run(&args, &mut out),
        Command::Status(args) => status::run(&args, &mut out),
        Command::Accept(args) => accept::run(&args, &mut out),
        Command::Backfill(args) => backfill::run(&args, &mut out),
        Command::Resume(args) => resume::run(&args, &mut out),
        Command::Rollback(args) => rollback::run(&args, &mut out),
        Command::History(args) => history::run(&args, &mut out),
        Command::Checkpoint(args) => checkpoint::run(&args, &mut out),
        Command::DeadLetters(args) => dead_letters::run(&args, &mut out),
        Command::Verify(args) => verify::run(&args, &mut out),
        Command::Produce(args) => produce::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tagflow", &mut script);
            print(&mut out, &String::from_utf8_lossy(&script));
            OK
        }
        Command::Man(args) => man::run(&args, Cli::command(), &mut out),
    }
}

fn init_log(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose, &cli.command) {
        (true, ..) => "error",
        // The screen of the demo is no place for a log, and what a query meets is told by its error.
        (_, 0, Command::Demo(_) | Command::Query(_) | Command::Plan(_)) => "error",
        (_, 0, _) => "info",
        (_, 1, _) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("TAGFLOW_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,tagflow={level},mysql_async=error,datafusion=error")));
    let colour = use_colour(std::io::stderr().is_terminal());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first log.
    let _ = match cli.log_format {
        Format::Human => log.try_init(),
        Format::Json => log.json().try_init(),
    };
}

/// Colours are for terminals, and not where `NO_COLOR` is set.
pub fn use_colour(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// So many of them.
fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Text in a colour of the terminal.
fn paint(text: &str, code: u8, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

/// What a variable holds; where it is not set something sound, for whom nothing depends on it.
fn variable_or_stand_in(name: &str) -> Option<String> {
    let stand_in = || match name {
        name if name.contains("REGISTRY") => "http://localhost:8081",
        name if name.contains("URL") => "mysql://nobody@localhost:3306/nowhere",
        _ => "not-set",
    };
    Some(std::env::var(name).unwrap_or_else(|_| stand_in().to_string()))
}

/// Reads and plans a project; all problems of all files.
pub fn load(args: &ProjectArgs) -> (Loaded, Option<Desired>) {
    let (mut loaded, desired) = load_over(args, &BTreeMap::new());
    loaded.diagnostics = hold_back(loaded.diagnostics);
    loaded.diagnostics.sort_by(|left, right| {
        let place = |diagnostic: &Diagnostic| {
            (diagnostic.file.clone(), diagnostic.span.as_ref().map_or(0, |span| span.start), diagnostic.code)
        };
        place(left).cmp(&place(right))
    });
    (loaded, desired)
}

/// [`load`], as if `texts` stood in those of its files, and with all that follows from the errors of others.
pub fn load_over(args: &ProjectArgs, texts: &BTreeMap<PathBuf, String>) -> (Loaded, Option<Desired>) {
    let mut loaded = project::load_over(&args.project, args.profile.as_deref(), texts);
    let desired = plan(&mut loaded);
    (loaded, desired)
}

/// [`load`], as if drafts were live: to try them out before they are.
pub fn load_with_drafts(args: &ProjectArgs) -> (Loaded, Option<Desired>) {
    let mut loaded = project::load(&args.project, args.profile.as_deref());
    let tags = loaded.project.iter_mut().flat_map(|project| project.tags.values_mut());
    for tag in tags.filter(|tag| tag.header.status == Status::Draft) {
        tag.header.status = Status::Live;
    }
    let desired = plan(&mut loaded);
    loaded.diagnostics = hold_back(loaded.diagnostics);
    (loaded, desired)
}

fn plan(loaded: &mut Loaded) -> Option<Desired> {
    let (desired, diagnostics) = plan_project(loaded.project.as_ref()?);
    loaded.diagnostics.extend(diagnostics);
    Some(desired)
}

/// Milliseconds since the Unix epoch of an instant, wall time of the project's zone, a day, or a length of time ago.
pub fn time_of(text: &str, timezone: Tz) -> Result<i64, String> {
    if let Some(nanoseconds) = instant(text, timezone) {
        return Ok(nanoseconds.div_euclid(1_000_000));
    }
    match humantime::parse_duration(text) {
        Ok(ago) => {
            let now = chrono::Utc::now().timestamp_millis();
            Ok(now.saturating_sub(ago.as_millis().try_into().unwrap_or(i64::MAX)))
        }
        Err(_) => Err(format!("`{text}` is no time: write 2026-01-31, 2026-01-31T08:00:00Z, or 2h for two hours ago")),
    }
}

/// Prints diagnostics in the wanted form.
pub fn print_diagnostics(loaded: &Loaded, format: Format, out: &mut dyn Write, colour: bool) {
    let text = match format {
        Format::Human => render_human(&loaded.diagnostics, &loaded.sources, colour),
        Format::Json => render_json(&loaded.diagnostics, &loaded.sources),
    };
    print(out, &text);
}

/// Writes; a closed pipe is no error of ours.
pub fn print(out: &mut dyn Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What a command has done: in words for people, as an object for programs.
fn report(out: &mut dyn Write, format: Format, words: &str, object: &serde_json::Value) {
    match format {
        Format::Human => print(out, words),
        Format::Json => print(out, &format!("{object:#}\n")),
    }
}

/// Why there is nothing to do without a project.
fn no_project(folder: &Path) -> String {
    let file = folder.join(SETTINGS_FILE);
    match file.exists() {
        true => format!("{} cannot be read; `tagflow check` says why", file.display()),
        false => {
            format!("there is no {}; go to the project's folder, or start one with `tagflow init`", file.display())
        }
    }
}

/// An error on standard error.
pub fn complain(message: impl std::fmt::Display) -> u8 {
    let _ = writeln!(std::io::stderr(), "error: {message}");
    FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What prints nothing that a program would read: a daemon, a screen, a protocol, a script.
    const SILENT: &[&str] = &["run", "demo", "lsp", "completions"];

    #[test]
    fn every_command_that_prints_has_a_format_for_programs() {
        fn look(command: &clap::Command, path: &str) {
            let below: Vec<_> = command.get_subcommands().filter(|command| !command.is_hide_set()).collect();
            for command in &below {
                look(command, &format!("{path} {}", command.get_name()));
            }
            if !below.is_empty() || SILENT.contains(&command.get_name()) {
                return;
            }
            let format = command.get_arguments().find(|argument| argument.get_long() == Some("format"));
            let words: Vec<String> = format
                .iter()
                .flat_map(|format| format.get_possible_values())
                .map(|word| word.get_name().to_string())
                .collect();
            assert!(words.iter().any(|word| word == "json"), "{path}: {words:?}");
        }
        look(&Cli::command(), "tagflow");
    }

    #[test]
    fn arguments_are_sound() {
        Cli::command().debug_assert();
    }
}
