//! A sum of doubles without rounding: any order of adding and retracting gives the same, correctly rounded result.
//!
//! A fixed-point number wide enough for every double, of which only the limbs in use are kept (Kulisch's long
//! accumulator, 1971, with carry-save limbs as in Neal's "Fast exact summation using small and large
//! superaccumulators", 2015).

/// Bits that a limb advances; limbs are `i64`, so 2^31 additions fit before a carry must be moved on.
const LIMB_BITS: i32 = 32;
/// The weight of bit 0 of limb 0 is 2^-1074, that of the smallest double.
const LOWEST_EXPONENT: i32 = -1074;
/// Additions after which carries are moved on.
const CARRY_AFTER: u32 = 1 << 30;

/// The exact sum of finite doubles, with counts of the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExactSum {
    /// Index of the first limb that is kept.
    lowest: i32,
    /// Signed limbs, least significant first.
    limbs: Vec<i64>,
    additions: u32,
    /// How many NaN, +infinity and -infinity there are.
    special: Option<Box<[i64; 3]>>,
}

impl ExactSum {
    /// Adds `value` `weight` times; a negative weight takes it away.
    pub fn add(&mut self, value: f64, weight: i64) {
        if !value.is_finite() {
            let kind = if value.is_nan() {
                0
            } else if value > 0.0 {
                1
            } else {
                2
            };
            self.special.get_or_insert_default()[kind] += weight;
            return;
        }
        let bits = value.to_bits();
        let exponent_field = ((bits >> 52) & 0x7FF) as i32;
        let fraction = (bits & 0x000F_FFFF_FFFF_FFFF) as i128;
        let mantissa = if exponent_field == 0 { fraction } else { fraction | 1 << 52 };
        if mantissa == 0 || weight == 0 {
            return;
        }
        let position = if exponent_field == 0 { 0 } else { exponent_field - 1 };
        if weight == 1 || weight == -1 {
            let negative = (bits >> 63 != 0) != (weight < 0);
            self.add_scaled(if negative { -mantissa } else { mantissa }, position);
        } else {
            // 53 bits times 64 bits fit 117; the two halves fit the limbs.
            let product = mantissa * i128::from(weight) * if bits >> 63 != 0 { -1 } else { 1 };
            let high = product >> 64;
            self.add_scaled(product - (high << 64), position);
            self.add_scaled(high, position + 64);
        }
    }

    /// Adds an integer below 2^65 in size, times 2^(position - 1074).
    fn add_scaled(&mut self, value: i128, position: i32) {
        if value == 0 {
            return;
        }
        let limb = position / LIMB_BITS;
        let shifted = value << (position % LIMB_BITS);
        self.reserve(limb, 4);
        let start = (limb - self.lowest) as usize;
        let mut rest = shifted;
        for target in &mut self.limbs[start..start + 3] {
            *target += (rest & 0xFFFF_FFFF) as i64;
            rest >>= LIMB_BITS;
        }
        self.limbs[start + 3] += rest as i64;
        self.additions += 1;
        if self.additions >= CARRY_AFTER {
            self.carry();
        }
    }

    /// Makes room for `count` limbs from `first` on.
    fn reserve(&mut self, first: i32, count: usize) {
        if self.limbs.is_empty() {
            self.lowest = first;
        }
        if first < self.lowest {
            let missing = (self.lowest - first) as usize;
            self.limbs.splice(0..0, std::iter::repeat_n(0, missing));
            self.lowest = first;
        }
        let needed = (first - self.lowest) as usize + count;
        if self.limbs.len() < needed {
            self.limbs.resize(needed, 0);
        }
    }

    /// Moves carries on, so that all limbs but the last are in 0..2^32 and the last has the sign, and drops zeros at both ends.
    fn carry(&mut self) {
        let mut carry = 0_i64;
        for limb in &mut self.limbs {
            let total = *limb + carry;
            *limb = total & 0xFFFF_FFFF;
            carry = total >> LIMB_BITS;
        }
        if carry != 0 {
            self.limbs.push(carry);
        }
        // A negative sum would become longer each time; and one sum has one form.
        while let [.., below, -1] = self.limbs.as_mut_slice() {
            *below -= 1 << LIMB_BITS;
            self.limbs.pop();
        }
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
        let zeros = self.limbs.iter().take_while(|limb| **limb == 0).count();
        self.limbs.drain(..zeros);
        self.lowest = if self.limbs.is_empty() { 0 } else { self.lowest + zeros as i32 };
        self.additions = 0;
    }

