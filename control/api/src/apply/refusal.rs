//! Conflicts, as clients are told of them.
//! Source: apimachinery `pkg/util/managedfields/internal/conflict.go`.

use serde_json::{Map, Value, json};

use super::managed::Manager;
use super::path::{Step, shown};
use crate::status::ApiError;

/// A field that the configuration wants to change, and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub manager: Manager,
    pub path: Vec<Step>,
}

/// The refusal of an apply. `conflicts` are sorted by manager.
pub fn conflicts(conflicts: &[Conflict]) -> ApiError {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", conflict.manager.shown()),
                "field": shown(&conflict.path),
            })
        })
        .collect();
    let mut error = ApiError::new(409, "Conflict", message(conflicts));
    error.details = Some(Box::new(Map::from_iter([(
        "causes".to_string(),
        causes.into(),
    )])));
    error
}

fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.manager.shown(),
            shown(&one.path)
        );
    }
    let mut lines = Vec::new();
    for of_one in conflicts.chunk_by(|a, b| a.manager == b.manager) {
        lines.push(format!("conflicts with {}:", of_one[0].manager.shown()));
        lines.extend(of_one.iter().map(|c| format!("- {}", shown(&c.path))));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}
