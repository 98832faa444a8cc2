//! The dialect that queries are parsed in: sqlparser's generic one, whose operators bind as those of PostgreSQL do.
//!
//! The generic one reads `a IS DISTINCT FROM b AND c` as `a IS DISTINCT FROM (b AND c)`, `p->>'a' IS NULL` as
//! `p->>('a' IS NULL)`, `n >> 3 & 1` as `n >> (3 & 1)` and `a LIKE b = c` as `a LIKE (b = c)`.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// JSON arrows: tighter than everything but casts and subscripts, as everyone means them.
const ARROW: u8 = 45;
/// Shifts: tighter than `&`, looser than `+`.
const SHIFT: u8 = 26;
/// `@>` and its like, whose operands PostgreSQL reads as those of shifts.
const OTHER: u8 = 25;
/// Looser than `|`, tighter than comparisons.
const LIKE: u8 = 20;
const COMPARISON: u8 = 18;

/// How often the parser of one query may begin to read an expression. What an author writes takes a few times as many as it
/// has words.
const MOST_BEGINNINGS: u32 = 300_000;

/// The dialect of one query.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    beginnings: Cell<u32>,
}

/// What the generic dialect allows beyond the trait's defaults.
macro_rules! as_generic {
    ($($allows:ident)*) => {
        $(fn $allows(&self) -> bool {
            GenericDialect.$allows()
        })*
    };
}

impl Dialect for Bound {
    fn dialect(&self) -> TypeId {
        GenericDialect.dialect()
    }

    fn is_delimited_identifier_start(&self, letter: char) -> bool {
        GenericDialect.is_delimited_identifier_start(letter)
    }

    fn is_identifier_start(&self, letter: char) -> bool {
        GenericDialect.is_identifier_start(letter)
    }

    fn is_identifier_part(&self, letter: char) -> bool {
        GenericDialect.is_identifier_part(letter)
    }

    fn prec_value(&self, operator: Precedence) -> u8 {
        match operator {
            Precedence::Between | Precedence::Like => LIKE,
            Precedence::Eq => COMPARISON,
            Precedence::PgOther => OTHER,
            other => GenericDialect.prec_value(other),
        }
    }

    /// Words like ARRAY are read as what they mean and, where something is wrong behind them, again as names: forty within
    /// one another 2^40 times.
    fn parse_prefix(&self, _parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        self.beginnings.set(self.beginnings.get().saturating_add(1));
        (self.beginnings.get() > MOST_BEGINNINGS).then_some(Err(ParserError::RecursionLimitExceeded))
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match &parser.peek_token_ref().token {
            Token::Arrow | Token::LongArrow | Token::HashArrow | Token::HashLongArrow => Some(Ok(ARROW)),
            Token::ShiftLeft | Token::ShiftRight => Some(Ok(SHIFT)),
            _ => None,
        }
    }

