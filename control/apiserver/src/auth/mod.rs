//! Who a client is, and what it may do.

pub mod authenticate;
pub mod authorize;
pub mod node;
pub mod token;

/// An authenticated (or anonymous) client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
    /// Of a service-account token that is bound to a pod: the pod's name.
    pub pod: Option<String>,
}

pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";
pub const AGENTS: &str = "system:rhumb-agents";
pub const AUTHENTICATED: &str = "system:authenticated";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const NODE_USER: &str = "system:node:";
const AGENT_USER: &str = "system:rhumb-agent:";

impl User {
    pub fn anonymous() -> User {
        User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            pod: None,
        }
    }

    pub fn named(name: impl Into<String>, mut groups: Vec<String>) -> User {
        groups.push(AUTHENTICATED.into());
        User {
            name: name.into(),
            groups,
            pod: None,
        }
    }

    pub fn service_account(namespace: &str, name: &str, pod: Option<String>) -> User {
        User {
            name: format!("{SERVICE_ACCOUNT}{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.into(),
            ],
            pod,
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Namespace and name of a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')
    }

    /// The node of a kubelet's user.
    pub fn as_node(&self) -> Option<&str> {
        if !self.is_in(NODES) {
            return None;
        }
        self.name.strip_prefix(NODE_USER).filter(|n| !n.is_empty())
    }

    /// The node of an agent's user.
    pub fn as_agent(&self) -> Option<&str> {
        if !self.is_in(AGENTS) {
            return None;
        }
        self.name.strip_prefix(AGENT_USER).filter(|n| !n.is_empty())
    }
}
