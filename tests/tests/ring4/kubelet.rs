//! What the kubelet does for pods beyond the everyday: sidecars and hooks, kinds of volumes, ways to
//! fail, sandboxes that die, exec streams.

use crate::support::{Space, Suite};
use anyhow::{Context, ensure};
use rhumb_harness::cluster::ctr;
use std::process::Stdio;

fn status(space: &Space<'_>, pod: &str, path: &str) -> anyhow::Result<String> {
    let path = format!("jsonpath={{.status.{path}}}");
    space.kubectl(&["get", "pod", pod, "-o", &path])
}

fn wait_status(space: &Space<'_>, pod: &str, path: &str, wanted: &str) -> anyhow::Result<()> {
    space.wait(&format!("{pod} has {path} {wanted}"), 60, || {
        let now = status(space, pod, path)?;
        ensure!(now == wanted, "it is `{now}`");
        Ok(Some(()))
    })
}

pub fn sidecars_and_hooks(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("sidecars")?;
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: job}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  initContainers:
    - name: side
      image: localhost/testbox:dev
      restartPolicy: Always
      command: [sh, -c, "trap 'exit 0' TERM; touch /shared/side; while true; do sleep 0.1; done"]
      startupProbe: {exec: {command: [test, -e, /shared/side]}, periodSeconds: 1}
      volumeMounts: [{name: shared, mountPath: /shared}]
    - name: after
      image: localhost/testbox:dev
      command: [sh, -c, "test -e /shared/side && echo after"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
    - name: main
      image: localhost/testbox:dev
      command: [sh, -c, "until test -e /shared/hook; do sleep 0.1; done; echo main ends"]
      lifecycle: {postStart: {exec: {command: [touch, /shared/hook]}}}
      volumeMounts: [{name: shared, mountPath: /shared}]
  volumes: [{name: shared, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
---
apiVersion: v1
kind: Pod
metadata: {name: polite, labels: {app: polite}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
    - name: main
      image: localhost/testbox:dev
      command: [sh, -c, "trap 'echo told to stop; exit 0' TERM; while true; do sleep 0.1; done"]
      lifecycle: {preStop: {exec: {command: [sh, -c, "echo before the signal > /proc/1/fd/1"]}}}
"#,
    )?;
    wait_status(&space, "job", "phase", "Succeeded")?;
    ensure!(
        space.kubectl(&["logs", "job", "-c", "after"])? == "after\n",
        "the second init container ran before the sidecar had started"
    );
    ensure!(
        space.kubectl(&["logs", "job", "-c", "main"])? == "main ends\n",
        "main's log"
    );
    wait_status(
        &space,
        "job",
        "initContainerStatuses[0].state.terminated.exitCode",
        "0",
    )?;
    // The hook runs before the signal, and a log that is followed ends with its container.
    space.ready("app=polite", 1)?;
    let follow = space
        .suite
        .cluster
        .kubectl()
        .args(["-n", &space.name, "logs", "-f", "polite"])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting kubectl logs -f")?;
    space.kubectl(&["delete", "pod", "polite"])?;
    let log = follow.wait_with_output()?.stdout;
    let log = String::from_utf8_lossy(&log);
    ensure!(
        log == "before the signal\ntold to stop\n",
        "the log is {log:?}"
    );
    Ok(())
}

pub fn volumes(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("volumes")?;
    space.apply(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {one: first, two: second}
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full, mark: old}}
spec:
  terminationGracePeriodSeconds: 0
  hostname: ship
  subdomain: fleet
  hostAliases: [{ip: 192.0.2.7, hostnames: [elsewhere]}]
  shareProcessNamespace: true
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [a.test], options: [{name: ndots, value: "2"}]}
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
    - name: main
      image: localhost/testbox:dev
      command: [sh, -c, "exec sleep 1000000"]
      env: [{name: KEY, value: two}]
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
        seccompProfile: {type: RuntimeDefault}
      volumeMounts:
        - {name: memory, mountPath: /memory}
        - {name: memory, mountPath: /part, subPath: deep/part}
        - {name: settings, mountPath: /file, subPath: one}
        - {name: settings, mountPath: /chosen, subPathExpr: $(KEY)}
        - {name: mixed, mountPath: /mixed}
        - {name: host, mountPath: /host, readOnly: true}
  volumes:
    - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: settings, configMap: {name: settings}}
    - {name: host, hostPath: {path: /proc/sys/kernel, type: Directory}}
    - name: mixed
      projected:
        sources:
          - {configMap: {name: settings, items: [{key: one, path: sub/renamed, mode: 256}]}}
          - {configMap: {name: absent, optional: true}}
          - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
          - {serviceAccountToken: {path: token, expirationSeconds: 600}}
