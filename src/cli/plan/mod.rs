//! `tagflow plan`: what a change of the files would do, told before it is done. Planned and compared by the daemon's own code,
//! so that what is told is what happens. Changes nothing.

mod causes;
mod chart;
mod data;
mod human;
mod markdown;
mod old;
#[expect(clippy::module_inception, reason = "it is the plan, and the command is called so")]
mod plan;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::ValueEnum;

use self::old::{Old, with_words};
use self::plan::{Plan, compare};
use crate::cli::query::STACK;
use crate::cli::{CHANGES, FAILED, OK, ProjectArgs, USAGE, complain, load, print, use_colour};
use crate::diagnostic::{Diagnostic, render_human};
use crate::engine::desired::{Desired, is_sound};
use crate::engine::verify::Sample;
use crate::project::Loaded;

/// Keys whose values are compared unless said otherwise.
const SAMPLE: &str = "10%";

/// Arguments of `tagflow plan`.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    project: ProjectArgs,
    /// Compare with a state that --save has written, where the store cannot be asked.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Compare with the files as they were where the branch left REF, and not with what runs: --since main.
    #[arg(long, value_name = "REF", conflicts_with = "state")]
    since: Option<String>,
    /// Write what runs to a file, for --state elsewhere.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["state", "since"])]
    save: Option<PathBuf>,
    /// Answer each changed query as it was and as it is, over the topics as they are now, and tell how values differ.
    #[arg(long)]
    data: bool,
    /// With --data: compare a part of the users (5%) or about so many (1000); the same ones every time.
    #[arg(long, value_name = "USERS", default_value = SAMPLE, requires = "data")]
    sample: Sample,
    /// With --data: how many of the biggest changes of each tag are shown.
    #[arg(long, value_name = "ROWS", default_value_t = 10, requires = "data")]
    show: usize,
    /// Do not ask brokers how long history is.
    #[arg(long, conflicts_with = "data")]
    offline: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Exit with 4 where there is something to do.
    #[arg(long)]
    detailed_exitcode: bool,
}

/// Who reads the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Human,
    /// One object, for programs.
    Json,
    /// For the comment of a pull or merge request.
    Markdown,
}

/// Compares and prints.
pub fn run(args: &PlanArgs, out: &mut (dyn Write + Send)) -> u8 {
    // Batch plans are walked recursively, also deep ones.
    let told = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("plan".to_string()).stack_size(STACK);
        thread.spawn_scoped(scope, || tell(args, out)).map(std::thread::ScopedJoinHandle::join)
    });
    match told {
        Ok(Ok(code)) => code,
        Ok(Err(_)) => complain("a panic in DataFusion: this is a bug"),
        Err(error) => complain(error),
    }
}

fn tell(args: &PlanArgs, out: &mut (dyn Write + Send)) -> u8 {
    let (loaded, desired) = load(&args.project);
    let Some(mut desired) = desired.filter(|_| is_sound(&loaded.diagnostics) || args.save.is_some()) else {
        return refuse(args, &loaded, out);
    };
    if let Some(file) = &args.save {
        return save(&desired, file, args.format, out);
    }
    let old = match (&args.state, &args.since) {
        (Some(file), _) => old::saved(file),
        (None, Some(reference)) => old::since(reference, &desired),
        (None, None) => old::running(&desired),
    };
    let old = match old {
        Ok(old) => old,
        Err(message) => {
            complain(message);
            return if args.since.is_some() { USAGE } else { FAILED };
        }
    };
    desired = with_words(desired, &old.running);
    let mut plan = compare(&old, &desired, args.offline);
    if args.data {
        let said = (args.sample != Sample::Whole && args.sample != Sample::Part(1.0)).then(|| said(args.sample));
        let options = data::Options { sample: args.sample, said, shown: args.show };
        if let Err(message) = data::add(&mut plan, &old, &desired, &options) {
            return complain(message);
        }
    }
    print(out, &report(args, &plan, &desired));
    if args.detailed_exitcode && plan.has_changes() { CHANGES } else { OK }
}

fn report(args: &PlanArgs, plan: &Plan, desired: &Desired) -> String {
    let grace = desired.project.config.engine.grace_period;
    match args.format {
        Format::Human => human::describe(plan, grace, use_colour(std::io::stdout().is_terminal())),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(plan).unwrap_or_default()),
        Format::Markdown => markdown::describe(plan, grace),
    }
}

/// A sample as it is asked for.
fn said(sample: Sample) -> String {
    match sample {
        Sample::Whole => "all".to_string(),
        Sample::Part(part) => format!("{}%", (part * 1e6).round() / 1e4),
        Sample::About(keys) => format!("about {keys}"),
    }
}

/// With errors a daemon changes nothing.
fn refuse(args: &PlanArgs, loaded: &Loaded, out: &mut dyn Write) -> u8 {
    let errors: Vec<Diagnostic> =
        loaded.diagnostics.iter().filter(|told| !is_sound(std::slice::from_ref(told))).cloned().collect();
    match args.format {
        Format::Human => {
            let colour = use_colour(std::io::stderr().is_terminal());
            let _ = std::io::stderr().write_all(render_human(&errors, &loaded.sources, colour).as_bytes());
            complain("with errors in the project nothing would change; `tagflow check` tells warnings too");
        }
        Format::Json => {
            let messages: Vec<String> = errors.iter().map(in_a_line).collect();
            print(out, &format!("{:#}\n", serde_json::json!({ "errors": messages })));
        }
        Format::Markdown => print(out, &markdown::refuse(&errors.iter().map(in_a_line).collect::<Vec<_>>())),
    }
    FAILED
}

fn in_a_line(told: &Diagnostic) -> String {
    format!("{}: {} [{}]", told.file.display(), told.message, told.code)
}

/// Writes what runs.
fn save(desired: &Desired, file: &std::path::Path, format: Format, out: &mut dyn Write) -> u8 {
    let Old { running, source, remarks, .. } = match old::running(desired) {
        Ok(old) => old,
        Err(message) => return complain(message),
    };
    let written = running.encode().and_then(|bytes| std::fs::write(file, bytes));
    if let Err(error) = written {
        return complain(format!("{}: {error}", file.display()));
    }
    let tags = running.tags.len();
    if format == Format::Json {
        let object =
            serde_json::json!({ "file": file.to_string_lossy(), "tags": tags, "source": source, "remarks": remarks });
        print(out, &format!("{object:#}\n"));
        return OK;
    }
    print(out, &format!("written {}: {tags} tags, {source}\n", file.display()));
    remarks.iter().for_each(|remark| print(out, &format!("  {remark}\n")));
    OK
}
