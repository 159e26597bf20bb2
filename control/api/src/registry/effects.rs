//! What each kind is good for: the declared table of `docs/kinds.md`, and why the objects of some
//! kinds can't be made.

use super::Kind;

/// What an object of a kind does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something acts on it, but for these fields.
    Acted { without: &'static str },
    /// It is checked, stored and watched; nothing acts on it.
    Stored { why: &'static str },
    /// Made by the server alone, if at all; writes are refused.
    Served { why: &'static str },
}

const fn acted(without: &'static str) -> Effect {
    Effect::Acted { without }
}

const fn stored(why: &'static str) -> Effect {
    Effect::Stored { why }
}

const fn served(why: &'static str) -> Effect {
    Effect::Served { why }
}

const WHOLE: Effect = acted("");
const DRIVERS: &str = "no volume driver is asked yet";
const ADMISSION: &str = "mutating admission policies are not supported yet";
const DRA: &str = "dynamic resource allocation is not supported";
const FAIRNESS: &str =
    "those that every cluster has, for tools that look at them: fairness is by user";
const TEMPLATE: &str = "of the template: see Pod";

/// Group, plural, effect.
static EFFECTS: &[(&str, &str, Effect)] = &[
    ("", "configmaps", WHOLE),
    (
        "",
        "endpoints",
        stored("Services read EndpointSlices only, and nothing mirrors Endpoints"),
    ),
    ("", "events", WHOLE),
    ("", "limitranges", WHOLE),
    ("", "namespaces", WHOLE),
    ("", "nodes", acted("`spec.configSource`, `spec.externalID`")),
    ("", "persistentvolumeclaims", stored(DRIVERS)),
    ("", "persistentvolumes", stored(DRIVERS)),
    (
        "",
        "pods",
        acted(
            "what `control/kubelet/src/pure/supported.rs` doesn't list fails the pod with an Event that names it",
        ),
    ),
    (
        "",
        "podtemplates",
        stored("nothing reads them, as in Kubernetes"),
    ),
    (
        "",
        "replicationcontrollers",
        stored("use ReplicaSets or Deployments"),
    ),
    ("", "resourcequotas", WHOLE),
    ("", "secrets", WHOLE),
    ("", "serviceaccounts", acted("`secrets`")),
    (
        "",
        "services",
        acted("what isn't supported is refused by name: see services.md"),
    ),
    (
        "apiregistration.k8s.io",
        "apiservices",
        served(
            "one a served group and version, kept by the server; aggregated API servers are not supported",
        ),
    ),
    ("apps", "controllerrevisions", WHOLE),
    ("apps", "daemonsets", acted(TEMPLATE)),
    ("apps", "deployments", acted(TEMPLATE)),
    ("apps", "replicasets", acted(TEMPLATE)),
    (
        "apps",
        "statefulsets",
        stored("the controller is not there yet"),
    ),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        acted("`spec.conversion.webhook`: refused"),
    ),
    ("events.k8s.io", "events", WHOLE),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        stored("the controller and the metrics that it needs are not there yet"),
    ),
    (
        "batch",
        "cronjobs",
        stored("the controller is not there yet"),
    ),
    ("batch", "jobs", stored("the controller is not there yet")),
    (
        "certificates.k8s.io",
        "certificatesigningrequests",
        acted("signers other than Kubernetes' own three need a controller of yours"),
    ),
    (
        "networking.k8s.io",
        "ingressclasses",
        stored("for an ingress controller of your own"),
    ),
    (
        "networking.k8s.io",
        "ingresses",
        stored("for an ingress controller of your own"),
    ),
    (
        "networking.k8s.io",
        "ipaddresses",
        served("one a cluster IP, made and removed with its Service"),
    ),
    ("networking.k8s.io", "networkpolicies", WHOLE),
    (
        "networking.k8s.io",
        "servicecidrs",
        served("`kubernetes` shows the ranges that the server was started with"),
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings", WHOLE),
    ("rbac.authorization.k8s.io", "clusterroles", WHOLE),
    ("rbac.authorization.k8s.io", "rolebindings", WHOLE),
    ("rbac.authorization.k8s.io", "roles", WHOLE),
    ("policy", "poddisruptionbudgets", WHOLE),
    ("storage.k8s.io", "csidrivers", stored(DRIVERS)),
    ("storage.k8s.io", "csinodes", stored(DRIVERS)),
    ("storage.k8s.io", "csistoragecapacities", stored(DRIVERS)),
    ("storage.k8s.io", "storageclasses", stored(DRIVERS)),
    ("storage.k8s.io", "volumeattachments", stored(DRIVERS)),
    ("storage.k8s.io", "volumeattributesclasses", stored(DRIVERS)),
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        served(ADMISSION),
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        served(ADMISSION),
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        WHOLE,
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        WHOLE,
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        WHOLE,
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        WHOLE,
    ),
    (
        "scheduling.k8s.io",
        "priorityclasses",
        acted("nothing is preempted yet: the priority orders the scheduler's queue"),
    ),
    (
        "coordination.k8s.io",
        "leases",
        acted("`spec.strategy`, `spec.preferredHolder`: refused"),
    ),
    (
        "node.k8s.io",
        "runtimeclasses",
        stored("pods that name one are refused by the kubelet"),
    ),
    ("discovery.k8s.io", "endpointslices", WHOLE),
    (
        "flowcontrol.apiserver.k8s.io",
        "flowschemas",
        served(FAIRNESS),
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        served(FAIRNESS),
    ),
    ("resource.k8s.io", "deviceclasses", served(DRA)),
    ("resource.k8s.io", "resourceclaims", served(DRA)),
    ("resource.k8s.io", "resourceclaimtemplates", served(DRA)),
    ("resource.k8s.io", "resourceslices", served(DRA)),
];

