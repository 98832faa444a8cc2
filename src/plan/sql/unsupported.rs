//! What SQL allows and does not stream yet: refused with the place and what to write instead.

use std::ops::ControlFlow;

use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Function, GroupByExpr, JoinConstraint, JoinOperator, Query, Select, SelectFlavor,
    SetExpr, Spanned, TableFactor, Value, ValueWithSpan, Visit, Visitor,
};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::text::{SqlText, WITHOUT_VARIABLES};
use crate::plan::sql::{foreign, functions};

/// Everything in the query that is refused, and findings that are only doubtful.
pub(crate) fn find(text: &SqlText<'_>, query: &Query, state: &SessionState) -> Vec<Diagnostic> {
    let mut search = Search { text, state, found: Vec::new(), guards: Vec::new(), is_exists: false };
    let _ = Visit::visit(query, &mut search);
    search.found
}

/// How JSON is read.
const KEYS: &str = "write `payload->'a'->>'b'`, one key behind another; elements of a list are numbers";

/// A path of MySQL, Hive or BigQuery: `$.a.b`.
fn is_json_path(text: &str) -> bool {
    text.starts_with("$.") || text.starts_with("$[")
}

struct Search<'a> {
    text: &'a SqlText<'a>,
    state: &'a SessionState,
    found: Vec<Diagnostic>,
    /// Conditions of the CASEs around an expression.
    guards: Vec<Vec<String>>,
    /// The query that comes next is that of an EXISTS.
    is_exists: bool,
}

