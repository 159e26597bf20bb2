//! The endpoints that a Service should have: one group for each address family and set of ports.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::pod;

/// Endpoints that may share a slice.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// `IPv4` or `IPv6`.
    pub address_type: &'static str,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// Whether the Service's endpoints are ours to find: it has a selector, and isn't a mere alias.
pub fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| {
        s.selector.as_ref().is_some_and(|x| !x.is_empty())
            && s.type_.as_deref() != Some("ExternalName")
    })
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn families(service: &Service) -> Vec<&'static str> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let named: Vec<&'static str> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|f| match f.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    // A server that doesn't default ipFamilies: the cluster address tells.
    match spec
        .cluster_ip
        .as_deref()
        .and_then(|ip| ip.parse::<IpAddr>().ok())
    {
        Some(IpAddr::V6(_)) => vec!["IPv6"],
        _ => vec!["IPv4"],
    }
}

fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    listed
        .chain(status.pod_ip.as_deref())
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
        .find(|ip| ip.is_ipv4() == (family == "IPv4"))
        .map(|ip| ip.to_string())
}

/// The number of `port` on `pod`: a named target port is looked up in its containers.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| {
                    p.name.as_deref() == Some(name)
                        && p.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|p| p.container_port)
        }
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_deref())
        .unwrap_or_default();
    let mut out: Vec<EndpointPort> = ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    sort_ports(&mut out);
    out
}

