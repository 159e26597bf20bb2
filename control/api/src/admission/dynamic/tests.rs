use serde_json::{Value, json};

use super::*;

fn place<'a>(operation: Operation, path: &'a str, namespace: &'a str) -> Place<'a> {
    let mut parts = path.split(' ');
    let mut next = || parts.next().unwrap_or("");
    Place {
        operation,
        group: match next() {
            "core" => "",
            group => group,
        },
        version: next(),
        resource: next(),
        subresource: next(),
        namespace,
    }
}

fn hook(rule: Value) -> Constraints {
    Constraints::of_webhook(&json!({"rules": [rule]}))
}

fn rule(resources: &[&str], scope: &str) -> Value {
    json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": resources, "scope": scope})
}

#[test]
fn rules_by_resource_and_scope() {
    let found = |resources: &[&str], scope: &str, path: &str, namespace: &str| {
        let place = place(Operation::Create, path, namespace);
        hook(rule(resources, scope))
            .find("x", &place, &[])
            .is_some()
    };
    for (resources, path, expected) in [
        (&["pods"][..], "core v1 pods", true),
        (&["pods"], "core v1 pods status", false),
        (&["pods/*"], "core v1 pods", true),
        (&["pods/*"], "core v1 pods status", true),
        (&["pods/status"], "core v1 pods", false),
        (&["*"], "core v1 services", true),
        (&["*"], "core v1 services status", false),
        (&["*/status"], "core v1 services status", true),
        (&["*/*"], "core v1 services status", true),
        (&["pods"], "apps v1 pods", false),
        (&["pods"], "core v2 pods", false),
    ] {
        assert_eq!(
            found(resources, "*", path, "a"),
            expected,
            "{resources:?} {path}"
        );
    }
    assert!(found(&["*"], "Namespaced", "core v1 pods", "a"));
    assert!(!found(&["*"], "Cluster", "core v1 pods", "a"));
    assert!(found(&["*"], "Cluster", "core v1 nodes", ""));
    assert!(!found(&["*"], "Namespaced", "core v1 nodes", ""));
    // A Namespace is in itself, and belongs to the cluster.
    assert!(found(&["*"], "Cluster", "core v1 namespaces", "a"));
    assert!(!found(&["*"], "Namespaced", "core v1 namespaces", "a"));
    let delete = place(Operation::Delete, "core v1 pods", "a");
    assert_eq!(hook(rule(&["pods"], "*")).find("x", &delete, &[]), None);
}

#[test]
fn equivalent_resources() {
    let own = place(
        Operation::Create,
        "autoscaling v1 horizontalpodautoscalers",
        "a",
    );
    let other = place(
        Operation::Create,
        "autoscaling v2 horizontalpodautoscalers",
        "a",
    );
    let rule = json!({"operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"],
        "resources": ["*"]});
    let mut webhook = json!({"rules": [rule]});
    assert_eq!(
        Constraints::of_webhook(&webhook).find("x", &own, &[other]),
        Some(1)
    );
    webhook["matchPolicy"] = "Exact".into();
    assert_eq!(
        Constraints::of_webhook(&webhook).find("x", &own, &[other]),
        None
    );
}

#[test]
fn policies_name_resources_and_exclude() {
    let own = place(Operation::Create, "core v1 configmaps", "a");
    let all =
        json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
    let mut named = all.clone();
    named["resourceNames"] = json!(["x"]);
    let constraints = Constraints::of_policy(&json!({"resourceRules": [named]}));
    assert_eq!(constraints.find("x", &own, &[]), Some(0));
    assert_eq!(constraints.find("y", &own, &[]), None);
    let constraints =
        Constraints::of_policy(&json!({"resourceRules": [all], "excludeResourceRules": [named]}));
    assert_eq!(constraints.find("x", &own, &[]), None);
    assert_eq!(constraints.find("y", &own, &[]), Some(0));
    // A binding without rules takes all that its policy takes.
    assert_eq!(
        Constraints::of_policy(&json!({})).find("x", &own, &[]),
        Some(0)
    );
}

