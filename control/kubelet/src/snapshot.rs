//! One pod's state as the runtime reports it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_cri::v1 as cri;

use crate::cri::{Cri, CriError};
use crate::labels;
use crate::pure::logline::{LogFilter, LogWriter, tail_offset};
use crate::pure::model::{ContainerRecord, PodRuntime, RunState, Sandbox};

/// Kubernetes' limit of one container's termination message.
const MESSAGE_LIMIT: u64 = 4096;
/// Limits of a message taken from the log.
const LOG_MESSAGE_LINES: usize = 80;
const LOG_MESSAGE_BYTES: usize = 2048;

/// A pod in the runtime, and where its termination messages are.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    pub runtime: PodRuntime,
    /// By container id.
    pub details: BTreeMap<String, Detail>,
}

#[derive(Debug, Clone, Default)]
pub struct Detail {
    pub log_path: PathBuf,
    /// Host file that is mounted at the termination message path.
    pub termination_file: Option<PathBuf>,
    pub fallback_to_logs: bool,
}

/// Reads the pod's sandboxes and containers.
pub async fn take(cri: &Cri, uid: &str) -> Result<Snapshot, CriError> {
    let (sandboxes, containers) = tokio::try_join!(
        cri.list_sandboxes(Some(uid)),
        cri.list_containers(Some(uid))
    )?;
    let mut out = Snapshot::default();
    for s in sandboxes {
        let ready = s.state == cri::PodSandboxState::SandboxReady as i32;
        out.runtime.sandboxes.push(Sandbox {
            attempt: s.metadata.as_ref().map_or(0, |m| m.attempt),
            id: s.id,
            ready,
            created_at: s.created_at,
            ips: vec![],
        });
    }
    out.runtime
        .sandboxes
        .sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
    if let Some(current) = out.runtime.sandboxes.first_mut() {
        match cri.sandbox_status(&current.id).await? {
            Some(status) => {
                let net = status.network.unwrap_or_default();
                current.ips.extend(Some(net.ip).filter(|ip| !ip.is_empty()));
                current
                    .ips
                    .extend(net.additional_ips.into_iter().map(|p| p.ip));
            }
            None => current.ready = false,
        }
    }
    for c in containers {
        let Some(status) = cri.container_status(&c.id).await? else {
            continue;
        };
        let (record, detail) = read_container(c.pod_sandbox_id, status);
        out.details.insert(record.id.clone(), detail);
        out.runtime.containers.push(record);
    }
    out.runtime
        .containers
        .sort_by_key(|c| std::cmp::Reverse((c.created_at, c.attempt)));
    Ok(out)
}

fn read_container(sandbox_id: String, s: cri::ContainerStatus) -> (ContainerRecord, Detail) {
    let annotation = |key: &str| s.annotations.get(key).cloned().unwrap_or_default();
    let path = annotation(labels::TERMINATION_PATH);
    let detail = Detail {
        log_path: s.log_path.clone().into(),
        termination_file: s
            .mounts
            .iter()
            .find(|m| !path.is_empty() && m.container_path == path)
            .map(|m| m.host_path.clone().into()),
        fallback_to_logs: annotation(labels::TERMINATION_POLICY) == "FallbackToLogsOnError",
    };
    let state = match cri::ContainerState::try_from(s.state) {
        Ok(cri::ContainerState::ContainerCreated) => RunState::Created,
        Ok(cri::ContainerState::ContainerRunning) => RunState::Running,
        Ok(cri::ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    };
    let attempt = annotation(labels::RESTART_COUNT)
        .parse()
        .unwrap_or_else(|_| s.metadata.as_ref().map_or(0, |m| m.attempt));
    let name = s
        .labels
        .get(labels::CONTAINER_NAME)
        .cloned()
        .unwrap_or_else(|| {
            s.metadata
                .as_ref()
                .map(|m| m.name.clone())
                .unwrap_or_default()
        });
    let record = ContainerRecord {
        hash: annotation(labels::CONTAINER_HASH),
        id: s.id,
        name,
        sandbox_id,
        attempt,
        state,
        created_at: s.created_at,
        started_at: s.started_at,
        finished_at: s.finished_at,
        exit_code: s.exit_code,
        reason: s.reason,
        message: s.message,
        image: s.image.map(|i| i.image).unwrap_or_default(),
        image_ref: s.image_ref,
    };
    (record, detail)
}

/// What an ended container left as its message.
pub fn termination_message(record: &ContainerRecord, detail: &Detail) -> Option<String> {
    let from_file = detail
        .termination_file
        .as_deref()
        .map(|p| read_head(p, MESSAGE_LIMIT))
        .unwrap_or_default();
    if !from_file.is_empty() || record.exit_code == 0 || !detail.fallback_to_logs {
        return Some(String::from_utf8_lossy(&from_file).into_owned()).filter(|m| !m.is_empty());
    }
    let tail = read_tail(&detail.log_path, 64 << 10);
    let mut text = vec![];
    let mut writer = LogWriter::new(LogFilter::default());
    for line in tail[tail_offset(&tail, LOG_MESSAGE_LINES)..].split(|b| *b == b'\n') {
        writer.write(line, &mut text);
    }
    let from = text.len().saturating_sub(LOG_MESSAGE_BYTES);
    Some(String::from_utf8_lossy(&text[from..]).into_owned()).filter(|m| !m.is_empty())
}

fn read_head(path: &Path, limit: u64) -> Vec<u8> {
    use std::io::Read;
    let mut out = vec![];
    if let Ok(f) = std::fs::File::open(path) {
        // A file that can't be read gives no message, like one that isn't there.
        let _ = f.take(limit).read_to_end(&mut out);
    }
    out
}

/// The end of a file, from the start of a line.
fn read_tail(path: &Path, limit: u64) -> Vec<u8> {
    use std::io::{Read, Seek, SeekFrom};
    let mut out = vec![];
    if let Ok(mut f) = std::fs::File::open(path) {
        let len = f.metadata().map(|m| m.len()).unwrap_or(0);
        let from = len.saturating_sub(limit);
        if f.seek(SeekFrom::Start(from)).is_ok() {
            let _ = f.take(limit).read_to_end(&mut out);
        }
        if from > 0 {
            let cut = out
                .iter()
                .position(|b| *b == b'\n')
                .map_or(out.len(), |i| i + 1);
            out.drain(..cut);
        }
    }
    out
}
