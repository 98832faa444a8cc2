//! The flow plan of one tag: incremental operators in topological order, each known by a fingerprint.
//!
//! Two nodes with the same fingerprint compute the same relation, so the engine runs them once. An aggregate is
//! known by its input and keys alone; what a tag computes over it is a *member*, with a fingerprint of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, SchemaRef};
use chrono_tz::Tz;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::WindowExpr;
use sha2::{Digest, Sha256};

use crate::catalog::Stream;
use crate::delta::Offsets;
use crate::plan::clock::ClockBound;
use crate::plan::unique::UniqueRule;

/// A scalar expression over the columns of one node.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// Canonical text: columns by position, literals with their types. Equal texts over the same node are equal values.
    pub text: String,
    /// What evaluates it.
    pub expr: Arc<dyn PhysicalExpr>,
    /// The type of its values.
    pub data_type: DataType,
    /// True when it may fail on some row (cast, division, overflow), so that it must not be evaluated for rows
    /// that its own tag filters out.
    pub fallible: bool,
}

/// A fingerprint: the first 16 bytes of a SHA-256, in hex.
pub fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// An output of a node: the index of the node in its plan. An aggregate in a tag's plan has exactly one member.
pub type NodeIndex = usize;

/// One incremental operator of a tag's plan.
#[derive(Debug, Clone)]
pub struct FlowNode {
    /// Equal for nodes that can be run once for several tags.
    pub fingerprint: String,
    /// Nodes whose output is read.
    pub inputs: Vec<NodeIndex>,
    /// What it does.
    pub kind: NodeKind,
    /// Columns of its output.
    pub schema: SchemaRef,
    /// True when its output never retracts a row.
    pub append_only: bool,
}

/// What an operator does.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// The events of a stream, in the full schema of the stream; columns that no tag needs are NULL.
    Source {
        /// The stream.
        stream: Arc<Stream>,
        /// Indices into the stream's schema of the columns that this tag needs.
        columns: BTreeSet<usize>,
    },
    /// The events of a stream without those that were sent again.
    Unique {
        /// The stream's name.
        stream: String,
        /// Which are dropped.
        rule: UniqueRule,
    },
    /// Rows for which `filter` is true, then `columns` of them; `None` keeps the columns as they are.
    Map {
        /// Conditions, each evaluated over the rows that the one before has left.
        filter: Vec<Scalar>,
        /// The new columns.
        columns: Option<Vec<Scalar>>,
    },
    /// One row, from the first step on: what is there when nothing else is.
    Seed,
    /// The events of a stream that are not late: see [`crate::plan::watermark`].
    Punctual(Punctuality),
    /// The rows of which no expression fails.
    Sound(Soundness),
    /// Rows while they are visible: they enter and leave as the clock moves, or the watermark of one stream.
    ClockFilter {
        /// All must hold.
        bounds: Vec<ClockBound>,
    },
    /// The rows, and for each comparison with the clock whether it holds now, NULL where the row's side is.
    ClockFlags {
        /// The comparisons, one more column each.
        flags: Vec<ClockBound>,
    },
    /// One row of values of the clock that move in steps, which is replaced when one of them has moved.
    ClockRow {
        /// The values: each is visible until the clock has passed it, so that the row's side is the clock's own over
        /// [`crate::plan::clock::clock_schema`].
        steps: Vec<ClockBound>,
    },
    /// Partial aggregates of the rows whose comparisons with the clock turn at the same instants, for an aggregate above.
    Tiles(TilePlan),
    /// One row a group: key columns, then the member's aggregates.
    Aggregate {
        /// Group keys.
        keys: Vec<Scalar>,
        /// What this tag computes of each group.
        member: Member,
    },
    /// The first rows of each partition, then their ranks as UInt64.
    TopRows {
        /// Partition keys.
        partition: Vec<Scalar>,
        /// The order; ties are broken by the whole row, ascending, NULLs first.
        order: Vec<(Scalar, SortOptions)>,
        /// Which rows, and the ranks that are read.
        first: FirstRows,
    },
    /// The rows of the input with window functions over their partitions, one more column each.
    Window {
        /// Partition keys.
        partition: Vec<Scalar>,
        /// The order within a partition; ties are broken by the whole row, ascending, NULLs first.
        order: Vec<(Scalar, SortOptions)>,
        /// The functions.
        calls: Vec<WindowCall>,
    },
    /// One row for each element of lists; the elements stand where the lists did.
    Unnest {
        /// Positions of the lists, which are written out side by side.
        lists: Vec<usize>,
        /// A row whose lists are all NULL or empty stays, with NULLs in their places.
        keeps_empty: bool,
    },
    /// The rows of two inputs that match.
    Join(JoinPlan),
    /// The rows of all inputs.
    Union,
}

