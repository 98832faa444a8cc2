//! One mutator for messages, files and checkpoints: what a broken disk, a hostile producer or a hasty author makes of
//! sound bytes. The same seed makes the same changes.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Bytes of numbers, dates, text and words as they are rarely written, and of things that are none.
const ODD: &[&[u8]] = &[
    b"0",
    b"-0",
    b"+5",
    b"00",
    b".5",
    b"5.",
    b"-",
    b"1e400",
    b"-1e-400",
    b"1E+2",
    b"0x10",
    b"1_000",
    b"12345678901234567",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"0.1e1",
    b"99999999999999999999999999999999999999999999",
    b"0.00000000000000000000000000000000000000000001",
    b"1e308",
    b"4e-324",
    b"NaN",
    b"-Infinity",
    b"null",
    b"NULL",
    b"true",
    b"False",
    b"\"\"",
    b"''",
    b"{}",
    b"[]",
    b"\"0\"",
    b"\" 7 \"",
    b"2026-02-30",
    b"0000-00-00",
    b"0001-01-01",
    b"9999-12-31 23:59:59.9999999999",
    b"10000-01-01",
    b"-0001-01-01",
    b"2026-01-01T24:00:00",
    b"2026-01-01T00:00:60Z",
    b"2026-03-08T02:30:00-99:99",
    b"262144-01-01T00:00:00Z",
    b"2262-04-11T23:47:16.854775808Z",
    b"253402300800000",
    b"-62135596800001",
    b"\\ud800",
    b"\\u0000",
    b"\\x",
    b"\\",
    b"\"",
    b"'",
    b"\"\"\"",
    b"/*",
    b"*/",
    b"--",
    b"${",
    b"$$",
    b"\r\n",
    b"\n",
    b"\t",
    b"\0",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"\xe4\xb8",
    "\u{130}\u{212a}ﬁß".as_bytes(),
    "١٢".as_bytes(),
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
];

/// Words of SQL and its surroundings that change what a query is.
const WORDS: &[&str] = &[
    "NULL",
    "0",
    "1",
    "-1",
    "*",
    "NOW()",
    "CURRENT_DATE",
    "INTERVAL '1' MONTH",
    "INTERVAL '-7' DAY",
    "DISTINCT",
    "ALL",
    "NOT",
    "AND",
    "OR",
    "IN",
    "EXISTS",
    "BETWEEN",
    "IS NULL",
    "UNION ALL",
    "EXCEPT",
    "INTERSECT",
    "JOIN",
    "LEFT JOIN",
    "FULL JOIN",
    "CROSS JOIN",
    "LATERAL",
    "UNNEST(",
    "ON TRUE",
    "GROUP BY",
    "HAVING",
    "ORDER BY",
    "LIMIT 0",
    "LIMIT 99999999999999999999",
    "OFFSET 1",
    "OVER ()",
    "OVER (PARTITION BY user_id ORDER BY 1)",
    "FILTER (WHERE FALSE)",
    "QUALIFY",
    "WITHIN GROUP (ORDER BY 1)",
    "ROLLUP(",
    "GROUPING SETS ((), (1))",
    "TABLE(TUMBLE(TABLE orders, DESCRIPTOR(order_time), INTERVAL '1' HOUR))",
    "CASE",
    "WHEN",
    "ELSE",
    "END",
    "CAST(",
    "::BIGINT",
    "::TIMESTAMP",
    "::DECIMAL(38,38)",
    "AS",
    "user_id",
    "orders",
    "tags.",
    "WITH",
    "SELECT",
    "FROM",
    "WHERE",
    "VALUES (1)",
    "/",
    "%",
    "||",
    "->",
    "->>",
    "=",
    "<>",
    "~",
    "^",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ".",
    "\"",
    "'",
    "`",
    "$1",
    "COUNT(*)",
    "SUM(",
    "ARRAY_AGG(",
    "ROW_NUMBER()",
    "LAG(1)",
    "1e400",
    "99999999999999999999999999999999999999999",
    "'中文'",
];

