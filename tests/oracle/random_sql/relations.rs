//! Relations of more kinds: windows in FROM, set operations, limits, semi and anti joins, streams with tags, running sums,
//! sub-queries as values, rows without a partner, groups whose keys tell each other, constants.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Bool, Decimal, Double, Generator, Int, Rel, Text, Time};

impl Generator {
    /// One of the kinds here.
    pub(super) fn another(&mut self, depth: u32) -> Rel {
        match self.random.random_range(0..12) {
            8 => self.asked(depth),
            9 => self.without_partner(depth),
            10 => self.told(depth),
            11 => self.with_constants(depth),
            0 => self.windowed(),
            1 => self.combined(depth),
            2 => self.limited(depth),
            3 => self.partnered(depth),
            4 => self.with_tag(depth),
            5 => self.running(depth),
            6 => self.looked_up(depth),
            _ => self.first_of_each(depth),
        }
    }

    /// Events with the windows that they lie in.
    fn windowed(&mut self) -> Rel {
        let mut rel = self.stream();
        let (name, time) = (rel.sql.clone(), if rel.sql == "orders" { "order_time" } else { "view_time" });
        let window = match self.random.random_range(0..3) {
            0 => format!("TUMBLE(TABLE {name}, DESCRIPTOR({time}), INTERVAL '6' HOUR)"),
            1 => format!("HOP(TABLE {name}, DESCRIPTOR({time}), INTERVAL '1' DAY, INTERVAL '3' DAY)"),
            _ => format!("SESSION(TABLE {name} PARTITION BY user_id, DESCRIPTOR({time}), INTERVAL '9' HOUR)"),
        };
        let [start, end] = ["w", "w"].map(|prefix| self.name(prefix));
        let columns: Vec<&str> = rel.columns.iter().map(|(name, _)| name.as_str()).collect();
        let list = columns.join(", ");
        rel.sql = format!("SELECT user_id, {list}, window_start AS {start}, window_end AS {end} FROM TABLE({window})");
        rel.columns.extend([(start, Time), (end, Time)]);
        self.in_from(rel)
    }

    /// Two relations by a set operation.
    fn combined(&mut self, depth: u32) -> Rel {
        let (left, right) = (self.rows(depth), self.rows(depth));
        let set = self.one(&["UNION", "INTERSECT", "EXCEPT", "UNION ALL", "INTERSECT ALL", "EXCEPT ALL"]);
        let mut columns = Vec::new();
        let (mut of_left, mut of_right) = (Vec::new(), Vec::new());
        for data_type in [Int, Text].into_iter().take(self.random.random_range(1..3)) {
            let name = self.name("u");
            of_left.push(format!("{} AS {name}", self.expr(&left, data_type, 1)));
            of_right.push(format!("{} AS {name}", self.expr(&right, data_type, 1)));
            columns.push((name, data_type));
        }
        let (one, other) = (self.filter(&left), self.filter(&right));
        let sql = format!(
            "SELECT user_id, {} FROM {}{one} {set} SELECT user_id, {} FROM {}{other}",
            of_left.join(", "),
            left.sql,
            of_right.join(", "),
            right.sql
        );
        self.in_from(Rel { sql, columns })
    }

    /// The first rows of everybody.
    fn limited(&mut self, depth: u32) -> Rel {
        let from = self.rows(depth);
        let order = self.order(&from);
        let list: Vec<&str> = from.columns.iter().map(|(name, _)| name.as_str()).collect();
        let list = list.iter().fold("user_id".to_string(), |list, name| format!("{list}, {name}"));
        let (most, filter) = (self.random.random_range(1..30), self.filter(&from));
        let offset = if self.chance(20) { " OFFSET 2" } else { "" };
        let sql = format!("SELECT {list} FROM {}{filter} ORDER BY {order} LIMIT {most}{offset}", from.sql);
        self.in_from(Rel { sql, columns: from.columns })
    }

