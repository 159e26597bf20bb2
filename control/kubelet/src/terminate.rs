//! Ending a pod: hooks, signals, sandbox, files, and at last the API object.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cri::CriError;
use crate::events::NORMAL;
use crate::hooks::{self, Stop};
use crate::kubelet::Kubelet;
use crate::probes::ProbeSet;
use crate::pure::model::{ContainerRecord, RunState};
use crate::pure::plan::Role;
use crate::pure::resources::is_sidecar;
use crate::sandbox::meta;
use crate::snapshot::{self, Snapshot};
use crate::worker::{Desired, Worker, find};

fn seconds_left(deadline: Instant) -> i64 {
    // Rounded up: a grace period of one second is one second.
    deadline
        .saturating_duration_since(Instant::now())
        .as_millis()
        .div_ceil(1000) as i64
}

/// Stops all running containers by the deadline: regular and init ones together, then sidecars, the
/// last one first.
pub async fn stop_containers(
    k: &Arc<Kubelet>,
    pod: &Pod,
    snap: &Snapshot,
    deadline: Instant,
    run_hook: bool,
) -> Result<(), CriError> {
    let no_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let ip = snap
        .runtime
        .current()
        .and_then(|s| s.ips.first())
        .map(String::as_str);
    let sidecar_position = |r: &ContainerRecord| match find(spec, &r.name) {
        (Role::Init, Some(c)) if is_sidecar(c) => spec
            .init_containers
            .iter()
            .flatten()
            .position(|o| o.name == c.name),
        _ => None,
    };
    let running = || {
        snap.runtime
            .containers
            .iter()
            .filter(|r| r.state == RunState::Running)
    };
    let stop = |r: &ContainerRecord| {
        let (role, container) = find(spec, &r.name);
        let field = crate::container::field_path(role, &r.name);
        if run_hook {
            k.events.pod(
                pod,
                field.clone(),
                NORMAL,
                "Killing",
                format!("Stopping container {}", r.name),
            );
        }
        let id = r.id.clone();
        async move {
            let grace = seconds_left(deadline);
            hooks::stop(
                k,
                &Stop {
                    pod,
                    container,
                    id: &id,
                    pod_ip: ip,
                    field,
                    grace,
                    run_hook,
                },
            )
            .await
        }
    };
    let others = running()
        .filter(|r| sidecar_position(r).is_none())
        .map(&stop);
    for r in join_all(others).await {
        r?;
    }
    let mut sidecars: Vec<(usize, &ContainerRecord)> = running()
        .filter_map(|r| sidecar_position(r).map(|p| (p, r)))
        .collect();
    sidecars.sort_by_key(|(p, _)| std::cmp::Reverse(*p));
    for (_, r) in sidecars {
        stop(r).await?;
    }
    Ok(())
}

impl Worker {
    /// Takes the pod down; when this returns nothing of it is left.
    pub(crate) async fn terminate(&mut self, desired: &Desired) -> Result<(), CriError> {
        let mut desired = desired.clone();
        let pod = desired.pod.clone();
        info!(
            pod = pod.metadata.name,
            namespace = pod.metadata.namespace,
            grace = desired.grace(),
            gone = desired.gone,
            "stopping the pod"
        );
        let ended = matches!(
            pod.status.as_ref().and_then(|s| s.phase.as_deref()),
            Some("Succeeded" | "Failed")
        );
        let mut deadline = Instant::now() + Duration::from_secs(desired.grace() as u64);
        // A container that is stopped on purpose isn't unhealthy.
        self.probes.stop();
        let mut run_hook = true;
        let mut snap;
        loop {
            snap = snapshot::take(&self.k.cri, &self.uid).await?;
            if !snap
                .runtime
                .containers
                .iter()
                .any(|c| c.state == RunState::Running)
            {
                break;
            }
            let k = self.k.clone();
            let stopping = stop_containers(&k, &pod, &snap, deadline, run_hook);
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    r = &mut stopping => {
                        r?;
                        break;
                    }
                    changed = self.rx.changed() => {
                        if changed.is_err() {
                            continue;
                        }
                        let now = self.rx.borrow_and_update().clone();
                        let sooner = Instant::now() + Duration::from_secs(now.grace() as u64);
                        let hurry = sooner < deadline && now.grace() < desired.grace();
                        desired = now;
                        if hurry {
                            // `kubectl delete --grace-period=1 --force`, or the API has forgotten it.
                            deadline = sooner;
                            break;
                        }
                    }
                    () = self.wake.notified() => {
                        if !ended && let Ok(now) = snapshot::take(&self.k.cri, &self.uid).await {
                            self.publish(&now);
                        }
                    }
                }
            }
            // A hook runs once.
            run_hook = false;
        }
        self.probes = ProbeSet::default();
        self.terminal = true;
        if !desired.gone && !ended {
            self.publish(&snap);
        }
        for s in &snap.runtime.sandboxes {
            self.k.cri.stop_sandbox(&s.id).await?;
        }
        if !desired.gone {
            tokio::select! {
                () = self.writer.flush() => {}
                // The API may forget the pod before it takes the status.
                () = tokio::time::sleep(Duration::from_secs(30)) => {}
            }
        }
        for c in &snap.runtime.containers {
            self.k.cri.remove_container(&c.id).await?;
        }
        for s in &snap.runtime.sandboxes {
            self.k.cri.remove_sandbox(&s.id).await?;
        }
        self.remove_files(&pod).await;
        if !desired.gone {
            self.delete_object(&pod).await;
        }
        Ok(())
    }

    /// Volumes, cgroups and logs. A cgroup is busy for a moment after its last process.
    async fn remove_files(&self, pod: &Pod) {
        let mut problem = None;
        for _ in 0..50 {
            match self.clean_up() {
                Ok(()) => {
                    problem = None;
                    break;
                }
                Err(why) => problem = Some(why),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if let Some(why) = problem {
            warn!(
                uid = self.uid,
                why, "something of the pod stays behind; the next clean-up tries again"
            );
        }
        let (namespace, name, uid) = meta(pod);
        let logs = self.k.config.pod_log_dir(namespace, name, uid);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, dir = %logs.display(), "cannot remove the pod's logs");
        }
    }

    /// The last step of a graceful deletion.
    async fn delete_object(&mut self, pod: &Pod) {
        let (namespace, name, uid) = meta(pod);
        let api: Api<Pod> = Api::namespaced(self.k.client.clone(), namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_string()),
                resource_version: None,
            }),
            ..Default::default()
        };
        let mut wait = Duration::from_millis(100);
        loop {
            match api.delete(name, &params).await {
                Ok(_) => return,
                Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) => return,
                Err(error) => {
                    warn!(%error, pod = name, namespace, "cannot delete the pod from the API, trying again")
                }
            }
            if self.rx.borrow().gone {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }
}
