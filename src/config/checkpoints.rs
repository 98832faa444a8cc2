//! `checkpoints` of `[engine]`: a url, or a table with a url and what an object store needs to be told.

use std::time::Duration;

use super::{CheckpointPlace, S3Place, Secret};
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Text, Walk};

const KEYS: &[&str] = &[
    "url",
    "endpoint",
    "region",
    "allow_http",
    "virtual_hosted",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "timeout",
];
const HELP: &str = "write s3://BUCKET/PREFIX, or file:///FOLDER";

/// Reads `checkpoints` of one `[engine]`; `None` where it is not given, not sound, or replaced by a profile's.
pub(super) fn read_checkpoints(walk: &mut Walk<'_>, engine: &Section<'_>) -> Option<CheckpointPlace> {
    let value = engine.table.get("checkpoints")?;
    if value.get_ref().as_str().is_some() {
        let url = walk.text(engine, "checkpoints")?;
        return read_place(walk, &url, None);
    }
    if !value.get_ref().is_table() {
        walk.wrong_type(&engine.label, "checkpoints", value, "a url or a table with one");
        return None;
    }
    let section = walk.section(engine, "checkpoints", format!("checkpoints of {}", engine.label))?;
    let is_replaced = engine.shadow.is_some_and(|shadow| shadow.get("checkpoints").is_some());
    let section = Section { used: section.used && !is_replaced, ..section };
    walk.check_keys(&section, KEYS);
    if section.table.get("url").is_none() {
        walk.missing(&section, "url", "url = \"s3://tags/checkpoints\"");
        return None;
    }
    let url = walk.text(&section, "url");
    let options = read_options(walk, &section);
    let place = read_place(walk, &url?, Some((&section, options.clone().unwrap_or_default())));
    options.and(place)
}

