//! Validating admission policies and their bindings.
//! Source: Kubernetes `pkg/apis/admissionregistration/validation`.

use std::collections::HashSet;

use serde_json::Value;

use super::metadata::{
    dns1035_label_faults, dns1123_subdomain_faults, invalid_each, path_segment_faults,
    qualified_name_faults,
};
use super::webhook::{FAILURE_POLICIES, condition_names, match_policy, operations_rule, selectors};
use super::{one_of, selector};
use crate::admission::dynamic::expression::{self, Environment, Wanted};
use crate::json::{at, list, text};
use crate::status::Errors;

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MAX_VALUE_EXPRESSION: usize = 5 << 10;
const MAX_AUDIT_ANNOTATIONS: usize = 20;
const NOTHING: &str = "validations or auditAnnotations must contain at least one item";

pub fn policy(policy: &Value, errors: &mut Errors) {
    let Some(spec) = at(policy, "spec") else {
        errors.required("spec", "");
        return;
    };
    match text(spec, "failurePolicy") {
        "" => errors.required("spec.failurePolicy", ""),
        given => one_of("spec.failurePolicy", given, FAILURE_POLICIES, errors),
    }
    if let Some(kind) = at(spec, "paramKind") {
        param_kind(kind, errors);
    }
    match at(spec, "matchConstraints") {
        None => errors.required("spec.matchConstraints", ""),
        Some(constraints) => {
            let path = "spec.matchConstraints";
            match_resources(constraints, path, errors);
            if list(constraints, "resourceRules").is_empty() {
                errors.required(&format!("{path}.resourceRules"), "");
            }
        }
    }
    let mut environment = Environment::of_conditions(at(spec, "paramKind").is_some());
    condition_names(spec, "spec", errors);
    conditions(spec, "spec", &environment, errors);
    environment = Environment::of_policy(at(spec, "paramKind").is_some());
    variables(spec, &mut environment, errors);
    let validations = list(spec, "validations");
    let annotations = list(spec, "auditAnnotations");
    if validations.is_empty() && annotations.is_empty() {
        errors.required("spec.validations", NOTHING);
        errors.required("spec.auditAnnotations", NOTHING);
    }
    for (i, validation) in validations.iter().enumerate() {
        let path = format!("spec.validations[{i}]");
        one_validation(validation, &path, &environment, errors);
    }
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        errors.invalid(
            "spec.auditAnnotations",
            annotations.to_vec(),
            format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations"),
        );
    }
    audit_annotations(policy, annotations, &environment, errors);
}

fn param_kind(kind: &Value, errors: &mut Errors) {
    let path = "spec.paramKind.apiVersion";
    let api_version = text(kind, "apiVersion");
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if api_version.is_empty() {
        errors.required(path, "");
    } else if group.contains('/') {
        let why = format!("unexpected GroupVersion string: {api_version}");
        errors.invalid(path, api_version, why);
    } else {
        if !group.is_empty() {
            invalid_each(path, group, dns1123_subdomain_faults(group), errors);
        }
        match version {
            "" => errors.invalid(path, api_version, "version must be specified"),
            version => invalid_each(path, version, dns1035_label_faults(version), errors),
        }
    }
    let path = "spec.paramKind.kind";
    match text(kind, "kind") {
        "" => errors.required(path, ""),
        kind => {
            for fault in dns1035_label_faults(&kind.to_lowercase()) {
                let why = format!("may have mixed case, but should otherwise match: {fault}");
                errors.invalid(path, kind, why);
            }
        }
    }
}

fn match_resources(resources: &Value, path: &str, errors: &mut Errors) {
    match_policy(resources, path, errors);
    selectors(resources, path, errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in list(resources, field).iter().enumerate() {
            let path = format!("{path}.{field}[{i}]");
            operations_rule(rule, &path, errors);
            let mut names = HashSet::new();
            for (j, name) in list(rule, "resourceNames").iter().enumerate() {
                let path = format!("{path}.resourceNames[{j}]");
                let name = name.as_str().unwrap_or("");
                invalid_each(&path, name, path_segment_faults(name), errors);
                if !names.insert(name) {
                    errors.duplicate(&path, name);
                }
            }
        }
    }
}

/// The expressions of `matchConditions`.
pub(super) fn conditions(
    value: &Value,
    path: &str,
    environment: &Environment,
    errors: &mut Errors,
) {
    for (i, condition) in list(value, "matchConditions").iter().enumerate() {
        let path = format!("{path}.matchConditions[{i}].expression");
        let source = text(condition, "expression");
        if source.trim().is_empty() {
            errors.required(&path, "");
            continue;
        }
        expression::check(&path, source, environment, Wanted::Bool, errors);
    }
}

