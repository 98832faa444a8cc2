//! `[connection.NAME]`: Kafka, files, a database, or the generator of the demo.

use std::collections::BTreeMap;
use std::path::Path;

use super::load::{expand_url, read_mysql_url};
use super::paths::path_inside;
use super::properties::read_properties;
use super::secrets::warn_of_url;
use super::tls::{TLS_KEYS, read_tls};
use super::{Connection, GeneratorConfig, MysqlAddress, Secret, Tls};
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Walk};

#[derive(Clone, Copy)]
enum Kind {
    Kafka,
    File,
    Mysql,
    Generator,
}

/// Reads one connection; `None` when it is not sound, or its variables are not filled in.
pub(super) fn read_connection(walk: &mut Walk<'_>, section: &Section<'_>, root: &Path) -> Option<Connection> {
    if section.table.get("type").is_none() {
        walk.missing(section, "type", "type = \"kafka\" (or \"file\", \"mysql\", \"generator\")");
        return None;
    }
    let kinds = [("kafka", Kind::Kafka), ("file", Kind::File), ("mysql", Kind::Mysql), ("generator", Kind::Generator)];
    match walk.word(section, "type", &kinds)? {
        Kind::Kafka => read_kafka(walk, section, root),
        Kind::Mysql => {
            walk.check_keys(section, &[&["type", "url"][..], &TLS_KEYS].concat());
            if section.table.get("url").is_none() {
                walk.missing(section, "url", "url = \"mysql://reader:${CRM_PASSWORD}@crm:3306/crm\"");
            }
            let tls = read_tls(walk, section, root);
            Some(Connection::Mysql(MysqlAddress { url: read_mysql_url(walk, section)?, tls }))
        }
        Kind::File => {
            walk.check_keys(section, &["type", "path", "follow"]);
            if section.table.get("path").is_none() {
                walk.missing(section, "path", "path = \"data\" (a folder of the project)");
            }
            let follow = walk.boolean(section, "follow").unwrap_or(false);
            Some(Connection::File { path: path_inside(walk, section, "path", root)?, follow })
        }
        Kind::Generator => {
            walk.check_keys(section, &["type", "rate", "seed", "users", "history_days", "history_events"]);
            let mut number = |key, least, default: u64| match walk.integer(section, key, least..=i64::MAX) {
                Some(number) => u64::try_from(number).unwrap_or(default),
                None => default,
            };
            let rate = number("rate", 0, 1000);
            let seed = number("seed", 0, 42);
            let users = number("users", 1, 20_000);
            let history_events = number("history_events", 0, 200_000);
            let history_days = walk.integer(section, "history_days", 0..=36_500).unwrap_or(45);
            let history_days = u32::try_from(history_days).unwrap_or(45);
            Some(Connection::Generator(GeneratorConfig { rate, seed, users, history_days, history_events }))
        }
    }
}

fn read_kafka(walk: &mut Walk<'_>, section: &Section<'_>, root: &Path) -> Option<Connection> {
    walk.check_keys(section, &[&["type", "brokers", "registry", "kafka"][..], &TLS_KEYS].concat());
    if section.table.get("brokers").is_none() {
        walk.missing(section, "brokers", "brokers = \"kafka:9092\"");
    }
    let brokers = walk.text(section, "brokers");
    if let Some(brokers) = &brokers
        && brokers.value.as_deref().is_some_and(|brokers| brokers.split(',').any(|broker| broker.trim().is_empty()))
    {
        let message = format!("\"brokers\" in {} names no broker, or an empty one", section.label);
        walk.error(codes::BAD_VALUE, brokers.span.clone(), message).help("write host:port, separated by commas");
    }
    let mut properties = BTreeMap::new();
    let mut sound = true;
    if let Some(inner) = walk.section(section, "kafka", format!("the kafka properties of {}", section.label)) {
        sound = read_properties(walk, &inner, root, &mut properties);
    }
    let tls = read_tls(walk, section, root);
    sound &= add_tls(walk, section, &tls, &mut properties);
    let registry = match section.table.get("registry") {
        Some(_) => Some(read_registry(walk, section)?),
        None => None,
    };
    let brokers = brokers?.value?;
    sound.then_some(Connection::Kafka { brokers, properties, registry })
}

/// The connection's files for TLS as properties of librdkafka, and a protocol that encrypts.
fn add_tls(walk: &mut Walk<'_>, section: &Section<'_>, tls: &Tls, properties: &mut BTreeMap<String, Secret>) -> bool {
    if *tls == Tls::default() {
        return true;
    }
    let mut sound = true;
    let files = [("ca", "ssl.ca.location", &tls.ca), ("cert", "ssl.certificate.location", &tls.cert)];
    for (key, property, file) in files.into_iter().chain([("key", "ssl.key.location", &tls.key)]) {
        let Some(file) = file else { continue };
        // A path that is no text cannot have come out of the file's own text.
        if properties.insert(property.to_owned(), Secret::new(file.to_string_lossy())).is_some() {
            let message = format!("{} has \"{key}\" and the property \"{property}\"", section.label);
            walk.error(codes::OWNED_PROPERTY, section.span.clone(), message).help("remove one of them");
            sound = false;
        }
    }
    let has_login = properties.contains_key("sasl.mechanism") || properties.contains_key("sasl.mechanisms");
    let protocol = if has_login { "SASL_SSL" } else { "SSL" };
    let written = properties.entry("security.protocol".to_owned()).or_insert_with(|| Secret::new(protocol));
    if !written.expose().to_ascii_uppercase().ends_with("SSL") {
        let message = format!("{} has files for TLS, but its \"security.protocol\" goes without", section.label);
        walk.error(codes::OWNED_PROPERTY, section.span.clone(), message)
            .help("remove the property, or write \"SSL\" or \"SASL_SSL\"");
        sound = false;
    }
    sound
}

/// The address of a schema registry; `None` when it is not sound, or its variables are not filled in.
fn read_registry(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Secret> {
    let value = section.table.get("registry")?;
    let Some(raw) = value.get_ref().as_str() else {
        walk.wrong_type(&section.label, "registry", value, "a string");
        return None;
    };
    let span = walk.at(value.span());
    warn_of_url(walk, section, "registry", raw, span.clone());
    let address = expand_url(walk, raw, span.clone(), section.used)?;
    let is_sound = url::Url::parse(&address).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !is_sound {
        // It may hold a password: only that it is none is said.
        walk.error(codes::REGISTRY_URL, span, format!("\"registry\" in {} is not an address of HTTP", section.label))
            .help("write http://HOST:8081, or https://USER:${PASSWORD_VARIABLE}@HOST");
        return None;
    }
    Some(Secret::new(address.trim_end_matches('/')))
}
