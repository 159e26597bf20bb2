//! The flow schemas and priority levels that every cluster of Kubernetes has, mandatory and
//! suggested ones. Tools look at them; here nothing acts on them.
//! Source: Kubernetes `pkg/apis/flowcontrol/bootstrap/default.go`.

use serde_json::{Value, json};

const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const ALL: &[&str] = &["*"];

/// Names, shares, what of them may be lent (per cent), queues and hand size: without queues, what is
/// too much is rejected.
const LIMITED: &[(&str, i64, i64, i64, i64)] = &[
    ("catch-all", 5, 0, 0, 0),
    ("global-default", 20, 50, 128, 6),
    ("leader-election", 10, 0, 16, 4),
    ("node-high", 40, 25, 64, 6),
    ("system", 30, 33, 64, 6),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
];

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTOUPDATE: "true"}})
}

pub fn priority_levels() -> Vec<Value> {
    let limited = LIMITED
        .iter()
        .map(|(name, shares, lendable, queues, hand)| {
            let response = match queues {
                0 => json!({"type": "Reject"}),
                queues => json!({"type": "Queue", "queuing": {
                "queues": queues, "handSize": hand, "queueLengthLimit": 50}}),
            };
            json!({
                "metadata": metadata(name),
                "spec": {"type": "Limited", "limited": {
                    "nominalConcurrencyShares": shares, "lendablePercent": lendable,
                    "limitResponse": response,
                }},
                "status": {},
            })
        });
    let exempt = json!({
        "metadata": metadata("exempt"),
        "spec": {"type": "Exempt",
            "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
        "status": {},
    });
    std::iter::once(exempt).chain(limited).collect()
}

fn groups(names: &[&str]) -> Vec<Value> {
    let group = |name: &&str| json!({"kind": "Group", "group": {"name": name}});
    names.iter().map(group).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    let user = |name: &&str| json!({"kind": "User", "user": {"name": name}});
    names.iter().map(user).collect()
}

fn system_accounts(names: &[&str]) -> Vec<Value> {
    let account = |name: &&str| {
        json!({"kind": "ServiceAccount",
            "serviceAccount": {"name": name, "namespace": "kube-system"}})
    };
    names.iter().map(account).collect()
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources,
        "namespaces": ALL});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// Subjects, rules about resources, and about other paths.
fn rules(subjects: Vec<Value>, resources: Vec<Value>, other: Vec<Value>) -> Value {
    let mut rules = json!({"subjects": subjects});
    if !resources.is_empty() {
        rules["resourceRules"] = resources.into();
    }
    if !other.is_empty() {
        rules["nonResourceRules"] = other.into();
    }
    json!([rules])
}

fn everything(subjects: Vec<Value>) -> Value {
    let other = json!({"verbs": ALL, "nonResourceURLs": ALL});
    rules(subjects, vec![resources(ALL, "*", ALL, true)], vec![other])
}

fn schema(name: &str, level: &str, precedence: i64, by: &str, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    spec["rules"] = rules;
    json!({
        "metadata": metadata(name),
        "spec": spec,
        "status": {"conditions": [{
            "type": "Dangling", "status": "False", "reason": "Found",
            "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"),
            "lastTransitionTime": null,
        }]},
    })
}

pub fn flow_schemas() -> Vec<Value> {
    const MANAGER: &str = "system:kube-controller-manager";
    const SCHEDULER: &str = "system:kube-scheduler";
    let writes = &["get", "create", "update"];
    let leases = || resources(writes, "coordination.k8s.io", &["leases"], false);
    let anybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = || groups(&["system:nodes"]);
    let with = |mut users: Vec<Value>, more: &[&str]| {
        users.extend(system_accounts(more));
        users
    };
    let probes = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]});
    vec![
        schema(
            "exempt",
            "exempt",
            1,
            "",
            everything(groups(&["system:masters"])),
        ),
        schema(
            "probes",
            "exempt",
            2,
            "",
            rules(anybody(), vec![], vec![probes]),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            rules(
                with(users(&[MANAGER, SCHEDULER]), ALL),
                vec![leases()],
                vec![],
            ),
        ),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            rules(
                with(
                    users(&[MANAGER]),
                    &["endpoint-controller", "endpointslicemirroring-controller"],
                ),
                vec![resources(writes, "", &["endpoints"], false)],
                vec![],
            ),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            rules(
                system_accounts(ALL),
                vec![
                    resources(writes, "", &["endpoints", "configmaps"], false),
                    leases(),
                ],
                vec![],
            ),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            rules(
                nodes(),
                vec![
                    resources(ALL, "", &["nodes", "nodes/status"], true),
                    resources(ALL, "coordination.k8s.io", &["leases"], false),
                ],
                vec![],
            ),
        ),
        schema("system-nodes", "system", 500, "ByUser", everything(nodes())),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            everything(users(&[MANAGER])),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            everything(users(&[SCHEDULER])),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            everything(system_accounts(ALL)),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            "ByUser",
            everything(anybody()),
        ),
        schema(
            "catch-all",
            "catch-all",
            10000,
            "ByUser",
            everything(anybody()),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{FieldValidation, Parsed, decode_parsed};
    use crate::json::text;
    use crate::registry::find;

    #[test]
    fn they_are_what_their_types_say_and_refer_to_each_other() {
        let group = "flowcontrol.apiserver.k8s.io";
        let (levels, schemas) = (priority_levels(), flow_schemas());
        for (plural, objects) in [
            ("prioritylevelconfigurations", &levels),
            ("flowschemas", &schemas),
        ] {
            let kind = find(group, "v1", plural).unwrap();
            for object in objects {
                let parsed = Parsed {
                    value: object.clone(),
                    duplicates: vec![],
                };
                decode_parsed(kind, parsed, FieldValidation::Strict).unwrap();
            }
        }
        for schema in &schemas {
            let level = text(schema, "spec.priorityLevelConfiguration.name");
            assert!(
                levels.iter().any(|l| text(l, "metadata.name") == level),
                "{level}"
            );
        }
        assert_eq!((levels.len(), schemas.len()), (8, 13));
    }
}
