//! Reads `tagflow.toml`: profiles laid over it, variables filled in, every value checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::datatypes::DataType;
use chrono_tz::Tz;

use super::connection::read_connection;
use super::paths::path_of_machine;
use super::secrets::warn_of_url;
use super::settings::{read_engine, read_serve};
use super::tls::{TLS_KEYS, read_tls};
use super::{Config, Connection, Entity, MysqlAddress, Secret, Store, Tls};
use crate::column_type::parse_column_type;
use crate::diagnostic::{Diagnostic, codes, nearest};
use crate::toml_walk::{Environment, Section, Walk};

const KEYS: &[&str] = &["timezone", "entity", "connection", "store", "engine", "serve", "lints", "profile"];
const PROFILE_KEYS: &[&str] = &["connection", "store", "engine", "serve"];
/// The folder of the state without a profile.
const NO_PROFILE: &str = "default";

/// What schema and tag files must know of `tagflow.toml`, sound or not, so that one pass finds all problems.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    /// The project's zone, or UTC when it could not be read.
    pub(crate) timezone: Tz,
    /// Declared entities; `None` when unknown.
    pub(crate) entities: Option<BTreeSet<String>>,
    /// Declared connections; `None` when unknown.
    pub(crate) connections: Option<BTreeMap<String, Origin>>,
}

/// What streams must know of their connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A cluster, and whether it has a schema registry.
    Kafka { has_registry: bool },
    /// Files.
    File,
    /// A database.
    Mysql,
    /// The generator.
    Generator,
    /// What cannot be made out.
    Unknown,
}

impl Outline {
    /// Of settings that are sound; of connections nothing is said.
    pub(crate) fn of(config: &Config) -> Self {
        let entities = Some(config.entities.keys().cloned().collect());
        Outline { timezone: config.timezone, entities, connections: None }
    }

    /// What is known when `tagflow.toml` cannot be read at all.
    pub(crate) fn unknown() -> Self {
        Outline { timezone: Tz::UTC, entities: None, connections: None }
    }
}

