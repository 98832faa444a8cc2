//! Numbers read exactly from their text.

/// Why a text is not a number of the wanted type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotThatNumber;

/// `digits` × 10^`exponent`, with the sign; no trailing zeros in `digits` unless it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exact {
    negative: bool,
    digits: u128,
    exponent: i32,
}

impl Exact {
    /// Reads `[+-]digits[.digits][e[+-]digits]` with at most 38 significant digits.
    fn parse(text: &str) -> Result<Exact, NotThatNumber> {
        let bytes = text.as_bytes();
        let (negative, mut at) = match bytes.first() {
            Some(b'-') => (true, 1),
            Some(b'+') => (false, 1),
            _ => (false, 0),
        };
        let mut digits: u128 = 0;
        let mut exponent: i64 = 0;
        // Zeros are held back until another digit follows, so that 1.000…0 has one significant digit.
        let mut zeros: u32 = 0;
        let mut push = |digit: u8| -> Result<(), NotThatNumber> {
            if digit == 0 {
                zeros += 1;
                return Ok(());
            }
            if digits == 0 {
                zeros = 0;
            }
            let shift = 10u128.checked_pow(zeros + 1).ok_or(NotThatNumber)?;
            digits = digits.checked_mul(shift).and_then(|all| all.checked_add(digit.into())).ok_or(NotThatNumber)?;
            zeros = 0;
            Ok(())
        };
        let integer_from = at;
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            push(digit - b'0')?;
            at += 1;
        }
        if at == integer_from {
            return Err(NotThatNumber);
        }
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            let fraction_from = at;
            while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
                push(digit - b'0')?;
                at += 1;
            }
            if at == fraction_from {
                return Err(NotThatNumber);
            }
            exponent -= (at - fraction_from) as i64;
        }
        exponent += i64::from(zeros);
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            let written = &text[at + 1..];
            let plain = written.strip_prefix(['+', '-']).unwrap_or(written);
            if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NotThatNumber);
            }
            // An exponent beyond i32 is out of every type's range, unless the number is 0.
            let size: i64 = plain.parse().unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX));
            exponent += if written.starts_with('-') { -size } else { size };
            at = bytes.len();
        }
        if at != bytes.len() {
            return Err(NotThatNumber);
        }
        if digits == 0 {
            exponent = 0;
        }
        Ok(Exact { negative, digits, exponent: exponent.clamp(i32::MIN.into(), i32::MAX.into()) as i32 })
    }

    /// The value × 10^`scale` when that is a whole number.
    fn scaled(self, scale: i32) -> Result<i128, NotThatNumber> {
        let shift = self.exponent.checked_add(scale).ok_or(NotThatNumber)?;
        let shift = u32::try_from(shift).map_err(|_| NotThatNumber)?;
        self.signed(10u128.checked_pow(shift).and_then(|power| self.digits.checked_mul(power)))
    }

    /// The value × 10^`scale`, rounded down.
    fn scaled_floor(self, scale: i32) -> Result<i128, NotThatNumber> {
        let shift = self.exponent.saturating_add(scale);
        if shift >= 0 {
            return self.scaled(scale);
        }
        let divisor = 10u128.checked_pow(shift.unsigned_abs()).unwrap_or(u128::MAX);
        let quotient = self.digits / divisor;
        let rest = !self.digits.is_multiple_of(divisor);
        self.signed(Some(quotient + u128::from(self.negative && rest)))
    }

    fn signed(self, magnitude: Option<u128>) -> Result<i128, NotThatNumber> {
        let value = magnitude.and_then(|size| i128::try_from(size).ok()).ok_or(NotThatNumber)?;
        Ok(if self.negative { -value } else { value })
    }
}

/// A whole number: `12`, and `12.0` or `1.2e1` since they are exactly 12.
#[inline]
pub(super) fn integer(text: &str) -> Result<i64, NotThatNumber> {
    if let Some(value) = short_integer(text.as_bytes()) {
        return Ok(value);
    }
    let value = Exact::parse(text)?.scaled(0)?;
    i64::try_from(value).map_err(|_| NotThatNumber)
}

/// The usual case: a sign and at most 18 digits.
#[inline]
fn short_integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value: i64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// A DECIMAL(`precision`, `scale`) as its unscaled value; digits beyond the scale must be zeros.
#[inline]
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, NotThatNumber> {
    let value = match short_decimal(text.as_bytes(), scale) {
        Some(value) => i128::from(value),
        None => Exact::parse(text)?.scaled(scale.into())?,
    };
    within(value, precision)
}

