//! Defaults of the workload kinds. Source: Kubernetes `pkg/apis/{apps,batch,core}/v*/defaults.go`.

use serde_json::{Value, json};

use super::template;
use crate::json::{at, child, default, default_text, list_mut, map, remove, text};

pub fn daemon_set(set: &mut Value) {
    let Some(spec) = child(set, "spec") else {
        return;
    };
    template(spec);
    if let Some(strategy) = child(spec, "updateStrategy") {
        default_text(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
    }
    default(spec, "revisionHistoryLimit", 10);
}

pub fn stateful_set(set: &mut Value) {
    let Some(spec) = child(set, "spec") else {
        return;
    };
    default_text(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = child(spec, "updateStrategy") {
        default_text(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default(rolling, "partition", 0);
        }
    }
    if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        default_text(policy, "whenDeleted", "Retain");
        default_text(policy, "whenScaled", "Retain");
    }
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    template(spec);
    for claim in list_mut(spec, "volumeClaimTemplates").into_iter().flatten() {
        default_text(claim, "apiVersion", "v1");
        default_text(claim, "kind", "PersistentVolumeClaim");
        super::storage::claim(claim);
        if claim.is_object() {
            claim["status"] = json!({"phase": "Pending"});
        }
    }
}

/// The labels of the template, if there are any.
fn template_labels(object: &Value) -> Option<Value> {
    at(object, "spec.template.metadata.labels")
        .filter(|labels| labels.as_object().is_some_and(|l| !l.is_empty()))
        .cloned()
}

/// Labels from the template, if the object has none itself.
fn labels_from_template(object: &mut Value) {
    let Some(labels) = template_labels(object) else {
        return;
    };
    let bare = map(object, "metadata.labels").is_none_or(|l| l.is_empty());
    if bare && let Some(meta) = child(object, "metadata") {
        remove(meta, "labels");
        default(meta, "labels", labels);
    }
}

pub fn replication_controller(controller: &mut Value) {
    if let Some(labels) = template_labels(controller) {
        let unset = map(controller, "spec.selector").is_none_or(|s| s.is_empty());
        if unset && let Some(spec) = child(controller, "spec") {
            remove(spec, "selector");
            default(spec, "selector", labels);
        }
        labels_from_template(controller);
    }
    if let Some(spec) = child(controller, "spec") {
        default(spec, "replicas", 1);
        if at(spec, "template").is_some() {
            template(spec);
        }
    }
}

pub fn pod_template(object: &mut Value) {
    template(object);
}

pub fn job(job: &mut Value) {
    labels_from_template(job);
    let Some(spec) = child(job, "spec") else {
        return;
    };
    if at(spec, "completions").is_none() && at(spec, "parallelism").is_none() {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    // With a limit an index the limit of all is out of reach.
    let limit = match at(spec, "backoffLimitPerIndex") {
        Some(_) => i32::MAX,
        None => 6,
    };
    default(spec, "backoffLimit", limit);
    default_text(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "manualSelector", false);
    let replace = match at(spec, "podFailurePolicy") {
        Some(_) => "Failed",
        None => "TerminatingOrFailed",
    };
    default_text(spec, "podReplacementPolicy", replace);
    for rule in list_mut(spec, "podFailurePolicy.rules")
        .into_iter()
        .flatten()
    {
        for pattern in list_mut(rule, "onPodConditions").into_iter().flatten() {
            default_text(pattern, "status", "True");
        }
    }
    template(spec);
}

pub fn cron_job(cron: &mut Value) {
    let Some(spec) = child(cron, "spec") else {
        return;
    };
    default_text(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = child(spec, "jobTemplate") {
        child(job, "metadata");
        if let Some(job_spec) = child(job, "spec") {
            template(job_spec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_set() {
        let mut set = json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
        daemon_set(&mut set);
        assert_eq!(
            set["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(set["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(set["spec"]["template"]["spec"]["restartPolicy"], "Always");
        let mut set = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        daemon_set(&mut set);
        assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    }

    #[test]
    fn a_stateful_set() {
        let mut set = json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "d"}}]}});
        stateful_set(&mut set);
        let spec = &set["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["updateStrategy"]["rollingUpdate"]["partition"], 0);
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(
            spec["volumeClaimTemplates"][0],
            json!({
                "metadata": {"name": "d"}, "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"},
            })
        );
    }

    #[test]
    fn jobs() {
        let mut plain = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        job(&mut plain);
        assert_eq!(plain["metadata"]["labels"], json!({"a": "b"}));
        let spec = plain["spec"].as_object().unwrap();
        let shown: Vec<(&str, &Value)> = spec
            .iter()
            .filter(|(k, _)| *k != "template")
            .map(|(k, v)| (k.as_str(), v))
            .collect();
        assert_eq!(
            shown,
            [
                ("completions", &json!(1)),
                ("parallelism", &json!(1)),
                ("backoffLimit", &json!(6)),
                ("completionMode", &json!("NonIndexed")),
                ("suspend", &json!(false)),
                ("manualSelector", &json!(false)),
                ("podReplacementPolicy", &json!("TerminatingOrFailed")),
            ]
        );
        let mut queue = json!({"spec": {"parallelism": 3, "backoffLimitPerIndex": 1}});
        job(&mut queue);
        assert!(queue["spec"].get("completions").is_none());
        assert_eq!(queue["spec"]["backoffLimit"], i32::MAX);
        let mut cron = json!({"spec": {"schedule": "* * * * *"}});
        cron_job(&mut cron);
        assert_eq!(cron["spec"]["successfulJobsHistoryLimit"], 3);
        assert_eq!(
            cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"],
            "ClusterFirst"
        );
    }

    #[test]
    fn a_replication_controller_takes_its_selector_from_the_template() {
        let mut rc =
            json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}});
        replication_controller(&mut rc);
        assert_eq!(rc["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(rc["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(rc["spec"]["replicas"], 1);
    }
}
