//! `meta.k8s.io/v1` Tables: the columns that `kubectl get` shows.
//! Source: Kubernetes `pkg/printers/internalversion/printers.go`.

pub mod admission;
pub mod certificates;
pub mod rbac;
pub mod storage;
pub mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::json::{at, flag, int, list, map, text};
use crate::registry::Kind;
use crate::selector::LabelSelector;
use crate::{pod_status, time};

pub type Now = Timestamp;

/// A column: name, OpenAPI type, format, priority (0: always shown; 1: with `-o wide`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub ty: &'static str,
    pub format: &'static str,
    pub priority: u8,
    pub description: &'static str,
}

impl Column {
    pub fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.ty, "format": self.format,
               "description": self.description, "priority": self.priority})
    }
}

/// The columns of a kind that a CustomResourceDefinition defines.
pub fn custom_columns(custom: &crate::crd::Custom) -> Vec<Value> {
    let own = custom.columns().iter().map(|c| {
        json!({"name": c.name, "type": c.ty, "format": c.format,
               "description": c.description, "priority": c.priority})
    });
    std::iter::once(NAME.definition()).chain(own).collect()
}

const fn col(name: &'static str, ty: &'static str, description: &'static str) -> Column {
    Column {
        name,
        ty,
        format: "",
        priority: 0,
        description,
    }
}

const fn wide(name: &'static str, ty: &'static str, description: &'static str) -> Column {
    Column {
        name,
        ty,
        format: "",
        priority: 1,
        description,
    }
}

const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
};

const AGE: Column = col(
    "Age",
    "string",
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.",
);

const CONTAINERS: Column = wide(
    "Containers",
    "string",
    "Names of each container in the template.",
);
const IMAGES: Column = wide(
    "Images",
    "string",
    "Images referenced by each container in the template.",
);
const SELECTOR: Column = wide("Selector", "string", "Label selector for pods.");

/// `includeObject`: what each row carries besides its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(text: &str) -> crate::status::Result<Self> {
        match text {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "None" => Ok(IncludeObject::None),
            "Object" => Ok(IncludeObject::Object),
            other => Err(crate::ApiError::bad_request(format!(
                "unrecognized includeObject value: {other:?}"
            ))),
        }
    }
}

/// The media type that asks for a Table.
pub const MEDIA_TYPE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// A Table of stored objects (which carry their resourceVersion). `metadata` is the list's
/// ListMeta; for one object pass `{"resourceVersion": …}`. With `headers` false the column
/// definitions are left out, as in all but the first event of a watch.
pub fn render<'a>(
    kind: &Kind,
    stored: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    include: IncludeObject,
    headers: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = stored
        .into_iter()
        .map(|o| row(kind, o, include, now))
        .collect();
    let columns: Value = if headers {
        kind.columns().into()
    } else {
        Value::Null
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

/// One row of a table.
pub fn row(kind: &Kind, stored: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({"cells": kind.cells(stored, now)});
    if kind.is("", "Pod") {
        let condition = match text(stored, "status.phase") {
            "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
            "Failed" => Some(("Failed", "The pod failed.")),
            _ => None,
        };
        if let Some((reason, message)) = condition {
            row["conditions"] = json!([{"type": "Completed", "status": "True",
                                        "reason": reason, "message": message}]);
        }
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": stored.get("metadata").cloned().unwrap_or_else(|| json!({})),
            });
        }
        IncludeObject::Object => row["object"] = kind.served(stored.clone()),
    }
    row
}

fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

fn age(object: &Value, now: Now) -> Value {
    time::age(at(object, "metadata.creationTimestamp"), now).into()
}

fn or_none(text: &str) -> Value {
    if text.is_empty() {
        "<none>".into()
    } else {
        text.into()
    }
}

fn size(object: &Value, field: &str) -> usize {
    map(object, field).map_or(0, |m| m.len())
}

