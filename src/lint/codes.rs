//! The stable codes of lints of a project: T09.

use crate::diagnostic::codes::codes;

codes! {
    /// Nobody answers for a tag.
    pub const NO_OWNER: &str = "T0901";
    /// Nothing reads it.
    pub const UNREAD: &str = "T0902";
    /// Money in binary fractions.
    pub const FLOAT_MONEY: &str = "T0903";
}
