//! What each user may do. Deny is the default; the rules are fixed.

use super::{AGENTS, AUTHENTICATED, MASTERS, User, node};

/// What a request wants, in authorization's terms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// What the field selector requires of `spec.nodeName` and `metadata.name`.
    pub node_field: Option<&'a str>,
    pub name_field: Option<&'a str>,
}

/// What the rules about nodes have to know about the cluster's state.
pub trait Lookup {
    /// The node that a pod is bound to.
    fn node_of(&self, namespace: &str, pod: &str) -> Option<String>;
    /// Whether a pod on the node names this `configmaps`, `secrets` or `serviceaccounts` object.
    fn node_uses(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool;
}

/// Verbs, group, resources (with `/subresource`); `*` is any.
struct Rule {
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];
const EVENT_WRITE: Rule = Rule {
    verbs: &["create", "patch", "update"],
    groups: &["", "events.k8s.io"],
    resources: &["events"],
};

const SCHEDULER: &[Rule] = &[
    Rule {
        verbs: READ,
        groups: &["", "apps"],
        resources: &["pods", "nodes", "namespaces", "services", "replicasets"],
    },
    Rule {
        verbs: &["create"],
        groups: &[""],
        resources: &["pods/binding"],
    },
    Rule {
        verbs: &["patch", "update"],
        groups: &[""],
        resources: &["pods/status"],
    },
    Rule {
        verbs: &["get", "create", "update", "patch"],
        groups: &["coordination.k8s.io"],
        resources: &["leases"],
    },
    EVENT_WRITE,
];

/// The garbage collector and the namespace controller read and delete every kind, and take
/// finalizers and owners off them.
const CONTROLLERS: &[Rule] = &[
    Rule {
        verbs: &[
            "get",
            "list",
            "watch",
            "delete",
            "deletecollection",
            "patch",
            "update",
        ],
        groups: &["*"],
        // Kinds come and go.
        resources: &["*"],
    },
    Rule {
        verbs: &["create"],
        groups: &["*"],
        resources: &[
            "configmaps",
            "endpointslices",
            "leases",
            "pods",
            "replicasets",
            "serviceaccounts",
        ],
    },
    Rule {
        verbs: &["get", "patch", "update"],
        groups: &["*"],
        resources: &[
            "deployments/status",
            "namespaces/status",
            "namespaces/finalize",
            "nodes/status",
            "pods/status",
            "replicasets/status",
            "replicasets/scale",
            "services/status",
        ],
    },
    EVENT_WRITE,
];

const AGENT: &[Rule] = &[
    Rule {
        verbs: READ,
        groups: &["", "discovery.k8s.io", "networking.k8s.io"],
        resources: &[
            "nodes",
            "pods",
            "services",
            "endpointslices",
            "namespaces",
            "networkpolicies",
        ],
    },
    Rule {
        verbs: &["create", "patch"],
        groups: &["", "events.k8s.io"],
        resources: &["events"],
    },
];

fn allowed(rules: &[Rule], attributes: &Attributes<'_>) -> bool {
    let has = |list: &[&str], item: &str| list.iter().any(|entry| *entry == "*" || *entry == item);
    let resource = if attributes.subresource.is_empty() {
        attributes.resource.to_string()
    } else {
        format!("{}/{}", attributes.resource, attributes.subresource)
    };
    rules.iter().any(|rule| {
        has(rule.verbs, attributes.verb)
            && has(rule.groups, attributes.group)
            && (rule.resources.contains(&resource.as_str())
                || (attributes.subresource.is_empty() && rule.resources.contains(&"*")))
    })
}

/// Whether the user may do this to a resource.
pub fn resource(user: &User, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> bool {
    if user.is_in(MASTERS) {
        return true;
    }
    match user.name.as_str() {
        "system:kube-scheduler" if allowed(SCHEDULER, attributes) => return true,
        "system:kube-controller-manager" if allowed(CONTROLLERS, attributes) => return true,
        _ => {}
    }
    if let Some(node) = user.as_node()
        && node::allowed(node, attributes, lookup)
    {
        return true;
    }
    is_agent(user) && (allowed(AGENT, attributes) || agent_writes(user, attributes, lookup))
}

/// An agent by its certificate, or by the service account of its DaemonSet.
pub fn is_agent(user: &User) -> bool {
    user.is_in(AGENTS) || user.as_service_account() == Some(("kube-system", "rhumb-agent"))
}

/// An agent patches its own node and that node's pods (their annotations: see `admit`).
fn agent_writes(user: &User, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> bool {
    let node = match (user.as_agent(), user.as_service_account(), &user.pod) {
        (Some(node), _, _) => node.to_string(),
        (None, Some((namespace, _)), Some(pod)) => match lookup.node_of(namespace, pod) {
            Some(node) => node,
            None => return false,
        },
        _ => return false,
    };
    if attributes.verb != "patch" || !attributes.group.is_empty() {
        return false;
    }
    match (attributes.resource, attributes.subresource) {
        ("nodes", "" | "status") => attributes.name == node,
        ("pods", "") => {
            lookup
                .node_of(attributes.namespace, attributes.name)
                .as_deref()
                == Some(node.as_str())
        }
        _ => false,
    }
}

/// Whether the user may ask for a review: everybody about themselves, but for pods, whose tokens
/// do discovery only; about others, only admins.
pub fn review(user: &User, kind: &str) -> bool {
    let own = kind.starts_with("SelfSubject");
    user.is_in(MASTERS) || (own && user.is_in(AUTHENTICATED) && user.as_service_account().is_none())
}

/// Whether the user may get a path that is no resource.
pub fn path(user: &User, verb: &str, path: &str) -> bool {
    if user.is_in(MASTERS) {
        return true;
    }
    if verb != "get" {
        return false;
    }
    let below = |root: &str| {
        path == root
            || path
                .strip_prefix(root)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let open = ["/healthz", "/livez", "/readyz", "/version"];
    if open.into_iter().any(below) {
        return true;
    }
    user.is_in(AUTHENTICATED) && ["/api", "/apis", "/openapi"].into_iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cluster;
    impl Lookup for Cluster {
        fn node_of(&self, namespace: &str, pod: &str) -> Option<String> {
            match (namespace, pod) {
                ("a", "mine") | ("kube-system", "agent-n1") => Some("n1".into()),
                ("a", "other") => Some("n2".into()),
                _ => None,
            }
        }
        fn node_uses(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
            (node, namespace, resource, name) == ("n1", "a", "secrets", "used")
                || (node, namespace, resource, name) == ("n1", "a", "serviceaccounts", "used")
        }
    }

    /// "verb resource[.group] [namespace/]name [field=value]"
    fn may(user: &User, asked: &str) -> bool {
        let words: Vec<&str> = asked.split(' ').collect();
        let (resource_part, group) = words[1].split_once('.').unwrap_or((words[1], ""));
        let (plural, subresource) = resource_part.split_once('/').unwrap_or((resource_part, ""));
        let place = words.get(2).copied().unwrap_or("");
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let field = |key: &str| {
            words
                .get(3)
                .and_then(|w| w.split_once('='))
                .filter(|(k, _)| *k == key)
                .map(|(_, v)| v)
        };
        let attributes = Attributes {
            verb: words[0],
            group,
            resource: plural,
            subresource,
            namespace,
            name,
            node_field: field("spec.nodeName"),
            name_field: field("metadata.name"),
        };
        resource(user, &attributes, &Cluster)
    }

    fn check(user: User, yes: &[&str], no: &[&str]) {
        for asked in yes {
            assert!(may(&user, asked), "{} may {asked}", user.name);
        }
        for asked in no {
            assert!(!may(&user, asked), "{} may not {asked}", user.name);
        }
    }

    #[test]
    fn nobody_may_anything_by_default() {
        for user in [
            User::anonymous(),
            User::named("jane", vec!["dev".into()]),
            User::service_account("a", "default", Some("mine".into())),
            // The name alone makes no kubelet, the group alone neither.
            User::named("system:node:n1", vec![]),
            User::named("jane", vec![NODES_GROUP.into()]),
        ] {
            check(
                user,
                &[],
                &[
                    "get pods a/mine",
                    "list pods a/",
                    "create pods a/",
                    "get secrets a/used",
                    "get nodes n1",
                    "create serviceaccounts/token a/used",
                ],
            );
        }
    }
    const NODES_GROUP: &str = super::super::NODES;

    #[test]
    fn masters_may_everything() {
        let admin = User::named("kubernetes-admin", vec![MASTERS.into()]);
        assert!(path(&admin, "get", "/metrics"));
        check(admin, &["delete secrets a/x", "create pods/exec a/x"], &[]);
    }

    #[test]
    fn kubelets_keep_to_their_node() {
        check(
            User::named("system:node:n1", vec![NODES_GROUP.into()]),
            &[
                "create nodes",
                "get nodes n1",
                "patch nodes/status n1",
                "list nodes / metadata.name=n1",
                "list pods / spec.nodeName=n1",
                "watch pods / spec.nodeName=n1",
                "get pods a/mine",
                "delete pods a/mine",
                "patch pods/status a/mine",
                "get secrets a/used",
                "create serviceaccounts/token a/used",
                "update leases.coordination.k8s.io kube-node-lease/n1",
                "create leases.coordination.k8s.io kube-node-lease/",
                "create events a/",
                "list services /",
            ],
            &[
                "get nodes n2",
                "patch nodes n2",
                "delete nodes n1",
                "list nodes /",
                "list pods /",
                "list pods / spec.nodeName=n2",
                "get pods a/other",
                "delete pods a/other",
                "patch pods a/mine",
                "patch pods/status a/other",
                "create pods a/",
                "create pods/exec a/mine",
                "get secrets a/unused",
                "get secrets b/used",
                "list secrets a/",
                "create serviceaccounts/token a/unused",
                "update leases.coordination.k8s.io kube-node-lease/n2",
                "update leases.coordination.k8s.io kube-system/n1",
            ],
        );
    }

    #[test]
    fn agents_read_the_network_and_write_their_node() {
        let yes = [
            "list pods /",
            "watch endpointslices.discovery.k8s.io /",
            "list networkpolicies.networking.k8s.io /",
            "patch nodes n1",
            "patch pods a/mine",
            "create events a/",
        ];
        let no = [
            "list secrets /",
            "list configmaps /",
            "patch nodes n2",
            "patch pods a/other",
            "update pods a/mine",
            "delete pods a/mine",
            "patch pods/status a/mine",
        ];
        check(
            User::named("system:rhumb-agent:n1", vec![AGENTS.into()]),
            &yes,
            &no,
        );
        check(
            User::service_account("kube-system", "rhumb-agent", Some("agent-n1".into())),
            &yes,
            &no,
        );
        check(
            User::service_account("kube-system", "rhumb-agent", None),
            &["list pods /"],
            &["patch nodes n1", "patch pods a/mine"],
        );
        check(
            User::service_account("other", "rhumb-agent", Some("agent-n1".into())),
            &[],
            &["list pods /", "patch nodes n1"],
        );
    }

    #[test]
    fn components() {
        check(
            User::named("system:kube-scheduler", vec![]),
            &["list pods /", "create pods/binding a/x", "create events a/"],
            &["list secrets /", "delete pods a/x", "create pods a/"],
        );
        check(
            User::named("system:kube-controller-manager", vec![]),
            &[
                "create pods a/",
                "list secrets /",
                "update deployments/status.apps a/x",
                "update namespaces/finalize x",
                "deletecollection configmaps a/",
            ],
            &["create secrets a/", "create pods/exec a/x", "create nodes"],
        );
    }

    #[test]
    fn paths() {
        let anonymous = User::anonymous();
        let pod = User::service_account("a", "default", None);
        for open in ["/healthz", "/readyz/ping", "/livez", "/version"] {
            assert!(path(&anonymous, "get", open), "{open}");
        }
        for closed in [
            "/api",
            "/apis/apps/v1",
            "/openapi/v3",
            "/metrics",
            "/",
            "/versions",
        ] {
            assert!(!path(&anonymous, "get", closed), "{closed}");
        }
        for open in ["/api", "/api/v1", "/apis/apps/v1", "/openapi/v2"] {
            assert!(path(&pod, "get", open), "{open}");
        }
        for closed in ["/metrics", "/", "/apisx"] {
            assert!(!path(&pod, "get", closed), "{closed}");
        }
        assert!(!path(&pod, "post", "/api"));
    }
}
