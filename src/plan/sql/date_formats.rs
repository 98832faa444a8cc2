//! Formats of dates: DataFusion's are those of C (`%Y-%m-%d`); Java's, MySQL's and PostgreSQL's are told and translated,
//! the whole format or none of it.

use chrono::format::{Item, StrftimeItems};

/// What is wrong with a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Another language's, and the same in ours where all of it has a form there.
    Of(&'static str, Option<String>),
    /// None that is known.
    Unknown,
}

/// What a format is, if it is not ours. MySQL's DATE_FORMAT is there by its name, and its letters mean other things.
pub(crate) fn foreign(format: &str, is_mysqls: bool) -> Option<Foreign> {
    if !format.contains('%') {
        if !format.contains(|letter: char| letter.is_ascii_alphabetic()) {
            return None;
        }
        let java = translated(format, &JAVA, false);
        // A month behind the hours is never meant.
        let postgres = translated(format, &POSTGRES, true).filter(|ours| !ours.contains(":%m"));
        // `yyyy-mm-dd` are minutes to Java, `day` is a day, a half and a year: nobody means them.
        let is_java = java.is_some()
            && (!format.contains("mm") || format.contains(['H', 'h']))
            && !["day", "dy"].iter().any(|name| format.contains(name));
        return Some(match (is_java, postgres) {
            (true, _) => Foreign::Of("Java", java),
            (false, Some(postgres)) => Foreign::Of("PostgreSQL", Some(postgres)),
            (false, None) if PARTS_OF_TIMES.iter().any(|part| format.to_ascii_uppercase().contains(part)) => {
                Foreign::Of("another language", None)
            }
            (false, None) => Foreign::Unknown,
        });
    }
    // Minutes: every MySQL format of a time has them, and no other knows them.
    // Behind hours stand minutes: `%M` is not MySQL's, which is a month.
    let is_mysqls = is_mysqls && !format.contains(":%M");
    if format.contains("%i") || (is_mysqls && mysql(format).as_deref() != Some(format)) {
        return Some(Foreign::Of("MySQL", mysql(format)));
    }
    let is_known = StrftimeItems::new(format).all(|item| item != Item::Error);
    (!is_known).then_some(Foreign::Unknown)
}

/// A format in the way that DataFusion reads, or none where a part of it has no form there.
pub(crate) fn in_ours(format: &str, is_mysqls: bool) -> Option<String> {
    match foreign(format, is_mysqls) {
        None => Some(format.to_string()),
        Some(Foreign::Of(_, ours)) => ours,
        Some(Foreign::Unknown) => None,
    }
}

/// What formats of Java, PostgreSQL and Oracle are told by.
const PARTS_OF_TIMES: [&str; 9] = ["YY", "MM", "DD", "HH", "MI", "SS", "DAY", "MON", "DY"];

/// Longer parts before what they begin with.
const JAVA: [(&str, &str); 20] = [
    ("yyyy", "%Y"),
    ("yy", "%y"),
    ("y", "%Y"),
    ("MMMM", "%B"),
    ("MMM", "%b"),
    ("MM", "%m"),
    ("M", "%-m"),
    ("dd", "%d"),
    ("d", "%-d"),
    ("HH", "%H"),
    ("H", "%-H"),
    ("hh", "%I"),
    ("mm", "%M"),
    ("SSSSSS", "%6f"),
    ("SSS", "%3f"),
    ("ss", "%S"),
    ("EEEE", "%A"),
    ("EEE", "%a"),
    ("a", "%p"),
    ("T", "T"),
];

/// PostgreSQL's and Oracle's, in capitals; those of names are told apart by their case.
const POSTGRES: [(&str, &str); 26] = [
    ("IYYY", "%G"),
    ("YYYY", "%Y"),
    ("YY", "%y"),
    ("FMMONTH", "%B"),
    ("MONTH", "%B"),
    ("MON", "%b"),
    ("FMMM", "%-m"),
    ("MM", "%m"),
    ("MI", "%M"),
    ("MS", "%3f"),
    ("FMDAY", "%A"),
    ("DAY", "%A"),
    ("DY", "%a"),
    ("DDD", "%j"),
    ("FMDD", "%-d"),
    ("DD", "%d"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("HH", "%I"),
    ("SS", "%S"),
    ("US", "%6f"),
    ("AM", "%p"),
    ("PM", "%p"),
    ("IW", "%V"),
    ("ID", "%u"),
    ("T", "T"),
];

/// A format part by part, or none where a letter is no part of one. Text stands in quotes.
fn translated(format: &str, parts: &[(&str, &str)], any_case: bool) -> Option<String> {
    let mut ours = String::new();
    let mut rest = format;
    let mut is_quoted = false;
    while let Some(next) = rest.chars().next() {
        let known = parts.iter().find(|(theirs, _)| {
            rest.get(..theirs.len())
                .is_some_and(|own| if any_case { own.eq_ignore_ascii_case(theirs) } else { own == *theirs })
        });
        let length = match known {
            _ if next == '\'' || next == '"' => {
                is_quoted = !is_quoted;
                next.len_utf8()
            }
            Some((theirs, part)) if !is_quoted => {
                let is_name = any_case && matches!(*part, "%A" | "%a" | "%B" | "%b");
                // `MON` is NOV, and `mon` nov.
                if is_name && !is_capitalised(rest[..theirs.len()].trim_start_matches("FM")) {
                    return None;
                }
                ours.push_str(part);
                theirs.len()
            }
            _ if is_quoted || !next.is_ascii_alphabetic() => {
                ours.push(next);
                next.len_utf8()
            }
            _ => return None,
        };
        rest = &rest[length..];
    }
    (!is_quoted).then_some(ours)
}

fn is_capitalised(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase()) && letters.all(|letter| letter.is_ascii_lowercase())
}

