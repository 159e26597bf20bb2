//! Webhooks, and what policies have in common with them: rules, selectors, conditions' names.
//! Source: Kubernetes `pkg/apis/admissionregistration/validation`, apiserver `pkg/util/webhook`.

use std::collections::HashSet;

use serde_json::Value;

use super::metadata::{
    dns1035_label_faults, dns1123_subdomain_faults, invalid_each, qualified_name_faults,
};
use super::{one_of, port_number, selector};
use crate::admission::dynamic::expression::Environment;
use crate::json::{at, int, list, text};
use crate::status::Errors;

const VERSIONS: &[&str] = &["v1", "v1beta1"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MAX_CONDITIONS: usize = 64;

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];

pub fn validating(configuration: &Value, errors: &mut Errors) {
    webhooks(configuration, false, errors);
}

pub fn mutating(configuration: &Value, errors: &mut Errors) {
    webhooks(configuration, true, errors);
}

fn webhooks(configuration: &Value, mutating: bool, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (i, hook) in list(configuration, "webhooks").iter().enumerate() {
        let path = format!("webhooks[{i}]");
        webhook(hook, &path, mutating, errors);
        review_versions(hook, &path, errors);
        let name = text(hook, "name");
        if !name.is_empty() && !names.insert(name) {
            errors.duplicate(&format!("{path}.name"), name);
        }
    }
}

fn webhook(hook: &Value, path: &str, mutating: bool, errors: &mut Errors) {
    let at_field = |field: &str| format!("{path}.{field}");
    fully_qualified(&at_field("name"), text(hook, "name"), errors);
    for (i, rule) in list(hook, "rules").iter().enumerate() {
        operations_rule(rule, &at_field(&format!("rules[{i}]")), errors);
    }
    if let Some(policy) = at(hook, "failurePolicy").and_then(Value::as_str) {
        one_of(&at_field("failurePolicy"), policy, FAILURE_POLICIES, errors);
    }
    match_policy(hook, path, errors);
    let side_effects = &["None", "NoneOnDryRun"];
    match text(hook, "sideEffects") {
        "" => errors.required(
            &at_field("sideEffects"),
            "must specify one of None, NoneOnDryRun",
        ),
        given => one_of(&at_field("sideEffects"), given, side_effects, errors),
    }
    if let Some(seconds) = int(hook, "timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
        errors.invalid(
            &at_field("timeoutSeconds"),
            seconds,
            "the timeout value must be between 1 and 30 seconds",
        );
    }
    selectors(hook, path, errors);
    if mutating && let Some(policy) = at(hook, "reinvocationPolicy").and_then(Value::as_str) {
        let policies = &["IfNeeded", "Never"];
        one_of(&at_field("reinvocationPolicy"), policy, policies, errors);
    }
    let client = at_field("clientConfig");
    let url = at(hook, "clientConfig.url").and_then(Value::as_str);
    match (url, at(hook, "clientConfig.service")) {
        (Some(url), None) => webhook_url(&format!("{client}.url"), url, errors),
        (None, Some(service)) => webhook_service(&format!("{client}.service"), service, errors),
        _ => errors.required(&client, "exactly one of url or service is required"),
    }
    condition_names(hook, path, errors);
    let environment = Environment::of_webhook();
    super::admission_policy::conditions(hook, path, &environment, errors);
}

fn fully_qualified(path: &str, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let faults = dns1123_subdomain_faults(name);
    if faults.is_empty() && name.split('.').count() < 3 {
        errors.invalid(
            path,
            name,
            "should be a domain with at least three segments separated by dots",
        );
    }
    invalid_each(path, name, faults, errors);
}

pub(super) fn match_policy(value: &Value, path: &str, errors: &mut Errors) {
    if let Some(policy) = at(value, "matchPolicy").and_then(Value::as_str) {
        one_of(
            &format!("{path}.matchPolicy"),
            policy,
            MATCH_POLICIES,
            errors,
        );
    }
}

pub(super) fn selectors(value: &Value, path: &str, errors: &mut Errors) {
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(found) = at(value, field) {
            selector::label_selector(&format!("{path}.{field}"), found, errors);
        }
    }
}

fn strings<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    let values = list(value, field).iter();
    values.map(|v| v.as_str().unwrap_or("")).collect()
}

