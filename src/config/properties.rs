//! `[connection.NAME.kafka]`: properties of librdkafka. They pass through but for those that the engine sets itself, and those by
//! which a file of the project would run code of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::Secret;
use super::paths::path_of_machine;
use super::secrets::{is_secret_property, warn_of_value};
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Walk, in_order};

const OFFSETS: &str = "remove it: Tagflow keeps offsets with the tags, in one transaction";
const CODE: &str = "remove it: a project loads no code into Tagflow, and runs no commands";

/// Properties that decide what is read and when it counts as read: the engine's promise rests on its own values.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "write it as \"brokers\" of the connection"),
    ("metadata.broker.list", "write it as \"brokers\" of the connection"),
    ("enable.auto.commit", OFFSETS),
    ("auto.commit.enable", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("offset.store.method", OFFSETS),
    ("auto.offset.reset", "remove it and write start = \"earliest\" or \"latest\" in the stream's schema file"),
    ("enable.partition.eof", "remove it: Tagflow needs it for knowing when history ends"),
    ("isolation.level", "remove it: Tagflow reads records that were committed, and no others"),
    (
        "api.version.request",
        "remove it: brokers that are not asked for their version are read as if they knew no transactions",
    ),
    ("allow.auto.create.topics", "remove it: Tagflow creates no topics"),
];

/// Properties that name libraries to load, or commands to run.
const RUNNING: &[(&str, &str)] = &[
    ("plugin.library.paths", CODE),
    ("ssl.engine.location", CODE),
    ("ssl.providers", "remove it: the machine's openssl.cnf says which providers there are"),
    ("sasl.kerberos.kinit.cmd", "remove it: Tagflow renews the ticket of \"sasl.kerberos.principal\" by kinit"),
];

/// Collects the properties of a section; false where one is not sound.
pub(super) fn read_properties(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    root: &Path,
    properties: &mut BTreeMap<String, Secret>,
) -> bool {
    read_below(walk, section, "", section.table, root, properties)
}

/// Unquoted names with dots are tables within tables in TOML, and mean the same here.
fn read_below(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    prefix: &str,
    table: &DeTable<'_>,
    root: &Path,
    properties: &mut BTreeMap<String, Secret>,
) -> bool {
    let mut sound = true;
    for key in in_order(table) {
        let Some(value) = table.get(key.get_ref().as_ref()) else { continue };
        let name = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            sound &= read_below(walk, section, &format!("{name}."), inner, root, properties);
            continue;
        }
        if let Some((message, help)) = refused(&name) {
            walk.error(codes::OWNED_PROPERTY, walk.at(key.span()), message).help(help);
            sound = false;
            continue;
        }
        if is_secret_property(&name) {
            warn_of_value(walk, section, &name, value.get_ref().as_str(), walk.at(value.span()));
        }
        let span = walk.at(value.span());
        let text = walk.scalar(section, &name, value);
        match text.and_then(|text| checked(walk, section, &name, text, span, root)) {
            Some(text) => {
                properties.insert(name, Secret::new(text));
            }
            None => sound = false,
        }
    }
    sound
}

/// Why a property is none of the project's, and what to do.
fn refused(name: &str) -> Option<(String, &'static str)> {
    // librdkafka takes the properties of topics with this prefix too.
    let bare = name.strip_prefix("topic.").unwrap_or(name);
    let of = |list: &[(&str, &'static str)]| list.iter().find(|(known, _)| *known == bare).map(|(_, help)| *help);
    let owned = || of(OWNED).map(|help| (format!("the property \"{name}\" belongs to Tagflow"), help));
    owned().or_else(|| of(RUNNING).map(|help| (format!("the property \"{name}\" would run code of the project"), help)))
}

/// The value as it is passed on; `None` and an error where it cannot be.
fn checked(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    name: &str,
    text: String,
    span: Range<usize>,
    root: &Path,
) -> Option<String> {
    // What librdkafka itself looks for.
    let is_file = (name.ends_with(".location") || name.ends_with(".file")) && text != "probe";
    if is_file {
        let path = path_of_machine(walk, section, name, &text, span, root)?;
        return Some(path.to_string_lossy().into_owned());
    }
    // They become parts of a command that a shell reads.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/@:".contains(c);
    if name.starts_with("sasl.kerberos.") && !text.chars().all(is_plain) {
        let message = format!("\"{name}\" in {} has a character that means something to a shell", section.label);
        walk.error(codes::BAD_VALUE, span, message).help("possible are letters, digits and . _ - / @ :");
        return None;
    }
    Some(text)
}