/// What an object store needs to be told beside its url.
fn read_options(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<S3Place> {
    let before = walk.diagnostics.len();
    let endpoint = walk.text(section, "endpoint");
    let allow_http = walk.boolean(section, "allow_http");
    if let Some(endpoint) = &endpoint
        && let Some(value) = &endpoint.value
    {
        check_endpoint(walk, endpoint, value, allow_http);
    }
    let [access_key_id, secret_access_key, session_token] =
        ["access_key_id", "secret_access_key", "session_token"].map(|key| read_secret(walk, section, key));
    for (one, other) in [("access_key_id", "secret_access_key"), ("secret_access_key", "access_key_id")] {
        if let Some(value) = section.table.get(one)
            && section.table.get(other).is_none()
        {
            let message = format!("\"{one}\" in {} comes without \"{other}\"", section.label);
            walk.error(codes::MISSING_KEY, walk.at(value.span()), message)
                .help("write both, or neither: then AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are looked for");
        }
    }
    let options = S3Place {
        bucket: String::new(),
        prefix: String::new(),
        endpoint: endpoint.and_then(|endpoint| endpoint.value),
        region: walk.string(section, "region"),
        allow_http,
        virtual_hosted: walk.boolean(section, "virtual_hosted"),
        access_key_id,
        secret_access_key,
        session_token,
        timeout: walk.duration(section, "timeout", Duration::from_secs(1)).unwrap_or(S3Place::TIMEOUT),
    };
    (walk.diagnostics.len() == before).then_some(options)
}

fn check_endpoint(walk: &mut Walk<'_>, endpoint: &Text, value: &str, allow_http: Option<bool>) {
    let parsed = url::Url::parse(value).ok().filter(|url| {
        url.host_str().is_some_and(|host| !host.is_empty())
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    match parsed.as_ref().map(url::Url::scheme) {
        Some("https") => {}
        Some("http") if allow_http == Some(true) => {}
        Some("http") => {
            let message = "the endpoint of an object store is not encrypted: state would go over the network as it is";
            walk.error(codes::CHECKPOINTS_URL, endpoint.span.clone(), message)
                .help("write https://, or add allow_http = true where the network may be trusted");
        }
        _ => {
            let message = "the endpoint of an object store is not an address of HTTP";
            walk.error(codes::CHECKPOINTS_URL, endpoint.span.clone(), message)
                .help("write https://HOST:PORT; credentials have keys of their own");
        }
    }
}

/// A secret comes from the environment: files are committed.
fn read_secret(walk: &mut Walk<'_>, section: &Section<'_>, key: &str) -> Option<Secret> {
    let text = walk.text(section, key)?;
    let name = text.raw.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    if name.is_none_or(|name| name.contains(['{', '}', '$'])) {
        let message = format!("\"{key}\" in {} must come from the environment", section.label);
        walk.error(codes::CHECKPOINTS_URL, text.span, message)
            .help(format!("write {key} = \"${{NAME_OF_A_VARIABLE}}\", or nothing: then AWS_* is looked for"));
        return None;
    }
    text.value.map(Secret::new)
}

/// The place that a url names; options are those of an object store.
fn read_place(walk: &mut Walk<'_>, url: &Text, options: Option<(&Section<'_>, S3Place)>) -> Option<CheckpointPlace> {
    let refuse = |walk: &mut Walk<'_>, message: &str, help: &str| {
        walk.error(codes::CHECKPOINTS_URL, url.span.clone(), message).help(help);
        None
    };
    let value = url.value.as_deref()?;
    let Ok(parsed) = url::Url::parse(value) else {
        return refuse(walk, "the place of the checkpoints is not a url", HELP);
    };
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let help = "leave them out: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment are taken";
        return refuse(walk, "the place of the checkpoints must not hold credentials", help);
    }
    if parsed.query().is_some() || parsed.fragment().is_some() || parsed.port().is_some() {
        return refuse(walk, "the place of the checkpoints has more than a bucket and a prefix", HELP);
    }
    match (parsed.scheme(), parsed.host_str().filter(|host| !host.is_empty())) {
        ("s3", Some(bucket)) => {
            let options = options.map_or_else(S3Place::default, |(_, options)| options);
            let prefix = parsed.path().trim_matches('/');
            if prefix.split('/').any(str::is_empty) && !prefix.is_empty() || prefix.contains('%') {
                return refuse(walk, "the prefix of the checkpoints is not made of plain names", HELP);
            }
            let place = S3Place { bucket: bucket.to_string(), prefix: prefix.to_string(), ..options };
            Some(CheckpointPlace::S3(Box::new(place)))
        }
        ("s3", None) => refuse(walk, "the place of the checkpoints names no bucket", HELP),
        ("file", None) if value.starts_with("file:///") && parsed.path().len() > 1 => {
            if let Some((section, _)) = options.filter(|(section, _)| section.table.len() > 1) {
                let message = format!("{} has options of an object store, and its url names a folder", section.label);
                return refuse(walk, &message, "leave the options out: a folder needs none");
            }
            match parsed.to_file_path() {
                Ok(path) => Some(CheckpointPlace::Folder(path)),
                Err(()) => refuse(walk, "the place of the checkpoints is not a folder of this machine", HELP),
            }
        }
        ("file", _) => refuse(walk, "the place of the checkpoints is not an absolute path", HELP),
        _ => refuse(walk, "the place of the checkpoints is neither s3:// nor file://", HELP),
    }
}

impl S3Place {
    /// How long one request may take unless told.
    const TIMEOUT: Duration = Duration::from_secs(60);
}

impl Default for S3Place {
    fn default() -> Self {
        S3Place {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            allow_http: None,
            virtual_hosted: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            timeout: S3Place::TIMEOUT,
        }
    }
}

impl CheckpointPlace {
    /// The place of one profile's: two that share it would drop each other's.
    pub(super) fn of_profile(self, state_folder: &str) -> Self {
        match self {
            CheckpointPlace::StateDir => self,
            CheckpointPlace::Folder(path) => CheckpointPlace::Folder(path.join(state_folder)),
            CheckpointPlace::S3(mut place) => {
                let parts: Vec<&str> =
                    [place.prefix.as_str(), state_folder].into_iter().filter(|part| !part.is_empty()).collect();
                place.prefix = parts.join("/");
                CheckpointPlace::S3(place)
            }
        }
    }
}
