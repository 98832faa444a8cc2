//! Secrets: where they are asked for, and warnings of those that stand in the file for everybody to read.

use std::ops::Range;

use super::Secret;
use crate::diagnostic::codes;
use crate::toml_walk::{Section, Walk};

/// What to write in place of a secret.
const HELP: &str = "write ${NAME} for an environment variable, or ${file:PATH} for the text of a file";

/// True for a text that is written out, without a variable.
fn is_literal(text: &str) -> bool {
    !text.contains("${") && !text.is_empty()
}

/// Warns of a secret that is written out, as text or as what is none, such as a number.
pub(super) fn warn_of_value(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    key: &str,
    text: Option<&str>,
    span: Range<usize>,
) {
    if text.is_none_or(is_literal) {
        let message = format!("\"{key}\" in {} is a secret that stands in the file", section.label);
        walk.warning(codes::LITERAL_SECRET, span, message, HELP);
    }
}

/// The same of an address with a password.
pub(super) fn warn_of_url(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, raw: &str, span: Range<usize>) {
    let login = raw.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    if let Some((_, password)) = login.and_then(|(login, _)| login.split_once(':'))
        && is_literal(password)
    {
        let message = format!("the password in \"{key}\" of {} stands in the file", section.label);
        walk.warning(codes::LITERAL_SECRET, span, message, HELP);
    }
}

/// True for properties of librdkafka that hold a secret, or may.
pub(super) fn is_secret_property(name: &str) -> bool {
    name.ends_with("password")
        || name.ends_with("secret")
        || name.ends_with("passphrase")
        || matches!(name, "ssl.key.pem" | "sasl.oauthbearer.config")
}

/// A token for the console.
pub(super) fn read_token(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<Secret> {
    let text = walk.text(section, "token")?;
    warn_of_value(walk, section, "token", Some(&text.raw), text.span.clone());
    let value = text.value?;
    let help = "make one for example by `openssl rand -hex 32`";
    let problem = match value.len() {
        0..LEAST_TOKEN => Some(format!("has fewer than {LEAST_TOKEN} characters")),
        _ if !value.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Some("has characters that no header can have".into())
        }
        _ => None,
    };
    if let Some(problem) = problem {
        walk.error(codes::BAD_VALUE, text.span, format!("\"token\" in {} {problem}", section.label)).help(help);
        return None;
    }
    Some(Secret::new(value))
}

/// A token that is shorter can be guessed.
const LEAST_TOKEN: usize = 16;
