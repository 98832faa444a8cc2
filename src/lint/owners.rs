//! Tags for which nobody answers, in a project whose other tags have owners.

use super::codes::NO_OWNER;
use crate::diagnostic::Diagnostic;
use crate::project::Project;
use crate::tag::TagDefinition;

/// Tags without an owner of their own or of a folder above them. In a project that names no owner at all nothing is
/// said, unless it asks for that.
pub(super) fn missing(project: &Project) -> Vec<Diagnostic> {
    let has_owner = |tag: &TagDefinition| {
        let folders = (1..=tag.folder.len()).map(|depth| tag.folder[..depth].join("/"));
        let of_folder = |folder: String| project.folders.get(&folder).is_some_and(|folder| folder.owner.is_some());
        tag.header.owner.is_some() || folders.into_iter().any(of_folder)
    };
    let is_asked_for = project.config.lints.contains_key("no_owner");
    if !is_asked_for && !project.tags.values().any(has_owner) {
        return Vec::new();
    }
    let nobodys = project.tags.values().filter(|tag| !has_owner(tag));
    nobodys
        .map(|tag| {
            let message = format!("nobody answers for the tag \"{}\"", tag.name);
            Diagnostic::warning(NO_OWNER, &tag.file, None, message)
                .help("write owner = \"TEAM\" into its header, or into _folder.toml for all tags of the folder")
        })
        .collect()
}
