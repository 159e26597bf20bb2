//! NetworkPolicy, seen from pods.

use crate::support::{Suite, client, servers, target};
use anyhow::ensure;

const DENY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

const ALLOW: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {may: ask}}}]
      ports: [{protocol: TCP, port: tcp}]
";

pub fn deny_and_allow(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("policy")?;
    space.apply(&servers("web", 2))?;
    space.apply(&client("friend", "app: friend, may: ask", Some("node1")))?;
    space.apply(&client("stranger", "app: stranger", Some("node2")))?;
    let pods = space.ready("app=web", 2)?;
    space.ready("app in (friend, stranger)", 2)?;
    let mut targets = Vec::new();
    for pod in &pods {
        for ip in &pod.ips {
            targets.push((target(ip, 9090), target(ip, 9091)));
        }
    }
    for ip in space.service_ips("web")? {
        targets.push((target(&ip, 90), target(&ip, 91)));
    }
    for (tcp, udp) in &targets {
        for from in ["friend", "stranger"] {
            space.probe_until(from, "tcp", tcp, None)?;
            space.probe_until(from, "udp", udp, None)?;
        }
    }

    space.apply(DENY)?;
    for (tcp, udp) in &targets {
        for from in ["friend", "stranger"] {
            space.probe_until(from, "tcp", tcp, Some("timeout"))?;
            space.probe_until(from, "udp", udp, Some("timeout"))?;
        }
    }

    // The allow names one port of one protocol, and one client.
    space.apply(ALLOW)?;
    for (tcp, udp) in &targets {
        space.probe_until("friend", "tcp", tcp, None)?;
        space.probe_until("friend", "udp", udp, Some("timeout"))?;
        space.probe_until("stranger", "tcp", tcp, Some("timeout"))?;
    }

    // A pod that starts under the policy never had a moment without it.
    space.apply(&client("late", "app: late", None))?;
    space.ready("app=late", 1)?;
    let answer = space.probe(
        "late",
        "tcp",
        &targets[0].0,
        &["--count", "3", "--timeout", "300"],
    )?;
    ensure!(answer["ok"] == 0, "a new pod slipped through: {answer}");

    // A label makes a friend of the stranger.
    space.kubectl(&["label", "pod", "stranger", "may=ask"])?;
    space.probe_until("stranger", "tcp", &targets[0].0, None)?;

    space.kubectl(&["delete", "networkpolicy", "deny", "allow"])?;
    for (tcp, udp) in &targets {
        space.probe_until("late", "tcp", tcp, None)?;
        space.probe_until("late", "udp", udp, None)?;
    }
    Ok(())
}

pub fn egress(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("egress")?;
    space.apply(&servers("web", 1))?;
    space.apply(&servers("other", 1))?;
    space.apply(&client("client", "app: client", None))?;
    let web = space.ready("app=web", 1)?.swap_remove(0);
    let other = space.ready("app=other", 1)?.swap_remove(0);
    space.ready("app=client", 1)?;
    let web_target = target(web.ip(false)?, 9090);
    let other_target = target(other.ip(false)?, 9090);
    space.probe_until("client", "tcp", &other_target, None)?;
    space.apply(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: web}}}]
",
    )?;
    space.probe_until("client", "tcp", &other_target, Some("timeout"))?;
    space.probe_until("client", "tcp", &web_target, None)?;
    // A block that covers the other pod's address opens the way to it.
    space.apply(&format!(
        r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: block}}
spec:
  podSelector: {{matchLabels: {{app: client}}}}
  policyTypes: [Egress]
  egress:
    - to: [{{ipBlock: {{cidr: {}/32}}}}]
",
        other.ip(false)?
    ))?;
    space.probe_until("client", "tcp", &other_target, None)?;
    // Replies to the client's own connections always come through; new ones to it do too.
    space.probe_until("client", "tcp", &web_target, None)
}
