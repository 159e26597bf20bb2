//! Quantities as integers, rounded up, as a scheduler must. What can't be read (the server validates
//! quantities) counts as nothing.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use rhumb_api::quantity::Quantity;

/// In thousandths.
pub fn milli(quantity: &Text) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, Quantity::millis)
}

/// In whole units.
pub fn whole(quantity: &Text) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, Quantity::units)
}
