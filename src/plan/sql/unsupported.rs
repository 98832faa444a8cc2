//! What SQL allows and does not stream yet: refused with the place and what to write instead.

use std::ops::ControlFlow;

use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments,
    GroupByExpr, Query, Select, SetExpr, SetOperator, SetQuantifier, Spanned, TableFactor, Visit, Visitor,
};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::foreign;
use crate::plan::sql::text::SqlText;

/// Everything in the query that is refused, and findings that are only doubtful.
pub(crate) fn find(text: &SqlText<'_>, query: &Query, state: &SessionState) -> Vec<Diagnostic> {
    let mut search = Search { text, state, found: Vec::new() };
    let _ = Visit::visit(query, &mut search);
    search.found
}

struct Search<'a> {
    text: &'a SqlText<'a>,
    state: &'a SessionState,
    found: Vec<Diagnostic>,
}

impl Search<'_> {
    fn refuse(
        &mut self,
        code: &'static str,
        place: &dyn SpannedPlace,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = self.text.span(place.place());
        self.found.push(self.text.error(code, span, message).help(help));
    }

    fn refuse_function(
        &mut self,
        code: &'static str,
        function: &Function,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.refuse(code, &function.name, message, help);
    }

    fn refuse_word(&mut self, code: &'static str, word: &str, message: impl Into<String>, help: impl Into<String>) {
        let span = self.text.find_word(&[word]).unwrap_or_else(|| self.text.first_word());
        self.found.push(self.text.error(code, span, message).help(help));
    }

    fn set_operation(&mut self, body: &SetExpr) {
        let SetExpr::SetOperation { left, op, set_quantifier, right } = body else {
            if matches!(body, SetExpr::Values(_)) {
                self.refuse_word(codes::NO_STREAM, "values", "the query reads no stream", "read a stream in FROM");
            }
            return;
        };
        let all = matches!(set_quantifier, SetQuantifier::All);
        if *op != SetOperator::Union || !all {
            let name = op.to_string();
            let help = if *op == SetOperator::Union {
                "write UNION ALL; where rows may be there twice, GROUP BY or SELECT DISTINCT around it".to_string()
            } else {
                "bring both together with UNION ALL and a marking column, and GROUP BY … HAVING".to_string()
            };
            let shown = if *op == SetOperator::Union { "UNION without ALL".to_string() } else { name.clone() };
            self.refuse_word(codes::SET_OPERATION, &name, format!("{shown} does not stream yet"), help);
        }
        self.set_operation(left);
        self.set_operation(right);
    }

    fn function(&mut self, function: &Function) {
        let name = function.name.to_string().to_lowercase();
        if let Some(udf) = self.state.scalar_functions().get(&name)
            && udf.signature().volatility == Volatility::Volatile
        {
            self.refuse_function(
                codes::VOLATILE,
                function,
                format!("`{name}` gives something else at every call"),
                "a tag must be the same however often it is computed; use a column of the stream",
            );
        }
        if function.over.is_some() {
            if name != "row_number" {
                self.refuse_function(
                    codes::WINDOW,
                    function,
                    format!("{}() OVER (…) does not stream yet", name.to_uppercase()),
                    "of the window functions ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) streams, filtered = 1",
                );
            }
            return;
        }
        if self.state.aggregate_functions().contains_key(&name) {
            self.aggregate(function, &name);
        }
        if matches!(name.as_str(), "to_char" | "date_format" | "to_date" | "to_timestamp")
            && let Some(format) = foreign::arguments(function).get(1).and_then(|format| foreign::literal(format))
            && let Some(ours) = foreign::strftime(format)
        {
            self.refuse_function(
                codes::DATE_FORMAT,
                function,
                format!("'{format}' is a date format of Java"),
                format!("write '{ours}'"),
            );
        }
    }

    fn aggregate(&mut self, function: &Function, name: &str) {
        let (distinct, ordered) = match &function.args {
            FunctionArguments::List(list) => (
                list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
                list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_))),
            ),
            _ => (false, false),
        };
        let upper = name.to_uppercase();
        match name {
            "count" | "sum" | "avg" | "mean" | "min" | "max" => {
                if distinct && matches!(name, "sum" | "avg" | "mean") {
                    self.refuse_function(
                        codes::AGGREGATE,
                        function,
                        format!("{upper}(DISTINCT …) does not stream yet"),
                        "group by the value first in a sub-query, then aggregate",
                    );
                }
                if ordered {
                    self.refuse_function(
                        codes::ORDERED_AGGREGATE,
                        function,
                        format!("{upper} with ORDER BY does not stream yet"),
                        "leave out the ORDER BY: it does not change the result",
                    );
                }
            }
            _ => self.refuse_function(
                codes::AGGREGATE,
                function,
                format!("{upper} does not stream yet"),
                "COUNT, COUNT(DISTINCT …), SUM, AVG, MIN and MAX do; ROW_NUMBER() … = 1 keeps a first or last row",
            ),
        }
    }
}

/// A part of the syntax tree that knows its place.
trait SpannedPlace {
    fn place(&self) -> datafusion::sql::sqlparser::tokenizer::Span;
}

impl<T: Spanned> SpannedPlace for T {
    fn place(&self) -> datafusion::sql::sqlparser::tokenizer::Span {
        self.span()
    }
}

