//! The revisions of a DaemonSet's template, as `kubectl rollout history` and `undo` read them: pure.

use std::sync::Arc;

use k8s_openapi::{
    api::apps::v1::{ControllerRevision, DaemonSet},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use serde_json::{Value, json};

use super::plan::HASH_LABEL;
use crate::{deployment::revision::hash, owner::controller_reference};

/// The patch that gives a set this template back.
fn data(set: &DaemonSet) -> Value {
    let template = set.spec.as_ref().map(|s| &s.template);
    let mut template = serde_json::to_value(template).unwrap_or(Value::Null);
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

fn matches(set: &DaemonSet, revision: &ControllerRevision) -> bool {
    revision.data.as_ref().is_some_and(|d| d.0 == data(set))
}

pub fn hash_of(revision: &ControllerRevision) -> String {
    revision
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get(HASH_LABEL))
        .or(revision.metadata.name.as_ref())
        .cloned()
        .unwrap_or_default()
}

/// The set's revisions, seen from its template now.
#[derive(Debug, Default)]
pub struct History {
    /// The revision of the template; the one with the highest number if there are several.
    pub current: Option<Arc<ControllerRevision>>,
    /// More of the same template: made twice, they go.
    pub twins: Vec<Arc<ControllerRevision>>,
    /// Of other templates, the oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
    /// The number that the current one must at least have.
    pub number: i64,
}

pub fn history(set: &DaemonSet, revisions: &[Arc<ControllerRevision>]) -> History {
    let (mut same, mut old): (Vec<_>, Vec<_>) =
        revisions.iter().cloned().partition(|r| matches(set, r));
    old.sort_by_key(|r| r.revision);
    same.sort_by_key(|r| r.revision);
    let current = same.pop();
    History {
        number: old.last().map_or(0, |r| r.revision) + 1,
        current,
        twins: same,
        old,
    }
}

/// A revision of the template as it is now.
pub fn new_revision(set: &DaemonSet, number: i64) -> ControllerRevision {
    let template = set.spec.as_ref().map(|s| s.template.clone());
    let template = template.unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let hash = hash(&template, collisions.unwrap_or(0));
    let mut labels = template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.clone())
        .unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-{hash}",
                set.metadata.name.as_deref().unwrap_or_default()
            )),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            // `kubernetes.io/change-cause` among them.
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data(set))),
        revision: number,
    }
}

/// Whether an existing object of the name is the revision that was to be made.
pub fn is_ours(set: &DaemonSet, there: &ControllerRevision) -> bool {
    let owned = rhumb_client::informer::controller_of(there)
        .is_some_and(|o| Some(&o.uid) == set.metadata.uid.as_ref());
    owned && matches(set, there)
}

/// The old revisions that are more than the set keeps. Those that pods were made from stay.
pub fn surplus(
    set: &DaemonSet,
    old: &[Arc<ControllerRevision>],
    live: &dyn Fn(&str) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let keep = set
        .spec
        .as_ref()
        .and_then(|s| s.revision_history_limit)
        .unwrap_or(10);
    let mut over = old.len().saturating_sub(usize::try_from(keep).unwrap_or(0));
    let mut out = Vec::new();
    for revision in old {
        if over == 0 {
            break;
        }
        if !live(&hash_of(revision)) {
            out.push(revision.clone());
            over -= 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(image: &str) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u"},
            "spec": {
                "selector": {}, "revisionHistoryLimit": 1,
                "template": {"spec": {"containers": [{"name": "c", "image": image}]}},
            },
        }))
        .unwrap()
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        Arc::new(new_revision(&set(image), number))
    }

    #[test]
    fn a_template_is_found_again_and_numbered_anew() {
        let all = [revision("a", 1), revision("b", 2), revision("b", 3)];
        let now = history(&set("a"), &all);
        assert_eq!(now.current.unwrap().revision, 1);
        assert_eq!(now.number, 4, "an undone template is the newest again");
        assert_eq!(now.old.len(), 2);
        let now = history(&set("b"), &all);
        assert_eq!(now.current.unwrap().revision, 3);
        assert_eq!((now.twins.len(), now.number), (1, 2));
        assert!(history(&set("c"), &all).current.is_none());
    }

    #[test]
    fn a_revision_is_a_patch_that_kubectl_can_apply() {
        let made = new_revision(&set("a"), 1);
        let data = made.data.clone().unwrap().0;
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        assert_eq!(
            data["spec"]["template"]["spec"]["containers"][0]["image"],
            "a"
        );
        assert_eq!(
            made.metadata.name.as_deref().unwrap(),
            format!("d-{}", hash_of(&made))
        );
        assert!(is_ours(&set("a"), &made));
        assert!(!is_ours(&set("b"), &made));
    }

    #[test]
    fn what_pods_run_is_kept() {
        let old = [revision("a", 1), revision("b", 2), revision("c", 3)];
        let live = hash_of(&old[0]);
        let gone = surplus(&set("d"), &old, &|hash| hash == live);
        let numbers: Vec<i64> = gone.iter().map(|r| r.revision).collect();
        assert_eq!(numbers, [2, 3]);
        let none = surplus(&set("d"), &old[..1], &|_| false);
        assert!(none.is_empty());
    }
}
