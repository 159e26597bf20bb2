//! Tables of volumes, claims, classes and drivers.

use serde_json::Value;

use super::workloads::VOLUME_MODE;
use super::{AGE, Column, NAME, Now, age, col, name};
use crate::json::{at, flag, int, list, map, text};

const CAPACITY: Column = col(
    "Capacity",
    "string",
    "capacity is the description of the persistent volume's resources and capacity.",
);
const ACCESS_MODES: Column = col(
    "Access Modes",
    "string",
    "accessModes contains all ways the volume can be mounted.",
);

/// `RWO,ROX`, in Kubernetes' order.
fn modes(o: &Value, path: &str) -> String {
    let given = list(o, path);
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown: Vec<&str> = known
        .iter()
        .filter(|(mode, _)| given.iter().any(|g| g == mode))
        .map(|(_, short)| *short)
        .collect();
    shown.join(",")
}

fn or_unset(text: &str) -> Value {
    if text.is_empty() {
        "<unset>".into()
    } else {
        text.into()
    }
}

fn phase(o: &Value) -> Value {
    if at(o, "metadata.deletionTimestamp").is_some() {
        "Terminating".into()
    } else {
        text(o, "status.phase").into()
    }
}

/// The class by its old annotation or its field.
fn class(o: &Value) -> Value {
    map(o, "metadata.annotations")
        .and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"))
        .and_then(Value::as_str)
        .unwrap_or_else(|| text(o, "spec.storageClassName"))
        .into()
}

pub const VOLUME: &[Column] = &[
    NAME,
    CAPACITY,
    ACCESS_MODES,
    col(
        "Reclaim Policy",
        "string",
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim.",
    ),
    col(
        "Status",
        "string",
        "phase indicates if a volume is available, bound to a claim, or released by a claim.",
    ),
    col(
        "Claim",
        "string",
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim.",
    ),
    col("StorageClass", "string", "StorageClass of the pv"),
    col(
        "VolumeAttributesClass",
        "string",
        "VolumeAttributesClass of the pv",
    ),
    col(
        "Reason",
        "string",
        "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
    ),
    AGE,
    VOLUME_MODE,
];
pub fn volume(o: &Value, now: Now) -> Vec<Value> {
    let claim =
        at(o, "spec.claimRef").map(|c| format!("{}/{}", text(c, "namespace"), text(c, "name")));
    vec![
        name(o),
        text(o, "spec.capacity.storage").into(),
        modes(o, "spec.accessModes").into(),
        text(o, "spec.persistentVolumeReclaimPolicy").into(),
        phase(o),
        claim.unwrap_or_default().into(),
        class(o),
        or_unset(text(o, "spec.volumeAttributesClassName")),
        text(o, "status.reason").into(),
        age(o, now),
        or_unset(text(o, "spec.volumeMode")),
    ]
}

pub const CLAIM: &[Column] = &[
    NAME,
    col(
        "Status",
        "string",
        "phase represents the current phase of PersistentVolumeClaim.",
    ),
    col(
        "Volume",
        "string",
        "volumeName is the binding reference to the PersistentVolume backing this claim.",
    ),
    CAPACITY,
    ACCESS_MODES,
    col("StorageClass", "string", "StorageClass of the pvc"),
    col(
        "VolumeAttributesClass",
        "string",
        "VolumeAttributesClass of the pvc",
    ),
    AGE,
    VOLUME_MODE,
];
pub fn claim(o: &Value, now: Now) -> Vec<Value> {
    let volume = text(o, "spec.volumeName");
    let (capacity, modes) = if volume.is_empty() {
        ("", String::new())
    } else {
        (
            text(o, "status.capacity.storage"),
            modes(o, "status.accessModes"),
        )
    };
    vec![
        name(o),
        phase(o),
        volume.into(),
        capacity.into(),
        modes.into(),
        class(o),
        or_unset(text(o, "spec.volumeAttributesClassName")),
        age(o, now),
        or_unset(text(o, "spec.volumeMode")),
    ]
}

/// The name, marked if the class is the default one.
fn class_name(o: &Value, annotation: &str) -> Value {
    let default = map(o, "metadata.annotations")
        .and_then(|a| a.get(annotation))
        .is_some_and(|v| v == "true");
    let name = text(o, "metadata.name");
    match default {
        true => format!("{name} (default)").into(),
        false => name.into(),
    }
}

pub const STORAGE_CLASS: &[Column] = &[
    NAME,
    col(
        "Provisioner",
        "string",
        "provisioner indicates the type of the provisioner.",
    ),
    col(
        "ReclaimPolicy",
        "string",
        "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class.",
    ),
    col(
        "VolumeBindingMode",
        "string",
        "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.",
    ),
    col(
        "AllowVolumeExpansion",
        "string",
        "allowVolumeExpansion shows whether the storage class allow volume expand.",
    ),
    AGE,
];
pub fn storage_class(o: &Value, now: Now) -> Vec<Value> {
    vec![
        class_name(o, "storageclass.kubernetes.io/is-default-class"),
        text(o, "provisioner").into(),
        text(o, "reclaimPolicy").into(),
        text(o, "volumeBindingMode").into(),
        flag(o, "allowVolumeExpansion").into(),
        age(o, now),
    ]
}

