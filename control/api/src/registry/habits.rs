//! Where writes of some kinds differ from those of the rest.
//! Source: Kubernetes `pkg/registry/*/*/strategy.go` and `storage.go`.

use super::Kind;

/// Group and kind.
type Kinds = &'static [(&'static str, &'static str)];

/// An update must say which version it replaces (`AllowUnconditionalUpdate` is false). So must those of
/// custom kinds.
const CONDITIONAL: Kinds = &[
    (
        "admissionregistration.k8s.io",
        "MutatingWebhookConfiguration",
    ),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("coordination.k8s.io", "Lease"),
    ("node.k8s.io", "RuntimeClass"),
    ("policy", "PodDisruptionBudget"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "CSIStorageCapacity"),
    ("storage.k8s.io", "VolumeAttachment"),
];

/// An update of what isn't there makes it (`AllowCreateOnUpdate`).
const MADE_BY_UPDATE: Kinds = &[
    ("", "Endpoints"),
    ("", "Event"),
    ("", "LimitRange"),
    ("", "Service"),
    ("coordination.k8s.io", "Lease"),
    ("events.k8s.io", "Event"),
    ("node.k8s.io", "RuntimeClass"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
];

/// A deletion is answered with the object (`ReturnDeletedObject`), else with a Status.
const SHOWN_WHEN_DELETED: Kinds = &[
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "PodTemplate"),
    ("", "ResourceQuota"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "ResourceClaimTemplate"),
    ("resource.k8s.io", "ResourceSlice"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storage.k8s.io", "VolumeAttributesClass"),
];

impl Kind {
    /// Whether an update without a resourceVersion is refused.
    pub fn updates_name_a_version(&self) -> bool {
        self.as_custom().is_some() || CONDITIONAL.contains(&self.id())
    }

    /// Whether an update of what isn't there makes it.
    pub fn is_made_by_update(&self) -> bool {
        MADE_BY_UPDATE.contains(&self.id())
    }

    /// Whether a deletion is answered with the object.
    pub fn is_shown_when_deleted(&self) -> bool {
        SHOWN_WHEN_DELETED.contains(&self.id())
    }

    /// What every request for the kind is warned of.
    pub fn deprecation(&self) -> Option<&'static str> {
        self.is("", "Endpoints").then_some(
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        )
    }
}
