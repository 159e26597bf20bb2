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

/// Deletes a cluster's configuration, whatever came of the test.
struct Configuration<'a> {
    suite: &'a Suite,
    resource: &'static str,
}

impl Drop for Configuration<'_> {
    fn drop(&mut self) {
        let deleted = self
            .suite
            .cluster
            .kubectl_run(&["delete", self.resource, "ring4"]);
        if let Err(error) = deleted {
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
    let _mutating = Configuration {
        suite,
        resource: "mutatingwebhookconfiguration",
    };
    space.apply(&configuration(
        "ValidatingWebhookConfiguration",
        "/no-latest",
    ))?;
    let _validating = Configuration {
        suite,
        resource: "validatingwebhookconfiguration",
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
