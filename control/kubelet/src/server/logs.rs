//! `/containerLogs`: a container's log from its file.

use std::collections::HashMap;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::kubelet::Kubelet;
use crate::labels;
use crate::pure::ephemeral::has_container;
use crate::pure::logline::{LogFilter, LogWriter, tail_offset};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);
const CHUNK: usize = 64 << 10;

/// What a reader asks for.
#[derive(Debug, Default, Clone, PartialEq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<u64>,
    stream: Option<String>,
}

fn options(q: &HashMap<String, String>, now: Timestamp) -> Result<Options, String> {
    let flag = |k: &str| -> Result<bool, String> {
        match q.get(k).map(String::as_str) {
            None | Some("" | "false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(format!("{k}: {other:?} is not true or false")),
        }
    };
    let number = |k: &str| -> Result<Option<u64>, String> {
        q.get(k)
            .filter(|v| !v.is_empty())
            .map(|v| v.parse().map_err(|_| format!("{k}: {v:?} is not a number")))
            .transpose()
    };
    let mut since = None;
    if let Some(seconds) = number("sinceSeconds")? {
        since = now
            .checked_sub(SignedDuration::from_secs(
                seconds.min(i64::MAX as u64) as i64
            ))
            .ok();
    }
    if let Some(t) = q.get("sinceTime").filter(|t| !t.is_empty()) {
        since = Some(t.parse().map_err(|e| format!("sinceTime: {e}"))?);
    }
    let stream = match q.get("stream").map(String::as_str) {
        None | Some("" | "All") => None,
        Some("Stdout") => Some("stdout".to_string()),
        Some("Stderr") => Some("stderr".to_string()),
        Some(other) => return Err(format!("stream: {other:?} is not All, Stdout or Stderr")),
    };
    Ok(Options {
        follow: flag("follow")?,
        previous: flag("previous")?,
        timestamps: flag("timestamps")?,
        tail: number("tailLines")?.map(|n| n as usize),
        since,
        limit: number("limitBytes")?,
        stream,
    })
}

pub(super) fn text(code: StatusCode, message: impl Into<String>) -> Response {
    (code, message.into()).into_response()
}

pub(super) async fn serve(
    State(k): State<Arc<Kubelet>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(q): Query<HashMap<String, String>>,
) -> Response {
    let options = match options(&q, Timestamp::now()) {
        Ok(o) => o,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let Some(pod) = k.find_pod(&namespace, &name) else {
        return text(
            StatusCode::NOT_FOUND,
            format!("pod {name:?} does not exist on this node"),
        );
    };
    if !has_container(&pod, &container) {
        return text(
            StatusCode::NOT_FOUND,
            format!("container {container:?} is not part of pod {name:?}"),
        );
    }
    let found = match find_log(&k, &pod, &container, options.previous).await {
        Ok(f) => f,
        Err(why) => return text(StatusCode::INTERNAL_SERVER_ERROR, why),
    };
    let Some((id, path)) = found else {
        let why = if options.previous {
            format!("previous terminated container {container:?} in pod {name:?} not found")
        } else {
            let reason =
                waiting_reason(&pod, &container).unwrap_or_else(|| "ContainerCreating".into());
            format!("container {container:?} in pod {name:?} is waiting to start: {reason}")
        };
        return text(StatusCode::BAD_REQUEST, why);
    };
    let file = match File::open(&path).await {
        Ok(f) => f,
        Err(e) => {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("opening {}: {e}", path.display()),
            );
        }
    };
    let (tx, rx) = mpsc::channel::<Result<Bytes, std::io::Error>>(16);
    tokio::spawn(async move {
        if let Err(error) = copy(&k, &id, file, options, &tx).await {
            let _ = tx.send(Err(error)).await;
        }
    });
    let body = Body::from_stream(ReceiverStream::new(rx));
    ([("content-type", "text/plain")], body).into_response()
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten())
        .chain(status.ephemeral_container_statuses.iter().flatten());
    all.into_iter()
        .find(|s| s.name == container)?
        .state
        .as_ref()?
        .waiting
        .as_ref()?
        .reason
        .clone()
}

