//! NetworkPolicies.

use serde_json::Value;

use super::{cidr, one_of, port_or_name, selector};
use crate::json::{at, int, list, text};
use crate::status::Errors;

pub fn network_policy(policy: &Value, errors: &mut Errors) {
    if let Some(pods) = at(policy, "spec.podSelector") {
        selector::label_selector("spec.podSelector", pods, errors);
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in list(policy, &format!("spec.{direction}"))
            .iter()
            .enumerate()
        {
            let path = format!("spec.{direction}[{i}]");
            for (j, port) in list(rule, "ports").iter().enumerate() {
                one_port(&format!("{path}.ports[{j}]"), port, errors);
            }
            for (j, peer) in list(rule, peers).iter().enumerate() {
                one_peer(&format!("{path}.{peers}[{j}]"), peer, errors);
            }
        }
    }
    let types = list(policy, "spec.policyTypes");
    if types.len() > 2 {
        errors.invalid(
            "spec.policyTypes",
            types.to_vec(),
            "may not specify more than two policyTypes",
        );
        return;
    }
    for (i, ty) in types.iter().enumerate() {
        let path = format!("spec.policyTypes[{i}]");
        one_of(
            &path,
            ty.as_str().unwrap_or(""),
            &["Egress", "Ingress"],
            errors,
        );
    }
}

fn one_port(path: &str, port: &Value, errors: &mut Errors) {
    // SCTP has no data path yet.
    one_of(
        &format!("{path}.protocol"),
        text(port, "protocol"),
        &["TCP", "UDP"],
        errors,
    );
    let number = at(port, "port");
    if let Some(number) = number {
        port_or_name(&format!("{path}.port"), number, errors);
    }
    let end_path = format!("{path}.endPort");
    if let Some(end) = int(port, "endPort") {
        match number {
            None => errors.required(
                &format!("{path}.port"),
                "must be specified when `endPort` is specified",
            ),
            Some(Value::String(_)) => errors.invalid(
                &end_path,
                end,
                "may not be specified when `port` is non-numeric",
            ),
            Some(start) if start.as_i64().is_some_and(|s| end < s) => {
                errors.invalid(&end_path, end, "must be greater than or equal to `port`")
            }
            Some(_) => super::port_number(&end_path, end, errors),
        }
    }
}

fn one_peer(path: &str, peer: &Value, errors: &mut Errors) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(s) = at(peer, field) {
            selectors += 1;
            selector::label_selector(&format!("{path}.{field}"), s, errors);
        }
    }
    match at(peer, "ipBlock") {
        None if selectors == 0 => errors.required(path, "must specify a peer"),
        None => {}
        Some(_) if selectors > 0 => {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
        Some(block) => ip_block(&format!("{path}.ipBlock"), block, errors),
    }
}

fn ip_block(path: &str, block: &Value, errors: &mut Errors) {
    let whole = text(block, "cidr");
    if whole.is_empty() {
        errors.required(&format!("{path}.cidr"), "");
        return;
    }
    let Some(outer) = cidr(&format!("{path}.cidr"), whole, errors) else {
        return;
    };
    for (i, except) in list(block, "except").iter().enumerate() {
        let path = format!("{path}.except[{i}]");
        let value = except.as_str().unwrap_or("");
        if let Some(inner) = cidr(&path, value, errors) {
            let within = inner.is_ipv4() == outer.is_ipv4()
                && inner.prefix() > outer.prefix()
                && outer.contains(inner.network());
            if !within {
                errors.invalid(&path, value, "must be a strict subset of `cidr`");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(spec: Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        crate::defaults::network_policy(&mut object);
        let mut errors = Errors::default();
        network_policy(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn policies() {
        let none: [&str; 0] = [];
        assert_eq!(
            faults(json!({"podSelector": {}, "ingress": [{
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                         {"podSelector": {}, "namespaceSelector": {}}],
                "ports": [{"port": 80, "endPort": 90}, {"port": "http"}, {"protocol": "UDP"}],
            }, {}]})),
            none
        );
        for (spec, fault) in [
            (
                json!({"ingress": [{"from": [{}]}]}),
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ),
            (
                json!({"ingress": [{"ports": [{"protocol": "SCTP"}]}]}),
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"SCTP\": supported values: \"TCP\", \"UDP\"",
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]}),
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/8\": must be a strict subset of `cidr`",
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1"}}]}]}),
                "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.1\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                json!({"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
            (
                json!({"ingress": [{"ports": [{"port": 0}]}]}),
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"policyTypes": ["Both"]}),
                "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\"",
            ),
        ] {
            assert_eq!(faults(spec), [fault]);
        }
    }
}
