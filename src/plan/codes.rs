//! The stable codes of problems in SQL. T05: what does not stream; T06: the key; T07: findings; T08: syntax and names.

use crate::diagnostic::codes::codes;

codes! {
    /// What no other code is for.
    pub const NOT_STREAMED: &str = "T0500";
    /// Joins.
    pub const JOIN: &str = "T0501";
    /// No stream is read.
    pub const NO_STREAM: &str = "T0502";
    /// An aggregate over everybody.
    pub const NOBODYS: &str = "T0503";
    /// GROUPING SETS, ROLLUP, CUBE.
    pub const GROUPING_SETS: &str = "T0504";
    /// An aggregate that does not stream yet.
    pub const AGGREGATE: &str = "T0505";
    /// ORDER BY inside an aggregate.
    pub const ORDERED_AGGREGATE: &str = "T0506";
    /// A window function that does not stream yet.
    pub const WINDOW: &str = "T0507";
    /// A sub-query inside an expression.
    pub const SUBQUERY: &str = "T0509";
    /// ORDER BY of the whole.
    pub const ORDER_BY: &str = "T0510";
    /// LIMIT of the whole.
    pub const LIMIT: &str = "T0511";
    /// DISTINCT ON.
    pub const DISTINCT_ON: &str = "T0513";
    /// WITH RECURSIVE.
    pub const RECURSIVE: &str = "T0514";
    /// A table function: windows, UNNEST.
    pub const TABLE_FUNCTION: &str = "T0515";
    /// A function that gives something else at every call.
    pub const VOLATILE: &str = "T0516";
    /// Clauses of other databases.
    pub const OTHER_CLAUSE: &str = "T0517";
    /// A clock side that may go back.
    pub const CLOCK_STEPS: &str = "T0521";
    /// A comparison with the clock of types that do not go together.
    pub const CLOCK_TYPES: &str = "T0522";
    /// A use of the clock that cannot be followed.
    pub const CLOCK_PLACE: &str = "T0523";
    /// Windows that cannot be closed.
    pub const WINDOW_CLOSE: &str = "T0524";
    /// Rows that cannot be skipped.
    pub const SKIP_PLACE: &str = "T0525";
    /// Nothing makes the rows unique.
    pub const NOT_UNIQUE: &str = "T0601";
    /// Rows unique by what is not selected.
    pub const KEY_NOT_SELECTED: &str = "T0602";
    /// The entity's key is selected, but another one makes the rows unique.
    pub const OTHER_KEY: &str = "T0603";
    /// The entity's key is not selected.
    pub const NO_KEY: &str = "T0604";
    /// The entity's key has another type.
    pub const KEY_TYPE: &str = "T0605";
    /// Integer divided by integer.
    pub const INTEGER_DIVISION: &str = "T0701";
    /// A divisor that may be zero.
    pub const ZERO_DIVISOR: &str = "T0702";
    /// Rows without a key, which are left out.
    pub const NULL_KEY: &str = "T0703";
    /// Seconds since 1970 of a wall time.
    pub const WALL_TIME_EPOCH: &str = "T0704";
    /// An ORDER BY that leaves open which row is the first.
    pub const TIES: &str = "T0705";
    /// A join that keeps all events of a stream.
    pub const UNBOUNDED_JOIN: &str = "T0706";
    /// A value of the whole population, which moves every row.
    pub const POPULATION: &str = "T0707";
    /// A value of the clock, which moves every row.
    pub const CLOCK_VALUE: &str = "T0708";
    /// An instant as a key, in a zone in which an hour comes twice.
    pub const INSTANT_KEY: &str = "T0709";
    /// A spelling of another database.
    pub const FOREIGN: &str = "T0710";
    /// A date format of another language.
    pub const DATE_FORMAT: &str = "T0711";
    /// NULLs before everything else in a ranking.
    pub const NULLS_FIRST: &str = "T0712";
    /// LOG of one argument.
    pub const LOG_BASE: &str = "T0713";
    /// CONCAT of what may be NULL.
    pub const CONCAT_NULL: &str = "T0714";
    /// GREATEST or LEAST of what may be NULL.
    pub const GREATEST_NULL: &str = "T0715";
    /// A cast that cuts a fraction off.
    pub const CAST_TRUNCATES: &str = "T0716";
    /// Rows of a long time that leave one by one.
    pub const CLOCK_BY_ROW: &str = "T0717";
    /// Rows that are kept for good.
    pub const UNBOUNDED_STATE: &str = "T0718";
    /// Columns that nobody named.
    pub const SELECT_STAR: &str = "T0719";
    /// Keys of which there are few.
    pub const COARSE_KEY: &str = "T0720";
    /// Anything else that DataFusion does not plan.
    pub const NOT_PLANNED: &str = "T0800";
    /// The text is no SQL.
    pub const SYNTAX: &str = "T0802";
    /// Something else than one query.
    pub const NOT_ONE_QUERY: &str = "T0803";
    /// A stream or view that is not there.
    pub const UNKNOWN_TABLE: &str = "T0810";
    /// A column that is not there.
    pub const UNKNOWN_COLUMN: &str = "T0811";
    /// A function that is not there.
    pub const UNKNOWN_FUNCTION: &str = "T0812";
    /// A column name that could mean several.
    pub const AMBIGUOUS: &str = "T0813";
    /// A column that is neither grouped nor aggregated.
    pub const NOT_GROUPED: &str = "T0814";
    /// Types that do not go together.
    pub const TYPES: &str = "T0815";
    /// Views that read each other in a circle.
    pub const VIEW_CYCLE: &str = "T0816";
    /// A view whose own file has errors.
    pub const BROKEN_VIEW: &str = "T0817";
    /// A variable or placeholder of another tool.
    pub const PLACEHOLDER: &str = "T0818";
    /// An aggregate where none can be.
    pub const AGGREGATE_PLACE: &str = "T0819";
    /// A function of the project.
    pub const FUNCTION: &str = "T0820";
    /// A column of a type that no database has.
    pub const COLUMN_TYPE: &str = "T0821";
    /// A column name that no table can have.
    pub const COLUMN_NAME: &str = "T0822";
}