/// What a range of text may be wrapped in, again and again.
const WRAPS: &[(&str, &str)] = &[
    ("(", ")"),
    ("[", "]"),
    ("{\"a\":", "}"),
    ("NOT ", ""),
    ("-", ""),
    ("CASE WHEN TRUE THEN ", " END"),
    ("(SELECT ", ")"),
    ("SELECT * FROM (", ") AS t"),
    ("COALESCE(", ", 0)"),
    ("EXISTS (", ")"),
    ("", " + 1"),
    ("", "::BIGINT"),
    ("", " IS NULL"),
    ("1 + ", ""),
    ("", " AND TRUE"),
    ("", " UNION ALL SELECT 1"),
    ("{ a = ", " }"),
    ("", ".a"),
    ("/*", "*/"),
    ("ARRAY[", "]"),
];

/// How often something is repeated: seldom thousands of times, which is what stacks overflow by.
const TIMES: &[usize] = &[1, 2, 2, 3, 3, 10, 10, 40, 200, 5_000];

/// Lengths that nothing has.
const HUGE: &[u64] = &[u64::MAX, 1 << 63, 1 << 62, 1 << 40, 1 << 32, u32::MAX as u64, i32::MAX as u64, 1 << 24, 0];

/// Nothing is made longer than this.
const LONGEST: usize = 1 << 17;

/// Changes bytes and text by chance.
pub struct Mutator(StdRng);

impl Mutator {
    /// The mutator of a seed.
    pub fn new(seed: u64) -> Self {
        Mutator(StdRng::seed_from_u64(seed))
    }

