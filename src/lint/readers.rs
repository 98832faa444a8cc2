//! What nothing reads: views and functions, tags that are on their way out, and, in a project whose tags say who reads
//! them, tags that do not.

use super::codes::UNREAD;
use crate::diagnostic::Diagnostic;
use crate::graph::Graph;
use crate::project::Project;
use crate::tag::Status;

/// Files of which no other makes use.
pub(super) fn missing(project: &Project) -> Vec<Diagnostic> {
    let graph = Graph::of(project);
    let tells = |tag: &&crate::tag::TagDefinition| !tag.header.readers.is_empty();
    let is_asked_for = project.config.lints.contains_key("unread") || project.tags.values().any(|tag| tells(&tag));
    let views =
        project.catalog.views.values().map(|view| (&view.file, format!("the view `{}`", view.name), "remove it"));
    let functions = project.functions.keys().map(|file| {
        let name = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        (file, format!("the function `{name}`"), "remove it")
    });
    let tags = project.tags.values().filter(|tag| !tells(tag)).filter_map(|tag| {
        let help = match tag.header.status {
            Status::Deprecated => "remove it: its table is kept for the grace period",
            Status::Live if is_asked_for => "say who reads its table, readers = [\"crm\"] in its header, or remove it",
            _ => return None,
        };
        Some((&tag.file, format!("the tag \"{}\"", tag.name), help))
    });
    let unread = views.chain(functions).chain(tags).filter(|(file, ..)| graph.readers_of(file).is_empty());
    unread
        .map(|(file, what, help)| Diagnostic::warning(UNREAD, file, None, format!("nothing reads {what}")).help(help))
        .collect()
}