fn labels(object: &Value, path: &str) -> String {
    let mut pairs: Vec<String> = map(object, path)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    pairs.sort();
    if pairs.is_empty() {
        "<none>".into()
    } else {
        pairs.join(",")
    }
}

pub const CUSTOM_RESOURCE_DEFINITION: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        ty: "date",
        format: "",
        priority: 0,
        description: AGE.description,
    },
];

pub const CONFIG_MAP: &[Column] = &[
    NAME,
    col("Data", "string", "Data contains the configuration data."),
    AGE,
];
pub fn config_map(o: &Value, now: Now) -> Vec<Value> {
    vec![
        name(o),
        (size(o, "data") + size(o, "binaryData")).into(),
        age(o, now),
    ]
}

pub const SECRET: &[Column] = &[
    NAME,
    col(
        "Type",
        "string",
        "Used to facilitate programmatic handling of secret data.",
    ),
    col("Data", "string", "Data contains the secret data."),
    AGE,
];
pub fn secret(o: &Value, now: Now) -> Vec<Value> {
    vec![
        name(o),
        text(o, "type").into(),
        size(o, "data").into(),
        age(o, now),
    ]
}

pub const SERVICE_ACCOUNT: &[Column] = &[
    NAME,
    col(
        "Secrets",
        "string",
        "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use.",
    ),
    AGE,
];
pub fn service_account(o: &Value, now: Now) -> Vec<Value> {
    vec![name(o), list(o, "secrets").len().into(), age(o, now)]
}

pub const NAMESPACE: &[Column] = &[
    NAME,
    col("Status", "string", "The status of the namespace"),
    AGE,
];
pub fn namespace(o: &Value, now: Now) -> Vec<Value> {
    vec![name(o), text(o, "status.phase").into(), age(o, now)]
}

pub const LEASE: &[Column] = &[
    NAME,
    col(
        "Holder",
        "string",
        "holderIdentity contains the identity of the holder of a current lease.",
    ),
    AGE,
];
pub fn lease(o: &Value, now: Now) -> Vec<Value> {
    vec![name(o), text(o, "spec.holderIdentity").into(), age(o, now)]
}

pub const NETWORK_POLICY: &[Column] = &[
    NAME,
    col(
        "Pod-Selector",
        "string",
        "Selects the pods to which this NetworkPolicy object applies.",
    ),
    AGE,
];
pub fn network_policy(o: &Value, now: Now) -> Vec<Value> {
    let selector = LabelSelector::from_object(at(o, "spec.podSelector"));
    vec![name(o), selector.to_string().into(), age(o, now)]
}

