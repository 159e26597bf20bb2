//! Ingresses, their classes, and Endpoints. Source: Kubernetes
//! `pkg/apis/{networking,core}/validation`.

use serde_json::Value;

use super::metadata::{
    dns1035_label_faults, dns1123_subdomain_faults, invalid_each, qualified_name_faults,
};
use super::{IMMUTABLE, one_of, port_name, port_number};
use crate::json::{at, int, list, map, text};
use crate::status::Errors;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

pub fn ingress(ingress: &Value, errors: &mut Errors) {
    let rules = list(ingress, "spec.rules");
    let backend_given = at(ingress, "spec.defaultBackend");
    match backend_given {
        Some(found) => backend("spec.defaultBackend", found, errors),
        None if rules.is_empty() => errors.invalid(
            "spec",
            rules.to_vec(),
            "either `defaultBackend` or `rules` must be specified",
        ),
        None => {}
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{i}]");
        let host_name = text(rule, "host");
        if !host_name.is_empty() {
            if host_name.parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(
                    &format!("{path}.host"),
                    host_name,
                    "must be a DNS name, not an IP address",
                );
            }
            host(&format!("{path}.host"), host_name, errors);
        }
        if at(rule, "http").is_some() {
            http(&format!("{path}.http"), rule, errors);
        }
    }
    for (i, tls) in list(ingress, "spec.tls").iter().enumerate() {
        for (j, name) in list(tls, "hosts").iter().enumerate() {
            let path = format!("spec.tls[{i}].hosts[{j}]");
            host(&path, name.as_str().unwrap_or(""), errors);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            let path = format!("spec.tls[{i}].secretName");
            invalid_each(&path, secret, dns1123_subdomain_faults(secret), errors);
        }
    }
    class_of(ingress, errors);
}

fn class_of(ingress: &Value, errors: &mut Errors) {
    let Some(class) = at(ingress, "spec.ingressClassName").and_then(Value::as_str) else {
        return;
    };
    let path = "spec.ingressClassName";
    invalid_each(path, class, dns1123_subdomain_faults(class), errors);
    let annotation = map(ingress, "metadata.annotations")
        .and_then(|a| a.get(CLASS_ANNOTATION))
        .and_then(Value::as_str);
    if let Some(annotation) = annotation.filter(|a| *a != class) {
        errors.invalid(
            &format!("metadata.annotations[{CLASS_ANNOTATION}]"),
            annotation,
            "must match `ingressClassName` when both are specified",
        );
    }
}

fn host(path: &str, name: &str, errors: &mut Errors) {
    if !name.contains('*') {
        invalid_each(path, name, dns1123_subdomain_faults(name), errors);
        return;
    }
    let rest = name.strip_prefix("*.").unwrap_or("");
    if !dns1123_subdomain_faults(rest).is_empty() {
        errors.invalid(path, name, WILDCARD);
    }
}

fn http(path: &str, rule: &Value, errors: &mut Errors) {
    let paths = list(rule, "http.paths");
    if paths.is_empty() {
        errors.required(&format!("{path}.paths"), "");
    }
    for (i, one) in paths.iter().enumerate() {
        let path = format!("{path}.paths[{i}]");
        http_path(&path, one, errors);
        let found = at(one, "backend").unwrap_or(&Value::Null);
        backend(&format!("{path}.backend"), found, errors);
    }
}

