//! Dates and timestamps from text and epoch numbers, and the project's time zone.

use arrow::datatypes::TimeUnit;
use chrono::{DateTime, LocalResult, Offset, TimeZone};
use chrono_tz::Tz;

use super::number;
use crate::catalog::TimestampFormat;

/// Why a value is not the timestamp that was wanted; the text says what was expected.
pub(super) type Misfit = &'static str;

const SECONDS_A_DAY: i64 = 86_400;
/// 0001-01-01 and the last second of 9999: what every store can hold, and a guard against a wrong epoch unit.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() == 10 { date_of(bytes).map(|days| days as i32) } else { None }
}

/// Days since 1970-01-01 when they are within the years that every store can hold.
pub(super) fn bounded_date(days: i32) -> Option<i32> {
    (FIRST_SECOND..=LAST_SECOND).contains(&(i64::from(days) * SECONDS_A_DAY)).then_some(days)
}

/// Seconds since the Unix epoch, or since the midnight of a day, and the nanoseconds that follow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

impl Moment {
    /// A count of 10^-`digits` seconds; `digits` is at most 9.
    #[inline]
    pub(super) fn of(count: i64, digits: u32) -> Self {
        let (per_second, nanos_each) = (10i64.pow(digits), 10i64.pow(9 - digits));
        Moment { seconds: count.div_euclid(per_second), nanos: (count.rem_euclid(per_second) * nanos_each) as u32 }
    }
}

