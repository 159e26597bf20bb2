//! Volumes, claims, classes and what storage drivers register.
//! Source: Kubernetes `pkg/apis/{core,storage}/validation`.

use serde_json::{Value, json};

use super::metadata::{dns1123_subdomain_faults, invalid_each, qualified_name_faults};
use super::{IMMUTABLE, non_negative, one_of, pod, selector};
use crate::json::{at, int, list, map, remove, text};
use crate::quantity::Quantity;
use crate::status::Errors;

const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// The fields of a PersistentVolume that say where its data is.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn access_modes(object: &Value, detail: &str, errors: &mut Errors) {
    let path = "spec.accessModes";
    let modes = list(object, path);
    if modes.is_empty() {
        errors.required(path, detail);
    }
    for mode in modes {
        one_of(path, mode.as_str().unwrap_or(""), ACCESS_MODES, errors);
    }
    let single = modes.iter().any(|m| m == "ReadWriteOncePod");
    if single && modes.iter().any(|m| m != "ReadWriteOncePod") {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(path: &str, quantity: &str, errors: &mut Errors) {
    if let Ok(parsed) = Quantity::parse(quantity)
        && (parsed.is_zero() || parsed.is_negative())
    {
        errors.invalid(path, parsed.to_string(), "must be greater than zero");
    }
}

fn class_name(path: &str, name: &str, errors: &mut Errors) {
    if !name.is_empty() {
        invalid_each(path, name, dns1123_subdomain_faults(name), errors);
    }
}

fn volume_mode(object: &Value, errors: &mut Errors) {
    let mode = text(object, "spec.volumeMode");
    if !mode.is_empty() {
        one_of("spec.volumeMode", mode, &["Block", "Filesystem"], errors);
    }
}

pub fn volume(volume: &Value, errors: &mut Errors) {
    access_modes(volume, "", errors);
    let capacity = map(volume, "spec.capacity");
    match capacity {
        None => errors.required("spec.capacity", ""),
        Some(sizes) if sizes.is_empty() => errors.required("spec.capacity", ""),
        Some(sizes) => {
            if !sizes.contains_key("storage") || sizes.len() > 1 {
                errors.not_supported("spec.capacity", Value::Object(sizes.clone()), &["storage"]);
            }
            for (name, size) in sizes {
                let size = size.as_str().unwrap_or("");
                positive(&format!("spec.capacity[{name}]"), size, errors);
            }
        }
    }
    let policy = text(volume, "spec.persistentVolumeReclaimPolicy");
    one_of(
        "spec.persistentVolumeReclaimPolicy",
        policy,
        &["Delete", "Recycle", "Retain"],
        errors,
    );
    if let Some(required) = at(volume, "spec.nodeAffinity.required") {
        let path = "spec.nodeAffinity.required.nodeSelectorTerms";
        pod::node_terms(path, list(required, "nodeSelectorTerms"), errors);
    }
    sources(volume, errors);
    if text(volume, "spec.hostPath.path") == "/" && policy == "Recycle" {
        errors.forbidden(
            "spec.persistentVolumeReclaimPolicy",
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
    let class = text(volume, "spec.storageClassName");
    class_name("spec.storageClassName", class, errors);
    volume_mode(volume, errors);
}

fn sources(volume: &Value, errors: &mut Errors) {
    let given: Vec<&str> = SOURCES
        .iter()
        .copied()
        .filter(|source| at(volume, &format!("spec.{source}")).is_some())
        .collect();
    let Some((first, others)) = given.split_first() else {
        errors.required("spec", "must specify a volume type");
        return;
    };
    for source in others {
        errors.forbidden(
            &format!("spec.{source}"),
            "may not specify more than 1 volume type",
        );
    }
    let required: &[&str] = match *first {
        "csi" => &["driver", "volumeHandle"],
        "nfs" => &["server", "path"],
        "hostPath" | "local" => &["path"],
        _ => &[],
    };
    for field in required {
        let path = format!("spec.{first}.{field}");
        if text(volume, &path).is_empty() {
            errors.required(&path, "");
        }
    }
    if *first == "local" && at(volume, "spec.nodeAffinity").is_none() {
        errors.required("spec.nodeAffinity", "Local volume requires node affinity");
    }
}

fn differing(new: &Value, old: &Value) -> String {
    let empty = serde_json::Map::new();
    let (new, old) = (
        new.as_object().unwrap_or(&empty),
        old.as_object().unwrap_or(&empty),
    );
    let mut names: Vec<&String> = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key))
        .collect();
    names.sort();
    names.dedup();
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    names.join(", ")
}

pub fn volume_update(new: &Value, old: &Value, errors: &mut Errors) {
    let source = |object: &Value| -> Value {
        SOURCES
            .iter()
            .filter_map(|s| Some((s.to_string(), at(object, &format!("spec.{s}"))?.clone())))
            .collect::<serde_json::Map<String, Value>>()
            .into()
    };
    if source(new) != source(old) {
        errors.forbidden(
            "spec.persistentvolumesource",
            format!(
                "spec.persistentvolumesource is immutable after creation\nchanged: {}",
                differing(&source(new), &source(old))
            ),
        );
    }
    let path = "spec.volumeMode";
    if at(new, path) != at(old, path) {
        errors.invalid(path, text(new, path), IMMUTABLE);
    }
    let path = "spec.nodeAffinity";
    if at(old, path).is_some() && at(new, path) != at(old, path) {
        errors.invalid(
            path,
            at(new, path).cloned().unwrap_or(Value::Null),
            IMMUTABLE,
        );
    }
}

pub fn claim(claim: &Value, errors: &mut Errors) {
    access_modes(claim, "at least 1 access mode is required", errors);
    if let Some(found) = at(claim, "spec.selector") {
        selector::label_selector("spec.selector", found, errors);
    }
    let path = "spec.resources[storage]";
    match at(claim, "spec.resources.requests.storage").and_then(Value::as_str) {
        None => errors.required(path, ""),
        Some(size) => positive(path, size, errors),
    }
    let class = text(claim, "spec.storageClassName");
    class_name("spec.storageClassName", class, errors);
    volume_mode(claim, errors);
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = at(claim, &format!("spec.{field}")) else {
            continue;
        };
        for part in ["name", "kind"] {
            if text(source, part).is_empty() {
                errors.required(&format!("spec.{field}.{part}"), "");
            }
        }
        let kind = text(source, "kind");
        if text(source, "apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
            errors.invalid(
                &format!("spec.{field}"),
                kind,
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            );
        }
    }
}

