//! The kind CustomResourceDefinition itself: defaults, validation, columns.
//! Source: apiextensions-apiserver `pkg/apis/apiextensions/{v1/defaults,validation/validation}.go`.

use serde_json::{Value, json};

use super::json_path::JsonPath;
use super::names::{self, APPROVED};
use super::{faults, structural};
use crate::json::{self, at, child, default_text, list, list_mut, text};
use crate::status::Errors;
use crate::table::Now;
use crate::validation::IMMUTABLE;
use crate::validation::metadata::{dns1035_label_faults, dns1123_subdomain_faults};

/// The most selectable fields that a version may have.
const MAX_SELECTABLE: usize = 8;

pub fn defaults(crd: &mut Value) {
    let Some(spec) = child(crd, "spec") else {
        return;
    };
    if let Some(names) = child(spec, "names") {
        let kind = text(names, "kind").to_string();
        if !kind.is_empty() {
            default_text(names, "singular", &kind.to_lowercase());
            default_text(names, "listKind", &format!("{kind}List"));
        }
    }
    if let Some(conversion) = child(spec, "conversion") {
        default_text(conversion, "strategy", "None");
    }
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        json::remove(spec, "preserveUnknownFields");
    }
    for version in list_mut(spec, "versions").into_iter().flatten() {
        for column in list_mut(version, "additionalPrinterColumns")
            .into_iter()
            .flatten()
        {
            if column.get("priority") == Some(&json!(0)) {
                json::remove(column, "priority");
            }
        }
    }
}

pub fn validate(crd: &Value, errors: &mut Errors) {
    let group = text(crd, "spec.group");
    let plural = text(crd, "spec.names.plural");
    let name = text(crd, "metadata.name");
    if name != format!("{plural}.{group}") {
        errors.invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
    match group {
        "" => errors.required("spec.group", ""),
        _ => {
            let mut wrong = dns1123_subdomain_faults(group);
            if wrong.is_empty() && !group.contains('.') {
                wrong.push("should be a domain with at least one dot".into());
            }
            for fault in wrong {
                errors.invalid("spec.group", group, fault);
            }
        }
    }
    approved(crd, group, errors);
    match text(crd, "spec.scope") {
        "" => errors.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    if json::flag(crd, "spec.preserveUnknownFields") {
        errors.invalid(
            "spec.preserveUnknownFields",
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
    conversion(crd, errors);
    versions(crd, errors);
    object_names(crd, errors);
    // The status comes with the first write, and can't be left without its storage version.
    if let Some(status) = at(crd, "status") {
        stored_versions(crd, status, errors);
    }
}

fn approved(crd: &Value, group: &str, errors: &mut Errors) {
    if !names::is_protected(group) {
        return;
    }
    let path = format!("metadata.annotations[{APPROVED}]");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let given = json::map(crd, "metadata.annotations").and_then(|a| a.get(APPROVED)?.as_str());
    match given {
        None | Some("") => errors.required(
            &path,
            &format!("protected groups must have approval annotation {APPROVED:?}, {see}"),
        ),
        Some(text) if text.starts_with("unapproved") || text.contains("://") => {}
        Some(text) => errors.invalid(
            &path,
            text,
            format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {see}"
            ),
        ),
    }
}

fn conversion(crd: &Value, errors: &mut Errors) {
    match text(crd, "spec.conversion.strategy") {
        "" | "None" => {
            if at(crd, "spec.conversion.webhook").is_some() {
                errors.forbidden(
                    "spec.conversion.webhook",
                    "should not be set when strategy is not set to Webhook",
                );
            }
        }
        "Webhook" => errors.forbidden(
            "spec.conversion.strategy",
            "conversion webhooks are not supported; only the strategy None is",
        ),
        other => errors.not_supported("spec.conversion.strategy", other, &["None", "Webhook"]),
    }
}

fn versions(crd: &Value, errors: &mut Errors) {
    let versions = list(crd, "spec.versions");
    let named: Vec<&str> = versions.iter().map(|v| text(v, "name")).collect();
    let mut unique = named.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() != named.len() {
        errors.invalid(
            "spec.versions",
            named.clone(),
            "must contain unique version names",
        );
    }
    let stored = versions.iter().filter(|v| json::flag(v, "storage")).count();
    if stored != 1 {
        errors.invalid(
            "spec.versions",
            named.clone(),
            "must have exactly one version marked as storage version",
        );
    }
    // As internally in Kubernetes, where one schema for all versions stands above them.
    let same = versions
        .iter()
        .all(|v| v.get("schema") == versions.first().and_then(|v| v.get("schema")));
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}]");
        for fault in dns1035_label_faults(named[i]) {
            errors.invalid(&format!("{path}.name"), named[i], fault);
        }
        match at(version, "schema.openAPIV3Schema") {
            None => errors.required(
                &format!("{path}.schema.openAPIV3Schema"),
                "schemas are required",
            ),
            Some(_) if same && i > 0 => {}
            Some(schema) => {
                let path = match same {
                    true => "spec.validation.openAPIV3Schema".to_string(),
                    false => format!("{path}.schema.openAPIV3Schema"),
                };
                faults::find(schema, &path, errors);
            }
        }
        subresources(version, &path, errors);
        columns(version, &path, errors);
        selectable(version, &path, errors);
        if !json::flag(version, "deprecated") && at(version, "deprecationWarning").is_some() {
            errors.invalid(
                &format!("{path}.deprecationWarning"),
                text(version, "deprecationWarning"),
                "can only be set for deprecated versions",
            );
        }
        let warning = text(version, "deprecationWarning");
        if warning.len() > 256 {
            errors.too_long(&format!("{path}.deprecationWarning"), 256);
        }
        if warning.chars().any(char::is_control) {
            errors.invalid(
                &format!("{path}.deprecationWarning"),
                warning,
                "must only contain printable UTF-8 characters; non-printable characters found",
            );
        }
    }
}