/// The days of the first ten bytes.
fn date_of(bytes: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = bytes.first_chunk::<10>()? else {
        return None;
    };
    let year = i64::from(two_digits(*y1, *y2)?) * 100 + i64::from(two_digits(*y3, *y4)?);
    let month = i64::from(two_digits(*m1, *m2)?);
    let day = i64::from(two_digits(*d1, *d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if year == 0 || day == 0 || day > longest {
        return None;
    }
    // Years begin in March here, so that the leap day is the last of its year.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[inline]
fn two_digits(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { None } else { Some(u32::from(tens) * 10 + u32::from(ones)) }
}

/// A date and time as written, and its offset from UTC in seconds where one is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    seconds: i64,
    nanos: u32,
    offset: Option<i64>,
}

/// `YYYY-MM-DD[(T| )HH:MM[:SS[(.|,)digits]]][ ][Z|±HH[[:]MM]]`; digits beyond nanoseconds are cut.
fn iso(text: &str) -> Option<Written> {
    let bytes = text.as_bytes();
    let midnight = date_of(bytes)? * SECONDS_A_DAY;
    let rest = &bytes[10..];
    if rest.is_empty() {
        return Some(Written { seconds: midnight, nanos: 0, offset: None });
    }
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] = rest else {
        return None;
    };
    let (hour, minute) = (two_digits(*h1, *h2)?, two_digits(*m1, *m2)?);
    let (mut second, mut nanos, mut rest) = (0, 0, rest);
    if let [b':', s1, s2, after @ ..] = rest {
        second = two_digits(*s1, *s2)?;
        rest = after;
        if let [b'.' | b',', after @ ..] = rest {
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for place in 0..9 {
                let digit = after.get(place).filter(|_| place < digits).map_or(0, |byte| byte - b'0');
                nanos = nanos * 10 + u32::from(digit);
            }
            rest = &after[digits..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = midnight + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let offset = match rest {
        [] if text.ends_with(' ') => return None,
        [] => None,
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, minutes @ ..] => {
            let minutes = match minutes {
                [] => 0,
                [b':', m1, m2] | [m1, m2] => two_digits(*m1, *m2)?,
                _ => return None,
            };
            let hours = two_digits(*h1, *h2)?;
            if hours > 18 || minutes > 59 {
                return None;
            }
            let size = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            Some(if *sign == b'-' { -size } else { size })
        }
        _ => return None,
    };
    Some(Written { seconds, nanos, offset })
}

/// The offsets of a time zone, remembered for stretches of six hours: a look-up per row would cost as much as the
/// rest of its decoding.
#[derive(Debug, Clone)]
struct Zone {
    zone: Tz,
    by_utc: Vec<(i64, i64)>,
    by_wall: Vec<(i64, i64)>,
}

/// Length of a stretch. Transitions are far more apart, so equal offsets at both ends mean no transition inside.
const STRETCH: i64 = 6 * 3600;
const STRETCHES: usize = 256;
const NO_STRETCH: (i64, i64) = (i64::MIN, 0);

impl Zone {
    fn new(zone: Tz) -> Self {
        Zone { zone, by_utc: vec![NO_STRETCH; STRETCHES], by_wall: vec![NO_STRETCH; STRETCHES] }
    }

    /// Wall seconds of an instant.
    #[inline]
    fn wall_of(&mut self, utc: i64) -> i64 {
        let stretch = utc.div_euclid(STRETCH);
        let place = (stretch as usize) % STRETCHES;
        let (known, offset) = self.by_utc[place];
        if known == stretch {
            return utc + offset;
        }
        let first = self.offset_at(stretch * STRETCH);
        if first == self.offset_at(stretch * STRETCH + STRETCH - 1) {
            self.by_utc[place] = (stretch, first);
            return utc + first;
        }
        utc + self.offset_at(utc)
    }

    fn offset_at(&self, utc: i64) -> i64 {
        DateTime::from_timestamp(utc, 0).map_or(0, |instant| {
            i64::from(self.zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc())
        })
    }

    /// The instant of wall seconds: the earlier one of an hour that happens twice, none of an hour that is skipped.
    #[inline]
    fn utc_of(&mut self, wall: i64) -> Option<i64> {
        let stretch = wall.div_euclid(STRETCH);
        let place = (stretch as usize) % STRETCHES;
        let (known, offset) = self.by_wall[place];
        if known == stretch {
            return Some(wall - offset);
        }
        let first = self.offsets_of_wall(stretch * STRETCH);
        let last = self.offsets_of_wall(stretch * STRETCH + STRETCH - 1);
        match (first, last) {
            (LocalResult::Single(first), LocalResult::Single(last)) if first == last => {
                self.by_wall[place] = (stretch, first);
                Some(wall - first)
            }
            _ => self.offsets_of_wall(wall).earliest().map(|offset| wall - offset),
        }
    }

    fn offsets_of_wall(&self, wall: i64) -> LocalResult<i64> {
        match DateTime::from_timestamp(wall, 0) {
            Some(as_utc) => self
                .zone
                .offset_from_local_datetime(&as_utc.naive_utc())
                .map(|offset| i64::from(offset.fix().local_minus_utc())),
            None => LocalResult::None,
        }
    }
}

/// Reads the values of one timestamp column.
///
/// A column without a zone holds wall time of the project's zone, one with a zone an instant. Wall text without an
/// offset is taken as it is by the former; for the latter, an hour that daylight saving skips is refused and one that
/// it repeats means its first pass. Digits finer than the column's precision are cut, towards the past.
#[derive(Debug, Clone)]
pub(super) struct TimestampReader {
    format: TimestampFormat,
    unit: TimeUnit,
    is_instant: bool,
    zone: Zone,
}

impl TimestampReader {
    pub(super) fn new(format: TimestampFormat, unit: TimeUnit, is_instant: bool, zone: Tz) -> Self {
        TimestampReader { format, unit, is_instant, zone: Zone::new(zone) }
    }

    /// A JSON string or CSV field.
    pub(super) fn text(&mut self, text: &str) -> Result<i64, Misfit> {
        if self.format != TimestampFormat::Iso {
            return self.number(text);
        }
        let written = iso(text).ok_or("ISO 8601 text such as \"2026-01-31T08:15:00+08:00\"")?;
        let Written { seconds, nanos, offset } = written;
        match offset {
            Some(offset) => self.instant(Moment { seconds: seconds - offset, nanos }),
            None => self.wall(Moment { seconds, nanos }),
        }
    }

    /// A moment in UTC.
    #[inline]
    pub(super) fn instant(&mut self, moment: Moment) -> Result<i64, Misfit> {
        let Moment { seconds, nanos } = bounded(moment)?;
        let seconds = if self.is_instant { seconds } else { self.zone.wall_of(seconds) };
        self.in_unit(seconds, nanos)
    }

    /// Wall time of the project's zone.
    #[inline]
    pub(super) fn wall(&mut self, moment: Moment) -> Result<i64, Misfit> {
        let Moment { seconds, nanos } = bounded(moment)?;
        let seconds = match self.is_instant {
            true => self.zone.utc_of(seconds).ok_or("a time that the project's time zone does not skip")?,
            false => seconds,
        };
        self.in_unit(seconds, nanos)
    }

    /// A JSON number.
    pub(super) fn number(&mut self, text: &str) -> Result<i64, Misfit> {
        let (digits, expected) = self.epoch_unit()?;
        let (seconds, nanos) = number::seconds_and_nanos(text, digits).map_err(|_| expected)?;
        self.instant(Moment { seconds, nanos }).map_err(|misfit| if misfit == OUTSIDE { expected } else { misfit })
    }

    /// A whole number of the format's unit.
    #[inline]
    pub(super) fn count(&mut self, count: i64) -> Result<i64, Misfit> {
        let (digits, expected) = self.epoch_unit()?;
        self.instant(Moment::of(count, digits)).map_err(|misfit| if misfit == OUTSIDE { expected } else { misfit })
    }

    /// The digits of a second that numbers count, and what they are.
    fn epoch_unit(&self) -> Result<(u32, Misfit), Misfit> {
        Ok(match self.format {
            TimestampFormat::Iso => {
                return Err("ISO 8601 text (for numbers, the column needs a format such as \"epoch_ms\")");
            }
            TimestampFormat::EpochSeconds => (0, "seconds since 1970 between the years 1 and 9999"),
            TimestampFormat::EpochMillis => (3, "milliseconds since 1970 between the years 1 and 9999"),
            TimestampFormat::EpochMicros => (6, "microseconds since 1970 between the years 1 and 9999"),
        })
    }

    #[inline]
    fn in_unit(&self, seconds: i64, nanos: u32) -> Result<i64, Misfit> {
        let (per_second, nanos_each) = match self.unit {
            TimeUnit::Second => (1, 1_000_000_000),
            TimeUnit::Millisecond => (1_000, 1_000_000),
            TimeUnit::Microsecond => (1_000_000, 1_000),
            TimeUnit::Nanosecond => (1_000_000_000, 1),
        };
        seconds
            .checked_mul(per_second)
            .and_then(|count| count.checked_add(i64::from(nanos / nanos_each)))
            .ok_or("a year between 1678 and 2261, which nanoseconds can hold")
    }
}

/// An instant in ISO 8601, in nanoseconds since the Unix epoch; without an offset it is wall time of `zone`.
pub fn instant(text: &str, zone: Tz) -> Option<i64> {
    TimestampReader::new(TimestampFormat::Iso, TimeUnit::Nanosecond, true, zone).text(text).ok()
}

/// What a moment must be.
const OUTSIDE: Misfit = "a time between the years 1 and 9999";

fn bounded(moment: Moment) -> Result<Moment, Misfit> {
    if (FIRST_SECOND..=LAST_SECOND).contains(&moment.seconds) { Ok(moment) } else { Err(OUTSIDE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(format: TimestampFormat, is_instant: bool, zone: Tz) -> TimestampReader {
        TimestampReader::new(format, TimeUnit::Millisecond, is_instant, zone)
    }

    fn millis(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn dates_equal_those_of_chrono() {
        for days in (-700_000..2_900_000).step_by(37) {
            let text = (chrono::NaiveDate::default() + chrono::Duration::days(days.into())).to_string();
            assert_eq!(date(&text), Some(days), "{text}");
        }
        for text in [
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-1-1",
            "2024-01-32",
            "20240101",
            "2024-01-01 ",
            "0000-01-01",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
        assert!(date("2024-02-29").is_some() && date("1900-02-29").is_none() && date("2000-02-29").is_some());
    }

    #[test]
    fn wall_time_takes_text_as_it_is_and_converts_offsets() {
        let mut wall = reader(TimestampFormat::Iso, false, chrono_tz::Asia::Shanghai);
        for (text, expected) in [
            ("2026-01-31T08:15:00", "2026-01-31T08:15:00Z"),
            ("2026-01-31 08:15", "2026-01-31T08:15:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31T08:15:00.1239", "2026-01-31T08:15:00.123Z"),
            ("2026-01-31T00:15:00Z", "2026-01-31T08:15:00Z"),
            ("2026-01-31T00:15:00+00:00", "2026-01-31T08:15:00Z"),
            ("2026-01-31 09:15:00 +0900", "2026-01-31T08:15:00Z"),
            ("2026-01-30T19:15:00-05", "2026-01-31T08:15:00Z"),
        ] {
            assert_eq!(wall.text(text), Ok(millis(expected)), "{text}");
        }
        for text in [
            "",
            "08:15:00",
            "2026-01-31T",
            "2026-01-31T24:00:00",
            "2026-01-31T08:15:60",
            "2026-01-31T08:15:00 ",
            "2026-01-31T08:15:00.",
            "2026-01-31T08:15:00+8",
            "2026-01-31x08:15:00",
            "2026-01-31T08:15:00Zjunk",
            "1706659200000",
        ] {
            assert_eq!(wall.text(text), Err("ISO 8601 text such as \"2026-01-31T08:15:00+08:00\""), "{text}");
        }
    }

    #[test]
    fn instants_read_bare_text_in_the_projects_zone() {
        let mut instant = reader(TimestampFormat::Iso, true, chrono_tz::Europe::Berlin);
        assert_eq!(instant.text("2026-01-31T08:15:00"), Ok(millis("2026-01-31T07:15:00Z")));
        assert_eq!(instant.text("2026-07-01T08:15:00"), Ok(millis("2026-07-01T06:15:00Z")));
        assert_eq!(instant.text("2026-07-01T08:15:00Z"), Ok(millis("2026-07-01T08:15:00Z")));
        // 2026-03-29 02:30 is skipped, 2026-10-25 02:30 happens twice.
        assert_eq!(instant.text("2026-03-29T02:30:00"), Err("a time that the project's time zone does not skip"));
        assert_eq!(instant.text("2026-03-29T03:00:00"), Ok(millis("2026-03-29T01:00:00Z")));
        assert_eq!(instant.text("2026-10-25T02:30:00"), Ok(millis("2026-10-25T00:30:00Z")));
    }

    #[test]
    fn epoch_numbers_become_wall_time_of_the_zone() {
        let utc = millis("2026-01-31T00:15:00.789Z");
        let wall = millis("2026-01-31T08:15:00.789Z");
        let mut by_millis = reader(TimestampFormat::EpochMillis, false, chrono_tz::Asia::Shanghai);
        assert_eq!(by_millis.number(&utc.to_string()), Ok(wall));
        assert_eq!(by_millis.text(&utc.to_string()), Ok(wall));
        let mut by_seconds = reader(TimestampFormat::EpochSeconds, false, chrono_tz::Asia::Shanghai);
        assert_eq!(by_seconds.number("1769818500.789"), Ok(wall));
        assert_eq!(
            by_seconds.number(&utc.to_string()),
            Err("seconds since 1970 between the years 1 and 9999"),
            "milliseconds given as seconds are noticed"
        );
        let mut instant = reader(TimestampFormat::EpochMicros, true, chrono_tz::Asia::Shanghai);
        assert_eq!(instant.number(&format!("{utc}999")), Ok(utc));
    }

    #[test]
    fn remembered_offsets_equal_chronos_around_every_transition() {
        for name in ["Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "America/St_Johns"] {
            let tz: Tz = name.parse().unwrap();
            let mut zone = Zone::new(tz);
            for utc in (700_000_000..720_000_000i64).chain(1_767_225_600..1_798_761_600).step_by(601) {
                let wall = zone.wall_of(utc);
                assert_eq!(wall - utc, zone.offset_at(utc), "{name} {utc}");
                let back = zone.utc_of(wall).unwrap();
                assert!(back == utc || zone.offsets_of_wall(wall).earliest() != zone.offsets_of_wall(wall).latest());
            }
        }
    }
}
