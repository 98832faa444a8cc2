//! `tagflow show 42`: all tags of one user, as the tag tree. Reads the store; no daemon is needed.

use std::collections::BTreeMap;
use std::io::Write;

use crate::cli::{FAILED, Format, OK, ProjectArgs, complain, load, no_project, print};
use crate::engine::desired::Desired;
use crate::sink::{SinkError, open_store};

/// Arguments of `tagflow show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The entity and its key (`user 42`), or the key alone where the project has one entity.
    #[arg(required = true, num_args = 1..=2, value_names = ["ENTITY", "KEY"])]
    who: Vec<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One tag's rows of a user.
#[derive(Debug, serde::Serialize)]
struct Found {
    tag: String,
    title: Option<String>,
    folders: Vec<String>,
    rows: Vec<BTreeMap<String, Option<String>>>,
}

/// Looks the user up and prints.
pub fn run(args: &ShowArgs, out: &mut dyn Write) -> u8 {
    let (_, desired) = load(&args.project);
    let Some(desired) = desired else { return complain(no_project(&args.project.project)) };
    let (entity, key) = match args.who.as_slice() {
        [entity, key] => (Some(entity), key),
        [key] => (None, key),
        _ => return complain("give a key"),
    };
    let entities = &desired.project.config.entities;
    let entity = match (entity, entities.len()) {
        (Some(entity), _) if !entities.contains_key(entity) => {
            let known: Vec<&str> = entities.keys().map(String::as_str).collect();
            return complain(format!("there is no entity `{entity}`; the project has {}", known.join(", ")));
        }
        (Some(entity), _) => entity.clone(),
        (None, 1) => entities.keys().next().cloned().unwrap_or_default(),
        (None, _) => return complain("the project has several entities: name one, as in `tagflow show user 42`"),
    };
    match look_up(&desired, &entity, key) {
        Ok(found) => {
            let text = match args.format {
                Format::Human => tree(&entity, key, &found),
                Format::Json => {
                    let whole = serde_json::json!({ "entity": entity, "key": key, "tags": found });
                    format!("{whole:#}\n")
                }
            };
            print(out, &text);
            OK
        }
        Err(error) => {
            complain(error);
            FAILED
        }
    }
}

fn look_up(desired: &Desired, entity: &str, key: &str) -> Result<Vec<Found>, SinkError> {
    let config = &desired.project.config;
    let mut store = open_store(&config.store, &config.root, config.timezone)?;
    let mut found = Vec::new();
    for registered in store.registrations()? {
        let Some(planned) = desired.tags.get(&registered.tag).filter(|_| registered.entity == entity) else { continue };
        let rows = store.rows_of(&planned.table, key)?;
        if !rows.is_empty() {
            let rows = rows.into_iter().map(|row| row.into_iter().collect()).collect();
            let folders = registered.folder_titles;
            found.push(Found { tag: registered.tag, title: registered.title, folders, rows });
        }
    }
    found.sort_by_key(|found| {
        let folder = desired.tags.get(&found.tag).map(|planned| planned.definition.folder.clone()).unwrap_or_default();
        (folder_order(desired, &folder), found.tag.clone())
    });
    Ok(found)
}

/// For each folder on the way its place among its siblings, then its name; a folder without a place comes last.
fn folder_order(desired: &Desired, folder: &[String]) -> Vec<(i64, String)> {
    let place = |depth: usize| {
        let settings = desired.project.folders.get(&folder[..depth].join("/"));
        settings.and_then(|settings| settings.order).unwrap_or(i64::MAX)
    };
    (1..=folder.len()).map(|depth| (place(depth), folder[depth - 1].clone())).collect()
}

fn tree(entity: &str, key: &str, found: &[Found]) -> String {
    let mut text = format!("{entity} {key}\n");
    if found.is_empty() {
        text.push_str("  no tag has a row of this key\n");
    }
    let mut folders: &[String] = &[];
    for tag in found {
        for depth in 0..tag.folders.len() {
            if folders.get(..=depth) != tag.folders.get(..=depth) {
                text.push_str(&format!("{}{}\n", "  ".repeat(depth + 1), tag.folders[depth]));
            }
        }
        folders = &tag.folders;
        let indent = "  ".repeat(tag.folders.len() + 1);
        let title = tag.title.as_ref().map_or_else(String::new, |title| format!(" {title}"));
        for row in &tag.rows {
            let shown = |(column, value): (&String, &Option<String>)| {
                format!("{column} = {}", value.as_deref().unwrap_or("NULL"))
            };
            let values: Vec<String> = row.iter().filter(|(column, _)| *column != "_updated_at").map(shown).collect();
            text.push_str(&format!("{indent}{}{title}: {}\n", tag.tag, values.join(", ")));
        }
    }
    text
}
