//! Kubernetes' named formats. Source: Kubernetes `pkg/cel/library/format.go`.

use crate::crd::format;
use crate::validation::metadata::{
    dns1035_label_faults, dns1123_label_faults, dns1123_subdomain_faults, label_value_faults,
    qualified_name_faults,
};

const NAMES: &[&str] = &[
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// The format's own name, if there is one of this name.
pub fn named(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|n| **n == name).copied()
}

/// What is wrong with a text; nothing if it fits.
pub fn faults(name: &str, text: &str) -> Vec<String> {
    // A prefix may end where a name may not.
    let prefix = |faults: fn(&str) -> Vec<String>| match text.strip_suffix('-') {
        Some(head) if !head.is_empty() => faults(&format!("{head}a")),
        _ => faults(text),
    };
    let fits = |format: &str, fault: &str| match format::fits(format, text) {
        true => Vec::new(),
        false => vec![fault.to_string()],
    };
    match name {
        "dns1123Label" => dns1123_label_faults(text),
        "dns1123Subdomain" => dns1123_subdomain_faults(text),
        "dns1035Label" => dns1035_label_faults(text),
        "qualifiedName" => qualified_name_faults(text),
        "dns1123LabelPrefix" => prefix(dns1123_label_faults),
        "dns1123SubdomainPrefix" => prefix(dns1123_subdomain_faults),
        "dns1035LabelPrefix" => prefix(dns1035_label_faults),
        "labelValue" => label_value_faults(text),
        "uri" => fits("uri", "invalid URI for request"),
        "uuid" => fits("uuid", "does not match the UUID format"),
        "byte" => fits("byte", "invalid base64"),
        "date" => fits("date", "invalid date"),
        _ => fits("date-time", "invalid datetime"),
    }
}