/// A path of names only, below one of the roots.
fn simple_path(given: &str, roots: &[&str], path: &str, errors: &mut Errors) {
    let rest = match given.strip_prefix('.') {
        Some(rest) if !given.contains(['[', ']', '\'']) => rest,
        _ => {
            errors.invalid(path, given, "must be a simple json path starting with .");
            return;
        }
    };
    let mut names = rest.split('.');
    let root = names.next().unwrap_or("");
    if !roots.contains(&root) || names.next().is_none() || rest.split('.').any(str::is_empty) {
        let below: Vec<String> = roots.iter().map(|r| format!(".{r}")).collect();
        let why = format!("should be a json path under {}", below.join(" or "));
        errors.invalid(path, given, why);
    }
}

fn subresources(version: &Value, path: &str, errors: &mut Errors) {
    let Some(scale) = at(version, "subresources.scale") else {
        return;
    };
    let path = format!("{path}.subresources.scale");
    for (field, roots, required) in [
        ("specReplicasPath", ["spec"].as_slice(), true),
        ("statusReplicasPath", &["status"], true),
        ("labelSelectorPath", &["spec", "status"], false),
    ] {
        let at = format!("{path}.{field}");
        match text(scale, field) {
            "" if required => errors.required(&at, ""),
            "" => {}
            given => simple_path(given, roots, &at, errors),
        }
    }
}

