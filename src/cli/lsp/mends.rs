//! Quick fixes: what `tagflow check --fix` mends for certain, one by one, and all of a file together.

use std::collections::HashMap;
use std::path::Path;

use lsp_types::{CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, TextEdit, WorkspaceEdit};

use super::analysis::Analysis;
use super::place::{self, range, uri_of};
use crate::cli::plural;
use crate::diagnostic::{Diagnostic, Edit, mend};

/// The longest text that a title quotes.
const LONGEST_QUOTE: usize = 60;

/// The mends of the problems at a place, and of all in the file where that is asked for or more.
pub(super) fn actions(
    analysis: &Analysis,
    root: &Path,
    file: &Path,
    text: &str,
    asked: &CodeActionParams,
) -> Vec<CodeActionOrCommand> {
    // Places are those of the text that was planned; once this one is, the editor asks again.
    if analysis.sources.get(file).is_none_or(|planned| planned != text) {
        return Vec::new();
    }
    let only = asked.context.only.as_deref();
    let wants = |kind: &CodeActionKind| only.is_none_or(|only| only.iter().any(|asked| contains(asked, kind)));
    let is_mended = |told: &&Diagnostic| told.file == file && !told.fix.is_empty();
    let mended: Vec<&Diagnostic> = analysis.diagnostics.iter().filter(is_mended).collect();
    let mut actions = Vec::new();
    if wants(&CodeActionKind::QUICKFIX) {
        let (start, end) = (place::byte(text, asked.range.start), place::byte(text, asked.range.end));
        for told in &mended {
            let bytes = place::bytes(told, text);
            if bytes.start <= end && start <= bytes.end {
                let edits = told.fix.iter().map(|edit| text_edit(edit, text)).collect();
                actions.push(CodeAction {
                    diagnostics: Some(vec![place::diagnostic(told, text)]),
                    is_preferred: Some(true),
                    ..action(root, file, title(told, text), CodeActionKind::QUICKFIX, edits)
                });
            }
        }
    }
    let all = CodeActionKind::SOURCE_FIX_ALL;
    if wants(&all) && (only.is_some() || mended.len() > 1) {
        let after = mend(mended.iter().copied(), &analysis.sources);
        if let Some(new) = after.texts.get(file) {
            let title =
                format!("mend {} of this file, as `tagflow check --fix` does", plural(after.problems, "problem"));
            let edits = vec![TextEdit::new(range(text, 0..text.len()), new.clone())];
            actions.push(action(root, file, title, all, edits));
        }
    }
    actions.into_iter().map(CodeActionOrCommand::CodeAction).collect()
}

/// Kinds are paths: `source` asks for `source.fixAll` too.
fn contains(asked: &CodeActionKind, kind: &CodeActionKind) -> bool {
    let below = kind.as_str().strip_prefix(asked.as_str());
    below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
}

fn action(root: &Path, file: &Path, title: String, kind: CodeActionKind, edits: Vec<TextEdit>) -> CodeAction {
    let changes = uri_of(root, file).map(|uri| HashMap::from([(uri, edits)]));
    let edit = Some(WorkspaceEdit { changes, ..WorkspaceEdit::default() });
    CodeAction { title, kind: Some(kind), edit, ..CodeAction::default() }
}

fn text_edit(edit: &Edit, text: &str) -> TextEdit {
    TextEdit::new(range(text, edit.span.clone()), edit.text_in(text))
}

/// What an editor shows: the one thing to write, else what the problem's help says.
fn title(told: &Diagnostic, text: &str) -> String {
    let is_short = |quoted: &str| quoted.len() <= LONGEST_QUOTE && !quoted.contains('\n');
    if let [edit] = told.fix.as_slice()
        && is_short(&edit.text)
    {
        let old = text.get(edit.span.clone()).unwrap_or_default();
        match (old, edit.text.as_str()) {
            (old, "") if is_short(old) => return format!("remove `{old}`"),
            ("", new) => return format!("insert `{new}`"),
            (old, new) if is_short(old) => return format!("write `{new}` for `{old}`"),
            (_, new) => return format!("write `{new}`"),
        }
    }
    let told = told.help.as_ref().unwrap_or(&told.message);
    told.lines().next().unwrap_or_default().to_string()
}