fn mysql(format: &str) -> Option<String> {
    let mut ours = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            ours.push(letter);
            continue;
        }
        ours.push_str(match letters.next()? {
            'c' => "%-m",
            'e' => "%-d",
            'f' => "%6f",
            'h' => "%I",
            'k' => "%-H",
            'l' => "%-I",
            'M' => "%B",
            'r' => "%I:%M:%S %p",
            's' => "%S",
            'v' => "%V",
            'W' => "%A",
            'x' => "%G",
            // Weeks of another beginning, days with `th`: C has none.
            'D' | 'u' | 'V' | 'X' => return None,
            'i' => "%M",
            other => {
                ours.extend(['%', other]);
                continue;
            }
        });
    }
    Some(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_java_and_mysql_and_postgres_become_ours() {
        let cases = [
            ("yyyy-MM-dd HH:mm:ss.SSS", "%Y-%m-%d %H:%M:%S.%3f"),
            ("yyyyMMddHHmmss", "%Y%m%d%H%M%S"),
            ("ssSSS", "%S%3f"),
            ("yy/MM", "%y/%m"),
            ("yyyy-MM-dd'T'HH", "%Y-%m-%dT%H"),
            ("yyyy年M月d日", "%Y年%-m月%-d日"),
            ("%Y-%m-%d %H:%i:%s", "%Y-%m-%d %H:%M:%S"),
            ("%h:%i %p", "%I:%M %p"),
            ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S"),
            ("YYYY-MM", "%Y-%m"),
            ("YYYYMMDD", "%Y%m%d"),
            ("MMDD", "%m%d"),
            ("yyyy-mm-dd", "%Y-%m-%d"),
            ("YYYY-MM-DD HH24:MI:SS.MS", "%Y-%m-%d %H:%M:%S.%3f"),
            ("Day, DD Month YYYY", "%A, %d %B %Y"),
            ("FMDD. Mon", "%-d. %b"),
            ("YYYY-MM-DD\"T\"HH24", "%Y-%m-%dT%H"),
            ("IYYY-IW", "%G-%V"),
        ];
        for (theirs, ours) in cases {
            assert_eq!(in_ours(theirs, false).as_deref(), Some(ours), "{theirs}");
            assert_eq!(foreign(ours, false), None, "{ours}");
        }
    }

    #[test]
    fn what_has_no_form_in_ours_is_not_translated_by_half() {
        for format in
            ["MON", "DAY", "YYYY-Q", "YYYY-WW", "Dth", "yyyy-'MM", "%X-%i", "%D %i", "day", "YYYY-MM-DD HH:MM"]
        {
            assert_eq!(in_ours(format, false), None, "{format}");
        }
        assert_eq!(foreign("%Y-%J", false), Some(Foreign::Unknown));
        assert_eq!(foreign("quarter", false), Some(Foreign::Unknown));
        assert_eq!(foreign("YYYY-Q", false), Some(Foreign::Of("another language", None)));
    }

    #[test]
    fn letters_of_mysqls_own_function_mean_what_mysql_means() {
        assert_eq!(in_ours("%M %Y", true).as_deref(), Some("%B %Y"));
        assert_eq!(in_ours("%Y-%m-%d", true).as_deref(), Some("%Y-%m-%d"));
        assert_eq!(foreign("%Y-%m-%d %H", true), None);
        assert_eq!(foreign("%x-W%v", true), Some(Foreign::Of("MySQL", Some("%G-W%V".to_string()))));
        assert_eq!(foreign("%M", false), None);
        assert_eq!(foreign("%F %-H", true), None);
        assert_eq!(foreign("%H:%M", true), None);
    }
}