"#,
    )?;
    space.ready("app=full", 1)?;
    let sh = |script: &str| space.exec("full", &["sh", "-c", script]);
    for (script, wanted) in [
        ("cat /file /chosen /mixed/sub/renamed", "firstsecondfirst"),
        ("touch /part/x && ls /memory/deep/part", "x\n"),
        ("df -k /memory | awk 'NR==2 {print $2}'", "1024\n"),
        ("stat -c %g /part/x", "2000\n"),
        ("stat -L -c %a /mixed/token", "640\n"),
        ("hostname", "ship\n"),
        (
            "grep -c 'ship.fleet.volumes.svc.cluster.local' /etc/hosts",
            "2\n",
        ),
        ("grep elsewhere /etc/hosts", "192.0.2.7\telsewhere\n"),
        (
            "grep -E 'nameserver|search|options' /etc/resolv.conf",
            "search a.test\nnameserver 192.0.2.53\noptions ndots:2\n",
        ),
        (
            "awk '/^NoNewPrivs|^Seccomp:|^CapEff/ {print $2}' /proc/self/status",
            "0000000000000000\n1\n2\n",
        ),
        ("cat /proc/1/cmdline | tr '\\0' ' '", "/pause "),
        ("touch /host/x 2>/dev/null || echo refused", "refused\n"),
    ] {
        let got = sh(script)?;
        ensure!(
            got == wanted,
            "`{script}` gives {got:?} rather than {wanted:?}"
        );
    }
    // Too much for the limit of a volume in memory: the writer is told.
    let big = sh("head -c 2000000 /dev/zero > /memory/big 2>/dev/null || echo full")?;
    ensure!(big == "full\n", "{big:?}");
    space.kubectl(&["label", "pod", "full", "mark=new", "--overwrite"])?;
    space.wait("the volume shows the new label", 30, || {
        Ok(sh("cat /mixed/labels")?
            .contains("mark=\"new\"")
            .then_some(()))
    })
}

pub fn ways_to_fail(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("failing")?;
    let pod = |name: &str, spec: &str, container: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
             terminationGracePeriodSeconds: 1\n{spec}  containers:\n    - {{name: a, image: \"localhost/testbox:dev\", {container}}}\n"
        )
    };
    let sleep = "command: [sleep, \"1000000\"]";
    let manifest = [
        pod("late", "  activeDeadlineSeconds: 2\n", sleep),
        pod(
            "hungry",
            "  volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]\n",
            "command: [sh, -c, \"head -c 9000000 /dev/zero > /v/x; exec sleep 1000000\"], volumeMounts: [{name: v, mountPath: /v}]",
        ),
        pod("root", "  securityContext: {runAsNonRoot: true, runAsUser: 0}\n", sleep),
        pod("tuned", "  securityContext: {sysctls: [{name: kernel.msgmax, value: \"1\"}]}\n", sleep),
        pod("unset", "", &format!("{sleep}, env: [{{name: X, valueFrom: {{configMapKeyRef: {{name: later, key: k}}}}}}]")),
        pod("written", "", "command: [sh, -c, \"echo why > /dev/termination-log; exit 3\"]"),
        pod("said", "", "terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, \"echo so; exit 4\"]"),
        pod("nameless", "", "command: [/no/such/program]"),
        pod("badname", "", sleep).replace("localhost/testbox:dev", "Not A Name"),
    ]
    .concat();
    space.apply(&manifest)?;
    let waiting = "containerStatuses[0].state.waiting.reason";
    let message = "containerStatuses[0].state.terminated.message";
    for (pod, path, wanted) in [
        ("late", "reason", "DeadlineExceeded"),
        ("late", "phase", "Failed"),
        ("hungry", "reason", "Evicted"),
        ("root", waiting, "CreateContainerConfigError"),
        ("tuned", "reason", "SysctlForbidden"),
        ("unset", waiting, "CreateContainerConfigError"),
        ("written", message, "why\n"),
        ("said", message, "so\n"),
        ("nameless", "phase", "Failed"),
        ("badname", waiting, "InvalidImageName"),
    ] {
        wait_status(&space, pod, path, wanted)?;
    }
    // What was missing comes, and the container starts.
    space.kubectl(&["create", "configmap", "later", "--from-literal=k=v"])?;
    wait_status(&space, "unset", "phase", "Running")?;
    let events = space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"])?;
    for reason in [
        "Created",
        "Started",
        "Failed",
        "InspectFailed",
        "DeadlineExceeded",
        "Evicted",
        "SysctlForbidden",
    ] {
        ensure!(
            events.split(' ').any(|r| r == reason),
            "no Event {reason}: {events}"
        );
    }
    Ok(())
}

