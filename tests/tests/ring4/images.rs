//! Images come from a registry inside the wire's namespace.

use crate::support::Suite;
use anyhow::ensure;
use rhumb_harness::cluster::PULLED;

pub fn pull(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("images")?;
    let pod = |name: &str, image: &str, policy: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: a, image: "{image}", imagePullPolicy: {policy}, command: [sleep, "1000000"]}}
"#
        )
    };
    space.apply(&pod("pulled", PULLED, "Always"))?;
    space.ready("app=pulled", 1)?;
    let mark = space.exec("pulled", &["cat", "/etc/mark"])?;
    ensure!(mark == "pulled", "the image is another one: {mark}");

    // An image that is not there, first ErrImagePull, then ImagePullBackOff; and one that may not
    // be pulled.
    let missing = PULLED.replace("pulled:v1", "missing:v1");
    space.apply(&pod("missing", &missing, "IfNotPresent"))?;
    space.apply(&pod("never", &missing, "Never"))?;
    let reason = |name: &str| -> anyhow::Result<String> {
        space.kubectl(&[
            "get",
            "pod",
            name,
            "-o",
            "jsonpath={.status.containerStatuses[0].state.waiting.reason}",
        ])
    };
    space.wait("the missing image is backed off from", 60, || {
        let now = reason("missing")?;
        ensure!(now == "ImagePullBackOff", "the reason is `{now}`");
        Ok(Some(()))
    })?;
    space.wait("the image that may not be pulled is reported", 30, || {
        let now = reason("never")?;
        ensure!(now == "ErrImageNeverPull", "the reason is `{now}`");
        Ok(Some(()))
    })?;
    let events = space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"])?;
    for reason in ["Pulling", "Pulled", "Failed", "BackOff"] {
        ensure!(events.contains(reason), "no Event {reason}: {events}");
    }
    Ok(())
}
