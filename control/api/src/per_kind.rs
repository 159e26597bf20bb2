//! What writes do to objects of single kinds, besides what they do to all: the status that a new
//! object has, and fields that Kubernetes' strategies fill in.
//! Source: Kubernetes `pkg/registry/*/*/strategy.go`.

use serde_json::{Value, json};

use crate::json::{self, at, flag, int, map, text};
use crate::pod;
use crate::registry::Kind;

/// Counts the changes of a DaemonSet's template; pods carry it as a label.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Completes an object that is to be made. Its name and uid are there.
pub fn create(kind: &Kind, object: &mut Value) {
    if let Some(status) = initial_status(kind, object) {
        object["status"] = status;
    }
    match kind.id() {
        ("apps", "DaemonSet") => set_template_generation(object, 1),
        ("batch", "Job") => select_own_pods(object),
        _ => {}
    }
}

/// Completes an object that is to replace `old`.
pub fn update(kind: &Kind, new: &mut Value, old: &Value) {
    if kind.is("apps", "DaemonSet") {
        let generation = template_generation(old);
        let changed = at(new, "spec.template") != at(old, "spec.template");
        let next = if changed {
            generation.saturating_add(1)
        } else {
            generation
        };
        set_template_generation(new, next);
    }
}

fn initial_status(kind: &Kind, object: &Value) -> Option<Value> {
    Some(match kind.id() {
        ("", "Pod") => json!({"phase": "Pending", "qosClass": pod::qos_class(object)}),
        ("", "Service") => json!({"loadBalancer": {}}),
        ("", "PersistentVolume" | "PersistentVolumeClaim") => json!({"phase": "Pending"}),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => json!({"replicas": 0}),
        ("", "ResourceQuota") | ("apps", "Deployment") | ("batch", _) => json!({}),
        ("certificates.k8s.io", "CertificateSigningRequest") => json!({}),
        ("apps", "StatefulSet") => json!({"availableReplicas": 0, "replicas": 0}),
        ("apps", "DaemonSet") => json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0,
            "numberMisscheduled": 0, "numberReady": 0,
        }),
        ("autoscaling", "HorizontalPodAutoscaler") => json!({"desiredReplicas": 0}),
        ("networking.k8s.io", "Ingress") => json!({"loadBalancer": {}}),
        ("policy", "PodDisruptionBudget") => json!({
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
        }),
        ("storage.k8s.io", "VolumeAttachment") => json!({"attached": false}),
        _ => return None,
    })
}

pub fn template_generation(set: &Value) -> i64 {
    map(set, "metadata.annotations")
        .and_then(|a| a.get(TEMPLATE_GENERATION))
        .and_then(Value::as_str)
        .and_then(|g| g.parse().ok())
        .unwrap_or(1)
}

fn set_template_generation(set: &mut Value, generation: i64) {
    if let Some(annotations) =
        json::child(set, "metadata").and_then(|m| json::child(m, "annotations"))
    {
        annotations[TEMPLATE_GENERATION] = generation.to_string().into();
    }
}

/// The labels by which a job knows its pods, unless its maker chose some.
fn select_own_pods(job: &mut Value) {
    if flag(job, "spec.manualSelector") {
        return;
    }
    let uid = text(job, "metadata.uid").to_string();
    let name = text(job, "metadata.name").to_string();
    let Some(spec) = json::child(job, "spec") else {
        return;
    };
    let labels = json::child(spec, "template")
        .and_then(|t| json::child(t, "metadata"))
        .and_then(|m| json::child(m, "labels"));
    if let Some(labels) = labels {
        for (label, value) in [
            ("controller-uid", &uid),
            ("job-name", &name),
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
        ] {
            // A hand-chosen one stays, and validation finds it.
            json::default(labels, label, value.as_str());
        }
    }
    if let Some(selector) =
        json::child(spec, "selector").and_then(|s| json::child(s, "matchLabels"))
    {
        json::default(selector, "batch.kubernetes.io/controller-uid", uid);
    }
}

/// Whether a budget's status is of the budget as it is now.
pub fn observed(object: &Value) -> bool {
    int(object, "status.observedGeneration").unwrap_or(0)
        >= int(object, "metadata.generation").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;

    #[test]
    fn daemon_sets_count_their_templates() {
        let kind = find("apps", "v1", "daemonsets").unwrap();
        let mut set = json!({"metadata": {}, "spec": {"template": {"a": 1}}});
        create(kind, &mut set);
        assert_eq!(set["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        assert_eq!(set["status"]["numberReady"], 0);
        let old = set.clone();
        // Nobody else sets it.
        set["metadata"] = json!({});
        update(kind, &mut set, &old);
        assert_eq!(template_generation(&set), 1);
        set["spec"]["template"]["a"] = json!(2);
        update(kind, &mut set, &old);
        assert_eq!(template_generation(&set), 2);
    }

    #[test]
    fn jobs_select_by_uid() {
        let kind = find("batch", "v1", "jobs").unwrap();
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {}});
        create(kind, &mut job);
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        assert_eq!(
            job["spec"]["template"]["metadata"]["labels"]["job-name"],
            "j"
        );
        let mut chosen = json!({"metadata": {}, "spec": {"manualSelector": true}});
        create(kind, &mut chosen);
        assert!(chosen["spec"].get("selector").is_none());
    }
}
