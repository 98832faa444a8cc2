//! Windows in FROM, `TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR))`, as the sub-queries that
//! they are short for.
//!
//! Flink's table functions: the rows with `window_start` and `window_end`; TUMBLE gives a row its window, HOP every
//! window that it falls into, SESSION the run of rows that follow each other within a gap. Rows without a time are in
//! no window. The tokens are replaced before they are parsed, so that plan, operators and oracle see plain SQL; what
//! the author wrote keeps its places.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer};

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::dialect::Bound;
use crate::plan::sql::text::SqlText;

/// Windows that a row of a HOP may fall into.
const MOST_WINDOWS: i64 = 60;
/// The longest query with its windows written out: a HOP of a HOP multiplies.
const MOST_TOKENS: usize = 50_000;

/// The tokens with every window function in FROM written out.
pub(crate) fn written_out(text: &SqlText<'_>, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>, Diagnostic> {
    let mut tokens = tokens;
    // From the innermost out: the data of a window may be a sub-query with another.
    let mut at = tokens.len();
    while at > 0 {
        at -= 1;
        let Some(call) = call_at(&tokens, at) else { continue };
        let written = Window { text, place: tokens[at].span, arguments: &tokens[call.arguments.clone()] };
        let written = match call.function.as_str() {
            "tumble" => written.tumble(),
            "hop" => written.hop(),
            _ => written.session(),
        }?;
        let place = tokens[at].span;
        tokens.splice(at..call.end, written);
        if tokens.len() > MOST_TOKENS {
            let error =
                text.error(codes::TABLE_FUNCTION, text.span(place), "the query is too long with this window in it");
            return Err(error.help("read a window of a window from a tag of its own, `FROM tags.name`"));
        }
    }
    Ok(tokens)
}

struct Call {
    function: String,
    arguments: Range<usize>,
    /// Behind the last bracket.
    end: usize,
}

/// `TABLE ( <function> ( … ) )` at a token.
fn call_at(tokens: &[TokenWithSpan], at: usize) -> Option<Call> {
    word(tokens, at).filter(|word| word == "table")?;
    let mut next = significant(tokens, at + 1);
    is(tokens, next.next()?, &Token::LParen).then_some(())?;
    let function = word(tokens, next.next()?).filter(|word| ["tumble", "hop", "session"].contains(&word.as_str()))?;
    let open = next.next()?;
    is(tokens, open, &Token::LParen).then_some(())?;
    let close = closing(tokens, open)?;
    let end = significant(tokens, close + 1).next()?;
    is(tokens, end, &Token::RParen).then_some(())?;
    Some(Call { function, arguments: open + 1..close, end: end + 1 })
}

/// Positions of tokens that are no blanks, from `at` on.
fn significant(tokens: &[TokenWithSpan], at: usize) -> impl Iterator<Item = usize> {
    (at..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_)))
}

fn word(tokens: &[TokenWithSpan], at: usize) -> Option<String> {
    match &tokens[at].token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        _ => None,
    }
}

