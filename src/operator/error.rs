//! What can fail while stepping.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;

/// A fault of one operator; the tags that depend on it are set aside.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperatorError {
    /// An expression failed on a row: cast, division by zero, overflow.
    #[error("{0}")]
    Expression(String),
    /// A result does not fit its type.
    #[error("{function} does not fit {data_type}")]
    Overflow {
        /// The aggregate.
        function: &'static str,
        /// The type of its result.
        data_type: String,
    },
    /// Stored state cannot be read back.
    #[error("state of {what} is damaged: {reason}")]
    State {
        /// The operator or part.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Keys that are to leave memory cannot be written.
    #[error("state cannot be kept outside of memory: {0}")]
    Scratch(String),
    /// The operator itself is wrong.
    #[error("this is a bug of tagflow, please report it with the tag's file: an operator panicked: {0}")]
    Panicked(String),
}

impl OperatorError {
    /// Runs a step of an operator, whose state is of no use once it has panicked.
    pub fn of_panic<T>(step: impl FnOnce() -> T) -> Result<T, OperatorError> {
        catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            OperatorError::Panicked(text.unwrap_or_else(|| "without a word".to_string()))
        })
    }
}

impl From<DataFusionError> for OperatorError {
    fn from(error: DataFusionError) -> Self {
        OperatorError::Expression(error.strip_backtrace())
    }
}

impl From<ArrowError> for OperatorError {
    fn from(error: ArrowError) -> Self {
        OperatorError::Expression(error.to_string())
    }
}