pub fn probes_and_sandboxes(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("probes")?;
    space.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: localhost/testbox:dev
      command: [sh, -c, "echo ok > /www/ready; exec httpd -f -p 8080 -h /www"]
      ports: [{name: http, containerPort: 8080}]
      startupProbe: {tcpSocket: {port: http}, periodSeconds: 1}
      livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, failureThreshold: 1}
      volumeMounts: [{name: www, mountPath: /www}]
  volumes: [{name: www, emptyDir: {}}]
"#,
    )?;
    let place = space.ready("app=web", 1)?.remove(0);
    space.exec("web", &["mv", "/www/ready", "/www/away"])?;
    wait_status(&space, "web", "containerStatuses[0].ready", "false")?;
    ensure!(
        status(&space, "web", "containerStatuses[0].restartCount")? == "0",
        "readiness restarts nothing"
    );
    space.exec("web", &["mv", "/www/away", "/www/ready"])?;
    space.ready("app=web", 1)?;

    // The sandbox dies: another one, other containers, the same pod and volume.
    let node = suite
        .cluster
        .nodes
        .iter()
        .find(|n| n.name == place.node)
        .with_context(|| format!("no node {}", place.node))?;
    let uid = space.pod("web")?.metadata.uid.context("a pod has a uid")?;
    let filter = format!(
        "labels.\"io.kubernetes.pod.uid\"=={uid},labels.\"io.cri-containerd.kind\"==sandbox"
    );
    let output = ctr(node)
        .args(["containers", "list", "-q", &filter])
        .output()?;
    let sandbox = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(!sandbox.is_empty(), "no sandbox of {uid}: {output:?}");
    let killed = ctr(node)
        .args(["tasks", "kill", "-s", "KILL", &sandbox])
        .output()?;
    ensure!(killed.status.success(), "{killed:?}");
    space.wait("the container was started again", 60, || {
        let now = status(&space, "web", "containerStatuses[0].restartCount")?;
        ensure!(now == "1", "restarts: {now}");
        Ok(Some(()))
    })?;
    let again = space.ready("app=web", 1)?.remove(0);
    ensure!(again.pod == place.pod, "another pod");
    let events = space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"])?;
    ensure!(
        events.contains("SandboxChanged") && events.contains("Unhealthy"),
        "Events: {events}"
    );

    // Gone from the API at once, from the node soon.
    space.kubectl(&["delete", "pod", "web", "--force", "--grace-period=0"])?;
    space.wait("the node has nothing of the pod", 30, || {
        let filter = format!("labels.\"io.kubernetes.pod.uid\"=={uid}");
        let output = ctr(node)
            .args(["containers", "list", "-q", &filter])
            .output()?;
        ensure!(output.stdout.is_empty(), "{output:?}");
        ensure!(
            !node.kubelet_dir().join("pods").join(&uid).exists(),
            "its files are there"
        );
        Ok(Some(()))
    })
}

pub fn exec_streams(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("exec")?;
    space.apply(&crate::support::client("shell", "app: shell", None))?;
    space.ready("app=shell", 1)?;
    // Both directions at once, more than any pipe or window holds, and its end.
    let data: String = (0..200_000).map(|i| format!("{i:07}\n")).collect();
    let output = space.kubectl_stdin(&["exec", "-i", "shell", "--", "cat"], &data)?;
    ensure!(
        output.stdout == data.as_bytes(),
        "{} bytes came back",
        output.stdout.len()
    );
    let output = space.kubectl_stdin(&["exec", "-i", "shell", "--", "wc", "-c"], &data)?;
    ensure!(
        String::from_utf8_lossy(&output.stdout).trim() == "1600000",
        "{output:?}"
    );
    let output = space.kubectl_output(&["exec", "shell", "--", "no-such-program"])?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && error.contains("executable file not found"),
        "{error}"
    );
    // A child in the background doesn't hold the command up.
    let output = space.exec("shell", &["sh", "-c", "sleep 1000 & echo begun"])?;
    ensure!(output == "begun\n", "{output:?}");
    // A client that goes away takes its process along.
    let mut client = space
        .suite
        .cluster
        .kubectl()
        .args(["-n", &space.name, "exec", "shell", "--", "sleep", "424242"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting kubectl exec")?;
    let seen =
        || -> anyhow::Result<bool> { Ok(space.exec("shell", &["ps"])?.contains("sleep 424242")) };
    let began = space.wait("the command runs", 20, || Ok(seen()?.then_some(())));
    client.kill()?;
    client.wait()?;
    began?;
    space.wait("the command is gone with its client", 20, || {
        Ok((!seen()?).then_some(()))
    })
}
