//! Turning a row of probe outcomes into a result by the probe's thresholds.

/// Consecutive outcomes so far.
#[derive(Debug, Clone, Default)]
pub struct ProbeCount {
    last: Option<bool>,
    run: u32,
}

impl ProbeCount {
    /// Counts one outcome. Gives the result once enough outcomes in a row agree.
    pub fn count(
        &mut self,
        success: bool,
        success_threshold: u32,
        failure_threshold: u32,
    ) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let needed = if success {
            success_threshold
        } else {
            failure_threshold
        };
        (self.run >= needed.max(1)).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_a_row() {
        let mut c = ProbeCount::default();
        assert_eq!(c.count(false, 1, 3), None);
        assert_eq!(c.count(false, 1, 3), None);
        assert_eq!(c.count(true, 1, 3), Some(true));
        assert_eq!(c.count(false, 1, 3), None);
        assert_eq!(c.count(false, 1, 3), None);
        assert_eq!(c.count(false, 1, 3), Some(false));
        assert_eq!(c.count(false, 1, 3), Some(false));
        assert_eq!(c.count(true, 2, 3), None);
        assert_eq!(c.count(true, 2, 3), Some(true));
    }
}
