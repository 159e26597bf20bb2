//! Who a client is, and what it may do.

pub mod authenticate;
pub mod authorize;
pub mod impersonate;
pub mod node;
pub mod rbac;
pub mod token;
pub mod token_file;

use std::collections::BTreeMap;

use rhumb_api::status::ApiError;
use serde_json::{Value, json};

/// An authenticated (or anonymous) client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// What else is known, for authorizers and for the audit.
    pub extra: BTreeMap<String, Vec<String>>,
}

pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";
pub const AGENTS: &str = "system:rhumb-agents";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const NODE_USER: &str = "system:node:";
const AGENT_USER: &str = "system:rhumb-agent:";

impl User {
    pub fn anonymous() -> User {
        User {
            name: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..Default::default()
        }
    }

    pub fn named(name: impl Into<String>, mut groups: Vec<String>) -> User {
        groups.push(AUTHENTICATED.into());
        User {
            name: name.into(),
            groups,
            ..Default::default()
        }
    }

    pub fn service_account(namespace: &str, name: &str) -> User {
        let mut groups = User::service_account_groups(namespace);
        groups.push(AUTHENTICATED.into());
        User {
            name: format!("{SERVICE_ACCOUNT}{namespace}:{name}"),
            groups,
            ..Default::default()
        }
    }

    pub fn service_account_groups(namespace: &str) -> Vec<String> {
        vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
        ]
    }

    /// With one more thing known, unless it is empty.
    pub fn with_extra(mut self, key: &str, value: &str) -> User {
        if !value.is_empty() {
            self.extra.insert(key.into(), vec![value.into()]);
        }
        self
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Of a service-account token that is bound to a pod: the pod's name.
    pub fn pod(&self) -> Option<&str> {
        self.extra.get(POD_NAME)?.first().map(String::as_str)
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

    /// `UserInfo`, as reviews show it.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"username": self.name});
        if !self.uid.is_empty() {
            value["uid"] = self.uid.clone().into();
        }
        if !self.groups.is_empty() {
            value["groups"] = self.groups.clone().into();
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}

/// 403, in Kubernetes' words.
pub fn refused(user: &User, attributes: &authorize::Attributes<'_>, reason: &str) -> ApiError {
    let resource = match attributes.subresource {
        "" => attributes.resource.to_string(),
        subresource => format!("{}/{subresource}", attributes.resource),
    };
    ApiError::unauthorised_access(
        &user.name,
        attributes.verb,
        attributes.group,
        &resource,
        (!attributes.namespace.is_empty()).then_some(attributes.namespace),
        attributes.name,
        reason,
    )
}