impl Search<'_> {
    fn refuse(
        &mut self,
        code: &'static str,
        place: &dyn SpannedPlace,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.refuse_at(code, self.text.span(place.place()), message, help);
    }

    fn refuse_at(
        &mut self,
        code: &'static str,
        span: std::ops::Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
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

    /// An operator between two expressions that means something else elsewhere.
    fn refuse_sign(&mut self, sign: &str, left: &Expr, right: &Expr, message: &str, help: &str) {
        let between = self.text.expr(left).end..self.text.expr(right).start;
        let at = self.text.text().get(between.clone()).and_then(|text| text.find(sign));
        let place = at.map_or_else(|| self.text.expr(left), |at| between.start + at..between.start + at + sign.len());
        self.refuse_at(codes::FOREIGN, place, message, help);
    }

    fn refuse_word(&mut self, code: &'static str, word: &str, message: impl Into<String>, help: impl Into<String>) {
        let span = self.text.find_word(&[word]).unwrap_or_else(|| self.text.first_word());
        self.found.push(self.text.error(code, span, message).help(help));
    }

    /// True inside a CASE that looks at the divisor first.
    fn is_guarded(&self, divisor: &Expr) -> bool {
        let divisor = divisor.to_string();
        self.guards.iter().flatten().any(|condition| condition.contains(&divisor))
    }

    /// An ORDER BY says which rows a LIMIT or DISTINCT ON keeps; alone it says nothing of a table.
    fn order_and_limit(&mut self, query: &Query) {
        let is_exists = std::mem::take(&mut self.is_exists);
        let is_distinct_on =
            matches!(query.body.as_ref(), SetExpr::Select(select) if matches!(select.distinct, Some(Distinct::On(_))));
        let help = "ORDER BY … LIMIT keeps the first rows of everybody, and ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) = 1 \
                    one row a user";
        if query.fetch.is_some() {
            self.refuse_word(codes::LIMIT, "fetch", "FETCH is not known here", "write ORDER BY … LIMIT");
        } else if query.limit_clause.is_some() && query.order_by.is_none() && !is_exists {
            let word = if self.text.find_word(&["limit"]).is_some() { "limit" } else { "offset" };
            self.refuse_word(codes::LIMIT, word, "a LIMIT without ORDER BY keeps any rows", help);
        } else if query.order_by.is_some() && query.limit_clause.is_none() && !is_distinct_on {
            let span = self.text.find_word(&["order by"]).unwrap_or_else(|| self.text.first_word());
            let warning = self.text.warning(codes::ORDER_BY, span, "ORDER BY does nothing: a table has no order");
            self.found.push(warning.help(format!("leave it out; {help}")));
        }
        if is_distinct_on && query.order_by.is_none() {
            let help = "say which: ORDER BY user_id, order_time DESC";
            self.refuse_word(
                codes::DISTINCT_ON,
                "distinct",
                "DISTINCT ON without ORDER BY keeps any row of each",
                help,
            );
        }
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
            return;
        }
        self.found.extend(functions::date_format(self.text, function));
        let arguments = foreign::arguments(function);
        let path = arguments.iter().skip(1).find(|argument| foreign::literal(argument).is_some_and(is_json_path));
        let is_json = name.starts_with("json_") && self.state.scalar_functions().contains_key(&name);
        if let (true, Some(path), Some(json)) = (is_json, path, arguments.first()) {
            let keys = foreign::literal(path).and_then(foreign::json_keys).map(|keys| keys.join(", "));
            let help = keys.map_or_else(|| KEYS.to_string(), |keys| format!("write `{name}({json}, {keys})`"));
            self.refuse_at(codes::FOREIGN, self.text.expr(path), "JSON is read by keys here, not by a path", help);
        }
    }

    /// A place from the end, which Hive and MySQL have, and the place before the first.
    fn substring(&mut self, value: &Expr, from: &Expr, length: Option<&Expr>) {
        let mut place = self.text.expr(from);
        // The parser's place is that of the number.
        place.start -= usize::from(self.text.text()[..place.start].ends_with('-'));
        let from = from.to_string();
        match (from.strip_prefix('-').map(|back| back.trim().parse::<u64>()), length) {
            (Some(Ok(back)), length) => {
                let help = match length {
                    None => format!("write `right({value}, {back})`"),
                    Some(length) => format!("write `left(right({value}, {back}), {length})`"),
                };
                let message = "a place from the end is not known here: the whole text would be taken";
                self.refuse_at(codes::FOREIGN, place, message, help);
            }
            _ if from == "0" => {
                let help = "write 1 for the first letter";
                self.refuse_at(codes::FOREIGN, place, "the first letter is 1, and 0 the one before it", help);
            }
            _ => {}
        }
    }

    /// `(a, b) IN (SELECT c, d FROM …)`.
    fn tuple_in(&mut self, tuple: &Expr, values: &[Expr], list: &Query, negated: bool) {
        let of_list = match list.body.as_ref() {
            SetExpr::Select(select) => select.projection.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let equal = values.iter().enumerate().map(|(at, value)| {
            let of_list = of_list.get(at).map_or("…", String::as_str);
            format!("{of_list} = {value}")
        });
        let equal = equal.collect::<Vec<_>>().join(" AND ");
        let not = if negated { "NOT " } else { "" };
        let help = format!(
            "write `{not}EXISTS (SELECT 1 FROM … WHERE {equal})`, names of both sides with their tables before them"
        );
        self.refuse_at(codes::SUBQUERY, self.text.expr(tuple), "IN of a sub-query takes one column", help);
    }

    /// Paths where keys stand: they would be looked for as keys, and never be found.
    fn json_arrow(&mut self, json: &Expr, op: &BinaryOperator, path: &Expr) {
        let Some(path_text) = foreign::literal(path) else { return };
        let json_text = json.to_string();
        let instead = match op {
            BinaryOperator::Arrow | BinaryOperator::LongArrow if is_json_path(path_text) => {
                foreign::json_path(&json_text, path_text)
            }
            BinaryOperator::HashArrow | BinaryOperator::HashLongArrow => {
                let keys = path_text.trim_matches(['{', '}']).split(',').map(|key| foreign::json_key(key.trim()));
                foreign::arrows(&json_text, &keys.collect::<Vec<_>>())
            }
            _ => return,
        };
        let help = instead.map_or_else(|| KEYS.to_string(), |instead| format!("write `{instead}`"));
        self.refuse_at(codes::FOREIGN, self.text.expr(path), "JSON is read by keys here, not by a path", help);
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
        self.order_and_limit(query);
        if !query.pipe_operators.is_empty() {
            let span = self.text.text().find("|>").map_or_else(|| self.text.first_word(), |at| at..at + 2);
            let error = self.text.error(codes::OTHER_CLAUSE, span, "`|>` does not stream");
            self.found.push(error.help("write SELECT … FROM … WHERE … GROUP BY"));
        }
        if !query.locks.is_empty() || query.for_clause.is_some() {
            self.refuse_word(codes::OTHER_CLAUSE, "for", "FOR … locks rows, and a stream has none", "leave it out");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if let GroupByExpr::Expressions(_, modifiers) = &select.group_by
            && !modifiers.is_empty()
        {
            self.refuse_word(
                codes::GROUPING_SETS,
                "with",
                "WITH ROLLUP and WITH CUBE are not known here",
                "write GROUP BY user_id, ROLLUP (category)",
            );
        }
        for join in select.from.iter().flat_map(|from| &from.joins) {
            if matches!(join.relation, TableFactor::UNNEST { .. }) && !keeps_pairs(&join.join_operator) {
                let message = "this join with the elements of a list does not stream";
                let help = "write CROSS JOIN UNNEST(items) AS t(item), or LEFT JOIN … ON TRUE to keep rows without elements; \
                            conditions belong into WHERE";
                self.refuse(codes::TABLE_FUNCTION, &join.relation, message, help);
            }
        }
        if !select.lateral_views.is_empty() {
            self.refuse_word(
                codes::TABLE_FUNCTION,
                "lateral",
                "LATERAL VIEW is not known here",
                "write FROM orders CROSS JOIN UNNEST(items) AS t(item)",
            );
        }
        if select.flavor != SelectFlavor::Standard {
            self.refuse_word(
                codes::OTHER_CLAUSE,
                "from",
                "FROM before SELECT is not known here",
                "write SELECT … FROM …",
            );
        }
        if select.top.is_some() {
            self.refuse_word(codes::LIMIT, "top", "TOP is not known here", "write ORDER BY … LIMIT");
        }
        if select.into.is_some() {
            let help = "leave INTO out: the tag's table is made by tagflow";
            self.refuse_word(codes::NOT_ONE_QUERY, "into", "SELECT INTO is no query", help);
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
                    let message = format!("`{name}(…)` in FROM does not stream");
                    let help = "windows are FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR)), HOP and SESSION";
                    self.refuse(codes::TABLE_FUNCTION, factor, message, help);
                }
                if sample.is_some() {
                    self.refuse(codes::OTHER_CLAUSE, factor, "TABLESAMPLE does not stream", "a tag is of all users");
                }
            }
            TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { with_offset: false, with_ordinality: false, .. } => {}
            TableFactor::UNNEST { with_ordinality, .. } => {
                let word = if *with_ordinality { "ordinality" } else { "offset" };
                let message = "UNNEST does not number the elements here";
                let help = "write UNNEST(items, generate_series(1, cardinality(items))) AS t(item, n)";
                self.refuse_word(codes::TABLE_FUNCTION, word, message, help);
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
            Expr::RLike { expr: value, pattern, negated, regexp } => {
                let word = if *regexp { "REGEXP" } else { "RLIKE" };
                let not = if *negated { "NOT " } else { "" };
                let help = format!("write `{not}regexp_like({value}, {pattern})`");
                self.refuse_word(codes::FOREIGN, word, format!("{word} is not known here"), help);
            }
            Expr::Value(ValueWithSpan { value: Value::Placeholder(name), span }) => {
                let span = self.text.span(*span);
                let error =
                    self.text.error(codes::PLACEHOLDER, span, format!("`{name}` is a placeholder, and a tag has none"));
                self.found.push(error.help(WITHOUT_VARIABLES));
            }
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) if text.contains("${") => {
                let message = format!("'{text}' has a variable in it, and a tag has none");
                let error = self.text.error(codes::PLACEHOLDER, self.text.span(*span), message);
                self.found.push(error.help(WITHOUT_VARIABLES));
            }
            Expr::Function(function) => self.function(function),
            Expr::Substring { expr: value, substring_from: Some(from), substring_for, .. } => {
                self.substring(value, from, substring_for.as_deref());
            }
            Expr::Exists { .. } => self.is_exists = true,
            Expr::InSubquery { expr: tuple, subquery, negated } => {
                if let Expr::Tuple(values) = tuple.as_ref() {
                    self.tuple_in(tuple, values, subquery, *negated);
                }
            }
            Expr::BinaryOp {
                op:
                    op @ (BinaryOperator::Arrow
                    | BinaryOperator::LongArrow
                    | BinaryOperator::HashArrow
                    | BinaryOperator::HashLongArrow),
                left,
                right,
            } => self.json_arrow(left, op, right),
            Expr::BinaryOp { op: BinaryOperator::Spaceship, left, right } => {
                let help = format!("write `{left} IS NOT DISTINCT FROM {right}`");
                self.refuse_sign("<=>", left, right, "`<=>` is not known here", &help);
            }
            Expr::BinaryOp { op: BinaryOperator::PGOverlap, left, right } => {
                self.refuse_sign("&&", left, right, "`&&` is not known here", "for both conditions write AND");
            }
            // `a = 1 || b = 2` is read as `(a = (1 || b)) = 2`.
            Expr::BinaryOp { op, left, .. } if is_comparison(op) => {
                if let Expr::BinaryOp { op, right, .. } = left.as_ref()
                    && is_comparison(op)
                    && let Expr::BinaryOp { op: BinaryOperator::StringConcat, left, right } = right.as_ref()
                {
                    self.refuse_sign(
                        "||",
                        left,
                        right,
                        "`||` joins texts here",
                        "for one condition or the other write OR",
                    );
                }
            }
            Expr::Case { conditions, operand: None, .. } => {
                self.guards.push(conditions.iter().map(|when| when.condition.to_string()).collect());
            }
            Expr::BinaryOp { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. }
                if may_be_zero(right) && !self.is_guarded(right) =>
            {
                let help = format!("write `NULLIF({right}, 0)`: the result is then NULL where it is zero");
                let message = "the divisor may be zero, which stops the tag";
                self.found.push(self.text.warning(codes::ZERO_DIVISOR, self.text.expr(right), message).help(help));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Case { operand: None, .. }) {
            self.guards.pop();
        }
        ControlFlow::Continue(())
    }
}

/// True for a join of every row with all its elements.
pub(crate) fn keeps_pairs(operator: &JoinOperator) -> bool {
    let is_true = |constraint: &JoinConstraint| match constraint {
        JoinConstraint::None => true,
        JoinConstraint::On(Expr::Value(value)) => value.value == Value::Boolean(true),
        _ => false,
    };
    match operator {
        JoinOperator::CrossJoin(constraint)
        | JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => is_true(constraint),
        _ => false,
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn may_be_zero(divisor: &Expr) -> bool {
    match divisor {
        Expr::Value(value) => {
            value.value.to_string().trim_matches('\'').parse::<f64>().is_ok_and(|number| number == 0.0)
        }
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => may_be_zero(inner),
        Expr::Function(function) => match function.name.to_string().to_lowercase().as_str() {
            "nullif" => false,
            // A group has a row at least.
            "count" => {
                function.filter.is_some()
                    || !foreign::arguments(function).iter().all(|one| matches!(one, Expr::Value(_)))
            }
            _ => true,
        },
        Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } => may_be_zero(left) || may_be_zero(right),
        _ => true,
    }
}
