//! The scale subresource of deployments, replica sets and custom kinds: `autoscaling/v1` Scale.

use serde_json::{Value, json};

use crate::crd::Custom;
use crate::json::{self, at, int, text};
use crate::registry::Kind;
use crate::selector::LabelSelector;
use crate::status::{ApiError, Errors, Result};

/// The Scale of an object; `None` if it doesn't say how many replicas it wants.
pub fn of(kind: &Kind, object: &Value) -> Option<Value> {
    let mut meta = json!({
        "name": text(object, "metadata.name"),
        "namespace": text(object, "metadata.namespace"),
    });
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            meta[field] = value.clone();
        }
    }
    let (wanted, running, selector) = match kind.as_custom().and_then(Custom::scale) {
        Some(paths) => (
            int(object, &paths.spec_replicas)?,
            int(object, &paths.status_replicas),
            text(object, &paths.selector).to_string(),
        ),
        None => {
            let selector = selector_of(object);
            let shown = match selector.is_everything() {
                true => String::new(),
                false => selector.to_string(),
            };
            (
                int(object, "spec.replicas").unwrap_or(0),
                int(object, "status.replicas"),
                shown,
            )
        }
    };
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": {}, "status": {"replicas": running.unwrap_or(0)},
    });
    if wanted != 0 {
        scale["spec"]["replicas"] = wanted.into();
    }
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    Some(scale)
}

/// Replication controllers have a map of labels where the others have a label selector.
fn selector_of(object: &Value) -> LabelSelector {
    let given = at(object, "spec.selector");
    if text(object, "kind") == "ReplicationController" {
        return LabelSelector::from_object(Some(&json!({"matchLabels": given})));
    }
    LabelSelector::from_object(given)
}

/// The object with the replicas of a Scale. The caller goes on with `strategy::prepare_update`,
/// which also checks the Scale's uid and resourceVersion, copied here.
pub fn apply(kind: &Kind, object: &Value, scale: &Value) -> Result<Value> {
    let name = text(object, "metadata.name");
    let given = text(scale, "metadata.name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let replicas = int(scale, "spec.replicas").unwrap_or(0);
    let mut errors = Errors::default();
    if replicas < 0 {
        errors.invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        );
    }
    errors.into_result(kind, name)?;
    let mut scaled = object.clone();
    for field in ["uid", "resourceVersion"] {
        let value = text(scale, &format!("metadata.{field}"));
        if !value.is_empty() {
            scaled["metadata"][field] = value.into();
        }
    }
    let path = match kind.as_custom().and_then(Custom::scale) {
        Some(paths) => paths.spec_replicas.as_str(),
        None => "spec.replicas",
    };
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut place = Some(&mut scaled);
    for key in parents.split('.').filter(|key| !key.is_empty()) {
        place = place.and_then(|place| json::child(place, key));
    }
    if let Some(place) = place {
        json::put(place, last, Some(replicas.into()));
    }
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;

    #[test]
    fn there_and_back() {
        let kind = find("apps", "v1", "deployments").unwrap();
        let d = json!({
            "metadata": {"name": "d", "namespace": "n", "resourceVersion": "7"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}},
            "status": {"replicas": 1},
        });
        let mut scale = of(kind, &d).unwrap();
        assert_eq!(scale["spec"]["replicas"], 2);
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=x"}));
        scale["spec"]["replicas"] = 5.into();
        assert_eq!(apply(kind, &d, &scale).unwrap()["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = (-1).into();
        assert_eq!(apply(kind, &d, &scale).unwrap_err().code, 422);
    }
}