fn is(tokens: &[TokenWithSpan], at: usize, token: &Token) -> bool {
    tokens[at].token == *token
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    (open..tokens.len()).find(|index| {
        match &tokens[*index].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// The arguments of one window function.
struct Window<'a> {
    text: &'a SqlText<'a>,
    /// Of the word TABLE.
    place: Span,
    arguments: &'a [TokenWithSpan],
}

/// A span of time, in the unit that it was written in.
struct Length {
    count: i64,
    unit: String,
    seconds: i64,
}

impl Length {
    fn times(&self, factor: i64) -> String {
        format!("INTERVAL '{}' {}", self.count * factor, self.unit)
    }
}

impl Window<'_> {
    /// The rows of `windows` that are to be shown; see [`crate::plan::watermark`]. `time` is put where `"#time"` stands.
    fn shown(&self, windows: &[TokenWithSpan], time: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
        let shown = self.sql(&[
            Part::Sql("(SELECT * EXCLUDE (\"#event_time\") FROM ("),
            Part::Own(windows),
            Part::Sql(") WHERE \"#closes\"(\"#event_time\", window_end))"),
        ]);
        shown.into_iter().flat_map(|token| self.with_time(token, time)).collect()
    }

    fn tumble(&self) -> Result<Vec<TokenWithSpan>, Diagnostic> {
        const FORM: &str = "TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR))";
        let [data, time, size] = self.named(["data", "timecol", "size"], FORM)?;
        let (from, _) = self.data(&data, FORM)?;
        let (time, size) = (self.time(&time, FORM)?, self.length(&size, FORM)?);
        let cut = Part::Text(self.cut(&size, &size, 0));
        let tokens = self.sql(&[cut, Part::Sql(" FROM "), Part::Own(&from), Part::Sql(" WHERE \"#time\" IS NOT NULL")]);
        Ok(self.shown(&tokens, &time))
    }

    fn hop(&self) -> Result<Vec<TokenWithSpan>, Diagnostic> {
        const FORM: &str = "TABLE(HOP(TABLE orders, DESCRIPTOR(order_time), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)), first the slide, then the size";
        let [data, time, slide, size] = self.named(["data", "timecol", "slide", "size"], FORM)?;
        let (from, _) = self.data(&data, FORM)?;
        let (time, slide, size) = (self.time(&time, FORM)?, self.length(&slide, FORM)?, self.length(&size, FORM)?);
        let windows = size.seconds / slide.seconds;
        if size.seconds % slide.seconds != 0 || windows > MOST_WINDOWS {
            let message = format!("the size of a HOP must be 1 to {MOST_WINDOWS} times its slide");
            return Err(self.error(message, FORM));
        }
        let mut tokens = Vec::new();
        for window in 0..windows {
            let union = if window == 0 { "" } else { " UNION ALL " };
            tokens.extend(self.sql(&[
                Part::Sql(union),
                Part::Text(self.cut(&slide, &size, window)),
                Part::Sql(" FROM "),
                Part::Own(&from),
                Part::Sql(" WHERE \"#time\" IS NOT NULL"),
            ]));
        }
        Ok(self.shown(&tokens, &time))
    }

    fn session(&self) -> Result<Vec<TokenWithSpan>, Diagnostic> {
        const FORM: &str =
            "TABLE(SESSION(TABLE page_views PARTITION BY user_id, DESCRIPTOR(view_time), INTERVAL '30' MINUTE))";
        let [data, time, gap] = self.named(["data", "timecol", "gap"], FORM)?;
        let (from, partition) = self.data(&data, FORM)?;
        let Some(partition) = partition else {
            return Err(self.error("a SESSION without PARTITION BY is one of all users together", FORM));
        };
        let (time, gap) = (self.time(&time, FORM)?, self.length(&gap, FORM)?);
        let gap = gap.times(1);
        let tokens = self.sql(&[
            Part::Sql("SELECT * EXCLUDE (\"#session\"), MIN(\"#time\") OVER (PARTITION BY "),
            Part::Own(&partition),
            Part::Sql(", \"#session\") AS window_start, MAX(\"#time\") OVER (PARTITION BY "),
            Part::Own(&partition),
            Part::Text(format!(", \"#session\") + {gap} AS window_end, \"#time\" AS \"#event_time\" FROM (")),
            Part::Sql("SELECT * EXCLUDE (\"#begins\"), SUM(\"#begins\") OVER (PARTITION BY "),
            Part::Own(&partition),
            Part::Sql(" ORDER BY \"#time\") AS \"#session\" FROM (SELECT *, CASE WHEN \"#time\" > LAG(\"#time\") OVER (PARTITION BY "),
            Part::Own(&partition),
            Part::Text(format!(" ORDER BY \"#time\") + {gap} THEN 1 ELSE 0 END AS \"#begins\" FROM ")),
            Part::Own(&from),
            Part::Sql(" WHERE \"#time\" IS NOT NULL))"),
        ]);
        Ok(self.shown(&tokens, &time))
    }

    /// All columns and the window that begins `back` slides before the newest that a row falls into.
    fn cut(&self, slide: &Length, size: &Length, back: i64) -> String {
        let start = match back {
            0 => format!("date_bin({}, \"#time\")", slide.times(1)),
            back => format!("date_bin({}, \"#time\") - {}", slide.times(1), slide.times(back)),
        };
        format!(
            "SELECT *, \"#time\" AS \"#event_time\", {start} AS window_start, {start} + {} AS window_end",
            size.times(1)
        )
    }

    /// The column in place of the word that stands for it.
    fn with_time(&self, token: TokenWithSpan, time: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
        match &token.token {
            Token::Word(word) if word.value == "#time" => time.to_vec(),
            _ => vec![token],
        }
    }

    fn sql(&self, parts: &[Part<'_>]) -> Vec<TokenWithSpan> {
        let made = |sql: &str| {
            // The templates above are SQL.
            let tokens = Tokenizer::new(&Bound::default(), sql).tokenize().unwrap_or_default();
            tokens.into_iter().map(|token| TokenWithSpan::new(token, self.place)).collect::<Vec<_>>()
        };
        parts
            .iter()
            .flat_map(|part| match part {
                Part::Sql(sql) => made(sql),
                Part::Text(sql) => made(sql),
                Part::Own(tokens) => tokens.to_vec(),
            })
            .collect()
    }

    /// The arguments by their names, or in their order.
    fn named<const N: usize>(&self, names: [&str; N], form: &str) -> Result<[Vec<TokenWithSpan>; N], Diagnostic> {
        let mut found: [Vec<TokenWithSpan>; N] = std::array::from_fn(|_| Vec::new());
        let mut arguments = vec![Vec::new()];
        let mut depth = 0_usize;
        for token in self.arguments {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Comma if depth == 0 => {
                    arguments.push(Vec::new());
                    continue;
                }
                Token::Whitespace(_) if arguments.last().is_some_and(Vec::is_empty) => continue,
                _ => {}
            }
            if let Some(last) = arguments.last_mut() {
                last.push(token.clone());
            }
        }
        for (index, argument) in arguments.into_iter().enumerate() {
            let mut next = significant(&argument, 0);
            let name = next.next().and_then(|at| word(&argument, at));
            let arrow = next.next().filter(|at| is(&argument, *at, &Token::RArrow));
            drop(next);
            let (place, value) = match (name, arrow) {
                (Some(name), Some(arrow)) => {
                    let place = names.iter().position(|known| *known == name);
                    (place, argument[arrow + 1..].to_vec())
                }
                _ => (Some(index).filter(|index| *index < N), argument),
            };
            match place {
                Some(place) if found[place].is_empty() => found[place] = value,
                _ => return Err(self.error("this window has an argument that is not known here", form)),
            }
        }
        match found.iter().position(Vec::is_empty) {
            Some(missing) => Err(self.error(format!("this window has no {}", names[missing].to_uppercase()), form)),
            None => Ok(found),
        }
    }

    /// What is read, and what it is partitioned by.
    fn data(
        &self,
        argument: &[TokenWithSpan],
        form: &str,
    ) -> Result<(Vec<TokenWithSpan>, Option<Vec<TokenWithSpan>>), Diagnostic> {
        let mut own: Vec<TokenWithSpan> =
            argument.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).cloned().collect();
        let is_word = |token: &TokenWithSpan, name: &str| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name));
        if own.first().is_some_and(|token| is_word(token, "table")) {
            own.remove(0);
        }
        // Behind the data, which may be a sub-query with partitions of its own.
        let behind = match own.first() {
            Some(first) if first.token == Token::LParen => closing(&own, 0).unwrap_or(0),
            _ => 0,
        };
        let partition =
            own[behind..].windows(2).position(|two| is_word(&two[0], "partition") && is_word(&two[1], "by"));
        let partition = partition.map(|at| behind + at);
        let partition = partition.map(|at| {
            let mut keys = own.split_off(at);
            keys.drain(..2);
            if keys.first().is_some_and(|token| token.token == Token::LParen) {
                keys = keys[1..keys.len() - 1].to_vec();
            }
            keys
        });
        if own.is_empty() || partition.as_ref().is_some_and(Vec::is_empty) {
            return Err(self.error("this window reads nothing", form));
        }
        // Blanks keep words apart.
        let spaced = |tokens: Vec<TokenWithSpan>| {
            let blank = self.sql(&[Part::Sql(" ")]);
            tokens.into_iter().flat_map(|token| [vec![token], blank.clone()].concat()).collect::<Vec<_>>()
        };
        Ok((spaced(own), partition.map(spaced)))
    }

    /// The column of `DESCRIPTOR(column)`.
    fn time(&self, argument: &[TokenWithSpan], form: &str) -> Result<Vec<TokenWithSpan>, Diagnostic> {
        let mut at = significant(argument, 0);
        let is_descriptor = at.next().and_then(|at| word(argument, at)).as_deref() == Some("descriptor");
        let open = at.next().filter(|at| is(argument, *at, &Token::LParen));
        let close = open.and_then(|open| closing(argument, open));
        match (is_descriptor, open, close) {
            (true, Some(open), Some(close)) if close > open + 1 => Ok(argument[open + 1..close].to_vec()),
            _ => Err(self.error("a window is over one column of event time, in DESCRIPTOR(…)", form)),
        }
    }

    /// The time of `INTERVAL '5' MINUTE`.
    fn length(&self, argument: &[TokenWithSpan], form: &str) -> Result<Length, Diagnostic> {
        let text: Vec<String> = significant(argument, 0).map(|at| argument[at].token.to_string()).collect();
        let words: Vec<String> = text.join(" ").replace('\'', " ").split_whitespace().map(str::to_uppercase).collect();
        let length = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["INTERVAL", count, unit] => count.parse::<i64>().ok().and_then(|count| {
                let unit = unit.strip_suffix('S').unwrap_or(unit);
                let seconds = match unit {
                    "SECOND" => 1,
                    "MINUTE" => 60,
                    "HOUR" => 3_600,
                    "DAY" => 86_400,
                    "WEEK" => 604_800,
                    _ => return None,
                };
                let seconds = count.checked_mul(seconds).filter(|seconds| (1..=31_622_400).contains(seconds))?;
                Some(Length { count, unit: unit.to_string(), seconds })
            }),
            _ => None,
        };
        length.ok_or_else(|| {
            self.error("a window has a length of seconds, minutes, hours, days or weeks, at most a year", form)
        })
    }

    fn error(&self, message: impl Into<String>, form: &str) -> Diagnostic {
        let span = self.text.span(self.place);
        self.text.error(codes::TABLE_FUNCTION, span, message).help(format!("write FROM {form}"))
    }
}

/// Pieces of a sub-query.
enum Part<'a> {
    Sql(&'a str),
    Text(String),
    /// What the author wrote, in its place.
    Own(&'a [TokenWithSpan]),
}
