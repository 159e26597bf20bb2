//! The registry of kinds: a row a kind. Discovery, OpenAPI, defaulting, validation, selectors,
//! tables and the rules for writes are all derived from a row, so that the API server is generic.

use k8s_openapi::api as k8s;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use crate::status::Errors;
use crate::table::{self, Column, Now};
use crate::{defaults, validation};

/// One served kind.
pub struct Kind {
    /// "" for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Which syntax `metadata.name` must have.
    pub name_rule: NameRule,
    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// What happens to `status` in a write of the main resource.
    pub status: StatusRule,
    /// Field selectors besides metadata.name and metadata.namespace: label, path in the stored
    /// form, and the value that stands for an absent field.
    pub fields: &'static [(&'static str, &'static str, &'static str)],
    /// Name in OpenAPI, e.g. `io.k8s.api.core.v1.Pod`.
    pub schema_name: fn() -> std::borrow::Cow<'static, str>,
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    pub defaults: fn(&mut Value),
    /// Checks an object that is to be stored, metadata aside.
    pub validate: fn(&Value, &mut Errors),
    /// Checks what may change: new, old.
    pub validate_update: fn(&Value, &Value, &mut Errors),
    pub columns: &'static [Column],
    pub cells: fn(&Value, Now) -> Vec<Value>,
    /// The kind in whose form and under whose key objects are stored, if not its own
    /// (`events.k8s.io` events are stored as core ones).
    pub stored_as: Option<(&'static str, &'static str)>,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.qualified_resource())
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.plural) == (other.group, other.version, other.plural)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    Dns1123Subdomain,
    Dns1123Label,
    Dns1035Label,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRule {
    /// The kind has no status.
    None,
    /// Dropped on create, kept from the old object on update; written by the subresource.
    Subresource,
    /// As `Subresource`, but a create keeps it (nodes register with their status).
    KeptOnCreate,
}

/// A subresource. Its own kind is what a client sends and gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Namespaces can't be deleted as a collection.
const NO_COLLECTION: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

const fn status_of(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    Subresource {
        name: "status",
        group,
        version,
        kind,
        verbs: STATUS_VERBS,
    }
}

const SCALE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: STATUS_VERBS,
};

const EVENT_FIELDS: &[(&str, &str, &str)] = &[
    ("involvedObject.kind", "involvedObject.kind", ""),
    ("involvedObject.namespace", "involvedObject.namespace", ""),
    ("involvedObject.name", "involvedObject.name", ""),
    ("involvedObject.uid", "involvedObject.uid", ""),
    ("involvedObject.apiVersion", "involvedObject.apiVersion", ""),
    (
        "involvedObject.resourceVersion",
        "involvedObject.resourceVersion",
        "",
    ),
    ("involvedObject.fieldPath", "involvedObject.fieldPath", ""),
    ("reason", "reason", ""),
    ("reportingComponent", "reportingComponent", ""),
    ("source", "source.component", ""),
    ("type", "type", ""),
];

const REGARDING_FIELDS: &[(&str, &str, &str)] = &[
    ("regarding.kind", "involvedObject.kind", ""),
    ("regarding.namespace", "involvedObject.namespace", ""),
    ("regarding.name", "involvedObject.name", ""),
    ("regarding.uid", "involvedObject.uid", ""),
    ("regarding.apiVersion", "involvedObject.apiVersion", ""),
    (
        "regarding.resourceVersion",
        "involvedObject.resourceVersion",
        "",
    ),
    ("regarding.fieldPath", "involvedObject.fieldPath", ""),
    ("reason", "reason", ""),
    ("reportingController", "reportingComponent", ""),
    ("type", "type", ""),
];

macro_rules! schema {
    ($t:ty) => {
        (
            <$t as schemars::JsonSchema>::schema_name as fn() -> std::borrow::Cow<'static, str>,
            <$t as schemars::JsonSchema>::json_schema as fn(&mut SchemaGenerator) -> Schema,
        )
    };
}

