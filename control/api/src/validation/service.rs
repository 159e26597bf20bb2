//! Services. What has no data path yet is refused by name: types other than ClusterIP, headless
//! Services, affinity, external addresses, topology.

use std::net::IpAddr;

use serde_json::Value;

use super::metadata::{self, dns1123_label_faults, invalid_each};
use super::{IMMUTABLE, one_of, port_number, port_or_name};
use crate::json::{at, int, list, text};
use crate::service::Family;
use crate::status::Errors;

pub fn service(service: &Value, errors: &mut Errors) {
    let spec = at(service, "spec").unwrap_or(&Value::Null);
    one_of("spec.type", text(spec, "type"), &["ClusterIP"], errors);
    one_of(
        "spec.sessionAffinity",
        text(spec, "sessionAffinity"),
        &["None"],
        errors,
    );
    let internal = text(spec, "internalTrafficPolicy");
    if !internal.is_empty() {
        one_of("spec.internalTrafficPolicy", internal, &["Cluster"], errors);
    }
    metadata::labels("spec.selector", at(spec, "selector"), errors);
    ports(spec, errors);
    addresses(spec, errors);
    if text(spec, "type") != "ClusterIP" {
        // What follows is about fields that the other types bring along.
        return;
    }
    for field in [
        "externalIPs",
        "externalName",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "loadBalancerIP",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
        "trafficDistribution",
    ] {
        let value = at(spec, field);
        let unset = match value {
            None => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::String(s)) => s.is_empty(),
            Some(Value::Number(n)) => n.as_i64() == Some(0),
            Some(_) => false,
        };
        if !unset {
            errors.forbidden(&format!("spec.{field}"), "is not supported yet");
        }
    }
    if at(spec, "allocateLoadBalancerNodePorts").is_some() {
        errors.forbidden(
            "spec.allocateLoadBalancerNodePorts",
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
}

fn ports(spec: &Value, errors: &mut Errors) {
    let ports = list(spec, "ports");
    if ports.is_empty() {
        errors.required("spec.ports", "");
    }
    let mut names: Vec<&str> = Vec::new();
    let mut numbers: Vec<(i64, &str)> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&format!("{path}.name"), "");
            }
        } else {
            let path = format!("{path}.name");
            invalid_each(&path, name, dns1123_label_faults(name), errors);
            if names.contains(&name) {
                errors.duplicate(&path, name);
            }
            names.push(name);
        }
        let number = int(port, "port").unwrap_or(0);
        port_number(&format!("{path}.port"), number, errors);
        let protocol = text(port, "protocol");
        one_of(
            &format!("{path}.protocol"),
            protocol,
            &["TCP", "UDP"],
            errors,
        );
        if let Some(target) = at(port, "targetPort") {
            port_or_name(&format!("{path}.targetPort"), target, errors);
        }
        if int(port, "nodePort").unwrap_or(0) != 0 {
            errors.forbidden(
                &format!("{path}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            );
        }
        let key = (number, protocol);
        if numbers.contains(&key) {
            errors.duplicate(&path, port.clone());
        }
        numbers.push(key);
        let app = text(port, "appProtocol");
        if !app.is_empty() {
            let path = format!("{path}.appProtocol");
            invalid_each(&path, app, metadata::qualified_name_faults(app), errors);
        }
    }
}

