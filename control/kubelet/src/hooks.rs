//! Lifecycle hooks, and stopping a container with its preStop hook.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::Instant;
use tracing::warn;

use crate::cri::CriError;
use crate::events::WARNING;
use crate::http_get;
use crate::kubelet::Kubelet;

/// What a container gets to stop even if its hook took the whole grace period.
const MINIMUM_GRACE: i64 = 2;

/// Runs a hook to its end; an error says why it failed.
pub async fn run(
    k: &Kubelet,
    c: &Container,
    hook: &LifecycleHandler,
    id: &str,
    pod_ip: Option<&str>,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let r = k
            .cri
            .exec_sync(id, &command, Duration::ZERO)
            .await
            .map_err(|e| e.to_string())?;
        if r.exit_code != 0 {
            let output = String::from_utf8_lossy(if r.stderr.is_empty() {
                &r.stdout
            } else {
                &r.stderr
            })
            .into_owned();
            return Err(format!(
                "command '{}' exited with {}: {output}",
                command.join(" "),
                r.exit_code
            ));
        }
    } else if let Some(action) = &hook.http_get {
        // Any answer below 400 will do; a hook has no time-out of its own.
        let answer = http_get::get(c, action, pod_ip).await?;
        if answer.code >= 400 {
            return Err(format!("HTTP hook answered {}", answer.code));
        }
    } else if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
    }
    Ok(())
}

/// A container to stop.
#[derive(Clone)]
pub struct Stop<'a> {
    pub pod: &'a Pod,
    /// Its spec, if the pod still has one of that name.
    pub container: Option<&'a Container>,
    pub id: &'a str,
    pub pod_ip: Option<&'a str>,
    pub field: Option<String>,
    /// Seconds, the preStop hook included.
    pub grace: i64,
    pub run_hook: bool,
}

/// preStop, SIGTERM, and SIGKILL when the grace period is over.
pub async fn stop(k: &Kubelet, s: &Stop<'_>) -> Result<(), CriError> {
    let began = Instant::now();
    let mut grace = s.grace.max(0);
    let hook = s.container.and_then(|c| {
        c.lifecycle
            .as_ref()
            .and_then(|l| l.pre_stop.as_ref())
            .map(|h| (c, h))
    });
    if let Some((c, hook)) = hook.filter(|_| s.run_hook && grace > 0) {
        let limit = Duration::from_secs(grace as u64);
        match tokio::time::timeout(limit, run(k, c, hook, s.id, s.pod_ip)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => k.events.pod(
                s.pod,
                s.field.clone(),
                WARNING,
                "FailedPreStopHook",
                format!("PreStopHook failed: {why}"),
            ),
            Err(_) => warn!(
                container = c.name,
                "preStop hook did not end within the grace period"
            ),
        }
        grace = (grace - began.elapsed().as_secs() as i64).max(MINIMUM_GRACE);
    }
    k.cri.stop_container(s.id, grace).await
}
