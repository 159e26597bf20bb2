//! DaemonSets on every node, and evictions that a disruption budget bounds.

use crate::support::{Suite, servers};
use anyhow::ensure;
use std::collections::BTreeSet;

fn daemons(image_env: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: eyes, annotations: {{kubernetes.io/change-cause: round {image_env}}}}}
spec:
  selector: {{matchLabels: {{app: eyes}}}}
  updateStrategy: {{type: RollingUpdate, rollingUpdate: {{maxUnavailable: 1}}}}
  template:
    metadata: {{labels: {{app: eyes}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: eyes
          image: localhost/testbox:dev
          imagePullPolicy: IfNotPresent
          command: [sleep, "1000"]
          env: [{{name: ROUND, value: "{image_env}"}}]
"#
    )
}

pub fn daemon_sets(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("daemons")?;
    let has = |arguments: &[&str], words: &[&str]| -> anyhow::Result<String> {
        let text = space.kubectl(arguments)?;
        for word in words {
            let what = arguments.join(" ");
            ensure!(
                text.contains(word),
                "kubectl {what}: no `{word}` in:\n{text}"
            );
        }
        Ok(text)
    };
    let status = ["rollout", "status", "daemonset/eyes", "--timeout=90s"];
    space.apply(&daemons("1"))?;
    has(&status, &["successfully rolled out"])?;
    let nodes: BTreeSet<String> = space
        .ready("app=eyes", 2)?
        .into_iter()
        .map(|place| place.node)
        .collect();
    ensure!(nodes.len() == 2, "one on each node: {nodes:?}");
    has(&["get", "daemonset", "eyes"], &["DESIRED", "NODE SELECTOR"])?;
    has(&["get", "all"], &["daemonset.apps/eyes", "pod/eyes-"])?;

    space.apply(&daemons("2"))?;
    has(&status, &["successfully rolled out"])?;
    has(
        &["rollout", "history", "daemonset/eyes"],
        &["round 1", "round 2"],
    )?;
    has(
        &["rollout", "undo", "daemonset/eyes", "--to-revision=1"],
        &["rolled back"],
    )?;
    has(&status, &["successfully rolled out"])?;
    let round = [
        "get",
        "daemonset",
        "eyes",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].env[0].value}",
    ];
    ensure!(space.kubectl(&round)? == "1", "the first template is back");
    // A pod that goes comes back on its node.
    let first = space.ready("app=eyes", 2)?.remove(0);
    space.kubectl(&["delete", "pod", &first.pod])?;
    let back = space.ready("app=eyes", 2)?;
    ensure!(
        back.iter()
            .any(|place| place.node == first.node && place.pod != first.pod),
        "no new pod on {}",
        first.node
    );
    space.kubectl(&["delete", "daemonset", "eyes"])?;
    Ok(())
}

pub fn budgets(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("budgets")?;
    space.apply(&servers("web", 2))?;
    let pods = space.ready("app=web", 2)?;
    space.apply(
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec:\n  minAvailable: 2\n  selector: {matchLabels: {app: web}}\n",
    )?;
    let wait = [
        "wait",
        "pdb/web",
        "--for=jsonpath={.status.currentHealthy}=2",
        "--timeout=30s",
    ];
    space.kubectl(&wait)?;
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/eviction",
        space.name, pods[0].pod
    );
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{}"}}}}"#,
        pods[0].pod
    );
    let refused = space.kubectl_stdin(&["create", "--raw", &path, "-f", "-"], &eviction)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success()
            && said.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{said}"
    );
    // With room for one, the node is drained, and the pod is made again elsewhere.
    let patch = r#"{"spec":{"minAvailable":1}}"#;
    space.kubectl(&["patch", "pdb", "web", "--type=merge", "-p", patch])?;
    let node = pods[0].node.clone();
    let drained = space.kubectl(&[
        "drain",
        &node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--pod-selector=app=web",
        "--timeout=90s",
    ]);
    let uncordoned = space.kubectl(&["uncordon", &node]);
    let drained = drained?;
    uncordoned?;
    ensure!(drained.contains("drained"), "{drained}");
    space.ready("app=web", 2)?;
    space.kubectl(&["delete", "pdb,deployment,service", "--all"])?;
    Ok(())
}
