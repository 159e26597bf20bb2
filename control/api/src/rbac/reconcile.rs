//! Bootstrap objects brought up to date without taking away what an admin added.
//! Source: component-helpers `auth/rbac/reconciliation`.

use serde_json::Value;

use super::bootstrap::AUTO_UPDATE;
use super::{Rule, covers};
use crate::json::{self, at, list, map};

/// Whether an admin said that the object is to stay as it is.
fn is_protected(existing: &Value) -> bool {
    map(existing, "metadata.annotations")
        .and_then(|annotations| annotations.get(AUTO_UPDATE))
        .and_then(Value::as_str)
        == Some("false")
}

/// What is there wins over what is expected.
fn merge_metadata(existing: &mut Value, expected: &Value) {
    let Some(metadata) = json::child(existing, "metadata") else {
        return;
    };
    for field in ["labels", "annotations"] {
        let Some(wanted) = map(expected, &format!("metadata.{field}")) else {
            continue;
        };
        if let Some(there) = json::child(metadata, field).and_then(Value::as_object_mut) {
            for (key, value) in wanted {
                there.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
}

fn push(object: &mut Value, field: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    let mut all = list(object, field).to_vec();
    all.extend(items);
    json::put(object, field, Some(all.into()));
}

/// The existing role with the rules, selectors, labels and annotations that it lacks.
pub fn reconcile_role(existing: &Value, expected: &Value) -> Value {
    let mut role = existing.clone();
    if is_protected(existing) {
        return role;
    }
    merge_metadata(&mut role, expected);
    const SELECTORS: &str = "aggregationRule.clusterRoleSelectors";
    let missing: Vec<Value> = list(expected, SELECTORS)
        .iter()
        .filter(|selector| !list(existing, SELECTORS).contains(selector))
        .cloned()
        .collect();
    if !missing.is_empty()
        && let Some(aggregation) = json::child(&mut role, "aggregationRule")
    {
        push(aggregation, "clusterRoleSelectors", missing);
    }
    // The rules of a role that gathers others are its controller's.
    if !super::is_aggregated(&role) {
        let missing = covers(&Rule::all_of(existing), &Rule::all_of(expected));
        push(
            &mut role,
            "rules",
            missing.iter().map(Rule::to_value).collect(),
        );
    }
    role
}

/// The existing binding with the subjects, labels and annotations that it lacks; `None` if it is
/// of another role, and so has to be made anew.
pub fn reconcile_binding(existing: &Value, expected: &Value) -> Option<Value> {
    let mut binding = existing.clone();
    if is_protected(existing) {
        return Some(binding);
    }
    if at(existing, "roleRef") != at(expected, "roleRef") {
        return None;
    }
    merge_metadata(&mut binding, expected);
    let missing: Vec<Value> = list(expected, "subjects")
        .iter()
        .filter(|subject| !list(existing, "subjects").contains(subject))
        .cloned()
        .collect();
    push(&mut binding, "subjects", missing);
    Some(binding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(verbs: Value) -> Value {
        json!({"metadata": {"name": "r", "labels": {"a": "ours"}, "annotations": {AUTO_UPDATE: "true"}},
               "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]})
    }

    #[test]
    fn what_is_missing_is_added() {
        let expected = role(json!(["get", "list"]));
        assert_eq!(reconcile_role(&expected, &expected), expected);
        let mut existing = role(json!(["get", "delete"]));
        existing["metadata"]["labels"] = json!({"a": "theirs", "b": "c"});
        let updated = reconcile_role(&existing, &expected);
        assert_eq!(
            updated["metadata"]["labels"],
            json!({"a": "theirs", "b": "c"})
        );
        assert_eq!(
            updated["rules"],
            json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]},
                   {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}])
        );
        existing["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(reconcile_role(&existing, &expected), existing);
    }

    #[test]
    fn aggregated_roles_get_selectors_not_rules() {
        let expected = json!({"metadata": {"name": "r"}, "rules": null, "aggregationRule":
            {"clusterRoleSelectors": [{"matchLabels": {"x": "true"}}]}});
        let existing = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"y": "true"}}]}});
        let updated = reconcile_role(&existing, &expected);
        assert_eq!(updated["rules"], existing["rules"]);
        let selectors = list(&updated, "aggregationRule.clusterRoleSelectors");
        assert_eq!(selectors.len(), 2);
        assert_eq!(reconcile_role(&updated, &expected), updated);
    }

    #[test]
    fn bindings() {
        let of = |role: &str, subjects: Value| json!({"metadata": {"name": "b"}, "roleRef": {"name": role}, "subjects": subjects});
        let expected = of("r", json!([{"name": "a"}, {"name": "b"}]));
        let updated = reconcile_binding(&of("r", json!([{"name": "c"}, {"name": "a"}])), &expected);
        assert_eq!(
            updated.unwrap()["subjects"],
            json!([{"name": "c"}, {"name": "a"}, {"name": "b"}])
        );
        assert_eq!(reconcile_binding(&of("other", json!([])), &expected), None);
    }
}
