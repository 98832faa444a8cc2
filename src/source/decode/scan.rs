//! A strict JSON scanner over one record: finds where tokens start and end, and builds nothing.
//!
//! Our own rather than serde_json's, because numbers must stay the text they were (12.30 is exactly 12.30) and a
//! value kept as JSON text must be a slice of the record; serde_json gives either only by features that change it for
//! every crate of the build. A test holds that both accept the same texts.
//! The record must be valid UTF-8: strings are not checked again.

/// Deepest nesting of objects and arrays.
pub(super) const MAX_DEPTH: usize = 128;

/// What a token is; spans are bytes of the record unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The field is not in the record.
    Missing,
    Null,
    True,
    False,
    Number,
    /// A string without escapes; the span is between the quotes.
    Text,
    /// A string with escapes; the span is between the quotes.
    EscapedText,
    /// An object or array with its brackets.
    Composite,
    /// The path leads through this value, which is no object.
    NotAnObject,
    /// Text that was made from the record; the span is in the decoder's scratch.
    Scratch,
}

/// A token and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
}

impl Token {
    pub(super) const MISSING: Token = Token { kind: Kind::Missing, start: 0, end: 0 };

    fn new(kind: Kind, start: usize, end: usize) -> Self {
        Token { kind, start: start as u32, end: end as u32 }
    }

    /// The bytes of the record that the token spans.
    pub(super) fn span(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Why a record is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    /// What was expected or is wrong.
    pub what: &'static str,
    /// The byte of the record.
    pub at: usize,
}

/// A position in a record.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the start of a record; the caller has seen that it is UTF-8 and shorter than 4 GiB.
    pub(super) fn new(record: &'a str) -> Self {
        Scanner { bytes: record.as_bytes(), at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn malformed<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { what, at: self.at })
    }

    /// The next byte that is not white space, which is not consumed; `None` at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Consumes the byte that `peek` has shown.
    #[inline]
    pub(super) fn bump(&mut self) {
        self.at += 1;
    }

    /// White space and then this byte.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.malformed(what)
    }

    /// One value of any kind. `depth` counts the brackets around it.
    #[inline]
    pub(super) fn value(&mut self, depth: usize) -> Result<Token, Malformed> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{' | b'[') => {
                let start = self.at;
                self.composite(depth)?;
                Ok(Token::new(Kind::Composite, start, self.at))
            }
            Some(b'n') => self.literal(b"null", Kind::Null),
            Some(b't') => self.literal(b"true", Kind::True),
            Some(b'f') => self.literal(b"false", Kind::False),
            _ => self.malformed("expected a value"),
        }
    }

    /// A string; the scanner stands on its opening quote.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Token, Malformed> {
        self.at += 1;
        let start = self.at;
        let mut kind = Kind::Text;
        loop {
            self.skip_plain();
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Token::new(kind, start, self.at - 1));
                }
                Some(b'\\') => {
                    kind = Kind::EscapedText;
                    self.escape()?;
                }
                Some(_) => return self.malformed("control character in a string"),
                None => return self.malformed("string without an end"),
            }
        }
    }

    /// Moves to the next quote, backslash or control character, eight bytes at a time.
    #[inline]
    fn skip_plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk);
            // A byte's high bit is set where it matches; borrows make false marks only above a true one.
            let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
            let quotes = zero_bytes(word ^ (ONES * b'"' as u64));
            let backslashes = zero_bytes(word ^ (ONES * b'\\' as u64));
            let controls = word.wrapping_sub(ONES * 0x20) & !word;
            let found = (quotes | backslashes | controls) & HIGHS;
            if found != 0 {
                self.at += (found.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                return;
            }
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.bytes.get(self.at + 2..self.at + 6) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => self.at += 6,
                _ => return self.malformed("\\u needs four hexadecimal digits"),
            },
            _ => return self.malformed("unknown escape in a string"),
        }
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Result<Token, Malformed> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => {
                self.at += 1;
                if matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
                    return self.malformed("a number must not start with 0");
                }
            }
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.malformed("expected a digit"),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(Token::new(Kind::Number, start, self.at))
    }

    #[inline]
    fn digits(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.digits();
        if self.at == start { self.malformed("expected a digit") } else { Ok(()) }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Result<Token, Malformed> {
        let end = self.at + word.len();
        if self.bytes.get(self.at..end) != Some(word) {
            return self.malformed("expected a value");
        }
        let token = Token::new(kind, self.at, end);
        self.at = end;
        Ok(token)
    }

    fn composite(&mut self, depth: usize) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return self.malformed("nested too deeply");
        }
        let is_object = self.bytes[self.at] == b'{';
        let close = if is_object { b'}' } else { b']' };
        self.at += 1;
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            if is_object {
                self.key()?;
            }
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.malformed("expected `,` or the closing bracket"),
            }
        }
    }

    /// A key and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Token, Malformed> {
        if self.peek() != Some(b'"') {
            return self.malformed("expected a key in quotes");
        }
        let key = self.string()?;
        self.expect(b':', "expected `:`")?;
        Ok(key)
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.malformed("bytes after the end of the object"),
        }
    }
}

