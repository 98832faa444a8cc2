//! Instants as keys: the store holds them as wall time of the project's zone, in which an hour may come twice.

use arrow::datatypes::DataType;
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::flow::FlowPlan;
use crate::plan::sql::text::SqlText;

/// Warns of each key column whose values the store cannot tell apart in one hour of a year.
pub(crate) fn as_keys(text: &SqlText<'_>, plan: &FlowPlan, timezone: Tz) -> Vec<Diagnostic> {
    if !puts_clocks_back(timezone) {
        return vec![];
    }
    let is_instant = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(_)));
    let instants = plan.key.iter().filter(|column| is_instant(&column.data_type));
    instants
        .map(|column| {
            let span = text.find_word(&[&column.name]).unwrap_or_else(|| text.first_word());
            let message = format!(
                "key column `{}` is an instant, and its table holds wall time of {timezone}: the second hour of the night on which \
                 clocks are put back is left out",
                column.name
            );
            let help = format!("take a wall time that never comes twice, `{0} AT TIME ZONE 'UTC' AS {0}`", column.name);
            text.warning(codes::INSTANT_KEY, span, message).help(help)
        })
        .collect()
}

/// True of a zone whose offset becomes smaller at some time of the years from 2020 on.
fn puts_clocks_back(zone: Tz) -> bool {
    // Noons from 2020-01-01 to the end of 2035.
    let noons = (0..16 * 366).filter_map(|day| DateTime::from_timestamp(1_577_880_000 + day * 86_400, 0));
    let offsets: Vec<i32> =
        noons.map(|noon| zone.offset_from_utc_datetime(&noon.naive_utc()).fix().local_minus_utc()).collect();
    offsets.windows(2).any(|days| days[1] < days[0])
}