/// The container's id and log file; of the one before with `previous`.
async fn find_log(
    k: &Kubelet,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<Option<(String, PathBuf)>, String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    let mut all = k
        .cri
        .list_containers(Some(uid))
        .await
        .map_err(|e| e.to_string())?;
    all.retain(|c| {
        c.labels
            .get(labels::CONTAINER_NAME)
            .is_some_and(|n| n == container)
    });
    all.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    let created = cri::ContainerState::ContainerCreated as i32;
    let chosen = if previous {
        all.iter()
            .skip(1)
            .find(|c| c.state == cri::ContainerState::ContainerExited as i32)
    } else {
        all.iter().find(|c| c.state != created)
    };
    let Some(c) = chosen else { return Ok(None) };
    let status = k
        .cri
        .container_status(&c.id)
        .await
        .map_err(|e| e.to_string())?;
    Ok(status.map(|s| (s.id, PathBuf::from(s.log_path))))
}

async fn is_running(k: &Kubelet, id: &str) -> bool {
    match k.cri.container_status(id).await {
        Ok(Some(s)) => s.state == cri::ContainerState::ContainerRunning as i32,
        Ok(None) => false,
        // Unknown for now; the file goes on being followed.
        Err(_) => true,
    }
}

async fn copy(
    k: &Kubelet,
    id: &str,
    mut file: File,
    o: Options,
    tx: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> std::io::Result<()> {
    let start = match o.tail {
        Some(n) => find_tail(&mut file, n).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let mut writer = LogWriter::new(LogFilter {
        since: o.since,
        timestamps: o.timestamps,
        stream: o.stream,
    });
    let mut left = o.limit.unwrap_or(u64::MAX);
    let mut pending: Vec<u8> = vec![];
    let mut buffer = vec![0; CHUNK];
    let mut ended = false;
    loop {
        let n = file.read(&mut buffer).await?;
        if n == 0 {
            if !o.follow || ended {
                return Ok(());
            }
            // After its end one more read takes what was written last.
            ended = !is_running(k, id).await;
            if !ended {
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = tx.closed() => return Ok(()),
                }
            }
            continue;
        }
        pending.extend_from_slice(&buffer[..n]);
        let Some(whole) = pending.iter().rposition(|b| *b == b'\n').map(|i| i + 1) else {
            continue;
        };
        let mut out = vec![];
        for line in pending[..whole].split_inclusive(|b| *b == b'\n') {
            writer.write(line.strip_suffix(b"\n").unwrap_or(line), &mut out);
        }
        pending.drain(..whole);
        out.truncate(left.min(out.len() as u64) as usize);
        left -= out.len() as u64;
        if !out.is_empty() && tx.send(Ok(out.into())).await.is_err() {
            return Ok(());
        }
        if left == 0 {
            return Ok(());
        }
    }
}

/// Where the last `lines` lines begin, reading back from the end in growing windows.
async fn find_tail(file: &mut File, lines: usize) -> std::io::Result<u64> {
    let len = file.metadata().await?.len();
    let mut window = CHUNK as u64;
    loop {
        let from = len.saturating_sub(window);
        file.seek(SeekFrom::Start(from)).await?;
        let mut data = vec![0; (len - from) as usize];
        file.read_exact(&mut data).await?;
        if from == 0 {
            return Ok(tail_offset(&data, lines) as u64);
        }
        // The first line of the window may be cut, or be the rest of a line of parts.
        let cut = data
            .iter()
            .position(|b| *b == b'\n')
            .map_or(data.len(), |i| i + 1);
        let rest = &data[cut..];
        if tail_offset(rest, lines.saturating_add(1)) > 0 {
            return Ok(from + (cut + tail_offset(rest, lines)) as u64);
        }
        window = window.saturating_mul(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn query_options() {
        let q = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect()
        };
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let o = options(
            &q(&[
                ("follow", "true"),
                ("tailLines", "5"),
                ("sinceSeconds", "60"),
                ("limitBytes", "9"),
            ]),
            now,
        );
        let o = o.unwrap();
        assert!(o.follow && !o.previous);
        assert_eq!((o.tail, o.limit), (Some(5), Some(9)));
        assert_eq!(o.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        for bad in [
            ("follow", "maybe"),
            ("tailLines", "-1"),
            ("sinceTime", "yesterday"),
            ("stream", "x"),
        ] {
            assert!(options(&q(&[bad]), now).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn tails_of_large_files() {
        let mut f = tempfile::NamedTempFile::new().unwrap();
        for i in 0..20_000 {
            writeln!(f, "2026-01-01T00:00:00Z stdout F line {i}").unwrap();
        }
        let mut file = File::open(f.path()).await.unwrap();
        for lines in [0usize, 1, 3, 5000, 30_000] {
            let at = find_tail(&mut file, lines).await.unwrap();
            let data = std::fs::read(f.path()).unwrap();
            let count = data[at as usize..].split_inclusive(|b| *b == b'\n').count();
            assert_eq!(count, lines.min(20_000), "{lines}");
        }
    }
}
