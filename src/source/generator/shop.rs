//! The events of the shop: each a pure function of seed, epoch, stream and offset.

use std::io::Write;

use chrono::{DateTime, Datelike};

use super::words;
use crate::config::GeneratorConfig;

/// One of the shop's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShopStream {
    /// `order_id, user_id, amount, status, category, city, channel, note, order_time` (epoch milliseconds).
    /// Guests have no user; refunds have a negative amount and an id of their own; 1 in 100 was sent twice.
    Orders,
    /// `view_id, user_id, page, category, device, duration_ms, referrer, view_time` (ISO 8601, UTC).
    PageViews,
    /// `user_id, name, gender, birthday, city, level, channel, registered_at` (ISO 8601, UTC).
    Users,
}

impl ShopStream {
    /// All of them.
    pub const ALL: [ShopStream; 3] = [ShopStream::Orders, ShopStream::PageViews, ShopStream::Users];

    /// The last part of its topic.
    pub fn name(self) -> &'static str {
        match self {
            ShopStream::Orders => "orders",
            ShopStream::PageViews => "page_views",
            ShopStream::Users => "users",
        }
    }

    /// The stream of that name.
    pub fn named(name: &str) -> Option<Self> {
        ShopStream::ALL.into_iter().find(|stream| stream.name() == name)
    }

    /// Its part of the live events, in percent.
    fn live_percent(self) -> u64 {
        match self {
            ShopStream::Orders => 30,
            ShopStream::PageViews => 69,
            ShopStream::Users => 1,
        }
    }
}

/// The shop of one seed and epoch.
#[derive(Debug, Clone)]
pub struct Shop {
    config: GeneratorConfig,
    epoch_ms: i64,
}

const DAY_MS: i64 = 86_400_000;
/// Ids begin here, so that they do not look like counts.
const FIRST_ORDER: i64 = 1_000_000;
const FIRST_VIEW: i64 = 5_000_000;
const FIRST_USER: u64 = 10_001;
/// One order in so many is no JSON or has no readable amount, for the dead letters.
const ONE_BROKEN_IN: u64 = 100_000;

/// An order before it is refunded or sent again.
struct Order {
    id: i64,
    user: Option<u64>,
    cents: i64,
    status: &'static str,
    category: &'static str,
    city: &'static str,
    channel: &'static str,
    at: i64,
}

impl Shop {
    /// A shop whose history ends and whose live events begin at `epoch_ms` (milliseconds since the Unix epoch).
    pub fn new(config: &GeneratorConfig, epoch_ms: i64) -> Self {
        Shop { config: config.clone(), epoch_ms }
    }

    /// Records of history: every registered user once; of the other events, one order to three page views.
    pub fn history_len(&self, stream: ShopStream) -> i64 {
        let GeneratorConfig { users, history_events, .. } = self.config;
        // A shop of more users than events still sells something.
        let others = history_events.saturating_sub(users).max(history_events / 2);
        let len = match stream {
            ShopStream::Users => users,
            ShopStream::Orders => others / 4,
            ShopStream::PageViews => others - others / 4,
        };
        len as i64
    }

    /// When a record arrives: milliseconds since the Unix epoch, never less than its predecessor's.
    pub fn arrival_ms(&self, stream: ShopStream, offset: i64) -> i64 {
        let history = self.history_len(stream);
        if offset < history {
            let span = i128::from(self.config.history_days) * i128::from(DAY_MS);
            let left = span * i128::from(history - offset) / i128::from(history);
            return self.epoch_ms - left as i64;
        }
        let per_hundred_seconds = self.per_hundred_seconds(stream).max(1);
        self.epoch_ms + (i128::from(offset - history) * 100_000 / per_hundred_seconds) as i64
    }

    /// How many records have arrived by `now_ms`; the history always has.
    pub fn available(&self, stream: ShopStream, now_ms: i64) -> i64 {
        let history = self.history_len(stream);
        if self.config.rate == 0 || now_ms < self.epoch_ms {
            return history;
        }
        history + 1 + (i128::from(now_ms - self.epoch_ms) * self.per_hundred_seconds(stream) / 100_000) as i64
    }

    fn per_hundred_seconds(&self, stream: ShopStream) -> i128 {
        i128::from(self.config.rate) * i128::from(stream.live_percent())
    }

