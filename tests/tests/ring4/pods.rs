//! What pods and nodes do beside the network.

use crate::support::{Suite, client, shown};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;

pub fn nodes(suite: &Suite) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(suite.client());
    let nodes = suite.block_on(api.list(&ListParams::default()))?.items;
    ensure!(nodes.len() == 2, "there are {} nodes", nodes.len());
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let labels = node.metadata.labels.unwrap_or_default();
        ensure!(
            labels.get("kubernetes.io/hostname") == Some(&name),
            "{name} has labels {labels:?}"
        );
        let spec = node.spec.context("a node has a spec")?;
        let cidrs = spec.pod_cidrs.unwrap_or_default();
        ensure!(cidrs.len() == 2, "{name} has pod CIDRs {cidrs:?}");
        let status = node.status.context("a node has a status")?;
        let info = status.node_info.context("a node tells about itself")?;
        ensure!(
            info.container_runtime_version.starts_with("containerd://")
                && info.kubelet_version.starts_with("v1.36."),
            "{name}: {info:?}"
        );
        let capacity = status.capacity.unwrap_or_default();
        for resource in ["cpu", "memory", "pods"] {
            ensure!(capacity.contains_key(resource), "{name}: {capacity:?}");
        }
    }
    let leases = ["-n", "kube-node-lease", "get", "leases", "-o", "name"];
    let leases = suite.cluster.kubectl_run(&leases)?;
    ensure!(
        leases.contains("/node1") && leases.contains("/node2"),
        "{leases}"
    );
    Ok(())
}

pub fn features(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("features")?;
    space.apply(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green, shape: round}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {word: sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: localhost/testbox:dev
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "echo first line; echo second line; exec sleep 1000000"]
      env:
        - {name: PLAIN, value: "$(POD)-plain"}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: LATER, value: "$(POD)-later"}
        - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
        - {name: WORD, valueFrom: {secretKeyRef: {name: hidden, key: word}}}
        - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
      envFrom: [{configMapRef: {name: settings}, prefix: CM_}]
      resources: {limits: {cpu: 200m, memory: 64Mi}, requests: {cpu: 10m}}
      securityContext: {runAsUser: 1234, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: scratch, mountPath: /scratch}
        - {name: settings, mountPath: /settings}
        - {name: hidden, mountPath: /hidden, readOnly: true}
  volumes:
    - {name: scratch, emptyDir: {}}
    - {name: settings, configMap: {name: settings}}
    - {name: hidden, secret: {secretName: hidden}}
"#,
    )?;
    space.ready("app=full", 1)?;
    let sh = |script: &str| space.exec("full", &["sh", "-c", script]);
    let environment = sh("env")?;
    for line in [
        "PLAIN=$(POD)-plain",
        "LATER=full-later",
        "COLOUR=green",
        "WORD=sesame",
        "CPU=200",
        "CM_shape=round",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
    ] {
        ensure!(
            environment.lines().any(|l| l == line),
            "no {line}: {environment}"
        );
    }
    ensure!(
        sh("cat /settings/colour /hidden/word")? == "greensesame",
        "volumes"
    );
    ensure!(
        sh("echo x > /scratch/y && cat /scratch/y")?.trim() == "x",
        "emptyDir"
    );
    ensure!(sh("id -u")?.trim() == "1234", "runAsUser");
    let read_only = space.kubectl_output(&["exec", "full", "--", "touch", "/x"])?;
    ensure!(
        !read_only.status.success(),
        "the root file system is writable"
    );
    let token_dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = sh(&format!("cat {token_dir}/token"))?;
    ensure!(token.matches('.').count() == 2, "no token: {token}");
    ensure!(
        sh(&format!("cat {token_dir}/namespace"))? == "features",
        "namespace"
    );
    ensure!(
        sh(&format!("cat {token_dir}/ca.crt"))?.contains("BEGIN CERT"),
        "CA"
    );

    // Exit codes, standard input, standard error.
    let output =
        space.kubectl_output(&["exec", "full", "--", "sh", "-c", "echo no >&2; exit 7"])?;
    ensure!(output.status.code() == Some(7), "{output:?}");
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("no"),
        "{output:?}"
    );
    let output = space.kubectl_stdin(&["exec", "-i", "full", "--", "cat"], "through and back")?;
    ensure!(output.stdout == b"through and back", "{output:?}");

    let logs = space.kubectl(&["logs", "full"])?;
    ensure!(logs == "first line\nsecond line\n", "logs: {logs:?}");
    let tail = space.kubectl(&["logs", "full", "--tail=1"])?;
    ensure!(tail == "second line\n", "logs --tail=1: {tail:?}");

    // A changed ConfigMap reaches the volume.
    space.kubectl(&[
        "patch",
        "configmap",
        "settings",
        "-p",
        r#"{"data":{"colour":"blue"}}"#,
    ])?;
    space.wait("the volume shows the change", 120, || {
        Ok((sh("cat /settings/colour")? == "blue").then_some(()))
    })
}

