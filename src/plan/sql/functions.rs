//! Functions that are not there, or that mean something else than in Hive and MySQL, and what to write instead.

use datafusion::execution::context::SessionState;
use datafusion::sql::sqlparser::ast::{Function, ObjectNamePart, Spanned};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::diagnostic::{Diagnostic, Edit, nearest};
use crate::plan::codes;
use crate::plan::sql::date_formats::{self, Foreign};
use crate::plan::sql::foreign;
use crate::plan::sql::text::SqlText;

/// A function's name in lower case.
pub(crate) fn name(function: &Function) -> String {
    function.name.0.last().and_then(ObjectNamePart::as_ident).map_or_else(String::new, |name| name.value.to_lowercase())
}

/// The problem of a call whose function is not known, or known for something else.
pub(crate) fn unknown(text: &SqlText<'_>, function: &Function, state: &SessionState) -> Option<Diagnostic> {
    let name = name(function);
    let span = text.span(function.name.span());
    // DataFusion's planner knows it by itself.
    if name == "unnest" {
        return None;
    }
    if name == "from_unixtime" {
        let instead = foreign::instead_of(&name, function);
        let error = text.error(codes::FOREIGN, span, "from_unixtime gives UTC here, not the project's time zone");
        return Some(Diagnostic { help: instead, ..error });
    }
    let aggregate = state.aggregate_functions().contains_key(&name);
    if aggregate || state.scalar_functions().contains_key(&name) {
        return None;
    }
    if state.window_functions().contains_key(&name) {
        let error = text.error(codes::WINDOW, span, format!("`{name}` is a window function and has no OVER (…)"));
        let help = format!("write `{name}(…) OVER (PARTITION BY … ORDER BY …)`");
        return function.over.is_none().then(|| error.help(help));
    }
    if let Some(instead) = foreign::instead_of(&name, function) {
        // A call out of a function of the project has no place in this file.
        let is_here = function.name.span() != Span::empty();
        let edit = (is_here && foreign::is_the_same(&name, function)).then(|| written(&instead)).flatten();
        let fix = edit.map(|sql| Edit { span: text.call(function), text: sql.to_string() });
        let error = text.error(codes::FOREIGN, span, format!("`{name}` is not known here"));
        return Some(error.help(instead).fix(fix));
    }
    let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys()).map(String::as_str);
    let mut functions: Vec<&str> = functions.collect();
    functions.sort_unstable();
    let help = nearest(&name, functions).map(|near| format!("did you mean `{near}`?"));
    let error = text.error(codes::UNKNOWN_FUNCTION, span, format!("there is no function `{name}`"));
    Some(Diagnostic { help, ..error })
}

/// What stands between the signs of "write `…`".
fn written(help: &str) -> Option<&str> {
    help.strip_prefix("write `")?.strip_suffix('`')
}

/// The problem of a format of dates that is another language's, or none.
pub(crate) fn date_format(text: &SqlText<'_>, function: &Function) -> Option<Diagnostic> {
    let name = name(function);
    if !matches!(
        name.as_str(),
        "to_char" | "date_format" | "to_date" | "to_time" | "to_timestamp" | "to_timestamp_seconds"
    ) {
        return None;
    }
    let arguments = foreign::arguments(function);
    let (argument, format) =
        arguments.iter().skip(1).find_map(|argument| Some((argument, foreign::literal(argument)?)))?;
    let span = text.expr(argument);
    let is_mysqls = name == "date_format";
    let error = |message: String| text.error(codes::DATE_FORMAT, span.clone(), message);
    const OURS: &str = "%Y %m %d are the date, %H %M %S the time: '%Y-%m-%d %H:%M:%S'";
    Some(match date_formats::foreign(format, is_mysqls)? {
        Foreign::Unknown => error(format!("'{format}' is no date format")).help(OURS),
        Foreign::Of(whose, None) => error(format!("'{format}' is a date format of {whose}")).help(format!(
            "{OURS}; quarters and days of the week are `date_part('quarter', …)`, `date_part('dow', …)`"
        )),
        // The letters of C in MySQL's function would be taken for MySQL's again.
        Foreign::Of(whose, Some(ours)) if is_mysqls && date_formats::foreign(&ours, true).is_some() => {
            error(format!("'{format}' is a date format of {whose}"))
                .help(format!("write `to_char({}, '{ours}')`", arguments[0]))
        }
        Foreign::Of(whose, Some(ours)) => {
            let quoted = format!("'{}'", ours.replace('\'', "''"));
            let error = error(format!("'{format}' is a date format of {whose}")).help(format!("write {quoted}"));
            error.fix([Edit { span: span.clone(), text: quoted }])
        }
    })
}
