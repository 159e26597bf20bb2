//! ClusterRoles that gather the rules of others by labels.
//! Source: `pkg/controller/clusterroleaggregation`.

use serde_json::Value;

use super::Rule;
use crate::json::{at, list, text};
use crate::selector::LabelSelector;

pub fn is_aggregated(role: &Value) -> bool {
    at(role, "aggregationRule").is_some()
}

/// The rules that an aggregated ClusterRole should have: those of the roles that it selects, in
/// the order of their names, each once. `None` if it aggregates nothing.
pub fn aggregated(role: &Value, all: &[Value]) -> Option<Vec<Rule>> {
    if !is_aggregated(role) {
        return None;
    }
    let selectors: Vec<LabelSelector> = list(role, "aggregationRule.clusterRoleSelectors")
        .iter()
        .map(|selector| LabelSelector::from_object(Some(selector)))
        .collect();
    let own = text(role, "metadata.name");
    let mut rules: Vec<Rule> = Vec::new();
    for selector in &selectors {
        let mut chosen: Vec<&Value> = all
            .iter()
            .filter(|other| text(other, "metadata.name") != own)
            .filter(|other| selector.matches(other))
            .collect();
        chosen.sort_by_key(|other| text(other, "metadata.name"));
        for rule in chosen.into_iter().flat_map(Rule::all_of) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(name: &str, label: &str, resource: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {label: "true"}},
               "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    }

    #[test]
    fn rules_are_gathered_in_order_and_once() {
        let mut top = role("top", "to-x", "stale");
        top["aggregationRule"] = json!({"clusterRoleSelectors": [
            {"matchLabels": {"to-x": "true"}},
            {"matchExpressions": [{"key": "to-y", "operator": "Exists"}]}]});
        let all = [
            role("b", "to-x", "pods"),
            role("a", "to-x", "nodes"),
            role("c", "to-x", "pods"),
            role("d", "to-y", "secrets"),
            role("e", "to-z", "services"),
            top.clone(),
        ];
        let rules = aggregated(&top, &all).unwrap();
        let resources: Vec<&str> = rules.iter().map(|r| r.resources[0].as_str()).collect();
        assert_eq!(resources, ["nodes", "pods", "secrets"]);
        assert_eq!(aggregated(&all[0], &all), None);
        let none =
            json!({"metadata": {"name": "n"}, "aggregationRule": {"clusterRoleSelectors": []}});
        assert_eq!(aggregated(&none, &all), Some(vec![]));
    }
}
