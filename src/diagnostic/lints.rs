//! Lints: warnings that a project silences or makes errors by their names, in `[lints]` of `tagflow.toml` and in the
//! header of a tag or view.

use std::collections::BTreeMap;

use super::{Diagnostic, Severity};

/// What becomes of a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It is not told.
    Allow,
    /// It is told.
    Warn,
    /// It is an error.
    Deny,
}

/// The levels by their words.
pub const LEVELS: [(&str, Level); 3] = [("allow", Level::Allow), ("warn", Level::Warn), ("deny", Level::Deny)];

/// Levels by the names of lints, as one file says them.
pub type Levels = BTreeMap<String, Level>;

/// Every lint: its name and its code. All warn unless a file says something else.
pub const LINTS: &[(&str, &str)] = &[
    ("literal_secret", "T0210"),
    ("idle_order_by", "T0510"),
    ("integer_division", "T0701"),
    ("zero_divisor", "T0702"),
    ("null_key", "T0703"),
    ("wall_time_epoch", "T0704"),
    ("ties", "T0705"),
    ("unbounded_join", "T0706"),
    ("population", "T0707"),
    ("clock_value", "T0708"),
    ("instant_key", "T0709"),
    ("nulls_first", "T0712"),
    ("log_base", "T0713"),
    ("concat_null", "T0714"),
    ("greatest_null", "T0715"),
    ("cast_truncates", "T0716"),
    ("clock_by_row", "T0717"),
    ("unbounded_state", "T0718"),
    ("select_star", "T0719"),
    ("coarse_key", "T0720"),
    ("no_owner", "T0901"),
    ("unread", "T0902"),
    ("float_money", "T0903"),
];

/// The name of the lint with a code.
pub fn lint_of(code: &str) -> Option<&'static str> {
    LINTS.iter().find(|(_, of)| *of == code).map(|(name, _)| *name)
}

/// The diagnostics as the levels want them: `layers` are the levels that hold for a diagnostic's file, and the first
/// that speaks of the lint counts.
pub fn levelled<'l>(diagnostics: Vec<Diagnostic>, layers: impl Fn(&Diagnostic) -> Vec<&'l Levels>) -> Vec<Diagnostic> {
    let level = |diagnostic: &Diagnostic| {
        let name = lint_of(diagnostic.code).filter(|_| diagnostic.severity == Severity::Warning)?;
        layers(diagnostic).into_iter().find_map(|levels| levels.get(name)).copied()
    };
    diagnostics
        .into_iter()
        .filter_map(|diagnostic| match level(&diagnostic) {
            Some(Level::Allow) => None,
            Some(Level::Deny) => Some(Diagnostic { severity: Severity::Error, ..diagnostic }),
            Some(Level::Warn) | None => Some(diagnostic),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_that_speaks_of_a_lint_counts() {
        let levels = |name: &str, level| Levels::from([(name.to_owned(), level)]);
        let (header, project) = (levels("ties", Level::Allow), levels("ties", Level::Deny));
        let told = |file: &str, code| Diagnostic::warning(code, file, 0..1, "doubtful");
        let diagnostics = vec![
            told("a.sql", "T0705"),
            told("b.sql", "T0705"),
            told("b.sql", "T0701"),
            Diagnostic::error("T0705", "a.sql", 0..1, ""),
        ];
        let left =
            levelled(
                diagnostics,
                |told| {
                    if told.file.ends_with("a.sql") { vec![&header, &project] } else { vec![&project] }
                },
            );
        let left: Vec<_> = left.iter().map(|told| (told.code, told.severity)).collect();
        assert_eq!(left, [("T0705", Severity::Error), ("T0701", Severity::Warning), ("T0705", Severity::Error)]);
    }
}
