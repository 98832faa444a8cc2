//! `tagflow docs`: the catalogue of tags as one page that needs nothing else, to be opened from a file or served.
//!
//! The page holds its data as JSON and builds everything as text nodes: whatever a tag's SQL or description says, it stays
//! text. Its own policy forbids it to fetch anything and to run any other script than its own.

mod catalogue;
mod page;

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use self::catalogue::Samples;
use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, load, no_project, print};
use crate::engine::desired::is_sound;

/// Arguments of `tagflow docs`.
#[derive(Debug, clap::Args)]
pub struct DocsArgs {
    /// The folder for index.html; it is made where missing.
    #[arg(long, short, default_value = "docs", value_name = "FOLDER")]
    output: PathBuf,
    /// How many rows of each table to show; 0 shows no values of any user.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(0..=100))]
    samples: u16,
    /// Show whose the rows are, too; without it the keys of users are hidden.
    #[arg(long)]
    keys: bool,
    /// Do not ask the store for samples and freshness.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Writes the page.
pub fn run(args: &DocsArgs, out: &mut dyn Write) -> u8 {
    let (loaded, desired) = load(&args.project);
    let Some(desired) = desired else { return complain(no_project(&args.project.project)) };
    let samples = (!args.offline).then_some(Samples { rows: usize::from(args.samples), with_keys: args.keys });
    let catalogue = catalogue::of(&desired, &loaded.diagnostics, samples);
    let file = args.output.join("index.html");
    let written = std::fs::create_dir_all(&args.output).and_then(|()| std::fs::write(&file, page::html(&catalogue)));
    if let Err(error) = written {
        return complain(format!("{}: {error}", file.display()));
    }
    let sound = is_sound(&loaded.diagnostics);
    let (tags, store) = (catalogue.tags.len(), &catalogue.store);
    match args.format {
        Format::Human => {
            print(out, &format!("written {} with {tags} tags\n", file.display()));
            print(out, &format!("  {store}\n"));
            if !sound {
                print(
                    out,
                    "  the project has errors, which the page shows at their tags; `tagflow check` tells them\n",
                );
            }
        }
        Format::Json => {
            let told = json!({ "file": file.to_string_lossy(), "tags": tags, "store": store, "sound": sound });
            print(out, &format!("{told:#}\n"));
        }
    }
    if sound { OK } else { FAILED }
}

#[cfg(test)]
mod tests;
