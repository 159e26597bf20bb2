//! A CustomResourceDefinition as kubectl's users meet it.

use crate::support::{Space, Suite};
use anyhow::ensure;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations:
            - {rule: "self.replicas <= self.maxReplicas", message: too many replicas}
            properties:
              cronSpec: {type: string, description: When it runs., pattern: '^(\S+ ){4}\S+$'}
              replicas: {type: integer, minimum: 0, default: 1}
              maxReplicas: {type: integer, default: 10}
          status:
            type: object
            properties:
              replicas: {type: integer}
              phase: {type: string}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
"#;

const OBJECT: &str = r#"
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: nightly}
spec: {cronSpec: "0 3 * * *"}
"#;

const CRD: &str = "customresourcedefinition/crontabs.stable.example.com";

fn has(space: &Space<'_>, arguments: &[&str], words: &[&str]) -> anyhow::Result<()> {
    let text = space.kubectl(arguments)?;
    for word in words {
        let what = arguments.join(" ");
        ensure!(
            text.contains(word),
            "kubectl {what}: no `{word}` in:\n{text}"
        );
    }
    Ok(())
}

fn refused(space: &Space<'_>, arguments: &[&str], why: &str) -> anyhow::Result<()> {
    let output = space.kubectl_output(arguments)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.contains(why), "{text}");
    Ok(())
}

pub fn life(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("crds")?;
    space.apply(DEFINITION)?;
    space.kubectl(&["wait", "--for=condition=established", "--timeout=10s", CRD])?;
    // Served at once, by its names.
    has(&space, &["get", "crontabs", "-o", "name"], &[])?;
    has(
        &space,
        &["api-resources", "--api-group=stable.example.com"],
        &["crontabs", "ct", "CronTab"],
    )?;
    has(
        &space,
        &["explain", "crontab.spec.cronSpec"],
        &["FIELD: cronSpec <string>", "When it runs."],
    )?;
    space.apply(OBJECT)?;
    has(
        &space,
        &["get", "ct"],
        &["SPEC", "REPLICAS", "AGE", "nightly", "0 3 * * *"],
    )?;
    has(
        &space,
        &["get", "all"],
        &["crontab.stable.example.com/nightly"],
    )?;

    space.kubectl(&[
        "patch",
        "ct",
        "nightly",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":2}}"#,
    ])?;
    space.kubectl(&["scale", "ct/nightly", "--replicas=3"])?;
    space.kubectl(&[
        "patch",
        "ct",
        "nightly",
        "--type=merge",
        "--subresource=status",
        "-p",
        r#"{"status":{"phase":"Active"},"spec":{"replicas":9}}"#,
    ])?;
    has(
        &space,
        &[
            "get",
            "ct",
            "nightly",
            "-o",
            "jsonpath={.spec.replicas} {.status.phase} {.metadata.generation}",
        ],
        &["3 Active 3"],
    )?;
    refused(
        &space,
        &["scale", "ct/nightly", "--replicas=11"],
        "spec: Invalid value: \"object\": too many replicas",
    )?;
    refused(
        &space,
        &[
            "patch",
            "ct",
            "nightly",
            "--type=merge",
            "-p",
            r#"{"spec":{"cronSpec":"often"}}"#,
        ],
        "spec.cronSpec in body should match",
    )?;
    let odd = OBJECT.replace("spec: {", "spec: {odd: 1, ");
    let output = space.kubectl_stdin(&["apply", "--dry-run=server", "-f", "-"], &odd)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && text.contains("unknown field \"spec.odd\""),
        "{text}"
    );

    // An owner of the new kind takes what it owns along.
    let uid = space.kubectl(&["get", "ct", "nightly", "-o", "jsonpath={.metadata.uid}"])?;
    space.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, ownerReferences: [\
         {{apiVersion: stable.example.com/v1, kind: CronTab, name: nightly, uid: {}}}]}}}}",
        uid.trim()
    ))?;
    space.kubectl(&["delete", "ct", "nightly"])?;
    space.wait("the owned ConfigMap goes", 60, || {
        let left = space.kubectl(&["get", "configmaps", "-o", "name"])?;
        Ok((!left.contains("configmap/owned")).then_some(()))
    })?;

    // The definition takes its objects along.
    space.apply(OBJECT)?;
    space.kubectl(&["delete", CRD, "--timeout=30s"])?;
    space.wait("the kind is no longer served", 10, || {
        let served = space.kubectl(&["api-resources", "--api-group=stable.example.com"])?;
        Ok((!served.contains("crontabs")).then_some(()))
    })?;
    // What kubectl remembers of discovery decides which of the two it says.
    let output = space.kubectl_output(&["get", "crontabs"])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success()
            && (text.contains("doesn't have a resource type")
                || text.contains("could not find the requested resource")),
        "{text}"
    );
    Ok(())
}
