//! The tags of a run, each as SQL and once more as plain Rust over the events: the rows that its table must have when
//! it says that it has taken so many records, at such a clock and watermark.

use std::collections::{BTreeMap, BTreeSet};

use crate::events::{LATENESS_MS, Order, Refund, decimal};

/// Rows by the text of their key.
pub type Rows = BTreeMap<String, String>;

/// What a table says of itself, beside the offsets.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// The engine's clock in nanoseconds.
    pub clock: i64,
    /// The watermark of orders in nanoseconds, where there is one yet.
    pub watermark: Option<i64>,
    /// The query of the version that the table shows.
    pub sql: String,
}

/// The plain Rust of one tag. Events are given in the order of their offsets in each partition.
pub trait Expected {
    fn order(&mut self, partition: i32, order: &Order);
    fn refund(&mut self, _refund: &Refund) {}
    /// The rows that the table must have; the clock never goes back from one call to the next.
    fn rows(&mut self, moment: &Moment) -> Rows;
    /// Of a tag that joins the file of factors: the rows with another version of the file.
    fn rows_with(&self, _factors: &BTreeMap<String, i64>) -> Option<Rows> {
        None
    }
}

/// One tag of a run.
pub struct Tag {
    pub name: &'static str,
    pub sql: String,
    /// Its key and its values as the reader asks for them.
    pub key: &'static str,
    pub values: &'static str,
    pub expected: Box<dyn Expected>,
}

/// The threshold that this version of the tag `over` counts from, and its query.
pub fn over_sql(threshold: i64) -> String {
    format!("SELECT user_id, COUNT(*) AS orders FROM orders WHERE amount >= {threshold} GROUP BY user_id\n")
}

pub const THRESHOLDS: [i64; 4] = [0, 100, 250, 400];
pub const EXTRA_SQL: &str = "SELECT user_id, MAX(amount) AS most FROM orders GROUP BY user_id\n";

pub fn tags() -> Vec<Tag> {
    let tag = |name, key, values, sql: &str, expected| Tag { name, sql: format!("{sql}\n"), key, values, expected };
    vec![
        tag(
            "spend",
            "user_id",
            "total, orders",
            "SELECT user_id, SUM(amount) AS total, COUNT(*) AS orders FROM orders GROUP BY user_id",
            Box::<Spend>::default(),
        ),
        tag(
            "books",
            "user_id",
            "total",
            "SELECT user_id, SUM(amount) AS total FROM orders WHERE category = 'books' GROUP BY user_id",
            Box::<Books>::default(),
        ),
        tag(
            "in_credit",
            "user_id",
            "points",
            "SELECT user_id, SUM(points) AS points FROM orders GROUP BY user_id HAVING SUM(points) > 0",
            Box::<InCredit>::default(),
        ),
        tag(
            "refunded",
            "user_id",
            "refunds, amount",
            "SELECT o.user_id, COUNT(*) AS refunds, SUM(r.amount) AS amount FROM orders o \
             JOIN refunds r ON r.order_id = o.order_id GROUP BY o.user_id",
            Box::<Refunded>::default(),
        ),
        tag(
            "latest",
            "user_id",
            "order_id, amount",
            "SELECT user_id, order_id, amount FROM (SELECT user_id, order_id, amount, ROW_NUMBER() OVER \
             (PARTITION BY user_id ORDER BY order_time DESC, order_id DESC) AS place FROM orders) WHERE place = 1",
            Box::<Latest>::default(),
        ),
        tag(
            "recent",
            "user_id",
            "orders, total",
            "SELECT user_id, COUNT(*) AS orders, SUM(amount) AS total FROM orders \
             WHERE order_time >= NOW() - INTERVAL '10' SECOND GROUP BY user_id",
            Box::<Recent>::default(),
        ),
        tag(
            "closed",
            "user_id, CAST(UNIX_TIMESTAMP(window_start) AS SIGNED)",
            "orders, total",
            "/* tag\nemit = \"on_close\"\n*/\n\
             SELECT user_id, window_start, COUNT(*) AS orders, SUM(amount) AS total \
             FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '5' SECOND)) \
             WHERE window_end >= NOW() - INTERVAL '60' SECOND GROUP BY user_id, window_start",
            Box::<Closed>::default(),
        ),
        tag(
            "level",
            "user_id",
            "level",
            "SELECT user_id, CASE WHEN total >= 10000 THEN 'gold' WHEN total >= 2000 THEN 'silver' ELSE 'none' END AS level \
             FROM tags.spend",
            Box::<Level>::default(),
        ),
        tag(
            "worth",
            "user_id",
            "worth",
            "SELECT o.user_id, SUM(o.points * f.factor) AS worth FROM orders o \
             JOIN factors f ON f.category = o.category GROUP BY o.user_id",
            Box::<Worth>::default(),
        ),
        Tag {
            name: "over",
            sql: over_sql(THRESHOLDS[0]),
            key: "user_id",
            values: "orders",
            expected: Box::<Over>::default(),
        },
        Tag {
            name: "extra",
            sql: EXTRA_SQL.to_string(),
            key: "user_id",
            values: "most",
            expected: Box::<Extra>::default(),
        },
    ]
}

