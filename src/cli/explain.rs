//! `tagflow explain TAG`: the flow plan as a tree, with what it shares with other tags and what it keeps in memory.

use std::io::Write;

use crate::cli::status::daemon_status;
use crate::cli::{Format, OK, ProjectArgs, complain, load, no_project, print};
use crate::config::ServeConfig;
use crate::diagnostic::nearest;
use crate::engine::status::TagStatus;
use crate::operator::graph::Graph;
use crate::plan::explain::{as_json, describe};
use crate::plan::flow::FlowPlan;
use crate::plan::memory::Memory;

/// Arguments of `tagflow explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The tag.
    tag: String,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Plans the project and prints one tag's plan.
pub fn run(args: &ExplainArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(desired) = desired else { return complain(no_project(&args.project.project)) };
    let Some(planned) = desired.tags.get(&args.tag) else {
        let known = desired.tags.keys().map(String::as_str);
        let hint = nearest(&args.tag, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return complain(format!("there is no sound tag `{}`{hint}", args.tag));
    };
    let mut graph = Graph::new(1, desired.project.config.timezone);
    for (name, tag) in &desired.tags {
        if let Err(error) = graph.add_tag(name, &tag.plan) {
            return complain(format!("tag `{name}`: {error}"));
        }
    }
    let sharing = graph.sharing(&planned.plan, &args.tag);
    let memory = memory(&desired.project.config.serve, &args.tag, &planned.plan);
    match args.format {
        Format::Human => print(out, &describe(&args.tag, &planned.plan, &sharing, &memory)),
        Format::Json => print(out, &format!("{:#}\n", as_json(&args.tag, &planned.plan, &sharing, &memory))),
    }
    OK
}

/// What each operator keeps: as the daemon counts it, where one runs this plan.
fn memory(serve: &ServeConfig, tag: &str, plan: &FlowPlan) -> Vec<Option<Memory>> {
    let mut memory: Vec<Option<Memory>> = (0..plan.nodes.len()).map(|index| Memory::estimate(plan, index)).collect();
    let status = daemon_status(serve).ok().map(|(status, _)| status);
    let runs = |running: &&TagStatus| running.tag == tag && running.plan == plan.fingerprint;
    let running = status.as_ref().and_then(|status| status.tags.iter().find(runs));
    for operator in running.iter().flat_map(|running| &running.operators) {
        if let Some(Some(memory)) = memory.get_mut(operator.node) {
            *memory = memory.counted(operator.rows, operator.bytes);
        }
    }
    memory
}
