//! The table of what Go's struct tags say and JSON Schemas don't: patch strategies, merge keys
//! and, of the fields that have those, list types (the others are in `topology`).
//! Source: `k8s.io/api` v1.36 (`patchStrategy`, `patchMergeKey`, `+listType`).

use serde_json::Value;

use crate::schema::Merge;

struct Row {
    /// Type, by its OpenAPI name without `io.k8s.`.
    ty: &'static str,
    field: &'static str,
    merge: Option<Merge>,
    list: List,
}

enum List {
    None,
    Set,
    Atomic,
    Map(&'static [&'static str]),
}

/// A list of objects that merges by a key.
const fn by(
    ty: &'static str,
    field: &'static str,
    key: &'static str,
    keys: &'static [&'static str],
) -> Row {
    Row {
        ty,
        field,
        merge: Some(Merge {
            merge: true,
            key: Some(key),
            retain_keys: false,
        }),
        list: List::Map(keys),
    }
}

/// As `by`, where a changed item drops the keys that the patch doesn't name.
const fn by_retaining(ty: &'static str, field: &'static str, key: &'static str) -> Row {
    Row {
        ty,
        field,
        merge: Some(Merge {
            merge: true,
            key: Some(key),
            retain_keys: true,
        }),
        list: List::Map(&["name"]),
    }
}

/// A list of values that merges as a set.
const fn set(ty: &'static str, field: &'static str) -> Row {
    Row {
        ty,
        field,
        merge: Some(Merge {
            merge: true,
            key: None,
            retain_keys: false,
        }),
        list: List::Set,
    }
}

/// A struct whose keys the patch must name to keep.
const fn retaining(ty: &'static str, field: &'static str) -> Row {
    Row {
        ty,
        field,
        merge: Some(Merge {
            merge: false,
            key: None,
            retain_keys: true,
        }),
        list: List::None,
    }
}

/// A list that only server-side apply knows as a map.
const fn listed(ty: &'static str, field: &'static str, keys: &'static [&'static str]) -> Row {
    Row {
        ty,
        field,
        merge: None,
        list: List::Map(keys),
    }
}

const fn atomic(ty: &'static str, field: &'static str) -> Row {
    Row {
        ty,
        field,
        merge: None,
        list: List::Atomic,
    }
}

const NAME: &[&str] = &["name"];
const TYPE: &[&str] = &["type"];
const PORT: &[&str] = &["containerPort", "protocol"];

