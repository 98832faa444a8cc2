//! Names of fields as names of columns.

use std::collections::BTreeSet;

/// Gives each path a name of its own that a column may have.
#[derive(Default)]
pub(super) struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    /// The column's name, and its path where the name alone does not lead there. `None` where no path can.
    pub(super) fn of(&mut self, path: &[String]) -> Option<(String, Option<String>)> {
        if path.iter().any(|part| part.is_empty() || part.contains("']") || part == "*") {
            return None;
        }
        let joined = path.join("_");
        let plain: String = joined.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        let plain = match plain.trim_start_matches('_') {
            "" => "column".to_string(),
            plain => plain.to_string(),
        };
        let tries = std::iter::once(plain.clone()).chain((2..).map(|number| format!("{plain}_{number}")));
        // Names that differ in case alone are one to SQL.
        let name = tries.into_iter().find(|name| self.taken.insert(name.to_lowercase()))?;
        let is_said = matches!(path, [only] if *only == name);
        Some((name, (!is_said).then(|| shown(path))))
    }
}

/// A path as a schema file writes it.
fn shown(path: &[String]) -> String {
    let part = |part: &String| match part.contains(|c: char| !c.is_alphanumeric() && c != '_') {
        true => format!("['{part}']"),
        false => format!(".{part}"),
    };
    format!("${}", path.iter().map(part).collect::<String>())
}

/// The words of a name: `orderTime`, `order_time` and `order-time` have the same.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for c in name.chars() {
        let begins = !c.is_alphanumeric() || (c.is_uppercase() && before_is_lower);
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before_is_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_gets_a_name_of_its_own_and_the_path_that_leads_to_it() {
        let mut names = Names::default();
        let mut of = |path: &[&str]| names.of(&path.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["user_id"]), Some(("user_id".into(), None)));
        assert_eq!(of(&["User_ID"]), Some(("User_ID_2".into(), Some("$.User_ID".into()))));
        assert_eq!(of(&["item", "a b"]), Some(("item_a_b".into(), Some("$.item['a b']".into()))));
        assert_eq!(of(&["_offset"]), Some(("offset".into(), Some("$._offset".into()))));
        assert_eq!(of(&["it']s"]), None);
        assert_eq!(of(&[""]), None);
    }

    #[test]
    fn words_are_told_by_case_and_signs() {
        assert_eq!(words("orderTime"), ["order", "time"]);
        assert_eq!(words("created_at"), ["created", "at"]);
        assert_eq!(words("format"), ["format"]);
    }
}
