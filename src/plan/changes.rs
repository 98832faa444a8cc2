//! A table out of the changes of it: of every key the newest row, unless that says that the key is gone.
//!
//! Written as a view over the records, so that the operators, the oracle and the proof of a tag's key need nothing more:
//! the first row of each partition, of which [`crate::operator::top_rows`] keeps one a key.

use std::sync::Arc;

use datafusion::common::{Column, DataFusionError, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableProvider, ViewTable, provider_as_source};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlanBuilder, lit, not};

use crate::catalog::{DELETED, Stream};

/// The schema of the records below the tables that SQL sees.
pub const CHANGES: &str = "changes";

/// The table that a stream of changes describes, over `records`.
pub fn table(stream: &Stream, records: &Arc<EmptyTable>) -> Result<ViewTable, DataFusionError> {
    let name = TableReference::partial(CHANGES, stream.name.as_str());
    let source = provider_as_source(Arc::clone(records) as Arc<dyn TableProvider>);
    let column = |column: &str| Expr::Column(Column::new(Some(name.clone()), column));
    let number = row_number()
        .partition_by(stream.key.iter().map(|key| column(key)).collect())
        .order_by(vec![column("_offset").sort(false, false)])
        .build()?
        .alias("#newest");
    let seen = records.schema();
    let seen = seen.fields().iter().filter(|field| field.name() != DELETED);
    let seen: Vec<Expr> = seen.map(|field| column(field.name())).collect();
    let plan = LogicalPlanBuilder::scan(name.clone(), source, None)?
        .window(vec![number])?
        .filter(Expr::Column(Column::from_name("#newest")).eq(lit(1_u64)))?
        .filter(not(column(DELETED)))?
        .project(seen)?
        .build()?;
    Ok(ViewTable::new(plan, None))
}
