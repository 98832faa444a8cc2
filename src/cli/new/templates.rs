//! The templates of `tagflow new tag`, and what each of them needs.

/// A column that a template asks for beside the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// When something happened.
    Time,
    /// A number to add up.
    Amount,
    /// Text to tell kinds apart.
    By,
}

/// One template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) name: &'static str,
    /// For the list of templates.
    pub(super) about: &'static str,
    pub(super) needs: &'static [Need],
    pub(super) text: &'static str,
}

macro_rules! templates {
    ($($name:literal: $about:literal, [$($need:ident),*];)*) => {
        /// All templates.
        pub(super) const TEMPLATES: &[Template] = &[$(Template {
            name: $name,
            about: $about,
            needs: &[$(Need::$need),*],
            text: include_str!(concat!("templates/", $name, ".sql")),
        }),*];
    };
}

templates! {
    "rolling_sum": "the sum of the last 30 days", [Time, Amount];
    "rolling_count": "how many in the last seven days", [Time];
    "lifetime": "sum, count and mean of all that ever was", [Amount];
    "daily": "the sum of each day, one row a key and day", [Time, Amount];
    "active_days": "on how many of the last 30 days there was anything", [Time];
    "streak": "the longest run of days one after the other", [Time];
    "favourite": "the value seen most often", [Time, By];
    "top": "the three values with the largest sums, one row each", [Amount, By];
    "last": "what the latest event says", [Time];
    "last_seen": "when something was last seen", [Time];
    "level": "levels by a sum, with labels", [Time, Amount];
    "share": "how many of a hundred events are of one kind", [Time, By];
    "segment": "who did something often enough", [Time];
    "churn_risk": "active, cooling, lapsed, by the days since the latest event", [Time];
    "rfm": "recency, frequency and money, a score each", [Time, Amount];
    "funnel": "the furthest of some steps in order", [Time, By];
    "session": "visits: events at most half an hour apart, one row each", [Time];
}

/// The list for people.
pub(super) fn list() -> String {
    TEMPLATES.iter().map(|template| format!("  {:<14} {}\n", template.name, template.about)).collect()
}