static ROWS: &[Row] = &[
    by(
        "apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "ownerReferences",
        "uid",
        &["uid"],
    ),
    set("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers"),
    atomic("apimachinery.pkg.apis.meta.v1.ObjectMeta", "managedFields"),
    atomic(
        "apimachinery.pkg.apis.meta.v1.LabelSelector",
        "matchExpressions",
    ),
    atomic(
        "apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement",
        "values",
    ),
    by("api.core.v1.PodSpec", "containers", "name", NAME),
    by("api.core.v1.PodSpec", "initContainers", "name", NAME),
    by("api.core.v1.PodSpec", "ephemeralContainers", "name", NAME),
    by_retaining("api.core.v1.PodSpec", "volumes", "name"),
    by("api.core.v1.PodSpec", "imagePullSecrets", "name", NAME),
    by("api.core.v1.PodSpec", "hostAliases", "ip", &["ip"]),
    by(
        "api.core.v1.PodSpec",
        "topologySpreadConstraints",
        "topologyKey",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    by_retaining("api.core.v1.PodSpec", "resourceClaims", "name"),
    by("api.core.v1.PodSpec", "schedulingGates", "name", NAME),
    atomic("api.core.v1.PodSpec", "tolerations"),
    atomic("api.core.v1.PodSpec", "readinessGates"),
    by("api.core.v1.Container", "ports", "containerPort", PORT),
    by("api.core.v1.Container", "env", "name", NAME),
    by(
        "api.core.v1.Container",
        "volumeMounts",
        "mountPath",
        &["mountPath"],
    ),
    by(
        "api.core.v1.Container",
        "volumeDevices",
        "devicePath",
        &["devicePath"],
    ),
    atomic("api.core.v1.Container", "args"),
    atomic("api.core.v1.Container", "command"),
    atomic("api.core.v1.Container", "envFrom"),
    atomic("api.core.v1.Container", "resizePolicy"),
    by(
        "api.core.v1.EphemeralContainer",
        "ports",
        "containerPort",
        PORT,
    ),
    by("api.core.v1.EphemeralContainer", "env", "name", NAME),
    by(
        "api.core.v1.EphemeralContainer",
        "volumeMounts",
        "mountPath",
        &["mountPath"],
    ),
    by(
        "api.core.v1.EphemeralContainer",
        "volumeDevices",
        "devicePath",
        &["devicePath"],
    ),
    listed("api.core.v1.ResourceRequirements", "claims", NAME),
    by("api.core.v1.PodStatus", "conditions", "type", TYPE),
    by("api.core.v1.PodStatus", "hostIPs", "ip", &["ip"]),
    by("api.core.v1.PodStatus", "podIPs", "ip", &["ip"]),
    by_retaining("api.core.v1.PodStatus", "resourceClaimStatuses", "name"),
    by(
        "api.core.v1.ContainerStatus",
        "volumeMounts",
        "mountPath",
        &["mountPath"],
    ),
    by(
        "api.core.v1.ContainerStatus",
        "allocatedResourcesStatus",
        "name",
        NAME,
    ),
    atomic("api.core.v1.PodStatus", "containerStatuses"),
    atomic("api.core.v1.PodStatus", "initContainerStatuses"),
    by(
        "api.core.v1.ServiceSpec",
        "ports",
        "port",
        &["port", "protocol"],
    ),
    atomic("api.core.v1.ServiceSpec", "clusterIPs"),
    atomic("api.core.v1.ServiceSpec", "ipFamilies"),
    atomic("api.core.v1.ServiceSpec", "externalIPs"),
    atomic("api.core.v1.ServiceSpec", "loadBalancerSourceRanges"),
    by("api.core.v1.ServiceStatus", "conditions", "type", TYPE),
    set("api.core.v1.NodeSpec", "podCIDRs"),
    atomic("api.core.v1.NodeSpec", "taints"),
    by("api.core.v1.NodeStatus", "addresses", "type", TYPE),
    by("api.core.v1.NodeStatus", "conditions", "type", TYPE),
    atomic("api.core.v1.NodeStatus", "images"),
    atomic("api.core.v1.NamespaceSpec", "finalizers"),
    by("api.core.v1.NamespaceStatus", "conditions", "type", TYPE),
    by("api.core.v1.ServiceAccount", "secrets", "name", NAME),
    atomic("api.core.v1.ServiceAccount", "imagePullSecrets"),
    retaining("api.apps.v1.DeploymentSpec", "strategy"),
    by("api.apps.v1.DeploymentStatus", "conditions", "type", TYPE),
    by("api.apps.v1.ReplicaSetStatus", "conditions", "type", TYPE),
    atomic("api.discovery.v1.EndpointSlice", "endpoints"),
    atomic("api.discovery.v1.EndpointSlice", "ports"),
    Row {
        ty: "api.discovery.v1.Endpoint",
        field: "addresses",
        merge: None,
        list: List::Set,
    },
    atomic(
        "api.certificates.v1.CertificateSigningRequestSpec",
        "groups",
    ),
    atomic(
        "api.certificates.v1.CertificateSigningRequestSpec",
        "usages",
    ),
    listed(
        "api.certificates.v1.CertificateSigningRequestStatus",
        "conditions",
        TYPE,
    ),
    atomic("api.networking.v1.NetworkPolicySpec", "egress"),
    atomic("api.networking.v1.NetworkPolicySpec", "ingress"),
    atomic("api.networking.v1.NetworkPolicySpec", "policyTypes"),
    atomic("api.networking.v1.NetworkPolicyIngressRule", "from"),
    atomic("api.networking.v1.NetworkPolicyIngressRule", "ports"),
    atomic("api.networking.v1.NetworkPolicyEgressRule", "to"),
    atomic("api.networking.v1.NetworkPolicyEgressRule", "ports"),
    atomic("api.networking.v1.IPBlock", "except"),
    atomic("api.rbac.v1.AggregationRule", "clusterRoleSelectors"),
    atomic("api.rbac.v1.ClusterRole", "rules"),
    atomic("api.rbac.v1.ClusterRoleBinding", "subjects"),
    atomic("api.rbac.v1.PolicyRule", "apiGroups"),
    atomic("api.rbac.v1.PolicyRule", "nonResourceURLs"),
    atomic("api.rbac.v1.PolicyRule", "resourceNames"),
    atomic("api.rbac.v1.PolicyRule", "resources"),
    atomic("api.rbac.v1.PolicyRule", "verbs"),
    atomic("api.rbac.v1.Role", "rules"),
    atomic("api.rbac.v1.RoleBinding", "subjects"),
    by("api.apps.v1.DaemonSetStatus", "conditions", "type", TYPE),
    by("api.apps.v1.StatefulSetStatus", "conditions", "type", TYPE),
    by(
        "api.autoscaling.v2.HorizontalPodAutoscalerStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by("api.batch.v1.JobStatus", "conditions", "type", TYPE),
    by(
        "api.core.v1.PersistentVolumeClaimStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by(
        "api.core.v1.ReplicationControllerStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by(
        "api.flowcontrol.v1.FlowSchemaStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by(
        "api.flowcontrol.v1.PriorityLevelConfigurationStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by(
        "api.networking.v1.ServiceCIDRStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by(
        "api.policy.v1.PodDisruptionBudgetStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by(
        "kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus",
        "conditions",
        "type",
        TYPE,
    ),
    by(
        "api.admissionregistration.v1.MutatingWebhookConfiguration",
        "webhooks",
        "name",
        NAME,
    ),
    by(
        "api.admissionregistration.v1.ValidatingWebhookConfiguration",
        "webhooks",
        "name",
        NAME,
    ),
    by(
        "api.admissionregistration.v1.MutatingWebhook",
        "matchConditions",
        "name",
        NAME,
    ),
    by(
        "api.admissionregistration.v1.ValidatingWebhook",
        "matchConditions",
        "name",
        NAME,
    ),
    by(
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "matchConditions",
        "name",
        NAME,
    ),
    by(
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "variables",
        "name",
        NAME,
    ),
    by(
        "api.admissionregistration.v1.MutatingAdmissionPolicySpec",
        "matchConditions",
        "name",
        NAME,
    ),
    by("api.storage.v1.CSINodeSpec", "drivers", "name", NAME),
];

fn row(name: &str, field: &str) -> Option<&'static Row> {
    let name = name.strip_prefix("io.k8s.")?;
    ROWS.iter().find(|r| r.ty == name && r.field == field)
}

/// The patch strategy of a field of the type with this OpenAPI name.
pub fn of(name: &str, field: &str) -> Option<Merge> {
    row(name, field).and_then(|r| r.merge)
}

/// Adds the `x-kubernetes-…` extensions to a definition.
pub fn annotate(name: &str, schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, property) in properties {
        let Some(row) = row(name, field) else {
            continue;
        };
        if let Some(merge) = row.merge {
            let strategy = match (merge.merge, merge.retain_keys) {
                (true, true) => "merge,retainKeys",
                (true, false) => "merge",
                (false, _) => "retainKeys",
            };
            property["x-kubernetes-patch-strategy"] = strategy.into();
            if let Some(key) = merge.key {
                property["x-kubernetes-patch-merge-key"] = key.into();
            }
        }
        match row.list {
            List::None => {}
            List::Set => property["x-kubernetes-list-type"] = "set".into(),
            List::Atomic => property["x-kubernetes-list-type"] = "atomic".into(),
            List::Map(keys) => {
                property["x-kubernetes-list-type"] = "map".into();
                property["x-kubernetes-list-map-keys"] = keys.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_field_that_exists() {
        let types = crate::schema::types();
        for row in ROWS {
            let id = types
                .by_name(&format!("io.k8s.{}", row.ty))
                .unwrap_or_else(|| panic!("no type {}", row.ty));
            let ty = types.get(id);
            assert!(
                ty.fields.contains_key(row.field),
                "{} has no {}",
                row.ty,
                row.field
            );
        }
    }
}
