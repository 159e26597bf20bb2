//! How server-side apply takes values apart: which lists are maps or sets, which maps and structs
//! are one value, and what Go writes in any case. Go's comments say it (`+listType`, `+mapType`,
//! `+structType`, `+default`), and Kubernetes' OpenAPI documents as `x-kubernetes-…`; JSON Schemas
//! don't. Source: `k8s.io/api` v1.36 and its `api/openapi-spec`.

use serde_json::{Map, Value};

/// How the parts of a value relate: what a manager can own of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    pub relation: Relation,
    /// Of a list's items or a map's values, if it says anything.
    pub items: Option<Box<Topology>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Relation {
    /// Nothing is said: a list is one value, a map or struct goes by its fields, unless the
    /// struct's definition says otherwise.
    #[default]
    Unsaid,
    /// One value.
    Atomic,
    /// By its fields, also if the struct's definition says otherwise.
    Granular,
    /// A list of values, each of which is its own name.
    Set,
    /// A list of objects that these fields name.
    Map(Vec<Key>),
}

/// A field that, with the others, names an item of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub name: String,
    /// What counts where the item has none.
    pub default: Option<Value>,
}

impl Topology {
    /// What a property's schema says, with its `x-kubernetes-…` extensions. `definitions` are those
    /// that references lead to.
    pub fn of(schema: &Value, definitions: &Map<String, Value>) -> Topology {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or("");
        let item = schema
            .get("items")
            .or_else(|| schema.get("additionalProperties"))
            .filter(|s| s.is_object());
        let relation = match (
            text("x-kubernetes-list-type"),
            text("x-kubernetes-map-type"),
        ) {
            ("set", _) => Relation::Set,
            ("atomic", _) | (_, "atomic") => Relation::Atomic,
            ("map", _) => {
                let names = crate::json::list(schema, "x-kubernetes-list-map-keys");
                let keys = names.iter().filter_map(Value::as_str).map(|name| Key {
                    name: name.to_string(),
                    default: item.and_then(|item| key_default(item, name, definitions)),
                });
                Relation::Map(keys.collect())
            }
            (_, "granular") => Relation::Granular,
            _ => Relation::Unsaid,
        };
        let items = item
            .map(|item| Topology::of(item, definitions))
            .filter(|items| *items != Topology::default());
        Topology {
            relation,
            items: items.map(Box::new),
        }
    }
}

fn key_default(item: &Value, key: &str, definitions: &Map<String, Value>) -> Option<Value> {
    let reference = item.get("$ref").and_then(Value::as_str);
    let item = match reference.and_then(|r| r.rsplit('/').next()) {
        Some(name) => definitions.get(name)?,
        None => item,
    };
    item.get("properties")?.get(key)?.get("default").cloned()
}

/// Lists that are maps: type (by its OpenAPI name without `io.k8s.`), field, keys. Those that also
/// have a patch strategy are in `merge_keys`.
static MAPS: &[(&str, &str, &[&str])] = &[
    (
        "api.admissionregistration.v1.MutatingAdmissionPolicySpec",
        "matchConditions",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.MutatingWebhook",
        "matchConditions",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.MutatingWebhookConfiguration",
        "webhooks",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "matchConditions",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "variables",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicyStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.admissionregistration.v1.ValidatingWebhook",
        "matchConditions",
        &["name"],
    ),
    (
        "api.admissionregistration.v1.ValidatingWebhookConfiguration",
        "webhooks",
        &["name"],
    ),
    ("api.apps.v1.DaemonSetStatus", "conditions", &["type"]),
    ("api.apps.v1.StatefulSetStatus", "conditions", &["type"]),
    (
        "api.autoscaling.v2.HorizontalPodAutoscalerStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.certificates.v1.CertificateSigningRequestStatus",
        "conditions",
        &["type"],
    ),
    ("api.core.v1.ComponentStatus", "conditions", &["type"]),
    (
        "api.core.v1.PersistentVolumeClaimStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.core.v1.ReplicationControllerStatus",
        "conditions",
        &["type"],
    ),
    ("api.core.v1.ResourceStatus", "resources", &["resourceID"]),
    (
        "api.flowcontrol.v1.FlowSchemaStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.flowcontrol.v1.PriorityLevelConfigurationStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.networking.v1.ServiceCIDRStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.policy.v1.PodDisruptionBudgetStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.resource.v1.AllocatedDeviceStatus",
        "conditions",
        &["type"],
    ),
    (
        "api.resource.v1.ResourceClaimStatus",
        "devices",
        &["driver", "device", "pool", "shareID"],
    ),
    (
        "api.resource.v1.ResourceClaimStatus",
        "reservedFor",
        &["uid"],
    ),
    ("api.storage.v1.CSINodeSpec", "drivers", &["name"]),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        &["type"],
    ),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        "x-kubernetes-validations",
        &["rule"],
    ),
    (
        "kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus",
        "conditions",
        &["type"],
    ),
];

