//! `resource.Quantity`: fixed point with the suffixes of Kubernetes. Kept in units of 10⁻⁹, the
//! finest that Kubernetes knows. Source: apimachinery `pkg/api/resource`.

use std::fmt;

/// One unit in the inner scale.
const NANO: i128 = 1_000_000_000;
/// The largest magnitude: 2⁶³−1 whole units.
const MAX: i128 = i64::MAX as i128 * NANO;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nanos: 0,
        format: Format::DecimalSi,
    };

    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(ParseError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        if number.is_empty()
            || !suffix
                .chars()
                .all(|c| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c))
        {
            return Err(ParseError::Format);
        }
        let (whole, fraction) = match number.split_once('.') {
            Some((_, fraction)) if fraction.contains('.') => return Err(ParseError::Numeric),
            Some((whole, fraction)) => (whole, fraction),
            None => (number, ""),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(ParseError::Numeric);
        }
        let (format, scale) = scale(suffix).ok_or(ParseError::Suffix)?;
        let magnitude = magnitude(whole, fraction, scale).min(MAX);
        Ok(Quantity {
            nanos: if negative { -magnitude } else { magnitude },
            format,
        })
    }

    /// A whole number of units.
    pub fn from_units(units: i64) -> Self {
        Quantity {
            nanos: i128::from(units) * NANO,
            format: Format::DecimalSi,
        }
    }

    pub fn from_millis(millis: i64) -> Self {
        Quantity {
            nanos: i128::from(millis) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// A whole number of bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Quantity {
            nanos: i128::from(bytes) * NANO,
            format: Format::BinarySi,
        }
    }

    /// Whole units, rounded up (away from zero), as Go's `Value()`.
    pub fn units(self) -> i64 {
        self.rounded(NANO)
    }

    /// Thousandths, rounded up, as Go's `MilliValue()`.
    pub fn millis(self) -> i64 {
        self.rounded(NANO / 1000)
    }

    /// No finer than a thousandth, rounded up: what Kubernetes makes of every list of resources.
    pub fn to_millis(self) -> Self {
        let milli = NANO / 1000;
        Quantity {
            nanos: div_up(self.nanos.abs(), milli) * milli * self.nanos.signum(),
            format: self.format,
        }
    }

    fn rounded(self, unit: i128) -> i64 {
        let up = div_up(self.nanos.abs(), unit) * self.nanos.signum();
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    pub fn saturating_add(self, other: Self) -> Self {
        let format = if self.nanos == 0 {
            other.format
        } else {
            self.format
        };
        Quantity {
            nanos: (self.nanos + other.nanos).clamp(-MAX, MAX),
            format,
        }
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 {
            other.format
        } else {
            self.format
        };
        Quantity {
            nanos: (self.nanos - other.nanos).clamp(-MAX, MAX),
            format,
        }
    }
}

/// Quantities are equal by value, however they are written.
impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Quantity::parse(text)
    }
}

fn div_up(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

/// A power of ten, or a power of 1024.
enum Scale {
    Ten(i32),
    Binary(u32),
}

fn scale(suffix: &str) -> Option<(Format, Scale)> {
    let decimal = |power| Some((Format::DecimalSi, Scale::Ten(power)));
    let binary = |power| Some((Format::BinarySi, Scale::Binary(power)));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let power = exponent.parse::<i32>().ok()?;
            Some((Format::DecimalExponent, Scale::Ten(power)))
        }
    }
}