/// A `RuleWithOperations`.
pub(super) fn operations_rule(rule: &Value, path: &str, errors: &mut Errors) {
    let all = |field: &str, what: &str, errors: &mut Errors| {
        let (path, given) = (format!("{path}.{field}"), strings(rule, field));
        if given.is_empty() {
            errors.required(&path, "");
        }
        if given.len() > 1 && given.contains(&"*") {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.invalid(&path, given, why);
        }
    };
    all("operations", "operations", errors);
    for (i, operation) in strings(rule, "operations").into_iter().enumerate() {
        one_of(
            &format!("{path}.operations[{i}]"),
            operation,
            OPERATIONS,
            errors,
        );
    }
    all("apiGroups", "API groups", errors);
    all("apiVersions", "API versions", errors);
    for (i, version) in strings(rule, "apiVersions").into_iter().enumerate() {
        if version.is_empty() {
            errors.required(&format!("{path}.apiVersions[{i}]"), "");
        }
    }
    rule_resources(rule, &format!("{path}.resources"), errors);
    if let Some(scope) = at(rule, "scope").and_then(Value::as_str) {
        let scopes = &["*", "Cluster", "Namespaced"];
        one_of(&format!("{path}.scope"), scope, scopes, errors);
    }
}

fn rule_resources(rule: &Value, path: &str, errors: &mut Errors) {
    let given = strings(rule, "resources");
    if given.is_empty() {
        errors.required(path, "");
    }
    // `pods/*` and `*/status`, as far as they came.
    let (mut of_resource, mut of_subresource) = (HashSet::new(), HashSet::new());
    for (i, one) in given.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if one.is_empty() {
            errors.required(&path, "");
        }
        let Some((resource, subresource)) = one.split_once('/') else {
            continue;
        };
        let mut clash = |with: String| {
            let why = format!("if '{with}' is present, must not specify {one}");
            errors.invalid(&path, *one, why);
        };
        if of_resource.contains(resource) {
            clash(format!("{resource}/*"));
        }
        if of_subresource.contains(subresource) {
            clash(format!("*/{subresource}"));
        }
        if subresource == "*" {
            of_resource.insert(resource);
        }
        if resource == "*" {
            of_subresource.insert(subresource);
        }
    }
    if given.len() > 1 && given.contains(&"*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.invalid(path, given.clone(), why);
    }
    let mut whole = given.iter().filter(|r| !r.is_empty() && !r.contains('/'));
    let bare = whole.next_back().is_some_and(|r| *r != "*");
    // As Kubernetes has it: only the last of them says whether there is one without a subresource.
    if given.contains(&"*") && bare {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, given, why);
    }
}

fn review_versions(hook: &Value, path: &str, errors: &mut Errors) {
    let path = format!("{path}.admissionReviewVersions");
    let given = strings(hook, "admissionReviewVersions");
    let known = VERSIONS.join(", ");
    if given.is_empty() {
        errors.required(&path, &format!("must specify one of {known}"));
        return;
    }
    for (i, version) in given.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if given[..i].contains(version) {
            errors.invalid(&path, *version, "duplicate version");
            continue;
        }
        invalid_each(&path, version, dns1035_label_faults(version), errors);
    }
    if !given.iter().any(|v| VERSIONS.contains(v)) {
        let why = format!("must include at least one of {known}");
        errors.invalid(&path, given, why);
    }
}

const FORM: &str = "; desired format: https://host[/path]";

fn webhook_url(path: &str, url: &str, errors: &mut Errors) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = rest.split('/').next().unwrap_or("");
    let (user, host) = match (scheme, authority.rsplit_once('@')) {
        // Without a scheme it is all path.
        ("", _) => (None, ""),
        (_, Some((user, host))) => (Some(user), host),
        (_, None) => (None, authority),
    };
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.invalid(path, scheme, why);
    }
    if host.is_empty() {
        errors.invalid(path, host, format!("host must be specified{FORM}"));
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let why =
            format!("url must be a valid URL: parse {url:?}: net/url: invalid character{FORM}");
        errors.required(path, &why);
    }
    if let Some(user) = user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

