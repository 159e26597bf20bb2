//! Starting one container: image, configuration, create, start, postStart.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EphemeralContainer, Pod, PodSpec, Secret, Volume, VolumeMount,
};
use kube::api::Api;
use tracing::info;

use crate::events::{NORMAL, WARNING};
use crate::hooks;
use crate::images::{self, PullState};
use crate::kubelet::Kubelet;
use crate::labels;
use crate::pure::downward::LiveFields;
use crate::pure::env::{self, EnvInputs, EnvObjects};
use crate::pure::ephemeral;
use crate::pure::expand::expand;
use crate::pure::model::PodRuntime;
use crate::pure::plan::Role;
use crate::pure::resources::{CPU_PERIOD, container_limits, oom_score_adj};
use crate::pure::security::{self, MASKED_PATHS, READONLY_PATHS};
use crate::pure::status::Waiting;
use crate::pure::supported;
use crate::sandbox;
use crate::volumes::{self, Mounted, subpath};

/// The identity of a container's spec: it changes when the container must be made anew.
pub fn spec_hash(c: &Container) -> String {
    // FNV-1a over what the API lets one change in place: the image.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for b in c
        .name
        .bytes()
        .chain([0])
        .chain(c.image.as_deref().unwrap_or("").bytes())
    {
        hash = (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// `spec.containers{name}`, as Events name a container.
pub fn field_path(role: Role, name: &str) -> Option<String> {
    let list = match role {
        Role::Init => "initContainers",
        Role::Regular => "containers",
        Role::Ephemeral => "ephemeralContainers",
    };
    Some(format!("spec.{list}{{{name}}}"))
}

/// What a container is started with.
pub struct StartRequest<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub role: Role,
    /// What the pod has of the container, if it is an ephemeral one.
    pub ephemeral: Option<&'a EphemeralContainer>,
    pub runtime: &'a PodRuntime,
    pub attempt: u32,
    pub sandbox_id: &'a str,
    pub sandbox_attempt: u32,
    pub pod_ips: &'a [String],
    pub volumes: &'a Mounted,
}

fn failure(reason: &str, message: impl Into<String>) -> Waiting {
    Waiting {
        reason: reason.into(),
        message: message.into(),
    }
}

/// Starts the container and gives its id; an error is the container's waiting state.
pub async fn start(
    k: &Kubelet,
    r: &StartRequest<'_>,
    pulls: &mut PullState,
) -> Result<String, Waiting> {
    let event = |kind, reason: &str, message: String| {
        k.events.pod(
            r.pod,
            field_path(r.role, &r.container.name),
            kind,
            reason,
            message,
        );
    };
    let (sandbox_config, _) = sandbox::config(k, r.pod, r.sandbox_attempt);
    let image = images::ensure(k, r.pod, r.container, r.role, &sandbox_config, pulls)
        .await
        .map_err(|f| failure(f.reason, f.message))?;
    let config = match make_config(k, r, &image).await {
        Ok(c) => c,
        Err(message) => {
            event(WARNING, "Failed", format!("Error: {message}"));
            return Err(failure("CreateContainerConfigError", message));
        }
    };
    let id = match k
        .cri
        .create_container(r.sandbox_id, config, sandbox_config)
        .await
    {
        Ok(id) => id,
        Err(e) => {
            event(WARNING, "Failed", format!("Error: {}", e.message()));
            return Err(failure("CreateContainerError", e.message()));
        }
    };
    event(
        NORMAL,
        "Created",
        format!("Created container: {}", r.container.name),
    );
    if let Err(e) = k.cri.start_container(&id).await {
        event(WARNING, "Failed", format!("Error: {}", e.message()));
        return Err(failure("RunContainerError", e.message()));
    }
    event(
        NORMAL,
        "Started",
        format!("Started container {}", r.container.name),
    );
    info!(
        pod = r.pod.metadata.name,
        container = r.container.name,
        id,
        attempt = r.attempt,
        "started a container"
    );

    let hook = r
        .container
        .lifecycle
        .as_ref()
        .and_then(|l| l.post_start.as_ref());
    if let Some(hook) = hook
        && let Err(why) = hooks::run(
            k,
            r.container,
            hook,
            &id,
            r.pod_ips.first().map(String::as_str),
        )
        .await
    {
        event(
            WARNING,
            "FailedPostStartHook",
            format!("PostStartHook failed: {why}"),
        );
        event(NORMAL, "Killing", "FailedPostStartHook".into());
        let grace = r
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.termination_grace_period_seconds)
            .unwrap_or(30);
        // The next look finds it stopped, or kills it again.
        let _ = k.cri.stop_container(&id, grace).await;
        return Err(failure("PostStartHookError", why));
    }
    Ok(id)
}

async fn env_objects(k: &Kubelet, namespace: &str, c: &Container) -> Result<EnvObjects, String> {
    let (config_maps, secrets) = env::references(c);
    let mut out = EnvObjects::default();
    let api: Api<ConfigMap> = Api::namespaced(k.client.clone(), namespace);
    for name in config_maps {
        let found = api
            .get_opt(&name)
            .await
            .map_err(|e| format!("reading configmap {namespace}/{name}: {e}"))?;
        out.config_maps.insert(name, found);
    }
    let api: Api<Secret> = Api::namespaced(k.client.clone(), namespace);
    for name in secrets {
        let found = api
            .get_opt(&name)
            .await
            .map_err(|e| format!("reading secret {namespace}/{name}: {e}"))?;
        out.secrets.insert(name, found);
    }
    Ok(out)
}

async fn make_config(
    k: &Kubelet,
    r: &StartRequest<'_>,
    image: &images::Ready,
) -> Result<cri::ContainerConfig, String> {
    let (namespace, _, uid) = sandbox::meta(r.pod);
    let no_spec = PodSpec::default();
    let spec = r.pod.spec.as_ref().unwrap_or(&no_spec);
    let c = r.container;
    let mut shared = sandbox::namespaces(spec);
    if let Some(e) = r.ephemeral {
        let unsupported = supported::unsupported_ephemeral(e);
        if !unsupported.is_empty() {
            return Err(format!(
                "container fields that this node does not support: {}",
                unsupported.join(", ")
            ));
        }
        let own = shared.pid == cri::NamespaceMode::Container as i32;
        if let Some(id) = ephemeral::target(e, r.runtime)?.filter(|_| own) {
            shared.pid = cri::NamespaceMode::Target as i32;
            shared.target_id = id.into();
        }
    }
    let effective = security::effective(spec, c);
    if let Some(why) = security::non_root_violation(&effective, image.uid, &image.user) {
        return Err(why);
    }
    let service_env = k
        .service_env(namespace, spec.enable_service_links.unwrap_or(true))
        .await?;
    let pod_ips = if spec.host_network == Some(true) {
        k.node.host_ips.clone()
    } else {
        r.pod_ips.to_vec()
    };
    let envs = env::build(&EnvInputs {
        pod: r.pod,
        container: c,
        live: &LiveFields {
            pod_ips: pod_ips.clone(),
            host_ips: k.node.host_ips.clone(),
        },
        node: &k.node.allocatable,
        objects: &env_objects(k, namespace, c).await?,
        service_env: &service_env,
    })?;
    let by_name: BTreeMap<&str, &str> =
        envs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let lookup = |name: &str| by_name.get(name).map(|v| v.to_string());
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|a| expand(a, lookup)).collect()
    };
    let command = expanded(&c.command);
    let args = expanded(&c.args);

    let pod_dir = k.config.pod_dir(uid);
    let mut mounts = vec![];
    for (index, m) in c.volume_mounts.iter().flatten().enumerate() {
        mounts.push(volume_mount(
            &pod_dir, spec, c, r.volumes, m, index, lookup,
        )?);
    }
    let mounted =
        |path: &str, mounts: &[cri::Mount]| mounts.iter().any(|m| m.container_path == path);
    if !mounted("/etc/hosts", &mounts) {
        let path = write_hosts(k, r.pod, spec, &pod_dir, &pod_ips)
            .map_err(|e| format!("writing the hosts file: {e}"))?;
        mounts.push(mount("/etc/hosts", &path, false));
    }
    let termination = c
        .termination_message_path
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or("/dev/termination-log");
    if !mounted(termination, &mounts) {
        let file = pod_dir
            .join("containers")
            .join(&c.name)
            .join(format!("{:08x}", rand::random::<u32>()));
        make_termination_file(&file).map_err(|e| format!("making {}: {e}", file.display()))?;
        mounts.push(mount(termination, &file, false));
    }

    let log_path = format!("{}/{}.log", c.name, r.attempt);
    let (ns, name, _) = sandbox::meta(r.pod);
    let log_dir = k.config.pod_log_dir(ns, name, uid).join(&c.name);
    fs::create_dir_all(&log_dir).map_err(|e| format!("making {}: {e}", log_dir.display()))?;

    let mut all_labels = sandbox::pod_labels(r.pod);
    all_labels.insert(labels::CONTAINER_NAME.into(), c.name.clone());
    let mut annotations = std::collections::HashMap::new();
    annotations.insert(labels::CONTAINER_HASH.to_string(), spec_hash(c));
    annotations.insert(labels::RESTART_COUNT.into(), r.attempt.to_string());
    annotations.insert(labels::TERMINATION_PATH.into(), termination.to_string());
    let policy = c
        .termination_message_policy
        .clone()
        .unwrap_or_else(|| "File".into());
    annotations.insert(labels::TERMINATION_POLICY.into(), policy);
    if let Some(grace) = spec.termination_grace_period_seconds {
        annotations.insert(labels::POD_GRACE.into(), grace.to_string());
    }
    if let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) {
        annotations.insert(
            labels::PRE_STOP.into(),
            serde_json::to_string(hook).unwrap_or_default(),
        );
    }

    let limits = container_limits(c);
    let int = |v: Option<i64>| v.map(|value| cri::Int64Value { value });
    let hidden = |paths: &[&str]| -> Vec<String> {
        if effective.privileged || effective.unmasked_proc {
            vec![]
        } else {
            paths.iter().map(|p| p.to_string()).collect()
        }
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: c.name.clone(),
            attempt: r.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: image.reference.clone(),
            user_specified_image: c.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command,
        args,
        working_dir: c.working_dir.clone().unwrap_or_default(),
        envs: envs
            .iter()
            .map(|(key, value)| cri::KeyValue {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        mounts,
        labels: all_labels,
        annotations,
        log_path,
        stdin: c.stdin.unwrap_or(false),
        stdin_once: c.stdin_once.unwrap_or(false),
        tty: c.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                cpu_period: CPU_PERIOD,
                cpu_quota: limits.quota,
                cpu_shares: limits.shares,
                memory_limit_in_bytes: limits.memory,
                oom_score_adj: oom_score_adj(spec, c, k.node.memory),
                ..Default::default()
            }),
            security_context: Some(cri::LinuxContainerSecurityContext {
                capabilities: Some(cri::Capability {
                    add_capabilities: effective.add_capabilities.clone(),
                    drop_capabilities: effective.drop_capabilities.clone(),
                    ..Default::default()
                }),
                privileged: effective.privileged,
                namespace_options: Some(shared),
                run_as_user: int(effective.run_as_user.or(image.uid)),
                run_as_username: if effective.run_as_user.is_none() && image.uid.is_none() {
                    image.user.clone()
                } else {
                    String::new()
                },
                run_as_group: int(effective.run_as_group),
                readonly_rootfs: effective.read_only_root,
                supplemental_groups: effective.supplemental_groups.clone(),
                no_new_privs: effective.no_new_privileges,
                masked_paths: hidden(MASKED_PATHS),
                readonly_paths: hidden(READONLY_PATHS),
                seccomp: Some(sandbox::profile(
                    effective.seccomp_runtime_default && !effective.privileged,
                )),
                ..Default::default()
            }),
        }),
        ..Default::default()
    })
}

