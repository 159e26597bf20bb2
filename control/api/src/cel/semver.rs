//! Semantic versions. Source: semver.org 2.0.0, Kubernetes `pkg/cel/library/semverlib.go`.

use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    /// The identifiers behind `-`.
    pre: Vec<Identifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    /// Numbers come before words.
    Number(u64),
    Word(String),
}

fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    (plain && !leading_zero).then(|| text.parse().ok())?
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `v1.2` and `01.2` become what they mean: without the letter, with three numbers, without zeros
/// in front.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
    while parts.len() < 3 {
        parts.push("0".into());
    }
    parts.join(".")
}

fn without_zeros(part: &str) -> String {
    let trimmed = part.trim_start_matches('0');
    match part.len() > 1 && !trimmed.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("0{trimmed}"),
        false if part.len() > 1 => trimmed.to_string(),
        false => part.to_string(),
    }
}

/// Why a text is no version, as the library that Kubernetes uses says it.
pub fn fault(text: &str, normalize: bool) -> String {
    let text = match normalize {
        true => normalized(text),
        false => text.to_string(),
    };
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    let &[major, minor, rest] = parts.as_slice() else {
        return match text.is_empty() {
            true => "Version string empty".into(),
            false => "No Major.Minor.Patch elements found".into(),
        };
    };
    let patch = &rest[..rest.find(['-', '+']).unwrap_or(rest.len())];
    for (name, part) in [("major", major), ("minor", minor), ("patch", patch)] {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return format!("Invalid character(s) found in {name} number {part:?}");
        }
        if part.len() > 1 && part.starts_with('0') {
            let name = name[..1].to_uppercase() + &name[1..];
            return format!("{name} number must not contain leading zeroes {part:?}");
        }
    }
    format!("Invalid character(s) found in prerelease or build metadata of {text:?}")
}

pub fn parse(text: &str, normalize: bool) -> Option<Semver> {
    let owned = normalize.then(|| normalized(text));
    let text = owned.as_deref().unwrap_or(text);
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    if build.is_some_and(|b| !b.split('.').all(is_word)) {
        return None;
    }
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (text, None),
    };
    let numbers: Option<Vec<u64>> = core.split('.').map(number).collect();
    let [major, minor, patch] = numbers?[..] else {
        return None;
    };
    let identifier = |text: &str| {
        if !is_word(text) {
            return None;
        }
        match text.bytes().all(|b| b.is_ascii_digit()) {
            true => number(text).map(Identifier::Number),
            false => Some(Identifier::Word(text.to_string())),
        }
    };
    let pre: Option<Vec<Identifier>> = match pre {
        Some(pre) => pre.split('.').map(identifier).collect(),
        None => Some(Vec::new()),
    };
    Some(Semver {
        major,
        minor,
        patch,
        pre: pre?,
    })
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Semver) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Semver) -> Ordering {
        let numbers = |v: &Semver| (v.major, v.minor, v.patch);
        let by_pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // The release comes after what led to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        };
        numbers(self).cmp(&numbers(other)).then_with(by_pre)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_specification() {
        let order = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2.0.0",
        ];
        let versions: Vec<Semver> = order.iter().map(|v| parse(v, false).unwrap()).collect();
        assert!(versions.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(
            parse("1.0.0+a", false)
                .unwrap()
                .cmp(&parse("1.0.0+b", false).unwrap()),
            Ordering::Equal
        );
    }

    #[test]
    fn what_is_none() {
        for text in [
            "", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "1.0.0-ä", "-1.0.0",
        ] {
            assert!(parse(text, false).is_none(), "{text}");
        }
        assert_eq!(parse("v1.02", true), parse("1.2.0", false));
        assert!(parse("v1-rc.1", true).is_none());
        assert_eq!(parse("1.02.03-rc.1", true), parse("1.2.3-rc.1", false));
        assert_eq!(parse("00.0.000", true), parse("0.0.0", false));
        assert_eq!(fault("1.0", false), "No Major.Minor.Patch elements found");
        assert_eq!(
            fault("1.x.0", false),
            "Invalid character(s) found in minor number \"x\""
        );
        assert!(parse("vv1", true).is_none());
    }
}