    /// One of some.
    pub fn one_of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        some.choose(&mut self.0).expect("there is something to choose from")
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.0.random_ratio(1, times)
    }

    /// `input` with a few places behind its first byte, which says what the others are, changed. Some of `other` may get
    /// into it.
    pub fn behind_first(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let behind = |bytes: &[u8]| bytes.get(1..).unwrap_or_default().to_vec();
        let mut changed = behind(input);
        self.bytes(&mut changed, &behind(other));
        changed.splice(..0, input.first().copied());
        changed
    }

    /// Changes `bytes` in a few places; some of `other` may get into them.
    pub fn bytes(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..self.changes() {
            self.change(bytes, other);
            bytes.truncate(LONGEST);
        }
    }

    /// How many places are changed: most often one, so that much stays sound.
    fn changes(&mut self) -> u32 {
        (1..5).take_while(|change| *change == 1 || self.once_in(3)).last().unwrap_or(1)
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let random = &mut self.0;
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..12) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.random_range(0..8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.random()),
            2 => bytes.insert(at, random.random()),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(self.piece(bytes.len()))),
            5 => {
                let block = bytes[self.piece(bytes.len())].repeat(*self.one_of(TIMES));
                drop(bytes.splice(at..at, block.into_iter().take(LONGEST)));
            }
            6 => {
                let piece = other[self.piece(other.len())].to_vec();
                drop(bytes.splice(self.piece(bytes.len()), piece));
            }
            7 => {
                bytes.truncate(at);
                bytes.extend(&other[self.0.random_range(0..=other.len())..]);
            }
            8 => {
                let odd = *self.one_of(ODD);
                drop(bytes.splice(word_at(bytes, at), odd.iter().copied()));
            }
            9 => drop(bytes.splice(at..at, self.one_of(ODD).iter().copied())),
            10 => {
                let huge = self.one_of(HUGE).to_le_bytes();
                let huge = &huge[..*self.one_of(&[2, 4, 8])];
                let reversed: Vec<u8> = huge.iter().rev().copied().collect();
                let huge = if self.once_in(2) { huge } else { &reversed };
                bytes.iter_mut().skip(at).zip(huge).for_each(|(byte, huge)| *byte = *huge);
            }
            _ => {
                let range = if self.once_in(2) { word_at(bytes, at) } else { self.piece(bytes.len()) };
                let wrapped = self.wrapped(&bytes[range.clone()]);
                drop(bytes.splice(range, wrapped));
            }
        }
    }

    /// `input` with some of its words changed in a few places, as an author would get them wrong, and its letters now and
    /// then. Some of `other` may get into it.
    pub fn words(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let (text, other) = (String::from_utf8_lossy(input), String::from_utf8_lossy(other));
        let mut tokens: Vec<Vec<u8>> = tokens(&text).map(|token| token.as_bytes().to_vec()).collect();
        let others: Vec<&str> = tokens_of_words(&other).collect();
        for _ in 0..self.changes() {
            self.change_tokens(&mut tokens, &others);
        }
        let mut changed = tokens.concat();
        if self.once_in(5) {
            self.bytes(&mut changed, other.as_bytes());
        }
        changed.truncate(LONGEST);
        changed
    }

    fn change_tokens(&mut self, tokens: &mut Vec<Vec<u8>>, others: &[&str]) {
        let random = &mut self.0;
        let at = random.random_range(0..=tokens.len());
        match random.random_range(0..9) {
            0 => drop(tokens.drain(at..(at + 1).min(tokens.len()))),
            1 => drop(tokens.drain(self.piece(tokens.len()))),
            2 => {
                let block = tokens[self.piece(tokens.len())].to_vec();
                drop(tokens.splice(at..at, block));
            }
            3 if !tokens.is_empty() => {
                let (one, two) = (random.random_range(0..tokens.len()), random.random_range(0..tokens.len()));
                tokens.swap(one, two);
            }
            4 if !others.is_empty() => {
                let piece: Vec<Vec<u8>> = others[self.piece(others.len())].iter().map(|word| spaced(word)).collect();
                drop(tokens.splice(self.piece(tokens.len()), piece));
            }
            5 => drop(tokens.splice(at..(at + 1).min(tokens.len()), [spaced(self.one_of::<&str>(WORDS))])),
            6 => tokens.insert(at, spaced(self.one_of::<&str>(WORDS))),
            7 => drop(tokens.splice(at..(at + 1).min(tokens.len()), [self.one_of(ODD).to_vec()])),
            _ => {
                let range = self.piece(tokens.len());
                let wrapped = self.wrapped(&tokens[range.clone()].concat());
                drop(tokens.splice(range, [wrapped]));
            }
        }
    }

    /// A range of something that long; most are short.
    fn piece(&mut self, length: usize) -> Range<usize> {
        let start = self.0.random_range(0..=length);
        let most = if self.once_in(4) { length } else { length.min(start + 16) };
        start..self.0.random_range(start..=most.max(start))
    }

    fn wrapped(&mut self, inner: &[u8]) -> Vec<u8> {
        let ((before, after), times) = (*self.one_of(WRAPS), *self.one_of(TIMES));
        [before.repeat(times).as_bytes(), inner, after.repeat(times).as_bytes()].concat()
    }
}

/// The number or word that a place lies in.
fn word_at(bytes: &[u8], at: usize) -> Range<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
    let start = bytes[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
    let end = bytes[at..].iter().position(|byte| !is_word(byte)).map_or(bytes.len(), |after| at + after);
    start..end
}

/// Words, quoted text, white space, and every other sign by itself.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = match first {
            '\'' | '"' => rest[1..].find(first).map(|end| end + 2),
            c if is_word(c) => rest.find(|c| !is_word(c)),
            c if c.is_whitespace() => rest.find(|c: char| !c.is_whitespace()),
            c => Some(c.len_utf8()),
        };
        let (token, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(token)
    })
}

fn tokens_of_words(text: &str) -> impl Iterator<Item = &str> {
    tokens(text).filter(|token| !token.trim().is_empty())
}

fn spaced(word: &str) -> Vec<u8> {
    format!(" {word} ").into_bytes()
}
