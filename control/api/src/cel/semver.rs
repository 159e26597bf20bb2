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
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut parts: Vec<&str> = core
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            trimmed => trimmed,
        })
        .collect();
    while parts.len() < 3 {
        parts.push("0");
    }
    format!("{}{rest}", parts.join("."))
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
        assert_eq!(parse("v1-rc.1", true), parse("1.0.0-rc.1", false));
        assert!(parse("vv1", true).is_none());
    }
}
