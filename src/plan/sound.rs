//! Rows of which nothing fails: a tag with `on_error = "skip"` goes on without the others.
//!
//! A node of the logical plan of its own, since the optimiser must neither merge it with other conditions nor move them
//! over it: which rows fail is asked of those that the query reads at that place. For a batch query it is a filter.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchemaRef, DataFusionError, Result};
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan, UserDefinedLogicalNodeCore, lit};

/// The rows of `input`, each of one record, for which none of the expressions fails.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub struct Sound {
    /// The stream that the records are of.
    pub stream: String,
    /// The expressions that may fail, in the author's words.
    pub texts: Vec<String>,
    /// For each of them, whether it fails.
    pub failures: Vec<Expr>,
    /// Partition, offset and broker time of the record.
    pub place: Vec<Expr>,
    /// The rows.
    pub input: LogicalPlan,
}

impl Sound {
    /// As a plan.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The node of a plan, where it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Sound> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }
}

/// For a batch query: a filter in its place.
pub fn as_filter(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let Some(sound) = Sound::of(&plan) else { return Ok(Transformed::no(plan)) };
    let fails = disjunction(sound.failures.iter().cloned()).unwrap_or_else(|| lit(false));
    let filter = Filter::try_new(Expr::IsNotTrue(Box::new(fails)), Arc::new(sound.input.clone()))?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

impl UserDefinedLogicalNodeCore for Sound {
    fn name(&self) -> &str {
        "Sound"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.failures.iter().chain(&self.place).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "Sound: {}", self.texts.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut failures = exprs;
        let place = failures.split_off(self.failures.len().min(failures.len()));
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) if place.len() == self.place.len() => Ok(Sound { failures, place, input, ..self.clone() }),
            _ => Err(DataFusionError::Internal("rows that fail: another input".to_string())),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut needed = output_columns.to_vec();
        for expr in self.failures.iter().chain(&self.place) {
            for column in expr.column_refs() {
                needed.push(schema.index_of_column(column).ok()?);
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
