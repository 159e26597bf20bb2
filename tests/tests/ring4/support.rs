//! What the tests of the ring share: the cluster, namespaces that clean up, pods and probes.

use crate::baseline::Baseline;
use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rhumb_harness::cluster::Cluster;
use serde_json::Value;
use std::future::Future;
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

/// The cluster and what belongs to it.
pub struct Suite {
    /// The cluster.
    pub cluster: Cluster,
    /// What the nodes looked like before any test.
    pub baseline: Baseline,
    runtime: tokio::runtime::Runtime,
    client: kube::Client,
}

impl Suite {
    /// Takes note of the start.
    pub fn new(cluster: Cluster) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Runtime::new().context("starting a runtime")?;
        let kubeconfig = Kubeconfig::read_from(cluster.layout.kubeconfig())?;
        let client = runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            anyhow::Ok(kube::Client::try_from(config)?)
        })?;
        let baseline = Baseline::settled(&cluster)?;
        Ok(Self {
            cluster,
            baseline,
            runtime,
            client,
        })
    }

    /// A kube-rs client of the administrator.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Runs a future.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Makes a Kubernetes namespace for one test.
    pub fn space(&self, name: &str) -> anyhow::Result<Space<'_>> {
        self.cluster.kubectl_run(&["create", "namespace", name])?;
        let space = Space {
            suite: self,
            name: name.to_owned(),
        };
        // Pods need the service account that a controller makes.
        space.wait("the default service account is there", 20, || {
            space
                .kubectl(&["get", "serviceaccount", "default"])
                .map(Some)
        })?;
        Ok(space)
    }

    /// What someone who looks at a failure wants to see.
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        for arguments in [
            &["get", "pods,services,endpointslices", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ] {
            let output = self.cluster.kubectl_run(arguments);
            let output = output.unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<_> = output.lines().collect();
            text.push_str(&lines[lines.len().saturating_sub(25)..].join("\n"));
            text.push('\n');
        }
        text.push_str(&self.cluster.log_tails());
        text
    }
}

/// A Kubernetes namespace of one test; dropping it deletes it.
pub struct Space<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// Its name.
    pub name: String,
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        let deleted =
            self.suite
                .cluster
                .kubectl_run(&["delete", "namespace", &self.name, "--wait=false"]);
        if let Err(error) = deleted {
            eprintln!("{error:#}");
        }
    }
}

/// Where a pod is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The pod's name.
    pub pod: String,
    /// Its node's name.
    pub node: String,
    /// Its addresses, the first one first.
    pub ips: Vec<String>,
}

impl Place {
    /// The pod's address of one family.
    pub fn ip(&self, v6: bool) -> anyhow::Result<&str> {
        self.ips
            .iter()
            .find(|ip| ip.contains(':') == v6)
            .map(String::as_str)
            .with_context(|| format!("{} has no such address: {:?}", self.pod, self.ips))
    }
}