/// Rows as partial aggregates. The output has the keys, a boolean for each flag, how many rows a row stands for, and the
/// partial aggregates; only what an aggregate merges of it has a meaning.
#[derive(Debug, Clone)]
pub struct TilePlan {
    /// What the aggregate above groups by.
    pub keys: Vec<Scalar>,
    /// All must hold for a row to count.
    pub bounds: Vec<ClockBound>,
    /// Comparisons that the aggregate above reads.
    pub flags: Vec<ClockBound>,
    /// The aggregates, over the columns of the input and behind them the flags as they are when a row comes.
    pub calls: Vec<AggregateCall>,
    /// Of the clock.
    pub timezone: Tz,
}

/// Which events of a stream are late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punctuality {
    /// The stream.
    pub stream: String,
    /// Where it comes from.
    pub topic: String,
    /// Position of the event time.
    pub time: usize,
    /// Position of the partition's number.
    pub partition: usize,
    /// Position of the offset.
    pub offset: usize,
    /// Position of the broker's time.
    pub timestamp: usize,
    /// An event this many nanoseconds older than the newest before it in its partition is not late yet.
    pub late_after: i64,
    /// Of it, what the stream itself allows: the watermark is so far behind the newest event.
    pub lateness: i64,
}

/// Which rows fail. Each is of one record of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soundness {
    /// The stream.
    pub stream: String,
    /// Where it comes from.
    pub topic: String,
    /// Positions of booleans, each true where one expression fails.
    pub failures: Vec<usize>,
    /// Those expressions, for people.
    pub texts: Vec<String>,
    /// Position of the partition's number.
    pub partition: usize,
    /// Position of the offset.
    pub offset: usize,
    /// Position of the broker's time.
    pub timestamp: usize,
}

/// The rows of a partition whose rank is not above a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstRows {
    /// The rank that is compared.
    pub by: Ranking,
    /// The highest that is kept; at least 1.
    pub most: u64,
    /// Ranks that are read of the rows, one more column each.
    pub ranks: Vec<Ranking>,
}

impl FirstRows {
    /// True where rows that the order does not tell apart must be known as such.
    pub fn needs_peers(&self) -> bool {
        self.ranks.iter().chain([&self.by]).any(|ranking| *ranking != Ranking::RowNumber)
    }
}

/// The functions that number the rows of a partition in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// ROW_NUMBER: one more a row.
    RowNumber,
    /// RANK: one more than the rows before those that are equal in the order.
    Rank,
    /// DENSE_RANK: one more than the different places before it.
    DenseRank,
}

impl Ranking {
    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Ranking::RowNumber => "row_number",
            Ranking::Rank => "rank",
            Ranking::DenseRank => "dense_rank",
        }
    }
}

/// One window function over the rows of a partition in their order.
#[derive(Debug, Clone)]
pub struct WindowCall {
    /// Canonical text.
    pub text: String,
    /// What evaluates it over one partition.
    pub expr: Arc<dyn WindowExpr>,
    /// The type of its values.
    pub data_type: DataType,
}

/// A join by equal keys.
#[derive(Debug, Clone)]
pub struct JoinPlan {
    /// Which rows come out.
    pub kind: JoinKind,
    /// The keys over the left input.
    pub left_keys: Vec<Scalar>,
    /// The keys over the right input, of the same types.
    pub right_keys: Vec<Scalar>,
    /// True where a NULL key matches a NULL key, as in INTERSECT.
    pub null_equals_null: bool,
    /// What else must hold of a pair, over the columns of the left and then the right.
    pub condition: Option<Scalar>,
}

/// Which rows a join gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Pairs.
    Inner,
    /// Pairs, and rows of the left without a partner.
    Left,
    /// Pairs, and rows of the right without a partner.
    Right,
    /// Pairs, and rows of both sides without a partner.
    Full,
    /// Rows of the left with a partner.
    Semi,
    /// Rows of the left without a partner.
    Anti,
    /// Rows of the left, and whether they have a partner.
    Mark,
}

