//! Rows of roles and bindings.

use serde_json::Value;

use super::{AGE, Column, NAME, Now, age, col, name, wide};
use crate::json::{list, text};

pub const ROLE: &[Column] = &[NAME, col("Created At", "string", super::AGE.description)];

pub fn role(o: &Value, _: Now) -> Vec<Value> {
    vec![name(o), text(o, "metadata.creationTimestamp").into()]
}

pub const BINDING: &[Column] = &[
    NAME,
    col(
        "Role",
        "string",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace.",
    ),
    AGE,
    wide("Users", "string", "Users in the binding."),
    wide("Groups", "string", "Groups in the binding."),
    wide(
        "ServiceAccounts",
        "string",
        "ServiceAccounts in the binding.",
    ),
];

pub fn binding(o: &Value, now: Now) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names: Vec<String> = list(o, "subjects")
            .iter()
            .filter(|s| text(s, "kind") == kind)
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", text(s, "namespace"), text(s, "name")),
                _ => text(s, "name").to_string(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    let role = format!("{}/{}", text(o, "roleRef.kind"), text(o, "roleRef.name"));
    vec![
        name(o),
        role.into(),
        age(o, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
