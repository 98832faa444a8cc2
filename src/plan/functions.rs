//! What is known of aggregate functions by their names.

/// Aggregates whose result depends on the order of their input: ties in it are broken by the values themselves.
pub fn is_ordered(aggregate: &str) -> bool {
    matches!(aggregate, "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value")
}

/// Aggregates that come out otherwise when the same rows come in another order, and have no exact form.
pub fn is_any_of_several(aggregate: &str) -> bool {
    matches!(aggregate, "approx_percentile_cont_with_weight" | "any_value")
}