/// What reading `tagflow.toml` gave.
pub(crate) struct Reading {
    /// The settings, when all of them are sound.
    pub(crate) config: Option<Config>,
    /// What is declared, sound or not.
    pub(crate) outline: Outline,
    /// All problems.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Reads the text of `tagflow.toml` under a profile. `file` names it in diagnostics, `root` is the project's folder,
/// `env` looks up environment variables; what they hold never appears in a message.
///
/// The settings are `None` when anything is wrong.
pub fn load(
    text: &str,
    file: &Path,
    root: &Path,
    profile: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> (Option<Config>, Vec<Diagnostic>) {
    let reading = read(text, file, root, profile, env, None);
    (reading.config, reading.diagnostics)
}

/// [`load`], with what is declared even where it is not sound. Variables of connections that are not among
/// `needed` need not be set: such a connection is left out. `None` needs all.
pub(crate) fn read(
    text: &str,
    file: &Path,
    root: &Path,
    profile: Option<&str>,
    env: Environment<'_>,
    needed: Option<&BTreeSet<String>>,
) -> Reading {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let mut walk = Walk::new(file, text).with_variables(env, &root);
    let Some(table) = walk.parse(0..text.len()) else {
        return Reading { config: None, outline: Outline::unknown(), diagnostics: walk.diagnostics };
    };
    let document = Section::root("tagflow.toml", &table);
    walk.check_keys(&document, KEYS);
    let overlay = read_profiles(&mut walk, &document, profile, &root);
    let timezone = read_timezone(&mut walk, &document);
    let (entities, declared) = read_entities(&mut walk, &document, timezone.unwrap_or(Tz::UTC));
    let (connections, kinds) = read_connections(&mut walk, &document, overlay.as_ref(), &root, needed);
    let store = read_store(&mut walk, &document, overlay.as_ref(), &root);

    let (engine_below, engine_above) = layers(&mut walk, &document, overlay.as_ref(), "engine");
    let state_folder = profile.unwrap_or(NO_PROFILE);
    let engine = read_engine(&mut walk, engine_below.as_ref(), engine_above.as_ref(), &root, state_folder);
    let (serve_below, serve_above) = layers(&mut walk, &document, overlay.as_ref(), "serve");
    let serve = read_serve(&mut walk, serve_below.as_ref(), serve_above.as_ref());

    let lints = walk.lints(&document);
    let outline = Outline { timezone: timezone.unwrap_or(Tz::UTC), entities: Some(declared), connections: Some(kinds) };
    let config = match (timezone, store) {
        (Some(timezone), Some(store)) if walk.is_sound() => Some(Config {
            root,
            profile: profile.map(str::to_owned),
            timezone,
            entities,
            connections,
            store,
            engine,
            serve,
            lints,
        }),
        _ => None,
    };
    Reading { config, outline, diagnostics: walk.diagnostics }
}

/// True for names of entities, connections and profiles.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn check_name(walk: &mut Walk<'_>, what: &str, name: &str, section: &Section<'_>) {
    if !is_name(name) {
        walk.error(codes::CONFIG_NAME, section.span.clone(), format!("\"{name}\" cannot be the name of {what}"))
            .help("a name starts with a letter and goes on with letters, digits, _ and -");
    }
}

/// Checks every profile and gives the chosen one.
fn read_profiles<'t>(
    walk: &mut Walk<'_>,
    document: &Section<'t>,
    chosen: Option<&str>,
    root: &Path,
) -> Option<Section<'t>> {
    let profiles = walk.sections(document, "profile");
    for (name, section) in &profiles {
        check_name(walk, "a profile", name, section);
        if name == NO_PROFILE {
            walk.error(codes::PROFILE, section.span.clone(), "a profile cannot be named \"default\"")
                .help("\"default\" is what runs without --profile: put these settings outside of [profile.…]");
        }
        walk.check_keys(section, PROFILE_KEYS);
        for (connection, inner) in profile_connections(walk, section) {
            check_name(walk, "a connection", &connection, &inner);
        }
        if chosen != Some(name) {
            check_unused_profile(walk, section, root);
        }
    }
    let chosen = chosen?;
    let found = profiles.iter().find(|(name, _)| name == chosen);
    if found.is_none() {
        let names: Vec<&str> = profiles.iter().map(|(name, _)| name.as_str()).collect();
        let help = match nearest(chosen, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if names.is_empty() => "run without --profile, or declare one: [profile.demo]".to_owned(),
            None => format!("declared profiles: {}", names.join(", ")),
        };
        walk.error(codes::PROFILE, None, format!("there is no profile \"{chosen}\" in tagflow.toml")).help(help);
    }
    found.map(|(_, section)| section.clone())
}

/// Connections that a profile declares.
fn profile_connections<'t>(walk: &mut Walk<'_>, profile: &Section<'t>) -> Vec<(String, Section<'t>)> {
    let mut connections = walk.sections(profile, "connection");
    for (name, section) in &mut connections {
        section.label = format!("connection.{name} of {}", profile.label);
    }
    connections
}

/// A mistake in a profile that is not chosen is a mistake all the same; only its variables need not be set.
fn check_unused_profile(walk: &mut Walk<'_>, profile: &Section<'_>, root: &Path) {
    let unused = Section { used: false, ..profile.clone() };
    for (_, section) in quietly(walk, |walk| profile_connections(walk, &unused)) {
        read_connection(walk, &section, root);
    }
    let mut layer = |key: &str| walk.section(&unused, key, format!("{key} of {}", unused.label));
    let (store, engine, serve) = (layer("store"), layer("engine"), layer("serve"));
    if let Some(store) = store {
        read_store_url(walk, &store, root);
        read_tls(walk, &store, root);
    }
    read_engine(walk, None, engine.as_ref(), root, NO_PROFILE);
    read_serve(walk, None, serve.as_ref());
}