/// Appends a string's value to `out`. `inner` is what the scanner found between the quotes.
pub(super) fn unescape(inner: &str, out: &mut String) -> Result<(), &'static str> {
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match escape {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let first = hex(rest);
                rest = &rest[4..];
                let code = match first {
                    0xD800..0xDC00 if rest.starts_with("\\u") => {
                        let second = hex(&rest[2..]);
                        if !(0xDC00..0xE000).contains(&second) {
                            return Err("half a surrogate pair in a string");
                        }
                        rest = &rest[6..];
                        0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                    }
                    other => other,
                };
                out.push(char::from_u32(code).ok_or("half a surrogate pair in a string")?);
            }
            other => out.push(other as char),
        }
    }
    out.push_str(rest);
    Ok(())
}

/// Four hexadecimal digits that the scanner has seen.
fn hex(text: &str) -> u32 {
    u32::from_str_radix(&text[..4], 16).unwrap_or(0xD800)
}

/// Appends JSON text without the white space between its tokens.
pub(super) fn compact(json: &str, out: &mut String) {
    let bytes = json.as_bytes();
    let mut plain_from = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b' ' | b'\n' | b'\t' | b'\r' => {
                out.push_str(&json[plain_from..at]);
                at += 1;
                plain_from = at;
            }
            _ => at += 1,
        }
    }
    out.push_str(&json[plain_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn accepts(text: &str) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.value(0).is_ok() && scanner.end().is_ok()
    }

    #[test]
    fn scanner_accepts_exactly_what_serde_json_accepts() {
        let samples = [
            r#"{"a":1,"b":[true,false,null,-0.5e+10,"x\né\"y"],"c":{"d":{}}}"#,
            r#" [ 0 , -0 , 1.0E-2 , "\ud83d\ude00" , "中文 text that is longer than eight bytes" ] "#,
            r#"{"":"","k":[[],[[]]],"\/\b\f\n\r\t":12345678901234567890}"#,
        ];
        let mut random = StdRng::seed_from_u64(7);
        let alphabet: Vec<char> = "{}[]\",:\\u0123456789aeE+-.tfn \n\u{1}中".chars().collect();
        for round in 0..60_000 {
            let mut chars: Vec<char> = samples[round % samples.len()].chars().collect();
            for _ in 0..random.random_range(0..3) {
                let at = random.random_range(0..chars.len());
                match random.random_range(0..3) {
                    0 => chars[at] = alphabet[random.random_range(0..alphabet.len())],
                    1 => chars.insert(at, alphabet[random.random_range(0..alphabet.len())]),
                    _ => {
                        chars.remove(at);
                    }
                }
            }
            let text: String = chars.into_iter().collect();
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            assert_eq!(accepts(&text), theirs, "{text:?}");
        }
    }

    #[test]
    fn unescaped_strings_equal_serde_json() {
        for inner in [r"plain", r"a\u0041\n\t\\\/\x".replace("\\x", "").as_str(), r"\ud83d\ude00 \u4e2d", r#"\"q\""#] {
            let mut ours = String::new();
            unescape(inner, &mut ours).unwrap();
            let theirs: String = serde_json::from_str(&format!("\"{inner}\"")).unwrap();
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_refused() {
        for inner in [r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\ude00"] {
            assert_eq!(unescape(inner, &mut String::new()), Err("half a surrogate pair in a string"));
        }
    }

    #[test]
    fn compact_drops_only_white_space_between_tokens() {
        let mut out = String::new();
        compact("{ \"a b\" : [ 1 , \"x \\\" y\" ] ,\n \"中\": null }", &mut out);
        assert_eq!(out, "{\"a b\":[1,\"x \\\" y\"],\"中\":null}");
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let text = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(accepts(&text));
        assert!(!accepts(&format!("[{text}]")));
    }
}