pub const NODE: &[Column] = &[
    NAME,
    col("Status", "string", "The status of the node"),
    col("Roles", "string", "The roles of the node"),
    AGE,
    col("Version", "string", "Kubelet Version reported by the node."),
    wide(
        "Internal-IP",
        "string",
        "List of addresses reachable to the node.",
    ),
    wide(
        "External-IP",
        "string",
        "List of addresses reachable to the node.",
    ),
    wide(
        "OS-Image",
        "string",
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    wide(
        "Kernel-Version",
        "string",
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    wide(
        "Container-Runtime",
        "string",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];
pub fn node(o: &Value, now: Now) -> Vec<Value> {
    let ready = list(o, "status.conditions")
        .iter()
        .find(|c| text(c, "type") == "Ready");
    let mut status = match ready {
        Some(c) if text(c, "status") == "True" => "Ready".to_string(),
        Some(_) => "NotReady".to_string(),
        None => "Unknown".to_string(),
    };
    if flag(o, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = map(o, "metadata.labels")
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => Some(role),
                _ if key == "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
                _ => None,
            },
        )
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |ty: &str| {
        list(o, "status.addresses")
            .iter()
            .find(|a| text(a, "type") == ty)
            .map_or("", |a| text(a, "address"))
    };
    let info = |field: &str| {
        let value = text(o, &format!("status.nodeInfo.{field}"));
        Value::from(if value.is_empty() { "<unknown>" } else { value })
    };
    vec![
        name(o),
        status.into(),
        or_none(&roles.join(",")),
        age(o, now),
        text(o, "status.nodeInfo.kubeletVersion").into(),
        or_none(address("InternalIP")),
        or_none(address("ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

pub const POD: &[Column] = &[
    NAME,
    col(
        "Ready",
        "string",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    col(
        "Status",
        "string",
        "The aggregate status of the containers in this pod.",
    ),
    col(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide(
        "IP",
        "string",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    wide(
        "Node",
        "string",
        "NodeName indicates in which node this pod is scheduled.",
    ),
    wide(
        "Nominated Node",
        "string",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods.",
    ),
    wide(
        "Readiness Gates",
        "string",
        "If specified, all readiness gates will be evaluated for pod readiness.",
    ),
];
pub fn pod(o: &Value, now: Now) -> Vec<Value> {
    let shown = pod_status::summarize(o, now);
    let gates = list(o, "spec.readinessGates");
    let gates = if gates.is_empty() {
        "<none>".to_string()
    } else {
        let passed = gates
            .iter()
            .filter(|gate| {
                list(o, "status.conditions").iter().any(|c| {
                    text(c, "type") == text(gate, "conditionType") && text(c, "status") == "True"
                })
            })
            .count();
        format!("{passed}/{}", gates.len())
    };
    let first_ip = list(o, "status.podIPs")
        .first()
        .map_or("", |ip| text(ip, "ip"));
    let ip = if first_ip.is_empty() {
        text(o, "status.podIP")
    } else {
        first_ip
    };
    vec![
        name(o),
        shown.ready.into(),
        shown.status.into(),
        shown.restarts.into(),
        age(o, now),
        or_none(ip),
        or_none(text(o, "spec.nodeName")),
        or_none(text(o, "status.nominatedNodeName")),
        gates.into(),
    ]
}

pub const SERVICE: &[Column] = &[
    NAME,
    col(
        "Type",
        "string",
        "type determines how the Service is exposed.",
    ),
    col(
        "Cluster-IP",
        "string",
        "clusterIP is the IP address of the service and is usually assigned randomly.",
    ),
    col(
        "External-IP",
        "string",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
    ),
    col(
        "Port(s)",
        "string",
        "The list of ports that are exposed by this service.",
    ),
    AGE,
    wide(
        "Selector",
        "string",
        "Route service traffic to pods with label keys and values matching this selector.",
    ),
];
pub fn service(o: &Value, now: Now) -> Vec<Value> {
    let first = list(o, "spec.clusterIPs").first().and_then(Value::as_str);
    let internal = first.unwrap_or_else(|| text(o, "spec.clusterIP"));
    let external: Vec<&str> = list(o, "spec.externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let ports: Vec<String> = list(o, "spec.ports")
        .iter()
        .map(|p| {
            let (port, protocol) = (int(p, "port").unwrap_or(0), text(p, "protocol"));
            match int(p, "nodePort") {
                Some(node) if node > 0 => format!("{port}:{node}/{protocol}"),
                _ => format!("{port}/{protocol}"),
            }
        })
        .collect();
    vec![
        name(o),
        text(o, "spec.type").into(),
        or_none(internal),
        or_none(&external.join(",")),
        or_none(&ports.join(",")),
        age(o, now),
        labels(o, "spec.selector").into(),
    ]
}

fn containers_and_images(o: &Value) -> (Value, Value) {
    let containers = list(o, "spec.template.spec.containers");
    let join = |field: &str| {
        let all: Vec<&str> = containers.iter().map(|c| text(c, field)).collect();
        Value::from(all.join(","))
    };
    (join("name"), join("image"))
}

pub const DEPLOYMENT: &[Column] = &[
    NAME,
    col("Ready", "string", "Number of the pod with ready state"),
    col(
        "Up-to-date",
        "string",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    col(
        "Available",
        "string",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub fn deployment(o: &Value, now: Now) -> Vec<Value> {
    let count = |path: &str| int(o, path).unwrap_or(0);
    let (containers, images) = containers_and_images(o);
    vec![
        name(o),
        format!(
            "{}/{}",
            count("status.readyReplicas"),
            count("spec.replicas")
        )
        .into(),
        count("status.updatedReplicas").into(),
        count("status.availableReplicas").into(),
        age(o, now),
        containers,
        images,
        LabelSelector::from_object(at(o, "spec.selector"))
            .to_string()
            .into(),
    ]
}

pub const REPLICA_SET: &[Column] = &[
    NAME,
    col(
        "Desired",
        "integer",
        "Replicas is the number of desired pods.",
    ),
    col(
        "Current",
        "integer",
        "Replicas is the most recently observed number of non-terminating pods.",
    ),
    col(
        "Ready",
        "integer",
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub fn replica_set(o: &Value, now: Now) -> Vec<Value> {
    let count = |path: &str| int(o, path).unwrap_or(0);
    let (containers, images) = containers_and_images(o);
    vec![
        name(o),
        count("spec.replicas").into(),
        count("status.replicas").into(),
        count("status.readyReplicas").into(),
        age(o, now),
        containers,
        images,
        LabelSelector::from_object(at(o, "spec.selector"))
            .to_string()
            .into(),
    ]
}

pub const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    col(
        "AddressType",
        "string",
        "addressType specifies the type of address carried by this EndpointSlice.",
    ),
    col(
        "Ports",
        "string",
        "ports specifies the list of network ports exposed by each endpoint in this slice.",
    ),
    col(
        "Endpoints",
        "string",
        "endpoints is a list of unique endpoints in this slice.",
    ),
    AGE,
];
pub fn endpoint_slice(o: &Value, now: Now) -> Vec<Value> {
    let ports: Vec<String> = list(o, "ports")
        .iter()
        .map(|p| match (int(p, "port"), text(p, "name")) {
            (Some(port), _) => port.to_string(),
            (None, "") => "*".to_string(),
            (None, name) => name.to_string(),
        })
        .collect();
    let addresses: Vec<String> = list(o, "endpoints")
        .iter()
        .flat_map(|e| list(e, "addresses"))
        .filter_map(|a| a.as_str().map(str::to_string))
        .collect();
    vec![
        name(o),
        text(o, "addressType").into(),
        at_most_three(&ports).into(),
        at_most_three(&addresses).into(),
        age(o, now),
    ]
}

fn at_most_three(all: &[String]) -> String {
    match all.len() {
        0 => "<unset>".to_string(),
        n if n > 3 => format!("{} + {} more...", all[..3].join(","), n - 3),
        _ => all.join(","),
    }
}

pub const EVENT: &[Column] = &[
    col(
        "Last Seen",
        "string",
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    col(
        "Type",
        "string",
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    col(
        "Reason",
        "string",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    col("Object", "string", "The object that this event is about."),
    wide(
        "Subobject",
        "string",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement.",
    ),
    wide(
        "Source",
        "string",
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    col(
        "Message",
        "string",
        "A human-readable description of the status of this operation.",
    ),
    wide(
        "First Seen",
        "string",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    wide(
        "Count",
        "string",
        "The number of times this event has occurred.",
    ),
    Column {
        priority: 1,
        ..NAME
    },
];
pub fn event(o: &Value, now: Now) -> Vec<Value> {
    let seen = |path: &str| time::age(at(o, path), now);
    let first = if at(o, "firstTimestamp").is_some() {
        seen("firstTimestamp")
    } else {
        seen("eventTime")
    };
    let mut last = if at(o, "lastTimestamp").is_some() {
        seen("lastTimestamp")
    } else {
        first.clone()
    };
    let mut count = int(o, "count").unwrap_or(0).max(1);
    if at(o, "series").is_some() {
        last = seen("series.lastObservedTime");
        count = int(o, "series.count").unwrap_or(0);
    }
    let kind = text(o, "involvedObject.kind").to_lowercase();
    let target = match text(o, "involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = match text(o, "source.component") {
        "" => text(o, "reportingComponent"),
        component => component,
    };
    let host = match text(o, "source.host") {
        "" => text(o, "reportingInstance"),
        host => host,
    };
    let source = if host.is_empty() {
        component.to_string()
    } else {
        format!("{component}, {host}")
    };
    vec![
        last.into(),
        text(o, "type").into(),
        text(o, "reason").into(),
        target.into(),
        text(o, "involvedObject.fieldPath").into(),
        source.into(),
        text(o, "message").trim().into(),
        first.into(),
        count.into(),
        name(o),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{KINDS, find};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn every_kind_has_a_cell_a_column() {
        for kind in KINDS.iter() {
            assert_eq!(
                kind.cells(&json!({}), now()).len(),
                kind.columns().len(),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_service_row() {
        let kind = find("", "v1", "services").unwrap();
        let o = json!({
            "metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "selector": {"b": "2", "a": "1"},
                     "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
        });
        let table = render(
            kind,
            [&o],
            json!({"resourceVersion": "5"}),
            IncludeObject::Metadata,
            true,
            now(),
        );
        assert_eq!(
            table["rows"][0]["cells"],
            json!([
                "s",
                "ClusterIP",
                "10.0.0.1",
                "<none>",
                "80/TCP,53/UDP",
                "60m",
                "a=1,b=2"
            ])
        );
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        assert_eq!(table["metadata"]["resourceVersion"], "5");
        let later = render(kind, [&o], json!({}), IncludeObject::None, false, now());
        assert!(later["columnDefinitions"].is_null());
        assert!(later["rows"][0].get("object").is_none());
    }

    #[test]
    fn other_rows() {
        let cells = |plural: &str, group: &str, o: Value| {
            Value::from(find(group, "v1", plural).unwrap().cells(&o, now()))
        };
        assert_eq!(
            cells(
                "nodes",
                "",
                json!({
                    "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/b": "", "node-role.kubernetes.io/a": ""}},
                    "spec": {"unschedulable": true},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}],
                               "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
                               "nodeInfo": {"kubeletVersion": "v1"}},
                })
            ),
            json!([
                "n",
                "Ready,SchedulingDisabled",
                "a,b",
                "<unknown>",
                "v1",
                "1.2.3.4",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ])
        );
        assert_eq!(
            cells(
                "endpointslices",
                "discovery.k8s.io",
                json!({
                    "metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 1}],
                    "endpoints": [{"addresses": ["a"]}, {"addresses": ["b"]}, {"addresses": ["c"]},
                                  {"addresses": ["d"]}],
                })
            ),
            json!(["e", "IPv4", "1", "a,b,c + 1 more...", "<unknown>"])
        );
        assert_eq!(
            cells(
                "events",
                "",
                json!({
                    "metadata": {"name": "x"}, "type": "Normal", "reason": "Pulled", "message": " m ",
                    "involvedObject": {"kind": "Pod", "name": "p"}, "count": 3,
                    "source": {"component": "kubelet", "host": "n1"},
                    "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:30Z",
                })
            ),
            json!([
                "30s",
                "Normal",
                "Pulled",
                "pod/p",
                "",
                "kubelet, n1",
                "m",
                "60m",
                3,
                "x"
            ])
        );
        assert_eq!(
            cells(
                "deployments",
                "apps",
                json!({
                    "metadata": {"name": "d"}, "status": {"readyReplicas": 1, "updatedReplicas": 2},
                    "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
                             "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
                })
            ),
            json!(["d", "1/3", 2, 0, "<unknown>", "c", "i", "a=b"])
        );
    }
}
