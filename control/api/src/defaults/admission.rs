//! Defaults of webhooks and admission policies.
//! Source: Kubernetes `pkg/apis/admissionregistration/v1/defaults.go`.

use serde_json::{Value, json};

use crate::json::{child, default, default_text, list_mut};

fn webhook(hook: &mut Value) {
    default_text(hook, "failurePolicy", "Fail");
    default_text(hook, "matchPolicy", "Equivalent");
    default(hook, "namespaceSelector", json!({}));
    default(hook, "objectSelector", json!({}));
    default(hook, "timeoutSeconds", 10);
    let client = hook.get_mut("clientConfig");
    if let Some(service) = client.and_then(|c| c.get_mut("service")) {
        default(service, "port", 443);
    }
    scopes(hook, "rules");
}

fn scopes(value: &mut Value, rules: &str) {
    for rule in list_mut(value, rules).into_iter().flatten() {
        default_text(rule, "scope", "*");
    }
}

pub fn validating_webhooks(configuration: &mut Value) {
    for hook in list_mut(configuration, "webhooks").into_iter().flatten() {
        webhook(hook);
    }
}

pub fn mutating_webhooks(configuration: &mut Value) {
    for hook in list_mut(configuration, "webhooks").into_iter().flatten() {
        webhook(hook);
        default_text(hook, "reinvocationPolicy", "Never");
    }
}

fn match_resources(value: &mut Value) {
    default_text(value, "matchPolicy", "Equivalent");
    default(value, "namespaceSelector", json!({}));
    default(value, "objectSelector", json!({}));
    scopes(value, "resourceRules");
    scopes(value, "excludeResourceRules");
}

pub fn policy(policy: &mut Value) {
    let Some(spec) = child(policy, "spec") else {
        return;
    };
    default_text(spec, "failurePolicy", "Fail");
    if let Some(constraints) = spec.get_mut("matchConstraints").filter(|c| c.is_object()) {
        match_resources(constraints);
    }
}

pub fn policy_binding(binding: &mut Value) {
    let resources = binding
        .get_mut("spec")
        .and_then(|s| s.get_mut("matchResources"));
    if let Some(resources) = resources.filter(|r| r.is_object()) {
        match_resources(resources);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_and_policies() {
        let mut configuration = json!({"webhooks": [{
            "clientConfig": {"service": {"name": "s"}}, "rules": [{"operations": ["*"]}],
        }]});
        mutating_webhooks(&mut configuration);
        assert_eq!(
            configuration["webhooks"][0],
            json!({
                "clientConfig": {"service": {"name": "s", "port": 443}},
                "rules": [{"operations": ["*"], "scope": "*"}],
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {},
                "objectSelector": {}, "timeoutSeconds": 10, "reinvocationPolicy": "Never",
            })
        );
        let mut made = json!({"spec": {"matchConstraints": {"resourceRules": [{}]}}});
        policy(&mut made);
        assert_eq!(
            made["spec"],
            json!({
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                    "resourceRules": [{"scope": "*"}],
                },
            })
        );
    }
}
