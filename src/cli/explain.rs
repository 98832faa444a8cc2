//! `tagflow explain TAG`: the flow plan as a tree, with what it shares with other tags.

use std::io::Write;

use crate::cli::{OK, ProjectArgs, complain, load, print};
use crate::diagnostic::nearest;
use crate::operator::graph::Graph;
use crate::plan::explain::describe;

/// Arguments of `tagflow explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The tag.
    tag: String,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Plans the project and prints one tag's plan.
pub fn run(args: &ExplainArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(desired) = desired else { return complain("the project cannot be read; `tagflow check` says why") };
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
    print(out, &describe(&args.tag, &planned.plan, &sharing));
    OK
}
