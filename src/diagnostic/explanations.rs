//! The page of codes, `codes.md`: what each means, and files that give it before and after they are mended.

use std::sync::LazyLock;

/// The page as it is written: an entry a code, which begins with `## CODE: title`.
const PAGE: &str = include_str!("codes.md");

/// What is to be said of one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The code.
    pub code: &'static str,
    /// The entry from its title on, as Markdown.
    pub text: &'static str,
}

impl Explanation {
    /// What is wrong, in a line.
    pub fn title(&self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, title)| title)
    }

    /// Why it is: the first paragraph.
    pub fn cause(&self) -> &'static str {
        let body = self.text.split_once("\n\n").map_or("", |(_, body)| body);
        body.split("\n\n").next().unwrap_or_default()
    }
}

/// The entries, cut once: there may be thousands of problems to explain.
static ENTRIES: LazyLock<Vec<Explanation>> = LazyLock::new(|| {
    let entries = PAGE.split("\n## ").skip(1);
    entries.filter_map(|text| Some(Explanation { code: text.split_once(':')?.0, text: text.trim_end() })).collect()
});

/// All entries in the order of the page.
pub fn explanations() -> impl Iterator<Item = Explanation> {
    ENTRIES.iter().copied()
}

/// The entry of a code, whatever its case.
pub fn explain(code: &str) -> Option<Explanation> {
    explanations().find(|entry| entry.code.eq_ignore_ascii_case(code))
}
