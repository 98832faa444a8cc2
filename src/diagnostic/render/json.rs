//! One JSON object, for programs of one's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Region, count, shown, sorted};
use crate::diagnostic::{Diagnostic, Severity, explain, lint_of};

/// All diagnostics as one JSON object, in the order of files and places: how many `errors` and `warnings`, and the
/// `diagnostics` themselves. Lines and columns count from 1, columns in characters, and the end is the first character
/// that is not meant; all four are null when the whole file is. `fix` is a list of edits that mend it, empty where only
/// the author can.
pub fn render_json(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>) -> String {
    let list: Vec<Value> = sorted(diagnostics).into_iter().map(|diagnostic| of(diagnostic, sources)).collect();
    let (errors, warnings) = (count(diagnostics, Severity::Error), count(diagnostics, Severity::Warning));
    format!("{:#}\n", json!({ "errors": errors, "warnings": warnings, "diagnostics": list }))
}

fn of(diagnostic: &Diagnostic, sources: &BTreeMap<PathBuf, String>) -> Value {
    let region = Region::of(diagnostic, sources);
    let explanation = explain(diagnostic.code);
    let edits = diagnostic.fix.iter().filter_map(|edit| {
        let Region { start, end } = Region::of_span(sources.get(&diagnostic.file)?, &edit.span);
        Some(json!({
            "line": start.0, "column": start.1, "end_line": end.0, "end_column": end.1, "text": edit.text,
        }))
    });
    json!({
        "code": diagnostic.code,
        "title": explanation.map(|entry| entry.title()),
        "severity": diagnostic.severity,
        "lint": lint_of(diagnostic.code),
        "file": shown(&diagnostic.file),
        "line": region.map(|region| region.start.0),
        "column": region.map(|region| region.start.1),
        "end_line": region.map(|region| region.end.0),
        "end_column": region.map(|region| region.end.1),
        "message": diagnostic.message,
        "cause": explanation.map(|entry| entry.cause()),
        "help": diagnostic.help,
        "fix": edits.collect::<Vec<Value>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Edit;

    #[test]
    fn json_names_line_and_column_and_the_edits_that_mend_it() {
        let file = PathBuf::from("tagflow.toml");
        let sources = BTreeMap::from([(file.clone(), "a = 1\nü = x\n".to_owned())]);
        let fix = Edit { span: 11..12, text: "1".to_owned() };
        let diagnostics = [Diagnostic::error("T0107", file, 11..12, "no value").help("write one").fix([fix])];
        let value: Value = serde_json::from_str(&render_json(&diagnostics, &sources)).unwrap();
        let told = &value["diagnostics"][0];
        assert_eq!((&told["line"], &told["column"]), (&json!(2), &json!(5)));
        assert_eq!((&told["end_line"], &told["end_column"]), (&json!(2), &json!(6)));
        assert_eq!(told["severity"], "error");
        assert_eq!(told["title"], "not a possible value");
        assert_eq!(told["cause"], "The type is right, but this value is none of those that the key can have.");
        let edit = json!({ "line": 2, "column": 5, "end_line": 2, "end_column": 6, "text": "1" });
        assert_eq!(told["fix"], json!([edit]));
    }
}
