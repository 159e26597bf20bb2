//! Admission of pods, pure: what kube-apiserver's ServiceAccount, DefaultTolerationSeconds and
//! Priority plugins do.

pub mod dynamic;
pub mod limits;
pub mod pod_security;
pub mod quota;
pub mod resources;

use serde_json::{Value, json};

use crate::json::{self, at, list, text};

/// Where a pod finds its service account's token.
pub const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_SECONDS: i64 = 3607;

/// The name of the pod's service account, `default` if it names none.
pub fn service_account_name(pod: &Value) -> &str {
    match text(pod, "spec.serviceAccountName") {
        "" => match text(pod, "spec.serviceAccount") {
            "" => "default",
            name => name,
        },
        name => name,
    }
}

/// Gives the pod its service account: name, image pull secrets, and the projected token volume
/// `kube-api-access-<suffix>` in each container that mounts nothing at `TOKEN_MOUNT`.
/// `account` is the ServiceAccount; the caller refuses pods whose account doesn't exist with
/// `error looking up service account <ns>/<name>: serviceaccount "<name>" not found`.
pub fn service_account(pod: &mut Value, account: &Value, suffix: &str) {
    let name = service_account_name(pod).to_string();
    let Some(spec) = json::child(pod, "spec") else {
        return;
    };
    spec["serviceAccountName"] = name.as_str().into();
    spec["serviceAccount"] = name.into();
    if list(spec, "imagePullSecrets").is_empty() {
        let secrets = list(account, "imagePullSecrets");
        if !secrets.is_empty() {
            spec["imagePullSecrets"] = secrets.to_vec().into();
        }
    }
    let automount = at(spec, "automountServiceAccountToken")
        .or_else(|| at(account, "automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    if automount {
        mount_token(spec, suffix);
    }
}

fn mount_token(spec: &mut Value, suffix: &str) {
    let existing = list(spec, "volumes")
        .iter()
        .map(|v| text(v, "name"))
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_string);
    let volume = existing
        .clone()
        .unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut mounted = false;
    for key in ["initContainers", "containers"] {
        for container in json::list_mut(spec, key).into_iter().flatten() {
            let has = list(container, "volumeMounts")
                .iter()
                .any(|m| text(m, "mountPath") == TOKEN_MOUNT);
            if has || !container.is_object() {
                continue;
            }
            json::default(container, "volumeMounts", json!([]));
            if let Some(mounts) = json::list_mut(container, "volumeMounts") {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_MOUNT}));
                mounted = true;
            }
        }
    }
    if !mounted || existing.is_some() {
        return;
    }
    json::default(spec, "volumes", json!([]));
    if let Some(volumes) = json::list_mut(spec, "volumes") {
        volumes.push(json!({
            "name": volume,
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                    {"configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }},
                    {"downwardAPI": {"items": [{
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }]}},
                ],
                "defaultMode": 420,
            },
        }));
    }
}

/// Lets pods stay five minutes on a node that is not ready or unreachable, unless they say
/// otherwise themselves.
pub fn default_tolerations(pod: &mut Value) {
    let Some(spec) = json::child(pod, "spec") else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = list(spec, "tolerations").iter().any(|t| {
            let k = text(t, "key");
            (k == key || k.is_empty()) && matches!(text(t, "effect"), "NoExecute" | "")
        });
        if !tolerated {
            json::default(spec, "tolerations", json!([]));
            if let Some(tolerations) = json::list_mut(spec, "tolerations") {
                tolerations.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }));
            }
        }
    }
}

/// The classes that every cluster has.
pub const SYSTEM_CLASSES: &[(&str, i64)] = &[
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];
/// What a class of a user's own can give.
pub const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

