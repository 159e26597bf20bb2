//! From Kubernetes objects (their JSON) to the model. Only the fields that count are read, so that
//! a field of a newer Kubernetes can't hurt; what is wrong in a part of an object spoils that part.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    model::{
        EndpointSlice, Labels, NamedPort, Namespace, NetworkPolicy, Node, ObjectName, Pod,
        PolicyPeer, PolicyPort, PolicyRule, PortMatch, Service, ServicePort, SliceEndpoint,
        SlicePort, protocol,
    },
    selector::Selector,
    snapshot::Change,
};

/// A converted object, and what of it had to be left out.
#[derive(Debug)]
pub struct Converted<T> {
    pub object: T,
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl From<serde_json::Error> for Invalid {
    fn from(e: serde_json::Error) -> Invalid {
        Invalid(e.to_string())
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    #[serde(deserialize_with = "null_is_default")]
    namespace: String,
    #[serde(deserialize_with = "null_is_default")]
    uid: String,
    #[serde(deserialize_with = "null_is_default")]
    labels: Labels,
    #[serde(deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

/// On the API's image of a static pod: the uid that the kubelet knows the pod by, and gives to
/// the runtime and to CNI; the API's own uid is the image's.
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror>
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// A pod's addresses, as its node's agent notes them at ADD, with commas between.
pub const ADDRESSES_ANNOTATION: &str = "rhumb.io/addresses";
/// Anybody can write an annotation.
const MOST_ADDRESSES: usize = 8;

impl Meta {
    fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.namespace, &self.name)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawLabelSelector {
    #[serde(deserialize_with = "null_is_default")]
    match_labels: Labels,
    #[serde(deserialize_with = "null_is_default")]
    match_expressions: Vec<RawExpression>,
}

#[derive(Deserialize)]
struct RawExpression {
    key: String,
    operator: String,
    #[serde(default, deserialize_with = "null_is_default")]
    values: Vec<String>,
}

impl RawLabelSelector {
    fn selector(self) -> Result<Selector, Invalid> {
        let mut out = Selector::everything();
        for (key, value) in self.match_labels {
            out.label(key, value);
        }
        for e in self.match_expressions {
            out.expression(e.key, &e.operator, e.values)
                .map_err(|e| Invalid(e.to_string()))?;
        }
        Ok(out)
    }
}

fn port_number(n: i64) -> Option<u16> {
    u16::try_from(n).ok()
}

pub fn namespace(object: &Value) -> Result<Converted<Namespace>, Invalid> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: Meta,
    }
    let raw = Raw::deserialize(object)?;
    Ok(whole(Namespace {
        name: raw.metadata.name,
        labels: raw.metadata.labels,
    }))
}

fn whole<T>(object: T) -> Converted<T> {
    Converted {
        object,
        warnings: Vec::new(),
    }
}

pub fn node(object: &Value) -> Result<Converted<Node>, Invalid> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: Meta,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        #[serde(rename = "podCIDR", deserialize_with = "null_is_default")]
        pod_cidr: String,
        #[serde(rename = "podCIDRs", deserialize_with = "null_is_default")]
        pod_cidrs: Vec<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        #[serde(deserialize_with = "null_is_default")]
        addresses: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        #[serde(rename = "type")]
        kind: String,
        address: String,
    }
    let mut raw = Raw::deserialize(object)?;
    let mut warnings = Vec::new();
    if raw.spec.pod_cidrs.is_empty() && !raw.spec.pod_cidr.is_empty() {
        raw.spec.pod_cidrs.push(raw.spec.pod_cidr);
    }
    let pod_cidrs = parsed(&raw.spec.pod_cidrs, "spec.podCIDRs", &mut warnings, network);
    let mut addresses = Vec::new();
    let mut internal = Vec::new();
    for a in raw.status.addresses {
        if !matches!(a.kind.as_str(), "InternalIP" | "ExternalIP") {
            continue;
        }
        match a.address.parse::<IpAddr>() {
            Ok(ip) => {
                addresses.push(ip);
                if a.kind == "InternalIP" {
                    internal.push(ip);
                }
            }
            Err(_) => warnings.push(format!("status.addresses: {:?} is no address", a.address)),
        }
    }
    Ok(Converted {
        object: Node {
            name: raw.metadata.name,
            pod_cidrs,
            addresses,
            internal,
        },
        warnings,
    })
}

/// The network of a CIDR, host bits cleared.
fn network(text: &str) -> Option<IpNetwork> {
    let n: IpNetwork = text.contains('/').then(|| text.parse().ok())??;
    IpNetwork::new(n.network(), n.prefix()).ok()
}