/// The table `key` of the document and of the chosen profile; the second replaces the first key by key.
fn layers<'t>(
    walk: &mut Walk<'_>,
    document: &Section<'t>,
    overlay: Option<&Section<'t>>,
    key: &str,
) -> (Option<Section<'t>>, Option<Section<'t>>) {
    let above = overlay.and_then(|overlay| {
        let label = format!("{key} of {}", overlay.label);
        walk.section(overlay, key, label)
    });
    let below = walk
        .section(document, key, format!("[{key}]"))
        .map(|below| Section { shadow: above.as_ref().map(|above| above.table), ..below });
    (below, above)
}

fn read_timezone(walk: &mut Walk<'_>, document: &Section<'_>) -> Option<Tz> {
    if document.table.get("timezone").is_none() {
        walk.missing(
            document,
            "timezone",
            "timezone = \"Asia/Shanghai\" (what CURRENT_DATE and a bare TIMESTAMP mean)",
        );
        return None;
    }
    let text = walk.text(document, "timezone")?;
    let found = text.value.as_deref()?.parse::<Tz>().ok();
    if found.is_none() {
        let help = match nearest(&text.raw, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name())) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "write a name of the IANA time zone database, such as \"Asia/Shanghai\" or \"UTC\"".to_owned(),
        };
        walk.error(codes::BAD_VALUE, text.span, format!("\"{}\" is not a time zone", text.raw)).help(help);
    }
    found
}

fn read_entities(
    walk: &mut Walk<'_>,
    document: &Section<'_>,
    timezone: Tz,
) -> (BTreeMap<String, Entity>, BTreeSet<String>) {
    let sections = walk.sections(document, "entity");
    let is_told = walk.is_misspelt(document, "entity");
    if sections.is_empty() && !is_told && document.table.get("entity").is_none_or(|value| value.get_ref().is_table()) {
        walk.error(codes::MISSING_KEY, None, "tagflow.toml declares no entity: tags have nothing to describe")
            .help("add for example: [entity.user] with key = \"user_id\" and type = \"BIGINT\"");
    }
    let mut entities = BTreeMap::new();
    let mut declared = BTreeSet::new();
    for (name, section) in sections {
        declared.insert(name.clone());
        check_name(walk, "an entity", &name, &section);
        walk.check_keys(&section, &["key", "type", "title"]);
        if section.table.get("key").is_none() {
            walk.missing(&section, "key", "key = \"user_id\" (the column that every tag of it has)");
        }
        if section.table.get("type").is_none() {
            walk.missing(&section, "type", "type = \"BIGINT\" (the type of its key)");
        }
        let key = walk.text(&section, "key");
        if let Some(key) = &key
            && key.value.as_deref().is_some_and(|key| !is_column(key))
        {
            walk.error(codes::BAD_VALUE, key.span.clone(), format!("\"{}\" cannot be a column name", key.raw))
                .help("write the plain name of a column: letters, digits and _");
        }
        let key_type = read_key_type(walk, &section, timezone);
        let title = walk.string(&section, "title");
        if let (Some(key), Some(key_type)) = (key.and_then(|key| key.value), key_type) {
            entities.insert(name, Entity { key, key_type, title });
        }
    }
    (entities, declared)
}

fn is_column(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic()) && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn read_key_type(walk: &mut Walk<'_>, section: &Section<'_>, timezone: Tz) -> Option<DataType> {
    let text = walk.text(section, "type")?;
    match parse_column_type(text.value.as_deref()?, timezone) {
        Ok((found, _)) if found.is_integer() || matches!(found, DataType::Utf8 | DataType::Date32) => Some(found),
        Ok(_) => {
            walk.error(
                codes::COLUMN_TYPE,
                text.span,
                format!("{} cannot have a key of type \"{}\"", section.label, text.raw),
            )
            .help("a key is a whole number, text or a DATE: BIGINT, VARCHAR …");
            None
        }
        Err(problem) => {
            // What a variable holds is not for messages.
            let message = match text.value.as_ref() == Some(&text.raw) {
                true => problem.message,
                false => format!("\"{}\" does not hold a column type", text.raw),
            };
            walk.error(codes::COLUMN_TYPE, text.span, message).help(problem.help);
            None
        }
    }
}