/// Each sees those before it.
fn variables(spec: &Value, environment: &mut Environment, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (i, variable) in list(spec, "variables").iter().enumerate() {
        let path = format!("spec.variables[{i}]");
        let (name, source) = (text(variable, "name"), text(variable, "expression"));
        if name.is_empty() {
            errors.required(&format!("{path}.name"), "name is not specified");
        } else if !expression::is_identifier(name) {
            let why = "name is not a valid CEL identifier";
            errors.invalid(&format!("{path}.name"), name, why);
        } else if !names.insert(name) {
            errors.duplicate(&format!("{path}.name"), name);
        }
        let path = format!("{path}.expression");
        if source.trim().is_empty() {
            errors.required(&path, "expression is not specified");
            continue;
        }
        if let Some(ty) = expression::check(&path, source, environment, Wanted::Any, errors) {
            environment.declare(name, ty);
        }
    }
}

fn one_validation(validation: &Value, path: &str, environment: &Environment, errors: &mut Errors) {
    let at_field = |field: &str| format!("{path}.{field}");
    let source = text(validation, "expression");
    if source.trim().is_empty() {
        errors.required(&at_field("expression"), "expression is not specified");
    } else {
        let path = at_field("expression");
        expression::check(&path, source, environment, Wanted::Bool, errors);
    }
    let of_message = text(validation, "messageExpression");
    if !of_message.is_empty() && of_message.trim().is_empty() {
        errors.invalid(
            &at_field("messageExpression"),
            of_message,
            "must be non-empty if specified",
        );
    } else if !of_message.is_empty() {
        let path = at_field("messageExpression");
        // It says what is wrong with a request, not who may do what.
        let environment = environment.without_authorizer();
        expression::check(&path, of_message, &environment, Wanted::String, errors);
    }
    let message = text(validation, "message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(
            &at_field("message"),
            message,
            "message must be non-empty if specified",
        );
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(
            &at_field("message"),
            message,
            "message must not contain line breaks",
        );
    }
    if let Some(reason) = at(validation, "reason").and_then(Value::as_str) {
        one_of(&at_field("reason"), reason, REASONS, errors);
    }
}

fn audit_annotations(
    policy: &Value,
    annotations: &[Value],
    environment: &Environment,
    errors: &mut Errors,
) {
    let policy_name = text(policy, "metadata.name");
    let mut keys = HashSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let path = format!("spec.auditAnnotations[{i}]");
        let key = text(annotation, "key");
        if key.is_empty() {
            errors.required(&format!("{path}.key"), "");
        } else {
            // As it stands in the log.
            let faults = qualified_name_faults(&format!("{policy_name}/{key}"));
            invalid_each(&format!("{path}.key"), key, faults, errors);
            if !keys.insert(key) {
                errors.duplicate(&format!("{path}.key"), key);
            }
        }
        let path = format!("{path}.valueExpression");
        let source = text(annotation, "valueExpression");
        if source.trim().is_empty() {
            errors.required(&path, "valueExpression is not specified");
            continue;
        }
        if source.trim().len() > MAX_VALUE_EXPRESSION {
            errors.too_long(&path, MAX_VALUE_EXPRESSION);
        }
        expression::check(&path, source, environment, Wanted::StringOrNull, errors);
    }
}

pub fn binding(binding: &Value, errors: &mut Errors) {
    let Some(spec) = at(binding, "spec") else {
        errors.required("spec", "");
        return;
    };
    match text(spec, "policyName") {
        "" => errors.required("spec.policyName", ""),
        name => {
            let faults = dns1123_subdomain_faults(name);
            invalid_each("spec.policyName", name, faults, errors);
        }
    }
    if let Some(reference) = at(spec, "paramRef") {
        param_ref(reference, errors);
    }
    if let Some(resources) = at(spec, "matchResources") {
        match_resources(resources, "spec.matchResources", errors);
    }
    actions(list(spec, "validationActions"), errors);
}

fn param_ref(reference: &Value, errors: &mut Errors) {
    let path = "spec.paramRef";
    let name = text(reference, "name");
    match (name, at(reference, "selector")) {
        ("", None) => errors.required(path, "one of name or selector must be specified"),
        ("", Some(found)) => {
            selector::label_selector(&format!("{path}.selector"), found, errors);
        }
        (name, found) => {
            let name_path = format!("{path}.name");
            invalid_each(&name_path, name, path_segment_faults(name), errors);
            if found.is_some() {
                for path in [name_path, format!("{path}.selector")] {
                    errors.forbidden(&path, "name and selector are mutually exclusive");
                }
            }
        }
    }
    let path = "spec.paramRef.parameterNotFoundAction";
    match text(reference, "parameterNotFoundAction") {
        "" => errors.required(path, ""),
        action => one_of(path, action, &["Allow", "Deny"], errors),
    }
}

