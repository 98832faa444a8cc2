//! An optimised DataFusion plan becomes a flow plan.
//!
//! Projections and filters are kept pending on a [`Relation`] as expressions over the node below, so that they end
//! where they are cheapest: as an aggregate's own filter and arguments over the shared input, or in one `Map`.

mod clocked;
mod collected;
mod constants;
mod dependence;
mod grouping;
mod implied;
mod join;
mod key;
mod keyed;
mod population;
mod punctual;
mod sound;
mod tiles;
mod unnest;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono_tz::Tz;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator};
use datafusion::physical_expr::create_physical_expr;

use self::clocked::Comparing;
use self::dependence::Dependence;
use crate::catalog::{Catalog, Misfits, Stream};
use crate::plan::clock::{self, ClockBound, ClockSide, Comparison};
use crate::plan::codes;
use crate::plan::fallible::is_fallible;
use crate::plan::flow::{FlowNode, FlowPlan, NodeIndex, NodeKind, Reach, Scalar, fingerprint};
use crate::plan::sound::Sound;
use crate::plan::unique::UniqueRule;
use crate::plan::watermark;
use crate::plan::wording::sql_type;

/// Why a plan cannot stream, or what is wrong with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// A word of the query that shows the place, where the code alone does not tell it.
    pub word: Option<String>,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Refusal { code, message: message.into(), help: help.into(), word: None }
    }

    /// Shown at a word.
    fn at(self, word: &str) -> Self {
        Refusal { word: Some(word.to_string()), ..self }
    }
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        Refusal::new(
            codes::NOT_STREAMED,
            format!("cannot be planned: {}", error.strip_backtrace()),
            "write the expression in another way",
        )
    }
}

/// What a tag must be keyed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequirement {
    /// The entity's name, for messages.
    pub entity: String,
    /// The key column that the tag must have.
    pub column: String,
    /// Its type.
    pub data_type: DataType,
}

/// Compiles an optimised logical plan; `now()` and `current_date()` must still be in it.
pub fn compile(plan: &LogicalPlan, catalog: &Catalog, timezone: Tz, key: &KeyRequirement) -> Result<FlowPlan, Refusal> {
    let mut compiler = Compiler {
        catalog,
        timezone,
        limit: None,
        nodes: Vec::new(),
        facts: Vec::new(),
        by_fingerprint: HashMap::new(),
    };
    let relation = compiler.relation(plan)?;
    if !compiler.nodes.iter().any(|node| matches!(node.kind, NodeKind::Source { .. })) {
        return Err(reads_nothing());
    }
    compiler.finish(relation, plan.schema(), key)
}

/// What is known of a node's output beside its schema.
#[derive(Debug, Clone)]
struct Facts {
    /// Canonical names of the columns; expressions over the node use them.
    columns: SchemaRef,
    /// Sets of columns each of which is unique together, the best first.
    unique: Vec<Vec<usize>>,
    /// What columns tell besides those that are unique.
    dependences: Vec<Dependence>,
    /// Columns of which those that are not NULL are equal, each time all of them: the keys of a FULL JOIN.
    merged: Vec<Vec<usize>>,
    /// How far back the rows depend on events.
    reach: Reach,
    /// The fingerprint of the output: the node's, and the member's of an aggregate.
    output: String,
}

/// A node with a projection and filters that have not become operators yet.
#[derive(Debug, Clone)]
struct Relation {
    node: NodeIndex,
    /// The columns as expressions over the node's canonical columns.
    columns: Vec<Expr>,
    /// Conditions over the same columns; those that read the clock are no bounds.
    filters: Vec<Expr>,
    /// Conditions on the clock.
    bounds: Vec<Comparing>,
}

struct Compiler<'a> {
    catalog: &'a Catalog,
    timezone: Tz,
    /// What the filter above keeps of the window that is compiled next.
    limit: Option<window::Limit>,
    nodes: Vec<FlowNode>,
    facts: Vec<Facts>,
    by_fingerprint: HashMap<String, NodeIndex>,
}

