//! Webhook configurations and admission policies.

use serde_json::Value;

use super::{AGE, Column, NAME, Now, age, col, name};
use crate::json::{at, list, text};
use crate::selector::LabelSelector;

pub const WEBHOOKS: &[Column] = &[
    NAME,
    col(
        "Webhooks",
        "integer",
        "Webhooks indicates the number of webhooks registered in this configuration",
    ),
    AGE,
];
pub fn webhooks(o: &Value, now: Now) -> Vec<Value> {
    vec![name(o), list(o, "webhooks").len().into(), age(o, now)]
}

pub const POLICY: &[Column] = &[
    NAME,
    col(
        "Validations",
        "integer",
        "Validations indicates the number of validation rules defined in this configuration",
    ),
    col(
        "ParamKind",
        "string",
        "ParamKind specifies the kind of resources used to parameterize this policy",
    ),
    AGE,
];
pub fn policy(o: &Value, now: Now) -> Vec<Value> {
    let kind = match at(o, "spec.paramKind") {
        Some(kind) => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
        None => UNSET.into(),
    };
    let validations = list(o, "spec.validations").len();
    vec![name(o), validations.into(), kind.into(), age(o, now)]
}

const UNSET: &str = "<unset>";

pub const BINDING: &[Column] = &[
    NAME,
    col(
        "PolicyName",
        "string",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    col(
        "ParamRef",
        "string",
        "ParamRef indicates the param resource which sets the configration param",
    ),
    AGE,
];
pub fn binding(o: &Value, now: Now) -> Vec<Value> {
    let param = at(o, "spec.paramRef").map(|param| match text(param, "name") {
        "" => LabelSelector::from_object(at(param, "selector")).to_string(),
        name => match text(param, "namespace") {
            "" => format!("*/{name}"),
            namespace => format!("{namespace}/{name}"),
        },
    });
    vec![
        name(o),
        text(o, "spec.policyName").into(),
        param.unwrap_or_else(|| UNSET.into()).into(),
        age(o, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_and_bindings() {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let row = |cells: Vec<Value>| Value::from(cells[..3].to_vec());
        let made = json!({"metadata": {"name": "p"}, "spec": {
            "validations": [{}, {}], "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}});
        assert_eq!(row(policy(&made, now)), json!(["p", 2, "v1/ConfigMap"]));
        let bound = |param: Value| {
            let made =
                json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "paramRef": param}});
            row(binding(&made, now))
        };
        assert_eq!(bound(Value::Null), json!(["b", "p", "<unset>"]));
        assert_eq!(bound(json!({"name": "n"})), json!(["b", "p", "*/n"]));
        assert_eq!(
            bound(json!({"name": "n", "namespace": "a"})),
            json!(["b", "p", "a/n"])
        );
        assert_eq!(
            bound(json!({"selector": {"matchLabels": {"a": "b"}}})),
            json!(["b", "p", "a=b"])
        );
    }
}