pub const ATTRIBUTES_CLASS: &[Column] = &[
    NAME,
    col("DriverName", "string", "Name of the CSI driver"),
    AGE,
];
pub fn attributes_class(o: &Value, now: Now) -> Vec<Value> {
    vec![
        class_name(
            o,
            "volumeattributesclass.alpha.kubernetes.io/is-default-class",
        ),
        text(o, "driverName").into(),
        age(o, now),
    ]
}

pub const ATTACHMENT: &[Column] = &[
    NAME,
    col(
        "Attacher",
        "string",
        "attacher indicates the name of the volume driver that MUST handle this request.",
    ),
    col(
        "PV",
        "string",
        "persistentVolumeName represents the name of the persistent volume to attach.",
    ),
    col(
        "Node",
        "string",
        "nodeName represents the node that the volume should be attached to.",
    ),
    col(
        "Attached",
        "boolean",
        "attached indicates the volume is successfully attached.",
    ),
    AGE,
];
pub fn attachment(o: &Value, now: Now) -> Vec<Value> {
    vec![
        name(o),
        text(o, "spec.attacher").into(),
        text(o, "spec.source.persistentVolumeName").into(),
        text(o, "spec.nodeName").into(),
        flag(o, "status.attached").into(),
        age(o, now),
    ]
}

pub const CSI_NODE: &[Column] = &[
    NAME,
    col(
        "Drivers",
        "integer",
        "Drivers indicates the number of CSI drivers registered on the node",
    ),
    AGE,
];
pub fn csi_node(o: &Value, now: Now) -> Vec<Value> {
    vec![name(o), list(o, "spec.drivers").len().into(), age(o, now)]
}