/// Every served kind, in the order in which discovery shows them.
pub static KINDS: &[Kind] = &[
    Kind {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: false,
        status: StatusRule::None,
        fields: &[],
        schema_name: schema!(k8s::core::v1::ConfigMap).0,
        schema: schema!(k8s::core::v1::ConfigMap).1,
        defaults: defaults::nothing,
        validate: validation::data::config_map,
        validate_update: validation::data::config_map_update,
        columns: table::CONFIG_MAP,
        cells: table::config_map,
        stored_as: None,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: false,
        status: StatusRule::None,
        fields: EVENT_FIELDS,
        schema_name: schema!(k8s::core::v1::Event).0,
        schema: schema!(k8s::core::v1::Event).1,
        defaults: defaults::event,
        validate: validation::event::event,
        validate_update: validation::event::event_update,
        columns: table::EVENT,
        cells: table::event,
        stored_as: None,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        categories: &[],
        namespaced: false,
        verbs: NO_COLLECTION,
        subresources: &[
            Subresource {
                name: "finalize",
                group: "",
                version: "v1",
                kind: "Namespace",
                verbs: &["update"],
            },
            status_of("", "v1", "Namespace"),
        ],
        name_rule: NameRule::Dns1123Label,
        generation: false,
        status: StatusRule::Subresource,
        fields: &[
            ("status.phase", "status.phase", ""),
            ("name", "metadata.name", ""),
        ],
        schema_name: schema!(k8s::core::v1::Namespace).0,
        schema: schema!(k8s::core::v1::Namespace).1,
        defaults: defaults::namespace,
        validate: validation::namespace,
        validate_update: validation::nothing_update,
        columns: table::NAMESPACE,
        cells: table::namespace,
        stored_as: None,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        categories: &[],
        namespaced: false,
        verbs: ALL,
        subresources: &[status_of("", "v1", "Node")],
        name_rule: NameRule::Dns1123Subdomain,
        generation: false,
        status: StatusRule::KeptOnCreate,
        fields: &[("spec.unschedulable", "spec.unschedulable", "false")],
        schema_name: schema!(k8s::core::v1::Node).0,
        schema: schema!(k8s::core::v1::Node).1,
        defaults: defaults::node,
        validate: validation::node::node,
        validate_update: validation::node::node_update,
        columns: table::NODE,
        cells: table::node,
        stored_as: None,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        namespaced: true,
        verbs: ALL,
        subresources: &[
            Subresource {
                name: "binding",
                group: "",
                version: "v1",
                kind: "Binding",
                verbs: &["create"],
            },
            Subresource {
                name: "exec",
                group: "",
                version: "v1",
                kind: "PodExecOptions",
                verbs: &["create", "get"],
            },
            Subresource {
                name: "log",
                group: "",
                version: "v1",
                kind: "Pod",
                verbs: &["get"],
            },
            status_of("", "v1", "Pod"),
        ],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::Subresource,
        fields: &[
            ("spec.nodeName", "spec.nodeName", ""),
            ("spec.restartPolicy", "spec.restartPolicy", ""),
            ("spec.schedulerName", "spec.schedulerName", ""),
            ("spec.serviceAccountName", "spec.serviceAccountName", ""),
            ("spec.hostNetwork", "spec.hostNetwork", "false"),
            ("status.phase", "status.phase", ""),
            ("status.podIP", "status.podIP", ""),
            ("status.nominatedNodeName", "status.nominatedNodeName", ""),
        ],
        schema_name: schema!(k8s::core::v1::Pod).0,
        schema: schema!(k8s::core::v1::Pod).1,
        defaults: defaults::pod,
        validate: validation::pod::pod,
        validate_update: validation::pod::pod_update,
        columns: table::POD,
        cells: table::pod,
        stored_as: None,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: false,
        status: StatusRule::None,
        fields: &[("type", "type", "")],
        schema_name: schema!(k8s::core::v1::Secret).0,
        schema: schema!(k8s::core::v1::Secret).1,
        defaults: defaults::secret,
        validate: validation::data::secret,
        validate_update: validation::data::secret_update,
        columns: table::SECRET,
        cells: table::secret,
        stored_as: None,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[Subresource {
            name: "token",
            group: "authentication.k8s.io",
            version: "v1",
            kind: "TokenRequest",
            verbs: &["create"],
        }],
        name_rule: NameRule::Dns1123Subdomain,
        generation: false,
        status: StatusRule::None,
        fields: &[],
        schema_name: schema!(k8s::core::v1::ServiceAccount).0,
        schema: schema!(k8s::core::v1::ServiceAccount).1,
        defaults: defaults::nothing,
        validate: validation::nothing,
        validate_update: validation::nothing_update,
        columns: table::SERVICE_ACCOUNT,
        cells: table::service_account,
        stored_as: None,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        namespaced: true,
        verbs: ALL,
        subresources: &[status_of("", "v1", "Service")],
        name_rule: NameRule::Dns1035Label,
        generation: false,
        status: StatusRule::Subresource,
        fields: &[
            ("spec.clusterIP", "spec.clusterIP", ""),
            ("spec.type", "spec.type", ""),
        ],
        schema_name: schema!(k8s::core::v1::Service).0,
        schema: schema!(k8s::core::v1::Service).1,
        defaults: defaults::service,
        validate: validation::service::service,
        validate_update: validation::service::service_update,
        columns: table::SERVICE,
        cells: table::service,
        stored_as: None,
    },
    Kind {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        namespaced: true,
        verbs: ALL,
        subresources: &[SCALE, status_of("apps", "v1", "Deployment")],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::Subresource,
        fields: &[],
        schema_name: schema!(k8s::apps::v1::Deployment).0,
        schema: schema!(k8s::apps::v1::Deployment).1,
        defaults: defaults::deployment,
        validate: validation::apps::deployment,
        validate_update: validation::apps::selector_update,
        columns: table::DEPLOYMENT,
        cells: table::deployment,
        stored_as: None,
    },
    Kind {
        group: "apps",
        version: "v1",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        namespaced: true,
        verbs: ALL,
        subresources: &[SCALE, status_of("apps", "v1", "ReplicaSet")],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::Subresource,
        fields: &[("status.replicas", "status.replicas", "0")],
        schema_name: schema!(k8s::apps::v1::ReplicaSet).0,
        schema: schema!(k8s::apps::v1::ReplicaSet).1,
        defaults: defaults::replica_set,
        validate: validation::apps::replica_set,
        validate_update: validation::apps::selector_update,
        columns: table::REPLICA_SET,
        cells: table::replica_set,
        stored_as: None,
    },
    Kind {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: false,
        status: StatusRule::None,
        fields: &[],
        schema_name: schema!(k8s::coordination::v1::Lease).0,
        schema: schema!(k8s::coordination::v1::Lease).1,
        defaults: defaults::nothing,
        validate: validation::lease,
        validate_update: validation::nothing_update,
        columns: table::LEASE,
        cells: table::lease,
        stored_as: None,
    },
    Kind {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::None,
        fields: &[],
        schema_name: schema!(k8s::discovery::v1::EndpointSlice).0,
        schema: schema!(k8s::discovery::v1::EndpointSlice).1,
        defaults: defaults::endpoint_slice,
        validate: validation::endpoint_slice::endpoint_slice,
        validate_update: validation::endpoint_slice::endpoint_slice_update,
        columns: table::ENDPOINT_SLICE,
        cells: table::endpoint_slice,
        stored_as: None,
    },
    Kind {
        group: "events.k8s.io",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: false,
        status: StatusRule::None,
        fields: REGARDING_FIELDS,
        schema_name: schema!(k8s::events::v1::Event).0,
        schema: schema!(k8s::events::v1::Event).1,
        defaults: defaults::nothing,
        validate: validation::event::event,
        validate_update: validation::event::event_update,
        columns: table::EVENT,
        cells: table::event,
        stored_as: Some(("", "events")),
    },
    Kind {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: StatusRule::None,
        fields: &[],
        schema_name: schema!(k8s::networking::v1::NetworkPolicy).0,
        schema: schema!(k8s::networking::v1::NetworkPolicy).1,
        defaults: defaults::network_policy,
        validate: validation::network_policy::network_policy,
        validate_update: validation::nothing_update,
        columns: table::NETWORK_POLICY,
        cells: table::network_policy,
        stored_as: None,
    },
];