    /// Adds another sum `weight` times; a negative weight takes it away.
    pub fn merge(&mut self, other: &ExactSum, weight: i64) {
        if let Some(special) = &other.special {
            let own = self.special.get_or_insert_default();
            own.iter_mut().zip(special.iter()).for_each(|(own, other)| *own += other * weight);
        }
        if other.limbs.is_empty() || weight == 0 {
            return;
        }
        self.reserve(other.lowest, other.limbs.len());
        let start = (other.lowest - self.lowest) as usize;
        let mut carry = 0_i128;
        let mut place = start;
        for other in &other.limbs {
            let total = i128::from(self.limbs[place]) + i128::from(*other) * i128::from(weight) + carry;
            self.limbs[place] = (total & 0xFFFF_FFFF) as i64;
            carry = total >> LIMB_BITS;
            place += 1;
        }
        while carry != 0 {
            if place == self.limbs.len() {
                self.limbs.push(0);
            }
            let total = i128::from(self.limbs[place]) + carry;
            (self.limbs[place], carry) = match i64::try_from(total) {
                Ok(total) => (total, 0),
                Err(_) => ((total & 0xFFFF_FFFF) as i64, total >> LIMB_BITS),
            };
            place += 1;
        }
        self.carry();
    }

    /// The sum, rounded once, half to even.
    pub fn value(&self) -> f64 {
        if let Some([nan, positive, negative]) = self.special.as_deref().copied() {
            if nan != 0 || (positive != 0 && negative != 0) {
                return f64::NAN;
            }
            if positive != 0 {
                return f64::INFINITY;
            }
            if negative != 0 {
                return f64::NEG_INFINITY;
            }
        }
        let mut sum = self.clone();
        sum.carry();
        let negative = sum.limbs.last().is_some_and(|limb| *limb < 0);
        if negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            sum.carry();
        }
        let Some(top) = sum.limbs.len().checked_sub(1) else { return 0.0 };
        // The last limb may be wider than 32 bits only by what carries leave in it, so three limbs fit 128 bits.
        let first = top.saturating_sub(2);
        let mut mantissa = 0_u128;
        for limb in sum.limbs[first..].iter().rev() {
            mantissa = (mantissa << LIMB_BITS) + *limb as u128;
        }
        // Three limbs hold at least 65 bits, so what lies below can only break a tie: one sticky bit tells.
        if sum.limbs[..first].iter().any(|limb| *limb != 0) {
            mantissa |= 1;
        }
        let exponent = (sum.lowest + first as i32) * LIMB_BITS + LOWEST_EXPONENT;
        let magnitude = scale(mantissa, exponent);
        if negative { -magnitude } else { magnitude }
    }

    /// For checkpoints: the limbs in use and the counts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut sum = self.clone();
        sum.carry();
        let mut bytes = Vec::with_capacity(28 + sum.limbs.len() * 8);
        bytes.extend(sum.lowest.to_le_bytes());
        for count in sum.special.as_deref().unwrap_or(&[0; 3]) {
            bytes.extend(count.to_le_bytes());
        }
        for limb in &sum.limbs {
            bytes.extend(limb.to_le_bytes());
        }
        bytes
    }

    /// The inverse of [`ExactSum::to_bytes`]; `None` when the bytes are none of its.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (lowest, rest) = bytes.split_first_chunk::<4>()?;
        let (words, []) = rest.as_chunks::<8>() else { return None };
        let (special, limbs) = words.split_first_chunk::<3>()?;
        let special = special.map(i64::from_le_bytes);
        let lowest = i32::from_le_bytes(*lowest);
        if !(0..=128).contains(&lowest) || limbs.len() > 128 {
            return None;
        }
        Some(ExactSum {
            lowest,
            limbs: limbs.iter().map(|limb| i64::from_le_bytes(*limb)).collect(),
            additions: 0,
            special: (special != [0; 3]).then(|| Box::new(special)),
        })
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.limbs.capacity() * 8 + if self.special.is_some() { 24 } else { 0 }
    }
}