pub fn claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    let bound = text(old, "status.phase") == "Bound";
    let fixed = |object: &Value, other: &Value| {
        let mut spec = at(object, "spec").cloned().unwrap_or(json!({}));
        if bound {
            for field in ["resources", "volumeAttributesClassName"] {
                remove(&mut spec, field);
            }
        }
        // The binder writes the volume's name once, and a default class comes late.
        for field in ["volumeName", "storageClassName"] {
            let path = format!("spec.{field}");
            if at(old, &path).is_none() || at(other, &path) == at(object, &path) {
                remove(&mut spec, field);
            }
        }
        spec
    };
    let (after, before) = (fixed(new, old), fixed(old, new));
    if after != before {
        errors.forbidden(
            "spec",
            format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\nchanged: {}",
                differing(&after, &before)
            ),
        );
    }
    let size = |object: &Value| {
        Quantity::parse(text(object, "spec.resources.requests.storage")).unwrap_or_default()
    };
    let capacity = Quantity::parse(text(old, "status.capacity.storage")).unwrap_or_default();
    if bound && size(new) < size(old) && size(new) <= capacity {
        errors.forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        );
    }
}

pub fn storage_class(class: &Value, errors: &mut Errors) {
    provisioner("provisioner", text(class, "provisioner"), errors);
    parameters(class, errors);
    one_of(
        "reclaimPolicy",
        text(class, "reclaimPolicy"),
        &["Delete", "Retain"],
        errors,
    );
    one_of(
        "volumeBindingMode",
        text(class, "volumeBindingMode"),
        &["Immediate", "WaitForFirstConsumer"],
        errors,
    );
    for (i, topology) in list(class, "allowedTopologies").iter().enumerate() {
        for (j, term) in list(topology, "matchLabelExpressions").iter().enumerate() {
            let path = format!("allowedTopologies[{i}].matchLabelExpressions[{j}]");
            let key = text(term, "key");
            invalid_each(
                &format!("{path}.key"),
                key,
                qualified_name_faults(key),
                errors,
            );
            if list(term, "values").is_empty() {
                errors.required(&format!("{path}.values"), "");
            }
        }
    }
}