pub const CSI_DRIVER: &[Column] = &[
    NAME,
    col(
        "AttachRequired",
        "boolean",
        "attachRequired indicates this CSI volume driver requires an attach operation.",
    ),
    col(
        "PodInfoOnMount",
        "boolean",
        "podInfoOnMount indicates this CSI volume driver requires additional pod information during mount operations, if set to true.",
    ),
    col(
        "StorageCapacity",
        "boolean",
        "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report.",
    ),
    col(
        "TokenRequests",
        "string",
        "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication.",
    ),
    col(
        "RequiresRepublish",
        "boolean",
        "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called.",
    ),
    col(
        "Modes",
        "string",
        "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports.",
    ),
    AGE,
];
pub fn csi_driver(o: &Value, now: Now) -> Vec<Value> {
    let audiences: Vec<&str> = list(o, "spec.tokenRequests")
        .iter()
        .map(|r| text(r, "audience"))
        .collect();
    let modes: Vec<&str> = list(o, "spec.volumeLifecycleModes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let attach = at(o, "spec.attachRequired").and_then(Value::as_bool);
    vec![
        name(o),
        attach.unwrap_or(true).into(),
        flag(o, "spec.podInfoOnMount").into(),
        flag(o, "spec.storageCapacity").into(),
        or_unset(&audiences.join(",")),
        flag(o, "spec.requiresRepublish").into(),
        if modes.is_empty() {
            "<none>".into()
        } else {
            modes.join(",").into()
        },
        age(o, now),
    ]
}

pub const STORAGE_CAPACITY: &[Column] = &[
    NAME,
    col(
        "StorageClassName",
        "string",
        "storageClassName represents the name of the StorageClass that the reported capacity applies to.",
    ),
    col(
        "Capacity",
        "string",
        "capacity is the value reported by the CSI driver in its GetCapacityResponse.",
    ),
];
pub fn storage_capacity(o: &Value, _: Now) -> Vec<Value> {
    vec![
        name(o),
        text(o, "storageClassName").into(),
        text(o, "capacity").into(),
    ]
}

pub const API_SERVICE: &[Column] = &[
    NAME,
    col(
        "Service",
        "string",
        "The reference to the service that hosts this API endpoint.",
    ),
    col("Available", "string", "Whether this service is available."),
    AGE,
];
pub fn api_service(o: &Value, now: Now) -> Vec<Value> {
    let service = match at(o, "spec.service") {
        Some(s) => format!("{}/{}", text(s, "namespace"), text(s, "name")),
        None => "Local".to_string(),
    };
    let condition = list(o, "status.conditions")
        .iter()
        .find(|c| text(c, "type") == "Available");
    let available = match condition {
        None => "Unknown".to_string(),
        Some(c) => match (text(c, "status"), text(c, "reason")) {
            ("True", _) => "True".to_string(),
            (status, reason) => format!("{status} ({reason})"),
        },
    };
    vec![name(o), service.into(), available.into(), age(o, now)]
}

pub const SERVICE_CIDR: &[Column] = &[
    NAME,
    col(
        "CIDRs",
        "string",
        "CIDRs defines the IP blocks in CIDR notation from which to assign service cluster IPs.",
    ),
    AGE,
];
pub fn service_cidr(o: &Value, now: Now) -> Vec<Value> {
    let cidrs: Vec<&str> = list(o, "spec.cidrs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![name(o), cidrs.join(",").into(), age(o, now)]
}

pub const IP_ADDRESS: &[Column] = &[
    NAME,
    col(
        "ParentRef",
        "string",
        "ParentRef references the resource that an IPAddress is attached to.",
    ),
    AGE,
];
pub fn ip_address(o: &Value, now: Now) -> Vec<Value> {
    let parent = at(o, "spec.parentRef").map(|p| {
        let mut shown = match text(p, "group") {
            "" => text(p, "resource").to_string(),
            group => format!("{}.{group}", text(p, "resource")),
        };
        for part in ["namespace", "name"] {
            let part = text(p, part);
            if !part.is_empty() {
                shown = format!("{shown}/{part}");
            }
        }
        shown
    });
    vec![
        name(o),
        parent.unwrap_or_else(|| "<none>".to_string()).into(),
        age(o, now),
    ]
}

pub const FLOW_SCHEMA: &[Column] = &[
    NAME,
    col(
        "PriorityLevel",
        "string",
        "`priorityLevelConfiguration` should reference a PriorityLevelConfiguration in the cluster.",
    ),
    col(
        "MatchingPrecedence",
        "integer",
        "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request.",
    ),
    col(
        "DistinguisherMethod",
        "string",
        "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema.",
    ),
    AGE,
    col(
        "MissingPL",
        "string",
        "references a broken or non-existent PriorityLevelConfiguration",
    ),
];
pub fn flow_schema(o: &Value, now: Now) -> Vec<Value> {
    let method = match text(o, "spec.distinguisherMethod.type") {
        "" => "<none>",
        method => method,
    };
    vec![
        name(o),
        text(o, "spec.priorityLevelConfiguration.name").into(),
        int(o, "spec.matchingPrecedence").unwrap_or(0).into(),
        method.into(),
        age(o, now),
        match list(o, "status.conditions")
            .iter()
            .find(|c| text(c, "type") == "Dangling")
        {
            Some(dangling) => text(dangling, "status").into(),
            None => "?".into(),
        },
    ]
}

pub const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    col(
        "Type",
        "string",
        "`type` indicates whether this priority level is subject to limitation on request execution.",
    ),
    col(
        "NominalConcurrencyShares",
        "string",
        "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level.",
    ),
    col(
        "Queues",
        "string",
        "`queues` is the number of queues for this priority level.",
    ),
    col(
        "HandSize",
        "string",
        "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.",
    ),
    col(
        "QueueLengthLimit",
        "string",
        "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time.",
    ),
    AGE,
];
pub fn priority_level(o: &Value, now: Now) -> Vec<Value> {
    let limited = |field: &str| -> Value {
        let found = int(o, &format!("spec.limited.{field}"));
        found.map_or("<none>".into(), Value::from)
    };
    let queuing = |field: &str| limited(&format!("limitResponse.queuing.{field}"));
    vec![
        name(o),
        text(o, "spec.type").into(),
        limited("nominalConcurrencyShares"),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(o, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Now {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn volumes_and_claims() {
        assert_eq!(
            Value::from(volume(
                &json!({
                    "metadata": {"name": "v"},
                    "spec": {
                        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                        "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
                        "claimRef": {"namespace": "a", "name": "b"}, "storageClassName": "fast",
                    },
                    "status": {"phase": "Bound"},
                }),
                now()
            )),
            json!([
                "v",
                "1Gi",
                "RWO,RWX",
                "Retain",
                "Bound",
                "a/b",
                "fast",
                "<unset>",
                "",
                "<unknown>",
                "Filesystem"
            ])
        );
        assert_eq!(
            Value::from(claim(
                &json!({
                    "metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"]},
                    "status": {"phase": "Pending"},
                }),
                now()
            )),
            json!([
                "c",
                "Pending",
                "",
                "",
                "",
                "",
                "<unset>",
                "<unknown>",
                "<unset>"
            ])
        );
    }

    #[test]
    fn other_rows() {
        assert_eq!(
            Value::from(storage_class(
                &json!({"metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
                        "provisioner": "p", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}),
                now()
            )),
            json!([
                "s (default)",
                "p",
                "Delete",
                "Immediate",
                false,
                "<unknown>"
            ])
        );
        assert_eq!(
            Value::from(api_service(
                &json!({"metadata": {"name": "v1.apps"}, "status": {"conditions": [{"type": "Available", "status": "True"}]}}),
                now()
            )),
            json!(["v1.apps", "Local", "True", "<unknown>"])
        );
        assert_eq!(
            Value::from(ip_address(
                &json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {
                    "group": "", "resource": "services", "namespace": "default", "name": "kubernetes"}}}),
                now()
            )),
            json!(["10.0.0.1", "services/default/kubernetes", "<unknown>"])
        );
    }
}
