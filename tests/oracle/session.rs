//! Plans for the oracle's queries.

use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{Optimizer, OptimizerContext};
use datafusion::prelude::{SessionConfig, SessionContext};
use tagflow::catalog::Catalog;

pub fn session(catalog: &Catalog, timezone: Tz) -> SessionState {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().execution.time_zone = Some(timezone.name().to_string());
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    state.add_analyzer_rule(Arc::new(tagflow::plan::zone::ZoneCasts));
    let context = SessionContext::new_with_state(state);
    for stream in catalog.streams.values() {
        let table = MemTable::try_new(stream.schema(), vec![vec![]]).unwrap();
        let _ = provider_as_source;
        context.register_table(stream.name.as_str(), Arc::new(table)).unwrap();
    }
    context.state()
}

pub async fn plan(state: &SessionState, sql: &str) -> LogicalPlan {
    let plan = state.create_logical_plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let options = state.config().options();
    let analysed = state.analyzer().execute_and_check(plan, options, |_, _| {}).unwrap();
    let rules = Optimizer::new()
        .rules
        .into_iter()
        .filter(|rule| {
            !matches!(rule.name(), "single_distinct_aggregation_to_group_by" | "common_sub_expression_eliminate")
        })
        .collect();
    let context = OptimizerContext::new_with_config_options(Arc::clone(options)).without_query_execution_start_time();
    let optimised = Optimizer::with_rules(rules).optimize(analysed, &context, |_, _| {}).unwrap();
    tagflow::plan::clock::with_fixed_days(optimised).unwrap()
}
