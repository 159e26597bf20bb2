//! Admission webhooks behind a Service, as operators install them.

use anyhow::{Context, ensure};
use rhumb_harness::cluster::Cluster;
use serde_json::{Value, json};

use crate::support::Suite;
use crate::webhook_server::{Webhook, patch};

fn decide(path: &str, request: &Value) -> Value {
    let object = &request["object"];
    match path {
        "/label" => patch(&json!([
            {"op": "add", "path": "/metadata/labels/mutated", "value": "yes"},
        ])),
        "/no-latest" => {
            let image = object["spec"]["containers"][0]["image"].as_str();
            match image.is_some_and(|i| i.ends_with(":latest")) {
                true => json!({"allowed": false, "status": {"code": 403, "message": "no latest"}}),
                false => json!({"allowed": true, "warnings": ["looked at"]}),
            }
        }
        other => json!({"allowed": false, "status": {"message": format!("no {other}")}}),
    }
}

/// Deletes an object of the cluster's, whatever came of the test.
struct Named<'a> {
    suite: &'a Suite,
    resource: &'static str,
    name: &'static str,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let delete = ["delete", self.resource, self.name, "--ignore-not-found"];
        if let Err(error) = self.suite.cluster.kubectl_run(&delete) {
            eprintln!("{error:#}");
        }
    }
}

pub fn service(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("webhooks")?;
    let (address, _) = Cluster::outside_addresses();
    let listener = suite
        .cluster
        .outside()?
        .run(|| std::net::TcpListener::bind((address, 0)))?
        .context("listening at the outside client's address")?;
    let name = "hook.webhooks.svc";
    let hook = suite.block_on(async { Webhook::serve(listener, &[name], decide) });
    space.apply(&format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: hook}}
spec: {{ports: [{{name: https, port: 443, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: hook-1, labels: {{kubernetes.io/service-name: hook}}}}
addressType: IPv4
ports: [{{name: https, port: {port}}}]
endpoints: [{{addresses: ["{address}"]}}]
"#,
        port = hook.port
    ))?;
    let configuration = |kind: &str, path: &str| {
        format!(
            r#"
apiVersion: admissionregistration.k8s.io/v1
kind: {kind}
metadata: {{name: ring4}}
webhooks:
  - name: pods.ring4.example.com
    clientConfig: {{caBundle: {ca}, service: {{name: hook, namespace: webhooks, path: {path}}}}}
    rules: [{{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}}]
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: webhooks}}}}
    sideEffects: None
    admissionReviewVersions: [v1]
"#,
            ca = hook.ca
        )
    };
    space.apply(&configuration("MutatingWebhookConfiguration", "/label"))?;
    let _mutating = Named {
        suite,
        resource: "mutatingwebhookconfiguration",
        name: "ring4",
    };
    space.apply(&configuration(
        "ValidatingWebhookConfiguration",
        "/no-latest",
    ))?;
    let _validating = Named {
        suite,
        resource: "validatingwebhookconfiguration",
        name: "ring4",
    };
    let shown = space.kubectl(&[
        "get",
        "mutatingwebhookconfigurations",
        "ring4",
        "--no-headers",
    ])?;
    ensure!(
        shown.split_whitespace().take(2).eq(["ring4", "1"]),
        "{shown}"
    );

    // What controllers make goes through it too.
    space.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image=localhost/testbox:dev",
        "--",
        "sleep",
        "1000000",
    ])?;
    space.ready("app=web,mutated=yes", 1)?;
    let asked = hook.seen();
    let by = asked.iter().map(|(_, r)| &r["userInfo"]["username"]);
    ensure!(
        by.clone()
            .all(|user| user == "system:kube-controller-manager")
            && by.count() == 2,
        "{asked:?}"
    );
    let refused = space.kubectl_output(&["run", "bad", "--image=localhost/testbox:latest"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success()
            && said.contains(
                "Error from server: admission webhook \"pods.ring4.example.com\" denied the request: no latest"
            ),
        "{said}"
    );
    let allowed = space.kubectl_output(&["run", "good", "--image=localhost/testbox:dev"])?;
    let said = String::from_utf8_lossy(&allowed.stderr);
    ensure!(
        allowed.status.success() && said.contains("Warning: looked at"),
        "{said}"
    );
    Ok(())
}

/// As Kubernetes' documentation has it, with a custom kind for the limit.
pub fn policies(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("policies")?;
    let _definition = Named {
        suite,
        resource: "crd",
        name: "replicalimits.rules.example.com",
    };
    space.apply(
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: replicalimits.rules.example.com}
spec:
  group: rules.example.com
  scope: Namespaced
  names: {plural: replicalimits, singular: replicalimit, kind: ReplicaLimit}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {maxReplicas: {type: integer}}}}
"#,
    )?;
    let _policy = Named {
        suite,
        resource: "validatingadmissionpolicy",
        name: "ring4",
    };
    let _binding = Named {
        suite,
        resource: "validatingadmissionpolicybinding",
        name: "ring4",
    };
    space.apply(
        r#"
apiVersion: rules.example.com/v1
kind: ReplicaLimit
metadata: {name: limit}
maxReplicas: 2
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: ring4}
spec:
  paramKind: {apiVersion: rules.example.com/v1, kind: ReplicaLimit}
  matchConstraints:
    resourceRules:
      - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments, deployments/scale]}
  validations:
    - expression: "object.spec.replicas <= params.maxReplicas"
      messageExpression: "'at most ' + string(params.maxReplicas) + ' replicas'"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: ring4}
spec:
  policyName: ring4
  validationActions: [Deny]
  paramRef: {name: limit, namespace: policies, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policies}}}
"#,
    )?;
    let shown = space.kubectl(&["get", "validatingadmissionpolicy", "ring4", "--no-headers"])?;
    let columns = ["ring4", "1", "rules.example.com/v1/ReplicaLimit"];
    ensure!(shown.split_whitespace().take(3).eq(columns), "{shown}");
    space.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image=localhost/testbox:dev",
    ])?;
    let denied = "denied request: at most 2 replicas";
    let refused = space.kubectl_output(&["scale", "deployment", "web", "--replicas=3"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains(denied), "{said}");
    let create = ["create", "deployment", "many", "--image=i", "--replicas=3"];
    let refused = space.kubectl_output(&create)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        said.contains(&format!("error: failed to create deployment: deployments.apps \"many\" is forbidden: ValidatingAdmissionPolicy 'ring4' with binding 'ring4' {denied}")),
        "{said}"
    );
    // The parameters of now.
    let more = r#"{"maxReplicas": 3}"#;
    space.kubectl(&["patch", "replicalimit", "limit", "--type=merge", "-p", more])?;
    space.kubectl(&["scale", "deployment", "web", "--replicas=3"])?;
    Ok(())
}