fn parsed<T>(
    texts: &[String],
    field: &str,
    warnings: &mut Vec<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let mut out = Vec::new();
    for text in texts {
        match parse(text) {
            Some(v) => out.push(v),
            None => warnings.push(format!("{field}: {text:?} is left out: it can't be read")),
        }
    }
    out
}

pub fn pod(object: &Value) -> Result<Converted<Pod>, Invalid> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: Meta,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        #[serde(deserialize_with = "null_is_default")]
        node_name: String,
        #[serde(deserialize_with = "null_is_default")]
        host_network: bool,
        #[serde(deserialize_with = "null_is_default")]
        containers: Vec<Container>,
        #[serde(deserialize_with = "null_is_default")]
        init_containers: Vec<Container>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Container {
        #[serde(deserialize_with = "null_is_default")]
        ports: Vec<Port>,
        restart_policy: Option<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Port {
        #[serde(deserialize_with = "null_is_default")]
        name: String,
        #[serde(deserialize_with = "null_is_default")]
        protocol: String,
        container_port: i64,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Status {
        #[serde(deserialize_with = "null_is_default")]
        phase: String,
        #[serde(rename = "podIP", deserialize_with = "null_is_default")]
        pod_ip: String,
        #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
        pod_ips: Vec<PodIp>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct PodIp {
        ip: String,
    }
    let mut raw = Raw::deserialize(object)?;
    let mirrored = raw.metadata.annotations.remove(MIRROR_ANNOTATION);
    let announced = raw.metadata.annotations.remove(ADDRESSES_ANNOTATION);
    let uid = mirrored
        .filter(|uid| !uid.is_empty())
        .unwrap_or_else(|| std::mem::take(&mut raw.metadata.uid));
    let mut warnings = Vec::new();
    let mut ips: Vec<String> = raw.status.pod_ips.into_iter().map(|p| p.ip).collect();
    if ips.is_empty() && !raw.status.pod_ip.is_empty() {
        ips.push(raw.status.pod_ip);
    }
    // Sidecars (init containers that keep running) serve ports too.
    let sidecars = raw
        .spec
        .init_containers
        .iter()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = raw
        .spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| &c.ports)
        .filter(|p| !p.name.is_empty())
        .filter_map(|p| {
            Some(NamedPort {
                name: p.name.clone(),
                protocol: protocol::parse(&p.protocol)?,
                port: port_number(p.container_port)?,
            })
        })
        .collect();
    Ok(Converted {
        object: Pod {
            name: raw.metadata.object_name(),
            uid,
            node: raw.spec.node_name,
            labels: raw.metadata.labels,
            host_network: raw.spec.host_network,
            terminated: matches!(raw.status.phase.as_str(), "Succeeded" | "Failed"),
            ips: parsed(&ips, "status.podIPs", &mut warnings, |t| t.parse().ok()),
            announced: announced.map_or(Vec::new(), |text| {
                let ips: Vec<String> = text
                    .split(',')
                    .take(MOST_ADDRESSES)
                    .map(Into::into)
                    .collect();
                parsed(&ips, ADDRESSES_ANNOTATION, &mut warnings, |t| {
                    t.parse().ok()
                })
            }),
            ports,
        },
        warnings,
    })
}

pub fn service(object: &Value) -> Result<Converted<Service>, Invalid> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: Meta,
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        #[serde(rename = "type", deserialize_with = "null_is_default")]
        kind: String,
        #[serde(rename = "clusterIP", deserialize_with = "null_is_default")]
        cluster_ip: String,
        #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
        cluster_ips: Vec<String>,
        #[serde(deserialize_with = "null_is_default")]
        ports: Vec<Port>,
        #[serde(deserialize_with = "null_is_default")]
        session_affinity: String,
        session_affinity_config: Option<AffinityConfig>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Port {
        #[serde(deserialize_with = "null_is_default")]
        name: String,
        #[serde(deserialize_with = "null_is_default")]
        protocol: String,
        port: i64,
    }
    #[derive(Deserialize)]
    struct AffinityConfig {
        #[serde(rename = "clientIP")]
        client_ip: Option<ClientIp>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ClientIp {
        timeout_seconds: Option<u32>,
    }
    let raw = Raw::deserialize(object)?;
    let mut spec = raw.spec;
    let mut warnings = Vec::new();
    if spec.cluster_ips.is_empty() && !spec.cluster_ip.is_empty() {
        spec.cluster_ips.push(std::mem::take(&mut spec.cluster_ip));
    }
    spec.cluster_ips.retain(|ip| ip != "None");
    if spec.kind == "ExternalName" {
        spec.cluster_ips.clear();
    }
    let mut ports = Vec::new();
    for p in &spec.ports {
        match (protocol::parse(&p.protocol), port_number(p.port)) {
            (Some(protocol), Some(port)) => {
                if protocol == protocol::SCTP && !spec.cluster_ips.is_empty() {
                    warnings.push(format!(
                        "port {port}/SCTP is not served: only TCP and UDP are"
                    ));
                }
                ports.push(ServicePort {
                    name: p.name.clone(),
                    protocol,
                    port,
                });
            }
            _ => warnings.push(format!(
                "spec.ports: {} {} is left out: no such port",
                p.protocol, p.port
            )),
        }
    }
    // 10 800 s is the default of the API.
    let affinity = (spec.session_affinity == "ClientIP").then(|| {
        spec.session_affinity_config
            .as_ref()
            .and_then(|c| c.client_ip.as_ref()?.timeout_seconds)
            .unwrap_or(10_800)
    });
    Ok(Converted {
        object: Service {
            name: raw.metadata.object_name(),
            cluster_ips: parsed(&spec.cluster_ips, "spec.clusterIPs", &mut warnings, |t| {
                t.parse().ok()
            }),
            ports,
            affinity,
        },
        warnings,
    })
}

pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// `None` for a slice that belongs to no Service, or holds names instead of addresses.
pub fn endpoint_slice(object: &Value) -> Result<Converted<Option<EndpointSlice>>, Invalid> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        metadata: Meta,
        #[serde(default, deserialize_with = "null_is_default")]
        address_type: String,
        #[serde(default, deserialize_with = "null_is_default")]
        endpoints: Vec<Endpoint>,
        #[serde(default, deserialize_with = "null_is_default")]
        ports: Vec<Port>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Endpoint {
        #[serde(deserialize_with = "null_is_default")]
        addresses: Vec<String>,
        #[serde(deserialize_with = "null_is_default")]
        conditions: Conditions,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Conditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Port {
        #[serde(deserialize_with = "null_is_default")]
        name: String,
        #[serde(deserialize_with = "null_is_default")]
        protocol: String,
        port: Option<i64>,
    }
    let raw = Raw::deserialize(object)?;
    let Some(service) = raw.metadata.labels.get(SERVICE_NAME_LABEL) else {
        return Ok(whole(None));
    };
    if !matches!(raw.address_type.as_str(), "IPv4" | "IPv6") {
        return Ok(whole(None));
    }
    let mut warnings = Vec::new();
    let mut endpoints = Vec::new();
    for e in &raw.endpoints {
        // All addresses of an endpoint are the same thing; the first is to be used.
        let Some(text) = e.addresses.first() else {
            continue;
        };
        let Ok(address) = text.parse() else {
            warnings.push(format!("endpoints: {text:?} is no address"));
            continue;
        };
        let ready = e.conditions.ready.unwrap_or(true);
        endpoints.push(SliceEndpoint {
            address,
            ready,
            serving: e.conditions.serving.unwrap_or(ready),
            terminating: e.conditions.terminating.unwrap_or(false),
        });
    }
    let ports = raw
        .ports
        .iter()
        .filter_map(|p| {
            Some(SlicePort {
                name: p.name.clone(),
                protocol: protocol::parse(&p.protocol)?,
                port: port_number(p.port?)?,
            })
        })
        .collect();
    Ok(Converted {
        object: Some(EndpointSlice {
            name: raw.metadata.object_name(),
            service: service.clone(),
            ports,
            endpoints,
        }),
        warnings,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule {
    #[serde(default, alias = "to", deserialize_with = "null_is_default")]
    from: Vec<RawPeer>,
    #[serde(default, deserialize_with = "null_is_default")]
    ports: Vec<RawPolicyPort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPeer {
    pod_selector: Option<RawLabelSelector>,
    namespace_selector: Option<RawLabelSelector>,
    ip_block: Option<RawBlock>,
}

#[derive(Deserialize)]
struct RawBlock {
    cidr: String,
    #[serde(default, deserialize_with = "null_is_default")]
    except: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPolicyPort {
    #[serde(default, deserialize_with = "null_is_default")]
    protocol: String,
    port: Option<Value>,
    end_port: Option<i64>,
}

/// What can't be read in a rule admits nothing; a policy is never skipped for a part of it, since
/// that would open what it closes.
pub fn network_policy(object: &Value) -> Result<Converted<NetworkPolicy>, Invalid> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: Meta,
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        #[serde(deserialize_with = "null_is_default")]
        pod_selector: RawLabelSelector,
        policy_types: Option<Vec<String>>,
        #[serde(deserialize_with = "null_is_default")]
        ingress: Vec<RawRule>,
        #[serde(deserialize_with = "null_is_default")]
        egress: Vec<RawRule>,
    }
    let raw = Raw::deserialize(object)?;
    let mut warnings = Vec::new();
    let spec = raw.spec;
    // Without types: ingress always, egress if there are egress rules.
    let (ingress, egress) = match spec.policy_types.as_deref() {
        None | Some([]) => (true, !spec.egress.is_empty()),
        Some(types) => (
            types.iter().any(|t| t == "Ingress"),
            types.iter().any(|t| t == "Egress"),
        ),
    };
    let mut convert = |rules: Vec<RawRule>, field: &str| {
        rules
            .into_iter()
            .enumerate()
            .map(|(i, r)| rule(r, &format!("spec.{field}[{i}]"), &mut warnings))
            .collect()
    };
    let ingress = ingress.then(|| convert(spec.ingress, "ingress"));
    let egress = egress.then(|| convert(spec.egress, "egress"));
    Ok(Converted {
        object: NetworkPolicy {
            name: raw.metadata.object_name(),
            pods: spec.pod_selector.selector()?,
            ingress,
            egress,
        },
        warnings,
    })
}

fn rule(raw: RawRule, field: &str, warnings: &mut Vec<String>) -> PolicyRule {
    let mut left_out = |what: String| warnings.push(format!("{field}: {what}; it admits nothing"));
    let peers = (!raw.from.is_empty()).then(|| {
        let mut peers = Vec::new();
        for p in raw.from {
            match peer(p) {
                Ok(p) => peers.push(p),
                Err(e) => left_out(e.to_string()),
            }
        }
        peers
    });
    let ports = (!raw.ports.is_empty()).then(|| {
        let mut ports = Vec::new();
        for p in raw.ports {
            match policy_port(p) {
                Ok(p) => ports.push(p),
                Err(e) => left_out(e.to_string()),
            }
        }
        ports
    });
    PolicyRule { peers, ports }
}

fn peer(raw: RawPeer) -> Result<PolicyPeer, Invalid> {
    if let Some(block) = raw.ip_block {
        if raw.pod_selector.is_some() || raw.namespace_selector.is_some() {
            return Err(Invalid("ipBlock can't stand beside a selector".into()));
        }
        let read =
            |text: &String| network(text).ok_or_else(|| Invalid(format!("{text:?} is no CIDR")));
        return Ok(PolicyPeer::Block {
            cidr: read(&block.cidr)?,
            except: block.except.iter().map(read).collect::<Result<_, _>>()?,
        });
    }
    if raw.pod_selector.is_none() && raw.namespace_selector.is_none() {
        return Err(Invalid("a peer without any selector".into()));
    }
    Ok(PolicyPeer::Pods {
        namespaces: raw
            .namespace_selector
            .map(RawLabelSelector::selector)
            .transpose()?,
        pods: raw.pod_selector.unwrap_or_default().selector()?,
    })
}

fn policy_port(raw: RawPolicyPort) -> Result<PolicyPort, Invalid> {
    let bad = |what: String| Invalid(format!("port {what} is none"));
    let protocol = protocol::parse(&raw.protocol)
        .ok_or_else(|| Invalid(format!("the protocol {:?} is unknown", raw.protocol)))?;
    let port = match raw.port {
        None | Some(Value::Null) => PortMatch::Any,
        Some(Value::String(name)) => PortMatch::Named(name),
        Some(Value::Number(n)) => {
            let first = n
                .as_i64()
                .and_then(port_number)
                .ok_or_else(|| bad(n.to_string()))?;
            let last = match raw.end_port {
                None => first,
                Some(end) => port_number(end)
                    .filter(|end| *end >= first)
                    .ok_or_else(|| bad(format!("{first} to {end}")))?,
            };
            PortMatch::Range(first, last)
        }
        Some(other) => return Err(bad(other.to_string())),
    };
    Ok(PolicyPort { protocol, port })
}

/// The kinds that the agent reads, by `kind`.
pub const KINDS: [&str; 6] = [
    "Node",
    "Namespace",
    "Pod",
    "Service",
    "EndpointSlice",
    "NetworkPolicy",
];

/// The change that an object of `kind` makes; `None` for a kind that is not the agent's.
pub fn change(kind: &str, object: &Value) -> Option<Result<Converted<Change>, Invalid>> {
    fn map<T>(
        converted: Result<Converted<T>, Invalid>,
        f: impl FnOnce(T) -> Change,
    ) -> Option<Result<Converted<Change>, Invalid>> {
        Some(converted.map(|c| Converted {
            object: f(c.object),
            warnings: c.warnings,
        }))
    }
    match kind {
        "Node" => map(node(object), |o| Change::Node(o.name.clone(), Some(o))),
        "Namespace" => map(namespace(object), |o| {
            Change::Namespace(o.name.clone(), Some(o))
        }),
        "Pod" => map(pod(object), |o| Change::Pod(o.name.clone(), Some(o))),
        "Service" => map(service(object), |o| {
            Change::Service(o.name.clone(), Some(o))
        }),
        "NetworkPolicy" => map(network_policy(object), |o| {
            Change::Policy(o.name.clone(), Some(o))
        }),
        "EndpointSlice" => {
            let name = object_name(object);
            map(endpoint_slice(object), |o| Change::Slice(name, o))
        }
        _ => None,
    }
}

/// The change that an object of `kind` is gone.
pub fn removal(kind: &str, name: ObjectName) -> Option<Change> {
    Some(match kind {
        "Node" => Change::Node(name.name, None),
        "Namespace" => Change::Namespace(name.name, None),
        "Pod" => Change::Pod(name, None),
        "Service" => Change::Service(name, None),
        "EndpointSlice" => Change::Slice(name, None),
        "NetworkPolicy" => Change::Policy(name, None),
        _ => return None,
    })
}

fn object_name(object: &Value) -> ObjectName {
    let text = |field: &str| {
        object
            .get("metadata")
            .and_then(|m| m.get(field)?.as_str())
            .unwrap_or_default()
    };
    ObjectName::new(text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policy_types_by_default() {
        let types = |spec: Value| {
            let p =
                network_policy(&json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
                    .unwrap()
                    .object;
            (p.ingress.is_some(), p.egress.is_some())
        };
        assert_eq!(types(json!({"podSelector": {}})), (true, false));
        assert_eq!(
            types(json!({"podSelector": {}, "egress": [{}]})),
            (true, true)
        );
        assert_eq!(
            types(json!({"podSelector": {}, "policyTypes": ["Egress"]})),
            (false, true)
        );
    }

    #[test]
    fn a_bad_part_of_a_rule_admits_nothing_and_the_policy_stands() {
        let c = network_policy(&json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"podSelector": {}, "ingress": [
                {"from": [{"ipBlock": {"cidr": "10.0.0.0/40"}}]},
                {"from": [{}], "ports": [{"port": 99999}, {"protocol": "QUIC"}, {"port": 9, "endPort": 8}]},
            ]}
        }))
        .unwrap();
        assert_eq!(c.warnings.len(), 5, "{:?}", c.warnings);
        let rules = c.object.ingress.unwrap();
        assert_eq!(rules[0].peers, Some(vec![]));
        assert_eq!(rules[1].peers, Some(vec![]));
        assert_eq!(rules[1].ports, Some(vec![]));
        // Selectors that mean nothing spoil the whole: it can't be known whom it isolates.
        assert!(
            network_policy(&json!({
                "metadata": {"name": "p"},
                "spec": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}
            }))
            .is_err()
        );
    }

    #[test]
    fn a_static_pod_is_known_by_the_uid_that_its_kubelet_gives_it() {
        let uid = |annotations: Value| {
            let pod = json!({"metadata": {"name": "p", "uid": "api", "annotations": annotations}});
            super::pod(&pod).unwrap().object.uid
        };
        assert_eq!(uid(json!({"kubernetes.io/config.mirror": "hash"})), "hash");
        assert_eq!(uid(json!({"kubernetes.io/config.mirror": ""})), "api");
        assert_eq!(uid(json!({"kubernetes.io/config.hash": "hash"})), "api");
        assert_eq!(uid(Value::Null), "api");
    }

    #[test]
    fn nonsense_never_panics() {
        for value in [
            json!(null),
            json!({}),
            json!({"metadata": 3}),
            json!({"metadata": {"name": 7}, "spec": []}),
            json!({"metadata": {"name": "x"}, "spec": null, "status": null}),
            json!({"metadata": {"name": "x", "labels": null}, "spec": {"ports": [{"port": -1}], "clusterIPs": ["x"]},
                   "status": {"podIPs": [{"ip": "?"}], "addresses": [{"type": "InternalIP", "address": "?"}]}}),
        ] {
            for kind in KINDS {
                let _ = change(kind, &value);
            }
        }
    }

    #[test]
    fn headless_and_external_names_have_no_frontend() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "clusterIP": ""}),
        ] {
            let s = service(&json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
            assert!(s.object.cluster_ips.is_empty());
        }
    }
}
