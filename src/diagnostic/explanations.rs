//! The page of codes, `codes.md`: what each means, and files that give it before and after they are mended.

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

/// All entries in the order of the page.
pub fn explanations() -> impl Iterator<Item = Explanation> {
    let entries = PAGE.split("\n## ").skip(1);
    entries.filter_map(|text| Some(Explanation { code: text.split_once(':')?.0, text: text.trim_end() }))
}

/// The entry of a code, whatever its case.
pub fn explain(code: &str) -> Option<Explanation> {
    explanations().find(|entry| entry.code.eq_ignore_ascii_case(code))
}