fn per_user<V>(values: &BTreeMap<i64, V>, row: impl Fn(&V) -> String) -> Rows {
    values.iter().map(|(user, value)| (user.to_string(), row(value))).collect()
}

fn count_and_sum((count, cents): &(i64, i64)) -> String {
    format!("{count}|{}", decimal(*cents))
}

#[derive(Default)]
struct Spend(BTreeMap<i64, (i64, i64)>);

impl Expected for Spend {
    fn order(&mut self, _: i32, order: &Order) {
        let (count, cents) = self.0.entry(order.user_id).or_default();
        *count += 1;
        *cents += order.amount;
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        per_user(&self.0, |(count, cents)| format!("{}|{count}", decimal(*cents)))
    }
}

#[derive(Default)]
struct Books(BTreeMap<i64, i64>);

impl Expected for Books {
    fn order(&mut self, _: i32, order: &Order) {
        if order.category == "books" {
            *self.0.entry(order.user_id).or_default() += order.amount;
        }
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        per_user(&self.0, |cents| decimal(*cents))
    }
}

#[derive(Default)]
struct InCredit(BTreeMap<i64, i64>);

impl Expected for InCredit {
    fn order(&mut self, _: i32, order: &Order) {
        *self.0.entry(order.user_id).or_default() += order.points;
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        let points = self.0.iter().filter(|(_, points)| **points > 0);
        points.map(|(user, points)| (user.to_string(), points.to_string())).collect()
    }
}

#[derive(Default)]
struct Refunded {
    /// Of each order its user, and how many times it came.
    orders: BTreeMap<i64, (i64, i64)>,
    /// Of orders that have not come yet too.
    refunds: BTreeMap<i64, (i64, i64)>,
}

impl Expected for Refunded {
    fn order(&mut self, _: i32, order: &Order) {
        self.orders.entry(order.order_id).or_insert((order.user_id, 0)).1 += 1;
    }

    fn refund(&mut self, refund: &Refund) {
        let (count, cents) = self.refunds.entry(refund.order_id).or_default();
        *count += 1;
        *cents += refund.amount;
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        let mut users: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (order, (count, cents)) in &self.refunds {
            if let Some((user, times)) = self.orders.get(order) {
                let row = users.entry(*user).or_default();
                *row = (row.0 + count * times, row.1 + cents * times);
            }
        }
        per_user(&users, count_and_sum)
    }
}

#[derive(Default)]
struct Latest(BTreeMap<i64, (i64, i64, i64)>);

impl Expected for Latest {
    fn order(&mut self, _: i32, order: &Order) {
        let this = (order.order_time, order.order_id, order.amount);
        let known = self.0.entry(order.user_id).or_insert(this);
        *known = this.max(*known);
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        per_user(&self.0, |(_, order, cents)| format!("{order}|{}", decimal(*cents)))
    }
}

#[derive(Default)]
struct Recent(Vec<Order>);

impl Expected for Recent {
    fn order(&mut self, _: i32, order: &Order) {
        self.0.push(order.clone());
    }

