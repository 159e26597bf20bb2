//! Containers.

use serde_json::Value;

use super::metadata::{
    dns1123_label_faults, dns1123_subdomain_faults, invalid_each, qualified_name_faults,
};
use super::{non_negative, one_of, port_name, port_number, port_or_name, volume};
use crate::json::{at, int, list, map, text};
use crate::pod::is_sidecar;
use crate::quantity::Quantity;
use crate::status::Errors;

/// The lists of containers that a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Main,
    Init,
    Ephemeral,
}

/// Names that an earlier container list of the pod has taken are duplicates too.
pub fn containers<'a>(
    path: &str,
    containers: &'a [Value],
    list: List,
    taken: &mut Vec<&'a str>,
    volumes: &[&str],
    errors: &mut Errors,
) {
    for (i, container) in containers.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = text(container, "name");
        if name.is_empty() {
            errors.required(&format!("{path}.name"), "");
        } else {
            invalid_each(
                &format!("{path}.name"),
                name,
                dns1123_label_faults(name),
                errors,
            );
            if taken.contains(&name) {
                errors.duplicate(&format!("{path}.name"), name);
            }
            taken.push(name);
        }
        common(&path, container, volumes, errors);
        match list {
            List::Main | List::Init => lasting(&path, container, list == List::Init, errors),
            List::Ephemeral => ephemeral(&path, container, errors),
        }
    }
    host_port_conflicts(path, containers, errors);
}

/// What holds for every container.
fn common(path: &str, container: &Value, volumes: &[&str], errors: &mut Errors) {
    let image = text(container, "image");
    if image.is_empty() {
        errors.required(&format!("{path}.image"), "");
    } else if image.trim() != image {
        errors.invalid(
            &format!("{path}.image"),
            image,
            "must not have leading or trailing whitespace",
        );
    }
    one_of(
        &format!("{path}.imagePullPolicy"),
        text(container, "imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        errors,
    );
    one_of(
        &format!("{path}.terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
        errors,
    );
    ports(path, container, errors);
    environment(path, container, errors);
    mounts(path, container, volumes, errors);
    resources(&format!("{path}.resources"), container, errors);
}

/// Probes, hooks and restart policy.
fn lasting(path: &str, container: &Value, init: bool, errors: &mut Errors) {
    let restartable = !init || is_sidecar(container);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(found) = at(container, probe) else {
            continue;
        };
        let path = format!("{path}.{probe}");
        if restartable {
            self::probe(&path, probe, found, errors);
        } else {
            errors.forbidden(
                &path,
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
    if let Some(lifecycle) = at(container, "lifecycle") {
        let path = format!("{path}.lifecycle");
        if restartable {
            for hook in ["postStart", "preStop"] {
                if let Some(found) = at(lifecycle, hook) {
                    let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
                    handler(&format!("{path}.{hook}"), found, &kinds, errors);
                }
            }
        } else {
            errors.forbidden(
                &path,
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
    let policy = text(container, "restartPolicy");
    if !policy.is_empty() {
        if init {
            one_of(
                &format!("{path}.restartPolicy"),
                policy,
                &["Always"],
                errors,
            );
        } else {
            errors.forbidden(
                &format!("{path}.restartPolicy"),
                "may not be set for non-init containers",
            );
        }
    }
}

/// What a container that was added to a running pod must not have: nobody is to rely on it.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// Source: `validateEphemeralContainers`.
fn ephemeral(path: &str, container: &Value, errors: &mut Errors) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    for field in NOT_EPHEMERAL {
        let set = match at(container, field) {
            None => false,
            // Lists, and the struct that is always there.
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(fields)) if *field == "resources" => !fields.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if set {
            errors.forbidden(&format!("{path}.{field}"), WHY);
        }
    }
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !text(mount, field).is_empty() {
                errors.forbidden(&format!("{path}.volumeMounts[{i}].{field}"), WHY);
            }
        }
    }
}

fn ports(path: &str, container: &Value, errors: &mut Errors) {
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        let name = text(port, "name");
        if !name.is_empty() {
            port_name(&format!("{path}.name"), name, errors);
            if names.contains(&name) {
                errors.duplicate(&format!("{path}.name"), name);
            }
            names.push(name);
        }
        match int(port, "containerPort").unwrap_or(0) {
            0 => errors.required(&format!("{path}.containerPort"), ""),
            number => port_number(&format!("{path}.containerPort"), number, errors),
        }
        if let Some(number) = int(port, "hostPort").filter(|p| *p != 0) {
            port_number(&format!("{path}.hostPort"), number, errors);
        }
        one_of(
            &format!("{path}.protocol"),
            text(port, "protocol"),
            &["SCTP", "TCP", "UDP"],
            errors,
        );
        let host = text(port, "hostIP");
        if !host.is_empty() {
            super::ip_address(&format!("{path}.hostIP"), host, errors);
        }
    }
}

fn host_port_conflicts(path: &str, containers: &[Value], errors: &mut Errors) {
    let mut used: Vec<(i64, &str, &str)> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = int(port, "hostPort").filter(|p| *p != 0) else {
                continue;
            };
            let key = (number, text(port, "protocol"), text(port, "hostIP"));
            if used.contains(&key) {
                let shown = format!("{}/{}/{}", key.2, key.0, key.1);
                errors.duplicate(&format!("{path}[{i}].ports[{j}].hostPort"), shown);
            }
            used.push(key);
        }
    }
}

fn env_name(path: &str, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    } else if !name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        errors.invalid(
            path,
            name,
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
        );
    }
}

