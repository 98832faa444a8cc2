//! What came of tests, for programs.

use serde_json::{Value as Json, json};

use super::{Ran, Report, TagCoverage};
use crate::cli::verify::difference_as_json;
use crate::diagnostic::{position, render_json};
use crate::tag_test::{Covered, Failure, Missing, Suite, What};

/// One object.
pub(super) fn describe(report: &Report, suite: &Suite) -> String {
    let passed = report.ran.iter().filter(|ran| ran.passed()).count();
    let problems: Json = serde_json::from_str(&render_json(&suite.diagnostics, &suite.sources)).unwrap_or_default();
    let files: Vec<String> = report.broken.iter().map(|file| file.display().to_string()).collect();
    let tests: Vec<Json> = report.ran.iter().map(|ran| test(ran, suite)).collect();
    let whole = json!({
        "passed": passed,
        "failed": report.ran.len() - passed,
        "cannot_run": files,
        "untested": report.untested,
        "seconds": report.took.as_secs_f64(),
        "tests": tests,
        "diagnostics": problems["diagnostics"],
        "coverage": report.coverage.as_ref().map(|tags| tags.iter().map(coverage).collect::<Vec<_>>()),
    });
    format!("{whole:#}\n")
}

fn coverage(tag: &TagCoverage) -> Json {
    let condition = |condition: &Covered| {
        let (line, column) = position(&tag.text, condition.span.start);
        json!({
            "line": line,
            "column": column,
            "kind": condition.word,
            "sql": condition.text,
            "covered": condition.missing.is_none(),
            "missing": condition.missing.as_ref().map(Missing::to_string),
        })
    };
    let conditions: Vec<Json> = tag.conditions.iter().map(condition).collect();
    json!({ "tag": tag.tag, "file": tag.file.display().to_string(), "conditions": conditions })
}

fn test(ran: &Ran, suite: &Suite) -> Json {
    let line = suite.sources.get(&ran.file.file).map(|text| position(text, ran.test.span.start).0);
    let failures = ran.outcome.iter().flat_map(|outcome| &outcome.failures);
    json!({
        "tag": ran.file.tag,
        "file": ran.file.file.display().to_string(),
        "line": line,
        "name": ran.test.name,
        "verdict": match &ran.outcome {
            Err(_) => "cannot_run",
            Ok(_) if ran.passed() => "passed",
            Ok(_) => "failed",
        },
        "reason": ran.outcome.as_ref().err(),
        "seconds": ran.took.as_secs_f64(),
        "failures": failures.map(|failure| of_failure(failure, suite)).collect::<Vec<_>>(),
    })
}

fn of_failure(failure: &Failure, suite: &Suite) -> Json {
    let (file, span) = &failure.place;
    let at = chrono::DateTime::from_timestamp_nanos(failure.at).with_timezone(&suite.timezone);
    let (kind, differences, message) = match &failure.what {
        What::Rows(differences) => ("rows", Some(differences), None),
        What::Changes(differences) => ("changes", Some(differences), None),
        What::Disagreement(differences) => ("disagreement", Some(differences), None),
        What::NoLetter(expected) => ("missing_letter", None, Some(expected)),
        What::Letter(letter) => ("letter", None, Some(letter)),
        What::Fault(reason) => ("fault", None, Some(reason)),
        What::NoFault(reason) => ("no_fault", None, Some(reason)),
        What::Batch(reason) => ("batch", None, Some(reason)),
    };
    json!({
        "kind": kind,
        "at": at.to_rfc3339(),
        "file": file.display().to_string(),
        "line": suite.sources.get(file).map(|text| position(text, span.start).0),
        "message": message,
        "differences": differences.map(|all| all.iter().map(difference_as_json).collect::<Vec<_>>()),
    })
}
