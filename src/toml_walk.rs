//! Walks TOML with the place of every key and value at hand.
//!
//! Enters: text, and the places that hold TOML within it. Leaves: typed values, and a [`Diagnostic`] for everything
//! that is not as expected; reading goes on after each. Never knows what the keys mean.

use std::ops::{Range, RangeInclusive};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, LEVELS, LINTS, Levels, Severity, codes, nearest};
use crate::regular_file::read_regular;

/// What a variable's name begins with that is read from a file.
const FROM_FILE: &str = "file:";
/// The most bytes of such a file.
const MOST_OF_FILE: u64 = 64 << 10;

/// What is told of text that is no TOML at all: more of it helps nobody.
const MOST_SYNTAX_ERRORS: usize = 50;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads values out of one file and collects what is wrong with them.
pub(crate) struct Walk<'a> {
    /// The file, for diagnostics.
    file: PathBuf,
    /// The whole text of the file.
    text: &'a str,
    /// Where the TOML starts in it.
    offset: usize,
    /// Where `${NAME}` is looked up; `None` leaves `$` alone.
    environment: Option<Environment<'a>>,
    /// Where the path of `${file:PATH}` begins.
    root: PathBuf,
    /// All problems so far.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// One table of the file.
#[derive(Clone)]
pub(crate) struct Section<'t> {
    /// What messages call it: `[connection.shop]`.
    pub(crate) label: String,
    /// Its keys.
    pub(crate) table: &'t DeTable<'t>,
    /// Where to point when a key is missing; `None` for the whole file.
    pub(crate) span: Option<Range<usize>>,
    /// False when something else replaces it: its variables need not be set.
    pub(crate) used: bool,
    /// A table whose keys replace those of this one.
    pub(crate) shadow: Option<&'t DeTable<'t>>,
}

/// A string of the file.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// With variables filled in; `None` when that was impossible or not wanted.
    pub(crate) value: Option<String>,
    /// As it is written. Only this may be quoted: a value may hold secrets of the environment.
    pub(crate) raw: String,
    /// Where it is written.
    pub(crate) span: Range<usize>,
}

impl<'a> Walk<'a> {
    /// A walk over `text` of `file`, in which `$` is a character like any other.
    pub(crate) fn new(file: impl Into<PathBuf>, text: &'a str) -> Self {
        let root = PathBuf::new();
        Walk { file: file.into(), text, offset: 0, environment: None, root, diagnostics: Vec::new() }
    }

    /// Fills in `${NAME}` from an environment, and `${file:PATH}` from files below `root`; `$$` is a dollar.
    pub(crate) fn with_variables(self, environment: Environment<'a>, root: &Path) -> Self {
        Walk { environment: Some(environment), root: root.to_owned(), ..self }
    }

