//! What came of tests, as JUnit XML: a suite a file, a case a test.

use super::human::describe_failure;
use super::{Ran, Report};
use crate::junit::{Case, Failure, Suite as Cases, render};
use crate::tag_test::Suite;

/// All tests. A file that cannot run is a case that fails.
pub(super) fn describe(report: &Report, suite: &Suite, show: usize) -> String {
    let of_file = suite.files.iter().map(|file| {
        let name = file.file.display().to_string();
        let own = report.ran.iter().filter(|ran| ran.file.file == file.file);
        Cases { cases: own.map(|ran| case(ran, suite, show, &name)).collect(), name }
    });
    let broken = report.broken.iter().map(|file| {
        let name = file.display().to_string();
        let problems = suite.diagnostics.iter().filter(|problem| problem.file == *file);
        let text: Vec<String> = problems.map(|problem| format!("{}: {}", problem.code, problem.message)).collect();
        let message = "the file has errors".to_string();
        let failure = Failure { kind: "cannot_run".to_string(), message, text: text.join("\n") };
        let case = Case { failure: Some(failure), ..Case::passed(name.clone(), "the file can be run") };
        Cases { name, cases: vec![case] }
    });
    let suites: Vec<Cases> = of_file.chain(broken).filter(|suite| !suite.cases.is_empty()).collect();
    render("tagflow test", &suites)
}

fn case(ran: &Ran, suite: &Suite, show: usize, file: &str) -> Case {
    let failure = match &ran.outcome {
        Err(reason) => Some(Failure { kind: "cannot_run".to_string(), message: reason.clone(), text: reason.clone() }),
        Ok(outcome) => {
            let told: Vec<String> =
                outcome.failures.iter().map(|failure| describe_failure(failure, suite, show, false)).collect();
            let message = told.first().and_then(|first| first.lines().next()).unwrap_or_default().to_string();
            (!told.is_empty()).then(|| Failure { kind: "failed".to_string(), message, text: told.join("\n") })
        }
    };
    Case { time: Some(ran.took), failure, ..Case::passed(file, ran.test.name.as_str()) }
}