/// Lists that are sets.
static SETS: &[(&str, &str)] = &[
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec",
        "validationActions",
    ),
    (
        "api.batch.v1.PodFailurePolicyOnExitCodesRequirement",
        "values",
    ),
    ("api.batch.v1.UncountedTerminatedPods", "failed"),
    ("api.batch.v1.UncountedTerminatedPods", "succeeded"),
    ("api.core.v1.ContainerRestartRuleOnExitCodes", "values"),
    (
        "api.flowcontrol.v1.NonResourcePolicyRule",
        "nonResourceURLs",
    ),
    ("api.flowcontrol.v1.NonResourcePolicyRule", "verbs"),
    ("api.flowcontrol.v1.ResourcePolicyRule", "apiGroups"),
    ("api.flowcontrol.v1.ResourcePolicyRule", "namespaces"),
    ("api.flowcontrol.v1.ResourcePolicyRule", "resources"),
    ("api.flowcontrol.v1.ResourcePolicyRule", "verbs"),
    ("api.storage.v1.CSIDriverSpec", "volumeLifecycleModes"),
];

/// Maps that are one value.
static ATOMIC_MAPS: &[(&str, &str)] = &[
    ("api.core.v1.PodSpec", "nodeSelector"),
    ("api.core.v1.ReplicationControllerSpec", "selector"),
    ("api.core.v1.ServiceSpec", "selector"),
    ("api.node.v1.Scheduling", "nodeSelector"),
];

/// Structs that are one value.
static ATOMIC_STRUCTS: &[&str] = &[
    "api.admissionregistration.v1.MatchResources",
    "api.admissionregistration.v1.NamedRuleWithOperations",
    "api.admissionregistration.v1.ParamKind",
    "api.admissionregistration.v1.ParamRef",
    "api.autoscaling.v1.CrossVersionObjectReference",
    "api.autoscaling.v2.CrossVersionObjectReference",
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.EndpointAddress",
    "api.core.v1.EndpointPort",
    "api.core.v1.FileKeySelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.ScopeSelector",
    "api.core.v1.ScopedResourceSelectorRequirement",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.SecretReference",
    "api.core.v1.TopologySelectorTerm",
    "api.core.v1.TypedLocalObjectReference",
    "api.discovery.v1.EndpointPort",
    "api.networking.v1.ServiceBackendPort",
    "api.rbac.v1.RoleRef",
    "api.rbac.v1.Subject",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Fields that go by their parts although their type is one value.
static GRANULAR: &[(&str, &str)] = &[("api.core.v1.PersistentVolumeSpec", "claimRef")];

/// Lists that Kubernetes' patches merge, and apply doesn't.
static ATOMIC_LISTS: &[(&str, &str)] = &[("api.batch.v1.JobStatus", "conditions")];

/// Defaults of fields that name items.
static DEFAULTS: &[(&str, &str, &str)] = &[
    ("api.core.v1.ContainerPort", "protocol", "TCP"),
    ("api.core.v1.ServicePort", "protocol", "TCP"),
];

/// Fields that hold a struct by value, which Go writes even when it is empty, besides every
/// `metadata`, `spec` and `status`.
static BY_VALUE: &[(&str, &str)] = &[
    ("api.apps.v1.DaemonSetSpec", "template"),
    ("api.apps.v1.DaemonSetSpec", "updateStrategy"),
    ("api.apps.v1.DeploymentSpec", "strategy"),
    ("api.apps.v1.DeploymentSpec", "template"),
    ("api.apps.v1.ReplicaSetSpec", "template"),
    ("api.apps.v1.StatefulSetSpec", "template"),
    ("api.apps.v1.StatefulSetSpec", "updateStrategy"),
    ("api.batch.v1.CronJobSpec", "jobTemplate"),
    ("api.batch.v1.JobSpec", "template"),
    ("api.core.v1.Container", "resources"),
    ("api.core.v1.EphemeralContainer", "resources"),
    ("api.core.v1.Event", "involvedObject"),
    ("api.core.v1.Event", "source"),
    ("api.core.v1.NodeDaemonEndpoints", "kubeletEndpoint"),
    ("api.core.v1.NodeStatus", "daemonEndpoints"),
    ("api.core.v1.NodeStatus", "nodeInfo"),
    ("api.core.v1.PersistentVolumeClaimSpec", "resources"),
    ("api.core.v1.ServiceStatus", "loadBalancer"),
    ("api.events.v1.Event", "deprecatedSource"),
    ("api.events.v1.Event", "regarding"),
    ("api.networking.v1.IngressStatus", "loadBalancer"),
    ("api.networking.v1.NetworkPolicySpec", "podSelector"),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec",
        "names",
    ),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "acceptedNames",
    ),
];

