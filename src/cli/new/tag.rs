//! `tagflow new tag NAME --template T`: a tag file out of a template, in the columns of what it reads.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::columns::{ReadColumn, Readable};
use super::templates::{Need, TEMPLATES, Template, list};
use super::{ident, report, toml_text, write_new};
use crate::cli::{FAILED, Format, OK, ProjectArgs, USAGE, complain, load, no_project, print_diagnostics};
use crate::config::Entity;
use crate::diagnostic::nearest;
use crate::engine::desired::is_sound;
use crate::inside::inside;
use crate::plan::sql::format::format;
use crate::plan::wording::sql_type;
use crate::project::{self, Project};
use crate::tag::{FOLDER, NAME_RULE, is_tag_name};

/// Arguments of `tagflow new tag`.
#[derive(Debug, clap::Args)]
pub(super) struct TagArgs {
    /// The tag's name, with the folders below tags/ that it belongs in: consumption/spend_30d.
    name: String,
    /// What the tag is to do; without it the templates are listed.
    #[arg(long, short)]
    template: Option<String>,
    /// The stream, view or tag (tags.NAME) that it reads.
    #[arg(long, value_name = "STREAM")]
    from: Option<String>,
    /// What the tag describes, where the project has several entities.
    #[arg(long)]
    entity: Option<String>,
    /// The column with the entity's key, where it is not called as the key is.
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// The column that says when something happened.
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// The column of numbers to add up.
    #[arg(long, value_name = "COLUMN")]
    amount: Option<String>,
    /// The column of text that tells kinds apart.
    #[arg(long, value_name = "COLUMN")]
    by: Option<String>,
    /// Who answers for the tag; git's user.name where it is not said.
    #[arg(long)]
    owner: Option<String>,
    #[command(flatten)]
    project: ProjectArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Why there is no file; wrong usage, all of it.
pub(super) struct Refusal(String);

/// What a template is filled in with.
struct Choice<'a> {
    template: &'static Template,
    entity: (&'a str, &'a Entity),
    from: Readable,
    key: ReadColumn,
    time: Option<ReadColumn>,
    amount: Option<ReadColumn>,
    by: Option<ReadColumn>,
}

/// Writes the file, and checks it as `tagflow check` does.
pub(super) fn run(args: &TagArgs, out: &mut dyn Write) -> u8 {
    let loaded = project::load(&args.project.project, args.project.profile.as_deref());
    let Some(project) = &loaded.project else {
        return complain(no_project(&args.project.project));
    };
    let file = match write(args, project, out) {
        Ok(file) => file,
        Err(Refusal(message)) => {
            complain(message);
            return USAGE;
        }
    };
    let (mut loaded, _) = load(&args.project);
    loaded.diagnostics.retain(|diagnostic| diagnostic.file == file);
    if args.format == Format::Human {
        print_diagnostics(&loaded, Format::Human, out, false);
    }
    if is_sound(&loaded.diagnostics) { OK } else { FAILED }
}

/// Writes the file and says so.
pub(super) fn write(args: &TagArgs, project: &Project, out: &mut dyn Write) -> Result<PathBuf, Refusal> {
    let (file, name) = new_file(args)?;
    if let Some(known) = project.tags.get(&name) {
        return Err(Refusal(format!("the tag `{name}` is already in {}", known.file.display())));
    }
    let choice = choose(args, project, &name)?;
    let text = fill(&choice, &name, args.owner.clone().or_else(git_user));
    // As `tagflow fmt` leaves it; what that cannot lay out is no reason to write nothing.
    let text = format(&file, &text).unwrap_or(text);
    write_new(&args.project.project, &file, &text).map_err(|error| Refusal(format!("{}: {error}", file.display())))?;
    let name_of = |column: &Option<ReadColumn>| column.as_ref().map(|column| column.name.clone());
    let (time, amount, by) = (name_of(&choice.time), name_of(&choice.amount), name_of(&choice.by));
    let mut remarks = vec![format!("reads {}, keyed by {}", choice.from.name, choice.key.name)];
    for (what, column) in [("time", &time), ("amount", &amount), ("by", &by)] {
        remarks.extend(column.iter().map(|column| format!("--{what} {column}")));
    }
    let facts = json!({
        "template": choice.template.name, "from": choice.from.name, "entity": choice.entity.0,
        "key": choice.key.name, "time": time, "amount": amount, "by": by,
    });
    report(out, args.format, &file, &facts, &remarks);
    Ok(file)
}