#[test]
fn selectors_look_at_both_objects_and_the_namespace() {
    let labelled = |value: &str| json!({"metadata": {"labels": {"a": value}}});
    let selectors = Selectors::of(&json!({
        "objectSelector": {"matchLabels": {"a": "1"}},
        "namespaceSelector": {"matchLabels": {"a": "ns"}},
    }));
    let (one, two, namespace) = (labelled("1"), labelled("2"), labelled("ns"));
    let pods = place(Operation::Update, "core v1 pods", "a");
    let labels = |object, old, namespace| Labels {
        object,
        old,
        namespace,
    };
    assert!(selectors.matches(&pods, &labels(Some(&one), Some(&two), Some(&namespace))));
    assert!(selectors.matches(&pods, &labels(Some(&two), Some(&one), Some(&namespace))));
    assert!(!selectors.matches(&pods, &labels(Some(&two), None, Some(&namespace))));
    assert!(!selectors.matches(&pods, &labels(Some(&one), None, Some(&two))));
    assert!(!selectors.matches(&pods, &labels(Some(&one), None, None)));
    // What is in no namespace, no selector of namespaces leaves out.
    let nodes = place(Operation::Update, "core v1 nodes", "");
    assert!(selectors.matches(&nodes, &labels(Some(&one), None, None)));
    // A Namespace counts as it is to be, and when it goes, as it is.
    let selectors = Selectors::of(&json!({"namespaceSelector": {"matchLabels": {"a": "ns"}}}));
    let create = place(Operation::Create, "core v1 namespaces", "a");
    assert!(selectors.matches(&create, &labels(Some(&namespace), None, None)));
    assert!(!selectors.matches(&create, &labels(Some(&one), None, Some(&namespace))));
    let delete = place(Operation::Delete, "core v1 namespaces", "a");
    assert!(selectors.matches(&delete, &labels(None, Some(&one), Some(&namespace))));
}

fn answer(response: Value, mutating: bool) -> Result<Answer, String> {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": response});
    verify(review.to_string().as_bytes(), "v1", "u", mutating)
}

#[test]
fn answers_are_verified() {
    let fault = |response: Value, mutating| answer(response, mutating).unwrap_err();
    assert_eq!(fault(Value::Null, false), "webhook response was absent");
    assert_eq!(
        fault(json!({"uid": "v"}), false),
        r#"expected response.uid="u", got "v""#
    );
    assert_eq!(
        fault(json!({"uid": "u", "patch": "W10="}), true),
        "webhook returned response.patch but not response.patchType"
    );
    assert_eq!(
        fault(json!({"uid": "u", "patchType": "JSONPatch"}), true),
        "webhook returned response.patchType but not response.patch"
    );
    assert_eq!(
        fault(
            json!({"uid": "u", "patch": "W10=", "patchType": "Merge"}),
            true
        ),
        r#"unsupported patch type "Merge", must be JSONPatch"#
    );
    assert_eq!(
        fault(
            json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"}),
            false
        ),
        "validating webhook may not return response.patch"
    );
    assert_eq!(
        verify(
            br#"{"kind": "X", "response": {"uid": "u"}}"#,
            "v1",
            "u",
            false
        )
        .unwrap_err(),
        "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got , Kind=X"
    );
    assert!(verify(b"<html>", "v1", "u", false).is_err());
    let good = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch",
        "warnings": ["w"], "auditAnnotations": {"k": "v"}});
    assert_eq!(
        answer(good, true).unwrap(),
        Answer {
            allowed: true,
            status: None,
            patch: Some(b"[]".to_vec()),
            warnings: vec!["w".into()],
            audit_annotations: vec![("k".into(), "v".into())],
        }
    );
    // The older version says neither which review it answers nor what its patch is.
    let old = verify(
        br#"{"response": {"allowed": true, "patch": "W10="}}"#,
        "v1beta1",
        "u",
        true,
    );
    assert_eq!(old.unwrap().patch, Some(b"[]".to_vec()));
}

#[test]
fn refusals_name_the_webhook() {
    let shown = |status: Value| {
        let error = refusal("a.b.c", Some(&status));
        (error.code, error.reason.to_string(), error.message)
    };
    let denied = "admission webhook \"a.b.c\" denied the request";
    assert_eq!(
        shown(json!({"code": 403, "reason": "Forbidden", "message": "no"})),
        (403, "Forbidden".into(), format!("{denied}: no"))
    );
    assert_eq!(
        shown(json!({"reason": "Because"})),
        (400, "Because".into(), format!("{denied}: Because"))
    );
    assert_eq!(shown(json!({"code": 200})).0, 400);
    assert_eq!(
        refusal("a.b.c", None).message,
        format!("{denied} without explanation")
    );
}
