//! Role-based access control, pure: what a rule matches, which rules a user has, whether a set of
//! rules covers another, and the roles that every cluster has.
//! Source: Kubernetes `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac`.

mod aggregate;
pub mod bootstrap;
mod bootstrap_roles;
mod cover;
mod policy;
mod reconcile;

use serde_json::{Value, json};

use crate::json::{list, text};

pub use aggregate::{aggregated, is_aggregated};
pub use cover::{covers, escalation, full_authority};
pub use policy::{Decision, Policy, Source, Subject};
pub use reconcile::{reconcile_binding, reconcile_role};

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// One `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    /// `nonResourceURLs`
    pub urls: Vec<String>,
}

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    Path {
        verb: &'a str,
        path: &'a str,
    },
}

impl Action<'_> {
    pub fn namespace(&self) -> &str {
        match self {
            Action::Resource { namespace, .. } => namespace,
            Action::Path { .. } => "",
        }
    }
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    list(value, field)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect()
}

fn has(set: &[String], wanted: &str) -> bool {
    set.iter().any(|entry| entry == wanted)
}

fn has_or_all(set: &[String], wanted: &str) -> bool {
    set.iter().any(|entry| entry == "*" || entry == wanted)
}

impl Rule {
    pub fn from_value(rule: &Value) -> Rule {
        Rule {
            verbs: texts(rule, "verbs"),
            groups: texts(rule, "apiGroups"),
            resources: texts(rule, "resources"),
            names: texts(rule, "resourceNames"),
            urls: texts(rule, "nonResourceURLs"),
        }
    }

    /// The `rules` of a Role or ClusterRole.
    pub fn all_of(role: &Value) -> Vec<Rule> {
        list(role, "rules").iter().map(Rule::from_value).collect()
    }

    /// The JSON form, without what is empty.
    pub fn to_value(&self) -> Value {
        let mut value = json!({});
        for (field, texts) in [
            ("apiGroups", &self.groups),
            ("nonResourceURLs", &self.urls),
            ("resourceNames", &self.names),
            ("resources", &self.resources),
            ("verbs", &self.verbs),
        ] {
            if !texts.is_empty() {
                value[field] = texts.clone().into();
            }
        }
        value
    }

    pub fn allows(&self, action: &Action<'_>) -> bool {
        match action {
            Action::Resource {
                verb,
                group,
                resource,
                subresource,
                name,
                ..
            } => {
                has_or_all(&self.verbs, verb)
                    && has_or_all(&self.groups, group)
                    && self.names_resource(resource, subresource)
                    && (self.names.is_empty() || has(&self.names, name))
            }
            Action::Path { verb, path } => has_or_all(&self.verbs, verb) && self.names_path(path),
        }
    }

    /// `*`, `pods`, `pods/log` and `*/scale`.
    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|entry| {
            if entry == "*" {
                return true;
            }
            match (entry.split_once('/'), subresource) {
                (None, "") => entry == resource,
                (Some((of, sub)), wanted) if !wanted.is_empty() => {
                    sub == wanted && (of == "*" || of == resource)
                }
                _ => false,
            }
        })
    }

    fn names_path(&self, path: &str) -> bool {
        self.urls.iter().any(|url| url_covers(url, path))
    }
}

/// Whether a URL of a rule names a path, or all that another URL of a rule names. Only a `*` at
/// the end stands for anything.
fn url_covers(url: &str, path: &str) -> bool {
    url == path || (url.ends_with('*') && path.starts_with(url.trim_end_matches('*')))
}