impl Compiler<'_> {
    fn relation(&mut self, plan: &LogicalPlan) -> Result<Relation, Refusal> {
        if let Some(sound) = Sound::of(plan) {
            return self.sound(sound);
        }
        match plan {
            LogicalPlan::TableScan(scan) => {
                if scan.fetch.is_some() {
                    return Err(no_limit());
                }
                let stream = self.stream(scan.table_name.table())?;
                let mut relation = self.source(&stream, scan.projected_schema.as_arrow(), None)?;
                for filter in &scan.filters {
                    self.push_filter(&mut relation, filter, &scan.projected_schema)?;
                }
                Ok(relation)
            }
            LogicalPlan::SubqueryAlias(alias) => self.relation(&alias.input),
            LogicalPlan::Projection(projection) => {
                let relation = self.read_by(&projection.input, &projection.expr)?;
                let (mut relation, exprs) = self.with_queries(relation, &projection.expr)?;
                let columns = exprs
                    .iter()
                    .map(|expr| substitute(expr, projection.input.schema(), &relation.columns))
                    .collect::<Result<Vec<_>, _>>()?;
                relation.columns = columns;
                self.without_clock(relation, "the SELECT list")
            }
            LogicalPlan::Filter(filter) => self.filter(filter, None),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Distinct(_) => {
                Err(Refusal::new(codes::NOT_STREAMED, "this DISTINCT was not resolved", "use GROUP BY"))
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.relation(&sort.input),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => Err(no_limit()),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => {
                let fields = empty.schema.fields().iter();
                let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
                let node = self.union_node(vec![], fields);
                Ok(self.whole(node))
            }
            LogicalPlan::EmptyRelation(_) => Ok(self.one()),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Subquery(_) => Err(not_apart()),
            other => Err(Refusal::new(
                codes::NOT_STREAMED,
                format!(
                    "{} does not stream yet",
                    other.display().to_string().split([':', '(']).next().unwrap_or("this")
                ),
                "write the tag with GROUP BY, UNION ALL, or ROW_NUMBER() … = 1",
            )),
        }
    }

    /// The rows of a plan of which `exprs` read what they name and nobody reads the rest.
    fn read_by(&mut self, plan: &LogicalPlan, exprs: &[Expr]) -> Result<Relation, Refusal> {
        let LogicalPlan::Filter(filter) = plan else { return self.relation(plan) };
        let read = exprs.iter().flat_map(Expr::column_refs).cloned().collect();
        self.filter(filter, Some(&read))
    }

    /// `read` are the columns that anyone reads above, `None` for all.
    fn filter(&mut self, filter: &Filter, read: Option<&HashSet<Column>>) -> Result<Relation, Refusal> {
        if let (Some(late_after), LogicalPlan::TableScan(scan)) =
            (watermark::late_after(&filter.predicate), filter.input.as_ref())
        {
            let stream = self.stream(scan.table_name.table())?;
            return self.source(&stream, scan.projected_schema.as_arrow(), Some(late_after));
        }
        let limit = window::limit(filter, read);
        let mut conjuncts = match &limit {
            Some(limit) => limit.rest.clone(),
            None => split_conjunction(&filter.predicate).into_iter().cloned().collect(),
        };
        self.limit = limit;
        let relation = match self.without_partner(&filter.input, &mut conjuncts)? {
            Some(relation) => relation,
            None => self.relation(&filter.input)?,
        };
        let (mut relation, conjuncts) = self.with_queries(relation, &conjuncts)?;
        for conjunct in &conjuncts {
            self.push_filter(&mut relation, conjunct, filter.input.schema())?;
        }
        Ok(relation)
    }

    fn stream(&self, name: &str) -> Result<Arc<Stream>, Refusal> {
        self.catalog.streams.get(name).cloned().ok_or_else(|| {
            let message = format!("`{name}` is not a stream");
            Refusal::new(codes::NOT_STREAMED, message, "read a stream that schemas/ declares")
        })
    }

    /// The columns `projected` of a stream; without late events where it is said when one is late.
    fn source(
        &mut self,
        stream: &Arc<Stream>,
        projected: &Schema,
        late_after: Option<i64>,
    ) -> Result<Relation, Refusal> {
        let schema = stream.schema();
        let canonical: Vec<Field> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| {
                let definition = match stream.columns.get(index) {
                    Some(column) => format!("{:?}{:?}{}", column.path, column.timestamp_format, column.nullable),
                    None => String::new(),
                };
                let definition = match stream.columns.get(index).map(|column| column.misfits) {
                    Some(Misfits::Null) => format!("{definition} or NULL"),
                    _ => definition,
                };
                let hash = fingerprint(&format!("{}{definition}", field.data_type()));
                Field::new(format!("{}#{}", field.name(), &hash[..8]), field.data_type().clone(), true)
            })
            .collect();
        // A record without one of them is a dead letter, whether or not the tag reads the column.
        let mut required: Vec<&str> = (canonical.iter().zip(&stream.columns))
            .filter(|(_, column)| !column.nullable)
            .map(|(field, _)| field.name().as_str())
            .collect();
        required.sort_unstable();
        let mut columns = BTreeSet::new();
        let mut exprs = Vec::new();
        for field in projected.fields() {
            let index = schema
                .index_of(field.name())
                .map_err(|error| Refusal::new(codes::NOT_STREAMED, error.to_string(), "check the schema file"))?;
            columns.insert(index);
            exprs.push(Expr::Column(Column::from_name(canonical[index].name())));
        }
        let unique = UniqueRule::of(stream);
        if unique.is_some() {
            // What is kept of a record must not depend on what the tags read of it, so that they share it.
            let declared = 0..stream.columns.len();
            let system = ["_partition", "_offset", "_timestamp"];
            columns.extend(declared.chain(system.iter().flat_map(|name| schema.index_of(name))));
        }
        let kept = columns.clone();
        let mut identity = format!(
            "source {} {} {} {:?} {:?} {:?} {required:?}",
            stream.name, stream.connection, stream.topic, stream.format, stream.start, self.timezone
        );
        if stream.is_table() {
            identity.push_str(&format!(" {:?} {:?} {}", stream.kind.word(), stream.key, stream.truncates));
        }
        let identity = fingerprint(&identity);
        let node = match self.by_fingerprint.get(&identity) {
            Some(node) => {
                if let NodeKind::Source { columns: known, .. } = &mut self.nodes[*node].kind {
                    known.extend(columns);
                }
                *node
            }
            None => {
                let node = FlowNode {
                    fingerprint: identity.clone(),
                    inputs: vec![],
                    kind: NodeKind::Source { stream: Arc::clone(stream), columns },
                    schema,
                    append_only: true,
                };
                let facts = Facts {
                    columns: Arc::new(Schema::new(canonical)),
                    unique: vec![],
                    dependences: vec![],
                    merged: vec![],
                    reach: Reach::Unbounded,
                    output: identity,
                };
                self.push(node, facts)
            }
        };
        let node = match late_after {
            Some(late_after) => self.punctual(node, stream, late_after)?,
            None => node,
        };
        let node = unique.map_or(node, |rule| self.unique(node, stream, rule, &kept));
        Ok(Relation { node, columns: exprs, filters: vec![], bounds: vec![] })
    }

    /// A stream without what was sent again. It keeps the columns `kept` of records, and is known by them.
    fn unique(&mut self, source: NodeIndex, stream: &Stream, rule: UniqueRule, kept: &BTreeSet<usize>) -> NodeIndex {
        let facts = self.facts[source].clone();
        let mut names: Vec<&str> = kept.iter().map(|index| facts.columns.field(*index).name().as_str()).collect();
        names.sort_unstable();
        let output = fingerprint(&format!("unique {} {rule:?} {names:?}", facts.output));
        let node = FlowNode {
            fingerprint: output.clone(),
            inputs: vec![source],
            kind: NodeKind::Unique { stream: stream.name.clone(), rule },
            schema: Arc::clone(&self.nodes[source].schema),
            // A record that comes late takes the place of one that lies close behind it.
            append_only: false,
        };
        self.push(node, Facts { output, ..facts })
    }

    fn push(&mut self, node: FlowNode, facts: Facts) -> NodeIndex {
        if let Some(known) = self.by_fingerprint.get(&facts.output) {
            return *known;
        }
        self.by_fingerprint.insert(facts.output.clone(), self.nodes.len());
        self.nodes.push(node);
        self.facts.push(facts);
        self.nodes.len() - 1
    }

    /// A node over one other, known by `text`, that reads as little or as much of the past as that does.
    fn over(
        &mut self,
        input: NodeIndex,
        text: &str,
        kind: NodeKind,
        fields: Vec<Field>,
        unique: Vec<Vec<usize>>,
    ) -> NodeIndex {
        let output = fingerprint(text);
        let facts = Facts {
            columns: canonical_columns(&fields),
            unique,
            dependences: vec![],
            merged: vec![],
            reach: self.facts[input].reach,
            output: output.clone(),
        };
        let node = FlowNode {
            fingerprint: output,
            inputs: vec![input],
            append_only: !kind.keeps_state() && self.nodes[input].append_only,
            kind,
            schema: Arc::new(Schema::new(fields)),
        };
        self.push(node, facts)
    }

    fn push_filter(&mut self, relation: &mut Relation, predicate: &Expr, schema: &DFSchema) -> Result<(), Refusal> {
        let predicate = substitute(predicate, schema, &relation.columns)?;
        for conjunct in split_conjunction(&predicate).into_iter().flat_map(split_between) {
            if !clock::reads_clock(&conjunct) {
                relation.filters.push(conjunct);
                continue;
            }
            match clocked::comparisons_of(&conjunct) {
                Some(bounds) => relation.bounds.extend(bounds),
                None => relation.filters.push(conjunct),
            }
        }
        Ok(())
    }

    /// The same rows, of which no condition but bounds reads the clock.
    fn settled(&mut self, mut relation: Relation) -> Result<Relation, Refusal> {
        let (turning, filters): (Vec<Expr>, Vec<Expr>) = relation.filters.into_iter().partition(clock::reads_clock);
        relation.filters = filters;
        if !turning.is_empty() {
            let width = relation.columns.len();
            relation.columns.extend(turning);
            relation = self.without_clock(relation, "this condition")?;
            relation.filters.extend(relation.columns.split_off(width));
        }
        Ok(relation)
    }

    /// A relation whose columns are those of its node, all of them and in order.
    fn materialise(&mut self, relation: Relation) -> Result<Relation, Refusal> {
        let relation = self.settled(relation)?;
        let relation = self.without_clock(relation, "this place")?;
        let width = relation.columns.len();
        let mut exprs = relation.columns.clone();
        for (row, _, _) in &relation.bounds {
            if !exprs.contains(row) {
                exprs.push(row.clone());
            }
        }
        // The columns of a stream may become more; what keeps whole rows must know which it keeps.
        let identity = !self.nodes[relation.node].kind.gives_records()
            && exprs.len() == self.facts[relation.node].columns.fields().len()
            && exprs.iter().enumerate().all(|(index, expr)| self.plain(relation.node, expr) == Some(index));
        let mapped = if identity && relation.filters.is_empty() {
            relation.node
        } else {
            self.map(relation.node, &exprs, &relation.filters)?
        };
        let node = if relation.bounds.is_empty() {
            mapped
        } else {
            let positions: HashMap<&Expr, usize> =
                exprs.iter().enumerate().map(|(index, expr)| (expr, index)).collect();
            let bounds = relation
                .bounds
                .iter()
                .map(|(row, comparison, clock_side)| {
                    let column = Expr::Column(self.column(mapped, positions[row]));
                    self.bound(mapped, &column, *comparison, clock_side)
                })
                .collect::<Result<Vec<_>, _>>()?;
            let reach = self.bounded_reach(&relation, &bounds);
            // The clock and every watermark move by themselves.
            let mut by_clock: BTreeMap<Option<String>, Vec<ClockBound>> = BTreeMap::new();
            for bound in bounds {
                by_clock.entry(bound.clock.stream().map(str::to_string)).or_default().push(bound);
            }
            by_clock.into_values().fold(mapped, |node, bounds| self.clock_filter(node, bounds, reach))
        };
        let columns = (0..width).map(|index| Expr::Column(self.column(node, index))).collect();
        Ok(Relation { node, columns, filters: vec![], bounds: vec![] })
    }

    /// Materialised, and without the columns that a clock filter adds for itself.
    fn narrow(&mut self, relation: Relation) -> Result<Relation, Refusal> {
        let relation = self.materialise(relation)?;
        if self.facts[relation.node].columns.fields().len() == relation.columns.len() {
            return Ok(relation);
        }
        let node = self.map(relation.node, &relation.columns, &[])?;
        Ok(self.whole(node))
    }

    fn map(&mut self, input: NodeIndex, exprs: &[Expr], filters: &[Expr]) -> Result<NodeIndex, Refusal> {
        let filter = self.filter_stages(input, filters)?;
        let columns = exprs.iter().map(|expr| self.scalar(input, expr)).collect::<Result<Vec<_>, _>>()?;
        let fields: Vec<Field> = columns
            .iter()
            .zip(exprs)
            .map(|(column, expr)| {
                let name = readable(&self.named(input, expr).schema_name().to_string());
                Field::new(name, column.data_type.clone(), true)
            })
            .collect();
        let text = format!(
            "map {} where {:?} select {:?}",
            self.facts[input].output,
            filter.iter().map(|stage| &stage.text).collect::<Vec<_>>(),
            columns.iter().map(|column| &column.text).collect::<Vec<_>>(),
        );
        // A column that a filter holds at one value tells no rows apart.
        let fixed: Vec<usize> = filters.iter().filter_map(|filter| self.fixed(input, filter)).collect();
        let kept = |unique: &Vec<usize>| {
            let telling = unique.iter().filter(|key| !fixed.contains(key));
            telling.map(|key| exprs.iter().position(|expr| self.injective(input, expr) == Some(*key))).collect()
        };
        let unique = self.facts[input].unique.iter().filter_map(kept).collect();
        let dependences = self.dependences_of(input, exprs);
        let kind = NodeKind::Map { filter, columns: Some(columns) };
        let node = self.over(input, &text, kind, fields, unique);
        self.facts[node].dependences = dependences;
        Ok(node)
    }

    /// Conditions as stages: what cannot fail first, then each that can, over the rows that are left.
    fn filter_stages(&self, input: NodeIndex, filters: &[Expr]) -> Result<Vec<Scalar>, Refusal> {
        let (fallible, safe): (Vec<_>, Vec<_>) =
            filters.iter().cloned().partition(|filter| self.fallible(input, filter));
        let mut safe = safe;
        safe.sort_by_key(ToString::to_string);
        safe.dedup();
        conjunction(safe).into_iter().chain(fallible).map(|stage| self.scalar(input, &stage)).collect()
    }

    fn clock_filter(&mut self, input: NodeIndex, bounds: Vec<ClockBound>, reach: Reach) -> NodeIndex {
        let texts: Vec<String> = bounds.iter().map(ClockBound::text).collect();
        let output = fingerprint(&format!("clock {} {texts:?} {}", self.facts[input].output, self.timezone.name()));
        let facts = Facts { output: output.clone(), reach, ..self.facts[input].clone() };
        let node = FlowNode {
            fingerprint: output,
            inputs: vec![input],
            kind: NodeKind::ClockFilter { bounds },
            schema: Arc::clone(&self.nodes[input].schema),
            append_only: false,
        };
        self.push(node, facts)
    }

    fn bound(
        &self,
        node: NodeIndex,
        row: &Expr,
        comparison: Comparison,
        clock_side: &Expr,
    ) -> Result<ClockBound, Refusal> {
        let row = self.scalar(node, row)?;
        if let Some(stream) = watermark::stream_of(clock_side) {
            let clock = ClockSide::Watermark(stream.to_string());
            let clock_text = format!("watermark of {stream}");
            return Ok(ClockBound { row, comparison, clock, clock_text, stepped: false });
        }
        let (rewritten, stepped) = clock::clock_side(clock_side).map_err(|message| {
            Refusal::new(codes::CLOCK_STEPS, message, "compare a column with NOW() or CURRENT_DATE plus or minus an interval of days, hours, minutes or seconds")
        })?;
        let schema = clock::clock_schema(self.timezone);
        let schema = DFSchema::try_from(schema)?;
        let clock = physical(&rewritten, &schema)?;
        let data_type = rewritten.get_type(&schema)?;
        if data_type != row.data_type {
            return Err(Refusal::new(
                codes::CLOCK_TYPES,
                format!(
                    "the two sides of a comparison with the clock have different types, {} and {}",
                    sql_type(&row.data_type),
                    sql_type(&data_type)
                ),
                "CAST the column to the type of the clock side",
            ));
        }
        if !matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) {
            return Err(Refusal::new(
                codes::CLOCK_TYPES,
                format!("a {} is compared with the clock", sql_type(&data_type)),
                "compare a DATE or TIMESTAMP column with the clock",
            ));
        }
        let clock = ClockSide::Clock(clock);
        Ok(ClockBound { row, comparison, clock, clock_text: rewritten.to_string(), stepped })
    }

    /// With a lower bound on an event's own time, older events do not matter.
    fn bounded_reach(&self, relation: &Relation, bounds: &[ClockBound]) -> Reach {
        // Whether a record is a resent one depends on those `within` and lateness before it.
        let mut source = &self.nodes[relation.node];
        let (mut is_unique, mut late_after) = (false, 0);
        while source.kind.gives_records() && !source.inputs.is_empty() {
            is_unique |= matches!(source.kind, NodeKind::Unique { .. });
            if let NodeKind::Punctual(punctuality) = &source.kind {
                late_after = punctuality.late_after;
            }
            source = &self.nodes[source.inputs[0]];
        }
        let NodeKind::Source { stream, .. } = &source.kind else {
            return self.facts[relation.node].reach;
        };
        let Some(time) = &stream.time else { return Reach::Unbounded };
        let resent = stream.unique.as_ref().filter(|_| is_unique).map_or(0, |unique| {
            i64::try_from(unique.within.saturating_add(time.lateness).as_nanos()).unwrap_or(i64::MAX)
        });
        let further = resent.saturating_add(late_after);
        let event_time = format!("{}#", time.column);
        relation
            .bounds
            .iter()
            .zip(bounds)
            .filter(|((row, comparison, _), _)| {
                let columns = row.column_refs();
                comparison.is_lower()
                    && columns.len() == 1
                    && columns.iter().all(|column| column.name.starts_with(&event_time))
            })
            .filter_map(|((row, ..), bound)| {
                let distance = bound.distance_back(self.timezone)?.checked_add(clock::rise(row)?)?;
                Some(distance.max(0).saturating_add(further))
            })
            .min()
            .map_or(Reach::Unbounded, Reach::Within)
    }

    fn whole(&self, node: NodeIndex) -> Relation {
        let width = self.facts[node].columns.fields().len();
        let columns = (0..width).map(|index| Expr::Column(self.column(node, index))).collect();
        Relation { node, columns, filters: vec![], bounds: vec![] }
    }

    fn column(&self, node: NodeIndex, index: usize) -> Column {
        Column::from_name(self.facts[node].columns.field(index).name())
    }

    /// The node's column that the expression is, if it is nothing more.
    fn plain(&self, node: NodeIndex, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Column(column) => self.facts[node].columns.index_of(&column.name).ok(),
            Expr::Alias(alias) => self.plain(node, &alias.expr),
            _ => None,
        }
    }

    /// The node's column that a condition holds at one value.
    fn fixed(&self, node: NodeIndex, condition: &Expr) -> Option<usize> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
        match (left.as_ref(), right.as_ref()) {
            (column @ Expr::Column(_), Expr::Literal(..)) | (Expr::Literal(..), column @ Expr::Column(_)) => {
                self.plain(node, column)
            }
            _ => None,
        }
    }

    /// The expression with the node's columns by their names, for people.
    fn named(&self, node: NodeIndex, expr: &Expr) -> Expr {
        let name = |expr: Expr| match self.plain(node, &expr) {
            Some(index) => {
                let column = Column::from_name(self.nodes[node].schema.field(index).name());
                Ok(Transformed::yes(Expr::Column(column)))
            }
            None => Ok(Transformed::no(expr)),
        };
        expr.clone().transform_up(name).map_or_else(|_| expr.clone(), |named| named.data)
    }

    fn fallible(&self, node: NodeIndex, expr: &Expr) -> bool {
        is_fallible(expr, &self.facts[node].columns)
    }

    fn scalar(&self, node: NodeIndex, expr: &Expr) -> Result<Scalar, Refusal> {
        scalar_over(&self.facts[node].columns, expr)
    }
}

