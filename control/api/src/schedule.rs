//! Schedules of CronJobs in the standard form of five fields, as the cron parser that Kubernetes
//! uses reads them. Only whether a schedule can be read; nothing runs by it yet.

use std::fmt;

/// Why a schedule can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// A schedule that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(());

/// Smallest and largest value of a field, and the names that stand for values.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Bounds; 5] = [
    Bounds {
        low: 0,
        high: 59,
        names: &[],
    },
    Bounds {
        low: 0,
        high: 23,
        names: &[],
    },
    Bounds {
        low: 1,
        high: 31,
        names: &[],
    },
    Bounds {
        low: 1,
        high: 12,
        names: MONTHS,
    },
    Bounds {
        low: 0,
        high: 6,
        names: DAYS,
    },
];

const DESCRIPTORS: &[&str] = &[
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

impl Schedule {
    pub fn parse(text: &str) -> Result<Schedule, Fault> {
        let mut text = text;
        for prefix in ["TZ=", "CRON_TZ="] {
            if let Some(rest) = text.strip_prefix(prefix) {
                // The zone itself is refused elsewhere.
                text = rest.split_once(' ').map_or("", |(_, rest)| rest).trim();
            }
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(Fault(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            )));
        }
        for (field, bounds) in fields.iter().zip(&FIELDS) {
            for part in field.split(',').filter(|p| !p.is_empty()) {
                range(part, bounds)?;
            }
        }
        Ok(Schedule(()))
    }
}

fn descriptor(text: &str) -> Result<Schedule, Fault> {
    if DESCRIPTORS.contains(&text) {
        return Ok(Schedule(()));
    }
    match text.strip_prefix("@every ") {
        Some(duration) if go_duration(duration) => Ok(Schedule(())),
        Some(_) => Err(Fault(format!("failed to parse duration {text}"))),
        None => Err(Fault(format!("unrecognized descriptor: {text}"))),
    }
}

/// Go's `1h30m`.
fn go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        if digits == 0 || rest[..digits].matches('.').count() > 1 || &rest[..digits] == "." {
            return false;
        }
        rest = &rest[digits..];
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"]
            .into_iter()
            .filter(|unit| rest.starts_with(unit))
            .max_by_key(|unit| unit.len());
        match unit {
            Some(unit) => rest = &rest[unit.len()..],
            None => return false,
        }
    }
    true
}

/// `*`, `7`, `mon-fri`, each with `/2` behind it.
fn range(part: &str, bounds: &Bounds) -> Result<(), Fault> {
    let (ends, step) = match part.split('/').collect::<Vec<_>>().as_slice() {
        [ends] => (*ends, None),
        [ends, step] => (*ends, Some(*step)),
        _ => return Err(Fault(format!("too many slashes: {part}"))),
    };
    let (start, end) = match ends.split('-').collect::<Vec<_>>().as_slice() {
        ["*" | "?"] => (bounds.low, bounds.high),
        [one] => {
            let start = number_or_name(one, bounds)?;
            // `7/2` goes on to the end.
            let end = if step.is_some() { bounds.high } else { start };
            (start, end)
        }
        [from, to] if !matches!(*from, "*" | "?") => {
            (number_or_name(from, bounds)?, number_or_name(to, bounds)?)
        }
        [_, _] => (bounds.low, bounds.high),
        _ => return Err(Fault(format!("too many hyphens: {part}"))),
    };
    let step = match step {
        Some(step) => number(step)?,
        None => 1,
    };
    if start < bounds.low {
        return Err(Fault(format!(
            "beginning of range ({start}) below minimum ({}): {part}",
            bounds.low
        )));
    }
    if end > bounds.high {
        return Err(Fault(format!(
            "end of range ({end}) above maximum ({}): {part}",
            bounds.high
        )));
    }
    if start > end {
        return Err(Fault(format!(
            "beginning of range ({start}) beyond end of range ({end}): {part}"
        )));
    }
    if step == 0 {
        return Err(Fault(format!(
            "step of range should be a positive number: {part}"
        )));
    }
    Ok(())
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, Fault> {
    let lower = text.to_lowercase();
    if let Some(i) = bounds.names.iter().position(|n| *n == lower) {
        return Ok(bounds.low + i as u32);
    }
    number(text)
}

fn number(text: &str) -> Result<u32, Fault> {
    if text.starts_with('-') {
        return Err(Fault(format!(
            "negative number ({text}) not allowed: {text}"
        )));
    }
    text.parse().map_err(|_| {
        Fault(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6,12 1 jan-MAR mon-fri",
            "0 0 31 12 6",
            "30/10 * ? * 0",
            "@hourly",
            "@every 1h30m",
            "TZ=Europe/Paris 0 0 * * *",
        ] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@often", "unrecognized descriptor: @often"),
            (
                "@every fortnight",
                "failed to parse duration @every fortnight",
            ),
        ] {
            assert_eq!(Schedule::parse(bad).unwrap_err().to_string(), why, "{bad}");
        }
    }
}
