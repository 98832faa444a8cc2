//! The stable codes of what the world says of a project: T10.

use crate::diagnostic::codes::codes;

codes! {
    /// Kafka, a file or a database does not answer, or refuses.
    pub const SOURCE_AWAY: &str = "T1001";
    /// The topic does not exist.
    pub const TOPIC_MISSING: &str = "T1002";
    /// Records do not fit the schema.
    pub const UNDECODABLE: &str = "T1003";
    /// There is nothing yet to hold the schema against.
    pub const NO_RECORDS: &str = "T1004";
    /// The schema registry does not answer.
    pub const REGISTRY_AWAY: &str = "T1005";
    /// The store does not answer, or refuses.
    pub const STORE_AWAY: &str = "T1006";
    /// The store's account lacks a right.
    pub const STORE_RIGHTS: &str = "T1007";
}