/// `mantissa * 2^exponent`, rounded once: below 2^-1022 the mantissa has at most 52 bits, so that scaling is exact.
fn scale(mantissa: u128, exponent: i32) -> f64 {
    let mut value = mantissa as f64;
    let mut exponent = exponent;
    while exponent != 0 && value != 0.0 && value.is_finite() {
        let step = exponent.clamp(-1000, 1000);
        value *= 2_f64.powi(step);
        exponent -= step;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn retraction_of_a_huge_value_leaves_the_small_ones() {
        let mut sum = ExactSum::default();
        for value in [0.1, 1e17, 0.2, 1e300, -1e-300] {
            sum.add(value, 1);
        }
        for value in [1e17, 1e300, -1e-300] {
            sum.add(value, -1);
        }
        assert_eq!(sum.value(), 0.1 + 0.2);
    }

    #[test]
    fn sum_of_integers_scaled_by_powers_of_two_is_exact() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..500 {
            let exponent = random.random_range(-900..900);
            let unit = 2_f64.powi(exponent);
            let mut sum = ExactSum::default();
            let mut expected = 0_i128;
            for _ in 0..random.random_range(1..200) {
                let value = random.random_range(-(1_i64 << 53)..(1 << 53));
                let weight = random.random_range(-3..4);
                sum.add(value as f64 * unit, weight);
                expected += i128::from(value) * i128::from(weight);
            }
            let restored = ExactSum::from_bytes(&sum.to_bytes()).unwrap();
            assert_eq!(sum.value(), expected as f64 * unit);
            assert_eq!(restored.value(), expected as f64 * unit);
        }
    }

    #[test]
    fn order_and_splits_do_not_matter() {
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..200 {
            let mut values: Vec<f64> =
                (0..50).map(|_| random.random_range(-1.0..1.0) * 10_f64.powi(random.random_range(-300..300))).collect();
            let mut forward = ExactSum::default();
            values.iter().for_each(|value| forward.add(*value, 1));
            values.reverse();
            let (left, right) = values.split_at(random.random_range(0..50));
            let mut merged = ExactSum::default();
            left.iter().for_each(|value| merged.add(*value, 1));
            let mut other = ExactSum::default();
            right.iter().for_each(|value| other.add(*value, 1));
            merged.merge(&other, 1);
            assert_eq!(forward.value(), merged.value());
            merged.merge(&forward, -1);
            assert_eq!(merged.value(), 0.0);
        }
    }

    #[test]
    fn merged_negative_sums_stay_short() {
        let mut half = ExactSum::default();
        half.add(-0.5, 1);
        let mut sum = ExactSum::default();
        (0..1000).for_each(|_| sum.merge(&half, 1));
        assert_eq!(sum.value(), -500.0);
        assert!(sum.limbs.len() <= 3, "{:?}", sum.limbs);
        sum.merge(&half, -1000);
        assert_eq!(sum.value(), 0.0);
    }

    #[test]
    fn a_sum_has_one_form_whatever_it_was_made_of() {
        let mut sum = ExactSum::default();
        for value in [0.3, -151.22, 1e300, -0.3, -1e300] {
            sum.add(value, 1);
        }
        let mut alone = ExactSum::default();
        alone.add(-151.22, 1);
        assert_eq!(sum.to_bytes(), alone.to_bytes());
        let mut merged = ExactSum::default();
        for _ in 0..10 {
            merged.merge(&alone, 1);
            merged = ExactSum::from_bytes(&merged.to_bytes()).unwrap();
            merged.merge(&alone, 1);
            merged.merge(&alone, -1);
        }
        merged.merge(&alone, -9);
        assert_eq!(merged.to_bytes(), alone.to_bytes());
        merged.merge(&alone, -1);
        assert_eq!(merged.to_bytes(), ExactSum::default().to_bytes());
    }

    #[test]
    fn smallest_and_largest_doubles_survive() {
        for value in [f64::MIN_POSITIVE, 5e-324, f64::MAX, -f64::MAX, 1.5e-310, 0.0] {
            let mut sum = ExactSum::default();
            sum.add(value, 1);
            assert_eq!(sum.value(), value);
        }
        let mut sum = ExactSum::default();
        sum.add(f64::INFINITY, 1);
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(f64::NEG_INFINITY, 1);
        assert!(sum.value().is_nan());
        sum.add(f64::NEG_INFINITY, -1);
        sum.add(f64::INFINITY, -1);
        assert_eq!(sum.value(), 0.0);
    }
}