/// A kind that is asked, not stored: a create is answered with its status filled in.
#[derive(Debug, PartialEq, Eq)]
pub struct Review {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    /// Name in OpenAPI.
    pub schema_name: &'static str,
}

/// The reviews that are served, all of cluster scope.
pub static REVIEWS: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        schema_name: "io.k8s.api.authentication.v1.SelfSubjectReview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        schema_name: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    },
    Review {
        group: "authorization.k8s.io",
        version: "v1",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        schema_name: "io.k8s.api.authorization.v1.SubjectAccessReview",
    },
];

/// The review served under a group, version and plural.
pub fn find_review(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    REVIEWS
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// The kind served under a group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// The kind of an object's `apiVersion` and `kind`.
pub fn of_object(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|k| k.kind == kind && k.api_version() == api_version)
}

/// The groups that are served, each with its versions, the preferred one first. Core is "".
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for kind in KINDS {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version),
            None => groups.push((kind.group, vec![kind.version])),
        }
    }
    groups
}

impl Kind {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: how error texts name the resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The kind whose form and key are stored: itself, but for views of another kind.
    pub fn storage(&'static self) -> &'static Kind {
        match self.stored_as {
            Some((group, plural)) => KINDS
                .iter()
                .find(|k| k.group == group && k.plural == plural && k.stored_as.is_none())
                .unwrap_or(self),
            None => self,
        }
    }

    /// Store key of the collection: `<group or core>/<plural>`; the same for all views of a kind.
    pub fn storage_prefix(&'static self) -> String {
        let kind = self.storage();
        let group = if kind.group.is_empty() {
            "core"
        } else {
            kind.group
        };
        format!("{group}/{}", kind.plural)
    }

    /// Turns an object of this kind into the form that is stored.
    pub fn to_stored(&self, object: Value) -> Value {
        if self.stored_as.is_some() {
            crate::event::to_core(object)
        } else {
            object
        }
    }

    /// Turns a stored object into this kind's form.
    pub fn served(&self, stored: Value) -> Value {
        if self.stored_as.is_some() {
            crate::event::from_core(stored)
        } else {
            stored
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_complete() {
        for (i, a) in KINDS.iter().enumerate() {
            for b in &KINDS[i + 1..] {
                assert_ne!(a, b);
                assert!(
                    a.group != b.group || a.kind != b.kind,
                    "{a:?} and {b:?} share group and kind"
                );
            }
            assert!((a.schema_name)().ends_with(a.kind));
            assert_eq!(
                a.status != StatusRule::None,
                a.subresource("status").is_some(),
                "{a:?}"
            );
        }
    }

    #[test]
    fn finds_and_names() {
        let kind = find("apps", "v1", "deployments").unwrap();
        assert_eq!(kind.api_version(), "apps/v1");
        assert_eq!(kind.qualified_resource(), "deployments.apps");
        assert_eq!(kind.list_kind(), "DeploymentList");
        assert!(find("apps", "v1beta1", "deployments").is_none());
        assert_eq!(of_object("v1", "Pod").unwrap().plural, "pods");
        let events = find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(events.storage().group, "");
        assert_eq!(events.storage_prefix(), "core/events");
    }
}
