//! Defaults of volumes, claims and what storage drivers register.
//! Source: Kubernetes `pkg/apis/{core,storage}/v1/defaults.go`.

use serde_json::{Value, json};

use crate::json::{child, default, default_text};

pub fn volume(volume: &mut Value) {
    let Some(spec) = child(volume, "spec") else {
        return;
    };
    default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    default_text(spec, "volumeMode", "Filesystem");
    if let Some(path) = spec.get_mut("hostPath").filter(|p| p.is_object()) {
        default(path, "type", "");
    }
    if let Some(status) = child(volume, "status") {
        default_text(status, "phase", "Pending");
    }
}

pub fn claim(claim: &mut Value) {
    if let Some(spec) = child(claim, "spec") {
        default_text(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = child(claim, "status") {
        default_text(status, "phase", "Pending");
    }
}

pub fn storage_class(class: &mut Value) {
    default_text(class, "reclaimPolicy", "Delete");
    default_text(class, "volumeBindingMode", "Immediate");
}

pub fn csi_driver(driver: &mut Value) {
    let Some(spec) = child(driver, "spec") else {
        return;
    };
    default(spec, "attachRequired", true);
    default(spec, "podInfoOnMount", false);
    default(spec, "storageCapacity", false);
    default_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec
        .get("volumeLifecycleModes")
        .and_then(Value::as_array)
        .is_none_or(|modes| modes.is_empty())
    {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
    default(spec, "requiresRepublish", false);
    default(spec, "seLinuxMount", false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_and_claims() {
        let mut pv = json!({"spec": {"hostPath": {"path": "/x"}}});
        volume(&mut pv);
        assert_eq!(
            pv,
            json!({
                "spec": {
                    "hostPath": {"path": "/x", "type": ""},
                    "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
                },
                "status": {"phase": "Pending"},
            })
        );
        let mut pvc = json!({"spec": {}});
        claim(&mut pvc);
        assert_eq!(pvc["spec"]["volumeMode"], "Filesystem");
        assert_eq!(pvc["status"]["phase"], "Pending");
    }

    #[test]
    fn classes_and_drivers() {
        let mut class = json!({"provisioner": "x"});
        storage_class(&mut class);
        assert_eq!(
            class,
            json!({"provisioner": "x", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})
        );
        let mut driver = json!({"spec": {}});
        csi_driver(&mut driver);
        assert_eq!(
            driver["spec"],
            json!({
                "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false,
                "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
                "requiresRepublish": false, "seLinuxMount": false,
            })
        );
    }
}
