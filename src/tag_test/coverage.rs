//! Which branches of CASE, and which conditions of WHERE, HAVING and FILTER, the tests of a tag have not looked at both ways.
//!
//! Every moment of every test is counted by batch queries of their own ([`probes`](crate::plan::sql::probes)).

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::common::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;

use crate::delta::Moment;
use crate::engine::desired::{Desired, planner};
use crate::oracle;
use crate::plan::sql::probes::{Kind, Probe};
use crate::tag::{OnError, TagDefinition, TagHeader};

/// The conditions of the tags of a project.
pub struct Probes {
    state: SessionState,
    queries: HashMap<String, Vec<Counted>>,
}

/// A query that counts, or why it cannot be asked.
struct Counted {
    plan: Result<LogicalPlan, String>,
    probes: Vec<Probe>,
}

/// How often conditions were met, by query and probe.
pub type Hits = Vec<Vec<(u64, u64)>>;

/// One condition of a tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Covered {
    /// What it is of: WHERE, HAVING, FILTER, WHEN or ELSE.
    pub word: &'static str,
    /// Its place in the tag's file.
    pub span: Range<usize>,
    /// What is written there.
    pub text: String,
    /// What no test has seen of it; nothing where all was.
    pub missing: Option<Missing>,
}

/// What no test has seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// A row of which the condition is true.
    True,
    /// A row of which it is not.
    False,
    /// A row that comes to it.
    Reached,
    /// A row that takes the branch.
    Taken,
    /// It cannot be asked for.
    Unmeasured(String),
}

impl Probes {
    /// Of the tags that are planned.
    ///
    /// # Errors
    /// When the streams cannot be planned with.
    pub fn new(desired: &Desired) -> Result<Self, DataFusionError> {
        let mut planner = planner(&desired.project)?;
        planner.for_batch(Default::default())?;
        let mut queries = HashMap::new();
        for (name, planned) in &desired.tags {
            let tag = &planned.definition;
            // Of a condition that fails on a row nothing is known.
            let header = TagHeader { on_error: OnError::Null, ..tag.header.clone() };
            let counted = planner.probes(tag).into_iter().map(|query| Counted {
                plan: planner
                    .plan_batch(&tag.file, &query.sql, Some(&header))
                    .map_err(|problems| problems.first().map_or_else(String::new, |problem| problem.message.clone())),
                probes: query.probes,
            });
            queries.insert(name.clone(), counted.collect());
        }
        Ok(Probes { state: planner.state().clone(), queries })
    }

    /// How often the conditions of a tag are met by what has come at a moment.
    pub(super) async fn count(
        &self,
        tag: &str,
        events: &HashMap<String, RecordBatch>,
        moment: &Moment,
    ) -> Result<Hits, DataFusionError> {
        let mut hits = Hits::new();
        for counted in self.queries.get(tag).into_iter().flatten() {
            let Ok(plan) = &counted.plan else {
                hits.push(Vec::new());
                continue;
            };
            let answer = oracle::answer(&self.state, plan, events, moment.clone()).await?;
            let number = |column: usize| match answer.num_rows() {
                0 => 0,
                _ => answer.column(column).as_primitive::<Int64Type>().value(0).unsigned_abs(),
            };
            hits.push((0..counted.probes.len()).map(|probe| (number(2 * probe), number(2 * probe + 1))).collect());
        }
        Ok(hits)
    }

    /// What was seen of a tag's conditions by all that was counted, in the order of its file.
    pub fn of_tag<'h>(&self, tag: &TagDefinition, hits: impl Iterator<Item = &'h Hits> + Clone) -> Vec<Covered> {
        let mut covered = Vec::new();
        for (query, counted) in self.queries.get(&tag.name).into_iter().flatten().enumerate() {
            for (index, probe) in counted.probes.iter().enumerate() {
                let of_probe = hits.clone().filter_map(|hits| hits.get(query)?.get(index));
                let (met, unmet) = of_probe.fold((0, 0), |(met, unmet), hit| (met + hit.0, unmet + hit.1));
                let (word, missing) = match (probe.kind, &counted.plan) {
                    (Kind::Condition(word) | Kind::Branch(word), Err(reason)) => {
                        (word, Some(Missing::Unmeasured(reason.clone())))
                    }
                    (Kind::Condition(word), Ok(_)) => match (met, unmet) {
                        (0, 0) => (word, Some(Missing::Reached)),
                        (0, _) => (word, Some(Missing::True)),
                        (_, 0) => (word, Some(Missing::False)),
                        _ => (word, None),
                    },
                    (Kind::Branch(word), Ok(_)) => (word, (met == 0).then_some(Missing::Taken)),
                };
                covered.push(Covered { word, span: probe.span.clone(), text: probe.text.clone(), missing });
            }
        }
        covered.sort_by_key(|covered| (covered.span.start, covered.span.end));
        covered
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Missing::True => formatter.write_str("never true"),
            Missing::False => formatter.write_str("never false"),
            Missing::Reached => formatter.write_str("never reached"),
            Missing::Taken => formatter.write_str("never taken"),
            Missing::Unmeasured(reason) => write!(formatter, "not measured: {reason}"),
        }
    }
}