    fn parse_infix(&self, parser: &mut Parser<'_>, left: &Expr, _above: u8) -> Option<Result<Expr, ParserError>> {
        let is_equal = if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
            true
        } else if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            false
        } else {
            return None;
        };
        let left = Box::new(left.clone());
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is)).map(Box::new);
        Some(right.map(|right| match is_equal {
            true => Expr::IsNotDistinctFrom(left, right),
            false => Expr::IsDistinctFrom(left, right),
        }))
    }

    as_generic! {
        supports_unicode_string_literal supports_partition_by_after_order_by supports_array_join_syntax
        supports_group_by_expr supports_group_by_with_modifier supports_left_associative_joins_without_parens
        supports_connect_by supports_match_recognize supports_pipe_operator supports_start_transaction_modifier
        supports_window_function_null_treatment_arg supports_dictionary_syntax
        supports_window_clause_named_window_reference supports_parenthesized_set_variables
        supports_select_wildcard_except support_map_literal_syntax allow_extract_custom allow_extract_single_quotes
        supports_extract_comma_syntax supports_create_view_comment_syntax supports_parens_around_table_factor
        supports_values_as_table_factor supports_create_index_with_clause supports_explain_with_utility_options
        supports_limit_comma supports_update_order_by supports_from_first_select
        supports_projection_trailing_commas supports_asc_desc_in_column_definition supports_try_convert
        supports_bitwise_shift_operators supports_comment_on supports_load_extension
        supports_named_fn_args_with_assignment_operator supports_struct_literal supports_empty_projections
        supports_nested_comments supports_multiline_comment_hints supports_user_host_grantee
        supports_string_escape_constant supports_array_typedef_with_brackets supports_match_against
        supports_set_names supports_comma_separated_set_assignments supports_filter_during_aggregation
        supports_select_wildcard_exclude supports_data_type_signed_suffix supports_interval_options
        supports_quote_delimited_string supports_select_wildcard_replace supports_select_wildcard_ilike
        supports_select_wildcard_rename supports_optimize_table supports_install supports_detach supports_prewhere
        supports_with_fill supports_limit_by supports_interpolate supports_settings supports_select_format
        supports_comment_optimizer_hint supports_constraint_keyword_without_name supports_key_column_option
        supports_comma_separated_trim supports_cte_without_as supports_select_item_multi_column_alias
        supports_xml_expressions
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::ops::ControlFlow;

    use datafusion::sql::sqlparser::ast::{Value, VisitMut, VisitorMut};

    use super::*;

    /// Brackets around every operator and nothing else.
    struct Bracketed;

    impl VisitorMut for Bracketed {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            *expr = match mem::replace(expr, Expr::Value(Value::Null.into())) {
                Expr::Nested(inner) => *inner,
                operand @ (Expr::Value(_) | Expr::Identifier(_)) => operand,
                operator => Expr::Nested(Box::new(operator)),
            };
            ControlFlow::Continue(())
        }
    }

    #[test]
    fn operators_bind_as_they_are_meant() {
        let cases = [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b OR c", "(a IS NOT DISTINCT FROM b) OR c"),
            ("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c"),
            ("w AND a IS DISTINCT FROM b + 1 OR c", "(w AND (a IS DISTINCT FROM (b + 1))) OR c"),
            ("a = b IS DISTINCT FROM c < d AND e", "((a = b) IS DISTINCT FROM (c < d)) AND e"),
            ("a IS DISTINCT FROM p->>'a' AND c", "(a IS DISTINCT FROM (p->>'a')) AND c"),
            ("p->>'a' IS NOT NULL", "(p->>'a') IS NOT NULL"),
            ("p->'a'->>'b' = 'x'", "((p->'a')->>'b') = 'x'"),
            ("'x' = p->>'a'", "'x' = (p->>'a')"),
            ("p->>'a' = q->>'a' AND p->>'b' IN ('1')", "((p->>'a') = (q->>'a')) AND ((p->>'b') IN ('1'))"),
            ("p->>'a' || p->>'b' LIKE 'x%'", "((p->>'a') || (p->>'b')) LIKE 'x%'"),
            ("NOT p->>'a' = 'x' OR p->>'b' > '1'", "(NOT ((p->>'a') = 'x')) OR ((p->>'b') > '1')"),
            ("n BETWEEN 1 AND p->'n' AND c", "(n BETWEEN 1 AND (p->'n')) AND c"),
            ("n NOT BETWEEN a + 1 AND b = c", "(n NOT BETWEEN (a + 1) AND b) = c"),
            ("p->'n' + 1 > 2", "((p->'n') + 1) > 2"),
            ("p->>('a' || 'b')", "p->>('a' || 'b')"),
            ("-p->'n'", "-(p->'n')"),
            ("a LIKE b = c", "(a LIKE b) = c"),
            ("a NOT LIKE b || c ESCAPE '!' AND d", "(a NOT LIKE (b || c) ESCAPE '!') AND d"),
            ("a ILIKE b IS TRUE", "(a ILIKE b) IS TRUE"),
            ("n >> 3 & 1 = 1", "((n >> 3) & 1) = 1"),
            ("n & 4 <> 0 AND n | 1 > 2", "((n & 4) <> 0) AND ((n | 1) > 2)"),
            ("a @> b = c", "(a @> b) = c"),
            ("a = b IS NOT NULL AND c", "((a = b) IS NOT NULL) AND c"),
            ("NOT x IN (1, 2) AND y", "(NOT (x IN (1, 2))) AND y"),
            ("a + b::INT * -c", "a + ((b::INT) * (-c))"),
            ("-a::INT - b", "(-(a::INT)) - b"),
            ("a - INTERVAL '1' DAY AT TIME ZONE 'UTC' < b", "(a - ((INTERVAL '1' DAY) AT TIME ZONE 'UTC')) < b"),
            ("a || b COLLATE c = d", "(a || (b COLLATE c)) = d"),
        ];
        let bracketed = |text: &str| {
            let mut parsed = Parser::new(&Bound::default()).try_with_sql(text).unwrap().parse_expr().unwrap();
            let _ = VisitMut::visit(&mut parsed, &mut Bracketed);
            parsed.to_string()
        };
        for (written, meant) in cases {
            assert_eq!(bracketed(written), bracketed(meant), "{written}");
        }
    }

    #[test]
    fn a_long_chain_of_distinct_from_is_not_nested() {
        let chain = vec!["a IS DISTINCT FROM b"; 500].join(" AND ");
        assert!(Parser::new(&Bound::default()).try_with_sql(&chain).unwrap().parse_expr().is_ok());
    }
}
