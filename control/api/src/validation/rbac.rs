//! Roles and bindings. Source: `pkg/apis/rbac/validation`.

use serde_json::Value;

use super::metadata::{dns1123_subdomain_faults, path_segment_faults};
use super::selector;
use crate::json::{at, list, text};
use crate::rbac::GROUP;
use crate::status::Errors;

pub fn role(role: &Value, errors: &mut Errors) {
    rules(role, true, errors);
}

pub fn cluster_role(role: &Value, errors: &mut Errors) {
    rules(role, false, errors);
    if at(role, "aggregationRule").is_none() {
        return;
    }
    let path = "aggregationRule.clusterRoleSelectors";
    let selectors = list(role, path);
    if selectors.is_empty() {
        errors.required(
            path,
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        );
    }
    for (i, value) in selectors.iter().enumerate() {
        selector::label_selector(&format!("{path}[{i}]"), value, errors);
    }
}

fn rules(role: &Value, namespaced: bool, errors: &mut Errors) {
    for (i, rule) in list(role, "rules").iter().enumerate() {
        let path = format!("rules[{i}]");
        let count = |field: &str| list(rule, field).len();
        if count("verbs") == 0 {
            errors.required(
                &format!("{path}.verbs"),
                "verbs must contain at least one value",
            );
        }
        if count("nonResourceURLs") > 0 {
            let field = format!("{path}.nonResourceURLs");
            let urls = || Value::from(list(rule, "nonResourceURLs"));
            if namespaced {
                errors.invalid(
                    &field,
                    urls(),
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if count("apiGroups") + count("resources") + count("resourceNames") > 0 {
                errors.invalid(
                    &field,
                    urls(),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if count("apiGroups") == 0 {
            errors.required(
                &format!("{path}.apiGroups"),
                "resource rules must supply at least one api group",
            );
        }
        if count("resources") == 0 {
            errors.required(
                &format!("{path}.resources"),
                "resource rules must supply at least one resource",
            );
        }
    }
}

pub fn role_binding(binding: &Value, errors: &mut Errors) {
    any_binding(binding, true, &["ClusterRole", "Role"], errors);
}

pub fn cluster_role_binding(binding: &Value, errors: &mut Errors) {
    any_binding(binding, false, &["ClusterRole"], errors);
}

fn any_binding(binding: &Value, namespaced: bool, kinds: &[&str], errors: &mut Errors) {
    let group = text(binding, "roleRef.apiGroup");
    if group != GROUP {
        errors.not_supported("roleRef.apiGroup", group, &[GROUP]);
    }
    let kind = text(binding, "roleRef.kind");
    if !kinds.contains(&kind) {
        errors.not_supported("roleRef.kind", kind, kinds);
    }
    let name = text(binding, "roleRef.name");
    if name.is_empty() {
        errors.required("roleRef.name", "");
    }
    for fault in path_segment_faults(name) {
        errors.invalid("roleRef.name", name, fault);
    }
    for (i, value) in list(binding, "subjects").iter().enumerate() {
        subject(&format!("subjects[{i}]"), value, namespaced, errors);
    }
}

fn subject(path: &str, subject: &Value, namespaced: bool, errors: &mut Errors) {
    let name_at = format!("{path}.name");
    let group_at = format!("{path}.apiGroup");
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.required(&name_at, "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                for fault in dns1123_subdomain_faults(name) {
                    errors.invalid(&name_at, name, fault);
                }
            }
            if !group.is_empty() {
                errors.not_supported(&group_at, group, &[""]);
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.required(&format!("{path}.namespace"), "");
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                let kind = kind.to_lowercase();
                errors.invalid(&name_at, name, format!("{kind} name cannot be empty"));
            }
            if group != GROUP {
                errors.not_supported(&group_at, group, &[GROUP]);
            }
        }
        other => errors.not_supported(
            &format!("{path}.kind"),
            other,
            &["Group", "ServiceAccount", "User"],
        ),
    }
}

pub fn binding_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old) = (at(new, "roleRef"), at(old, "roleRef"));
    if new != old {
        errors.invalid(
            "roleRef",
            new.cloned().unwrap_or_default(),
            "cannot change roleRef",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(check: fn(&Value, &mut Errors), object: Value) -> Vec<String> {
        let mut errors = Errors::default();
        check(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn roles() {
        let good = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        assert!(faults(role, good).is_empty());
        assert_eq!(
            faults(role, json!({"rules": [{}]})),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        let urls = json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
        assert!(faults(cluster_role, urls.clone()).is_empty());
        assert_eq!(
            faults(role, urls),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"
            ]
        );
        assert_eq!(
            faults(cluster_role, json!({"aggregationRule": {}})),
            [
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ]
        );
    }

    #[test]
    fn bindings() {
        let good = json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "apiGroup": GROUP, "name": "u"},
            {"kind": "ServiceAccount", "name": "s"}]});
        assert!(faults(role_binding, good.clone()).is_empty());
        assert_eq!(
            faults(cluster_role_binding, good),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[1].namespace: Required value",
            ]
        );
        let bad = json!({"roleRef": {"apiGroup": "x", "kind": "ClusterRole", "name": "a/b"},
            "subjects": [{"kind": "Robot", "name": "x"}, {"kind": "User", "apiGroup": "", "name": "x"}]});
        assert_eq!(
            faults(role_binding, bad),
            [
                "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "subjects[1].apiGroup: Unsupported value: \"\": supported values: \"rbac.authorization.k8s.io\"",
            ]
        );
        let mut errors = Errors::default();
        let of = |name: &str| json!({"roleRef": {"name": name}});
        binding_update(&of("a"), &of("a"), &mut errors);
        assert!(errors.is_empty());
        binding_update(&of("b"), &of("a"), &mut errors);
        assert_eq!(
            errors.0[0].to_string(),
            "roleRef: Invalid value: {\"name\":\"b\"}: cannot change roleRef"
        );
    }
}
