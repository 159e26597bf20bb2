//! Ephemeral containers: added to a pod that runs, and never restarted. Among containers they have
//! a type of their own in the API, without a meaning of its own here.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

use super::model::{PodRuntime, RunState};
use super::plan::{Role, Start};

/// The container that is run. What an ephemeral one can't have stays out.
pub fn container(e: &EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        name: e.name,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Default::default()
    }
}

fn all(spec: &PodSpec) -> &[EphemeralContainer] {
    spec.ephemeral_containers.as_deref().unwrap_or_default()
}

pub fn find<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a EphemeralContainer> {
    all(spec).iter().find(|e| e.name == name)
}

/// Whether the pod has a container of that name in any of its lists.
pub fn has_container(pod: &Pod, name: &str) -> bool {
    let added = pod.spec.as_ref().and_then(|spec| find(spec, name));
    super::env::find_container(pod, name).is_some() || added.is_some()
}

/// Those that never ran. One that was made and not started is made again: a kubelet was killed
/// in between.
pub fn starts(spec: &PodSpec, runtime: &PodRuntime) -> Vec<Start> {
    let waiting = |(index, e): (usize, &EphemeralContainer)| {
        let attempt = match runtime.latest(&e.name) {
            None => 0,
            Some(r) if r.state == RunState::Created => r.attempt + 1,
            Some(_) => return None,
        };
        Some(Start {
            role: Role::Ephemeral,
            index,
            attempt,
            after: None,
        })
    };
    all(spec).iter().enumerate().filter_map(waiting).collect()
}

/// The id of the container whose processes it is to see, if it names one.
pub fn target<'a>(
    e: &EphemeralContainer,
    runtime: &'a PodRuntime,
) -> Result<Option<&'a str>, String> {
    let name = e.target_container_name.as_deref().unwrap_or("");
    if name.is_empty() {
        return Ok(None);
    }
    match runtime.latest(name) {
        Some(r) => Ok(Some(&r.id)),
        None => Err(format!("unable to find target container {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::model::ContainerRecord;
    use serde_json::json;

    fn record(name: &str, state: RunState) -> ContainerRecord {
        ContainerRecord {
            id: format!("id-{name}"),
            name: name.into(),
            state,
            ..Default::default()
        }
    }

    #[test]
    fn started_once() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "a"}],
            "ephemeralContainers": [
                {"name": "d", "targetContainerName": "a"}, {"name": "e", "targetContainerName": "b"},
            ],
        }))
        .unwrap();
        let mut runtime = PodRuntime::default();
        let names = |runtime: &PodRuntime| -> Vec<(usize, u32)> {
            let starts = starts(&spec, runtime);
            starts.iter().map(|s| (s.index, s.attempt)).collect()
        };
        assert_eq!(names(&runtime), [(0, 0), (1, 0)]);
        for state in [RunState::Running, RunState::Exited, RunState::Unknown] {
            runtime.containers = vec![record("d", state)];
            assert_eq!(names(&runtime), [(1, 0)], "{state:?}");
        }
        runtime.containers = vec![
            record("d", RunState::Created),
            record("a", RunState::Running),
        ];
        assert_eq!(names(&runtime), [(0, 1), (1, 0)]);
        assert_eq!(target(&all(&spec)[0], &runtime), Ok(Some("id-a")));
        assert_eq!(
            target(&all(&spec)[1], &runtime),
            Err("unable to find target container b".into())
        );
    }
}
