//! Reads `tags/`: one `.sql` file a tag, `_folder.toml` for its branches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ColumnHeader, Emission, Emit, Folder, Method, OnError, Status, TagDefinition, TagHeader};
use crate::config::Outline;
use crate::diagnostic::{Diagnostic, codes, nearest};
use crate::sql_header;
use crate::toml_walk::{Section, Walk, in_order};

/// The folder of tags.
pub(crate) const FOLDER: &str = "tags";
/// What says more of a branch of the tree.
pub(crate) const FOLDER_FILE: &str = "_folder.toml";

const KEYS: &[&str] = &[
    "title",
    "description",
    "owner",
    "entity",
    "method",
    "status",
    "on_error",
    "state_limit",
    "emit",
    "allowed_lateness",
    "early",
    "recompute_every",
    "readers",
    "lints",
    "columns",
];

/// What `tags/` holds.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Sound tags by name.
    pub(crate) tags: BTreeMap<String, TagDefinition>,
    /// Sound `_folder.toml` by path below `tags/`.
    pub(crate) folders: BTreeMap<String, Folder>,
}

/// Reads every tag and folder file among `sources` (text by path below the root), and adds what is wrong to `diagnostics`.
pub(crate) fn load(sources: &BTreeMap<PathBuf, String>, outline: &Outline, diagnostics: &mut Vec<Diagnostic>) -> Tree {
    let mut tree = Tree::default();
    let mut first_file: BTreeMap<String, &Path> = BTreeMap::new();
    for (file, text) in sources.iter().filter(|(file, _)| file.starts_with(FOLDER)) {
        let folder = folders_of(file);
        if file.file_name().is_some_and(|name| name == FOLDER_FILE) {
            tree.folders.extend(read_folder(file, text, diagnostics).map(|found| (folder.join("/"), found)));
            continue;
        }
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let is_name = is_tag_name(&name);
        if !is_name {
            diagnostics.push(name_problem(file, &name));
        }
        let is_first = match first_file.get(&name) {
            Some(first) => {
                let message = format!("the tag \"{name}\" is already in {}", first.display());
                diagnostics.push(
                    Diagnostic::error(codes::DUPLICATE_TAG, file, None, message)
                        .help("rename one of the files: a tag's name is unique in the project, whatever its folder"),
                );
                false
            }
            None => {
                first_file.insert(name.clone(), file);
                true
            }
        };
        let tag = read_tag(&name, file, folder, text, outline, diagnostics);
        if is_name && is_first {
            tree.tags.extend(tag.map(|tag| (name, tag)));
        }
    }
    tree
}

/// The folders below `tags/` that lead to a file.
fn folders_of(file: &Path) -> Vec<String> {
    let parts: Vec<String> = file.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.get(1..parts.len().saturating_sub(1)).unwrap_or_default().to_vec()
}