impl JoinKind {
    /// True where pairs come out.
    pub fn gives_pairs(self) -> bool {
        matches!(self, JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full)
    }

    /// True where a row of the left with so many partners comes out by itself.
    pub fn shows_left(self, partners: i64) -> bool {
        match self {
            JoinKind::Left | JoinKind::Full | JoinKind::Anti => partners == 0,
            JoinKind::Semi => partners != 0,
            JoinKind::Mark => true,
            JoinKind::Inner | JoinKind::Right => false,
        }
    }

    /// True where a row of the right with so many partners comes out by itself.
    pub fn shows_right(self, partners: i64) -> bool {
        matches!(self, JoinKind::Right | JoinKind::Full) && partners == 0
    }
}

/// What one tag computes over shared groups.
#[derive(Debug, Clone)]
pub struct Member {
    /// Equal for members that compute the same.
    pub fingerprint: String,
    /// Rows that count for this member, in stages as in `Map`; a group without any is no row of the output.
    pub filter: Vec<Scalar>,
    /// How many rows each row stands for; `None` where it is one.
    pub rows: Option<Scalar>,
    /// Its aggregates.
    pub aggregates: Vec<AggregateCall>,
}

/// One aggregate function over the rows of a group.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    /// Which function.
    pub function: AggregateFunction,
    /// The argument; `None` for COUNT(*).
    pub argument: Option<Scalar>,
    /// The function of [`AggregateFunction::Collected`]; its argument is a struct of all that it reads.
    pub collected: Option<Arc<AggregateFunctionExpr>>,
    /// FILTER (WHERE …).
    pub filter: Option<Scalar>,
    /// True where the argument is a partial aggregate of [`NodeKind::Tiles`].
    pub merges: bool,
    /// The type of the result.
    pub data_type: DataType,
}

/// The aggregate functions that stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "SQL's own names")]
pub enum AggregateFunction {
    Count,
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
    /// Any other of DataFusion's, computed anew from all rows of a group.
    Collected,
}

impl AggregateCall {
    /// Canonical text.
    pub fn text(&self) -> String {
        let text = |scalar: &Option<Scalar>| scalar.as_ref().map_or_else(String::new, |scalar| scalar.text.clone());
        let merged = if self.merges { "merged " } else { "" };
        let (argument, filter) = (text(&self.argument), text(&self.filter));
        format!("{merged}{}({argument}) filter {filter} -> {}", self.name(), self.data_type)
    }

    /// The type of partial aggregates of which the result can be had; `None` where only all values give it.
    pub fn partial_type(&self) -> Option<DataType> {
        let sums = |sum: DataType| {
            let fields = vec![Field::new("count", DataType::Int64, true), Field::new("sum", sum, true)];
            Some(DataType::Struct(fields.into()))
        };
        use AggregateFunction::{Avg, Count, Max, Min, Sum};
        match (self.function, self.argument.as_ref().map(|argument| &argument.data_type)) {
            (Count, _) => Some(DataType::Int64),
            (Sum | Avg, Some(DataType::Int64 | DataType::UInt64)) => {
                sums(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
            }
            (Sum | Avg, Some(DataType::Decimal128(_, scale))) => {
                sums(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale))
            }
            (Sum | Avg, Some(DataType::Float64)) => sums(DataType::LargeBinary),
            (Min | Max, Some(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// Its name in SQL, or the whole call where the function is one of DataFusion's.
    pub fn name(&self) -> &str {
        self.collected.as_ref().map_or_else(|| self.function.name(), |function| function.name())
    }
}

impl AggregateFunction {
    /// Its name in SQL, for fingerprints and `explain`.
    pub fn name(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::CountDistinct => "count_distinct",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::Collected => "collected",
        }
    }
}

/// One column of a tag, and where it stands in the output of the plan's last node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    /// Its name in the tag's table.
    pub name: String,
    /// Its position in the last node's output.
    pub index: usize,
    /// Its type.
    pub data_type: DataType,
}

/// The plan of one tag.
#[derive(Debug, Clone)]
pub struct FlowPlan {
    /// Operators, inputs before those that read them. The last one gives the tag's rows.
    pub nodes: Vec<FlowNode>,
    /// Unique per row; the entity's key first.
    pub key: Vec<OutputColumn>,
    /// The values.
    pub columns: Vec<OutputColumn>,
    /// Equal for plans that give the same table from the same streams: a change of it refills the tag.
    pub fingerprint: String,
    /// How far back the answer depends on events.
    pub reach: Reach,
}

/// How far back an answer depends on events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To the first event.
    Unbounded,
    /// Only events younger than this many nanoseconds, as seen from the clock, matter.
    Within(i64),
}

impl Reach {
    /// Of an answer that depends on both.
    pub fn and(self, other: Reach) -> Reach {
        match (self, other) {
            (Reach::Within(one), Reach::Within(other)) => Reach::Within(one.max(other)),
            _ => Reach::Unbounded,
        }
    }
}

impl NodeKind {
    /// True for operators whose rows are records of a stream, in its schema and with the columns that tags need.
    pub(crate) fn gives_records(&self) -> bool {
        matches!(self, NodeKind::Source { .. } | NodeKind::Unique { .. } | NodeKind::Punctual(_))
    }

