//! What a sample shows of one place in its records.

use serde_json::{Map, Value};

use super::names::words;

/// Everything that was seen in one place.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Seen {
    /// How many records had something else than null there.
    pub(super) count: usize,
    pub(super) booleans: usize,
    pub(super) objects: usize,
    pub(super) arrays: usize,
    pub(super) numbers: Numbers,
    pub(super) texts: Texts,
    /// What is in its objects, in the order in which it was first seen.
    pub(super) fields: Vec<(String, Seen)>,
    /// What is in its arrays.
    pub(super) elements: Option<Box<Seen>>,
}

/// Numbers, written as such or as text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numbers {
    pub(super) count: usize,
    /// None of them has digits after the point.
    pub(super) are_whole: bool,
    /// Some has an exponent, or more digits than anything exact.
    pub(super) are_inexact: bool,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Most digits before and after the point.
    pub(super) digits: (usize, usize),
}

/// Texts by what they look like.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Texts {
    pub(super) count: usize,
    pub(super) numbers: Numbers,
    pub(super) dates: usize,
    pub(super) times: usize,
    /// Most digits of a second.
    pub(super) second_digits: usize,
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers {
            count: 0,
            are_whole: true,
            are_inexact: false,
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            digits: (0, 0),
        }
    }
}

/// Deeper objects stay JSON in text.
const DEEPEST: usize = 4;
/// Objects with more fields than this are most likely maps: what is a field in one record is not in the next.
const MOST_FIELDS: usize = 200;

impl Seen {
    pub(super) fn note(&mut self, value: &Value, depth: usize) {
        if value.is_null() {
            return;
        }
        self.count += 1;
        match value {
            Value::Null => {}
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) => self.numbers.note(&number.to_string()),
            Value::String(text) => self.texts.note(text),
            Value::Array(items) => {
                self.arrays += 1;
                let elements = self.elements.get_or_insert_default();
                items.iter().take(100).for_each(|item| elements.note(item, depth + 1));
            }
            Value::Object(fields) => {
                self.objects += 1;
                if depth < DEEPEST {
                    self.note_fields(fields, depth);
                }
            }
        }
    }

    pub(super) fn note_fields(&mut self, fields: &Map<String, Value>, depth: usize) {
        for (name, value) in fields {
            let place = match self.fields.iter().position(|(known, _)| known == name) {
                Some(place) => place,
                None if self.fields.len() >= MOST_FIELDS => continue,
                None => {
                    self.fields.push((name.clone(), Seen::default()));
                    self.fields.len() - 1
                }
            };
            self.fields[place].1.note(value, depth + 1);
        }
    }

    /// True where objects are taken apart, and not kept as they are.
    pub(super) fn is_object(&self) -> bool {
        self.objects > 0 && self.objects == self.count && !self.fields.is_empty() && self.fields.len() < MOST_FIELDS
    }
}

impl Numbers {
    fn note(&mut self, text: &str) {
        let Ok(value) = text.parse::<f64>() else { return };
        self.count += 1;
        self.low = self.low.min(value);
        self.high = self.high.max(value);
        let plain = text.trim_start_matches('-');
        let (before, after) = plain.split_once('.').unwrap_or((plain, ""));
        self.are_whole &= after.is_empty() && !plain.contains(['e', 'E']);
        self.are_inexact |= plain.contains(['e', 'E']) || after.len() > 6 || before.len() + after.len() > 30;
        self.digits = (self.digits.0.max(before.len()), self.digits.1.max(after.len()));
    }

    /// Seconds since 1970 that lie between 2001 and 2100, as what unit of them says.
    pub(super) fn epoch(&self) -> Option<&'static str> {
        const YEARS: (f64, f64) = (978_307_200.0, 4_102_444_800.0);
        let units = [("epoch_s", 1.0), ("epoch_ms", 1e3), ("epoch_us", 1e6)];
        let fits = |scale: f64| self.low >= YEARS.0 * scale && self.high <= YEARS.1 * scale;
        units.into_iter().find(|(_, scale)| self.count > 0 && self.are_whole && fits(*scale)).map(|(unit, _)| unit)
    }
}

impl Texts {
    fn note(&mut self, text: &str) {
        self.count += 1;
        if is_number(text) {
            self.numbers.note(text);
        }
        if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() {
            self.dates += 1;
        }
        if instant(text).is_some() {
            self.times += 1;
            let digits =
                text.split_once('.').map_or(0, |(_, rest)| rest.chars().take_while(char::is_ascii_digit).count());
            self.second_digits = self.second_digits.max(digits);
        }
    }
}

/// A number that keeps its text: not one with zeros before it, which is a code.
fn is_number(text: &str) -> bool {
    let plain = text.strip_prefix('-').unwrap_or(text);
    let (before, after) = plain.split_once('.').unwrap_or((plain, "0"));
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    digits(before) && digits(after) && (before == "0" || !before.starts_with('0'))
}

/// A time as text: seconds since 1970 where it has a zone or is taken for UTC.
pub(super) fn instant(text: &str) -> Option<i64> {
    if let Ok(instant) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(instant.timestamp_millis());
    }
    let forms = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let found = forms.iter().find_map(|form| chrono::NaiveDateTime::parse_from_str(text, form).ok());
    found.map(|wall| wall.and_utc().timestamp_millis())
}

/// True for the name of a time: `order_time`, `createdAt`, `ts`.
pub(super) fn names_time(name: &str) -> bool {
    const WORDS: &[&str] =
        &["time", "timestamp", "ts", "at", "date", "datetime", "created", "updated", "modified", "when", "ms"];
    words(name).iter().any(|word| WORDS.contains(&word.as_str()) || word.ends_with("time"))
}

/// True for the name of an amount of money.
pub(super) fn names_money(name: &str) -> bool {
    const WORDS: &[&str] =
        &["amount", "money", "price", "total", "cost", "fee", "paid", "pay", "revenue", "discount", "balance", "spend"];
    words(name).iter().any(|word| WORDS.contains(&word.as_str()))
}