/// `unscaled` × 10^-`digits` as a DECIMAL(`precision`, `scale`); digits beyond the scale must be zeros.
#[inline]
pub(super) fn rescaled(unscaled: i128, digits: u32, precision: u8, scale: i8) -> Result<i128, NotThatNumber> {
    let shift = i64::from(scale) - i64::from(digits);
    let power = u32::try_from(shift.unsigned_abs()).ok().and_then(|shift| 10i128.checked_pow(shift));
    let value = match power {
        Some(power) if shift >= 0 => unscaled.checked_mul(power).ok_or(NotThatNumber)?,
        Some(power) if unscaled % power == 0 => unscaled / power,
        _ if unscaled == 0 => 0,
        _ => return Err(NotThatNumber),
    };
    within(value, precision)
}

/// A whole number in two's complement, the highest byte first.
#[inline]
pub(super) fn from_big_endian(bytes: &[u8]) -> Result<i128, NotThatNumber> {
    let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let filler = if is_negative { 0xff } else { 0 };
    let (above, lowest) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut all = [filler; 16];
    all[16 - lowest.len()..].copy_from_slice(lowest);
    let value = i128::from_be_bytes(all);
    let is_whole = above.iter().all(|byte| *byte == filler) && (value < 0) == is_negative;
    if is_whole { Ok(value) } else { Err(NotThatNumber) }
}

fn within(value: i128, precision: u8) -> Result<i128, NotThatNumber> {
    let limit = 10u128.checked_pow(precision.into()).unwrap_or(u128::MAX);
    if value.unsigned_abs() >= limit { Err(NotThatNumber) } else { Ok(value) }
}

/// The usual case: at most 18 digits in all once scaled.
#[inline]
fn short_decimal(bytes: &[u8], scale: i8) -> Option<i64> {
    let (negative, rest) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let scale = usize::try_from(scale).ok()?;
    if rest.len() + scale > 18 || !rest.first()?.is_ascii_digit() || !rest.last()?.is_ascii_digit() {
        return None;
    }
    let mut value: i64 = 0;
    let mut fraction = None;
    for (at, byte) in rest.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + i64::from(digit);
        } else if *byte == b'.' && fraction.is_none() {
            fraction = Some(rest.len() - at - 1);
        } else {
            return None;
        }
    }
    let missing = scale.checked_sub(fraction.unwrap_or(0))?;
    value *= 10i64.pow(missing as u32);
    Some(if negative { -value } else { value })
}

/// A finite double, the nearest to the text.
pub(super) fn double(text: &str) -> Result<f64, NotThatNumber> {
    // Rust also reads `inf`, `nan`, `.5` and `5.`, which are no numbers here.
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) || text.ends_with('.') || text.contains(".e") {
        return Err(NotThatNumber);
    }
    let value: f64 = text.parse().map_err(|_| NotThatNumber)?;
    if value.is_finite() { Ok(value) } else { Err(NotThatNumber) }
}

/// A count of 10^-`unit_digits` seconds as whole seconds and nanoseconds, rounded down.
#[inline]
pub(super) fn seconds_and_nanos(text: &str, unit_digits: u32) -> Result<(i64, u32), NotThatNumber> {
    let (nanos_of, per_second) = (10i64.pow(9 - unit_digits), 10i64.pow(unit_digits));
    if let Some(count) = short_integer(text.as_bytes()) {
        return Ok((count.div_euclid(per_second), (count.rem_euclid(per_second) * nanos_of) as u32));
    }
    let nanos = Exact::parse(text)?.scaled_floor(9 - unit_digits as i32)?;
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| NotThatNumber)?;
    Ok((seconds, nanos.rem_euclid(1_000_000_000) as u32))
}

