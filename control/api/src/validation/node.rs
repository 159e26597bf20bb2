//! Nodes.

use serde_json::Value;

use super::metadata::{self, invalid_each};
use super::{cidr, one_of};
use crate::json::{at, list, text};
use crate::status::Errors;

pub fn node(node: &Value, errors: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in list(node, "spec.taints").iter().enumerate() {
        let path = format!("spec.taints[{i}]");
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        invalid_each(
            &format!("{path}.key"),
            key,
            metadata::qualified_name_faults(key),
            errors,
        );
        let value = text(taint, "value");
        invalid_each(
            &format!("{path}.value"),
            value,
            metadata::label_value_faults(value),
            errors,
        );
        if effect.is_empty() {
            errors.required(&format!("{path}.effect"), "");
        } else {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            one_of(&format!("{path}.effect"), effect, &supported, errors);
        }
        if seen.contains(&(key, effect)) {
            errors.duplicate(&path, taint.clone());
        }
        seen.push((key, effect));
    }
    let cidrs = list(node, "spec.podCIDRs");
    if cidrs.len() > 2 {
        errors.invalid(
            "spec.podCIDRs",
            cidrs.to_vec(),
            "may specify no more than one CIDR for each IP family",
        );
    }
    for (i, value) in cidrs.iter().enumerate() {
        cidr(
            &format!("spec.podCIDRs[{i}]"),
            value.as_str().unwrap_or(""),
            errors,
        );
    }
    let first = text(node, "spec.podCIDR");
    if !first.is_empty() && cidrs.first().is_some_and(|c| c != first) {
        errors.invalid(
            "spec.podCIDRs",
            cidrs.to_vec(),
            "podCIDR and podCIDRs[0] must be equal",
        );
    }
    if at(node, "spec.configSource").is_some() {
        errors.forbidden("spec.configSource", "configSource may not be set");
    }
}

pub fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let before = list(old, "spec.podCIDRs");
    if !before.is_empty() && before != list(new, "spec.podCIDRs") {
        errors.forbidden(
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let provider = text(old, "spec.providerID");
    if !provider.is_empty() && provider != text(new, "spec.providerID") {
        errors.forbidden(
            "spec.providerID",
            "node updates may not change providerID except from \"\" to valid",
        );
    }
}