fn environment(path: &str, container: &Value, errors: &mut Errors) {
    for (i, env) in list(container, "env").iter().enumerate() {
        let path = format!("{path}.env[{i}]");
        env_name(&format!("{path}.name"), text(env, "name"), errors);
        let Some(from) = at(env, "valueFrom") else {
            continue;
        };
        let path = format!("{path}.valueFrom");
        let sources = from.as_object().map_or(0, |o| o.len());
        if sources == 0 {
            errors.invalid(&path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
        } else if sources > 1 {
            errors.invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            );
        }
        if !text(env, "value").is_empty() && sources > 0 {
            errors.invalid(&path, "", "may not be specified when `value` is not empty");
        }
        if let Some(field) = at(from, "fieldRef") {
            field_ref(&format!("{path}.fieldRef"), field, errors);
        }
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(reference) = at(from, kind) {
                for field in ["name", "key"] {
                    if text(reference, field).is_empty() {
                        errors.required(&format!("{path}.{kind}.{field}"), "");
                    }
                }
            }
        }
    }
    for (i, from) in list(container, "envFrom").iter().enumerate() {
        let path = format!("{path}.envFrom[{i}]");
        let prefix = text(from, "prefix");
        if !prefix.is_empty() {
            env_name(&format!("{path}.prefix"), prefix, errors);
        }
        let mut sources = 0;
        for kind in ["configMapRef", "secretRef"] {
            if let Some(reference) = at(from, kind) {
                sources += 1;
                let name = text(reference, "name");
                let path = format!("{path}.{kind}.name");
                if name.is_empty() {
                    errors.required(&path, "");
                } else {
                    invalid_each(&path, name, dns1123_subdomain_faults(name), errors);
                }
            }
        }
        match sources {
            0 => errors.invalid(
                &path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => errors.invalid(
                &path,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

/// What the downward API's environment knows.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn field_ref(path: &str, field: &Value, errors: &mut Errors) {
    let path = format!("{path}.fieldPath");
    let value = text(field, "fieldPath");
    if value.is_empty() {
        errors.required(&path, "");
        return;
    }
    let keyed = |prefix: &str| {
        value
            .strip_prefix(prefix)
            .and_then(|v| v.strip_prefix("['"))
            .and_then(|v| v.strip_suffix("']"))
            .is_some()
    };
    if !ENV_FIELDS.contains(&value) && !keyed("metadata.labels") && !keyed("metadata.annotations") {
        errors.not_supported(&path, value, ENV_FIELDS);
    }
}

fn mounts(path: &str, container: &Value, volumes: &[&str], errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        match text(mount, "name") {
            "" => errors.required(&format!("{path}.name"), ""),
            name if volumes.contains(&name) => {}
            name => errors.not_found(&format!("{path}.name"), name),
        }
        let at_path = text(mount, "mountPath");
        if at_path.is_empty() {
            errors.required(&format!("{path}.mountPath"), "");
        }
        if seen.contains(&at_path) {
            errors.invalid(&format!("{path}.mountPath"), at_path, "must be unique");
        }
        seen.push(at_path);
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub.is_empty() {
            volume::local_path(&format!("{path}.subPath"), sub, errors);
        }
        if !expression.is_empty() {
            let path = format!("{path}.subPathExpr");
            if !sub.is_empty() {
                errors.invalid(
                    &path,
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            volume::local_path(&path, expression, errors);
        }
    }
}

pub fn resources(path: &str, container: &Value, errors: &mut Errors) {
    let parsed = |list: &str, name: &str| crate::pod::resource(container, list, name);
    for list in ["limits", "requests"] {
        for (name, _) in map(container, &format!("resources.{list}"))
            .into_iter()
            .flatten()
        {
            let path = format!("{path}.{list}");
            resource_name(&path, name, errors);
            let Some(quantity) = parsed(list, name) else {
                continue;
            };
            let path = format!("{path}[{name}]");
            if quantity.is_negative() {
                errors.invalid(
                    &path,
                    quantity.to_string(),
                    "must be greater than or equal to 0",
                );
            }
            let whole = !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                && !name.starts_with("hugepages-");
            if whole && !quantity.is_integer() {
                errors.invalid(&path, quantity.to_string(), "must be an integer");
            }
        }
    }
    for (name, _) in map(container, "resources.requests").into_iter().flatten() {
        let (Some(request), Some(limit)) = (parsed("requests", name), parsed("limits", name))
        else {
            continue;
        };
        let extended = name.contains('/');
        if extended && request != limit {
            errors.invalid(
                &format!("{path}.requests"),
                request.to_string(),
                format!("must be equal to {name} limit of {limit}"),
            );
        } else if request > limit {
            errors.invalid(
                &format!("{path}.requests"),
                request.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            );
        }
    }
}

fn resource_name(path: &str, name: &str, errors: &mut Errors) {
    invalid_each(path, name, qualified_name_faults(name), errors);
    let standard =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.invalid(path, name, "must be a standard resource for containers");
    }
}

fn probe(path: &str, which: &str, probe: &Value, errors: &mut Errors) {
    handler(
        path,
        probe,
        &["exec", "httpGet", "tcpSocket", "grpc"],
        errors,
    );
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        if let Some(number) = int(probe, field) {
            non_negative(&format!("{path}.{field}"), number, errors);
        }
    }
    let successes = int(probe, "successThreshold").unwrap_or(1);
    if which != "readinessProbe" && successes != 1 {
        errors.invalid(&format!("{path}.successThreshold"), successes, "must be 1");
    }
    if let Some(grace) = int(probe, "terminationGracePeriodSeconds") {
        let path = format!("{path}.terminationGracePeriodSeconds");
        if which == "readinessProbe" {
            errors.invalid(&path, grace, "must not be set for readinessProbes");
        } else if grace <= 0 {
            errors.invalid(&path, grace, "must be greater than 0");
        }
    }
}

fn handler(path: &str, handler: &Value, kinds: &[&str], errors: &mut Errors) {
    let mut count = 0;
    for kind in kinds {
        let Some(found) = at(handler, kind) else {
            continue;
        };
        let path = format!("{path}.{kind}");
        count += 1;
        if count > 1 {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if list(found, "command").is_empty() => {
                errors.required(&format!("{path}.command"), "");
            }
            "httpGet" => {
                if text(found, "path").is_empty() {
                    errors.required(&format!("{path}.path"), "");
                }
                handler_port(&path, found, errors);
                one_of(
                    &format!("{path}.scheme"),
                    text(found, "scheme"),
                    &["HTTP", "HTTPS"],
                    errors,
                );
                for (i, header) in list(found, "httpHeaders").iter().enumerate() {
                    let name = text(header, "name");
                    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                    if name.is_empty() || !name.bytes().all(legal) {
                        errors.invalid(
                            &format!("{path}.httpHeaders[{i}]"),
                            name,
                            "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
                        );
                    }
                }
            }
            "tcpSocket" | "grpc" => handler_port(&path, found, errors),
            "sleep" => {
                let seconds = int(found, "seconds").unwrap_or(0);
                if seconds < 0 {
                    errors.invalid(&path, seconds, "must be greater than or equal to 0");
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        errors.required(path, "must specify a handler type");
    }
}

fn handler_port(path: &str, found: &Value, errors: &mut Errors) {
    let port = at(found, "port").cloned().unwrap_or_else(|| 0.into());
    port_or_name(&format!("{path}.port"), &port, errors);
}

/// A quantity map outside containers (pod overhead, pod-level resources) must not be negative.
pub fn not_negative(path: &str, quantities: Option<&Value>, errors: &mut Errors) {
    for (name, value) in quantities.and_then(Value::as_object).into_iter().flatten() {
        if let Some(quantity) = value.as_str().and_then(|v| Quantity::parse(v).ok())
            && quantity.is_negative()
        {
            errors.invalid(
                &format!("{path}[{name}]"),
                quantity.to_string(),
                "must be greater than or equal to 0",
            );
        }
    }
}
