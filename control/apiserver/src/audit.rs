//! The audit log: a line of JSON (`audit.k8s.io/v1`, level Metadata) for each answered request: who,
//! what, from where, and what came of it. Bodies are never logged, so no Secret is.

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use http::Response;
use jiff::Timestamp;
use rhumb_api::status::ApiError;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::auth::User;
use crate::route::Resource;
use crate::verbs::Notes;

pub const AUDIT_ID: http::HeaderName = http::HeaderName::from_static("audit-id");
/// Bytes of an id that a client may bring.
const MAX_ID: usize = 128;

/// Lines that wait to be written; when they are so many, requests wait too.
const QUEUE: usize = 4096;

/// Where and how much.
#[derive(Debug, Clone)]
pub struct AuditLog {
    pub path: PathBuf,
    /// Bytes after which a file is put aside.
    pub max_size: u64,
    /// Files put aside that are kept.
    pub max_backups: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("--audit-log-path {}: {source}", path.display())]
pub struct AuditError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// One request, as it becomes known.
#[derive(Debug, Default)]
pub struct Record {
    /// What the answer calls it too.
    pub id: String,
    pub verb: &'static str,
    pub uri: String,
    pub source: Option<IpAddr>,
    pub user_agent: String,
    /// Whose credentials they were.
    pub user: Option<std::sync::Arc<User>>,
    /// Whom that user acted as.
    pub acting: Option<std::sync::Arc<User>>,
    pub object: Option<Resource>,
    pub received: Timestamp,
    /// Whether it was allowed, once that is known.
    pub allowed: Option<bool>,
    pub notes: Notes,
}

/// `Audit-Id` of the answer: the request's, or a new one.
pub fn id<B>(request: &http::Request<B>) -> String {
    let given = request.headers().get(AUDIT_ID);
    given
        .and_then(|v| v.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_string)
}

fn user(user: &User) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        out["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

impl Record {
    pub fn begin<B>(request: &http::Request<B>, id: &str, source: IpAddr) -> Record {
        let agent = request.headers().get(http::header::USER_AGENT);
        Record {
            id: id.to_string(),
            uri: request.uri().to_string(),
            source: Some(source),
            user_agent: agent
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .into(),
            received: Timestamp::now(),
            ..Record::default()
        }
    }

    fn event(&self, code: u16, reason: &str, message: &str) -> Value {
        // A watch's or a stream's answer only begins here.
        let long = self.verb == "watch"
            || self.object.as_ref().is_some_and(|o| {
                matches!(
                    o.subresource.as_str(),
                    "exec" | "attach" | "portforward" | "log"
                )
            });
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": self.id,
            "stage": if long && code < 400 { "ResponseStarted" } else { "ResponseComplete" },
            "requestURI": self.uri,
            "verb": self.verb,
            "user": self.user.as_deref().map_or_else(|| json!({}), user),
            "sourceIPs": self.source.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "userAgent": self.user_agent,
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": micros(self.received),
            "stageTimestamp": micros(Timestamp::now()),
        });
        if let Some(acting) = &self.acting {
            event["impersonatedUser"] = user(acting);
        }
        if let Some(o) = &self.object {
            let fields = [
                ("resource", &o.plural),
                ("namespace", &o.namespace),
                ("name", &o.name),
                ("apiGroup", &o.group),
                ("apiVersion", &o.version),
                ("subresource", &o.subresource),
            ];
            event["objectRef"] = fields
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_string(), json!(value)))
                .collect();
        }
        if code >= 400 {
            event["responseStatus"]["status"] = json!("Failure");
            event["responseStatus"]["reason"] = json!(reason);
            event["responseStatus"]["message"] = json!(message);
        }
        if let Some(allowed) = self.allowed {
            let decision = if allowed { "allow" } else { "forbid" };
            event["annotations"] = json!({"authorization.k8s.io/decision": decision});
        }
        for (key, value) in self.notes.annotations() {
            event["annotations"][key.as_str()] = value.as_str().into();
        }
        event
    }
}

fn micros(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// The open log.
#[derive(Debug)]
pub struct Audit {
    lines: mpsc::Sender<Vec<u8>>,
}

impl Audit {
    pub fn open(config: AuditLog) -> Result<Audit, AuditError> {
        let mut file = File::open(config)?;
        let (lines, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let write = move || {
            while let Some(line) = queue.blocking_recv() {
                let mut batch = line;
                while let Ok(line) = queue.try_recv() {
                    batch.extend_from_slice(&line);
                }
                if let Err(error) = file.append(&batch) {
                    let path = file.config.path.display().to_string();
                    tracing::error!(path, %error, "the audit log can't be written");
                }
            }
        };
        std::thread::spawn(write);
        Ok(Audit { lines })
    }

    /// Waits for room when the disk is slower than the requests.
    pub async fn write(&self, line: Vec<u8>) {
        // The writer ends with the process.
        let _ = self.lines.send(line).await;
    }
}

/// What came of a request, as a line. Health checks are left out.
pub fn line<B>(record: &Record, answer: &Result<Response<B>, ApiError>) -> Option<Vec<u8>> {
    let is_anonymous = |user: &User| *user == User::anonymous();
    if record.object.is_none() && record.user.as_deref().is_some_and(is_anonymous) {
        return None;
    }
    let (code, reason, message) = match answer {
        Ok(response) => (response.status().as_u16(), "", ""),
        Err(error) => (error.code, &*error.reason, error.message.as_str()),
    };
    let mut line = record.event(code, reason, message).to_string().into_bytes();
    line.push(b'\n');
    Some(line)
}

struct File {
    config: AuditLog,
    file: std::fs::File,
    size: u64,
}

impl File {
    fn open(config: AuditLog) -> Result<File, AuditError> {
        let failed = |source| AuditError {
            path: config.path.clone(),
            source,
        };
        let file = open(&config.path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(File { config, file, size })
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        let length = batch.len() as u64;
        if self.size > 0 && self.size + length > self.config.max_size {
            self.rotate()?;
        }
        self.file.write_all(batch)?;
        self.size += length;
        Ok(())
    }

    /// `audit.log` becomes `audit.log.1`, that one `audit.log.2`, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.config.path;
        let backup = |n: usize| {
            let mut name = path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.config.max_backups).rev() {
            match std::fs::rename(backup(n), backup(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        match self.config.max_backups {
            0 => std::fs::remove_file(path)?,
            _ => std::fs::rename(path, backup(1))?,
        }
        self.file = open(path)?;
        self.size = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let config = AuditLog {
            path: path.clone(),
            max_size: 10,
            max_backups: 2,
        };
        let mut file = File::open(config.clone()).unwrap();
        for line in ["one....\n", "two....\n", "three..\n", "four...\n"] {
            file.append(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        assert_eq!(read("audit.log"), "four...\n");
        assert_eq!(read("audit.log.1"), "three..\n");
        assert_eq!(read("audit.log.2"), "two....\n");
        assert_eq!(read("audit.log.3"), "");
        // A new process goes on with the same file.
        let mut file = File::open(config).unwrap();
        file.append(b"5\n").unwrap();
        assert_eq!(read("audit.log"), "four...\n5\n");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let error = File::open(AuditLog {
            path: dir.path().join("no/such/dir"),
            max_size: 1,
            max_backups: 1,
        });
        assert!(
            error
                .err()
                .unwrap()
                .to_string()
                .contains("--audit-log-path")
        );
    }
}
