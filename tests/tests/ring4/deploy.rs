//! The manifests of `deploy/` apply as they are, in both ways of kubectl, and go again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::support::Suite;

/// The nodes' agents are not the DaemonSet's.
const EXTERNAL: &str = "rhumb.io/agent=external";

const LIMIT: Duration = Duration::from_secs(20);

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

/// Deletes what a test that failed has left, which no other test may find.
struct Applied<'a>(&'a Suite, &'a [&'a str]);

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "--timeout=60s"];
        let arguments = [&delete[..], self.1].concat();
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
    // The examples in the order of their use: the first has the namespace of all.
    let examples = [
        "examples/web.yaml",
        "examples/clients.yaml",
        "examples/policy.yaml",
    ];
    for files in [&["agent.yaml"][..], &examples] {
        let paths: Vec<_> = files.iter().map(|file| deploy.join(file)).collect();
        let mut named = Vec::new();
        for path in &paths {
            named.extend(["-f", path.to_str().context("a path that is no text")?]);
        }
        let _applied = Applied(suite, &named);
        for mode in [&[][..], &["--server-side"]] {
            let with = |arguments: &[&str]| kubectl(&[arguments, &named, mode].concat());
            // Every field is known: strict validation is kubectl's default, and warns of none.
            with(&["apply", "--dry-run=server"]).or_else(|error| namespace_first(error, mode))?;
            with(&["apply"])?;
            let again = with(&["apply"])?;
            let told = match mode.is_empty() {
                true => " unchanged",
                false => " serverside-applied",
            };
            for line in again.lines() {
                ensure!(line.ends_with(told), "{files:?} {mode:?}: {line}");
            }
            // Controllers may be at work between the two looks that a diff takes.
            let mut shown = String::new();
            let diff = [&["diff"][..], &named, mode].concat();
            let same = rhumb_harness::wait_for("no difference is left", LIMIT, || {
                let output = suite.cluster.kubectl_output(&diff)?;
                shown = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok(output.status.success().then_some(()))
            });
            same.with_context(|| format!("{files:?} {mode:?}: {shown}"))?;
            if files.len() == 1 {
                let sets = ["-n", "kube-system", "get", "daemonset", "rhumb-agent"];
                let wanted =
                    "-o=jsonpath={.status.observedGeneration} {.status.desiredNumberScheduled}";
                let seen = || kubectl(&[&sets[..], &[wanted]].concat());
                rhumb_harness::wait_for("the DaemonSet leaves the nodes alone", LIMIT, || {
                    Ok((seen()? == "1 0").then_some(()))
                })?;
            }
            kubectl(&[&["delete", "--timeout=60s"][..], &named].concat())?;
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