fn actions(actions: &[Value], errors: &mut Errors) {
    let path = "spec.validationActions";
    if actions.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
    let mut seen = HashSet::new();
    for (i, action) in actions.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let action = action.as_str().unwrap_or("");
        one_of(&path, action, &["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action) {
            errors.duplicate(&path, action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.invalid(
            path,
            actions.to_vec(),
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(errors: &Errors) -> Vec<String> {
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut made = json!({"metadata": {"name": "p"}, "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
                "apiVersions": ["v1"], "resources": ["pods"]}]},
            "validations": [{"expression": "true"}],
        }});
        change(&mut made["spec"]);
        let mut errors = Errors::default();
        policy(&made, &mut errors);
        shown(&errors)
    }

    #[test]
    fn policies() {
        assert_eq!(faults(|_| {}), [""; 0]);
        let one = |change: &dyn Fn(&mut Value)| faults(|s| change(s)).join("; ");
        assert_eq!(
            one(&|s| s["validations"] = json!([])),
            format!(
                "spec.validations: Required value: {NOTHING}; spec.auditAnnotations: Required value: {NOTHING}"
            )
        );
        assert_eq!(
            one(&|s| s["matchConstraints"] = json!({})),
            "spec.matchConstraints.resourceRules: Required value"
        );
        assert_eq!(
            one(&|s| s["validations"][0]["expression"] = "1".into()),
            r#"spec.validations[0].expression: Invalid value: "1": must evaluate to bool but got int"#
        );
        assert_eq!(
            one(&|s| s["validations"][0]["expression"] = "object.spec.paused".into()),
            r#"spec.validations[0].expression: Invalid value: "object.spec.paused": must evaluate to bool but got dyn"#
        );
        assert_eq!(
            one(&|s| s["validations"][0]["expression"] = "true ||\n false".into()),
            ""
        );
        assert_eq!(
            one(&|s| s["validations"][0]["reason"] = "Unauthorized".into()),
            r#"spec.validations[0].reason: Unsupported value: "Unauthorized": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge""#
        );
        assert_eq!(
            one(&|s| s["validations"][0]["expression"] = "params.a == 1".into()),
            r#"spec.validations[0].expression: Invalid value: "params.a == 1": compilation failed: undeclared reference to 'params' (in container '')"#
        );
        assert_eq!(
            one(&|s| s["validations"][0]["expression"] = "request.nothing == 1".into()),
            r#"spec.validations[0].expression: Invalid value: "request.nothing == 1": compilation failed: undefined field 'nothing'"#
        );
        assert_eq!(
            one(&|s| s["paramKind"] = json!({"apiVersion": "a/b/c", "kind": "K_"})),
            r#"spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c; spec.paramKind.kind: Invalid value: "K_": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"#
        );
        assert_eq!(
            one(&|s| s["variables"] = json!([{"name": "a-b", "expression": "1"}])),
            r#"spec.variables[0].name: Invalid value: "a-b": name is not a valid CEL identifier"#
        );
        // A variable sees those before it, with their types, and no other.
        let variables = json!([
            {"name": "a", "expression": "1"}, {"name": "b", "expression": "variables.a + 1"},
        ]);
        assert_eq!(one(&|s| s["variables"] = variables.clone()), "");
        let variables = json!([
            {"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"},
        ]);
        assert_eq!(
            one(&|s| s["variables"] = variables.clone()),
            r#"spec.variables[0].expression: Invalid value: "variables.b": compilation failed: undefined field 'b'"#
        );
        assert_eq!(
            one(&|s| s["auditAnnotations"] = json!([{"key": "k", "valueExpression": "1"}])),
            r#"spec.auditAnnotations[0].valueExpression: Invalid value: "1": must evaluate to one of [string null_type] but got int"#
        );
    }

    #[test]
    fn bindings() {
        let faults = |spec: Value| {
            let mut errors = Errors::default();
            binding(&json!({"spec": spec}), &mut errors);
            shown(&errors).join("; ")
        };
        assert_eq!(
            faults(json!({"policyName": "p", "validationActions": ["Deny"]})),
            ""
        );
        assert_eq!(
            faults(json!({})),
            "spec.policyName: Required value; spec.validationActions: Required value: at least one validation action is required"
        );
        assert!(
            faults(json!({"policyName": "p", "validationActions": ["Deny", "Warn"]}))
                .contains("must not contain both Deny and Warn")
        );
        assert_eq!(
            faults(
                json!({"policyName": "p", "validationActions": ["Audit"], "paramRef": {"name": "n", "selector": {}}})
            ),
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive; spec.paramRef.selector: Forbidden: name and selector are mutually exclusive; spec.paramRef.parameterNotFoundAction: Required value"
        );
    }
}