impl Space<'_> {
    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.suite
            .cluster
            .kubectl_run(&[&["-n", &self.name], arguments].concat())
    }

    /// Runs kubectl in the namespace, whatever comes of it.
    pub fn kubectl_output(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.suite
            .cluster
            .kubectl_output(&[&["-n", &self.name], arguments].concat())
    }

    /// Runs kubectl with something on its standard input.
    pub fn kubectl_stdin(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut child = self
            .suite
            .cluster
            .kubectl()
            .args(["-n", &self.name])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl's standard input")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        let output = self.kubectl_stdin(&["apply", "-f", "-"], manifest)?;
        ensure!(
            output.status.success(),
            "kubectl apply: {}\n{manifest}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits for a condition.
    pub fn wait<T>(
        &self,
        what: &str,
        seconds: u64,
        condition: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        rhumb_harness::wait_for(
            &format!("{what} (namespace {})", self.name),
            Duration::from_secs(seconds),
            condition,
        )
    }

    /// A typed API of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.suite.client(), &self.name)
    }

    /// The pods of a selector.
    pub fn pods(&self, selector: &str) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = self.api();
        let list = ListParams::default().labels(selector);
        Ok(self.suite.block_on(api.list(&list))?.items)
    }

    /// One pod.
    pub fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        let api: Api<Pod> = self.api();
        Ok(self.suite.block_on(api.get(name))?)
    }

    /// Waits until exactly so many pods of a selector are there, all of them Ready.
    pub fn ready(&self, selector: &str, count: usize) -> anyhow::Result<Vec<Place>> {
        let what = format!("{count} pods of {selector} are Ready");
        self.wait(&what, 60, || {
            let pods = self.pods(selector)?;
            for pod in &pods {
                ensure!(is_ready(pod), "{}", shown(pod));
            }
            ensure!(pods.len() == count, "there are {} pods", pods.len());
            Ok(Some(pods.iter().map(place).collect()))
        })
    }

    /// The addresses of a Service.
    pub fn service_ips(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let api: Api<Service> = self.api();
        let service = self.suite.block_on(api.get(name))?;
        let ips = service.spec.and_then(|spec| spec.cluster_ips);
        let ips = ips.unwrap_or_default();
        ensure!(!ips.is_empty(), "service {name} has no address");
        Ok(ips)
    }

    /// Runs a command in a pod and gives what it printed.
    pub fn exec(&self, pod: &str, command: &[&str]) -> anyhow::Result<String> {
        self.kubectl(&[&["exec", pod, "--"], command].concat())
    }

    /// `netprobe connect … --summary` in a pod.
    pub fn probe(
        &self,
        pod: &str,
        protocol: &str,
        target: &str,
        options: &[&str],
    ) -> anyhow::Result<Value> {
        let command = [
            &[
                "exec",
                pod,
                "--",
                "netprobe",
                "connect",
                protocol,
                target,
                "--summary",
            ],
            options,
        ]
        .concat();
        let output = self.kubectl_output(&command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.trim()).with_context(|| {
            format!(
                "kubectl {}: {}",
                command.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })
    }

    /// Waits until a pod's probes of a target succeed, or fail with `error`.
    pub fn probe_until(
        &self,
        pod: &str,
        protocol: &str,
        target: &str,
        error: Option<&str>,
    ) -> anyhow::Result<()> {
        let what = match error {
            None => format!("{protocol} {target} answers {pod}"),
            Some(error) => format!("{protocol} {target} gives {pod} `{error}`"),
        };
        self.wait(&what, 15, || {
            let answer = self.probe(pod, protocol, target, &["--timeout", "400"])?;
            let got = answer["errors"].as_object().into_iter().flatten().next();
            if got.map(|(kind, _)| kind.as_str()) != error {
                bail!("{answer}");
            }
            Ok(Some(()))
        })
    }
}

/// Whether a pod is Ready and not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What keeps a pod, on one line.
pub fn shown(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = serde_json::to_string(&pod.status).unwrap_or_default();
    let leaving = pod.metadata.deletion_timestamp.is_some();
    format!(
        "pod {name}{}: {status}",
        if leaving { " (being deleted)" } else { "" }
    )
}

fn place(pod: &Pod) -> Place {
    let ips = pod
        .status
        .iter()
        .flat_map(|status| status.pod_ips.iter().flatten());
    Place {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        ips: ips.map(|ip| ip.ip.clone()).collect(),
    }
}

/// `address:port`, with the brackets that IPv6 wants.
pub fn target(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// A Deployment of echo servers (TCP 9090, UDP 9091, HTTP 8080) and a dual-stack Service of the
/// same name (TCP 90, UDP 91, HTTP 80).
pub fn servers(name: &str, replicas: usize) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: server
          image: localhost/testbox:dev
          imagePullPolicy: IfNotPresent
          command: [netprobe, serve, --tcp, "9090", --udp, "9091", --http, "8080"]
          ports:
            - {{name: http, containerPort: 8080}}
            - {{name: tcp, containerPort: 9090}}
            - {{name: udp, containerPort: 9091, protocol: UDP}}
          readinessProbe:
            tcpSocket: {{port: tcp}}
            periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ipFamilyPolicy: RequireDualStack
  ports:
    - {{name: http, port: 80, targetPort: http}}
    - {{name: tcp, port: 90, targetPort: tcp}}
    - {{name: udp, port: 91, targetPort: udp, protocol: UDP}}
"#
    )
}

/// A pod that sleeps and is asked to do things; `labels` as YAML, `node` if it matters.
pub fn client(name: &str, labels: &str, node: Option<&str>) -> String {
    let selector = node.map_or(String::new(), |node| {
        format!("\n  nodeSelector: {{kubernetes.io/hostname: {node}}}")
    });
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
  terminationGracePeriodSeconds: 0{selector}
  containers:
    - name: shell
      image: localhost/testbox:dev
      imagePullPolicy: IfNotPresent
      command: [sleep, "1000000"]
"#
    )
}
