//! A position in bytes that somebody else wrote: the numbers and lengths of Avro and Protobuf.
//!
//! Enters: any bytes. Leaves: values, or [`Malformed`]. Never panics, and never takes more than there is.

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct Malformed {
    /// What is wrong.
    pub(crate) what: &'static str,
    /// The byte.
    pub(crate) at: usize,
}

/// A position in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the first of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn malformed<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { what, at: self.at })
    }

    /// The next byte.
    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        match self.bytes.get(self.at) {
            Some(byte) => {
                self.at += 1;
                Ok(*byte)
            }
            None => self.malformed("too few bytes"),
        }
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => self.malformed("too few bytes"),
        }
    }

    /// A cursor over the next `length` bytes, which counts from where this one does.
    #[inline]
    pub(crate) fn split(&mut self, length: usize) -> Result<Cursor<'a>, Malformed> {
        let start = self.at;
        self.take(length)?;
        Ok(Cursor { bytes: &self.bytes[..self.at], at: start })
    }

    /// All bytes that are left.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next bytes, as many as the array holds.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(taken) => {
                self.at += N;
                Ok(taken)
            }
            None => self.malformed("too few bytes"),
        }
    }

    /// A number of seven bits a byte, the lowest first.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(first.into());
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.malformed("a number of more than 64 bits")
    }

    /// A [`Cursor::varint`] that has its sign in the lowest bit.
    #[inline]
    pub(crate) fn zigzag(&mut self) -> Result<i64, Malformed> {
        Ok(unzigzag(self.varint()?))
    }
}

/// The number whose sign is the lowest bit of `value`.
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// UTF-8 text, or where it is none.
#[inline]
pub(crate) fn text(bytes: &[u8], at: usize) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|error| Malformed { what: "invalid UTF-8", at: at + error.valid_up_to() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_hold_64_bits_and_no_more() {
        let read = |bytes: &[u8]| Cursor::new(bytes).varint().map_err(|malformed| malformed.to_string());
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0xac, 0x02]), Ok(300));
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&largest), Ok(u64::MAX));
        assert_eq!(read(&[0xff; 10]), Err("a number of more than 64 bits at byte 10".into()));
        assert_eq!(read(&[0x80; 11]), Err("a number of more than 64 bits at byte 10".into()));
        assert_eq!(read(&[0x80, 0x80]), Err("too few bytes at byte 2".into()));
        assert_eq!(Cursor::new(&largest).zigzag(), Ok(i64::MIN));
        assert_eq!([0, 1, 2, 3].map(unzigzag), [0, -1, 1, -2]);
    }

    #[test]
    fn nothing_is_taken_beyond_the_end() {
        let mut cursor = Cursor::new(b"abc");
        assert_eq!(cursor.take(2), Ok(b"ab".as_slice()));
        assert!(cursor.take(2).is_err() && cursor.take(usize::MAX).is_err() && cursor.array::<4>().is_err());
        assert_eq!(cursor.byte(), Ok(b'c'));
        assert!(cursor.is_at_end() && cursor.byte().is_err());
    }
}
