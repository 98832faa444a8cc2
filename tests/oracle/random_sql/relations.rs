//! Relations of more kinds: windows in FROM, set operations, limits, semi and anti joins, streams with tags, running sums.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Bool, Decimal, Generator, Int, Rel, Text, Time};

impl Generator {
    /// One of the kinds here.
    pub(super) fn another(&mut self, depth: u32) -> Rel {
        match self.random.random_range(0..8) {
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
