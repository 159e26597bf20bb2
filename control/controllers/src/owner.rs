//! Owner references: made, and used to tell which objects a controller owns, may adopt or must let go.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Resource,
    core::{Selector, SelectorExt},
};
use rhumb_client::informer::controller_of;

/// The reference by which `owner` controls what it makes.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What a controller makes of the objects of its kind in its namespace.
#[derive(Debug)]
pub struct Claim<K> {
    /// Its own, and matching.
    pub owned: Vec<Arc<K>>,
    /// Without controller, and matching.
    pub adopt: Vec<Arc<K>>,
    /// Its own, and not matching any more.
    pub release: Vec<Arc<K>>,
}

/// Sorts `objects` for the owner `uid`. An owner that is being deleted (`leaving`) neither adopts nor releases.
pub fn claim<K: Resource>(
    uid: &str,
    selector: &Selector,
    leaving: bool,
    objects: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K> {
    let mut out = Claim {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    for object in objects {
        let meta = object.meta();
        let empty = Default::default();
        let matches = selector.matches(meta.labels.as_ref().unwrap_or(&empty));
        match controller_of(object.as_ref()) {
            Some(reference) if reference.uid == uid => {
                if matches {
                    out.owned.push(object);
                } else if !leaving && meta.deletion_timestamp.is_none() {
                    out.release.push(object);
                }
            }
            Some(_) => {}
            None => {
                if matches && !leaving && meta.deletion_timestamp.is_none() {
                    out.adopt.push(object);
                }
            }
        }
    }
    out
}

/// The patch that makes `reference` the controller of the object with `uid`.
pub fn adoption_patch(reference: &OwnerReference, uid: &str) -> serde_json::Value {
    serde_json::json!({ "metadata": { "uid": uid, "ownerReferences": [reference] } })
}

/// The patch that takes the owner `owner_uid` off the object with `uid`.
pub fn release_patch(owner_uid: &str, uid: &str) -> serde_json::Value {
    serde_json::json!({ "metadata": { "uid": uid, "ownerReferences": [{ "$patch": "delete", "uid": owner_uid }] } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str, app: &str, owner: Option<&str>) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.labels = Some([("app".to_string(), app.to_string())].into());
        pod.metadata.owner_references = owner.map(|uid| {
            vec![OwnerReference {
                uid: uid.into(),
                controller: Some(true),
                ..Default::default()
            }]
        });
        Arc::new(pod)
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter()
            .map(|p| p.metadata.name.as_deref().unwrap())
            .collect()
    }

    #[test]
    fn own_orphaned_and_foreign_are_told_apart() {
        let selector: Selector = [("app", "web")].into_iter().collect();
        let all = vec![
            pod("mine", "web", Some("me")),
            pod("changed", "other", Some("me")),
            pod("orphan", "web", None),
            pod("foreign", "web", Some("you")),
            pod("unrelated", "other", None),
        ];
        let c = claim("me", &selector, false, all.clone());
        assert_eq!(
            (names(&c.owned), names(&c.adopt), names(&c.release)),
            (vec!["mine"], vec!["orphan"], vec!["changed"])
        );
        let c = claim("me", &selector, true, all);
        assert!(c.adopt.is_empty() && c.release.is_empty());
    }
}
