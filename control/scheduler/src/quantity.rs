//! Quantities as integers: rounded up, as a scheduler must.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn parse(text: &str) -> Option<f64> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (n, suffix) = text.split_at(split);
    let n: f64 = n.parse().ok()?;
    Some(
        n * match suffix {
            "" => 1.0,
            "n" => 1e-9,
            "u" => 1e-6,
            "m" => 1e-3,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "Ki" => 1024.0,
            "Mi" => 1048576.0,
            "Gi" => 1073741824.0,
            "Ti" => 1099511627776.0,
            _ => return None,
        },
    )
}

/// In thousandths, rounded up. What can't be read (the server validates quantities) counts as nothing.
pub fn milli(quantity: &Quantity) -> i64 {
    parse(&quantity.0).map_or(0, |n| (n * 1000.0 - 1e-6).ceil() as i64)
}

/// In whole units, rounded up.
pub fn whole(quantity: &Quantity) -> i64 {
    parse(&quantity.0).map_or(0, |n| (n - 1e-6).ceil() as i64)
}
