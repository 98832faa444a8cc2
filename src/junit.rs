//! JUnit XML, with no element and no attribute that the XSD of Jenkins' xUnit plugin does not have, so that every
//! reader takes it.
//!
//! Enters: suites of cases. Leaves: text.

use std::fmt::Write;
use std::time::Duration;

/// Cases that belong together.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Its cases, in the order in which they are told.
    pub cases: Vec<Case>,
}

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is part of.
    pub class: String,
    /// Its name.
    pub name: String,
    /// How long it took, where that was measured.
    pub time: Option<Duration>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// What it said; nothing where empty.
    pub output: String,
}

/// Why a case failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// A word for its kind.
    pub kind: String,
    /// In a line.
    pub message: String,
    /// At length.
    pub text: String,
}

impl Case {
    /// A case that passes and says nothing.
    pub fn passed(class: impl Into<String>, name: impl Into<String>) -> Self {
        Case { class: class.into(), name: name.into(), time: None, failure: None, output: String::new() }
    }
}

/// All suites as one document.
pub fn render(name: &str, suites: &[Suite]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all: Vec<&Case> = suites.iter().flat_map(|suite| &suite.cases).collect();
    line(&mut out, &format!("<testsuites name=\"{}\" {}>", attribute(name), counts(&all)));
    for suite in suites {
        let cases: Vec<&Case> = suite.cases.iter().collect();
        line(&mut out, &format!("  <testsuite name=\"{}\" {}>", attribute(&suite.name), counts(&cases)));
        cases.into_iter().for_each(|found| case(&mut out, found));
        line(&mut out, "  </testsuite>");
    }
    line(&mut out, "</testsuites>");
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn counts(cases: &[&Case]) -> String {
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\"", cases.len())
}

fn case(out: &mut String, case: &Case) {
    let mut tag = format!("    <testcase classname=\"{}\" name=\"{}\"", attribute(&case.class), attribute(&case.name));
    if let Some(time) = case.time {
        // Writing into memory cannot fail.
        let _ = write!(tag, " time=\"{:.3}\"", time.as_secs_f64());
    }
    if case.failure.is_none() && case.output.is_empty() {
        return line(out, &format!("{tag}/>"));
    }
    line(out, &format!("{tag}>"));
    if let Some(Failure { kind, message, text }) = &case.failure {
        let (kind, message, text) = (attribute(kind), attribute(message), escaped(text));
        line(out, &format!("      <failure type=\"{kind}\" message=\"{message}\">{text}</failure>"));
    }
    if !case.output.is_empty() {
        line(out, &format!("      <system-out>{}</system-out>", escaped(&case.output)));
    }
    line(out, "    </testcase>");
}

/// Text between tags. What XML cannot hold at all becomes a question mark.
fn escaped(text: &str) -> String {
    let known = |c: char| matches!(c, '\t' | '\n' | '\r') || !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let text: String = text.chars().map(|c| if known(c) { c } else { '?' }).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text between quotes, where a bare line end would be read as a space.
fn attribute(text: &str) -> String {
    let text = escaped(text).replace('"', "&quot;");
    text.replace('\n', "&#10;").replace('\r', "&#13;").replace('\t', "&#9;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_counts_its_cases_and_escapes_what_they_say() {
        let failure = Failure { kind: "rows".into(), message: "a < \"b\"\n".into(), text: "a & b\u{1b}[31m".into() };
        let failed = Case { time: Some(Duration::from_millis(1500)), failure: Some(failure), ..Case::passed("c", "n") };
        let told = Case { output: "]]>".into(), ..Case::passed("c", "m") };
        let suite = Suite { name: "s".into(), cases: vec![failed, told, Case::passed("c", "o")] };
        assert_eq!(
            render("all", &[suite]),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"all\" tests=\"3\" failures=\"1\" errors=\"0\">\n\
             \x20 <testsuite name=\"s\" tests=\"3\" failures=\"1\" errors=\"0\">\n\
             \x20   <testcase classname=\"c\" name=\"n\" time=\"1.500\">\n\
             \x20     <failure type=\"rows\" message=\"a &lt; &quot;b&quot;&#10;\">a &amp; b?[31m</failure>\n\
             \x20   </testcase>\n\
             \x20   <testcase classname=\"c\" name=\"m\">\n\
             \x20     <system-out>]]&gt;</system-out>\n\
             \x20   </testcase>\n\
             \x20   <testcase classname=\"c\" name=\"o\"/>\n\
             \x20 </testsuite>\n\
             </testsuites>\n"
        );
    }
}
