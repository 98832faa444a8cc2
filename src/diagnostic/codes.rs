//! The stable codes of diagnostics that loading a project gives.
//!
//! `T01` any file, `T02` `tagflow.toml`, `T03` `schemas/`, `T04` files of `tags/` and their tests; `T05` and `T06` are the planner's.
//! A code keeps its meaning for ever; a retired one is not used again.

/// Declares codes, and `ALL` of them.
macro_rules! codes {
    ($($(#[$doc:meta])* pub const $name:ident: &str = $code:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $code;)*
        /// All codes of this module.
        pub const ALL: &[&str] = &[$($name),*];
    };
}
pub(crate) use codes;

codes! {
    /// A file or folder cannot be read.
    pub const UNREADABLE: &str = "T0101";
    /// A file is not UTF-8 text.
    pub const NOT_UTF8: &str = "T0102";
    /// Text is not TOML.
    pub const TOML_SYNTAX: &str = "T0103";
    /// A key that means nothing here.
    pub const UNKNOWN_KEY: &str = "T0104";
    /// A value of the wrong type.
    pub const WRONG_TYPE: &str = "T0105";
    /// A key that must be there is not.
    pub const MISSING_KEY: &str = "T0106";
    /// A value of the right type that is not one of the possible.
    pub const BAD_VALUE: &str = "T0107";
    /// Part of the format that this version does not do.
    pub const NOT_YET: &str = "T0108";
    /// A path that leaves the project's folder.
    pub const PATH_OUTSIDE: &str = "T0109";

    /// The streams cannot be planned with.
    pub const STREAMS: &str = "T0200";
    /// The profile that was asked for is not declared, or a profile's name cannot be one.
    pub const PROFILE: &str = "T0201";
    /// `${NAME}` names a variable that is not set.
    pub const VARIABLE_NOT_SET: &str = "T0202";
    /// A `$` that is neither `${NAME}` nor `$$`.
    pub const VARIABLE_SYNTAX: &str = "T0203";
    /// A librdkafka property that the engine sets itself.
    pub const OWNED_PROPERTY: &str = "T0204";
    /// The address of the store, or of a database that is read, cannot be used.
    pub const STORE_URL: &str = "T0205";
    /// The name of an entity, connection or profile is not a name.
    pub const CONFIG_NAME: &str = "T0206";
    /// The address of a schema registry cannot be used.
    pub const REGISTRY_URL: &str = "T0207";
    /// The place of the checkpoints, or how it is reached, cannot be used.
    pub const CHECKPOINTS_URL: &str = "T0208";
    /// The console would listen beyond this machine without a token.
    pub const NO_TOKEN: &str = "T0209";
    /// A password or another secret stands in `tagflow.toml`.
    pub const LITERAL_SECRET: &str = "T0210";

    /// Not a column type.
    pub const COLUMN_TYPE: &str = "T0301";
    /// The stream's connection is not in `tagflow.toml`.
    pub const UNKNOWN_CONNECTION: &str = "T0302";
    /// Two columns whose names differ in case only, or not at all.
    pub const DUPLICATE_COLUMN: &str = "T0303";
    /// A column name that is kept for the engine.
    pub const RESERVED_COLUMN: &str = "T0304";
    /// The file name is not the name of a stream or view.
    pub const STREAM_NAME: &str = "T0305";
    /// A stream and a view have one name.
    pub const DUPLICATE_STREAM: &str = "T0306";
    /// The event time's column is missing or no TIMESTAMP.
    pub const EVENT_TIME: &str = "T0307";
    /// A schema file that is not read because of where it lies.
    pub const SCHEMA_PLACE: &str = "T0308";
    /// A column's `path` is not a path.
    pub const COLUMN_PATH: &str = "T0309";
    /// The file that says what a stream's records are made of is missing or says something else.
    pub const RECORD_SCHEMA: &str = "T0310";
    /// A column that the records of the stream do not have.
    pub const NO_SUCH_FIELD: &str = "T0311";

    /// The header comment cannot be made out.
    pub const HEADER: &str = "T0401";
    /// The file name is not the name of a tag.
    pub const TAG_NAME: &str = "T0402";
    /// Two files of one tag name.
    pub const DUPLICATE_TAG: &str = "T0403";
    /// The tag's entity is missing or not declared.
    pub const TAG_ENTITY: &str = "T0404";
    /// A file without a query.
    pub const NO_SQL: &str = "T0405";
    /// The header speaks of a column that the tag does not have.
    pub const HEADER_COLUMN: &str = "T0406";

    /// A test file without its tag beside it.
    pub const TEST_TAG: &str = "T0411";
    /// Events of a stream that the tag does not read.
    pub const TEST_STREAM: &str = "T0412";
    /// A column that neither stream nor tag has.
    pub const TEST_COLUMN: &str = "T0413";
    /// A row of a test that cannot be.
    pub const TEST_VALUE: &str = "T0414";
    /// The clock of a test does not stand where it could.
    pub const TEST_CLOCK: &str = "T0415";
    /// A CSV file of a test that cannot be read.
    pub const TEST_CSV: &str = "T0416";
    /// A test that expects nothing.
    pub const TEST_EXPECTS: &str = "T0417";
}
