//! The plan as the comment of a pull or merge request: what matters first, details folded.

use std::time::Duration;

use comfy_table::presets;

use super::data::DataDiff;
use super::human::{biggest, data_summary, data_text, details, fate_words, fill_line, printable, summary};
use super::plan::{Fate, Plan, TagPlan};
use crate::cli::plural;

/// What the jobs of `tagflow init` find their own comment by.
const MARK: &str = "<!-- tagflow plan -->";

/// GitHub refuses comments beyond 65,536 characters.
const LONGEST: usize = 60_000;
/// Where the table ends, so that there is room for what must be done and for details.
const TABLE: usize = 30_000;
/// Where that ends.
const REMARKS: usize = 40_000;

/// Everything.
pub(super) fn describe(plan: &Plan, grace: Duration) -> String {
    let mut text = format!("{MARK}\n### Tags: {}\n\n", summary(plan));
    if plan.has_changes() {
        text.push_str("| tag | kind | what happens |\n|---|---|---|\n");
        let row = |tag: &TagPlan| {
            let (sign, tag_name) = (sign(tag.fate), code(&tag.tag));
            format!("| {sign} {tag_name} | {} | {} |\n", tag.kind, cell(&fate_words(tag, grace)))
        };
        let more = add_within(&mut text, TABLE, plan.tags.iter().map(row));
        text.push_str(&left_out(more, "tag"));
        text.push('\n');
    }
    if let Some(fill) = &plan.fill {
        text.push_str(&format!("{}\n\n", cell(&fill_line(fill)).replacen("to fill", "To fill", 1)));
    }
    // What somebody must do is not folded away.
    let urgent = plan.tags.iter().flat_map(|tag| {
        let lines = details(tag).into_iter().filter(|line| line.starts_with('!'));
        lines.map(|line| format!("> ⚠️ {}: {}\n\n", code(&tag.tag), cell(line.trim_start_matches("! "))))
    });
    let remarks = plan.remarks.iter().map(|remark| format!("> ⚠️ {}\n\n", cell(remark)));
    let more = add_within(&mut text, REMARKS, urgent.chain(remarks));
    text.push_str(&left_out(more, "remark"));
    let more = add_within(&mut text, LONGEST, plan.tags.iter().map(of_tag));
    text.push_str(&left_out(more, "tag"));
    text.push_str(&format!("<sub>Compared with {}.</sub>\n", cell(&plan.compared_with)));
    text
}

/// What is told of a project with errors.
pub(super) fn refuse(errors: &[String]) -> String {
    let mut text = format!("{MARK}\n### Tags: the project has errors, nothing would change\n\n");
    let more = add_within(&mut text, LONGEST, errors.iter().map(|error| format!("- {}\n", cell(error))));
    text.push_str(&left_out(more, "error"));
    text
}

/// Adds parts as long as the text stays below a length; how many are left out.
fn add_within(text: &mut String, length: usize, parts: impl Iterator<Item = String>) -> usize {
    let mut parts = parts.skip_while(|part| {
        let fits = text.len() + part.len() <= length;
        if fits {
            text.push_str(part);
        }
        fits
    });
    parts.by_ref().count()
}

/// What is said of parts that are left out.
fn left_out(count: usize, noun: &str) -> String {
    if count == 0 { String::new() } else { format!("\n`tagflow plan` tells {} more.\n\n", plural(count, noun)) }
}

fn sign(fate: Fate) -> &'static str {
    match fate {
        Fate::Added => "➕",
        Fate::Changed => "🔁",
        Fate::Removed => "➖",
        Fate::Moved => "➡️",
        Fate::Metadata => "📝",
    }
}

fn of_tag(tag: &TagPlan) -> String {
    let lines: Vec<String> = details(tag).into_iter().filter(|line| !line.starts_with('!')).collect();
    let told = match &tag.data {
        Some(DataDiff::Known(found)) => format!(": {}", data_summary(found)),
        Some(DataDiff::Unknown { unknown }) => format!(": not compared: {unknown}"),
        None => String::new(),
    };
    if lines.is_empty() && told.is_empty() {
        return String::new();
    }
    let mut text = format!("<details><summary>{}{}</summary>\n\n", escaped(&tag.tag), escaped(&told));
    for line in &lines {
        text.push_str(&format!("- {}\n", cell(line)));
    }
    if let Some(data @ DataDiff::Known(found)) = &tag.data {
        // Charts want letters of one width; the table is one of Markdown's own.
        let chart: String = data_text(data).split("\nthe biggest changes:").next().unwrap_or_default().to_string();
        text.push_str(&format!("\n```text\n{}\n```\n", chart.trim_end().replace("```", "'''")));
        if !found.biggest.is_empty() {
            text.push_str(&format!(
                "\n{}\n",
                biggest(&found.biggest, presets::ASCII_MARKDOWN, |text| cell(&printable(text)))
            ));
        }
    }
    text.push_str("\n</details>\n\n");
    text
}

/// A name as code.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'"))
}

/// Text within a line of Markdown: nothing of it is a table's border or HTML.
fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plan::plan::Why;

    fn changed(number: usize) -> TagPlan {
        let why =
            (0..20).map(|file| Why::unknown(&format!("schema of `stream_{file}` | {}", "变".repeat(30)))).collect();
        TagPlan {
            tag: format!("tag_{number}"),
            fate: Fate::Changed,
            kind: "tag",
            file: format!("tags/tag_{number}.sql"),
            moved_from: None,
            why,
            columns: Vec::new(),
            metadata: Vec::new(),
            downstream: Vec::new(),
            readers: Vec::new(),
            streams: Vec::new(),
            rows: None,
            returns_to: None,
            complete_from: (number == 900).then(|| "2026-03-01".to_string()),
            waits_for_accept: number == 900,
            data: None,
        }
    }

    #[test]
    fn comment_is_never_too_long_and_says_what_it_leaves_out() {
        let plan = Plan {
            compared_with: "what runs".to_string(),
            tags: (0..1000).map(changed).collect(),
            unchanged: 0,
            fill: None,
            remarks: vec!["a broker is away".to_string(); 1000],
        };
        let text = describe(&plan, Duration::from_secs(60));
        assert!(text.len() < 65_536 && text.len() > LONGEST - 5_000, "{}", text.len());
        assert!(text.contains("> ⚠️ `tag_900`: "), "what must be done is told, however many tags there are");
        for told in
            [" tags more.", " remarks more.", "<summary>tag_0</summary>", "<sub>Compared with what runs.</sub>\n"]
        {
            assert!(text.contains(told), "{told}");
        }
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
        let errors = refuse(&vec!["tags/a.sql: <b> is wrong".to_string(); 10_000]);
        assert!(
            errors.len() < 65_536 && errors.contains(" errors more.") && !errors.contains("<b>"),
            "{}",
            errors.len()
        );
        assert!(!refuse(&["one".to_string()]).contains("more"));
    }
}