/// An expression over canonical columns.
fn scalar_over(columns: &SchemaRef, expr: &Expr) -> Result<Scalar, Refusal> {
    let expr = expr.clone().unalias_nested().data;
    let schema = DFSchema::try_from(columns.as_ref().clone())?;
    let data_type = expr.get_type(&schema)?;
    if matches!(data_type, DataType::Union(..)) {
        return Err(Refusal::new(
            codes::TYPES,
            "`json_get` and `->` give a value of any type, which no column can hold",
            "say which type: json_get_str, json_get_int, json_get_float, json_get_bool, or `->>` for text",
        )
        .at("json_get"));
    }
    Ok(Scalar {
        text: expr.to_string(),
        expr: physical(&expr, &schema)?,
        data_type,
        fallible: is_fallible(&expr, columns),
    })
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn datafusion::physical_expr::PhysicalExpr>, Refusal> {
    let context = PhysicalPlanningContext::default();
    Ok(create_physical_expr(expr, schema, &ExecutionProps::new(), &context)?)
}

/// Replaces columns of `schema` by the expressions that stand for them.
fn substitute(expr: &Expr, schema: &DFSchema, columns: &[Expr]) -> Result<Expr, Refusal> {
    if expr.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_) | Expr::Exists(_))))? {
        return Err(Refusal::new(
            codes::SUBQUERY,
            "this EXISTS or IN of a sub-query does not stream",
            "tie it to the row by conditions in its own WHERE, as WHERE b.user_id = a.user_id, and leave HAVING, LIMIT and \
             window functions out of it",
        ));
    }
    if expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_))))? {
        return Err(Refusal::new(
            codes::SUBQUERY,
            "this sub-query does not stream",
            "tie it to the row by equalities alone, WHERE b.user_id = a.user_id, and aggregate; for the latest row join one that \
             is numbered: ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY …) = 1",
        ));
    }
    let replaced = expr.clone().transform_up(|expr| match &expr {
        Expr::Column(column) => {
            if let Some(index) = population::stands_for(column) {
                return Ok(Transformed::yes(Expr::Column(Column::from_name(format!("#{index}")))));
            }
            let index = schema.index_of_column(column)?;
            Ok(Transformed::yes(columns[index].clone()))
        }
        _ => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data.unalias_nested().data)
}

