//! A table out of the records that describe it: of every key the newest row, unless that says that the key is gone, or a
//! later record that all are.
//!
//! Written as a view over the records, so that the operators, the oracle and the proof of a tag's key need nothing more:
//! the first row of each partition, of which [`crate::operator::top_rows`] keeps one a key; where the table may be
//! emptied, compared with one value of all records, the offset of the newest TRUNCATE.

use std::sync::Arc;

use datafusion::common::{Column, DataFusionError, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableProvider, ViewTable, provider_as_source};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlanBuilder, lit, not};

use crate::catalog::{DELETED, MARKS, Stream, TRUNCATED};

/// The schema of the records below the tables that SQL sees.
pub const CHANGES: &str = "changes";
/// The offset of the newest TRUNCATE.
pub const EMPTIED: &str = "#emptied";

/// The table that a stream describes, over `records`.
pub fn table(stream: &Stream, records: &Arc<EmptyTable>) -> Result<ViewTable, DataFusionError> {
    let name = TableReference::partial(CHANGES, stream.name.as_str());
    let source = provider_as_source(Arc::clone(records) as Arc<dyn TableProvider>);
    let column = |column: &str| Expr::Column(Column::new(Some(name.clone()), column));
    let scan = || LogicalPlanBuilder::scan(name.clone(), Arc::clone(&source), None);
    let number = row_number()
        .partition_by(stream.key.iter().map(|key| column(key)).collect())
        .order_by(vec![column("_offset").sort(false, false)])
        .build()?
        .alias("#newest");
    let mut newest = scan()?;
    if stream.truncates {
        newest = newest.filter(not(column(TRUNCATED)))?;
    }
    newest = newest
        .window(vec![number])?
        .filter(Expr::Column(Column::from_name("#newest")).eq(lit(1_u64)))?
        .filter(not(column(DELETED)))?;
    if stream.truncates {
        let emptied = max(column("_offset")).alias(EMPTIED);
        let emptied = scan()?.filter(column(TRUNCATED))?.aggregate(Vec::<Expr>::new(), vec![emptied])?.build()?;
        let at = Expr::Column(Column::from_name(EMPTIED));
        newest = newest.cross_join(emptied)?.filter(at.clone().is_null().or(column("_offset").gt(at)))?;
    }
    let seen = records.schema();
    let seen = seen.fields().iter().filter(|field| !MARKS.contains(&field.name().as_str()));
    let seen: Vec<Expr> = seen.map(|field| column(field.name())).collect();
    Ok(ViewTable::new(newest.project(seen)?.build()?, None))
}