/// True where a file of this name can be a tag's.
pub(crate) fn is_tag_name(name: &str) -> bool {
    name.len() <= 48
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// What [`is_tag_name`] asks for.
pub(crate) const NAME_RULE: &str =
    "a tag's name is a lower-case letter, then lower-case letters, digits and _, at most 48 in all";

fn name_problem(file: &Path, name: &str) -> Diagnostic {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect::<String>()
        .trim_matches('_')
        .to_owned();
    let help = if is_tag_name(&plain) && plain != name {
        format!("rename the file, for example to {plain}.sql: {NAME_RULE}")
    } else {
        format!("rename the file: {NAME_RULE}")
    };
    Diagnostic::error(codes::TAG_NAME, file, None, format!("\"{name}\" cannot be the name of a tag")).help(help)
}

fn read_folder(file: &Path, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Folder> {
    let mut walk = Walk::new(file, text);
    let table = walk.parse(0..text.len());
    let folder = table.map(|table| {
        let section = Section::root(FOLDER_FILE, &table);
        walk.check_keys_with_later(&section, &["title", "order", "owner"], &["table"]);
        Folder {
            title: walk.string(&section, "title"),
            order: walk.integer(&section, "order", i64::MIN..=i64::MAX),
            owner: walk.string(&section, "owner"),
        }
    });
    let sound = walk.diagnostics.is_empty();
    diagnostics.append(&mut walk.diagnostics);
    folder.filter(|_| sound)
}

fn read_tag(
    name: &str,
    file: &Path,
    folder: Vec<String>,
    text: &str,
    outline: &Outline,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<TagDefinition> {
    let parts = match sql_header::cut(file, text, "tag") {
        Ok(parts) => parts,
        Err(problem) => {
            diagnostics.push(problem);
            return None;
        }
    };
    let mut walk = Walk::new(file, text);
    let (header, entity) = match parts.toml {
        Some(range) => match walk.parse(range) {
            Some(table) => {
                let section = Section::root("the tag header", &table);
                (read_header(&mut walk, &section), read_entity(&mut walk, &section, outline))
            }
            None => (TagHeader::default(), None),
        },
        None => (TagHeader::default(), sole_entity(&mut walk, outline)),
    };
    if parts.is_blank && header.status != Status::Planned && walk.diagnostics.is_empty() {
        walk.error(codes::NO_SQL, None, format!("the tag \"{name}\" has no query"))
            .help("write a SELECT after the header, or status = \"planned\" in it");
    }
    let sound = walk.diagnostics.is_empty();
    diagnostics.append(&mut walk.diagnostics);
    let entity = entity.filter(|_| sound)?;
    Some(TagDefinition { name: name.to_owned(), file: file.to_owned(), folder, text: text.to_owned(), entity, header })
}

fn read_entity(walk: &mut Walk<'_>, header: &Section<'_>, outline: &Outline) -> Option<String> {
    if header.table.get("entity").is_none() {
        return sole_entity(walk, outline);
    }
    let text = walk.text(header, "entity")?;
    let name = text.value?;
    let Some(entities) = outline.entities.as_ref().filter(|entities| !entities.contains(&name)) else {
        return Some(name);
    };
    let names: Vec<&str> = entities.iter().map(String::as_str).collect();
    let help = match nearest(&name, names.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if names.is_empty() => format!("declare it in tagflow.toml: [entity.{name}]"),
        None => format!("declared entities: {}", names.join(", ")),
    };
    walk.error(codes::TAG_ENTITY, text.span, format!("there is no entity \"{name}\" in tagflow.toml")).help(help);
    None
}

/// The only entity of the project; where there are more, the header must say which.
fn sole_entity(walk: &mut Walk<'_>, outline: &Outline) -> Option<String> {
    let entities = outline.entities.as_ref()?;
    if entities.len() > 1 {
        let names: Vec<&str> = entities.iter().map(String::as_str).collect();
        walk.error(codes::TAG_ENTITY, None, "the tag does not say which entity it describes").help(format!(
            "add entity = \"{}\" to the tag header; declared entities: {}",
            names.first().unwrap_or(&""),
            names.join(", ")
        ));
        return None;
    }
    entities.first().cloned()
}

/// Steps are of broker time, which has milliseconds; shorter ones than this are no bound.
const SHORTEST_STEP: Duration = Duration::from_secs(1);

fn read_emission(walk: &mut Walk<'_>, header: &Section<'_>) -> Emission {
    let emissions = [("on_change", Emit::OnChange), ("on_close", Emit::OnClose)];
    let emission = Emission {
        emit: walk.word(header, "emit", &emissions).unwrap_or_default(),
        allowed_lateness: walk.duration(header, "allowed_lateness", Duration::ZERO),
        early: walk.duration(header, "early", SHORTEST_STEP),
    };
    if emission.early.is_some()
        && emission.emit == Emit::OnChange
        && let Some(text) = walk.text(header, "early")
    {
        walk.error(codes::BAD_VALUE, text.span, "\"early\" goes with emit = \"on_close\"")
            .help("leave it out: windows that emit on change are shown at every change");
    }
    emission
}

fn read_header(walk: &mut Walk<'_>, header: &Section<'_>) -> TagHeader {
    walk.check_keys(header, KEYS);
    let methods =
        [("stat", Method::Stat), ("rule", Method::Rule), ("mining", Method::Mining), ("manual", Method::Manual)];
    let states = [
        ("planned", Status::Planned),
        ("draft", Status::Draft),
        ("live", Status::Live),
        ("deprecated", Status::Deprecated),
    ];
    let reactions = [("stop", OnError::Stop), ("skip", OnError::Skip), ("null", OnError::Null)];
    TagHeader {
        title: walk.string(header, "title"),
        description: walk.string(header, "description"),
        owner: walk.string(header, "owner"),
        method: walk.word(header, "method", &methods),
        status: walk.word(header, "status", &states).unwrap_or_default(),
        on_error: walk.word(header, "on_error", &reactions).unwrap_or_default(),
        state_limit: walk.bytes(header, "state_limit"),
        emission: read_emission(walk, header),
        recompute_every: walk.duration(header, "recompute_every", SHORTEST_STEP),
        readers: walk.strings(header, "readers"),
        lints: walk.lints(header),
        columns: walk
            .sections(header, "columns")
            .into_iter()
            .map(|(name, section)| (name, read_column(walk, &section)))
            .collect(),
    }
}

/// Where the header speaks of a column.
pub(crate) fn place_of_column(file: &Path, text: &str, column: &str) -> Option<std::ops::Range<usize>> {
    let header = sql_header::cut(file, text, "tag").ok()?.toml?;
    let mut walk = Walk::new(file, text);
    let table = walk.parse(header)?;
    let columns = walk.sections(&Section::root("the tag header", &table), "columns");
    columns.into_iter().find_map(|(name, section)| section.span.filter(|_| name == column))
}

fn read_column(walk: &mut Walk<'_>, column: &Section<'_>) -> ColumnHeader {
    walk.check_keys(column, &["title", "unit", "default", "labels"]);
    let default = column.table.get("default").and_then(|value| walk.scalar(column, "default", value));
    let mut labels = BTreeMap::new();
    if let Some(section) = walk.section(column, "labels", format!("labels of {}", column.label)) {
        for key in in_order(section.table) {
            let value: &str = key.get_ref();
            labels.extend(walk.string(&section, value).map(|label| (value.to_owned(), label)));
        }
    }
    ColumnHeader { title: walk.string(column, "title"), unit: walk.string(column, "unit"), default, labels }
}