fn mount(container_path: &str, host: &Path, readonly: bool) -> cri::Mount {
    cri::Mount {
        container_path: container_path.into(),
        host_path: host.to_string_lossy().into_owned(),
        readonly,
        ..Default::default()
    }
}

fn volume_mount(
    pod_dir: &Path,
    spec: &PodSpec,
    c: &Container,
    volumes: &Mounted,
    m: &VolumeMount,
    index: usize,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<cri::Mount, String> {
    let volume: &Volume = spec
        .volumes
        .iter()
        .flatten()
        .find(|v| v.name == m.name)
        .ok_or_else(|| {
            format!(
                "cannot find volume {:?} to mount into container {:?}",
                m.name, c.name
            )
        })?;
    let root = volumes.get(&m.name).ok_or_else(|| {
        format!(
            "volume {:?} of container {:?} is not set up",
            m.name, c.name
        )
    })?;
    let sub = match (&m.sub_path_expr, &m.sub_path) {
        (Some(e), _) if !e.is_empty() => {
            let text = expand(e, lookup);
            if text.contains("$(") {
                return Err(format!(
                    "subPathExpr {e:?} names a variable that is not set"
                ));
            }
            text
        }
        (_, Some(s)) => s.clone(),
        _ => String::new(),
    };
    let host = if sub.is_empty() {
        root.clone()
    } else {
        let target = pod_dir
            .join("volume-subpaths")
            .join(&m.name)
            .join(&c.name)
            .join(index.to_string());
        subpath::bind(root, &sub, &target).map_err(|e| {
            format!(
                "failed to prepare subPath {sub:?} for volumeMount {:?} of container {:?}: {e}",
                m.name, c.name
            )
        })?
    };
    let container_path = if m.mount_path.starts_with('/') {
        m.mount_path.clone()
    } else {
        format!("/{}", m.mount_path)
    };
    let propagation = match m.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    };
    Ok(cri::Mount {
        propagation: propagation as i32,
        ..mount(
            &container_path,
            &host,
            m.read_only.unwrap_or(false) || volumes::is_live(volume),
        )
    })
}

fn write_hosts(
    k: &Kubelet,
    pod: &Pod,
    spec: &PodSpec,
    pod_dir: &Path,
    ips: &[String],
) -> std::io::Result<std::path::PathBuf> {
    let node_hosts = match spec.host_network {
        Some(true) => Some(fs::read_to_string("/etc/hosts").unwrap_or_default()),
        _ => None,
    };
    let text = sandbox::hosts_file(pod, ips, &k.config.cluster_domain, node_hosts.as_deref());
    fs::create_dir_all(pod_dir)?;
    let path = pod_dir.join("etc-hosts");
    // Written in place: running containers have this very file mounted.
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}

fn make_termination_file(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(path)?;
    // Any user of the container may write it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_name_and_image() {
        let c = |name: &str, image: &str, arg: &str| Container {
            name: name.into(),
            image: Some(image.into()),
            args: Some(vec![arg.into()]),
            ..Default::default()
        };
        assert_eq!(spec_hash(&c("a", "i", "x")), spec_hash(&c("a", "i", "y")));
        assert_ne!(spec_hash(&c("a", "i", "x")), spec_hash(&c("a", "j", "x")));
        assert_ne!(spec_hash(&c("a", "bi", "x")), spec_hash(&c("ab", "i", "x")));
    }
}