    /// The first row of each user and something else.
    fn first_of_each(&mut self, depth: u32) -> Rel {
        let from = self.rows(depth);
        let order = self.order(&from);
        let list: Vec<String> = from.columns.iter().map(|(name, _)| name.clone()).collect();
        let list = list.iter().fold("user_id".to_string(), |list, name| format!("{list}, {name}"));
        let sql = format!("SELECT DISTINCT ON (user_id) {list} FROM {} ORDER BY user_id, {order}", from.sql);
        self.in_from(Rel { sql, columns: from.columns })
    }

    /// Rows with or without a partner.
    fn partnered(&mut self, depth: u32) -> Rel {
        let (from, other) = (self.stream(), self.rows(depth));
        let (a, b) = (self.name("a"), self.name("b"));
        let (own, theirs) = (of(&a, &from), of(&b, &other));
        let mut condition = self.condition(&theirs, 1);
        if self.chance(40) {
            let (left, right) = (self.column(&own, Int), self.column(&theirs, Int));
            if let (Some(left), Some(right)) = (left, right) {
                condition = format!("{condition} AND {left} {} {right}", self.one(&["<", ">=", "<>"]));
            }
        }
        let not = self.one(&["", "NOT "]);
        let exists = match self.random.random_range(0..3) {
            0 => {
                let (left, right) = (self.column(&own, Text), self.column(&theirs, Text));
                let keys = left.zip(right).map_or(String::new(), |(left, right)| format!(" AND {left} = {right}"));
                format!(
                    "{not}EXISTS (SELECT 1 FROM {} WHERE {b}.user_id = {a}.user_id{keys} AND {condition})",
                    renamed(&other, &b)
                )
            }
            1 => format!("{not}EXISTS (SELECT 1 FROM {} WHERE {b}.user_id = {a}.user_id LIMIT 1)", renamed(&other, &b)),
            _ => format!(
                "{a}.user_id {not}IN (SELECT {b}.user_id FROM {} WHERE {b}.user_id IS NOT NULL)",
                renamed(&other, &b)
            ),
        };
        let more = self.condition(&own, 1);
        let list: Vec<String> = from.columns.iter().map(|(name, _)| format!("{a}.{name}")).collect();
        let both = self.one(&["AND", "AND", "OR"]);
        let sql = format!("SELECT {a}.user_id, {} FROM {} {a} WHERE {exists} {both} {more}", list.join(", "), from.sql);
        self.in_from(Rel { sql, columns: from.columns })
    }

    /// Events beside what is known of their users.
    fn with_tag(&mut self, depth: u32) -> Rel {
        let (from, tag) = (self.stream(), self.aggregated(depth));
        let (e, t) = (self.name("e"), self.name("t"));
        let kind = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let mut list = vec![format!("COALESCE({e}.user_id, {t}.user_id) AS user_id")];
        let mut columns = Vec::new();
        for (alias, rel) in [(&e, &from), (&t, &tag)] {
            for (name, data_type) in rel.columns.iter().take(4) {
                let out = self.name("x");
                list.push(format!("{alias}.{name} AS {out}"));
                columns.push((out, *data_type));
            }
        }
        let sql = format!(
            "SELECT {} FROM {} {e} {kind} ({}) {t} ON {e}.user_id = {t}.user_id",
            list.join(", "),
            from.sql,
            tag.sql
        );
        self.in_from(Rel { sql, columns })
    }