impl Visitor for Search<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(with) = &query.with
            && with.recursive
        {
            self.refuse_word(codes::RECURSIVE, "recursive", "WITH RECURSIVE does not stream", "leave out RECURSIVE");
        }
        if query.order_by.is_some() {
            self.refuse_word(
                codes::ORDER_BY,
                "order by",
                "a tag is a table of users and has no order",
                "leave out ORDER BY; to keep one row a user, filter ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) = 1",
            );
        }
        if query.limit_clause.is_some() || query.fetch.is_some() {
            let word = if query.fetch.is_some() { "fetch" } else { "limit" };
            self.refuse_word(
                codes::LIMIT,
                word,
                "LIMIT over the whole population does not stream yet",
                "leave it out; to keep one row a user, filter ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) = 1",
            );
        }
        self.set_operation(&query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.from.is_empty() {
            let span = self.text.span(select.select_token.0.span);
            self.found.push(
                self.text.error(codes::NO_STREAM, span, "the query reads no stream").help("read a stream in FROM"),
            );
        }
        for join in select.from.iter().flat_map(|from| &from.joins) {
            self.refuse(
                codes::JOIN,
                &join.relation,
                "joins do not stream yet",
                "read one stream, or bring several together with UNION ALL and GROUP BY",
            );
        }
        if let [_, second, ..] = select.from.as_slice() {
            self.refuse(
                codes::JOIN,
                &second.relation,
                "several tables in FROM are a join, and joins do not stream yet",
                "read one stream, or bring several together with UNION ALL and GROUP BY",
            );
        }
        if let Some(Distinct::On(_)) = select.distinct {
            self.refuse_word(
                codes::DISTINCT_ON,
                "distinct",
                "DISTINCT ON does not stream yet",
                "filter ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) = 1 in a query around it",
            );
        }
        if let GroupByExpr::Expressions(_, modifiers) = &select.group_by
            && !modifiers.is_empty()
        {
            self.refuse_word(
                codes::GROUPING_SETS,
                "with",
                "ROLLUP and CUBE do not stream yet",
                "write one tag for each grouping",
            );
        }
        if !select.lateral_views.is_empty() {
            self.refuse_word(
                codes::TABLE_FUNCTION,
                "lateral",
                "LATERAL VIEW does not stream yet",
                "declare a column for the value in the schema",
            );
        }
        let others = [
            (!select.cluster_by.is_empty(), "cluster"),
            (!select.distribute_by.is_empty(), "distribute"),
            (!select.sort_by.is_empty(), "sort"),
        ];
        for (_, word) in others.into_iter().filter(|(there, _)| *there) {
            let message = format!("{} BY says how Hive works, not what the answer is", word.to_uppercase());
            self.refuse_word(codes::OTHER_CLAUSE, word, message, "leave it out");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args, sample, .. } => {
                if args.is_some() {
                    let message = format!("`{name}(…)` in FROM does not stream yet");
                    self.refuse(
                        codes::TABLE_FUNCTION,
                        factor,
                        message,
                        "group by `date_trunc('hour', column)` for fixed windows",
                    );
                }
                if sample.is_some() {
                    self.refuse(codes::OTHER_CLAUSE, factor, "TABLESAMPLE does not stream", "a tag is of all users");
                }
            }
            TableFactor::Derived { lateral: false, .. } | TableFactor::NestedJoin { .. } => {}
            TableFactor::Derived { .. } => {
                self.refuse(
                    codes::JOIN,
                    factor,
                    "LATERAL does not stream yet",
                    "write the sub-query in FROM without it",
                );
            }
            other => {
                let name = other.to_string().split(['(', ' ']).next().unwrap_or("this").to_uppercase();
                self.refuse(
                    codes::TABLE_FUNCTION,
                    factor,
                    format!("{name} in FROM does not stream yet"),
                    "read a stream or a sub-query",
                );
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                let message = "a sub-query inside an expression does not stream yet";
                let help =
                    "sub-queries stream in FROM; for one of another stream, UNION ALL both and GROUP BY … HAVING";
                self.refuse(codes::SUBQUERY, expr, message, help);
            }
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                let message = "GROUPING SETS, ROLLUP and CUBE do not stream yet";
                self.refuse(codes::GROUPING_SETS, expr, message, "write one tag for each grouping");
            }
            Expr::RLike { expr: value, pattern, .. } => {
                let help = format!("write `regexp_like({value}, {pattern})`");
                self.refuse_word(codes::FOREIGN, "rlike", "RLIKE is not known here", help);
            }
            Expr::Function(function) => self.function(function),
            Expr::BinaryOp { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. } if may_be_zero(right) => {
                let span = self.text.span(right.span());
                let help = format!("write `NULLIF({right}, 0)`: the result is then NULL where it is zero");
                self.found.push(
                    self.text
                        .warning(codes::ZERO_DIVISOR, span, "the divisor may be zero, which stops the tag")
                        .help(help),
                );
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn may_be_zero(divisor: &Expr) -> bool {
    match divisor {
        Expr::Value(value) => {
            value.value.to_string().trim_matches('\'').parse::<f64>().is_ok_and(|number| number == 0.0)
        }
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => may_be_zero(inner),
        Expr::Function(function) => !function.name.to_string().eq_ignore_ascii_case("nullif"),
        Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } => may_be_zero(left) || may_be_zero(right),
        _ => true,
    }
}
