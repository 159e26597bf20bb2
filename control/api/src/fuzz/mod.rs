//! Fuzzing of what reads bytes and texts of clients (`rhumb_fuzz`): nothing panics, nothing takes
//! long, and what is refused is refused as a client's fault. `robust` walks objects of valid types.

mod bodies;
mod definitions;
mod texts;

use serde_json::Value;

use crate::registry::{KINDS, Kind};
use crate::status::ApiError;
use rhumb_fuzz::Dice;

fn any_kind(dice: &mut Dice) -> &'static Kind {
    &KINDS[dice.index(KINDS.len())]
}

/// An object of the kind, or nearly so.
fn object(kind: &Kind, dice: &mut Dice) -> Value {
    let mut object = crate::robust::seeded(kind, dice.roll(1 << 32));
    if !object.is_object() {
        object = serde_json::json!({});
    }
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.as_ref().into();
    object["metadata"] = serde_json::json!({"name": "name"});
    object
}

/// A refusal is never the server's fault.
fn blames_the_client<T>(result: Result<T, ApiError>) -> Option<T> {
    result
        .map_err(|error| assert!((400..500).contains(&error.code), "{error:?}"))
        .ok()
}
