//! Volumes of pods.

use serde_json::Value;

use super::metadata::{config_key_faults, dns1123_label_faults, invalid_each};
use super::one_of;
use crate::json::{at, int, list, text};
use crate::quantity::Quantity;
use crate::status::Errors;

/// Validates volumes; returns their names, for the mounts.
pub fn volumes<'a>(path: &str, spec: &'a Value, errors: &mut Errors) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = text(volume, "name");
        if name.is_empty() {
            errors.required(&format!("{path}.name"), "");
        } else {
            invalid_each(
                &format!("{path}.name"),
                name,
                dns1123_label_faults(name),
                errors,
            );
            if names.contains(&name) {
                errors.duplicate(&format!("{path}.name"), name);
            }
        }
        names.push(name);
        source(&path, volume, errors);
    }
    names
}

fn source(path: &str, volume: &Value, errors: &mut Errors) {
    let sources: Vec<(&String, &Value)> = volume
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, _)| *k != "name")
        .collect();
    match sources.as_slice() {
        [] => errors.required(path, "must specify a volume type"),
        [(kind, source)] => one_source(&format!("{path}.{kind}"), kind, source, errors),
        [_, rest @ ..] => {
            for (kind, _) in rest {
                errors.forbidden(
                    &format!("{path}.{kind}"),
                    "may not specify more than 1 volume type",
                );
            }
        }
    }
}

fn one_source(path: &str, kind: &str, source: &Value, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            let limit = text(source, "sizeLimit");
            if Quantity::parse(limit).is_ok_and(|q| q.is_negative()) {
                let path = format!("{path}.sizeLimit");
                errors.forbidden(&path, "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => {
            let host = text(source, "path");
            if host.is_empty() {
                errors.required(&format!("{path}.path"), "");
            }
            no_backsteps(&format!("{path}.path"), host, errors);
            one_of(
                &format!("{path}.type"),
                text(source, "type"),
                &[
                    "",
                    "BlockDevice",
                    "CharDevice",
                    "Directory",
                    "DirectoryOrCreate",
                    "File",
                    "FileOrCreate",
                    "Socket",
                ],
                errors,
            );
        }
        "configMap" | "secret" => {
            let field = if kind == "secret" {
                "secretName"
            } else {
                "name"
            };
            if text(source, field).is_empty() {
                errors.required(&format!("{path}.{field}"), "");
            }
            mode(
                &format!("{path}.defaultMode"),
                source,
                "defaultMode",
                errors,
            );
            items(path, source, errors);
        }
        "downwardAPI" => {
            mode(
                &format!("{path}.defaultMode"),
                source,
                "defaultMode",
                errors,
            );
            downward(path, source, errors);
        }
        "projected" => {
            mode(
                &format!("{path}.defaultMode"),
                source,
                "defaultMode",
                errors,
            );
            let sources = list(source, "sources");
            for (i, one) in sources.iter().enumerate() {
                projected(&format!("{path}.sources[{i}]"), one, errors);
            }
        }
        // The kubelet refuses what it can't mount, with an Event that names it.
        _ => {}
    }
}

fn projected(path: &str, source: &Value, errors: &mut Errors) {
    let Some(fields) = source.as_object() else {
        return;
    };
    if fields.len() > 1 {
        errors.forbidden(path, "may not specify more than 1 volume type");
    }
    for (kind, one) in fields {
        let path = format!("{path}.{kind}");
        match kind.as_str() {
            "secret" | "configMap" => {
                if text(one, "name").is_empty() {
                    errors.required(&format!("{path}.name"), "");
                }
                items(&path, one, errors);
            }
            "downwardAPI" => downward(&path, one, errors),
            "serviceAccountToken" => {
                if text(one, "path").is_empty() {
                    errors.required(&format!("{path}.path"), "");
                }
                local_path(&format!("{path}.path"), text(one, "path"), errors);
                match int(one, "expirationSeconds") {
                    Some(seconds) if seconds < 600 => errors.invalid(
                        &format!("{path}.expirationSeconds"),
                        seconds,
                        "may not specify a duration less than 10 minutes",
                    ),
                    Some(seconds) if seconds > 1 << 32 => errors.invalid(
                        &format!("{path}.expirationSeconds"),
                        seconds,
                        "may not specify a duration larger than 2^32 seconds",
                    ),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

fn items(path: &str, source: &Value, errors: &mut Errors) {
    for (i, item) in list(source, "items").iter().enumerate() {
        let path = format!("{path}.items[{i}]");
        match text(item, "key") {
            "" => errors.required(&format!("{path}.key"), ""),
            key => invalid_each(&format!("{path}.key"), key, config_key_faults(key), errors),
        }
        if text(item, "path").is_empty() {
            errors.required(&format!("{path}.path"), "");
        }
        local_path(&format!("{path}.path"), text(item, "path"), errors);
        mode(&format!("{path}.mode"), item, "mode", errors);
    }
}

fn downward(path: &str, source: &Value, errors: &mut Errors) {
    for (i, item) in list(source, "items").iter().enumerate() {
        let path = format!("{path}.items[{i}]");
        if text(item, "path").is_empty() {
            errors.required(&format!("{path}.path"), "");
        }
        local_path(&format!("{path}.path"), text(item, "path"), errors);
        match (at(item, "fieldRef"), at(item, "resourceFieldRef")) {
            (Some(_), Some(_)) => {
                errors.invalid(
                    &path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (None, None) => {
                errors.required(&path, "one of fieldRef and resourceFieldRef is required");
            }
            _ => {}
        }
        mode(&format!("{path}.mode"), item, "mode", errors);
    }
}

fn mode(path: &str, source: &Value, field: &str, errors: &mut Errors) {
    if let Some(mode) = int(source, field).filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(
            path,
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

/// A path below a volume: relative, and without `..`.
pub fn local_path(path: &str, value: &str, errors: &mut Errors) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    no_backsteps(path, value, errors);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        errors.invalid(path, value, "must not start with '..'");
    }
}

fn no_backsteps(path: &str, value: &str, errors: &mut Errors) {
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}