/// Connections by name, and of every declared one what streams must know.
fn read_connections(
    walk: &mut Walk<'_>,
    document: &Section<'_>,
    overlay: Option<&Section<'_>>,
    root: &Path,
    needed: Option<&BTreeSet<String>>,
) -> (BTreeMap<String, Connection>, BTreeMap<String, Origin>) {
    let is_needed = |name: &str| needed.is_none_or(|needed| needed.contains(name));
    let above = match overlay {
        // Its tables were checked as such with the other profiles; a second look must not say so twice.
        Some(overlay) => quietly(walk, |walk| profile_connections(walk, overlay)),
        None => Vec::new(),
    };
    let mut connections = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    for (name, section) in walk.sections(document, "connection") {
        check_name(walk, "a connection", &name, &section);
        let stays = !above.iter().any(|(replacing, _)| *replacing == name);
        let used = stays && is_needed(&name);
        let found = read_connection(walk, &Section { used, ..section.clone() }, root);
        if stays {
            kinds.insert(name.clone(), origin_of(&section));
            connections.extend(found.map(|found| (name, found)));
        }
    }
    for (name, section) in above {
        let used = is_needed(&name);
        let found = read_connection(walk, &Section { used, ..section.clone() }, root);
        kinds.insert(name.clone(), origin_of(&section));
        connections.extend(found.map(|found| (name, found)));
    }
    (connections, kinds)
}

fn origin_of(section: &Section<'_>) -> Origin {
    match section.table.get("type").and_then(|value| value.get_ref().as_str()) {
        Some("kafka") => Origin::Kafka { has_registry: section.table.get("registry").is_some() },
        Some("file") => Origin::File,
        Some("mysql") => Origin::Mysql,
        Some("generator") => Origin::Generator,
        _ => Origin::Unknown,
    }
}

/// Runs `read` without keeping what it finds wrong.
fn quietly<T>(walk: &mut Walk<'_>, read: impl FnOnce(&mut Walk<'_>) -> T) -> T {
    let before = walk.diagnostics.len();
    let found = read(walk);
    walk.diagnostics.truncate(before);
    found
}

fn read_store(
    walk: &mut Walk<'_>,
    document: &Section<'_>,
    overlay: Option<&Section<'_>>,
    root: &Path,
) -> Option<Store> {
    let (below, above) = layers(walk, document, overlay, "store");
    let lower = below.as_ref().map(|section| read_store_url(walk, section, root));
    let upper = above.as_ref().map(|section| read_store_url(walk, section, root));
    if lower.is_none() && upper.is_none() {
        if document.table.get("store").is_none() && !walk.is_misspelt(document, "store") {
            walk.error(codes::MISSING_KEY, None, "tagflow.toml does not say where tags are stored")
                .help("add for example: [store] with url = \"mysql://tagflow:${TAGFLOW_DB_PASSWORD}@db:3306/tags\"");
        }
        return None;
    }
    let mut tls =
        |section: Option<&Section<'_>>| section.map(|section| read_tls(walk, section, root)).unwrap_or_default();
    let (lower_tls, upper_tls) = (tls(below.as_ref()), tls(above.as_ref()));
    let written = |section: &Option<Section<'_>>| section.as_ref().is_some_and(|s| s.table.get("url").is_some());
    if !written(&below) && !written(&above) {
        let section = above.or(below)?;
        walk.missing(&section, "url", "url = \"mysql://tagflow:${TAGFLOW_DB_PASSWORD}@db:3306/tags\"");
    }
    let mut store = upper.flatten().or_else(|| lower.flatten())?;
    if let Store::Mysql(address) = &mut store {
        address.tls = upper_tls.over(lower_tls);
    }
    Some(store)
}

