//! The DataFusion session that plans tags, and the optimiser rules that keep their meaning on streams.

use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::context::{SessionContext, SessionState};
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerContext, OptimizerRule};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use crate::catalog::Catalog;
use crate::plan::casts;
use crate::plan::changes::{self, CHANGES};
use crate::plan::clock::with_fixed_days;
use crate::plan::counted_sets::CountedSets;
use crate::plan::exact::ExactPercentiles;
use crate::plan::far_times;
use crate::plan::limits::Limits;
use crate::plan::marks::Marks;
use crate::plan::mixed_times::MixedTimes;
use crate::plan::signed::SignedDifferences;
use crate::plan::spans::Spans;
use crate::plan::tied;
use crate::plan::unique::{self, UNIQUE, UniqueRule};
use crate::plan::unnests::LateralUnnests;
use crate::plan::watermark;
use crate::plan::zone::ZoneCasts;

/// Rules of DataFusion that are left out: the first would give distinct aggregates a second layout of state, the
/// second would hide clock comparisons behind names of its own.
const OMITTED_RULES: [&str; 2] = ["single_distinct_aggregation_to_group_by", "common_sub_expression_eliminate"];

/// Rules for batch answers that are left out. The first two push `a.id IS NULL` above a RIGHT JOIN, whose sides DataFusion has
/// swapped, to the column of that name of the other side. The last refuses what the others made: a sort by a column that WHERE
/// holds equal to the wanted one.
const OMITTED_OF_BATCH: [&str; 3] = ["FilterPushdown", "FilterPushdown(Post)", "SanityCheckPlan"];

/// A session that knows the streams of the catalog and the project's time zone.
pub fn session_state(catalog: &Catalog, timezone: Tz) -> Result<SessionState, DataFusionError> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    let options = config.options_mut();
    options.execution.time_zone = Some(timezone.name().to_string());
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    // 0.1 is a tenth, as in every database.
    options.sql_parser.parse_float_as_decimal = true;
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(CountedSets));
    rules.insert(0, Arc::new(SignedDifferences));
    rules.insert(0, Arc::new(ExactPercentiles));
    rules.insert(0, Arc::new(Spans));
    // Before what looks at the types of times.
    rules.insert(0, Arc::new(MixedTimes));
    rules.insert(0, Arc::new(LateralUnnests));
    rules.insert(0, Arc::new(Limits));
    let physical = PhysicalOptimizer::new().rules.into_iter().filter(|rule| !OMITTED_OF_BATCH.contains(&rule.name()));
    let builder = SessionStateBuilder::new().with_config(config).with_default_features();
    let builder = builder.with_physical_optimizer_rules(physical.collect());
    let mut state = builder.with_analyzer_rules(rules).build();
    state.add_analyzer_rule(Arc::new(ZoneCasts));
    datafusion_functions_json::register_all(&mut state)?;
    state.register_udf(Arc::new(watermark::closes()))?;
    if let Some(near) = state.scalar_functions().get("date_trunc").cloned() {
        state.register_udf(Arc::new(far_times::date_trunc(near)))?;
    }
    state.register_udf(Arc::new(casts::told_apart()))?;
    let context = SessionContext::new_with_state(state);
    if let Some(catalog) = context.catalog(&context.copied_config().options().catalog.default_catalog) {
        catalog.register_schema(CHANGES, Arc::new(MemorySchemaProvider::new()))?;
        catalog.register_schema(UNIQUE, Arc::new(MemorySchemaProvider::new()))?;
    }
    for stream in catalog.streams.values() {
        if stream.is_table() {
            let records = Arc::new(EmptyTable::new(stream.schema()));
            context.register_table(stream.name.as_str(), Arc::new(changes::table(stream, &records)?))?;
            context.register_table(TableReference::partial(CHANGES, stream.name.as_str()), records)?;
            continue;
        }
        let records = Arc::new(EmptyTable::new(stream.schema()));
        if let Some(rule) = UniqueRule::of(stream) {
            let view = Arc::new(unique::view(stream, &rule, &records)?);
            context.register_table(TableReference::partial(UNIQUE, stream.name.as_str()), view)?;
        }
        context.register_table(stream.name.as_str(), records)?;
    }
    Ok(context.state())
}

/// Analyses and optimises a plan; NOW() and CURRENT_DATE stay in it.
pub fn optimise(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let options = state.config().options();
    let analysed = state.analyzer().execute_and_check(plan, options, |_, _| {})?;
    tied::refuse(&analysed)?;
    let rules = Optimizer::new().rules.into_iter().filter(|rule| !OMITTED_RULES.contains(&rule.name()));
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = rules.collect();
    let of_conditions =
        rules.iter().position(|rule| rule.name() == "decorrelate_predicate_subquery").unwrap_or_default();
    rules.insert(of_conditions, Arc::new(Marks));
    // A context of its own: the names that rules make up must not depend on what was planned before.
    let context = OptimizerContext::new_with_config_options(Arc::clone(options)).without_query_execution_start_time();
    with_fixed_days(Optimizer::with_rules(rules).optimize(analysed, &context, |_, _| {})?)
}