/// Cluster IPs and families, after allocation.
fn addresses(spec: &Value, errors: &mut Errors) {
    let policy = text(spec, "ipFamilyPolicy");
    if !policy.is_empty() {
        let supported = ["SingleStack", "PreferDualStack", "RequireDualStack"];
        one_of("spec.ipFamilyPolicy", policy, &supported, errors);
    }
    let families = list(spec, "ipFamilies");
    for (i, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{i}]");
        let name = family.as_str().unwrap_or("");
        one_of(&path, name, &["IPv4", "IPv6"], errors);
        if families[..i].contains(family) {
            errors.duplicate(&path, name);
        }
    }
    if policy == "RequireDualStack" && families.len() < 2 {
        errors.invalid(
            "spec.ipFamilyPolicy",
            policy,
            "this cluster is not configured for dual-stack services",
        );
    }
    let addresses = list(spec, "clusterIPs");
    let first = text(spec, "clusterIP");
    if !first.is_empty() && addresses.first().is_some_and(|a| a != first) {
        errors.invalid(
            "spec.clusterIPs[0]",
            addresses.to_vec(),
            "element [0] must match clusterIP",
        );
    }
    if addresses.len() > 2 {
        errors.invalid(
            "spec.clusterIPs",
            addresses.to_vec(),
            "may only hold up to 2 values",
        );
    }
    let given: Vec<&Value> = if addresses.is_empty() && !first.is_empty() {
        at(spec, "clusterIP").into_iter().collect()
    } else {
        addresses.iter().collect()
    };
    for (i, address) in given.into_iter().enumerate() {
        let path = format!("spec.clusterIPs[{i}]");
        let shown = address.as_str().unwrap_or("");
        if shown == "None" {
            errors.invalid(
                "spec.clusterIP",
                "None",
                "headless Services are not supported yet: leave clusterIP empty, or name an address of the Service range",
            );
            continue;
        }
        match shown.parse::<IpAddr>() {
            Err(_) => super::ip_address(&path, shown, errors),
            Ok(parsed) => {
                let family = families.get(i).and_then(Value::as_str);
                if let Some(family) = family
                    && family != Family::of(parsed).name()
                {
                    errors.invalid(
                        &path,
                        shown,
                        format!("expected an {family} value as indicated by `ipFamilies[{i}]`"),
                    );
                }
            }
        }
    }
}

pub fn service_update(new: &Value, old: &Value, errors: &mut Errors) {
    if text(old, "spec.type") == "ExternalName" {
        return;
    }
    // A second address may come or go with the family policy; the first one stays.
    let first = text(old, "spec.clusterIP");
    if !first.is_empty() && text(new, "spec.clusterIP") != first {
        errors.invalid(
            "spec.clusterIPs[0]",
            list(new, "spec.clusterIPs").to_vec(),
            "may not change once set",
        );
    }
    let (before, after) = (list(old, "spec.clusterIPs"), list(new, "spec.clusterIPs"));
    if let (Some(a), Some(b)) = (before.get(1), after.get(1))
        && a != b
    {
        errors.invalid(
            "spec.clusterIPs[1]",
            after.to_vec(),
            "may not change once set",
        );
    }
    let family = |s: &Value| list(s, "spec.ipFamilies").first().cloned();
    if family(old).is_some() && family(new) != family(old) {
        errors.invalid(
            "spec.ipFamilies[0]",
            list(new, "spec.ipFamilies").to_vec(),
            IMMUTABLE,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(spec: Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        crate::defaults::service(&mut object);
        let mut errors = Errors::default();
        service(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn services() {
        let none: [&str; 0] = [];
        let ports = json!([{"port": 80, "targetPort": "http"}]);
        assert_eq!(
            faults(json!({"ports": ports, "clusterIP": "10.0.0.1"})),
            none
        );
        for (spec, fault) in [
            (json!({}), "spec.ports: Required value"),
            (
                json!({"ports": ports, "type": "NodePort"}),
                "spec.type: Unsupported value: \"NodePort\": supported values: \"ClusterIP\"",
            ),
            (
                json!({"ports": ports, "clusterIP": "None"}),
                "spec.clusterIP: Invalid value: \"None\": headless",
            ),
            (
                json!({"ports": [{"port": 0}]}),
                "spec.ports[0].port: Invalid value: 0: must be between",
            ),
            (
                json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}),
                "spec.ports[0].name: Required value",
            ),
            (
                json!({"ports": [{"port": 1, "protocol": "SCTP"}]}),
                "spec.ports[0].protocol: Unsupported value: \"SCTP\"",
            ),
            (
                json!({"ports": ports, "externalIPs": ["1.2.3.4"]}),
                "spec.externalIPs: Forbidden: is not supported yet",
            ),
            (
                json!({"ports": ports, "clusterIP": "fd00::1", "clusterIPs": ["fd00::1"], "ipFamilies": ["IPv4"]}),
                "spec.clusterIPs[0]: Invalid value: \"fd00::1\": expected an IPv4 value",
            ),
        ] {
            let found = faults(spec);
            assert!(found[0].starts_with(fault), "{found:?}");
        }
    }

    #[test]
    fn the_address_stays() {
        let old = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
        let new = json!({"spec": {"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}});
        let mut errors = Errors::default();
        service_update(&new, &old, &mut errors);
        assert_eq!(
            errors.0[0].to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
        );
    }
}
