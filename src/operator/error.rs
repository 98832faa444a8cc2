//! What can fail while stepping.

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