    fn rows(&mut self, moment: &Moment) -> Rows {
        self.0.retain(|order| order.order_time * 1_000_000 >= moment.clock - 10_000_000_000);
        let mut users: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for order in &self.0 {
            let row = users.entry(order.user_id).or_default();
            *row = (row.0 + 1, row.1 + order.amount);
        }
        per_user(&users, count_and_sum)
    }
}

#[derive(Default)]
struct Closed {
    newest: BTreeMap<i32, i64>,
    /// By the start of the window in milliseconds, then the user.
    windows: BTreeMap<i64, BTreeMap<i64, (i64, i64)>>,
}

const WINDOW_MS: i64 = 5_000;

impl Expected for Closed {
    fn order(&mut self, partition: i32, order: &Order) {
        let newest = self.newest.entry(partition).or_insert(order.order_time);
        if order.order_time < *newest - LATENESS_MS {
            return;
        }
        *newest = order.order_time.max(*newest);
        let start = order.order_time - order.order_time.rem_euclid(WINDOW_MS);
        let row = self.windows.entry(start).or_default().entry(order.user_id).or_default();
        *row = (row.0 + 1, row.1 + order.amount);
    }

    fn rows(&mut self, moment: &Moment) -> Rows {
        let end = |start: &i64| (start + WINDOW_MS) * 1_000_000;
        self.windows.retain(|start, _| end(start) >= moment.clock - 60_000_000_000);
        let closed = self.windows.iter().filter(|(start, _)| moment.watermark.is_some_and(|mark| end(start) <= mark));
        let rows = closed.flat_map(|(start, users)| {
            users.iter().map(move |(user, row)| (format!("{user}|{}", start / 1000), count_and_sum(row)))
        });
        rows.collect()
    }
}

#[derive(Default)]
struct Level(BTreeMap<i64, i64>);

impl Expected for Level {
    fn order(&mut self, _: i32, order: &Order) {
        *self.0.entry(order.user_id).or_default() += order.amount;
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        per_user(&self.0, |cents| {
            match cents {
                1_000_000.. => "gold",
                200_000.. => "silver",
                _ => "none",
            }
            .to_string()
        })
    }
}

#[derive(Default)]
struct Worth(BTreeMap<(i64, String), i64>);

impl Expected for Worth {
    fn order(&mut self, _: i32, order: &Order) {
        *self.0.entry((order.user_id, order.category.clone())).or_default() += order.points;
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        Rows::new()
    }

    fn rows_with(&self, factors: &BTreeMap<String, i64>) -> Option<Rows> {
        let mut users: BTreeMap<i64, i64> = BTreeMap::new();
        for ((user, category), points) in &self.0 {
            if let Some(factor) = factors.get(category) {
                *users.entry(*user).or_default() += points * factor;
            }
        }
        Some(per_user(&users, i64::to_string))
    }
}

/// By user, the amounts of all orders.
#[derive(Default)]
struct Over(BTreeMap<i64, Vec<i64>>);

impl Expected for Over {
    fn order(&mut self, _: i32, order: &Order) {
        self.0.entry(order.user_id).or_default().push(order.amount);
    }

    fn rows(&mut self, moment: &Moment) -> Rows {
        let said = moment.sql.split(' ').find_map(|word| word.parse::<i64>().ok());
        let threshold = said.filter(|threshold| over_sql(*threshold).trim() == moment.sql.trim());
        let threshold = threshold.unwrap_or_else(|| panic!("the registry shows a query of nobody: {}", moment.sql));
        let count = |amounts: &Vec<i64>| amounts.iter().filter(|amount| **amount >= threshold * 100).count() as i64;
        let users = self.0.iter().map(|(user, amounts)| (*user, count(amounts))).filter(|(_, orders)| *orders > 0);
        per_user(&users.collect(), i64::to_string)
    }
}

#[derive(Default)]
struct Extra(BTreeMap<i64, i64>);

impl Expected for Extra {
    fn order(&mut self, _: i32, order: &Order) {
        let most = self.0.entry(order.user_id).or_default();
        *most = order.amount.max(*most);
    }

    fn rows(&mut self, _: &Moment) -> Rows {
        per_user(&self.0, |cents| decimal(*cents))
    }
}

/// The names of all tags.
pub fn names() -> BTreeSet<&'static str> {
    tags().iter().map(|tag| tag.name).collect()
}