fn columns(version: &Value, path: &str, errors: &mut Errors) {
    const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
    const FORMATS: &[&str] = &[
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    let columns = list(version, "additionalPrinterColumns");
    for (i, column) in columns.iter().enumerate() {
        let path = format!("{path}.additionalPrinterColumns[{i}]");
        if text(column, "name").is_empty() {
            errors.required(&format!("{path}.name"), "");
        }
        match text(column, "type") {
            "" => errors.required(
                &format!("{path}.type"),
                "must be one of boolean,date,integer,number,string",
            ),
            ty if !TYPES.contains(&ty) => {
                errors.invalid(
                    &format!("{path}.type"),
                    ty,
                    "must be one of boolean,date,integer,number,string",
                );
            }
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            errors.invalid(
                &format!("{path}.format"),
                format,
                format!("must be one of {}", FORMATS.join(",")),
            );
        }
        let at = format!("{path}.jsonPath");
        match text(column, "jsonPath") {
            "" => errors.required(&at, ""),
            given if !given.starts_with('.') => {
                errors.invalid(&at, given, "must be a simple json path starting with .");
            }
            given => {
                if let Err(why) = JsonPath::parse(given) {
                    errors.invalid(
                        &at,
                        given,
                        format!("unrecognized or unsupported json path: {why}"),
                    );
                }
            }
        }
    }
}

fn selectable(version: &Value, path: &str, errors: &mut Errors) {
    let fields = list(version, "selectableFields");
    let path = format!("{path}.selectableFields");
    if fields.len() > MAX_SELECTABLE {
        errors.too_many(&path, fields.len(), MAX_SELECTABLE);
    }
    let mut seen = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let at_path = format!("{path}[{i}].jsonPath");
        let given = text(field, "jsonPath");
        if seen.contains(&given) {
            errors.duplicate(&at_path, given);
        }
        seen.push(given);
        let names: Vec<&str> = given
            .strip_prefix('.')
            .map_or_else(Vec::new, |g| g.split('.').collect());
        if names.is_empty() || given.contains(['[', ']', '\\']) {
            errors.invalid(
                &at_path,
                given,
                "is an invalid path: only field names are supported",
            );
            continue;
        }
        if names[0] == "metadata" {
            errors.invalid(&at_path, given, "must not point to fields in metadata");
            continue;
        }
        let root = at(version, "schema.openAPIV3Schema");
        let found = names
            .iter()
            .try_fold(root.unwrap_or(&Value::Null), |schema, name| {
                schema.get("properties").and_then(|p| p.get(*name))
            });
        match found.map(|schema| structural::text(schema, "type")) {
            None => errors.invalid(&at_path, given, "is an invalid path: does not refer to a valid field"),
            Some("string" | "boolean" | "integer") => {}
            Some(_) => errors.invalid(&at_path, given, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."),
        }
    }
}

fn object_names(crd: &Value, errors: &mut Errors) {
    let names = at(crd, "spec.names").unwrap_or(&Value::Null);
    let mut label = |field: &str, shown: &str, value: &str, prefix: &str| {
        for fault in dns1035_label_faults(value) {
            errors.invalid(
                &format!("spec.names.{field}"),
                shown,
                format!("{prefix}{fault}"),
            );
        }
    };
    let mixed = "may have mixed case, but should otherwise match: ";
    for (field, prefix) in [
        ("plural", ""),
        ("singular", ""),
        ("kind", mixed),
        ("listKind", mixed),
    ] {
        let value = text(names, field);
        let checked = match prefix {
            "" => value.to_string(),
            _ => value.to_lowercase(),
        };
        if !value.is_empty() {
            label(field, value, &checked, prefix);
        }
    }
    for field in ["shortNames", "categories"] {
        for (i, value) in list(names, field).iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            label(&format!("{field}[{i}]"), value, value, "");
        }
    }
    for field in ["plural", "kind", "listKind"] {
        if text(names, field).is_empty() {
            errors.required(&format!("spec.names.{field}"), "");
        }
    }
    let list_kind = text(names, "listKind");
    if !list_kind.is_empty() && list_kind == text(names, "kind") {
        errors.invalid(
            "spec.names.listKind",
            list_kind,
            "kind and listKind may not be the same",
        );
    }
}

fn stored_versions(crd: &Value, status: &Value, errors: &mut Errors) {
    let stored: Vec<&str> = list(status, "storedVersions")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let path = "status.storedVersions";
    if stored.is_empty() {
        errors.invalid(
            path,
            stored.clone(),
            "must have at least one stored version",
        );
    }
    let served: Vec<&str> = list(crd, "spec.versions")
        .iter()
        .map(|v| text(v, "name"))
        .collect();
    for (i, version) in stored.iter().enumerate() {
        if !served.contains(version) {
            errors.invalid(
                &format!("{path}[{i}]"),
                *version,
                format!("missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"),
            );
        }
    }
    if let Some(storage) = names::storage_version(crd).filter(|s| !stored.contains(s)) {
        errors.invalid(
            path,
            stored.clone(),
            format!("must have the storage version {storage}"),
        );
    }
}

pub fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let mut fixed = vec!["spec.group", "spec.names.plural"];
    if names::holds(old, "Established") {
        fixed.extend(["spec.scope", "spec.names.kind"]);
    }
    for path in fixed {
        if text(new, path) != text(old, path) {
            errors.invalid(path, text(new, path), IMMUTABLE);
        }
    }
}

/// A new storage version is one of those that objects may be stored in.
pub fn note_storage_version(crd: &mut Value) {
    let Some(storage) = names::storage_version(crd).map(str::to_string) else {
        return;
    };
    if let Some(status) = child(crd, "status") {
        json::default(status, "storedVersions", json!([]));
        if let Some(stored) = list_mut(status, "storedVersions")
            && !stored.iter().any(|v| *v == storage.as_str())
        {
            stored.push(storage.into());
        }
    }
}

pub fn cells(crd: &Value, _: Now) -> Vec<Value> {
    vec![
        text(crd, "metadata.name").into(),
        text(crd, "metadata.creationTimestamp").into(),
    ]
}
