//! Names of columns as every store takes them: an analyst's alias becomes the name of a column.

use std::collections::HashSet;

/// What MySQL takes, in characters; the shortest of all stores.
const LONGEST: usize = 64;
/// The column that the sink adds.
const OWN: &str = "_updated_at";

/// What is wrong with each name that no table can have, beside the names before it.
pub fn unusable<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, String)> {
    let mut taken = HashSet::from([OWN.to_string()]);
    names
        .into_iter()
        .filter_map(|name| {
            // Stores tell names apart whatever their case is.
            let is_new = taken.insert(name.to_lowercase());
            let message = match name {
                _ if name.eq_ignore_ascii_case(OWN) => "is kept for the time of the last change".to_string(),
                _ if !is_new => "is there twice, at most in another case".to_string(),
                "" => "is empty".to_string(),
                _ if name.chars().count() > LONGEST => format!("has more than {LONGEST} characters"),
                _ if name.chars().any(|c| c.is_control() || c > '\u{ffff}') => {
                    "has a character that no database takes in a name".to_string()
                }
                _ if name.ends_with(char::is_whitespace) => "ends in a space".to_string(),
                _ => return None,
            };
            Some((name, message))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_store_refuses_are_told_and_odd_ones_are_left_alone() {
        let long = "名".repeat(65);
        let fits = "名".repeat(64);
        let refused = ["_Updated_At", "", "a\0b", "a\nb", "emoji 😀", "space ", long.as_str()];
        for name in refused {
            assert_eq!(unusable([name]).len(), 1, "{name:?}");
        }
        let odd =
            ["a`b", "a\"b", "a'b; DROP TABLE x; --", "sum(orders.amount)", "\\", "%s", "аmount", fits.as_str(), " x"];
        assert_eq!(unusable(odd), []);
        assert_eq!(unusable(["Amount", "amount"]), [("amount", "is there twice, at most in another case".to_string())]);
    }
}