fn http_path(path: &str, one: &Value, errors: &mut Errors) {
    let url = text(one, "path");
    let field = format!("{path}.path");
    match text(one, "pathType") {
        "" => errors.required(&format!("{path}.pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !url.starts_with('/') {
                errors.invalid(&field, url, "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if url.contains(bad) {
                    errors.invalid(&field, url, format!("must not contain '{bad}'"));
                }
            }
            for bad in ["/..", "/."] {
                if url.ends_with(bad) {
                    errors.invalid(&field, url, format!("cannot end with '{bad}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !url.is_empty() && !url.starts_with('/') {
                errors.invalid(&field, url, "must be an absolute path");
            }
        }
        other => errors.not_supported(
            &format!("{path}.pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
}

fn backend(path: &str, backend: &Value, errors: &mut Errors) {
    match (at(backend, "service"), at(backend, "resource")) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => errors.required(path, "resource or service backend is required"),
        (None, Some(resource)) => {
            for field in ["kind", "name"] {
                if text(resource, field).is_empty() {
                    errors.required(&format!("{path}.resource.{field}"), "");
                }
            }
        }
        (Some(service), None) => {
            let name = text(service, "name");
            if name.is_empty() {
                errors.required(&format!("{path}.service.name"), "");
            } else {
                let path = format!("{path}.service.name");
                invalid_each(&path, name, dns1035_label_faults(name), errors);
            }
            let named = text(service, "port.name");
            let number = int(service, "port.number").unwrap_or(0);
            match (named.is_empty(), number) {
                (true, 0) => errors.required(path, "port name or number is required"),
                (true, number) => {
                    port_number(&format!("{path}.service.port.number"), number, errors);
                }
                (false, 0) => port_name(&format!("{path}.service.port.name"), named, errors),
                (false, _) => {
                    errors.invalid(path, "", "cannot set both port name & port number");
                }
            }
        }
    }
}

pub fn ingress_class(class: &Value, errors: &mut Errors) {
    let path = "spec.controller";
    let controller = text(class, path);
    if controller.is_empty() {
        errors.required(path, "");
    } else if controller.len() > 250 {
        errors.too_long(path, 250);
    } else {
        match controller.split_once('/') {
            Some((domain, rest)) if !rest.is_empty() => {
                invalid_each(path, controller, dns1123_subdomain_faults(domain), errors);
            }
            _ => errors.invalid(
                path,
                controller,
                "must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
        }
    }
    let Some(parameters) = at(class, "spec.parameters") else {
        return;
    };
    let path = "spec.parameters";
    for field in ["kind", "name"] {
        if text(parameters, field).is_empty() {
            errors.required(&format!("{path}.{field}"), &format!("{field} is required"));
        }
    }
    let scope = text(parameters, "scope");
    one_of(
        &format!("{path}.scope"),
        scope,
        &["Cluster", "Namespace"],
        errors,
    );
    let namespace = text(parameters, "namespace");
    if scope == "Namespace" && namespace.is_empty() {
        errors.required(
            &format!("{path}.namespace"),
            "`parameters.scope` is set to 'Namespace'",
        );
    }
    if scope == "Cluster" && at(parameters, "namespace").is_some() {
        errors.forbidden(
            &format!("{path}.namespace"),
            "`parameters.scope` is set to 'Cluster'",
        );
    }
}

pub fn ingress_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if text(new, "spec.controller") != text(old, "spec.controller") {
        errors.invalid("spec.controller", text(new, "spec.controller"), IMMUTABLE);
    }
}

pub fn endpoints(endpoints: &Value, errors: &mut Errors) {
    for (i, subset) in list(endpoints, "subsets").iter().enumerate() {
        let path = format!("subsets[{i}]");
        let ready = list(subset, "addresses");
        let unready = list(subset, "notReadyAddresses");
        if ready.is_empty() && unready.is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
            for (j, address) in addresses.iter().enumerate() {
                let path = format!("{path}.{field}[{j}]");
                super::ip_address(&format!("{path}.ip"), text(address, "ip"), errors);
            }
        }
        let ports = list(subset, "ports");
        for (j, port) in ports.iter().enumerate() {
            let path = format!("{path}.ports[{j}]");
            let name = text(port, "name");
            if name.is_empty() && ports.len() > 1 {
                errors.required(&format!("{path}.name"), "");
            } else if !name.is_empty() {
                let faults = super::metadata::dns1123_label_faults(name);
                invalid_each(&format!("{path}.name"), name, faults, errors);
            }
            port_number(
                &format!("{path}.port"),
                int(port, "port").unwrap_or(0),
                errors,
            );
            one_of(
                &format!("{path}.protocol"),
                text(port, "protocol"),
                &["SCTP", "TCP", "UDP"],
                errors,
            );
            if let Some(protocol) = at(port, "appProtocol").and_then(Value::as_str) {
                let faults = qualified_name_faults(protocol);
                invalid_each(&format!("{path}.appProtocol"), protocol, faults, errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(validate: fn(&Value, &mut Errors), object: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ingresses() {
        let check = |spec: Value| faults(ingress, json!({"spec": spec}));
        let service = json!({"service": {"name": "s", "port": {"number": 80}}});
        let none: [&str; 0] = [];
        assert_eq!(
            check(json!({"rules": [{"host": "*.a.b", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": service},
            ]}}], "tls": [{"hosts": ["a.b"], "secretName": "x"}]})),
            none
        );
        for (spec, fault) in [
            (
                json!({}),
                "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified",
            ),
            (
                json!({"defaultBackend": {}}),
                "spec.defaultBackend: Required value: resource or service backend is required",
            ),
            (
                json!({"rules": [{"host": "1.2.3.4"}]}),
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ),
            (
                json!({"rules": [{"http": {"paths": [{"path": "/", "backend": service}]}}]}),
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                json!({"rules": [{"http": {"paths": [{"path": "/a//b", "pathType": "Exact", "backend": service}]}}]}),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                json!({"defaultBackend": {"service": {"name": "s"}}}),
                "spec.defaultBackend: Required value: port name or number is required",
            ),
        ] {
            assert_eq!(check(spec), [fault]);
        }
    }

    #[test]
    fn classes_and_endpoints() {
        let class = |spec: Value| faults(ingress_class, json!({"spec": spec}));
        assert!(class(json!({"controller": "a.b/c"})).is_empty());
        assert_eq!(
            class(json!({"controller": "abc"})),
            [
                "spec.controller: Invalid value: \"abc\": must be a domain-prefixed path (such as \"acme.io/foo\")"
            ]
        );
        assert_eq!(
            class(
                json!({"controller": "a/b", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}})
            ),
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]
        );
        assert_eq!(
            faults(
                endpoints,
                json!({"subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 0, "protocol": "TCP"}]}, {}]})
            ),
            [
                "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
            ]
        );
    }
}