    /// Rows with sums over those before them.
    fn running(&mut self, depth: u32) -> Rel {
        let mut rel = self.rows(depth);
        let order = self.order(&rel);
        let name = self.name("r");
        let data_type = *[Int, Decimal].choose(&mut self.random).unwrap();
        let value = self.expr(&rel, data_type, 0);
        let frame = self.one(&["", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", " ROWS UNBOUNDED PRECEDING"]);
        let call = match self.random.random_range(0..4) {
            0 => "COUNT(*)".to_string(),
            1 => format!("MAX({value})"),
            _ => format!("SUM({value})"),
        };
        let data_type = if call == "COUNT(*)" { Int } else { data_type };
        let columns: Vec<String> = rel.columns.iter().map(|(name, _)| name.clone()).collect();
        let sql = format!(
            "SELECT user_id, {}, {call} OVER (PARTITION BY user_id ORDER BY {order}{frame}) AS {name} FROM {}",
            columns.join(", "),
            rel.sql
        );
        rel.columns.push((name, data_type));
        self.in_from(Rel { sql, ..rel })
    }

    /// A tag with a value that a sub-query looks up, of the user or of everybody.
    fn looked_up(&mut self, depth: u32) -> Rel {
        let (mut tag, other) = (self.aggregated(depth), self.stream());
        let (a, b, name) = (self.name("a"), self.name("b"), self.name("q"));
        let condition = self.condition(&of(&b, &other), 1);
        let (value, data_type) = match self.random.random_range(0..3) {
            0 => ("COUNT(*)".to_string(), Int),
            1 => (format!("MAX({b}.{})", self.column(&other, Time).unwrap()), Time),
            _ => (format!("COUNT(DISTINCT {b}.{}) > 2", self.column(&other, Text).unwrap()), Bool),
        };
        let tied = if self.chance(70) { format!(" AND {b}.user_id = {a}.user_id") } else { String::new() };
        let list: Vec<String> = tag.columns.iter().map(|(name, _)| format!("{a}.{name}")).collect();
        let sql = format!(
            "SELECT {a}.user_id, {}, (SELECT {value} FROM {} {b} WHERE ({condition}){tied}) AS {name} FROM ({}) {a}",
            list.join(", "),
            other.sql,
            tag.sql
        );
        tag.columns.push((name, data_type));
        self.in_from(Rel { sql, ..tag })
    }

    /// Rows with what a sub-query says of each: whether there is a partner, whether a value is in a list.
    fn asked(&mut self, depth: u32) -> Rel {
        let (from, other) = (self.rows(depth), self.stream());
        let (a, b, name) = (self.name("a"), self.name("b"), self.name("q"));
        let (own, theirs) = (of(&a, &from), of(&b, &other));
        let condition = self.condition(&theirs, 1);
        let not = self.one(&["", "NOT "]);
        let question = match self.random.random_range(0..4) {
            0 => {
                format!("{not}EXISTS (SELECT 1 FROM {} {b} WHERE {b}.user_id = {a}.user_id AND {condition})", other.sql)
            }
            1 => format!("{a}.user_id {not}IN (SELECT {b}.user_id FROM {} {b} WHERE {condition})", other.sql),
            2 => {
                let (left, right) = (self.expr(&own, Text, 0), self.expr(&theirs, Text, 0));
                format!(
                    "{left} {not}IN (SELECT {right} FROM {} {b} WHERE {right} IS NOT NULL AND {condition})",
                    other.sql
                )
            }
            _ => {
                let (left, right) = (self.expr(&own, Int, 0), self.expr(&theirs, Int, 0));
                format!("{left} {not}IN (SELECT {right} FROM {} {b} WHERE {condition})", other.sql)
            }
        };
        let (value, data_type) = match self.random.random_range(0..3) {
            0 => (question, Bool),
            1 => (format!("CASE WHEN {question} THEN 1 ELSE 0 END"), Int),
            _ => (format!("CASE WHEN {question} OR {} THEN 'a' ELSE 'b' END", self.condition(&own, 0)), Text),
        };
        let list = own.columns.iter().fold(format!("{a}.user_id"), |list, (column, _)| format!("{list}, {column}"));
        let sql = format!("SELECT {list}, {value} AS {name} FROM (SELECT * FROM {}) {a}", from.sql);
        let mut columns = from.columns;
        columns.push((name, data_type));
        self.in_from(Rel { sql, columns })
    }

    /// Rows of which a join has found no partner.
    fn without_partner(&mut self, depth: u32) -> Rel {
        let (from, other) = (self.rows(depth), self.rows(depth));
        let (a, b) = (self.name("a"), self.name("b"));
        let (own, theirs) = (of(&a, &from), of(&b, &other));
        let more = if self.chance(50) { format!(" AND {}", self.condition(&theirs, 1)) } else { String::new() };
        let on = format!("{a}.user_id = {b}.user_id{more}");
        let (left, right) = (renamed(&from, &a), renamed(&other, &b));
        let joined = match self.chance(70) {
            true => format!("{left} LEFT JOIN {right} ON {on}"),
            false => format!("{right} RIGHT JOIN {left} ON {on}"),
        };
        let list = own.columns.iter().fold(format!("{a}.user_id"), |list, (column, _)| format!("{list}, {column}"));
        let filter = if self.chance(50) { format!(" AND {}", self.condition(&own, 1)) } else { String::new() };
        let sql = format!("SELECT {list} FROM {joined} WHERE {b}.user_id IS NULL{filter}");
        self.in_from(Rel { sql, columns: from.columns })
    }

    /// Events grouped by a user and by what is known of the user.
    fn told(&mut self, depth: u32) -> Rel {
        let (from, tag) = (self.stream(), self.aggregated(depth));
        let (e, t) = (self.name("e"), self.name("t"));
        let kind = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
        let of_whom = if self.chance(50) { &e } else { &t };
        let mut keys = vec![format!("{of_whom}.user_id")];
        let mut list = vec![format!("{of_whom}.user_id AS user_id")];
        let mut columns = Vec::new();
        // A sum of doubles differs with the order of the rows.
        for (name, data_type) in tag.columns.iter().filter(|column| column.1 != Double).take(3) {
            let out = self.name("k");
            keys.push(format!("{t}.{name}"));
            list.push(format!("{t}.{name} AS {out}"));
            columns.push((out, *data_type));
        }
        if self.chance(30) {
            keys.reverse();
        }
        let (call, data_type) = self.aggregate(&of(&e, &from));
        let value = self.name("v");
        let sql = format!(
            "SELECT {}, {call} AS {value} FROM {} {e} {kind} ({}) {t} ON {e}.user_id = {t}.user_id GROUP BY {}",
            list.join(", "),
            from.sql,
            tag.sql,
            keys.join(", ")
        );
        columns.push((value, data_type));
        self.in_from(Rel { sql, columns })
    }

    /// Rows with constants beside them.
    fn with_constants(&mut self, depth: u32) -> Rel {
        let from = self.rows(depth);
        let (a, v) = (self.name("a"), self.name("v"));
        let [word, number] = ["w", "n"].map(|prefix| self.name(prefix));
        let own = of(&a, &from);
        let table = format!("(VALUES ('a', 1), ('book', 3), ('paid', 2), ('cart', 3)) AS {v}({word}, {number})");
        let join = match (self.random.random_range(0..4), self.column(&own, Text)) {
            (0, Some(text)) => format!("JOIN {table} ON {v}.{word} = {text}"),
            (1, Some(text)) => format!("LEFT JOIN {table} ON {v}.{word} = {text}"),
            (2, _) => format!("CROSS JOIN (SELECT 'a' AS {word}, 7 AS {number}) {v}"),
            _ => format!("CROSS JOIN {table}"),
        };
        let list = own.columns.iter().fold(format!("{a}.user_id"), |list, (column, _)| format!("{list}, {column}"));
        let sql = format!("SELECT {list}, {v}.{word}, {v}.{number} FROM {} {join}", renamed(&from, &a));
        let mut columns = from.columns;
        columns.extend([(word, Text), (number, Int)]);
        self.in_from(Rel { sql, columns })
    }
}

/// The columns of a relation under another name.
fn of(alias: &str, rel: &Rel) -> Rel {
    let columns = rel.columns.iter().map(|(name, data_type)| (format!("{alias}.{name}"), *data_type));
    Rel { sql: String::new(), columns: columns.collect() }
}

/// A relation of FROM under another name.
fn renamed(rel: &Rel, alias: &str) -> String {
    format!("(SELECT * FROM {}) {alias}", rel.sql)
}