/// `unscaled` × 10^-`digits`, written out.
pub(super) fn write_decimal(unscaled: i128, digits: u32, out: &mut String) {
    let plain = unscaled.unsigned_abs().to_string();
    let digits = digits as usize;
    if unscaled < 0 {
        out.push('-');
    }
    let whole = plain.len().saturating_sub(digits);
    out.push_str(if whole == 0 { "0" } else { &plain[..whole] });
    if digits > 0 {
        out.push('.');
        out.extend(std::iter::repeat_n('0', digits.saturating_sub(plain.len())));
        out.push_str(&plain[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_scaled_and_written_exactly() {
        assert_eq!(rescaled(1230, 2, 12, 2), Ok(1230));
        assert_eq!(rescaled(1230, 3, 12, 2), Ok(123));
        assert_eq!(rescaled(-5, 0, 12, 2), Ok(-500));
        assert_eq!(rescaled(0, 4_000_000_000, 12, 2), Ok(0));
        for (unscaled, digits) in [(1231, 3), (10i128.pow(12), 2), (i128::MAX, 0), (1, 4_000_000_000), (i128::MIN, 2)] {
            assert_eq!(rescaled(unscaled, digits, 12, 2), Err(NotThatNumber), "{unscaled} {digits}");
        }
        let written = |unscaled, digits| {
            let mut out = String::new();
            write_decimal(unscaled, digits, &mut out);
            out
        };
        assert_eq!([written(1230, 2), written(-5, 3), written(0, 2)], ["12.30", "-0.005", "0.00"]);
        assert_eq!([written(7, 0), written(-123, 3)], ["7", "-0.123"]);
    }

    #[test]
    fn big_endian_numbers_keep_their_sign() {
        assert_eq!(from_big_endian(&[]), Ok(0));
        assert_eq!(from_big_endian(&[0xff]), Ok(-1));
        assert_eq!(from_big_endian(&[0x00, 0xff]), Ok(255));
        assert_eq!(from_big_endian(&[0x04, 0xce]), Ok(1230));
        assert_eq!(from_big_endian(&i128::MIN.to_be_bytes()), Ok(i128::MIN));
        assert_eq!(from_big_endian(&[0; 40]), Ok(0));
        assert_eq!(from_big_endian(&[0xff; 40]), Ok(-1));
        let beyond = [&[0][..], &[0xff; 16]].concat();
        assert_eq!(from_big_endian(&beyond), Err(NotThatNumber));
    }

    #[test]
    fn integers_are_exact_or_refused() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("12", 12),
            ("1.0", 1),
            ("1.20e1", 12),
            ("1e3", 1000),
            ("007", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("1000000000000000000000e-3", 1_000_000_000_000_000_000),
            ("0e99999999999", 0),
        ] {
            assert_eq!(integer(text), Ok(value), "{text}");
        }
        for text in ["", "-", "1.5", "9223372036854775808", "1e-1", "1e99", "abc", "1 ", "0x1", "1.", ".5", "1e", "--1"]
        {
            assert_eq!(integer(text), Err(NotThatNumber), "{text}");
        }
    }

    #[test]
    fn decimals_keep_every_digit() {
        for (text, value) in [
            ("12.30", 1230),
            ("12.3", 1230),
            ("12", 1200),
            ("-0.01", -1),
            ("0.010000000000000000000000000000000000000000", 1),
            ("1.23e1", 1230),
            ("123e-2", 123),
            ("9999999999.99", 999_999_999_999),
        ] {
            assert_eq!(decimal(text, 12, 2), Ok(value), "{text}");
        }
        for text in ["12.345", "10000000000", "1e10", "1e-3", "", ".", "1..2", "-", "1.", "NaN", "1.2.3"] {
            assert_eq!(decimal(text, 12, 2), Err(NotThatNumber), "{text}");
        }
        let longest = "9".repeat(38);
        assert_eq!(decimal(&longest, 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(decimal(&format!("{longest}9"), 38, 0), Err(NotThatNumber));
    }

    #[test]
    fn doubles_are_finite_numbers() {
        assert_eq!(double("1e3"), Ok(1000.0));
        assert_eq!(double("-12.5"), Ok(-12.5));
        for text in ["inf", "NaN", ".5", "5.", "1.e3", "1e999", "-", "", "1_0", "0x10"] {
            assert_eq!(double(text), Err(NotThatNumber), "{text}");
        }
    }

    #[test]
    fn seconds_round_down_before_the_epoch() {
        assert_eq!(seconds_and_nanos("-1", 3), Ok((-1, 999_000_000)));
        assert_eq!(seconds_and_nanos("1700000000.1234567891", 0), Ok((1_700_000_000, 123_456_789)));
        assert_eq!(seconds_and_nanos("-0.0000000001", 0), Ok((-1, 999_999_999)));
        assert_eq!(seconds_and_nanos("1700000000123456", 6), Ok((1_700_000_000, 123_456_000)));
    }
}
