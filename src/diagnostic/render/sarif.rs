//! SARIF 2.1.0, which code scanning services and editors read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Region, below, message_and_help, sorted};
use crate::diagnostic::{Diagnostic, Explanation, Severity, explain};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// One run as a SARIF log. `folder` is the project's, as it is called from where the command runs: files are named from
/// there.
pub fn render_sarif(diagnostics: &[Diagnostic], sources: &BTreeMap<PathBuf, String>, folder: &Path) -> String {
    let told = sorted(diagnostics);
    let mut rules: Vec<&'static str> = told.iter().map(|diagnostic| diagnostic.code).collect();
    rules.sort_unstable();
    rules.dedup();
    let results: Vec<Value> = told
        .iter()
        .map(|diagnostic| {
            let mut value = result(diagnostic, sources, folder);
            value["ruleIndex"] = json!(rules.binary_search(&diagnostic.code).ok());
            value
        })
        .collect();
    let driver = json!({
        "name": "tagflow",
        "semanticVersion": env!("CARGO_PKG_VERSION"),
        "rules": rules.into_iter().filter_map(explain).map(|entry| rule(&entry)).collect::<Vec<Value>>(),
    });
    let run = json!({ "tool": { "driver": driver }, "columnKind": "unicodeCodePoints", "results": results });
    format!("{:#}\n", json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] }))
}

fn rule(entry: &Explanation) -> Value {
    json!({
        "id": entry.code,
        "shortDescription": { "text": entry.title() },
        "fullDescription": { "text": entry.cause() },
        "help": { "text": entry.text, "markdown": format!("## {}", entry.text) },
    })
}

fn result(diagnostic: &Diagnostic, sources: &BTreeMap<PathBuf, String>, folder: &Path) -> Value {
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let artifact = json!({ "uri": uri(&below(folder, &diagnostic.file)) });
    let mut place = json!({ "artifactLocation": artifact });
    if let Some(found) = Region::of(diagnostic, sources) {
        place["region"] = region(found);
    }
    let mut result = json!({
        "ruleId": diagnostic.code,
        "level": level,
        "message": { "text": message_and_help(diagnostic) },
        "locations": [{ "physicalLocation": place }],
    });
    if let Some(text) = sources.get(&diagnostic.file).filter(|_| !diagnostic.fix.is_empty()) {
        let replacements = diagnostic.fix.iter().map(|edit| {
            json!({
                "deletedRegion": region(Region::of_span(text, &edit.span)),
                "insertedContent": { "text": edit.text },
            })
        });
        let change = json!({ "artifactLocation": artifact, "replacements": replacements.collect::<Vec<Value>>() });
        let description = diagnostic.help.as_deref().unwrap_or(&diagnostic.message);
        result["fixes"] = json!([{ "description": { "text": description }, "artifactChanges": [change] }]);
    }
    result
}

fn region(Region { start, end }: Region) -> Value {
    json!({ "startLine": start.0, "startColumn": start.1, "endLine": end.0, "endColumn": end.1 })
}

/// A path as a reference: relative ones stay relative.
fn uri(file: &Path) -> String {
    let path = super::shown(file);
    let rooted = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
    match url::Url::from_file_path(&rooted) {
        Ok(found) if path.starts_with('/') => found.to_string(),
        // A colon in the first part would be taken for a scheme.
        Ok(found) => found.path()[1..].replace(':', "%3A"),
        Err(()) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Edit;

    #[test]
    fn a_result_names_its_rule_its_place_and_its_fix() {
        let file = PathBuf::from("tags/标 签.sql");
        let sources = BTreeMap::from([(file.clone(), "SELECT ü\n".to_owned())]);
        let fix = Edit { span: 7..9, text: "u".to_owned() };
        let told = [
            Diagnostic::error("T0107", &file, 7..9, "wrong").help("write `u`").fix([fix]),
            Diagnostic::warning("T0101", "gone.sql", None, "whole file"),
        ];
        let log: Value = serde_json::from_str(&render_sarif(&told, &sources, Path::new("."))).unwrap();
        let run = &log["runs"][0];
        let codes: Vec<&Value> =
            run["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| &rule["id"]).collect();
        assert_eq!(codes, ["T0101", "T0107"]);
        let [whole, result] = run["results"].as_array().unwrap().as_slice() else { panic!("two results") };
        assert_eq!(result["ruleIndex"], 1);
        assert_eq!(result["message"]["text"], "wrong\nhelp: write `u`");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "tags/%E6%A0%87%20%E7%AD%BE.sql");
        let region = json!({ "startLine": 1, "startColumn": 8, "endLine": 1, "endColumn": 9 });
        assert_eq!(place["region"], region);
        let replacement = &result["fixes"][0]["artifactChanges"][0]["replacements"][0];
        assert_eq!(replacement["deletedRegion"], region);
        assert_eq!(replacement["insertedContent"]["text"], "u");
        assert!(whole["locations"][0]["physicalLocation"].get("region").is_none());
    }
}