/// The file, and the tag's name.
fn new_file(args: &TagArgs) -> Result<(PathBuf, String), Refusal> {
    let path = args.name.strip_prefix("tags/").unwrap_or(&args.name);
    let path = path.strip_suffix(".sql").unwrap_or(path);
    let Some(path) = inside(path) else {
        return Err(Refusal(format!("`{}` leaves the folder tags/", args.name)));
    };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_tag_name(&name) {
        return Err(Refusal(format!("`{name}` cannot be the name of a tag: {NAME_RULE}")));
    }
    Ok((Path::new(FOLDER).join(path).with_extension("sql"), name))
}

fn choose<'a>(args: &TagArgs, project: &'a Project, name: &str) -> Result<Choice<'a>, Refusal> {
    let Some(wanted) = &args.template else {
        return Err(Refusal(format!("say what the tag is to do, with --template:\n{}", list().trim_end())));
    };
    let wanted = wanted.to_lowercase().replace('-', "_");
    let Some(template) = TEMPLATES.iter().find(|template| template.name == wanted) else {
        let near = nearest(&wanted, TEMPLATES.iter().map(|template| template.name));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(Refusal(format!("there is no template `{wanted}`{near}\n{}", list().trim_end())));
    };
    let entity = choose_entity(args, project)?;
    if name.eq_ignore_ascii_case(&entity.1.key) {
        return Err(Refusal(format!("`{name}` is the key of the entity `{}`: give the tag another name", entity.0)));
    }
    let from = choose_source(args, project, name, entity.0)?;
    let key = match &args.key {
        Some(key) => named(&from, "key", key)?,
        None => from.column(&entity.1.key).cloned().ok_or_else(|| {
            let (stream, key) = (&from.name, &entity.1.key);
            let same_type = from.declared().filter(|column| column.data_type == entity.1.key_type);
            let names: Vec<&str> = same_type.map(|column| column.name.as_str()).collect();
            let which = if names.is_empty() { "none has its type".to_string() } else { names.join(", ") };
            Refusal(format!(
                "`{stream}` has no column `{key}`, the key of the entity `{}`; say which one holds it with --key: {which}",
                entity.0
            ))
        })?,
    };
    let column = |need: Need, option: &str, given: &Option<String>| -> Result<Option<ReadColumn>, Refusal> {
        if let Some(given) = given {
            let column = named(&from, option, given)?;
            if !column.serves(need) {
                let (stream, data_type) = (&from.name, sql_type(&column.data_type));
                return Err(Refusal(format!(
                    "--{option}: `{given}` of `{stream}` is of type {data_type}: {}",
                    what(need)
                )));
            }
            return Ok(Some(column));
        }
        if !template.needs.contains(&need) {
            return Ok(None);
        }
        from.guess(need, &key.name).cloned().map(Some).ok_or_else(|| {
            let stream = &from.name;
            Refusal(format!("the template `{}` needs {}, and `{stream}` has none", template.name, what(need)))
        })
    };
    let time = column(Need::Time, "time", &args.time)?;
    let amount = column(Need::Amount, "amount", &args.amount)?;
    let by = column(Need::By, "by", &args.by)?;
    Ok(Choice { template, entity, from, key, time, amount, by })
}

fn what(need: Need) -> &'static str {
    match need {
        Need::Time => "a column of type TIMESTAMP",
        Need::Amount => "a column of numbers",
        Need::By => "a column of text",
    }
}

