//! The plan as the comment of a pull or merge request: what matters first, details folded.

use std::time::Duration;

use comfy_table::presets;

use super::data::DataDiff;
use super::human::{biggest, data_summary, data_text, details, fate_words, fill_line, printable, summary};
use super::plan::{Fate, Plan, TagPlan};

/// What the jobs of `tagflow init` find their own comment by.
const MARK: &str = "<!-- tagflow plan -->";

/// Comments are cut by GitHub beyond 65,536 characters.
const LONGEST: usize = 60_000;
/// The most tags of the table.
const ROWS: usize = 200;

/// Everything.
pub(super) fn describe(plan: &Plan, grace: Duration) -> String {
    let mut text = format!("{MARK}\n### Tags: {}\n\n", summary(plan));
    if plan.has_changes() {
        text.push_str("| tag | kind | what happens |\n|---|---|---|\n");
        for tag in plan.tags.iter().take(ROWS) {
            let (sign, tag_name) = (sign(tag.fate), code(&tag.tag));
            text.push_str(&format!("| {sign} {tag_name} | {} | {} |\n", tag.kind, cell(&fate_words(tag, grace))));
        }
        text.push('\n');
    }
    if let Some(fill) = &plan.fill {
        text.push_str(&format!("{}\n\n", cell(&fill_line(fill)).replacen("to fill", "To fill", 1)));
    }
    for remark in &plan.remarks {
        text.push_str(&format!("> ⚠️ {}\n\n", cell(remark)));
    }
    let mut left_out = plan.tags.len().saturating_sub(ROWS);
    for (told, tag) in plan.tags.iter().enumerate().take(ROWS) {
        let more = of_tag(tag);
        if text.len() + more.len() > LONGEST {
            left_out = plan.tags.len() - told;
            break;
        }
        text.push_str(&more);
    }
    if left_out > 0 {
        text.push_str(&format!("Of {left_out} more `tagflow plan` tells the details.\n\n"));
    }
    text.push_str(&format!("<sub>Compared with {}.</sub>\n", cell(&plan.compared_with)));
    text
}

/// What is told of a project with errors.
pub(super) fn refuse(errors: &[String]) -> String {
    let mut text = format!("{MARK}\n### Tags: the project has errors, nothing would change\n\n");
    for error in errors {
        text.push_str(&format!("- {}\n", cell(error)));
    }
    text
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
    let lines = details(tag);
    // What somebody must do is not folded away.
    let (urgent, lines): (Vec<String>, Vec<String>) = lines.into_iter().partition(|line| line.starts_with('!'));
    let mut text = String::new();
    for line in urgent {
        text.push_str(&format!("> ⚠️ {}: {}\n\n", code(&tag.tag), cell(line.trim_start_matches("! "))));
    }
    let told = match &tag.data {
        Some(DataDiff::Known(found)) => format!(": {}", data_summary(found)),
        Some(DataDiff::Unknown { unknown }) => format!(": not compared: {unknown}"),
        None => String::new(),
    };
    if lines.is_empty() && told.is_empty() {
        return text;
    }
    text.push_str(&format!("<details><summary>{}{}</summary>\n\n", escaped(&tag.tag), escaped(&told)));
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