/// Also of the conversion of custom kinds.
pub fn webhook_service(path: &str, service: &Value, errors: &mut Errors) {
    if text(service, "name").is_empty() {
        errors.required(&format!("{path}.name"), "service name is required");
    }
    if text(service, "namespace").is_empty() {
        errors.required(
            &format!("{path}.namespace"),
            "service namespace is required",
        );
    }
    let mut ports = Errors::default();
    port_number("", int(service, "port").unwrap_or(443), &mut ports);
    for fault in ports.0 {
        let why = format!("port is not valid: {}", fault.detail);
        errors.invalid(&format!("{path}.port"), fault.value, why);
    }
    let url_path = text(service, "path");
    if matches!(url_path, "" | "/") {
        return;
    }
    let path = format!("{path}.path");
    if url_path == "//" {
        errors.invalid(&path, url_path, "segment[0] may not be empty");
    }
    let Some(inside) = url_path.strip_prefix('/') else {
        errors.invalid(&path, url_path, "must start with a '/'");
        return;
    };
    let inside = inside.strip_suffix('/').unwrap_or(inside);
    for (i, segment) in inside.split('/').enumerate() {
        if segment.is_empty() {
            let why = format!("segment[{i}] may not be empty");
            errors.invalid(&path, url_path, why);
            continue;
        }
        for fault in dns1123_subdomain_faults(segment) {
            errors.invalid(&path, url_path, format!("segment[{i}]: {fault}"));
        }
    }
}

/// The names of `matchConditions`.
pub(super) fn condition_names(value: &Value, path: &str, errors: &mut Errors) {
    let path = format!("{path}.matchConditions");
    let conditions = list(value, "matchConditions");
    if conditions.len() > MAX_CONDITIONS {
        errors.too_many(&path, conditions.len(), MAX_CONDITIONS);
    }
    let mut names = HashSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("{path}[{i}].name");
        let name = text(condition, "name");
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        invalid_each(&path, name, qualified_name_faults(name), errors);
        if !names.insert(name) {
            errors.duplicate(&path, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut hook = json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://h/p"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        });
        change(&mut hook);
        let mut errors = Errors::default();
        mutating(&json!({"webhooks": [hook]}), &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_webhook() {
        assert_eq!(faults(|_| {}), [""; 0]);
        assert_eq!(
            faults(|h| h["name"] = "a.b".into()),
            [
                r#"webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots"#
            ]
        );
        assert_eq!(
            faults(|h| h["sideEffects"] = "Some".into()),
            [
                r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#
            ]
        );
        assert_eq!(
            faults(|h| h["timeoutSeconds"] = 31.into()),
            [
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"
            ]
        );
        assert_eq!(
            faults(|h| h["clientConfig"]["service"] = json!({})),
            ["webhooks[0].clientConfig: Required value: exactly one of url or service is required"]
        );
        assert_eq!(
            faults(|h| h["admissionReviewVersions"] = json!(["v2"])),
            [
                r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#
            ]
        );
        assert_eq!(
            faults(
                |h| h["matchConditions"] = json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}])
            ),
            [r#"webhooks[0].matchConditions[1].name: Duplicate value: "a""#]
        );
    }

    #[test]
    fn addresses() {
        let url = |url: &str| faults(|h| h["clientConfig"]["url"] = url.into()).join("; ");
        assert_eq!(
            url("http://h/p"),
            format!(
                r#"webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme{FORM}"#
            )
        );
        assert!(url("https:///p").contains("host must be specified"));
        assert!(url("https://u:p@h").contains("user information is not permitted"));
        assert!(url("https://h?a=b").contains("query parameters are not permitted"));
        assert!(url("https://h#a").contains("fragments are not permitted"));
        let path = |path: &str| {
            let service = json!({"service": {"name": "s", "namespace": "n", "path": path}});
            faults(|h| h["clientConfig"] = service).join("; ")
        };
        assert_eq!(path("/a/b/"), "");
        assert!(path("a").contains("must start with a '/'"));
        assert!(path("/a//b").contains("segment[1] may not be empty"));
        assert!(path("/A").contains("segment[0]: a lowercase RFC 1123 subdomain"));
    }

    #[test]
    fn rules() {
        let resources = |r: Value| faults(|h| h["rules"][0]["resources"] = r).join("; ");
        assert_eq!(resources(json!(["*", "pods/status"])), "");
        assert!(resources(json!(["*", "pods"])).contains("without subresources"));
        assert!(resources(json!(["*/*", "pods"])).contains("must not specify other resources"));
        assert!(resources(json!(["pods/*", "pods/status"])).contains("if 'pods/*' is present"));
        assert!(resources(json!(["*/status", "pods/status"])).contains("if '*/status' is present"));
        assert!(resources(json!([])).contains("resources: Required value"));
        assert_eq!(
            faults(|h| h["rules"][0]["operations"] = json!(["*", "CREATE"])),
            [
                r#"webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations"#
            ]
        );
        assert_eq!(
            faults(|h| h["rules"][0]["operations"] = json!(["PATCH"])),
            [
                r#"webhooks[0].rules[0].operations[0]: Unsupported value: "PATCH": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE""#
            ]
        );
    }
}
