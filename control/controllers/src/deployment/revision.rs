//! The new ReplicaSet of a Deployment: its name, its labels, its revision and the other annotations that
//! `kubectl rollout` reads.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::rolling;
use crate::owner::controller_reference;

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that its ReplicaSets don't get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// The history of revisions is kept to this many characters.
const HISTORY_LENGTH: usize = 2000;

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION)
        .and_then(|r| r.parse().ok())
        .unwrap_or(0)
}

/// The number of replicas that the Deployment had when `rs` was last scaled.
pub fn noted_desired(rs: &ReplicaSet) -> Option<i32> {
    annotation(&rs.metadata, DESIRED)?.parse().ok()
}

/// That number with the surge on top.
pub fn noted_max(rs: &ReplicaSet) -> Option<i32> {
    annotation(&rs.metadata, MAX)?.parse().ok()
}

/// Notes the numbers of the Deployment on `rs`.
pub fn note_replicas(d: &Deployment, rs: &mut ReplicaSet) {
    let annotations = rs.metadata.annotations.get_or_insert_default();
    let wanted = rolling::wanted(d);
    annotations.insert(DESIRED.into(), wanted.to_string());
    annotations.insert(
        MAX.into(),
        wanted.saturating_add(rolling::max_surge(d)).to_string(),
    );
}

/// Brings the annotations of the new ReplicaSet up to date: those of the Deployment, and its revision,
/// which is `at_least`, with the one it had before kept in its history.
pub fn note_revision(d: &Deployment, rs: &mut ReplicaSet, at_least: i64, exists: bool) {
    let had = revision(&rs.metadata);
    let annotations = rs.metadata.annotations.get_or_insert_default();
    for (key, value) in d.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if had < at_least {
        annotations.insert(REVISION.into(), at_least.to_string());
        if had > 0 {
            let history = annotations
                .get(REVISION_HISTORY)
                .cloned()
                .unwrap_or_default();
            let mut kept: Vec<String> = history
                .split(',')
                .filter(|r| !r.is_empty())
                .map(String::from)
                .collect();
            kept.push(had.to_string());
            while kept.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_LENGTH {
                kept.remove(0);
            }
            annotations.insert(REVISION_HISTORY.into(), kept.join(","));
        }
    }
    if !exists {
        note_replicas(d, rs);
    }
}

/// Whether two templates are the same but for the hash label.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    fn without(
        t: &PodTemplateSpec,
    ) -> (
        BTreeMap<&String, &String>,
        Option<BTreeMap<&String, &String>>,
    ) {
        let meta = t.metadata.as_ref();
        let labels = meta.and_then(|m| m.labels.as_ref()).into_iter().flatten();
        let annotations = meta
            .and_then(|m| m.annotations.as_ref())
            .filter(|a| !a.is_empty());
        (
            labels.filter(|(k, _)| *k != HASH_LABEL).collect(),
            annotations.map(|a| a.iter().collect()),
        )
    }
    a.spec == b.spec && without(a) == without(b)
}

pub fn template(d: &Deployment) -> PodTemplateSpec {
    d.spec
        .as_ref()
        .map(|s| s.template.clone())
        .unwrap_or_default()
}

/// A name for the template, stable across restarts; `collisions` counts earlier clashes.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // FNV-1a over the JSON form, whose keys are in a fixed order.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let fnv = |seed: u32, bytes: &[u8]| {
        bytes
            .iter()
            .fold(seed, |h, b| (h ^ u32::from(*b)).wrapping_mul(16_777_619))
    };
    let mut h = fnv(2_166_136_261, &json);
    if collisions > 0 {
        h = fnv(h, &collisions.to_be_bytes());
    }
    // Kubernetes' alphabet without vowels, so that no words come out.
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    h.to_string()
        .bytes()
        .map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()]))
        .collect()
}

/// The ReplicaSet to make for the current template, without replicas yet.
pub fn new_replica_set(d: &Deployment, collisions: i32) -> ReplicaSet {
    let mut template = template(d);
    let hash = hash(&template, collisions);
    let spec = d.spec.clone().unwrap_or_default();
    let meta = template.metadata.get_or_insert_default();
    meta.labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-{hash}",
                d.metadata.name.as_deref().unwrap_or_default()
            )),
            namespace: d.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![controller_reference(d)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_a_dns_label_and_tells_collisions_apart() {
        let template = PodTemplateSpec::default();
        let (a, b) = (hash(&template, 0), hash(&template, 1));
        assert_ne!(a, b);
        assert_eq!(a, hash(&template, 0));
        assert!(
            a.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
    }

    #[test]
    fn revisions_rise_and_the_earlier_ones_are_kept() {
        let d = Deployment::default();
        let mut rs = ReplicaSet::default();
        note_revision(&d, &mut rs, 1, true);
        note_revision(&d, &mut rs, 1, true);
        assert_eq!(revision(&rs.metadata), 1);
        assert_eq!(annotation(&rs.metadata, REVISION_HISTORY), None);
        note_revision(&d, &mut rs, 3, true);
        note_revision(&d, &mut rs, 5, true);
        assert_eq!(revision(&rs.metadata), 5);
        assert_eq!(annotation(&rs.metadata, REVISION_HISTORY), Some("1,3"));
        note_revision(&d, &mut rs, 2, true);
        assert_eq!(revision(&rs.metadata), 5, "a revision never falls");
    }

    #[test]
    fn change_cause_is_copied_and_what_was_last_applied_is_not() {
        let mut d = Deployment::default();
        let annotations = d.metadata.annotations.get_or_insert_default();
        annotations.insert("kubernetes.io/change-cause".into(), "better".into());
        annotations.insert(NOT_COPIED[0].into(), "{}".into());
        let mut rs = ReplicaSet::default();
        note_revision(&d, &mut rs, 1, false);
        assert_eq!(
            annotation(&rs.metadata, "kubernetes.io/change-cause"),
            Some("better")
        );
        assert_eq!(annotation(&rs.metadata, NOT_COPIED[0]), None);
        assert_eq!(noted_desired(&rs), Some(1));
    }
}
