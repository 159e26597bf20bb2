//! Exponential back-off for container restarts and image pulls.

/// First wait.
pub const INITIAL_MS: i64 = 10_000;
/// Longest wait.
pub const MAX_MS: i64 = 300_000;

/// One back-off entry. Times are milliseconds of any one clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    wait_ms: i64,
    updated_ms: i64,
}

impl Backoff {
    /// How long to wait still at `now`, when the thing that failed ended at `ended`.
    /// The first try after a failure does not wait.
    pub fn remaining(&self, ended: i64, now: i64) -> i64 {
        if self.wait_ms == 0 || self.stale(ended) {
            return 0;
        }
        (ended + self.wait_ms - now).clamp(0, self.wait_ms)
    }

    /// The wait that the entry currently asks for.
    pub fn wait_ms(&self) -> i64 {
        self.wait_ms
    }

    /// Records a new try at `now`, after a failure that ended at `ended`.
    pub fn advance(&mut self, ended: i64, now: i64) {
        self.wait_ms = if self.wait_ms == 0 || self.stale(ended) {
            INITIAL_MS
        } else {
            (self.wait_ms * 2).min(MAX_MS)
        };
        self.updated_ms = now;
    }

    /// A thing that worked for twice the longest wait starts afresh.
    fn stale(&self, ended: i64) -> bool {
        ended - self.updated_ms > 2 * MAX_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_five_minutes() {
        let mut b = Backoff::default();
        let mut now = 0;
        assert_eq!(b.remaining(now, now), 0, "the first restart is at once");
        let mut seen = vec![];
        for _ in 0..8 {
            b.advance(now, now);
            now += 1;
            seen.push(b.remaining(now, now));
            now += b.remaining(now, now);
        }
        assert_eq!(
            seen,
            [
                10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000
            ]
        );
    }

    #[test]
    fn resets_after_ten_minutes_of_work() {
        let mut b = Backoff::default();
        b.advance(0, 0);
        b.advance(1, 1);
        assert_eq!(b.wait_ms(), 20_000);
        let ended = 1 + 2 * MAX_MS + 1;
        assert_eq!(b.remaining(ended, ended), 0);
        b.advance(ended, ended);
        assert_eq!(b.wait_ms(), INITIAL_MS);
    }

    #[test]
    fn a_clock_that_went_back_never_waits_longer() {
        let mut b = Backoff::default();
        b.advance(0, 0);
        assert_eq!(b.remaining(100_000, 0), INITIAL_MS);
    }
}
