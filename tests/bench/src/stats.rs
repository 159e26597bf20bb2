//! Quantiles, and confidence intervals of paired ratios.

use std::time::Duration;

/// Value at quantile `q` (0..=1) of a sample, by the nearest rank.
pub fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let rank = (q * (sorted.len() - 1) as f64).round() as usize;
    sorted[rank]
}

/// p50 and p99 of a run's latencies.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub p50: Duration,
    pub p99: Duration,
}

impl Latency {
    pub fn of(mut sample: Vec<Duration>) -> Latency {
        sample.sort();
        Latency {
            p50: quantile(&sample, 0.5),
            p99: quantile(&sample, 0.99),
        }
    }
}

/// A figure and the 95 % interval of its median.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub low: f64,
    pub mid: f64,
    pub high: f64,
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} [{:.3}, {:.3}]", self.mid, self.low, self.high)
    }
}

/// Median of the values and its 95 % interval, distribution-free: the order statistics that
/// enclose the median with that probability (binomial, normal approximation).
pub fn median_interval(mut values: Vec<f64>) -> Interval {
    assert!(!values.is_empty(), "no pairs were measured");
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let half = 1.96 * n.sqrt() / 2.0;
    let at = |rank: f64| values[(rank.max(0.0) as usize).min(values.len() - 1)];
    Interval {
        low: at((n / 2.0 - half).floor()),
        mid: at(n / 2.0),
        high: at((n / 2.0 + half).ceil()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks() {
        let v: Vec<_> = (0..=100).map(Duration::from_micros).collect();
        assert_eq!(quantile(&v, 0.5), Duration::from_micros(50));
        assert_eq!(quantile(&v, 0.99), Duration::from_micros(99));
    }

    #[test]
    fn interval_encloses_the_median() {
        let i = median_interval((1..=99).map(f64::from).collect());
        assert!(i.low < 50.0 && i.mid == 50.0 && i.high > 50.0, "{i}");
        let one = median_interval(vec![3.0]);
        assert_eq!((one.low, one.mid, one.high), (3.0, 3.0, 3.0));
    }
}
