use super::super::{AUTHENTICATED, NODES};
use super::*;
use rhumb_api::json::text;
use rhumb_api::rbac::Policy;

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
        match resource {
            "persistentvolumes" | "volumeattachments" => (node, name) == ("n1", "used"),
            _ => (node, namespace, name) == ("n1", "a", "used"),
        }
    }
}

/// A cluster as it is after its first start.
fn authorizer() -> Authorizer {
    let mut policy = Policy::default();
    let objects = [
        ("clusterroles", bootstrap::cluster_roles()),
        ("clusterrolebindings", bootstrap::cluster_role_bindings()),
    ];
    for (plural, objects) in objects {
        for object in &objects {
            policy.put(plural, "", text(object, "metadata.name"), Some(object));
        }
    }
    Authorizer {
        rbac: Rbac::of(policy),
        lookup: Arc::new(Cluster),
        node_rules: bootstrap::node_rules(),
    }
}

/// "verb resource[.group] [namespace/]name [field=value]"
fn ask(authorizer: &Authorizer, user: &User, asked: &str) -> Decision {
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
        name: field("metadata.name").unwrap_or(name),
        node_field: field("spec.nodeName"),
    };
    authorizer.resource(user, &attributes)
}

fn check(user: User, yes: &[&str], no: &[&str]) {
    let authorizer = authorizer();
    for asked in yes {
        assert!(
            ask(&authorizer, &user, asked).allowed,
            "{} may {asked}",
            user.name
        );
    }
    for asked in no {
        assert!(
            !ask(&authorizer, &user, asked).allowed,
            "{} may not {asked}",
            user.name
        );
    }
}

fn of_pod(namespace: &str, name: &str, pod: &str) -> User {
    User::service_account(namespace, name).with_extra("authentication.kubernetes.io/pod-name", pod)
}

#[test]
fn nobody_may_anything_by_default() {
    for user in [
        User::anonymous(),
        User::named("jane", vec!["dev".into()]),
        of_pod("a", "default", "mine"),
        // The name alone makes no kubelet, the group alone neither.
        User::named("system:node:n1", vec![]),
        User::named("jane", vec![NODES.into()]),
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
                "create subjectaccessreviews.authorization.k8s.io",
                "impersonate users root",
            ],
        );
    }
}

#[test]
fn masters_may_everything() {
    let admin = User::named("kubernetes-admin", vec![MASTERS.into()]);
    assert!(authorizer().path(&admin, "get", "/metrics").allowed);
    check(admin, &["delete secrets a/x", "create pods/exec a/x"], &[]);
}

#[test]
fn kubelets_keep_to_their_node() {
    check(
        User::named("system:node:n1", vec![NODES.into()]),
        &[
            "create nodes",
            "get nodes n1",
            "patch nodes/status n1",
            "list nodes / metadata.name=n1",
            "list pods / spec.nodeName=n1",
            "watch pods / spec.nodeName=n1",
            "get pods a/mine",
            // Which pods, is for admission to say.
            "delete pods a/mine",
            "create pods a/",
            "patch pods/status a/mine",
            "create pods/eviction a/mine",
            "get secrets a/used",
            "watch secrets a/ metadata.name=used",
            "get persistentvolumeclaims a/used",
            "update persistentvolumeclaims/status a/used",
            "get persistentvolumes used",
            "get volumeattachments.storage.k8s.io used",
            "create serviceaccounts/token a/used",
            "update leases.coordination.k8s.io kube-node-lease/n1",
            "create leases.coordination.k8s.io kube-node-lease/",
            "create csinodes.storage.k8s.io",
            "patch csinodes.storage.k8s.io n1",
            "create events a/",
            "create events.events.k8s.io a/",
            "list services /",
            "list runtimeclasses.node.k8s.io",
            "create certificatesigningrequests.certificates.k8s.io",
            "create tokenreviews.authentication.k8s.io",
            "create certificatesigningrequests/selfnodeclient.certificates.k8s.io",
        ],
        &[
            "get nodes n2",
            "delete nodes n1",
            "list nodes /",
            "list pods /",
            "list pods / spec.nodeName=n2",
            "get pods a/other",
            "patch pods a/mine",
            "create pods/exec a/mine",
            "get secrets a/unused",
            "get secrets b/used",
            "list secrets a/",
            "list secrets / metadata.name=used",
            "create secrets a/",
            "list persistentvolumeclaims a/",
            "update persistentvolumeclaims a/used",
            "get persistentvolumes unused",
            "create serviceaccounts/token a/unused",
            "get serviceaccounts a/used",
            "update leases.coordination.k8s.io kube-node-lease/n2",
            "update leases.coordination.k8s.io kube-system/n1",
            "list leases.coordination.k8s.io kube-node-lease/",
            "patch csinodes.storage.k8s.io n2",
            "approve signers.certificates.k8s.io kubernetes.io/kubelet-serving",
        ],
    );
    let kubelet = User::named("system:node:n1", vec![NODES.into()]);
    let authorizer = authorizer();
    assert_eq!(
        ask(&authorizer, &kubelet, "get secrets a/unused").reason,
        "no relationship found between node 'n1' and this object"
    );
    assert!(!authorizer.rules_for(&kubelet, "a").faults.is_empty());
}