    /// True for operators whose output depends on more than the rows of one epoch.
    pub(crate) fn keeps_state(&self) -> bool {
        let is_of_one_step = matches!(
            self,
            NodeKind::Source { .. }
                | NodeKind::Map { .. }
                | NodeKind::Sound(_)
                | NodeKind::Unnest { .. }
                | NodeKind::Union
        );
        !is_of_one_step
    }
}

impl FlowPlan {
    /// The same plan for state that begins at `beginnings`: the first records taken, where they are not a partition's
    /// first ever. State that saw another part of history is another relation, so its fingerprints differ.
    pub fn since(&self, beginnings: &Offsets) -> FlowPlan {
        self.salted("since", |below| {
            let own =
                beginnings.0.iter().filter(|(partition, next)| **next > 0 && below.contains(partition.stream.as_str()));
            own.map(|(partition, next)| format!("{} {} {next}", partition.stream, partition.number)).collect()
        })
    }

    /// The same plan over streams that were replayed so many times: their records are others than those before, so that
    /// no state is taken over from the plan before, and the tag is filled anew.
    pub fn replayed(&self, replays: &BTreeMap<String, u64>) -> FlowPlan {
        let times = |below: &BTreeSet<&str>| -> Vec<String> {
            let own = replays.iter().filter(|(stream, _)| below.contains(stream.as_str()));
            own.map(|(stream, times)| format!("{stream} {times}")).collect()
        };
        let own = times(&self.sources().map(|(stream, _)| stream.name.as_str()).collect());
        if own.is_empty() {
            return self.clone();
        }
        let mut plan = self.salted("replayed", times);
        plan.fingerprint = fingerprint(&format!("{} replayed {}", self.fingerprint, own.join(", ")));
        plan
    }

    /// With other fingerprints of operators with state, where there is something to say of the streams below them.
    fn salted(&self, word: &str, salt: impl Fn(&BTreeSet<&str>) -> Vec<String>) -> FlowPlan {
        let mut plan = self.clone();
        let mut streams: Vec<BTreeSet<&str>> = Vec::new();
        let mut keeps_state: Vec<bool> = Vec::new();
        for (node, begun) in self.nodes.iter().zip(&mut plan.nodes) {
            let mut below: BTreeSet<&str> = node.inputs.iter().flat_map(|input| streams[*input].clone()).collect();
            if let NodeKind::Source { stream, .. } = &node.kind {
                below.insert(&stream.name);
            }
            let stateful = node.kind.keeps_state() || node.inputs.iter().any(|input| keeps_state[*input]);
            let own = salt(&below);
            if stateful && !own.is_empty() {
                begun.fingerprint = fingerprint(&format!("{} {word} {}", node.fingerprint, own.join(", ")));
            }
            streams.push(below);
            keeps_state.push(stateful);
        }
        plan
    }

    /// The streams that are read, each with the columns that are needed.
    pub fn sources(&self) -> impl Iterator<Item = (&Arc<Stream>, &BTreeSet<usize>)> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Source { stream, columns } => Some((stream, columns)),
            _ => None,
        })
    }
}
