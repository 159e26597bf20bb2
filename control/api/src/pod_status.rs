//! READY, STATUS and RESTARTS of a pod, as `kubectl get pods` shows them.
//! Source: `printPod` in Kubernetes' `pkg/printers/internalversion/printers.go`.

use jiff::Timestamp;
use serde_json::Value;

use crate::json::{at, flag, int, list, text};
use crate::pod::is_sidecar;
use crate::time;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub ready: String,
    pub status: String,
    pub restarts: String,
}

pub fn summarize(pod: &Value, now: Timestamp) -> Summary {
    let phase = text(pod, "status.phase");
    let mut reason = match text(pod, "status.reason") {
        "" => phase.to_string(),
        reason => reason.to_string(),
    };
    let condition = |ty: &str| {
        list(pod, "status.conditions")
            .iter()
            .find(|c| text(c, "type") == ty)
    };
    let is_true = |ty: &str| condition(ty).is_some_and(|c| text(c, "status") == "True");
    if condition("PodScheduled").is_some_and(|c| text(c, "reason") == "SchedulingGated") {
        reason = "SchedulingGated".to_string();
    }
    let inits = list(pod, "spec.initContainers");
    let sidecar = |name: &str| {
        inits
            .iter()
            .any(|c| text(c, "name") == name && is_sidecar(c))
    };
    let total = list(pod, "spec.containers").len() + inits.iter().filter(|c| is_sidecar(c)).count();

    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let mut initializing = false;
    for (i, status) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        restarts.count(status);
        let is_sidecar = sidecar(text(status, "name"));
        if is_sidecar {
            sidecar_restarts.count(status);
        }
        let terminated = at(status, "state.terminated");
        if terminated.is_some_and(|t| int(t, "exitCode").unwrap_or(0) == 0) {
            continue;
        }
        if is_sidecar && flag(status, "started") {
            ready += usize::from(flag(status, "ready"));
            continue;
        }
        let waiting = text(status, "state.waiting.reason");
        reason = match terminated {
            Some(t) => format!("Init:{}", end_of(t)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!("Init:{i}/{}", inits.len()),
        };
        initializing = true;
        break;
    }

    if !initializing || is_true("Initialized") {
        restarts = sidecar_restarts;
        let mut running = false;
        for status in list(pod, "status.containerStatuses").iter().rev() {
            restarts.count(status);
            let waiting = text(status, "state.waiting.reason");
            if !waiting.is_empty() {
                reason = waiting.to_string();
            } else if let Some(t) = at(status, "state.terminated") {
                reason = end_of(t);
            } else if flag(status, "ready") && at(status, "state.running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            reason = if is_true("Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .to_string();
        }
    }

    if at(pod, "metadata.deletionTimestamp").is_some() {
        if text(pod, "status.reason") == "NodeLost" {
            reason = "Unknown".to_string();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_string();
        }
    }
    Summary {
        ready: format!("{ready}/{total}"),
        status: reason,
        restarts: restarts.show(now),
    }
}

fn end_of(terminated: &Value) -> String {
    match (
        text(terminated, "reason"),
        int(terminated, "signal").unwrap_or(0),
    ) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn count(&mut self, status: &Value) {
        self.count = self
            .count
            .saturating_add(int(status, "restartCount").unwrap_or(0));
        let finished = time::parse(text(status, "lastState.terminated.finishedAt"));
        self.last = self.last.max(finished);
    }

    fn show(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                let ago = now.as_second().saturating_sub(last.as_second());
                format!("{} ({} ago)", self.count, time::human(ago))
            }
            _ => self.count.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(pod: Value) -> (String, String, String) {
        let s = summarize(&pod, "2026-01-01T01:00:00Z".parse().unwrap());
        (s.ready, s.status, s.restarts)
    }

    fn expect(pod: Value, ready: &str, status: &str, restarts: &str) {
        assert_eq!(shown(pod), (ready.into(), status.into(), restarts.into()));
    }

    #[test]
    fn as_kubectl_shows_them() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        expect(
            json!({"spec": spec, "status": {"phase": "Pending"}}),
            "0/2",
            "Pending",
            "0",
        );
        expect(
            json!({"spec": spec, "status": {"phase": "Running", "containerStatuses": [running, running]}}),
            "2/2",
            "Running",
            "0",
        );
        let crash = json!({"ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:00Z"}}});
        expect(
            json!({"spec": spec, "status": {"phase": "Running", "containerStatuses": [running, crash]}}),
            "1/2",
            "CrashLoopBackOff",
            "3 (60s ago)",
        );
        expect(
            json!({"metadata": {"deletionTimestamp": "x"}, "spec": spec,
                   "status": {"phase": "Running", "containerStatuses": [running, running]}}),
            "2/2",
            "Terminating",
            "0",
        );
        let done = json!({"state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
        expect(
            json!({"spec": spec, "status": {"phase": "Succeeded", "containerStatuses": [done, done]}}),
            "0/2",
            "Completed",
            "0",
        );
        expect(
            json!({"spec": spec, "status": {"phase": "Running", "containerStatuses": [done, running]}}),
            "1/2",
            "NotReady",
            "0",
        );
        let killed = json!({"state": {"terminated": {"exitCode": 137, "signal": 9}}});
        expect(
            json!({"spec": spec, "status": {"phase": "Failed", "containerStatuses": [killed]}}),
            "0/2",
            "Signal:9",
            "0",
        );
    }

    #[test]
    fn init_containers() {
        let spec = json!({"containers": [{"name": "a"}],
                          "initContainers": [{"name": "i"}, {"name": "j"}]});
        let waiting = json!({"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}});
        expect(
            json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [waiting]}}),
            "0/1",
            "Init:0/2",
            "0",
        );
        let failed =
            json!({"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 2}}});
        expect(
            json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [failed]}}),
            "0/1",
            "Init:ExitCode:2",
            "1",
        );
        let backoff = json!({"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}});
        expect(
            json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": [backoff]}}),
            "0/1",
            "Init:ImagePullBackOff",
            "0",
        );
        let side = json!({"containers": [{"name": "a"}],
                          "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let up = json!({"name": "s", "started": true, "ready": true, "state": {"running": {}}});
        let main = json!({"name": "a", "ready": true, "state": {"running": {}}});
        expect(
            json!({"spec": side, "status": {"phase": "Running", "initContainerStatuses": [up],
                   "containerStatuses": [main]}}),
            "2/2",
            "Running",
            "0",
        );
    }
}
