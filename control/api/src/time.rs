//! Times on the wire (RFC 3339, seconds or microseconds) and Kubernetes' human durations.

use jiff::Timestamp;
use serde_json::Value;

/// `2026-01-02T03:04:05Z`, the form of `metav1.Time`.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.000006Z`, the form of `metav1.MicroTime`.
pub fn format_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Seconds between a wire time and now; `None` if there is no such time.
pub fn age_seconds(time: Option<&Value>, now: Timestamp) -> Option<i64> {
    let then = parse(time?.as_str()?)?;
    Some(now.as_second().saturating_sub(then.as_second()))
}

/// The AGE of a table: `<unknown>` if the time is absent.
pub fn age(time: Option<&Value>, now: Timestamp) -> String {
    match age_seconds(time, now) {
        Some(seconds) => human(seconds),
        None => "<unknown>".to_string(),
    }
}

/// `duration.HumanDuration`: `45s`, `2m5s`, `5h10m`, `3d2h`, `400d`, `2y10d`.
pub fn human(seconds: i64) -> String {
    // Small clock skew shows as 0s, more as <invalid>.
    if seconds < -1 {
        return "<invalid>".to_string();
    }
    if seconds < 0 {
        return "0s".to_string();
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let pair = |a: i64, ua: &str, b: i64, ub: &str| {
        if b == 0 {
            format!("{a}{ua}")
        } else {
            format!("{a}{ua}{b}{ub}")
        }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => pair(days, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_durations() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            (731 * 86400, "2y1d"),
            (365 * 9 * 86400, "9y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn wire_times() {
        let t = parse("2026-01-02T03:04:05.123456Z").unwrap();
        assert_eq!(format(t), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro(t), "2026-01-02T03:04:05.123456Z");
        assert_eq!(
            parse("2026-01-02T03:04:05+01:00").map(format).unwrap(),
            "2026-01-02T02:04:05Z"
        );
        assert!(parse("yesterday").is_none());
    }
}
