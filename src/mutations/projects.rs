//! Any bytes as files of a project: sound, or refused at a place of a file, with a code, and in both forms of output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, codes, explain, render_human, render_json};
use crate::engine::desired::{is_sound, plan_project};
use crate::lint;
use crate::operator::graph::Graph;
use crate::plan::explain::{as_json, describe};
use crate::project::{Loaded, load_from_memory};

/// What is there unless the input has a file of that name.
const PROJECT: [(&str, &[u8]); 4] = [
    ("tagflow.toml", include_bytes!("../../fuzz/project/tagflow.toml")),
    ("schemas/orders.toml", include_bytes!("../../schemas/orders.toml")),
    ("schemas/page_views.toml", include_bytes!("../../schemas/page_views.toml")),
    ("schemas/users.toml", include_bytes!("../../schemas/users.toml")),
];

/// What the input names files by.
const FILE: &[u8] = b"--- file: ";

/// A line in the place of a file's text that stands for a file of the repository; none is read here.
const COPY: &[u8] = b"copy of ";

/// Files by their paths below the project's root.
type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// Reads and plans the files of `input`, each behind a line `--- file: PATH`, as a project; true where it is
/// sound.
///
/// # Panics
/// Where a promise is broken.
pub fn check(input: &[u8]) -> bool {
    let mut contents = contents_of(PROJECT);
    contents.extend(files_of(input));
    // Variables are set, to what is no address and no number.
    let loaded = load_from_memory(&contents, &|_| Some("zq7 hidden(value".to_owned()));
    let planned = loaded.project.as_ref().map(plan_project);
    let mut diagnostics = loaded.diagnostics.clone();
    if let Some((desired, told)) = planned {
        diagnostics.extend(told);
        let mut graph = Graph::new(1, desired.project.config.timezone);
        for (name, tag) in &desired.tags {
            assert!(!tag.plan.key.is_empty(), "a tag without a key");
            graph.add_tag(name, &tag.plan).expect("what streams can be started");
            let sharing = graph.sharing(&tag.plan, name);
            let memory = vec![None; tag.plan.nodes.len()];
            assert!(!describe(name, &tag.plan, &sharing, &memory).is_empty());
            assert!(as_json(name, &tag.plan, &sharing, &memory).is_object());
        }
    }
    are_clear(&loaded, &diagnostics, &contents);
    is_sound(&diagnostics)
}

/// Reads `input` as the file of a tag, header first; true where it is sound.
///
/// # Panics
/// Where a promise is broken.
pub fn tag_header(input: &[u8]) -> bool {
    let mut contents = contents_of([PROJECT[0]]);
    contents.insert(PathBuf::from("tags/tag.sql"), input.to_vec());
    let loaded = load_from_memory(&contents, &|_| None);
    are_clear(&loaded, &loaded.diagnostics, &contents);
    let tags = loaded.project.map(|project| project.tags.len());
    assert_eq!(tags, Some(usize::from(is_sound(&loaded.diagnostics))), "a tag that is neither there nor refused");
    is_sound(&loaded.diagnostics)
}

fn contents_of<const N: usize>(files: [(&str, &[u8]); N]) -> Contents {
    files.into_iter().map(|(file, bytes)| (PathBuf::from(file), bytes.to_vec())).collect()
}

fn files_of(input: &[u8]) -> Contents {
    let mut contents = Contents::new();
    let mut current = None;
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        if let Some(path) = line.strip_prefix(FILE) {
            let path = PathBuf::from(String::from_utf8_lossy(path).trim());
            contents.insert(path.clone(), Vec::new());
            current = Some(path);
        } else if let Some(text) = current.as_ref().and_then(|path| contents.get_mut(path))
            && !line.starts_with(COPY)
        {
            text.extend(line);
        }
    }
    contents
}

fn are_clear(loaded: &Loaded, diagnostics: &[Diagnostic], contents: &Contents) {
    for told in diagnostics {
        let Diagnostic { code, file, span, message, help, .. } = told;
        assert!(explain(code).is_some(), "a code that is not explained: {told:?}");
        assert!(!message.is_empty() && !message.contains("panicked"), "{told:?}");
        let is_secret = |text: &str| text.contains("zq7") || text.contains("hidden(");
        assert!(!is_secret(message) && !help.as_deref().is_some_and(is_secret), "a variable is shown: {told:?}");
        match span {
            Some(span) => {
                let text = loaded.sources.get(file).map(String::as_str).unwrap_or_default();
                assert!(text.get(span.clone()).is_some(), "a place that is none: {told:?}");
            }
            None => assert!(is_of_a_whole_file(code) || is_blank(file, contents), "no place: {told:?}"),
        }
    }
    let json = render_json(diagnostics, &loaded.sources);
    let json: serde_json::Value = serde_json::from_str(&json).expect("what programs read is JSON");
    assert_eq!(json["diagnostics"].as_array().map(Vec::len), Some(diagnostics.len()));
    assert_eq!(render_human(diagnostics, &loaded.sources, true).is_empty(), diagnostics.is_empty());
}

/// Codes of what is about a file and no place in it: how it is named, and what is not there.
fn is_of_a_whole_file(code: &str) -> bool {
    [
        codes::UNREADABLE,
        codes::NOT_UTF8,
        codes::MISSING_KEY,
        codes::STREAM_NAME,
        codes::DUPLICATE_STREAM,
        codes::SCHEMA_PLACE,
        codes::TAG_NAME,
        codes::DUPLICATE_TAG,
        codes::TAG_ENTITY,
        codes::NO_SQL,
        lint::codes::NO_OWNER,
        lint::codes::UNREAD,
    ]
    .contains(&code)
}

fn is_blank(file: &Path, contents: &Contents) -> bool {
    contents.get(file).is_none_or(|bytes| bytes.trim_ascii().is_empty())
}
