//! Seconds since 1970 of a TIMESTAMP: DataFusion reads it as UTC, but it is wall time in the project's zone.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::text::SqlText;

/// A warning where the query counts seconds of a wall time.
pub(crate) fn of_wall_time(text: &SqlText<'_>, plan: &LogicalPlan) -> Option<Diagnostic> {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|plan| {
        let mut schema = datafusion::logical_expr::utils::merge_schema(&plan.inputs());
        schema.merge(plan.schema());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr {
                    let value = match (function.name(), function.args.as_slice()) {
                        ("date_part", [Expr::Literal(part, _), value]) => {
                            part.to_string().eq_ignore_ascii_case("epoch").then_some(value)
                        }
                        ("to_unixtime", [value, ..]) => Some(value),
                        _ => None,
                    };
                    let wall_time = |value: &Expr| {
                        matches!(value.get_type(&schema), Ok(DataType::Timestamp(_, None) | DataType::Date32))
                    };
                    found |= value.is_some_and(wall_time);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.ok()?;
    // Where a view does it, the view is told.
    let span = text.find_word(&["epoch", "to_unixtime"]).filter(|_| found)?;
    let warning = text.warning(codes::WALL_TIME_EPOCH, span, "the seconds are counted as if the time were UTC");
    Some(warning.help("write `CAST(… AS TIMESTAMP WITH TIME ZONE)` around the time: then it is the project's zone"))
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::context::SessionContext;

    use crate::catalog::Catalog;
    use crate::plan::session::session_state;

    /// The one value of a query without a stream, as text.
    fn value(zone: chrono_tz::Tz, sql: &str) -> String {
        let context = SessionContext::new_with_state(session_state(&Catalog::default(), zone).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let batches =
            runtime.block_on(async { context.sql(&format!("SELECT {sql} AS v")).await.unwrap().collect().await });
        let table = pretty_format_batches(&batches.unwrap()).unwrap().to_string();
        table.lines().nth(3).unwrap().trim_matches(['|', ' ']).to_string()
    }

    #[test]
    fn what_is_written_for_unix_times_means_the_zone_of_the_project() {
        let shanghai = chrono_tz::Asia::Shanghai;
        let eight = "CAST(CAST('2026-01-01 08:00:00' AS TIMESTAMP) AS TIMESTAMP WITH TIME ZONE)";
        let midnight = "1767225600";
        assert_eq!(value(shanghai, &format!("CAST(date_part('epoch', {eight}) AS BIGINT)")), midnight);
        assert_eq!(value(shanghai, &format!("CAST(to_unixtime({eight}) AS BIGINT)")), midnight);
        let parsed = "date_part('epoch', to_timestamp('20260101 0800', '%Y%m%d %H%M'))";
        assert_eq!(value(shanghai, &format!("CAST({parsed} AS BIGINT)")), midnight);
        let shown = "to_char(to_timestamp_seconds(1767225600), '%Y-%m-%d %H:%M:%S')";
        assert_eq!(value(shanghai, shown), "2026-01-01 08:00:00");
        assert_eq!(value(chrono_tz::America::New_York, shown), "2025-12-31 19:00:00");
    }

    #[test]
    fn what_is_written_for_days_of_the_week_counts_as_mysql_does() {
        // 2026-01-04 is a Sunday: DAYOFWEEK 1, WEEKDAY 6.
        let zone = chrono_tz::UTC;
        assert_eq!(value(zone, "date_part('dow', DATE '2026-01-04') + 1"), "1");
        assert_eq!(value(zone, "date_part('isodow', DATE '2026-01-04') - 1"), "6");
    }

    #[test]
    fn what_is_written_for_date_sub_with_a_column_goes_back_so_many_days() {
        let zone = chrono_tz::UTC;
        let back = "to_char(CAST(DATE '2026-01-01' - CAST(concat(2, ' DAY') AS INTERVAL) AS DATE), '%Y-%m-%d')";
        assert_eq!(value(zone, back), "2025-12-30");
        let months = "to_char(CAST(DATE '2026-01-01' + CAST(concat(2, ' MONTH') AS INTERVAL) AS DATE), '%Y-%m-%d')";
        assert_eq!(value(zone, months), "2026-03-01");
    }
}
