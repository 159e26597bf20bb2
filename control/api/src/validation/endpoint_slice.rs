//! EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::metadata::{dns1123_label_faults, dns1123_subdomain_faults, invalid_each};
use super::{IMMUTABLE, one_of};
use crate::json::{int, list, text};
use crate::status::Errors;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

pub fn endpoint_slice(slice: &Value, errors: &mut Errors) {
    let ty = text(slice, "addressType");
    if ty.is_empty() {
        errors.required("addressType", "");
    } else {
        // FQDN has no data path.
        one_of("addressType", ty, &["IPv4", "IPv6"], errors);
    }
    let endpoints = list(slice, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_many("endpoints", endpoints.len(), MAX_ENDPOINTS);
    }
    for (i, endpoint) in endpoints.iter().take(MAX_ENDPOINTS).enumerate() {
        one_endpoint(&format!("endpoints[{i}]"), ty, endpoint, errors);
    }
    ports(slice, errors);
}

fn one_endpoint(path: &str, ty: &str, endpoint: &Value, errors: &mut Errors) {
    let addresses = list(endpoint, "addresses");
    if addresses.is_empty() {
        errors.required(
            &format!("{path}.addresses"),
            "must contain at least 1 address",
        );
    }
    if addresses.len() > MAX_ADDRESSES {
        errors.too_many(&format!("{path}.addresses"), addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in addresses.iter().enumerate() {
        let path = format!("{path}.addresses[{i}]");
        let given = address.as_str().unwrap_or("");
        let parsed = given.parse::<IpAddr>().ok();
        match (ty, parsed) {
            ("IPv4", Some(IpAddr::V4(_))) | ("IPv6", Some(IpAddr::V6(_))) => {}
            ("IPv4", _) => errors.invalid(&path, given, "must be a valid IPv4 address"),
            ("IPv6", _) => errors.invalid(&path, given, "must be a valid IPv6 address"),
            _ => {}
        }
        let special = parsed.is_some_and(|a| {
            a.is_unspecified()
                || a.is_loopback()
                || a.is_multicast()
                || match a {
                    IpAddr::V4(a) => a.is_link_local(),
                    IpAddr::V6(a) => a.is_unicast_link_local(),
                }
        });
        if special {
            errors.invalid(
                &path,
                given,
                "may not be an unspecified, loopback, link-local or multicast address",
            );
        }
    }
    let node = text(endpoint, "nodeName");
    if !node.is_empty() {
        invalid_each(
            &format!("{path}.nodeName"),
            node,
            dns1123_subdomain_faults(node),
            errors,
        );
    }
    let host = text(endpoint, "hostname");
    if !host.is_empty() {
        invalid_each(
            &format!("{path}.hostname"),
            host,
            dns1123_label_faults(host),
            errors,
        );
    }
}

fn ports(slice: &Value, errors: &mut Errors) {
    let ports = list(slice, "ports");
    if ports.len() > MAX_PORTS {
        errors.too_many("ports", ports.len(), MAX_PORTS);
        return;
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = format!("ports[{i}]");
        let name = text(port, "name");
        if names.contains(&name) {
            errors.duplicate(&format!("{path}.name"), name);
        }
        names.push(name);
        if !name.is_empty() {
            invalid_each(
                &format!("{path}.name"),
                name,
                dns1123_label_faults(name),
                errors,
            );
        }
        one_of(
            &format!("{path}.protocol"),
            text(port, "protocol"),
            &["SCTP", "TCP", "UDP"],
            errors,
        );
        if let Some(number) = int(port, "port") {
            super::port_number(&format!("{path}.port"), number, errors);
        }
    }
}

pub fn endpoint_slice_update(new: &Value, old: &Value, errors: &mut Errors) {
    if text(new, "addressType") != text(old, "addressType") {
        errors.invalid("addressType", text(new, "addressType"), IMMUTABLE);
    }
}
