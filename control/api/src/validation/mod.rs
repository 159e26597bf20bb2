//! Validation with Kubernetes' texts. Source: Kubernetes `pkg/apis/*/validation` and apimachinery
//! `pkg/util/validation`. Types were checked by the decoder; here it is the values.

pub mod admission_policy;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod container;
pub mod data;
pub mod endpoint_slice;
pub mod event;
pub mod ingress;
pub mod metadata;
pub mod network_policy;
pub mod node;
pub mod pod;
pub mod policy;
pub mod rbac;
pub mod selector;
pub mod service;
pub mod storage;
pub mod volume;
pub mod webhook;
pub mod workloads;

use serde_json::Value;

use crate::json::{at, int, list, text};
use crate::registry::Kind;
use crate::status::Errors;

pub const IMMUTABLE: &str = "field is immutable";

pub fn nothing(_: &Value, _: &mut Errors) {}

pub fn nothing_update(_: &Value, _: &Value, _: &mut Errors) {}

pub fn namespace(namespace: &Value, errors: &mut Errors) {
    for (i, finalizer) in list(namespace, "spec.finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or("");
        metadata::finalizer(&format!("spec.finalizers[{i}]"), name, errors);
    }
}

pub fn lease(lease: &Value, errors: &mut Errors) {
    if let Some(seconds) = int(lease, "spec.leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        );
    }
    if let Some(count) = int(lease, "spec.leaseTransitions").filter(|c| *c < 0) {
        errors.invalid(
            "spec.leaseTransitions",
            count,
            "must be greater than or equal to 0",
        );
    }
    if at(lease, "spec.holderIdentity").is_some_and(|h| h == "") {
        errors.invalid("spec.holderIdentity", "", "must not be empty");
    }
    for field in ["strategy", "preferredHolder"] {
        // Coordinated leader election; not served.
        if at(lease, &format!("spec.{field}")).is_some() {
            errors.forbidden(
                &format!("spec.{field}"),
                "coordinated leader election is not supported",
            );
        }
    }
}

/// The numbers in the status of workloads.
const COUNTS: &[&str] = &[
    "active",
    "availableReplicas",
    "collisionCount",
    "currentNumberScheduled",
    "currentReplicas",
    "desiredNumberScheduled",
    "failed",
    "fullyLabeledReplicas",
    "numberAvailable",
    "numberMisscheduled",
    "numberReady",
    "numberUnavailable",
    "observedGeneration",
    "ready",
    "readyReplicas",
    "replicas",
    "succeeded",
    "terminating",
    "updatedNumberScheduled",
    "updatedReplicas",
];

/// Checks of a status write.
pub fn status(kind: &Kind, new: &Value, old: &Value, errors: &mut Errors) {
    match kind.id() {
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::status_update(new, old, errors);
        }
        ("apps", _) | ("", "ReplicationController") | ("batch", "Job") => {
            for field in COUNTS {
                let path = format!("status.{field}");
                if let Some(count) = int(new, &path) {
                    non_negative(&path, count, errors);
                }
            }
        }
        ("policy", "PodDisruptionBudget") => policy::disruption_budget_status(new, errors),
        ("", "ResourceQuota") => policy::resource_quota_status(new, errors),
        ("", "Pod") => {
            for (i, ip) in list(new, "status.podIPs").iter().enumerate() {
                ip_address(&format!("status.podIPs[{i}]"), text(ip, "ip"), errors);
            }
        }
        _ => {}
    }
}

pub(crate) fn non_negative(path: &str, value: i64, errors: &mut Errors) {
    if value < 0 {
        errors.invalid(path, value, "must be greater than or equal to 0");
    }
}

pub(crate) fn one_of(path: &str, value: &str, supported: &[&str], errors: &mut Errors) {
    if !supported.contains(&value) {
        errors.not_supported(path, value, supported);
    }
}

pub(crate) fn port_number(path: &str, port: i64, errors: &mut Errors) {
    if !(1..=65535).contains(&port) {
        errors.invalid(path, port, "must be between 1 and 65535, inclusive");
    }
}

pub(crate) fn ip_address(path: &str, address: &str, errors: &mut Errors) {
    if address.parse::<std::net::IpAddr>().is_err() {
        errors.invalid(
            path,
            address,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}

/// A CIDR; host bits may be set, as in Kubernetes.
pub(crate) fn cidr(path: &str, value: &str, errors: &mut Errors) -> Option<ipnetwork::IpNetwork> {
    // ipnetwork takes an address without prefix as a host; Kubernetes doesn't.
    match value.parse() {
        Ok(network) if value.contains('/') => Some(network),
        _ => {
            errors.invalid(
                path,
                value,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
            None
        }
    }
}

/// `IsValidPortName`.
pub(crate) fn port_name(path: &str, name: &str, errors: &mut Errors) {
    let mut fault = |why: &str| errors.invalid(path, name, why);
    if name.len() > 15 {
        fault("must be no more than 15 bytes");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        fault("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        fault("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        fault("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        fault("must not begin or end with a hyphen");
    }
}

/// A port as number or name.
pub(crate) fn port_or_name(path: &str, port: &Value, errors: &mut Errors) {
    match port {
        Value::String(name) => port_name(path, name, errors),
        other => port_number(path, other.as_i64().unwrap_or(0), errors),
    }
}