    /// Parses the bytes `range` of the text as TOML; spans go on counting from the start of the text.
    pub(crate) fn parse(&mut self, range: Range<usize>) -> Option<DeTable<'a>> {
        self.offset = range.start;
        let text = &self.text[range];
        let (table, errors) = DeTable::parse_recoverable(text);
        // Of what is nested too deeply no place is told.
        let first_line = 0..text.find('\n').unwrap_or(text.len());
        let mut last_line = None;
        let before = self.diagnostics.len();
        for error in &errors {
            if self.diagnostics.len() - before == MOST_SYNTAX_ERRORS {
                let span = Some(self.at(error.span().unwrap_or(first_line)));
                self.error(codes::TOML_SYNTAX, span, "this is not TOML either, and what follows is not looked at")
                    .help("mend what is told above, and check again");
                break;
            }
            let span = Some(self.at(error.span().unwrap_or_else(|| first_line.clone())));
            // The parser goes on after an error; what it says of the same line is most often an echo.
            let line = span.as_ref().map(|span| self.text[..span.start.min(self.text.len())].matches('\n').count());
            if line.is_some() && line == last_line {
                continue;
            }
            last_line = line;
            let says = error.message();
            let note = self.error(codes::TOML_SYNTAX, span, format!("this is not TOML: {says}"));
            if says.contains("must be quoted") {
                note.help("put text in quotes: \"text\"");
            } else if says.contains("basic string") {
                note.help("close the text with a quote on the same line");
            } else if says.contains("duplicate key") {
                note.help("the same key is written above: keep one of them");
            }
        }
        errors.is_empty().then(|| table.into_inner())
    }

    /// Adds an error, which can be completed by `.help()`.
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        span: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
    ) -> Note<'_> {
        self.diagnostics.push(Diagnostic::error(code, self.file.clone(), span, message));
        Note(self.diagnostics.last_mut())
    }

    /// Adds a warning, which keeps nothing from being read.
    pub(crate) fn warning(&mut self, code: &'static str, span: Range<usize>, message: String, help: &str) {
        self.diagnostics.push(Diagnostic::warning(code, self.file.clone(), span, message).help(help));
    }

    /// True when nothing is wrong so far, whatever was warned of.
    pub(crate) fn is_sound(&self) -> bool {
        self.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Warning)
    }

    /// The place in the file of a place in the TOML.
    pub(crate) fn at(&self, span: Range<usize>) -> Range<usize> {
        span.start + self.offset..span.end + self.offset
    }

    /// Refuses keys that are not in `known`.
    pub(crate) fn check_keys(&mut self, section: &Section<'_>, known: &[&str]) {
        self.check_keys_with_later(section, known, &[]);
    }

    /// Refuses keys that are not in `known`; those in `later` get a message of their own.
    pub(crate) fn check_keys_with_later(&mut self, section: &Section<'_>, known: &[&str], later: &[&str]) {
        for key in in_order(section.table) {
            let name = key.get_ref().as_ref();
            let span = self.at(key.span());
            if known.contains(&name) {
                continue;
            }
            if later.contains(&name) {
                self.error(codes::NOT_YET, span, format!("\"{name}\" in {} is not supported yet", section.label))
                    .help("remove it: this version of Tagflow cannot do what it asks for");
                continue;
            }
            let help = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known keys here: {}", known.join(", ")),
            };
            self.error(codes::UNKNOWN_KEY, span, format!("unknown key \"{name}\" in {}", section.label)).help(help);
        }
    }

    /// True when an unknown key was told already that most likely is a misspelt `key`: one mistake, one message.
    pub(crate) fn is_misspelt(&self, section: &Section<'_>, key: &str) -> bool {
        section.table.keys().any(|name| {
            let span = Some(self.at(name.span()));
            nearest(name.get_ref(), [key]).is_some()
                && self.diagnostics.iter().any(|told| told.code == codes::UNKNOWN_KEY && told.span == span)
        })
    }

    /// Says that a key is missing; `example` is what to write.
    pub(crate) fn missing(&mut self, section: &Section<'_>, key: &str, example: &str) {
        if self.is_misspelt(section, key) {
            return;
        }
        let message = format!("{} has no \"{key}\"", section.label);
        self.error(codes::MISSING_KEY, section.span.clone(), message).help(format!("add for example: {example}"));
    }

    /// Says that a value has the wrong type.
    pub(crate) fn wrong_type(&mut self, label: &str, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let message = format!("\"{key}\" in {label} must be {expected}, not {}", article(value.get_ref().type_str()));
        let span = self.at(value.span());
        self.error(codes::WRONG_TYPE, span, message);
    }

    /// A string with the place where it is written.
    pub(crate) fn text(&mut self, section: &Section<'_>, key: &str) -> Option<Text> {
        self.text_like(section, key, "a string")
    }

    fn text_like(&mut self, section: &Section<'_>, key: &str, expected: &str) -> Option<Text> {
        let value = section.table.get(key)?;
        let Some(raw) = value.get_ref().as_str() else {
            self.wrong_type(&section.label, key, value, expected);
            return None;
        };
        let used = section.used && section.shadow.is_none_or(|shadow| shadow.get(key).is_none());
        Some(self.expanded(raw, self.at(value.span()), used, &|value| value.to_owned()))
    }

    /// The string `raw`, written at `span`, with its variables filled in, each through `encode`.
    pub(crate) fn expanded(
        &mut self,
        raw: &str,
        span: Range<usize>,
        used: bool,
        encode: &dyn Fn(&str) -> String,
    ) -> Text {
        let text = |value| Text { value, raw: raw.to_owned(), span: span.clone() };
        let Some(environment) = self.environment.filter(|_| raw.contains('$')) else {
            return text(Some(raw.to_owned()));
        };
        let mut filled = String::new();
        let mut sound = true;
        let mut rest = raw;
        while let Some(dollar) = rest.find('$') {
            filled.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                filled.push('$');
                rest = after;
                continue;
            }
            let Some((name, after)) =
                rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).filter(|(name, _)| {
                    let is_variable = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    name.strip_prefix(FROM_FILE)
                        .map_or_else(|| name.chars().all(is_variable), |path| !path.contains('$'))
                        && !name.is_empty()
                })
            else {
                sound = false;
                self.error(codes::VARIABLE_SYNTAX, span.clone(), "a \"$\" that starts no variable").help(
                    "write ${NAME} for an environment variable, ${file:PATH} for a file's text, $$ for a dollar sign",
                );
                continue;
            };
            rest = after;
            if !used {
                sound = false;
                continue;
            }
            match self.variable(name, environment) {
                Ok(value) => filled.push_str(&encode(&value)),
                Err((message, help)) => {
                    sound = false;
                    let place = self.within(&span, &format!("${{{name}}}"));
                    self.error(codes::VARIABLE_NOT_SET, place, message).help(help);
                }
            }
        }
        filled.push_str(rest);
        text(sound.then_some(filled))
    }

    /// What a variable stands for; else what is wrong, and what to do.
    fn variable(&self, name: &str, environment: Environment<'_>) -> Result<String, (String, String)> {
        let Some(path) = name.strip_prefix(FROM_FILE) else {
            return environment(name).ok_or_else(|| {
                let help = format!("set it before Tagflow starts: export {name}=…");
                (format!("the environment variable {name} is not set"), help)
            });
        };
        let help = "write the path of a small text file, below the folder of tagflow.toml or absolute, without \"..\"";
        let refused = |what: &str| (format!("the file of ${{{name}}} {what}"), help.to_owned());
        if Path::new(path).components().any(|part| part == Component::ParentDir) {
            return Err(refused("leaves the project's folder"));
        }
        let read = read_regular(&self.root.join(path), MOST_OF_FILE);
        match read.map(String::from_utf8) {
            // Most tools end a file with a line's end, which nobody means to be a part of a password.
            Ok(Ok(text)) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Ok(Err(_)) => Err(refused("holds no text")),
            Err(error) => Err(refused(&format!("cannot be read: {error}"))),
        }
    }

    /// The place of `part` within `span`, or `span` where it is written otherwise.
    fn within(&self, span: &Range<usize>, part: &str) -> Range<usize> {
        match self.text.get(span.clone()).and_then(|text| text.find(part)) {
            Some(start) => span.start + start..span.start + start + part.len(),
            None => span.clone(),
        }
    }

    /// A string, when it is known.
    pub(crate) fn string(&mut self, section: &Section<'_>, key: &str) -> Option<String> {
        self.text(section, key)?.value
    }

    /// A list of strings; empty where there is none.
    pub(crate) fn strings(&mut self, section: &Section<'_>, key: &str) -> Vec<String> {
        let Some(value) = section.table.get(key) else { return Vec::new() };
        let Some(texts) = value.get_ref().as_array() else {
            self.wrong_type(&section.label, key, value, "a list of strings");
            return Vec::new();
        };
        if let Some(other) = texts.iter().find(|text| text.get_ref().as_str().is_none()) {
            let (label, kind) = (&section.label, article(other.get_ref().type_str()));
            let span = self.at(other.span());
            self.error(codes::WRONG_TYPE, span, format!("\"{key}\" in {label} lists {kind}, and takes strings alone"));
            return Vec::new();
        }
        texts.iter().filter_map(|text| text.get_ref().as_str()).map(str::to_owned).collect()
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&mut self, section: &Section<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(section, key)?;
        let value = text.value.as_deref()?;
        let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.not_among(section, key, &text, &names);
        }
        found
    }

    /// Says that a string is none of `words`.
    pub(crate) fn not_among(&mut self, section: &Section<'_>, key: &str, text: &Text, words: &[&str]) {
        let all = words.join(", ");
        let help = match nearest(&text.raw, words.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"? possible are: {all}"),
            None => format!("possible are: {all}"),
        };
        let message = format!("\"{}\" is not a possible \"{key}\" in {}", text.raw, section.label);
        self.error(codes::BAD_VALUE, text.span.clone(), message).help(help);
    }

    /// A string, with its variables filled in, a number or a boolean, as text.
    pub(crate) fn scalar(&mut self, section: &Section<'_>, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(raw) => {
                let span = self.at(value.span());
                self.expanded(raw, span, section.used, &|value| value.to_owned()).value
            }
            DeValue::Integer(number) => {
                let found = i64::from_str_radix(number.as_str(), number.radix()).ok();
                if found.is_none() {
                    let span = self.at(value.span());
                    let message = format!("\"{name}\" in {} is too large a number", section.label);
                    self.error(codes::BAD_VALUE, span, message);
                }
                found.map(|number| number.to_string())
            }
            DeValue::Float(number) => Some(number.as_str().to_owned()),
            DeValue::Boolean(flag) => Some(flag.to_string()),
            _ => {
                self.wrong_type(&section.label, name, value, "a string, a number, true or false");
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, section: &Section<'_>, key: &str) -> Option<bool> {
        let value = section.table.get(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(&section.label, key, value, "true or false");
        }
        found
    }

    /// A whole number within `range`.
    pub(crate) fn integer(&mut self, section: &Section<'_>, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = section.table.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(&section.label, key, value, "a whole number");
            return None;
        };
        let found = i64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|found| range.contains(found));
        if found.is_none() {
            let span = self.at(value.span());
            let bounds = match (*range.start(), *range.end()) {
                (low, i64::MAX) => format!("{low} or more"),
                (low, high) => format!("between {low} and {high}"),
            };
            self.error(codes::BAD_VALUE, span, format!("\"{key}\" in {} must be {bounds}", section.label));
        }
        found
    }

    /// A duration such as `"500ms"`, of at least `least`.
    pub(crate) fn duration(&mut self, section: &Section<'_>, key: &str, least: Duration) -> Option<Duration> {
        let text = self.text_like(section, key, "a duration in quotes such as \"30s\"")?;
        let found = humantime::parse_duration(text.value.as_deref()?).ok();
        if found.is_none() {
            let message = format!("\"{}\" is not a duration for \"{key}\" in {}", text.raw, section.label);
            self.error(codes::BAD_VALUE, text.span, message)
                .help("write a number and a unit: \"500ms\", \"30s\", \"5m\", \"1h\", \"7d\"");
            return None;
        }
        let found = found.filter(|found| *found >= least);
        if found.is_none() {
            let least = humantime::format_duration(least);
            let message = format!("\"{key}\" in {} must be at least {least}", section.label);
            self.error(codes::BAD_VALUE, text.span, message);
        }
        found
    }

    /// A number of bytes such as `"512MB"`, at least one.
    pub(crate) fn bytes(&mut self, section: &Section<'_>, key: &str) -> Option<u64> {
        let text = self.text_like(section, key, "a size in quotes such as \"512MB\"")?;
        let found = text.value.as_deref()?.parse::<ByteSize>().ok().filter(|size| size.as_u64() > 0);
        if found.is_none() {
            let message = format!("\"{}\" is not a size for \"{key}\" in {}", text.raw, section.label);
            self.error(codes::BAD_VALUE, text.span, message)
                .help("write a number and a unit: \"500kB\", \"512MB\", \"2GiB\"");
        }
        Some(found?.as_u64())
    }

    /// The table under `key`, called `label` in messages.
    pub(crate) fn section<'t>(
        &mut self,
        parent: &Section<'t>,
        key: &str,
        label: impl Into<String>,
    ) -> Option<Section<'t>> {
        let (name, value) = parent.table.get_key_value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(&parent.label, key, value, "a table");
            return None;
        };
        let span = Some(self.at(name.span()));
        Some(Section { label: label.into(), table, span, used: parent.used, shadow: None })
    }

    /// The levels of lints under `lints`.
    pub(crate) fn lints(&mut self, parent: &Section<'_>) -> Levels {
        let mut levels = Levels::new();
        let Some(section) = self.section(parent, "lints", "[lints]") else { return levels };
        let known: Vec<&str> = LINTS.iter().map(|(name, _)| *name).collect();
        self.check_keys(&section, &known);
        for (name, _) in LINTS {
            levels.extend(self.word(&section, name, &LEVELS).map(|level| ((*name).to_owned(), level)));
        }
        levels
    }

    /// Every table below the table under `key`, in the order of the file: name and section.
    pub(crate) fn sections<'t>(&mut self, parent: &Section<'t>, key: &str) -> Vec<(String, Section<'t>)> {
        let Some(section) = self.section(parent, key, format!("[{key}]")) else { return Vec::new() };
        let mut found = Vec::new();
        for name in in_order(section.table) {
            let name: &str = name.get_ref();
            if let Some(inner) = self.section(&section, name, format!("[{key}.{name}]")) {
                found.push((name.to_owned(), inner));
            }
        }
        found
    }
}

impl<'t> Section<'t> {
    /// The table of a whole file or header.
    pub(crate) fn root(label: &str, table: &'t DeTable<'t>) -> Self {
        Section { label: label.to_owned(), table, span: None, used: true, shadow: None }
    }
}

/// An error that was just added.
pub(crate) struct Note<'a>(Option<&'a mut Diagnostic>);

impl Note<'_> {
    /// Adds what to write instead.
    pub(crate) fn help(self, help: impl Into<String>) {
        if let Some(diagnostic) = self.0 {
            diagnostic.help = Some(help.into());
        }
    }
}

/// The keys of a table in the order in which they are written.
pub(crate) fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<&'t Spanned<std::borrow::Cow<'i, str>>> {
    let mut keys: Vec<_> = table.keys().collect();
    keys.sort_by_key(|key| key.span().start);
    keys
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