/// The PriorityClass of the pod among all: the one that it names, or the default one.
/// `Err` holds the reason for `pods "x" is forbidden: …`.
pub fn priority_class_of<'a>(
    pod: &Value,
    classes: impl IntoIterator<Item = &'a Value>,
) -> Result<Option<&'a Value>, String> {
    let name = text(pod, "spec.priorityClassName");
    let mut classes = classes.into_iter();
    if name.is_empty() {
        let defaults = classes.filter(|c| json::flag(c, "globalDefault"));
        return Ok(defaults.min_by_key(|c| json::int(c, "value").unwrap_or(0)));
    }
    match classes.find(|c| text(c, "metadata.name") == name) {
        Some(class) => Ok(Some(class)),
        None => Err(format!("no PriorityClass with name {name} was found")),
    }
}

/// Gives the pod the priority and the preemption policy of its class.
/// `Err` holds the reason for `pods "x" is forbidden: …`.
pub fn priority(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let computed = class.and_then(|c| json::int(c, "value")).unwrap_or(0);
    let policy = match class.map_or("", |c| text(c, "preemptionPolicy")) {
        "" => "PreemptLowerPriority",
        policy => policy,
    };
    let Some(spec) = json::child(pod, "spec") else {
        return Ok(());
    };
    if let Some(given) = json::int(spec, "priority")
        && given != computed
    {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        ));
    }
    let given = text(spec, "preemptionPolicy");
    if !given.is_empty() && given != policy {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    if let Some(class) = class {
        spec["priorityClassName"] = text(class, "metadata.name").into();
    }
    spec["priority"] = computed.into();
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_volume_and_mounts() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": TOKEN_MOUNT}]},
        ]}});
        service_account(
            &mut pod,
            &json!({"imagePullSecrets": [{"name": "r"}]}),
            "abcde",
        );
        let spec = &pod["spec"];
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "r"}]));
        assert_eq!(spec["volumes"][0]["name"], "kube-api-access-abcde");
        assert_eq!(
            spec["containers"][0]["volumeMounts"][0]["mountPath"],
            TOKEN_MOUNT
        );
        assert_eq!(
            spec["containers"][1]["volumeMounts"]
                .as_array()
                .unwrap()
                .len(),
            1
        );

        let mut quiet = json!({"spec": {"containers": [{"name": "a"}]}});
        service_account(
            &mut quiet,
            &json!({"automountServiceAccountToken": false}),
            "abcde",
        );
        assert!(quiet["spec"].get("volumes").is_none());
    }

    #[test]
    fn tolerations_are_added_once() {
        let mut pod = json!({"spec": {"tolerations": [
            {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 5},
        ]}});
        default_tolerations(&mut pod);
        default_tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(pod["spec"]["tolerations"][0]["tolerationSeconds"], 5);
    }

    #[test]
    fn priorities() {
        let classes = [
            json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}),
            json!({"metadata": {"name": "usual"}, "value": 3, "globalDefault": true}),
        ];
        let admit = |mut pod: Value| {
            let class = priority_class_of(&pod, &classes)?;
            priority(&mut pod, class)?;
            Ok::<_, String>(pod["spec"].clone())
        };
        assert_eq!(
            admit(json!({"spec": {"priorityClassName": "high"}})).unwrap(),
            json!({"priorityClassName": "high", "priority": 7, "preemptionPolicy": "Never"})
        );
        assert_eq!(
            admit(json!({"spec": {}})).unwrap(),
            json!({"priorityClassName": "usual", "priority": 3, "preemptionPolicy": "PreemptLowerPriority"})
        );
        assert_eq!(
            admit(json!({"spec": {"priorityClassName": "mine"}})).unwrap_err(),
            "no PriorityClass with name mine was found"
        );
        assert_eq!(
            admit(json!({"spec": {"priority": 4}})).unwrap_err(),
            "the integer value of priority (4) must not be provided in pod spec; priority admission controller computed 3 from the given PriorityClass name"
        );
        let mut pod = json!({"spec": {}});
        priority(&mut pod, None).unwrap();
        assert_eq!(pod["spec"]["priority"], 0);
    }
}