/// The declared effect of a built-in kind.
pub fn effect(kind: &Kind) -> Option<Effect> {
    EFFECTS
        .iter()
        .find(|(group, plural, _)| *group == kind.group && *plural == kind.plural)
        .map(|(_, _, effect)| *effect)
}

/// `docs/kinds.md`.
pub fn effects_page() -> String {
    let mut page = String::from(
        "# What each kind does\n\n\
         Every kind is checked, defaulted, stored and watched as in Kubernetes v1.36. This table says whether anything acts on\n\
         its objects. It is made from `control/api/src/registry/effects.rs`; a test compares the two.\n\n\
         | API version | kind | effect | without effect, or why none |\n|---|---|---|---|\n",
    );
    for kind in super::KINDS.iter() {
        let (effect, note) = match effect(kind) {
            Some(Effect::Acted { without: "" }) => ("yes", "–"),
            Some(Effect::Acted { without }) => ("yes", without),
            Some(Effect::Stored { why }) => ("stored only", why),
            Some(Effect::Served { why }) => ("read only", why),
            None => ("not declared", "–"),
        };
        page.push_str(&format!(
            "| {} | {} | {effect} | {note} |\n",
            kind.api_version(),
            kind.kind
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{KINDS, find};

    #[test]
    fn every_kind_is_declared_and_served_ones_are_read_only() {
        for kind in KINDS.iter() {
            let effect = effect(kind)
                .unwrap_or_else(|| panic!("{kind:?} has no line in registry/effects.rs"));
            let writable = kind.verbs.contains(&"create");
            assert_eq!(
                matches!(effect, Effect::Served { .. }),
                !writable,
                "{kind:?}: {effect:?}"
            );
        }
        for (group, plural, _) in EFFECTS {
            assert!(
                find(group, "v1", plural).is_some(),
                "{plural}.{group} is declared and not served"
            );
        }
    }

    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kinds.md");
        if std::env::var_os("RHUMB_WRITE_DOCS").is_some() {
            std::fs::write(path, effects_page()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            page,
            effects_page(),
            "docs/kinds.md is not what the registry says: run this test with RHUMB_WRITE_DOCS=1"
        );
    }
}