/// Ports in an order of their own, so that sets compare as lists.
pub fn sort_ports(ports: &mut [EndpointPort]) {
    ports.sort_by(|a, b| {
        (&a.name, &a.protocol, a.port, &a.app_protocol).cmp(&(
            &b.name,
            &b.protocol,
            b.port,
            &b.app_protocol,
        ))
    });
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let spec = service.spec.as_ref();
    let publish = spec
        .and_then(|s| s.publish_not_ready_addresses)
        .unwrap_or(false);
    let serving = pod::is_ready(pod);
    let terminating = pod::is_terminating(pod);
    let node = pod::node_name(pod);
    let pod_spec = pod.spec.as_ref();
    // A pod has a name of its own in a headless Service that is its subdomain.
    let named = pod_spec.and_then(|s| s.subdomain.as_ref()) == service.metadata.name.as_ref()
        && pod.metadata.namespace == service.metadata.namespace;
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pod_spec
            .and_then(|s| s.hostname.clone())
            .filter(|h| named && !h.is_empty()),
        node_name: node.map(String::from),
        zone: node.and_then(zone_of),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The groups of `service`, with at least one (maybe empty) for each of its families. `pods` are those
/// that it selects, `zone_of` gives a node's zone.
pub fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut out = Vec::new();
    for family in families(service) {
        let mut by_ports: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods.iter().filter(|p| !pod::is_finished(p)) {
            let Some(address) = address(pod, family) else {
                continue;
            };
            let ports = ports(service, pod);
            // A debug form is as good a key as any: it only has to tell sets of ports apart.
            let key = format!("{ports:?}");
            let group = by_ports.entry(key).or_insert_with(|| Group {
                address_type: family,
                ports,
                endpoints: Vec::new(),
            });
            group
                .endpoints
                .push(endpoint(service, pod, address, zone_of));
        }
        if by_ports.is_empty() {
            out.push(Group {
                address_type: family,
                ports: Vec::new(),
                endpoints: Vec::new(),
            });
        }
        out.extend(by_ports.into_values());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(
            json!({ "metadata": { "namespace": "default", "name": "web" }, "spec": spec }),
        )
        .unwrap()
    }

    fn pod(name: &str, ips: &[&str], ready: bool, more: Value) -> Arc<Pod> {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        let mut pod = json!({
            "metadata": { "namespace": "default", "name": name, "uid": name },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
            "status": { "podIPs": ips, "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        });
        for (k, v) in more.as_object().unwrap() {
            for (kk, vv) in v.as_object().unwrap() {
                pod[k][kk] = vv.clone();
            }
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn zone(_: &str) -> Option<String> {
        Some("z".into())
    }

    fn conditions(e: &Endpoint) -> (Option<bool>, Option<bool>, Option<bool>) {
        let c = e.conditions.clone().unwrap();
        (c.ready, c.serving, c.terminating)
    }

    #[test]
    fn one_group_a_family_with_what_each_pod_has() {
        let s = service(
            json!({ "ipFamilies": ["IPv4", "IPv6"], "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] }),
        );
        let pods = [
            pod("a", &["10.0.0.1", "fd00::1"], true, json!({})),
            pod("b", &["10.0.0.2"], false, json!({})),
            pod("nowhere", &[], true, json!({})),
            pod(
                "done",
                &["10.0.0.3"],
                false,
                json!({ "status": { "phase": "Succeeded" } }),
            ),
        ];
        let groups = desired(&s, &pods, &zone);
        assert_eq!(groups.len(), 2);
        assert_eq!(
            (groups[0].address_type, groups[0].endpoints.len()),
            ("IPv4", 2)
        );
        assert_eq!(
            (groups[1].address_type, groups[1].endpoints.len()),
            ("IPv6", 1)
        );
        assert_eq!(groups[0].ports[0].port, Some(8080));
        let (a, b) = (&groups[0].endpoints[0], &groups[0].endpoints[1]);
        assert_eq!(conditions(a), (Some(true), Some(true), Some(false)));
        assert_eq!(conditions(b), (Some(false), Some(false), Some(false)));
        assert_eq!(
            (a.node_name.as_deref(), a.zone.as_deref()),
            (Some("n1"), Some("z"))
        );
        assert_eq!(a.target_ref.as_ref().unwrap().uid.as_deref(), Some("a"));
    }

    #[test]
    fn a_terminating_pod_still_serves_but_is_not_ready_unless_published() {
        let gone = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
        let pods = [pod("a", &["10.0.0.1"], true, gone)];
        let s = service(json!({ "selector": { "app": "web" }, "ports": [{ "port": 80 }] }));
        assert_eq!(
            conditions(&desired(&s, &pods, &zone)[0].endpoints[0]),
            (Some(false), Some(true), Some(true))
        );
        let s = service(json!({ "selector": { "app": "web" }, "publishNotReadyAddresses": true }));
        assert_eq!(
            conditions(&desired(&s, &pods, &zone)[0].endpoints[0]),
            (Some(true), Some(true), Some(true))
        );
    }

    #[test]
    fn a_named_port_is_looked_up_in_each_pod() {
        let s = service(
            json!({ "selector": { "app": "web" }, "ports": [{ "name": "w", "port": 80, "targetPort": "http" }, { "name": "x", "port": 81, "targetPort": "none" }] }),
        );
        let other = json!({ "spec": { "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 9090 }] }] } });
        let groups = desired(
            &s,
            &[
                pod("a", &["10.0.0.1"], true, json!({})),
                pod("b", &["10.0.0.2"], true, other),
            ],
            &zone,
        );
        let mut ports: Vec<_> = groups
            .iter()
            .map(|g| (g.ports.len(), g.ports[0].port, g.endpoints.len()))
            .collect();
        ports.sort();
        assert_eq!(ports, [(1, Some(8080), 1), (1, Some(9090), 1)]);
    }

    #[test]
    fn a_pod_is_named_only_under_its_own_subdomain() {
        let with = |subdomain: &str| {
            pod(
                "a",
                &["10.0.0.1"],
                true,
                json!({ "spec": { "hostname": "h", "subdomain": subdomain } }),
            )
        };
        let s = service(json!({ "clusterIP": "None", "selector": { "app": "web" } }));
        assert_eq!(
            desired(&s, &[with("web")], &zone)[0].endpoints[0]
                .hostname
                .as_deref(),
            Some("h")
        );
        assert_eq!(
            desired(&s, &[with("other")], &zone)[0].endpoints[0].hostname,
            None
        );
    }

    #[test]
    fn without_pods_a_family_has_an_empty_group() {
        let s = service(
            json!({ "ipFamilies": ["IPv6"], "selector": { "app": "web" }, "ports": [{ "port": 80 }] }),
        );
        let groups = desired(&s, &[], &zone);
        assert_eq!(groups.len(), 1);
        assert!(groups[0].endpoints.is_empty());
    }
}
