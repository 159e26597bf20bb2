//! The ClusterRoles and ClusterRoleBindings that every cluster has, as a table.
//! Source: Kubernetes `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`; the roles of our own
//! components stand at the end.
//!
//! Words are separated by spaces; the core group is written `core`.

/// One rule.
pub(super) enum Row {
    /// Verbs, groups, resources.
    On(&'static str, &'static str, &'static str),
    /// Verbs, group, resource, names.
    Named(&'static str, &'static str, &'static str, &'static str),
    /// Verbs, paths.
    Urls(&'static str, &'static str),
}
use Row::{Named, On, Urls};

pub(super) struct Role {
    pub name: &'static str,
    /// The roles that gather this one: `aggregate-to-…` labels.
    pub to: &'static [&'static str],
    /// Gathers the roles with the label `aggregate-to-<own name>`.
    pub gathers: bool,
    pub rules: &'static [Row],
}

const fn role(name: &'static str, rules: &'static [Row]) -> Role {
    Role {
        name,
        to: &[],
        gathers: false,
        rules,
    }
}

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const EVENTS: Row = On("create patch update", "core events.k8s.io", "events");

pub(super) const ROLES: &[Role] = &[
    role("cluster-admin", &[On("*", "*", "*"), Urls("*", "*")]),
    role(
        "system:discovery",
        &[Urls(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    role(
        "system:monitoring",
        &[Urls(
            "get",
            "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
        )],
    ),
    role(
        "system:basic-user",
        &[
            On(
                "create",
                "authorization.k8s.io",
                "selfsubjectaccessreviews selfsubjectrulesreviews",
            ),
            On("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    role(
        "system:public-info-viewer",
        &[Urls("get", "/healthz /livez /readyz /version /version/")],
    ),
    Role {
        name: "admin",
        to: &[],
        gathers: true,
        rules: &[],
    },
    Role {
        name: "edit",
        to: &["admin"],
        gathers: true,
        rules: &[],
    },
    Role {
        name: "view",
        to: &["edit"],
        gathers: true,
        rules: &[],
    },
    Role {
        name: "system:aggregate-to-admin",
        to: &["admin"],
        gathers: false,
        rules: &[
            On(
                "create",
                "authorization.k8s.io",
                "localsubjectaccessreviews",
            ),
            On(
                READ_WRITE,
                "rbac.authorization.k8s.io",
                "rolebindings roles",
            ),
        ],
    },
    Role {
        name: "system:aggregate-to-edit",
        to: &["edit"],
        gathers: false,
        rules: &[
            On(
                READ,
                "core",
                "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
            ),
            On("impersonate", "core", "serviceaccounts"),
            On(
                WRITE,
                "core",
                "pods pods/attach pods/exec pods/portforward pods/proxy",
            ),
            On("create", "core", "pods/eviction"),
            On(
                WRITE,
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers \
                 replicationcontrollers/scale secrets serviceaccounts services services/proxy",
            ),
            On("create", "core", "serviceaccounts/token"),
            On(
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets \
                 replicasets/scale statefulsets statefulsets/scale",
            ),
            On(WRITE, "autoscaling", "horizontalpodautoscalers"),
            On(WRITE, "batch", "cronjobs jobs"),
            On(WRITE, "policy", "poddisruptionbudgets"),
            On(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            On(READ_WRITE, "coordination.k8s.io", "leases"),
        ],
    },
    Role {
        name: "system:aggregate-to-view",
        to: &["view"],
        gathers: false,
        rules: &[
            On(
                READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods \
                 replicationcontrollers replicationcontrollers/scale serviceaccounts services \
                 services/status",
            ),
            On(
                READ,
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status \
                 replicationcontrollers/status resourcequotas resourcequotas/status",
            ),
            On(READ, "core", "namespaces"),
            On(READ, "discovery.k8s.io", "endpointslices"),
            On(
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale \
                 deployments/status replicasets replicasets/scale replicasets/status statefulsets \
                 statefulsets/scale statefulsets/status",
            ),
            On(
                READ,
                "autoscaling",
                "horizontalpodautoscalers horizontalpodautoscalers/status",
            ),
            On(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            On(
                READ,
                "policy",
                "poddisruptionbudgets poddisruptionbudgets/status",
            ),
            On(
                READ,
                "networking.k8s.io",
                "ingresses ingresses/status networkpolicies",
            ),
        ],
    },
    role(
        "system:auth-delegator",
        &[
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            On(READ, "core", "nodes"),
            On("proxy", "core", "nodes"),
            On(
                "*",
                "core",
                "nodes/log nodes/metrics nodes/proxy nodes/stats",
            ),
        ],
    ),
    // What the node authorizer lets every kubelet do, for clusters that bind it.
    role("system:node", NODE),
    role(
        "system:node-bootstrapper",
        &[On(
            "create get list watch",
            "certificates.k8s.io",
            "certificatesigningrequests",
        )],
    ),
    role(
        "system:node-problem-detector",
        &[
            On("get", "core", "nodes"),
            On("patch", "core", "nodes/status"),
            EVENTS,
        ],
    ),
    role(
        "system:node-proxier",
        &[
            On("list watch", "core", "endpoints services"),
            On(READ, "core", "nodes"),
            EVENTS,
            On("list watch", "discovery.k8s.io", "endpointslices"),
        ],
    ),
    role(
        "system:kube-dns",
        &[On("list watch", "core", "endpoints services")],
    ),
    role(
        "system:kube-aggregator",
        &[On(READ, "core", "endpoints services")],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            On("create delete get list watch", "core", "persistentvolumes"),
            On("get list update watch", "core", "persistentvolumeclaims"),
            On(READ, "storage.k8s.io", "storageclasses"),
            On("watch", "core", "events"),
            EVENTS,
        ],
    ),
    role(
        "system:volume-scheduler",
        &[
            On("get list patch update watch", "core", "persistentvolumes"),
            On(READ, "storage.k8s.io", "storageclasses"),
            On(
                "get list patch update watch",
                "core",
                "persistentvolumeclaims",
            ),
        ],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[Urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[On(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/nodeclient",
        )],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[On(
            "create",
            "certificates.k8s.io",
            "certificatesigningrequests/selfnodeclient",
        )],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[Named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client",
        )],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[Named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kube-apiserver-client-kubelet",
        )],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[Named(
            "approve",
            "certificates.k8s.io",
            "signers",
            "kubernetes.io/kubelet-serving",
        )],
    ),
    role(
        "system:kube-scheduler",
        &[
            EVENTS,
            On("create", "coordination.k8s.io", "leases"),
            Named(
                "get list update watch",
                "coordination.k8s.io",
                "leases",
                "kube-scheduler",
            ),
            On(READ, "core", "nodes"),
            On("delete get list watch", "core", "pods"),
            On("create", "core", "bindings pods/binding"),
            On("patch update", "core", "pods/status"),
            On(READ, "core", "replicationcontrollers services"),
            On(READ, "apps extensions", "replicasets"),
            On(READ, "apps", "statefulsets"),
            On(READ, "policy", "poddisruptionbudgets"),
            On(READ, "core", "persistentvolumeclaims persistentvolumes"),
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            On(READ, "storage.k8s.io", "csinodes"),
            On(READ, "core", "namespaces"),
            On(
                READ,
                "storage.k8s.io",
                "csidrivers csistoragecapacities storageclasses volumeattachments",
            ),
            On(
                READ,
                "resource.k8s.io",
                "deviceclasses resourceclaims resourceslices",
            ),
            On(
                "patch update",
                "resource.k8s.io",
                "resourceclaims resourceclaims/status",
            ),
            On(READ, "scheduling.k8s.io", "priorityclasses"),
        ],
    ),
    // One user runs all controllers here: this is what Kubernetes gives to the controller manager
    // and to its controllers, each for the kinds that ours work on. The garbage collector and the
    // namespace controller read and delete every kind; aggregation writes roles (`escalate`);
    // approving and signing certificates have a verb for each signer.
    role(
        "system:kube-controller-manager",
        &[
            EVENTS,
            On(
                "delete deletecollection get list patch update watch",
                "*",
                "*",
            ),
            On(
                "create",
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumes pods pods/eviction \
                 secrets serviceaccounts serviceaccounts/token",
            ),
            On("create", "apps", "controllerrevisions replicasets"),
            On("create", "batch", "jobs"),
            On("create", "coordination.k8s.io", "leases"),
            On("create", "discovery.k8s.io", "endpointslices"),
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            On("escalate", "rbac.authorization.k8s.io", "clusterroles"),
            Named(
                "approve",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client-kubelet",
            ),
            Row::Named(
                "sign",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                 kubernetes.io/kubelet-serving",
            ),
        ],
    ),
    role(
        "system:rhumb-agent",
        &[
            On(READ, "core", "namespaces nodes pods services"),
            On(READ, "discovery.k8s.io", "endpointslices"),
            On(READ, "networking.k8s.io", "networkpolicies"),
            On("create patch", "core events.k8s.io", "events"),
        ],
    ),
];

pub(super) const NODE: &[Row] = &[
    On("create", "authentication.k8s.io", "tokenreviews"),
    On(
        "create",
        "authorization.k8s.io",
        "localsubjectaccessreviews subjectaccessreviews",
    ),
    On(READ, "core", "services"),
    On("create get list watch", "core", "nodes"),
    On("patch update", "core", "nodes/status"),
    On("patch update", "core", "nodes"),
    EVENTS,
    On(READ, "core", "pods"),
    On("create delete", "core", "pods"),
    On("patch update", "core", "pods/status"),
    On("create", "core", "pods/eviction"),
    On(READ, "core", "configmaps secrets"),
    On("get", "core", "persistentvolumeclaims persistentvolumes"),
    On("get", "core", "endpoints"),
    On(
        "create get list watch",
        "certificates.k8s.io",
        "certificatesigningrequests",
    ),
    On(
        "create delete get patch update",
        "coordination.k8s.io",
        "leases",
    ),
    On("get", "storage.k8s.io", "volumeattachments"),
    On("create", "core", "serviceaccounts/token"),
    On("get patch update", "core", "persistentvolumeclaims/status"),
    On(READ, "storage.k8s.io", "csidrivers"),
    On(
        "create delete get patch update",
        "storage.k8s.io",
        "csinodes",
    ),
    On(READ, "node.k8s.io", "runtimeclasses"),
];

/// Role, and its subjects: `group:NAME`, `user:NAME` or `sa:NAMESPACE/NAME`, separated by spaces.
pub(super) const BINDINGS: &[(&str, &str)] = &[
    ("cluster-admin", "group:system:masters"),
    ("system:monitoring", "group:system:monitoring"),
    ("system:discovery", "group:system:authenticated"),
    ("system:basic-user", "group:system:authenticated"),
    (
        "system:public-info-viewer",
        "group:system:authenticated group:system:unauthenticated",
    ),
    ("system:node-proxier", "user:system:kube-proxy"),
    (
        "system:kube-controller-manager",
        "user:system:kube-controller-manager",
    ),
    ("system:kube-dns", "sa:kube-system/kube-dns"),
    ("system:kube-scheduler", "user:system:kube-scheduler"),
    ("system:volume-scheduler", "user:system:kube-scheduler"),
    ("system:node", ""),
    (
        "system:service-account-issuer-discovery",
        "group:system:serviceaccounts",
    ),
    // Kubelets renew their own certificates. Who makes a node by a CSR is for the cluster's admin
    // to say, by a binding of …:nodeclient.
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "group:system:nodes",
    ),
    (
        "system:rhumb-agent",
        "group:system:rhumb-agents sa:kube-system/rhumb-agent",
    ),
];