    /// The first record that arrives at `at_ms` or later.
    pub fn first_at(&self, stream: ShopStream, at_ms: i64) -> i64 {
        let (mut low, mut high) = (0, self.available(stream, at_ms).max(self.history_len(stream)) + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.arrival_ms(stream, middle) < at_ms { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// A record's bytes.
    pub fn generate(&self, stream: ShopStream, offset: i64) -> Vec<u8> {
        let mut record = Vec::with_capacity(256);
        self.write(stream, offset, &mut record);
        record
    }

    /// All records of a stream with their offsets, for ever.
    pub fn records(&self, stream: ShopStream) -> impl Iterator<Item = (i64, Vec<u8>)> {
        (0..).map(move |offset| (offset, self.generate(stream, offset)))
    }

    /// Appends a record's bytes to `out`.
    pub fn write(&self, stream: ShopStream, offset: i64, out: &mut Vec<u8>) {
        let written = match stream {
            ShopStream::Orders => self.write_order(offset, out),
            ShopStream::PageViews => self.write_page_view(offset, out),
            ShopStream::Users => self.write_user(offset, out),
        };
        written.expect("writing to memory cannot fail");
    }

    fn write_order(&self, offset: i64, out: &mut Vec<u8>) -> std::io::Result<()> {
        let offset = self.first_sent(offset);
        let mut dice = self.dice(ShopStream::Orders, offset);
        let broken = dice.roll(ONE_BROKEN_IN) == 77;
        let Order { id, user, cents, status, category, city, channel, at } = self.order(offset);
        if broken && offset % 2 == 0 {
            return write!(out, r#"{{"order_id":{id},"user_id":"#);
        }
        write!(out, r#"{{"order_id":{id},"user_id":"#)?;
        write_optional(out, user)?;
        let (sign, whole, part) = (if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100);
        match (broken, dice.roll(10)) {
            (true, _) => out.write_all(br#","amount":"N/A""#)?,
            // Some producers quote decimals to keep them exact.
            (_, 0) => write!(out, r#","amount":"{sign}{whole}.{part:02}""#)?,
            _ => write!(out, r#","amount":{sign}{whole}.{part:02}"#)?,
        }
        write!(out, r#","status":"{status}","category":"{category}","city":"{city}","channel":"{channel}""#)?;
        if dice.roll(20) == 0 {
            let note = dice.pick(&words::NOTES).replace('"', "\\\"");
            write!(out, r#","note":"{note}""#)?;
        }
        write!(out, r#","order_time":{at}}}"#)
    }

    /// The record that this one repeats, or itself.
    fn first_sent(&self, mut offset: i64) -> i64 {
        loop {
            let mut dice = self.dice(ShopStream::Orders, offset).apart(1);
            if offset == 0 || dice.roll(100) != 0 {
                return offset;
            }
            offset -= 1 + dice.roll(20.min(offset as u64)) as i64;
        }
    }

    fn order(&self, offset: i64) -> Order {
        let mut dice = self.dice(ShopStream::Orders, offset).apart(2);
        let id = FIRST_ORDER + offset;
        let at = self.event_ms(ShopStream::Orders, offset);
        if self.may_be_refund(offset) {
            let earlier = offset - 1 - dice.roll(5_000.min(offset as u64)) as i64;
            // Only what was sold, and sent under its own number, can come back.
            if !self.may_be_refund(earlier) && self.first_sent(earlier) == earlier {
                let refunded = self.sale(earlier);
                return Order { id, at, cents: -refunded.cents, status: "refunded", ..refunded };
            }
        }
        Order { id, at, ..self.sale(offset) }
    }

    fn may_be_refund(&self, offset: i64) -> bool {
        offset > 0 && self.dice(ShopStream::Orders, offset).apart(5).roll(25) == 0
    }

    fn sale(&self, offset: i64) -> Order {
        let mut dice = self.dice(ShopStream::Orders, offset).apart(3);
        let user = if dice.roll(33) == 0 { None } else { Some(self.some_user(&mut dice, offset)) };
        let category = dice.skewed(words::CATEGORIES.len());
        // Half to one and a half times the usual price.
        let cents = words::PRICES[category] * (500 + dice.roll(1_001)) / 1_000;
        // A person mostly shops from home.
        let home = user.filter(|_| dice.roll(10) > 0).map(|user| self.home(user));
        Order {
            id: FIRST_ORDER + offset,
            user,
            cents: cents as i64,
            status: "paid",
            category: words::CATEGORIES[category],
            city: home.unwrap_or_else(|| words::CITIES[dice.skewed(words::CITIES.len())]),
            channel: words::CHANNELS[dice.skewed(words::CHANNELS.len())],
            at: self.event_ms(ShopStream::Orders, offset),
        }
    }

    fn write_page_view(&self, offset: i64, out: &mut Vec<u8>) -> std::io::Result<()> {
        let mut dice = self.dice(ShopStream::PageViews, offset);
        let user = if dice.roll(4) == 0 { None } else { Some(self.some_user(&mut dice, offset)) };
        let page = words::PAGES[dice.skewed(words::PAGES.len())];
        write!(out, r#"{{"view_id":{},"user_id":"#, FIRST_VIEW + offset)?;
        write_optional(out, user)?;
        write!(out, r#","page":"{page}","category":"#)?;
        match page {
            "product" | "category" => write!(out, r#""{}""#, words::CATEGORIES[dice.skewed(words::CATEGORIES.len())])?,
            _ => out.write_all(b"null")?,
        }
        let device = words::DEVICES[dice.skewed(words::DEVICES.len())];
        let duration = 200 + dice.roll(300) * dice.roll(600);
        let referrer = dice.pick(&words::REFERRERS);
        write!(out, r#","device":"{device}","duration_ms":{duration},"referrer":"{referrer}","view_time":"#)?;
        write_instant(out, self.event_ms(ShopStream::PageViews, offset))?;
        out.write_all(b"}")
    }

    fn write_user(&self, offset: i64, out: &mut Vec<u8>) -> std::io::Result<()> {
        let mut dice = self.dice(ShopStream::Users, offset);
        let user = FIRST_USER + offset as u64;
        let (surname, given) = (dice.pick(&words::SURNAMES), dice.pick(&words::GIVEN_NAMES));
        let sparkle = if dice.roll(50) == 0 { "✨" } else { "" };
        write!(out, r#"{{"user_id":{user},"name":"{surname}{given}{sparkle}","gender":"#)?;
        out.write_all(match dice.roll(20) {
            0 => b"null".as_slice(),
            roll if roll % 2 == 0 => br#""male""#,
            _ => br#""female""#,
        })?;
        // 16 to 75 years old.
        let born = self.epoch_ms - (16 * 365 + (dice.roll(243) * dice.roll(90)) as i64) * DAY_MS;
        let born = DateTime::from_timestamp_millis(born).unwrap_or_default();
        write!(
            out,
            r#","birthday":"{:04}-{:02}-{:02}","city":"{}""#,
            born.year(),
            born.month(),
            born.day(),
            self.home(user)
        )?;
        let level = words::LEVELS[dice.skewed(words::LEVELS.len())];
        let channel = words::CHANNELS[dice.skewed(words::CHANNELS.len())];
        write!(out, r#","level":"{level}","channel":"{channel}","registered_at":"#)?;
        let arrival = self.event_ms(ShopStream::Users, offset);
        // Most of those of the history had registered in the three years before it.
        let is_old = offset < self.history_len(ShopStream::Users) && dice.roll(10) < 8;
        let before = if is_old { (dice.roll(3 * 365) as i64 + 1) * DAY_MS } else { 0 };
        write_instant(out, arrival - before)?;
        out.write_all(b"}")
    }

    /// When the event happened: mostly within a second of its arrival, one in fifty up to two minutes earlier.
    fn event_ms(&self, stream: ShopStream, offset: i64) -> i64 {
        let mut dice = self.dice(stream, offset).apart(4);
        let late = if dice.roll(50) == 0 { dice.roll(120_000) } else { dice.roll(1_000) };
        self.arrival_ms(stream, offset) - late as i64
    }

    /// A buyer or visitor: few come often, many now and then; some have just registered.
    fn some_user(&self, dice: &mut Dice, offset: i64) -> u64 {
        let users = self.config.users.max(1);
        let live = offset - self.history_len(ShopStream::Orders).max(self.history_len(ShopStream::PageViews));
        if live > 0 && dice.roll(33) == 0 {
            // At most as many as have registered by then: less than one registration to 69 page views.
            let newcomers = (live as u64 / 70).min(1_000);
            if newcomers > 0 {
                let newest = live as u64 / 70;
                return FIRST_USER + users + newest - 1 - dice.roll(newcomers);
            }
        }
        let unit = dice.roll(1 << 32) as f64 / (1u64 << 32) as f64;
        let rank = ((unit * unit * unit) * users as f64) as u64 % users;
        // Neighbours in rank are no neighbours in id.
        FIRST_USER + if users.is_multiple_of(7_919) { rank } else { (rank * 7_919 + 13) % users }
    }

    fn home(&self, user: u64) -> &'static str {
        let mut dice = Dice(mix(self.config.seed ^ 0x0C17, user));
        words::CITIES[dice.skewed(words::CITIES.len())]
    }

    fn dice(&self, stream: ShopStream, offset: i64) -> Dice {
        Dice(mix(mix(self.config.seed, stream as u64 + 1), offset as u64))
    }
}

fn write_optional(out: &mut Vec<u8>, value: Option<u64>) -> std::io::Result<()> {
    match value {
        Some(value) => write!(out, "{value}"),
        None => out.write_all(b"null"),
    }
}

fn write_instant(out: &mut Vec<u8>, millis: i64) -> std::io::Result<()> {
    let instant = DateTime::from_timestamp_millis(millis).unwrap_or_default();
    write!(out, "\"{}\"", instant.format("%Y-%m-%dT%H:%M:%S%.3fZ"))
}

/// Repeatable dice; our own, since a library's may fall otherwise in its next version.
struct Dice(u64);

impl Dice {
    /// Dice for another question about the same record.
    fn apart(self, question: u64) -> Dice {
        Dice(mix(self.0, question))
    }

    /// Evenly one of `0..sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        ((u128::from(scatter(self.0)) * u128::from(sides)) >> 64) as u64
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.roll(words.len() as u64) as usize]
    }

    /// One of `0..count`, the first ones far more often.
    fn skewed(&mut self, count: usize) -> usize {
        let (first, second) = (self.roll(count as u64), self.roll(count as u64));
        first.min(second).min(self.roll(count as u64 + 2)) as usize
    }
}

fn mix(seed: u64, value: u64) -> u64 {
    scatter(seed ^ scatter(value.wrapping_add(0x9E37_79B9_7F4A_7C15)))
}

/// The last step of SplitMix64.
fn scatter(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
