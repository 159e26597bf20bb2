//! Kubernetes resource quantities as integers.
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

const NANO: i128 = 1_000_000_000;

/// A quantity in billionths, or `None` if it can't be read.
fn nanos(text: &str) -> Option<i128> {
    let text = text.trim();
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.contains('.')
        || whole.len() > 24
        || fraction.len() > 24
    {
        return None;
    }
    // The number is value / 10^scale.
    let value: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = fraction.len() as i32;
    let (multiplier, exponent): (i128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (
            1,
            suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into(),
        ),
    };
    let exponent = exponent + 9 - scale;
    let value = value.checked_mul(multiplier)?;
    let value = if exponent >= 0 {
        value.checked_mul(10i128.checked_pow(exponent as u32)?)?
    } else {
        let divisor = 10i128.checked_pow(exponent.unsigned_abs())?;
        // Kubernetes rounds away from zero.
        value.checked_add(divisor - 1)? / divisor
    };
    Some(if negative { -value } else { value })
}

fn ceil_div(value: i128, unit: i128) -> i64 {
    let up = if value > 0 {
        (value + unit - 1) / unit
    } else {
        value / unit
    };
    up.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Thousandths, rounded up (`cpu: 1500m` is 1500).
pub fn milli(text: &str) -> Option<i64> {
    nanos(text).map(|n| ceil_div(n, NANO / 1000))
}

/// Whole units, rounded up (`memory: 1Ki` is 1024).
pub fn whole(text: &str) -> Option<i64> {
    nanos(text).map(|n| ceil_div(n, NANO))
}

/// `value / divisor`, rounded up, as the downward API writes resources.
pub fn divided(value: &str, divisor: &str) -> Option<i64> {
    let divisor = match nanos(divisor)? {
        0 => NANO,
        d => d,
    };
    nanos(value).map(|v| ceil_div(v, divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_suffix() {
        for (text, want) in [
            ("1", 1),
            ("1500m", 2),
            ("128Mi", 134_217_728),
            ("1.5Gi", 1_610_612_736),
            ("2k", 2000),
            ("1e3", 1000),
            ("12E2", 1200),
            ("0.5", 1),
            ("-3", -3),
            ("1E", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(whole(text), Some(want), "{text}");
        }
        assert_eq!(milli("100m"), Some(100));
        assert_eq!(milli("0.1"), Some(100));
        assert_eq!(milli("1u"), Some(1));
        assert_eq!(milli("2"), Some(2000));
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in [
            "",
            "m",
            ".",
            "1.2.3",
            "1Q",
            "abc",
            "1e",
            "99999999999999999999999999Ei",
            "1e99",
            "--1",
        ] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn divides_rounding_up() {
        assert_eq!(divided("1500m", "1"), Some(2));
        assert_eq!(divided("1500m", "1m"), Some(1500));
        assert_eq!(divided("64Mi", "1Mi"), Some(64));
        assert_eq!(divided("5", "0"), Some(5));
    }
}