fn read_store_url(walk: &mut Walk<'_>, section: &Section<'_>, root: &Path) -> Option<Store> {
    walk.check_keys(section, &[&["url"][..], &TLS_KEYS].concat());
    let value = section.table.get("url")?;
    let Some(raw) = value.get_ref().as_str() else {
        walk.wrong_type(&section.label, "url", value, "a string");
        return None;
    };
    let span = walk.at(value.span());
    let used = section.used && section.shadow.is_none_or(|shadow| shadow.get("url").is_none());
    let url = expand_url(walk, raw, span.clone(), used)?;
    if let Some(path) = url.strip_prefix("sqlite:") {
        if path.is_empty() || path.starts_with(':') {
            walk.error(codes::STORE_URL, span, "a SQLite store needs a file").help("write for example: sqlite:tags.db");
            return None;
        }
        return path_of_machine(walk, section, "url", path, span, root).map(Store::Sqlite);
    }
    warn_of_url(walk, section, "url", raw, span.clone());
    let help = "write mysql://USER:${PASSWORD_VARIABLE}@HOST:3306/DATABASE, or sqlite:FILE";
    let is_other = "is neither mysql:// nor sqlite:";
    let url = sound_mysql_url(walk, url, span, ["the store's url", is_other, help])?;
    Some(Store::Mysql(MysqlAddress { url, tls: Tls::default() }))
}

/// The address of a database that is read from.
pub(super) fn read_mysql_url(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Secret> {
    let value = section.table.get("url")?;
    let Some(raw) = value.get_ref().as_str() else {
        walk.wrong_type(&section.label, "url", value, "a string");
        return None;
    };
    let span = walk.at(value.span());
    warn_of_url(walk, section, "url", raw, span.clone());
    let url = expand_url(walk, raw, span.clone(), section.used)?;
    let help = "write mysql://USER:${PASSWORD_VARIABLE}@HOST:3306/DATABASE";
    sound_mysql_url(walk, url, span, ["the connection's url", "is not mysql://", help])
}

/// An address that names all that is needed. It may hold a password: messages only name its parts.
fn sound_mysql_url(
    walk: &mut Walk<'_>,
    url: String,
    span: std::ops::Range<usize>,
    [what, is_other, help]: [&str; 3],
) -> Option<Secret> {
    match mysql_problem(&url, is_other) {
        None => Some(Secret::new(url)),
        Some(problem) => {
            walk.error(codes::STORE_URL, span, format!("{what} {problem}")).help(help);
            None
        }
    }
}

/// Fills in variables; those before the last `@` are user and password, and are escaped as an address wants it.
pub(super) fn expand_url(walk: &mut Walk<'_>, raw: &str, span: std::ops::Range<usize>, used: bool) -> Option<String> {
    let Some((login, place)) = raw.rsplit_once('@').filter(|(login, _)| login.contains("://")) else {
        return walk.expanded(raw, span, used, &|value| value.to_owned()).value;
    };
    let escape =
        |value: &str| url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20");
    let login = walk.expanded(login, span.clone(), used, &escape).value;
    let place = walk.expanded(place, span, used, &|value| value.to_owned()).value;
    Some(format!("{}@{}", login?, place?))
}

/// What is wrong with an address; `is_other` where it is one of something else.
fn mysql_problem<'a>(address: &str, is_other: &'a str) -> Option<&'a str> {
    let Ok(address) = url::Url::parse(address) else { return Some("is not an address") };
    if address.scheme() != "mysql" {
        return Some(is_other);
    }
    if address.host_str().is_none_or(str::is_empty) {
        return Some("names no host");
    }
    if address.username().is_empty() {
        return Some("names no user");
    }
    let database = address.path().trim_matches('/');
    (database.is_empty() || database.contains('/')).then_some("names no database")
}