/// `whole.fraction × scale` in nanos, rounded up, saturating.
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let digits = |text: &str| {
        text.bytes().fold(0_i128, |n, d| {
            n.saturating_mul(10)
                .saturating_add(i128::from(d - b'0'))
                .min(i128::MAX / 16)
        })
    };
    match scale {
        Scale::Ten(power) => {
            // All digits as an integer, and where its point is.
            let fraction = fraction.trim_end_matches('0');
            let all = format!("{whole}{fraction}");
            let all = all.trim_start_matches('0');
            if all.is_empty() {
                return 0;
            }
            let power = i64::from(power) + 9 - fraction.len() as i64;
            if power >= 0 {
                if all.len() as i64 + power > 37 {
                    return MAX;
                }
                digits(all).saturating_mul(10_i128.pow(power as u32))
            } else {
                let drop = power.unsigned_abs() as usize;
                if drop >= all.len() {
                    // Less than one nano: rounds up to one.
                    return 1;
                }
                let (kept, lost) = all.split_at(all.len() - drop);
                if kept.len() > 36 {
                    return MAX;
                }
                digits(kept) + i128::from(lost.bytes().any(|d| d != b'0'))
            }
        }
        Scale::Binary(power) => {
            let unit = 1_i128 << (10 * power);
            let whole = digits(whole).min(i128::from(i64::MAX));
            let whole = whole.saturating_mul(unit).saturating_mul(NANO);
            // Eighteen digits are enough for nanos of an Ei.
            let fraction = &fraction[..fraction.len().min(18)];
            let part = div_up(
                digits(fraction).saturating_mul(unit),
                10_i128.pow(fraction.len() as u32),
            );
            // Fractions of a byte are kept only as far as the division above keeps them.
            let part = if digits(fraction).checked_mul(unit * NANO).is_some() {
                div_up(
                    digits(fraction) * unit * NANO,
                    10_i128.pow(fraction.len() as u32),
                )
            } else {
                part.saturating_mul(NANO)
            };
            whole.saturating_add(part)
        }
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that keeps the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let value = self.nanos.abs();
        // What is no whole number would lose precision: it is decimal, as in Go.
        if self.format == Format::BinarySi && value >= 1024 * NANO && value % NANO == 0 {
            let mut units = value / NANO;
            let mut power = 0;
            while units % 1024 == 0 && power < 6 {
                units /= 1024;
                power += 1;
            }
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power];
            return write!(f, "{sign}{units}{suffix}");
        }
        let mut mantissa = value;
        let mut power = -9;
        while mantissa % 1000 == 0 && power < 18 {
            mantissa /= 1000;
            power += 3;
        }
        if self.format == Format::DecimalExponent && power != 0 {
            return write!(f, "{sign}{mantissa}e{power}");
        }
        let suffix = match power {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{sign}{mantissa}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("1", "1"),
            ("1000", "1k"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.1", "100m"),
            ("1.5Gi", "1536Mi"),
            ("0.9Gi", "966367641600m"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e-3", "12e-3"),
            ("1E", "1E"),
            ("100m", "100m"),
            ("0.0000000001", "1n"),
            ("-3", "-3"),
            ("+2", "2"),
            (".5", "500m"),
            ("2.", "2"),
            ("9999999999999999999999", "9223372036854775807"),
            ("64Mi", "64Mi"),
        ] {
            assert_eq!(
                Quantity::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
        for bad in [
            "", "x", "1x", "1 ", "1..2", ".", "-", "1ki", "1ee3", "1e", "1mm", "٣",
        ] {
            assert!(Quantity::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert_eq!(q("1500m").units(), 2);
        assert_eq!(q("1500m").millis(), 1500);
        assert_eq!(q("1u").millis(), 1);
        assert_eq!(q("64Mi").units(), 64 << 20);
        assert_eq!(q("0.1Mi").units(), 104_858);
        assert_eq!(q("1k"), q("1000"));
        assert!(q("1Ki") > q("1k"));
        assert_eq!(q("250m").saturating_add(q("750m")).to_string(), "1");
        assert!(!q("1500m").is_integer());
        assert_eq!(Quantity::from_bytes(1 << 30).to_string(), "1Gi");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn plausible_text_never_panics(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn canonical_form_keeps_the_value(n in 0_i64..=i64::MAX / 1024, s in prop::sample::select(
            vec!["n", "u", "m", "", "k", "Ki", "e2", "e-3"])) {
            let q = Quantity::parse(&format!("{n}{s}")).unwrap();
            prop_assert_eq!(Quantity::parse(&q.to_string()).unwrap(), q);
        }
    }
}
