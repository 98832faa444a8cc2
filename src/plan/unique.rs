//! A stream without what was sent again, of which a schema's `unique` tells.
//!
//! For the oracle it is a view over the records, two windows and their conditions; the engine's own is
//! [`crate::operator::unique`]. Both follow the rule that is written down here.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, DataFusionError, ScalarValue, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, cast, lit, when,
};

use crate::catalog::Stream;
use crate::delta::Clock;
use crate::plan::clock::nanoseconds;
use crate::plan::watermark;

/// The schema of the views, each by the name of its stream.
pub const UNIQUE: &str = "unique";

/// Which records of a stream are dropped. Distances are in the unit of the event time.
///
/// 1. A record is too late when its event time lies more than `patience` behind the newest before it of its own
///    partition: whether it is a resent one cannot be told any more. Times too far ahead are not looked at, as in
///    [`watermark::MOST_AHEAD`].
/// 2. Of the others that are alike in `columns`, by event time, partition and offset, one is resent when it lies at most
///    `within` behind the one before it, whether that is dropped or not.
///
/// Records without an event time, or with a NULL in `columns`, are neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueRule {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The column of event time.
    pub time: String,
    /// How far behind the one before a resent record lies at most.
    pub within: i64,
    /// `within`, and as much as events may be late.
    pub patience: i64,
    /// Nanoseconds of a unit.
    pub unit: i64,
}

impl UniqueRule {
    /// What the stream's schema says, if it says anything.
    pub fn of(stream: &Stream) -> Option<Self> {
        let (unique, time) = (stream.unique.as_ref()?, stream.time.as_ref()?);
        let column = stream.columns.iter().find(|column| column.name == time.column)?;
        let unit = nanoseconds(&column.data_type)?;
        let in_unit = |duration: std::time::Duration| {
            // Rounded down: distances of whole units that are longer are longer than the exact duration too.
            i64::try_from(duration.as_nanos() / u128::from(unit.unsigned_abs())).unwrap_or(i64::MAX)
        };
        Some(UniqueRule {
            columns: unique.columns.clone(),
            time: time.column.clone(),
            within: in_unit(unique.within),
            patience: in_unit(unique.within.saturating_add(time.lateness)),
            unit,
        })
    }

    /// An event time as nanoseconds.
    pub fn instant(&self, time: i64) -> Clock {
        time.saturating_mul(self.unit)
    }
}

/// The stream's rows over `records`.
pub fn view(stream: &Stream, rule: &UniqueRule, records: &Arc<EmptyTable>) -> Result<ViewTable, DataFusionError> {
    const NEWEST: &str = "#newest";
    const BEFORE: &str = "#before";
    let name = TableReference::bare(stream.name.as_str());
    let source = provider_as_source(Arc::clone(records) as Arc<dyn TableProvider>);
    let column = |column: &str| Expr::Column(Column::new(Some(name.clone()), column));
    let computed = |name: &str| Expr::Column(Column::from_name(name));
    let ascending = |name: &str| column(name).sort(true, true);
    let time = || cast(column(&rule.time), DataType::Int64);

    let all_before = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
    );
    let moving = when(watermark::is_near_expr(&column(&rule.time), &column("_timestamp")), time()).end()?;
    let newest = Expr::from(WindowFunction::new(WindowFunctionDefinition::AggregateUDF(max_udaf()), vec![moving]))
        .partition_by(vec![column("_partition")])
        .order_by(vec![ascending("_offset")])
        .window_frame(all_before)
        .build()?
        .alias(NEWEST);
    let before = lag(time(), Some(1), None)
        .partition_by(rule.columns.iter().map(|name| column(name)).collect())
        .order_by(vec![ascending(&rule.time), ascending("_partition"), ascending("_offset")])
        .build()?
        .alias(BEFORE);
    let compared = rule.columns.iter().chain([&rule.time]);
    let is_incomparable = compared.map(|name| column(name).is_null()).reduce(Expr::or).unwrap_or(lit(false));
    let is_in_time = computed(NEWEST).is_null().or(time().gt_eq(computed(NEWEST) - lit(rule.patience)));
    let is_first = computed(BEFORE).is_null().or((time() - computed(BEFORE)).gt(lit(rule.within)));
    let fields = stream.schema();
    let plan = LogicalPlanBuilder::scan(name.clone(), source, None)?
        .window(vec![newest])?
        .filter(is_incomparable.clone().or(is_in_time))?
        .window(vec![before])?
        .filter(is_incomparable.or(is_first))?
        .project(fields.fields().iter().map(|field| column(field.name())))?
        .build()?;
    Ok(ViewTable::new(plan, None))
}
