//! Admission by PriorityClasses: pods get the priority of theirs, and one class is the default.

use rhumb_api::admission;
use rhumb_api::json::{flag, text};
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Result};
use rhumb_api::strategy;
use serde_json::Value;

use super::{Request, store_error, store_key};
use crate::object;

fn classes(request: &Request) -> Vec<Value> {
    registry::find("scheduling.k8s.io", "v1", "priorityclasses")
        .and_then(|kind| request.api.cache.collection(kind))
        .map(|collection| collection.list(""))
        .unwrap_or_default()
        .iter()
        .map(|class| class.value())
        .collect()
}

/// Gives a new pod its priority.
pub async fn pod(request: &Request, pod: &mut Value) -> Result<()> {
    let mut known = classes(request);
    let named = text(pod, "spec.priorityClassName").to_string();
    let listed = known.iter().any(|c| text(c, "metadata.name") == named);
    // The cache may be a moment behind.
    if !named.is_empty()
        && !listed
        && let Some(kind) = registry::find("scheduling.k8s.io", "v1", "priorityclasses")
    {
        let key = store_key(kind, "", &named);
        let stored = request.api.store.get(&key).await.map_err(store_error)?;
        if let Some(kv) = stored {
            known.push(object::value_of(&kv).map_err(ApiError::internal)?);
        }
    }
    let name = strategy::called(pod).to_string();
    let admitted =
        admission::priority_class_of(pod, &known).and_then(|class| admission::priority(pod, class));
    admitted.map_err(|why| ApiError::forbidden(&request.kind, &name, &why))
}

/// There is at most one default class.
pub fn class(request: &Request, class: &Value) -> Result<()> {
    if !flag(class, "globalDefault") {
        return Ok(());
    }
    let name = text(class, "metadata.name");
    let other = classes(request)
        .into_iter()
        .find(|c| flag(c, "globalDefault") && text(c, "metadata.name") != name);
    match other {
        None => Ok(()),
        Some(other) => Err(ApiError::forbidden(
            &request.kind,
            name,
            &format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                text(&other, "metadata.name")
            ),
        )),
    }
}