pub fn lifecycle(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("lifecycle")?;
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: stages, labels: {app: stages}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
    - {name: one, image: "localhost/testbox:dev", command: [sh, -c, "echo one > /shared/file"],
       volumeMounts: [{name: shared, mountPath: /shared}]}
    - {name: two, image: "localhost/testbox:dev", command: [sh, -c, "echo two >> /shared/file"],
       volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
    - name: main
      image: localhost/testbox:dev
      command: [sh, -c, "exec sleep 1000000"]
      startupProbe: {exec: {command: [cat, /shared/file]}, periodSeconds: 1}
      readinessProbe: {exec: {command: [test, -e, /shared/ready]}, periodSeconds: 1}
      livenessProbe: {exec: {command: [test, "!", -e, /shared/sick]}, periodSeconds: 1, failureThreshold: 1}
      volumeMounts: [{name: shared, mountPath: /shared}]
  volumes: [{name: shared, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  restartPolicy: Never
  containers: [{name: a, image: "localhost/testbox:dev", command: ["true"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: failed}
spec:
  restartPolicy: Never
  containers: [{name: a, image: "localhost/testbox:dev", command: [sh, -c, "exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: crashing}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: a, image: "localhost/testbox:dev", command: [sh, -c, "exit 1"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
    - name: a
      image: localhost/testbox:dev
      command: [sh, -c, "x=x; while true; do x=$x$x; done"]
      resources: {limits: {memory: 32Mi}}
"#,
    )?;
    // Started, but not ready until the file is there.
    space.wait("the pod runs", 60, || {
        let phase = space.kubectl(&["get", "pod", "stages", "-o", "jsonpath={.status.phase}"])?;
        Ok((phase == "Running").then_some(()))
    })?;
    let file = space.exec("stages", &["cat", "/shared/file"])?;
    ensure!(file == "one\ntwo\n", "init containers: {file:?}");
    let pod = space.pod("stages")?;
    ensure!(
        !crate::support::is_ready(&pod),
        "ready too early: {}",
        shown(&pod)
    );
    space.exec("stages", &["touch", "/shared/ready"])?;
    space.ready("app=stages", 1)?;
    // Sick once: the container is restarted, the pod and its volume stay.
    space.exec("stages", &["touch", "/shared/sick"])?;
    space.wait("the container is restarted", 60, || {
        let pod = space.pod("stages")?;
        let restarts = pod
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().flatten());
        Ok((restarts.map(|s| s.restart_count).sum::<i32>() >= 1).then_some(()))
    })?;

    let state = |pod: &str, path: &str| {
        space.kubectl(&[
            "get",
            "pod",
            pod,
            "-o",
            &format!("jsonpath={{.status.{path}}}"),
        ])
    };
    for (pod, path, wanted) in [
        ("done", "phase", "Succeeded"),
        ("failed", "phase", "Failed"),
        (
            "failed",
            "containerStatuses[0].state.terminated.exitCode",
            "3",
        ),
        (
            "crashing",
            "containerStatuses[0].state.waiting.reason",
            "CrashLoopBackOff",
        ),
        (
            "greedy",
            "containerStatuses[0].state.terminated.reason",
            "OOMKilled",
        ),
    ] {
        space.wait(&format!("{pod} has {path} {wanted}"), 60, || {
            let now = state(pod, path)?;
            ensure!(now == wanted, "it is `{now}`");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

pub fn unsupported(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("unsupported")?;
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: image}
spec:
  containers: [{name: a, image: "localhost/testbox:dev"}]
  volumes: [{name: v, nfs: {server: nowhere, path: /}}]
"#,
    )?;
    space.wait("the pod fails and an Event names the field", 40, || {
        let phase = space.kubectl(&["get", "pod", "image", "-o", "jsonpath={.status.phase}"])?;
        let events = space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
        ensure!(
            phase == "Failed" && events.contains("spec.volumes[0].nfs"),
            "phase {phase}, events {events}"
        );
        Ok(Some(()))
    })?;
    // The node goes on with others.
    space.apply(&client("fine", "app: fine", None))?;
    space.ready("app=fine", 1).map(drop)
}