fn provisioner(path: &str, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let faults = qualified_name_faults(&name.to_lowercase());
    invalid_each(path, name, faults, errors);
}

/// All parameters together.
const MAX_PARAMETERS: usize = 256 << 10;

fn parameters(class: &Value, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in map(class, "parameters").into_iter().flatten() {
        if key.is_empty() {
            errors.invalid("parameters", "", "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_PARAMETERS {
        errors.too_long("parameters", MAX_PARAMETERS);
    }
}

pub fn storage_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    let empty = json!({});
    let given = |object: &Value| at(object, "parameters").cloned().unwrap_or(empty.clone());
    if given(new) != given(old) {
        errors.forbidden("parameters", "updates to parameters are forbidden.");
    }
    for field in ["provisioner", "reclaimPolicy"] {
        if at(new, field) != at(old, field) {
            errors.forbidden(field, format!("updates to {field} are forbidden."));
        }
    }
    immutable("volumeBindingMode", new, old, errors);
}

fn immutable(path: &str, new: &Value, old: &Value, errors: &mut Errors) {
    if at(new, path) != at(old, path) {
        errors.invalid(
            path,
            at(new, path).cloned().unwrap_or(Value::Null),
            IMMUTABLE,
        );
    }
}

/// `ValidateCSIDriverName`.
fn driver_name(path: &str, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    if !name.is_empty() {
        let faults = dns1123_subdomain_faults(&name.to_lowercase());
        invalid_each(path, name, faults, errors);
    }
}

pub fn csi_driver(driver: &Value, errors: &mut Errors) {
    driver_name("metadata.name", text(driver, "metadata.name"), errors);
    one_of(
        "spec.fsGroupPolicy",
        text(driver, "spec.fsGroupPolicy"),
        &["File", "None", "ReadWriteOnceWithFSType"],
        errors,
    );
    for mode in list(driver, "spec.volumeLifecycleModes") {
        one_of(
            "spec.volumeLifecycleModes",
            mode.as_str().unwrap_or(""),
            &["Ephemeral", "Persistent"],
            errors,
        );
    }
    let mut audiences = Vec::new();
    for (i, request) in list(driver, "spec.tokenRequests").iter().enumerate() {
        let path = format!("spec.tokenRequests[{i}]");
        let audience = text(request, "audience");
        if audiences.contains(&audience) {
            errors.duplicate(&format!("{path}.audience"), audience);
        }
        audiences.push(audience);
        if let Some(seconds) = int(request, "expirationSeconds").filter(|s| *s < 600) {
            errors.invalid(
                &format!("{path}.expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            );
        }
    }
    if let Some(seconds) =
        int(driver, "spec.nodeAllocatableUpdatePeriodSeconds").filter(|s| *s < 10)
    {
        errors.invalid(
            "spec.nodeAllocatableUpdatePeriodSeconds",
            seconds,
            "must be greater than or equal to 10 seconds",
        );
    }
}

pub fn csi_driver_update(new: &Value, old: &Value, errors: &mut Errors) {
    for field in ["attachRequired", "volumeLifecycleModes"] {
        immutable(&format!("spec.{field}"), new, old, errors);
    }
}

pub fn csi_node(node: &Value, errors: &mut Errors) {
    let mut names = Vec::new();
    for (i, driver) in list(node, "spec.drivers").iter().enumerate() {
        let path = format!("spec.drivers[{i}]");
        let name = text(driver, "name");
        driver_name(&format!("{path}.name"), name, errors);
        if names.contains(&name) {
            errors.duplicate(&format!("{path}.name"), name);
        }
        names.push(name);
        let id = text(driver, "nodeID");
        if id.is_empty() {
            errors.required(&format!("{path}.nodeID"), "");
        } else if id.len() > 256 {
            errors.invalid(
                &format!("{path}.nodeID"),
                id,
                "must be 256 characters or less",
            );
        }
        for key in list(driver, "topologyKeys") {
            let key = key.as_str().unwrap_or("");
            invalid_each(&path, key, qualified_name_faults(key), errors);
        }
        if let Some(count) = int(driver, "allocatable.count") {
            non_negative(&format!("{path}.allocatable.count"), count, errors);
        }
    }
}

pub fn csi_node_update(new: &Value, old: &Value, errors: &mut Errors) {
    for driver in list(new, "spec.drivers") {
        let strip = |driver: &Value| {
            let mut driver = driver.clone();
            remove(&mut driver, "allocatable");
            driver
        };
        let before = list(old, "spec.drivers")
            .iter()
            .find(|d| text(d, "name") == text(driver, "name"));
        if before.is_some_and(|b| strip(b) != strip(driver)) {
            errors.invalid("spec.drivers", driver.clone(), IMMUTABLE);
        }
    }
}

pub fn attachment(attachment: &Value, errors: &mut Errors) {
    provisioner("spec.attacher", text(attachment, "spec.attacher"), errors);
    let sources = [
        at(attachment, "spec.source.inlineVolumeSpec"),
        at(attachment, "spec.source.persistentVolumeName"),
    ];
    if sources.iter().flatten().count() != 1 {
        errors.required(
            "spec.source",
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        );
    }
    let node = text(attachment, "spec.nodeName");
    if node.is_empty() {
        errors.required("spec.nodeName", "");
    } else {
        invalid_each(
            "spec.nodeName",
            node,
            dns1123_subdomain_faults(node),
            errors,
        );
    }
}

pub fn attachment_update(new: &Value, old: &Value, errors: &mut Errors) {
    immutable("spec", new, old, errors);
}

pub fn storage_capacity(capacity: &Value, errors: &mut Errors) {
    let class = text(capacity, "storageClassName");
    if class.is_empty() {
        errors.required("storageClassName", "");
    }
    class_name("storageClassName", class, errors);
    for field in ["capacity", "maximumVolumeSize"] {
        if let Ok(size) = Quantity::parse(text(capacity, field))
            && size.is_negative()
        {
            errors.invalid(
                field,
                size.to_string(),
                "must be greater than or equal to 0",
            );
        }
    }
    if let Some(found) = at(capacity, "nodeTopology") {
        selector::label_selector("nodeTopology", found, errors);
    }
}

pub fn storage_capacity_update(new: &Value, old: &Value, errors: &mut Errors) {
    for field in ["nodeTopology", "storageClassName"] {
        immutable(field, new, old, errors);
    }
}

pub fn attributes_class(class: &Value, errors: &mut Errors) {
    provisioner("driverName", text(class, "driverName"), errors);
    parameters(class, errors);
    if map(class, "parameters").is_none_or(|p| p.is_empty()) {
        errors.required("parameters", "must contain at least one key/value pair");
    }
}

pub fn attributes_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    for field in ["driverName", "parameters"] {
        immutable(field, new, old, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::storage as defaults;

    fn shown(errors: &Errors) -> Vec<String> {
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn faults(
        default: fn(&mut Value),
        validate: fn(&Value, &mut Errors),
        mut object: Value,
    ) -> Vec<String> {
        default(&mut object);
        let mut errors = Errors::default();
        validate(&object, &mut errors);
        shown(&errors)
    }

    #[test]
    fn volumes() {
        let check = |spec: Value| faults(defaults::volume, volume, json!({"spec": spec}));
        let good = json!({
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/x"},
        });
        assert_eq!(check(good.clone()), Vec::<String>::new());
        assert_eq!(
            check(json!({})),
            [
                "spec.accessModes: Required value",
                "spec.capacity: Required value",
                "spec: Required value: must specify a volume type",
            ]
        );
        let mut two = good.clone();
        two["nfs"] = json!({"server": "s", "path": "/"});
        assert_eq!(
            check(two),
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"]
        );
        let mut modes = good.clone();
        modes["accessModes"] = json!(["ReadWriteOncePod", "Any"]);
        assert_eq!(
            check(modes),
            [
                "spec.accessModes: Unsupported value: \"Any\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ]
        );
        let mut errors = Errors::default();
        let mut other = good.clone();
        other["hostPath"]["path"] = json!("/y");
        volume_update(&json!({"spec": other}), &json!({"spec": good}), &mut errors);
        assert_eq!(
            shown(&errors),
            [
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\nchanged: hostPath"
            ]
        );
    }

    #[test]
    fn claims() {
        let check = |spec: Value| faults(defaults::claim, claim, json!({"spec": spec}));
        let good = json!({
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        });
        assert_eq!(check(good.clone()), Vec::<String>::new());
        assert_eq!(
            check(json!({})),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ]
        );
        let mut zero = good.clone();
        zero["resources"]["requests"]["storage"] = json!("0");
        assert_eq!(
            check(zero.clone()),
            ["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"]
        );
        let update = |phase: &str, edit: &dyn Fn(&mut Value)| {
            let old =
                json!({"spec": good, "status": {"phase": phase, "capacity": {"storage": "1Gi"}}});
            let mut new = old.clone();
            edit(&mut new["spec"]);
            let mut errors = Errors::default();
            claim_update(&new, &old, &mut errors);
            shown(&errors)
        };
        assert!(update("Pending", &|s| s["volumeName"] = json!("v")).is_empty());
        assert!(
            update("Pending", &|s| s["accessModes"] = json!([]))[0].starts_with(
                "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
            )
        );
        assert!(
            update("Bound", &|s| s["resources"]["requests"]["storage"] =
                json!("2Gi"))
            .is_empty()
        );
        assert_eq!(
            update("Bound", &|s| s["resources"]["requests"]["storage"] =
                json!("1Mi")),
            [
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
            ]
        );
    }

    #[test]
    fn classes_drivers_and_attachments() {
        let class = json!({"provisioner": "a.b/c", "parameters": {"a": "b"}});
        assert_eq!(
            faults(defaults::storage_class, storage_class, class.clone()),
            Vec::<String>::new()
        );
        let mut errors = Errors::default();
        storage_class_update(&json!({"provisioner": "x"}), &class, &mut errors);
        assert_eq!(
            shown(&errors),
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
            ]
        );
        assert_eq!(
            faults(
                defaults::csi_driver,
                csi_driver,
                json!({"metadata": {"name": "a b"}, "spec": {"volumeLifecycleModes": ["Often"]}})
            )
            .len(),
            2
        );
        assert_eq!(
            faults(
                |_| {},
                attachment,
                json!({"spec": {"attacher": "a", "nodeName": "n", "source": {}}})
            ),
            [
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            ]
        );
        assert_eq!(
            faults(
                |_| {},
                csi_node,
                json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}, {"name": "d", "nodeID": ""}]}})
            ),
            [
                "spec.drivers[1].name: Duplicate value: \"d\"",
                "spec.drivers[1].nodeID: Required value",
            ]
        );
    }
}