/// Whether Go writes the field whatever it holds, so that its presence alone is nobody's doing.
pub fn always(name: &str, field: &str, required: bool) -> bool {
    let Some(name) = name.strip_prefix("io.k8s.") else {
        // Objects of custom kinds aren't Go structs.
        return false;
    };
    required || matches!(field, "metadata" | "spec" | "status") || BY_VALUE.contains(&(name, field))
}

/// Adds the `x-kubernetes-…` extensions and defaults to a definition, after `merge_keys` did.
pub fn annotate(name: &str, schema: &mut Value) {
    let Some(name) = name.strip_prefix("io.k8s.") else {
        return;
    };
    if ATOMIC_STRUCTS.contains(&name) {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, property) in properties {
        let here = (name, field.as_str());
        let keys = MAPS.iter().find(|(ty, f, _)| (*ty, *f) == here);
        if let Some((_, _, keys)) = keys {
            property["x-kubernetes-list-type"] = "map".into();
            property["x-kubernetes-list-map-keys"] = (*keys).into();
        } else if SETS.contains(&here) {
            property["x-kubernetes-list-type"] = "set".into();
        } else if ATOMIC_MAPS.contains(&here) {
            property["x-kubernetes-map-type"] = "atomic".into();
        } else if GRANULAR.contains(&here) {
            property["x-kubernetes-map-type"] = "granular".into();
        } else if ATOMIC_LISTS.contains(&here) {
            property["x-kubernetes-list-type"] = "atomic".into();
            crate::json::remove(property, "x-kubernetes-list-map-keys");
        }
        if let Some((_, _, default)) = DEFAULTS.iter().find(|(ty, f, _)| (*ty, *f) == here) {
            property["default"] = (*default).into();
        }
        let list = property.get("type").is_some_and(|t| t == "array");
        if list && property.get("x-kubernetes-list-type").is_none() {
            property["x-kubernetes-list-type"] = "atomic".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Field, Type, types};

    fn field(ty: &str, field: &str) -> &'static Field {
        let id = types().by_name(&format!("io.k8s.{ty}")).unwrap();
        &types().get(id).fields[field]
    }

    fn keys(of: &Field) -> Vec<(&str, Option<&Value>)> {
        match &of.topology.relation {
            Relation::Map(keys) => keys
                .iter()
                .map(|k| (k.name.as_str(), k.default.as_ref()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Rows of types that are not served have nothing to be checked against.
    #[test]
    fn every_row_names_a_field_that_exists() {
        let pairs = MAPS.iter().map(|(ty, f, _)| (*ty, *f));
        let defaults = DEFAULTS.iter().map(|(ty, f, _)| (*ty, *f));
        let rest = [SETS, ATOMIC_MAPS, GRANULAR, ATOMIC_LISTS, BY_VALUE].concat();
        let mut checked = 0;
        for (ty, field) in pairs.chain(defaults).chain(rest) {
            if let Some(id) = types().by_name(&format!("io.k8s.{ty}")) {
                assert!(
                    types().get(id).fields.contains_key(field),
                    "{ty} has no {field}"
                );
                checked += 1;
            }
        }
        assert!(checked > 10, "{checked}");
    }

    #[test]
    fn lists_maps_and_structs() {
        let tcp = Value::from("TCP");
        let ports = [("port", None), ("protocol", Some(&tcp))];
        assert_eq!(keys(field("api.core.v1.ServiceSpec", "ports")), ports);
        let ports = [("containerPort", None), ("protocol", Some(&tcp))];
        assert_eq!(keys(field("api.core.v1.Container", "ports")), ports);
        assert_eq!(
            keys(field("api.core.v1.PodSpec", "containers")),
            [("name", None)]
        );
        let spread = field("api.core.v1.PodSpec", "topologySpreadConstraints");
        assert_eq!(
            keys(spread),
            [("topologyKey", None), ("whenUnsatisfiable", None)]
        );
        let relation = |ty: &str, f: &str| field(ty, f).topology.relation.clone();
        let meta = "apimachinery.pkg.apis.meta.v1.ObjectMeta";
        assert_eq!(relation(meta, "finalizers"), Relation::Set);
        assert_eq!(relation(meta, "labels"), Relation::Unsaid);
        assert_eq!(
            relation("api.core.v1.PodSpec", "tolerations"),
            Relation::Atomic
        );
        assert_eq!(
            relation("api.core.v1.PodSpec", "nodeSelector"),
            Relation::Atomic
        );
        let selector = field("api.apps.v1.DeploymentSpec", "selector");
        let Type::Struct(id) = selector.ty else {
            panic!("{selector:?}")
        };
        assert!(types().get(id).atomic);
        assert!(selector.always);
        assert!(field("api.core.v1.Container", "resources").always);
        assert!(!field("api.core.v1.PodSpec", "securityContext").always);
    }
}
