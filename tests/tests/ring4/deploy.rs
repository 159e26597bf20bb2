//! The manifests of `deploy/` apply as they are, in both ways of kubectl, and go again.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::support::Suite;

/// The nodes' agents are not the DaemonSet's.
const EXTERNAL: &str = "rhumb.io/agent=external";

/// Takes the label away again.
struct Labelled<'a>(&'a Suite);

impl Drop for Labelled<'_> {
    fn drop(&mut self) {
        let arguments = ["label", "nodes", "--all", "rhumb.io/agent-"];
        if let Err(error) = self.0.cluster.kubectl_run(&arguments) {
            eprintln!("{error:#}");
        }
    }
}

pub fn manifests(suite: &Suite) -> anyhow::Result<()> {
    let kubectl = |arguments: &[&str]| suite.cluster.kubectl_run(arguments);
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    kubectl(&["label", "nodes", "--all", EXTERNAL])?;
    let _labelled = Labelled(suite);
    for file in ["agent.yaml", "examples"] {
        let path = deploy.join(file);
        let path = path.to_str().context("a path that is no text")?;
        for mode in [&[][..], &["--server-side"]] {
            let with = |arguments: &[&str]| kubectl(&[arguments, mode].concat());
            // Every field is known: strict validation is kubectl's default, and warns of none.
            with(&["apply", "-f", path, "--dry-run=server"])
                .or_else(|error| namespace_first(error, mode))?;
            let first = with(&["apply", "-f", path])?;
            ensure!(!first.contains("unchanged"), "{first}");
            let again = with(&["apply", "-f", path])?;
            let told = match mode.is_empty() {
                true => " unchanged",
                false => " serverside-applied",
            };
            for line in again.lines() {
                ensure!(line.ends_with(told), "{path} {mode:?}: {line}");
            }
            let difference = with(&["diff", "-f", path])?;
            ensure!(difference.is_empty(), "{path} {mode:?}: {difference}");
            if file == "agent.yaml" {
                let sets = ["-n", "kube-system", "get", "daemonset", "rhumb-agent"];
                let wanted =
                    "-o=jsonpath={.status.observedGeneration} {.status.desiredNumberScheduled}";
                let seen = || kubectl(&[&sets[..], &[wanted]].concat());
                rhumb_harness::wait_for(
                    "the DaemonSet leaves the nodes alone",
                    std::time::Duration::from_secs(20),
                    || Ok((seen()? == "1 0").then_some(())),
                )?;
            }
            kubectl(&["delete", "-f", path, "--timeout=60s"])?;
        }
    }
    Ok(())
}

/// A dry run makes no namespace, so what is in one of the manifest's own is refused. That alone.
fn namespace_first(error: anyhow::Error, mode: &[&str]) -> anyhow::Result<String> {
    let text = format!("{error:#}");
    ensure!(
        text.contains("namespaces \"demo\" not found"),
        "{mode:?}: {text}"
    );
    Ok(text)
}
