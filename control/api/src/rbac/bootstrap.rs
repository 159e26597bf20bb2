//! The objects of the table of bootstrap roles, and the rules of it that are not asked of objects.

use serde_json::{Value, json};

use super::bootstrap_roles::{BINDINGS, NODE, ROLES, Role, Row};
use super::{GROUP, Rule};

const LABEL: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// With `"false"` an object is left as it is.
pub const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| if word == "core" { "" } else { word }.to_string())
        .collect()
}

fn rule(row: &Row) -> Rule {
    match row {
        Row::On(verbs, groups, resources) => Rule {
            verbs: words(verbs),
            groups: words(groups),
            resources: words(resources),
            ..Default::default()
        },
        Row::Named(verbs, groups, resources, names) => Rule {
            verbs: words(verbs),
            groups: words(groups),
            resources: words(resources),
            names: words(names),
            ..Default::default()
        },
        Row::Urls(verbs, urls) => Rule {
            verbs: words(verbs),
            urls: words(urls),
            ..Default::default()
        },
    }
}

fn object(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {
            "name": name,
            "labels": {LABEL.0: LABEL.1},
            "annotations": {AUTO_UPDATE: "true"},
        },
    })
}

fn cluster_role(role: &Role) -> Value {
    let mut value = object("ClusterRole", role.name);
    for to in role.to {
        value["metadata"]["labels"][format!("{GROUP}/aggregate-to-{to}")] = "true".into();
    }
    if role.gathers {
        let label = format!("{GROUP}/aggregate-to-{}", role.name);
        value["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        value["rules"] = Value::Null;
    } else {
        value["rules"] = role.rules.iter().map(|row| rule(row).to_value()).collect();
    }
    value
}

/// The ClusterRoles that every cluster has.
pub fn cluster_roles() -> Vec<Value> {
    ROLES.iter().map(cluster_role).collect()
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind {
        "group" => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        "user" => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        _ => {
            let (namespace, name) = name.split_once('/')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    })
}

/// The ClusterRoleBindings that every cluster has.
pub fn cluster_role_bindings() -> Vec<Value> {
    BINDINGS
        .iter()
        .map(|(role, subjects)| {
            let mut value = object("ClusterRoleBinding", role);
            value["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
            let subjects: Vec<Value> = subjects.split_whitespace().filter_map(subject).collect();
            if !subjects.is_empty() {
                value["subjects"] = subjects.into();
            }
            value
        })
        .collect()
}

/// What the node authorizer allows every kubelet, apart from the resources that it looks into.
pub fn node_rules() -> Vec<Rule> {
    NODE.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Decision, Policy, Subject, aggregated};
    use super::*;
    use crate::json::text;

    /// A cluster with the bootstrap objects, aggregated.
    fn policy() -> Policy {
        let mut policy = Policy::default();
        let mut roles = cluster_roles();
        // view, then edit, then admin: each gathers the one before.
        for _ in 0..3 {
            let all = roles.clone();
            for role in &mut roles {
                if let Some(rules) = aggregated(role, &all) {
                    role["rules"] = rules.iter().map(Rule::to_value).collect();
                }
            }
        }
        for role in &roles {
            let name = text(role, "metadata.name");
            policy.put("clusterroles", "", name, Some(role));
        }
        for binding in cluster_role_bindings() {
            let name = text(&binding, "metadata.name");
            policy.put("clusterrolebindings", "", name, Some(&binding));
        }
        policy
    }

    /// `verb group/resource[/sub] [name]`, or `verb /path`; in the namespace "ns".
    fn may(policy: &Policy, user: &str, groups: &[&str], asked: &str) -> bool {
        let words: Vec<&str> = asked.split(' ').collect();
        let groups: Vec<String> = groups.iter().map(|g| g.to_string()).collect();
        let user = Subject {
            name: user,
            groups: &groups,
        };
        let action = match words[1].starts_with('/') {
            true => Action::Path {
                verb: words[0],
                path: words[1],
            },
            false => {
                let mut parts = words[1].split('/');
                let group = parts.next().unwrap_or("");
                Action::Resource {
                    verb: words[0],
                    group: if group == "core" { "" } else { group },
                    resource: parts.next().unwrap_or(""),
                    subresource: parts.next().unwrap_or(""),
                    namespace: "ns",
                    name: words.get(2).copied().unwrap_or(""),
                }
            }
        };
        let Decision { allowed, .. } = policy.decide(&user, &action);
        allowed
    }

    #[test]
    fn who_may_what_from_the_start() {
        let policy = policy();
        let all = &["system:authenticated"][..];
        for (user, groups, asked, allowed) in [
            (
                "root",
                &["system:masters"][..],
                "delete any/thing/at x",
                true,
            ),
            ("root", &["system:masters"], "get /metrics", true),
            ("jane", all, "get /api/v1", true),
            ("jane", all, "get /openapi/v3", true),
            ("jane", all, "get /metrics", false),
            (
                "jane",
                all,
                "create authorization.k8s.io/selfsubjectaccessreviews",
                true,
            ),
            (
                "jane",
                all,
                "create authorization.k8s.io/subjectaccessreviews",
                false,
            ),
            ("jane", all, "get core/pods x", false),
            ("nobody", &["system:unauthenticated"], "get /version", true),
            ("nobody", &["system:unauthenticated"], "get /api", false),
            (
                "system:serviceaccount:a:b",
                &["system:serviceaccounts"],
                "get /openid/v1/jwks",
                true,
            ),
            (
                "system:kube-scheduler",
                &[],
                "create core/pods/binding x",
                true,
            ),
            ("system:kube-scheduler", &[], "get core/secrets x", false),
            ("system:kube-scheduler", &[], "create core/pods", false),
            (
                "system:kube-controller-manager",
                &[],
                "create core/pods",
                true,
            ),
            (
                "system:kube-controller-manager",
                &[],
                "delete my.example/things x",
                true,
            ),
            (
                "system:kube-controller-manager",
                &[],
                "create core/pods/exec x",
                false,
            ),
            (
                "system:kube-controller-manager",
                &[],
                "create rbac.authorization.k8s.io/clusterroles x",
                false,
            ),
            (
                "system:kube-controller-manager",
                &[],
                "escalate rbac.authorization.k8s.io/clusterroles x",
                true,
            ),
            (
                "system:kube-controller-manager",
                &[],
                "impersonate core/users root",
                false,
            ),
            (
                "system:kube-proxy",
                &[],
                "watch discovery.k8s.io/endpointslices",
                true,
            ),
            (
                "system:rhumb-agent:n1",
                &["system:rhumb-agents"],
                "watch networking.k8s.io/networkpolicies",
                true,
            ),
            (
                "system:rhumb-agent:n1",
                &["system:rhumb-agents"],
                "get core/secrets x",
                false,
            ),
            // The node authorizer is for kubelets, and no binding.
            (
                "system:node:n1",
                &["system:nodes"],
                "get core/secrets x",
                false,
            ),
            (
                "system:node:n1",
                &["system:nodes"],
                "create certificates.k8s.io/certificatesigningrequests/selfnodeclient",
                true,
            ),
        ] {
            assert_eq!(may(&policy, user, groups, asked), allowed, "{user} {asked}");
        }
    }

    #[test]
    fn the_roles_for_people() {
        let mut policy = policy();
        for role in ["view", "edit", "admin"] {
            let binding = json!({
                "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": role}],
            });
            policy.put("rolebindings", "ns", role, Some(&binding));
        }
        for (asked, view, edit, admin) in [
            ("list core/pods", true, true, true),
            ("get core/pods/log x", true, true, true),
            ("get core/secrets x", false, true, true),
            ("create apps/deployments", false, true, true),
            ("create core/pods/exec x", false, true, true),
            ("create core/serviceaccounts/token x", false, true, true),
            ("impersonate core/serviceaccounts x", false, true, true),
            ("create rbac.authorization.k8s.io/roles", false, false, true),
            ("get rbac.authorization.k8s.io/roles x", false, false, true),
            ("update core/resourcequotas x", false, false, false),
            ("delete core/nodes x", false, false, false),
        ] {
            for (user, allowed) in [("view", view), ("edit", edit), ("admin", admin)] {
                assert_eq!(may(&policy, user, &[], asked), allowed, "{user} {asked}");
            }
        }
    }

    #[test]
    fn every_binding_has_its_role() {
        for (role, _) in BINDINGS {
            assert!(ROLES.iter().any(|r| r.name == *role), "{role}");
        }
        let roles = cluster_roles();
        let edit = roles.iter().find(|r| text(r, "metadata.name") == "edit");
        let labels = &edit.unwrap()["metadata"]["labels"];
        assert_eq!(
            labels["rbac.authorization.k8s.io/aggregate-to-admin"],
            "true"
        );
        assert_eq!(labels["kubernetes.io/bootstrapping"], "rbac-defaults");
    }
}
