//! The formats of strings that are checked. Source: kube-openapi `pkg/validation/strfmt`.

use crate::time;

/// Formats that a schema may name. Others that Kubernetes checks are refused by name at the
/// definition; what Kubernetes doesn't know either says nothing, as there.
pub const CHECKED: &[&str] = &[
    "date",
    "date-time",
    "datetime",
    "duration",
    "byte",
    "cidr",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "mac",
    "uri",
    "uuid",
];
pub const NOT_CHECKED: &[&str] = &[
    "bsonobjectid",
    "creditcard",
    "hexcolor",
    "isbn",
    "isbn10",
    "isbn13",
    "rgbcolor",
    "ssn",
    "uuid3",
    "uuid4",
    "uuid5",
];

pub fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => time::parse(text).is_some(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "duration" => duration(text),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .is_ok()
        }
        "cidr" => text.contains('/') && text.parse::<ipnetwork::IpNetwork>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "mac" => mac(text),
        "uuid" => uuid(text),
        "email" => text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !user.contains(char::is_whitespace) && hostname(host)
        }),
        "hostname" => hostname(text),
        "uri" => uri(text),
        _ => true,
    }
}

fn hostname(text: &str) -> bool {
    text.len() <= 255
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            (1..=63).contains(&bytes.len())
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-'
        })
}

/// Six (or eight) pairs of hexadecimal digits.
fn mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split([':', '-']).collect();
    matches!(pairs.len(), 6 | 8)
        && pairs
            .iter()
            .all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn uuid(text: &str) -> bool {
    let digits = text.bytes().filter(|b| *b != b'-').count();
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    digits == 32
        && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        && (dashes.is_empty() || dashes == [8, 13, 18, 23])
}

/// A scheme, or an absolute path, as Go's `url.ParseRequestURI` takes it.
pub fn uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            && !rest.is_empty()
    })
}

/// Go's durations (`1h30m`), as the checks of Kubernetes take them.
pub fn duration(text: &str) -> bool {
    nanoseconds(text).is_some()
}

/// The nanoseconds of a duration in Go's form.
pub fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    let total = if negative { -total } else { total };
    (total.abs() < 9.2e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (format, good, bad) in [
            ("date-time", "2026-01-01T00:00:00Z", "2026-01-01"),
            ("date", "2026-01-31", "2026-02-31"),
            ("duration", "1h30m", "1 hour"),
            ("byte", "eHg=", "*"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("ipv4", "10.0.0.1", "::1"),
            ("ipv6", "::1", "10.0.0.1"),
            ("mac", "aa:bb:cc:00:11:22", "aa:bb"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
            ("email", "a@example.com", "a"),
            ("hostname", "a.example", "-a"),
            ("uri", "https://example.com/a", "example.com"),
        ] {
            assert!(CHECKED.contains(&format) && fits(format, good), "{format}");
            assert!(!fits(format, bad), "{format}");
        }
        assert_eq!(nanoseconds("1.5s"), Some(1_500_000_000));
    }
}
