//! How numbers are spread, as bars of letters.

use serde::Serialize;

/// Numbers from `from` up to `to`, or all alike, and how many; the first and the last also hold what lies further out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Bin {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) rows: usize,
}

/// At most so many bins of equal, round width; the few numbers that lie far out do not widen them.
pub(super) fn histogram(mut values: Vec<f64>, most: usize) -> Vec<Bin> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values.get((part * (values.len().max(1) - 1) as f64).round() as usize).copied();
    let bounds = |part: f64| Some((at(part)?, at(1.0 - part)?));
    let Some((low, high)) = bounds(0.02).filter(|(low, high)| low < high).or(bounds(0.0)) else { return Vec::new() };
    if low == high {
        return vec![Bin { from: low, to: low, rows: values.len() }];
    }
    let step = round_up((high - low) / (most - 1) as f64);
    let first = (low / step).floor();
    let place = |value: f64| ((value / step).floor() - first).clamp(0.0, (most - 1) as f64) as usize;
    let mut bins: Vec<Bin> = Vec::new();
    for value in &values {
        let place = place(*value);
        while bins.len() <= place {
            let from = (first + bins.len() as f64) * step;
            bins.push(Bin { from, to: from + step, rows: 0 });
        }
        bins[place].rows += 1;
    }
    bins
}

/// The least of 1, 2, 5, 10, 20 … that is no less.
fn round_up(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|round| *round >= step).unwrap_or(step)
}

/// A line a bin: from where to where, a bar, how many.
pub(super) fn bars(bins: &[Bin], width: usize) -> Vec<String> {
    let most = bins.iter().map(|bin| bin.rows).max().unwrap_or_default().max(1);
    let label = |bin: &Bin| match bin.from == bin.to {
        true => signed(bin.from),
        false => format!("{} … {}", signed(bin.from), signed(bin.to)),
    };
    let wide = bins.iter().map(|bin| label(bin).chars().count()).max().unwrap_or_default();
    let bar = |bin: &Bin| {
        // What is there is seen, however little it is.
        let length = (bin.rows * width).div_ceil(most);
        let rows = bin.rows.to_string();
        format!("{:>wide$} │{} {rows}", label(bin), "█".repeat(length)).trim_end().to_string()
    };
    bins.iter().map(bar).collect()
}

/// A change with its sign, in no more digits than it needs.
pub(super) fn signed(change: f64) -> String {
    let text = format!("{change:+.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if matches!(text, "+0" | "-0" | "+" | "-") { "0".to_string() } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_round_and_hold_every_number() {
        let values: Vec<f64> = (-50..=150).map(f64::from).chain([1e9, f64::NAN]).collect();
        let bins = histogram(values, 9);
        assert!(bins.len() <= 9 && bins.iter().all(|bin| bin.to - bin.from == 50.0), "{bins:?}");
        assert_eq!(bins.iter().map(|bin| bin.rows).sum::<usize>(), 202, "all but what is no number");
        assert_eq!(histogram(Vec::new(), 9), []);
        assert_eq!(histogram(vec![3.0, 3.0], 9), [Bin { from: 3.0, to: 3.0, rows: 2 }]);
        let far = histogram([vec![1.0; 500], vec![9.0]].concat(), 9);
        assert_eq!((far[0].rows, far[far.len() - 1].rows), (500, 1), "{far:?}");
    }

    #[test]
    fn bars_are_as_long_as_their_bins_are_full() {
        let bins = [Bin { from: -10.0, to: 0.0, rows: 20 }, Bin { from: 0.0, to: 10.0, rows: 1 }];
        assert_eq!(bars(&bins, 10), ["-10 … 0 │██████████ 20", "0 … +10 │█ 1"]);
        assert_eq!([signed(0.5), signed(-1200.0), signed(-0.0)], ["+0.5", "-1200", "0"]);
    }
}
