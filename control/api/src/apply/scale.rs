//! Ownership of `replicas` through the scale subresource: the same field as the object's own.
//! Source: apimachinery `pkg/util/managedfields/scalehandler.go`.

use serde_json::Value;

use super::fieldset::FieldSet;
use super::managed::{Entry, Managed};
use super::path::Step;
use crate::crd::Custom;
use crate::registry::Kind;

pub const VERSION: &str = "autoscaling/v1";

/// Where a kind has its `replicas`.
pub fn path(kind: &Kind) -> Vec<Step> {
    match kind.as_custom().and_then(Custom::scale) {
        Some(paths) => paths.spec_replicas.split('.').map(Step::field).collect(),
        None => in_scale(),
    }
}

fn in_scale() -> Vec<Step> {
    vec![Step::field("spec"), Step::field("replicas")]
}

fn only(path: &[Step]) -> FieldSet {
    let mut set = FieldSet::default();
    set.insert(path);
    set
}

/// The managedFields of a Scale: who owns the object's `replicas`, which are at `path`.
pub fn of_object(managed: Option<&Value>, path: &[Step]) -> Option<Value> {
    let mut scale = Managed::decode(managed).unwrap_or_default();
    scale.entries.retain_mut(|entry| {
        let owns = entry.fields.has(path);
        entry.fields = only(&in_scale());
        entry.version = VERSION.to_string();
        owns
    });
    scale.encode()
}

/// The object's managedFields after a write of its Scale, whose managedFields are `scale` now.
/// `version` is that in which the object is written.
pub fn to_object(
    managed: Option<&Value>,
    scale: Option<&Value>,
    path: &[Step],
    version: &str,
) -> Option<Value> {
    let mut object = Managed::decode(managed).unwrap_or_default();
    let mut scale = Managed::decode(scale).unwrap_or_default();
    scale.entries.retain(|entry| entry.fields.has(&in_scale()));
    object.entries.retain_mut(|entry| {
        if !entry.fields.has(path) {
            return true;
        }
        let same = |other: &Entry| {
            let (a, b) = (&entry.manager, &other.manager);
            (&a.name, a.applies, &a.subresource) == (&b.name, b.applies, &b.subresource)
        };
        match scale.entries.iter().position(same) {
            // Theirs before, and still.
            Some(at) => {
                let kept = scale.entries.remove(at);
                entry.time = kept.time;
                true
            }
            None => {
                entry.fields = entry.fields.difference(&only(path));
                !entry.fields.is_empty()
            }
        }
    });
    for mut entry in scale.entries {
        entry.fields = only(path);
        entry.version = version.to_string();
        if !entry.manager.applies {
            entry.manager.version = version.to_string();
        }
        if let Some(before) = object.get(&entry.manager) {
            entry.fields = entry.fields.union(&before.fields);
        }
        object.set(entry);
    }
    object.encode()
}
