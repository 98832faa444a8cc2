//! What a query's text says of times that DataFusion plans in another meaning.
//!
//! `TIMESTAMP` without a precision counts microseconds, as in other databases: nanoseconds, which DataFusion takes, end in 2262,
//! and 9999-12-31 stands for "never" in many tables. `AT TIME ZONE 'z'` is planned as a cast to instants that are shown in z;
//! its zone is marked here, so that [`crate::plan::mixed_times`] can tell it from a cast.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{DataType, Expr, TypedString, Value, VisitMut, VisitorMut};

use crate::plan::mixed_times::AT;

/// Writes out what is meant.
pub(crate) fn write_out(tree: &mut impl VisitMut) {
    let _ = VisitMut::visit(tree, &mut Times);
}

struct Times;

impl VisitorMut for Times {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
                if let DataType::Timestamp(precision @ None, _) = data_type {
                    *precision = Some(6);
                }
            }
            Expr::AtTimeZone { time_zone, .. } => {
                if let Expr::Value(zone) = time_zone.as_mut()
                    && let Value::SingleQuotedString(name) = &mut zone.value
                {
                    name.insert_str(0, AT);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