#[test]
fn agents_read_the_network_and_write_their_node() {
    let yes = [
        "list pods /",
        "watch endpointslices.discovery.k8s.io /",
        "list networkpolicies.networking.k8s.io /",
        "patch nodes n1",
        "patch pods a/mine",
        "patch pods/status a/mine",
        "create events a/",
    ];
    let no = [
        "list secrets /",
        "list configmaps /",
        "patch nodes n2",
        "patch pods a/other",
        "update pods a/mine",
        "delete pods a/mine",
        "patch pods/status a/other",
        "update pods/status a/mine",
    ];
    let agent = User::named("system:rhumb-agent:n1", vec![AGENTS.into()]);
    check(agent, &yes, &no);
    check(of_pod("kube-system", "rhumb-agent", "agent-n1"), &yes, &no);
    check(
        User::service_account("kube-system", "rhumb-agent"),
        &["list pods /"],
        &["patch nodes n1", "patch pods a/mine"],
    );
    check(
        of_pod("other", "rhumb-agent", "agent-n1"),
        &[],
        &["list pods /", "patch nodes n1"],
    );
}

#[test]
fn components() {
    check(
        User::named("system:kube-scheduler", vec![]),
        &["list pods /", "create pods/binding a/x", "create events a/"],
        &["list secrets /", "create pods a/"],
    );
    check(
        User::named("system:kube-controller-manager", vec![]),
        &[
            "create pods a/",
            "list secrets /",
            "update deployments/status.apps a/x",
            "update namespaces/finalize x",
            "deletecollection configmaps a/",
            "delete things.example.com a/x",
        ],
        &[
            "create pods/exec a/x",
            "create nodes",
            "impersonate users x",
        ],
    );
}

#[test]
fn paths() {
    let authorizer = authorizer();
    let path = |user: &User, verb: &str, path: &str| authorizer.path(user, verb, path).allowed;
    let anonymous = User::anonymous();
    let pod = User::service_account("a", "default");
    for open in ["/healthz", "/readyz", "/livez", "/version"] {
        assert!(path(&anonymous, "get", open), "{open}");
    }
    for closed in [
        "/api",
        "/apis/apps/v1",
        "/openapi/v3",
        "/metrics",
        "/",
        "/readyz/ping",
    ] {
        assert!(!path(&anonymous, "get", closed), "{closed}");
    }
    for open in [
        "/api",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v2",
        "/openid/v1/jwks",
    ] {
        assert!(path(&pod, "get", open), "{open}");
    }
    for closed in ["/metrics", "/", "/apisx"] {
        assert!(!path(&pod, "get", closed), "{closed}");
    }
    assert!(!path(&pod, "post", "/api"));
    let jane = User::named("jane", vec![]);
    assert!(jane.is_in(AUTHENTICATED));
    assert!(!path(&jane, "get", "/openid/v1/jwks"));
}