fn named(from: &Readable, option: &str, name: &str) -> Result<ReadColumn, Refusal> {
    from.column(name).cloned().ok_or_else(|| {
        let names: Vec<&str> = from.declared().map(|column| column.name.as_str()).collect();
        let near = nearest(name, names.iter().copied());
        let help =
            near.map_or_else(|| format!("it has {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        Refusal(format!("--{option}: `{}` has no column `{name}`; {help}", from.name))
    })
}

fn choose_entity<'a>(args: &TagArgs, project: &'a Project) -> Result<(&'a str, &'a Entity), Refusal> {
    let entities = &project.config.entities;
    let names = || entities.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let found = match (&args.entity, entities.len()) {
        (Some(name), _) => entities.get_key_value(name),
        (None, 1) => entities.iter().next(),
        (None, _) => return Err(Refusal(format!("say what the tag describes, with --entity: {}", names()))),
    };
    let found = found.map(|(name, entity)| (name.as_str(), entity));
    found.ok_or_else(|| {
        let name = args.entity.as_deref().unwrap_or_default();
        Refusal(format!("there is no entity `{name}`; the project has {}", names()))
    })
}

fn choose_source(args: &TagArgs, project: &Project, tag: &str, entity: &str) -> Result<Readable, Refusal> {
    let catalog = &project.catalog;
    let names: Vec<&str> = catalog.streams.keys().chain(catalog.views.keys()).map(String::as_str).collect();
    let from = match (&args.from, names.as_slice()) {
        (Some(from), _) => from.as_str(),
        (None, [only]) => only,
        (None, []) => {
            return Err(Refusal("the project has no stream yet: `tagflow new schema NAME` writes one".to_string()));
        }
        (None, _) => return Err(Refusal(format!("say what the tag reads, with --from: {}", names.join(", ")))),
    };
    let is_known =
        names.contains(&from) || from.strip_prefix("tags.").is_some_and(|tag| project.tags.contains_key(tag));
    if !is_known {
        let near = nearest(from, names.iter().copied());
        let help =
            near.map_or_else(|| format!("there are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        return Err(Refusal(format!("there is no stream or view `{from}`; {help}")));
    }
    Readable::find(project, from, tag, entity)
        .ok_or_else(|| Refusal(format!("`{from}` cannot be read; `tagflow check` says why")))
}

/// The text of the file.
fn fill(choice: &Choice<'_>, name: &str, owner: Option<String>) -> String {
    let (entity, declared) = choice.entity;
    let key = ident(&choice.key.name);
    let entity_key = ident(&declared.key);
    let key_as = if choice.key.name == declared.key { key.clone() } else { format!("{key} AS {entity_key}") };
    let not_null =
        |before: &str| if choice.key.nullable { format!("{before} {key} IS NOT NULL") } else { String::new() };
    let column = |column: &Option<ReadColumn>| column.as_ref().map(|column| ident(&column.name)).unwrap_or_default();
    // What `last` shows beside the time: not a whole record of forty columns.
    let is_shown = |shown: &&ReadColumn| {
        shown.name != choice.key.name
            && !shown.name.eq_ignore_ascii_case(name)
            && !shown.name.eq_ignore_ascii_case(&declared.key)
            && Some(&shown.name) != choice.time.as_ref().map(|time| &time.name)
    };
    let shown: Vec<String> = choice.from.declared().filter(is_shown).map(|column| ident(&column.name)).collect();
    let columns: String = shown.iter().take(4).map(|column| format!(", {column}")).collect();
    let ties = match choice.from.ties.as_slice() {
        [] => shown.clone(),
        ties => ties.iter().map(|column| ident(column)).collect(),
    };
    let ties: String = ties.iter().map(|column| format!(", {column} DESC NULLS LAST")).collect();
    let mut header = match owner {
        Some(owner) => format!("owner       = {}", toml_text(&owner.replace("/*", "").replace("*/", ""))),
        None => "# owner     = \"who answers for it\"".to_string(),
    };
    header.push_str(&format!("\nentity      = {}", toml_text(entity)));
    let title: String = name.replace('_', " ");
    let values = [
        ("{title}", title),
        ("{name}", ident(name)),
        ("{owner}", header),
        ("{entity}", entity.to_string()),
        ("{stream}", choice.from.name.clone()),
        ("{key_as}", key_as),
        ("{key}", key.clone()),
        ("{entity_key}", entity_key),
        ("{and_key}", not_null("\n  AND")),
        ("{where_key}", not_null("\nWHERE")),
        ("{time}", column(&choice.time)),
        ("{amount}", column(&choice.amount)),
        ("{by}", column(&choice.by)),
        ("{columns}", columns),
        ("{ties}", ties),
    ];
    fill_in(choice.template.text, &values)
}

/// Fills in every place in one pass: a value that looks like a place stays as it is.
fn fill_in(template: &str, values: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        match values.iter().find(|(place, _)| rest.starts_with(place)) {
            Some((place, value)) => {
                text.push_str(value);
                rest = &rest[place.len()..];
            }
            None => {
                text.push('{');
                rest = &rest[1..];
            }
        }
    }
    text + rest
}

fn git_user() -> Option<String> {
    let output = Command::new("git").args(["config", "user.name"]).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (output.status.success() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_once() {
        let values = [("{name}", "{stream}".to_string()), ("{stream}", "orders".to_string())];
        assert_eq!(fill_in("{name} {stream} { x = 1 } {", &values), "{stream} orders { x = 1 } {");
    }
}