fn canonical_columns(fields: &[Field]) -> SchemaRef {
    let named = fields
        .iter()
        .enumerate()
        .map(|(index, field)| Field::new(format!("#{index}"), field.data_type().clone(), true));
    Arc::new(Schema::new(named.collect::<Vec<_>>()))
}

/// A name without the hashes that tell a source's columns apart.
fn readable(name: &str) -> String {
    let mut parts = name.split('#');
    let first = parts.next().unwrap_or_default().to_string();
    if first.is_empty() {
        return name.to_string();
    }
    parts.fold(first, |readable, part| readable + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

fn split_between(conjunct: &Expr) -> Vec<Expr> {
    match conjunct {
        Expr::Between(between) if !between.negated && clock::reads_clock(conjunct) => {
            let compare = |op, limit: &Expr| {
                Expr::BinaryExpr(BinaryExpr { left: between.expr.clone(), op, right: Box::new(limit.clone()) })
            };
            vec![compare(Operator::GtEq, &between.low), compare(Operator::LtEq, &between.high)]
        }
        other => vec![other.clone()],
    }
}

fn reads_nothing() -> Refusal {
    Refusal::new(
        codes::NO_STREAM,
        "the query reads no stream, or its condition is never true",
        "read a stream in FROM and check the WHERE",
    )
}

fn not_apart() -> Refusal {
    Refusal::new(
        codes::JOIN,
        "this LATERAL does not stream",
        "tie it to the row by equalities alone, WHERE b.user_id = a.user_id, and aggregate; for the latest row join one that \
         is numbered: ROW_NUMBER() OVER (PARTITION BY user_id ORDER BY …) = 1",
    )
    .at("lateral")
}

fn no_limit() -> Refusal {
    Refusal::new(
        codes::LIMIT,
        "this LIMIT does not stream",
        "write ORDER BY … LIMIT with a number; to keep one row a user, filter ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) = 1",
    )
}

fn clock_in(place: &str) -> Refusal {
    Refusal::new(
        codes::CLOCK_PLACE,
        format!("NOW() and CURRENT_DATE in {place} do not stream"),
        "compare with the clock in a sub-query, in WHERE or as a column of its SELECT list, and use that column",
    )
}
