//! What the runtime holds of one pod, in the terms that decisions are made in.

use std::collections::BTreeMap;

/// A pod's sandboxes and containers, each newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodRuntime {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<ContainerRecord>,
}

/// A pod sandbox.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Pod addresses, the primary one first; none with host networking.
    pub ips: Vec<String>,
}

/// A container's state in the runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunState {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

/// A container. Times are nanoseconds since the epoch; 0 is never.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerRecord {
    pub id: String,
    pub name: String,
    pub sandbox_id: String,
    /// Kubernetes' restart count.
    pub attempt: u32,
    pub state: RunState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// The image as asked for.
    pub image: String,
    /// Digest or id of the image that runs.
    pub image_ref: String,
    /// Hash of the container's spec when it was made.
    pub hash: String,
}

/// What probes say of a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeView {
    /// The startup probe succeeded, or there is none.
    pub started: bool,
    /// The readiness probe's result, or true without one (once started).
    pub ready: bool,
    /// Which probe asks for a restart.
    pub restart: Option<ProbeKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    Liveness,
    Readiness,
    Startup,
}

/// Probe views by container id.
pub type Probes = BTreeMap<String, ProbeView>;

impl PodRuntime {
    /// The newest sandbox.
    pub fn current(&self) -> Option<&Sandbox> {
        self.sandboxes.first()
    }

    /// The newest container of that name.
    pub fn latest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of that name in that sandbox.
    pub fn latest_in(&self, name: &str, sandbox: &str) -> Option<&ContainerRecord> {
        self.containers
            .iter()
            .find(|c| c.name == name && c.sandbox_id == sandbox)
    }

    /// The newest ended container of that name, before `than` if given.
    pub fn previous(&self, name: &str, than: &str) -> Option<&ContainerRecord> {
        self.containers
            .iter()
            .filter(|c| c.name == name)
            .skip_while(|c| c.id != than)
            .nth(1)
    }
}