/// Whether a binding's subject is the user. `namespace` is the binding's.
pub(crate) fn is_subject(subject: &Value, user: &Subject<'_>, namespace: &str) -> bool {
    let name = text(subject, "name");
    match text(subject, "kind") {
        "User" => user.name == name,
        "Group" => user.groups.iter().any(|g| g == name),
        "ServiceAccount" => {
            let of = match text(subject, "namespace") {
                "" => namespace,
                of => of,
            };
            !of.is_empty()
                && user
                    .name
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'))
                    == Some((of, name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let split = |s: &str| {
            s.split_whitespace()
                .map(|w| if w == "core" { "" } else { w }.to_string())
                .collect()
        };
        Rule {
            verbs: split(verbs),
            groups: split(groups),
            resources: split(resources),
            names: split(names),
            urls: vec![],
        }
    }

    /// "verb group resource[/sub] [name]"
    fn ask(rule: &Rule, asked: &str) -> bool {
        let words: Vec<&str> = asked.split(' ').collect();
        let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
        rule.allows(&Action::Resource {
            verb: words[0],
            group: if words[1] == "core" { "" } else { words[1] },
            resource,
            subresource,
            namespace: "ns",
            name: words.get(3).copied().unwrap_or(""),
        })
    }

    #[test]
    fn resource_rules() {
        // Rule; what it allows; what not.
        let table: &[(Rule, &[&str], &[&str])] = &[
            (
                rule("get list", "core", "pods", ""),
                &["get core pods a", "list core pods"],
                &[
                    "watch core pods",
                    "get apps pods a",
                    "get core pods/log a",
                    "get core podss a",
                ],
            ),
            (
                rule("*", "*", "*", ""),
                &[
                    "delete apps deployments x",
                    "get core pods/log a",
                    "use g r",
                ],
                &[],
            ),
            (
                rule("update", "*", "*/scale", ""),
                &["update apps deployments/scale x", "update g any/scale"],
                &[
                    "update apps deployments x",
                    "update apps deployments/status x",
                    "update g a/b",
                ],
            ),
            (
                rule("get", "core", "pods/log", ""),
                &["get core pods/log a"],
                &["get core pods a", "get core services/log a"],
            ),
            (
                rule("get update", "core", "configmaps", "a b"),
                &["get core configmaps a", "update core configmaps b"],
                // A list or a create has no name, so no rule with names allows it.
                &["get core configmaps c", "get core configmaps"],
            ),
            (rule("get", "core", "*/*", ""), &[], &["get core pods a"]),
            (rule("get", "", "pods", ""), &[], &["get core pods a"]),
            (rule("get", "core", "", ""), &[], &["get core pods a"]),
        ];
        for (rule, yes, no) in table {
            for asked in *yes {
                assert!(ask(rule, asked), "{rule:?} allows {asked}");
            }
            for asked in *no {
                assert!(!ask(rule, asked), "{rule:?} does not allow {asked}");
            }
            let path = Action::Path {
                verb: "get",
                path: "/healthz",
            };
            assert!(!rule.allows(&path), "{rule:?} is about resources");
        }
    }

    #[test]
    fn path_rules() {
        let of = |urls: &[&str]| Rule {
            verbs: vec!["get".into()],
            urls: urls.iter().map(|u| u.to_string()).collect(),
            ..Default::default()
        };
        for (urls, path, allowed) in [
            (&["/healthz"][..], "/healthz", true),
            (&["/healthz"], "/healthz/", false),
            (&["/healthz"], "/healthz/ping", false),
            (&["/healthz/*"], "/healthz/ping", true),
            (&["/healthz/*"], "/healthz", false),
            (&["/api*"], "/apis/apps", true),
            (&["*"], "/anything", true),
            (&["/a/*/b"], "/a/x/b", false),
            (&["/x", "/y"], "/y", true),
            (&[], "/", false),
        ] {
            let action = Action::Path { verb: "get", path };
            assert_eq!(of(urls).allows(&action), allowed, "{urls:?} {path}");
            let post = Action::Path { verb: "post", path };
            assert!(!of(urls).allows(&post));
        }
        let all = rule("*", "*", "*", "");
        assert!(!all.allows(&Action::Path {
            verb: "get",
            path: "/"
        }));
    }

    #[test]
    fn rules_keep_their_form() {
        let value = json!({"apiGroups": [""], "resourceNames": ["a"], "resources": ["pods"],
                           "verbs": ["get"]});
        assert_eq!(Rule::from_value(&value).to_value(), value);
        assert_eq!(Rule::from_value(&json!(7)), Rule::default());
    }
}
