//! What each user may do: `system:masters` everything; kubelets and agents what concerns their
//! node; everybody what RBAC gives them. Deny is the default.

use std::sync::Arc;

use rhumb_api::rbac::{Action, Decision, Rule, bootstrap};

use super::rbac::Rbac;
use super::{AGENTS, MASTERS, User, node};
use crate::cache::Cache;

/// Paths that answer everybody, so that a load balancer or a supervisor needs no credentials.
pub const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// What a request wants, in authorization's terms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Of a list or watch: the one name that its field selector leaves.
    pub name: &'a str,
    /// What the field selector requires of `spec.nodeName`.
    pub node_field: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub fn action(&self) -> Action<'a> {
        Action::Resource {
            verb: self.verb,
            group: self.group,
            resource: self.resource,
            subresource: self.subresource,
            namespace: self.namespace,
            name: self.name,
        }
    }
}

/// What the rules about nodes have to know about the cluster's state.
pub trait Lookup: Send + Sync {
    /// The node that a pod is bound to.
    fn node_of(&self, namespace: &str, pod: &str) -> Option<String>;
    /// Whether a pod on the node needs the object: a `configmaps`, `secrets`, `serviceaccounts`,
    /// `persistentvolumeclaims`, `persistentvolumes` or `volumeattachments` one.
    fn node_uses(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool;
}

fn allow(reason: &str) -> Decision {
    Decision {
        allowed: true,
        reason: reason.into(),
    }
}

/// The rules that a user has in a namespace, as far as they can be listed.
#[derive(Debug, Default)]
pub struct Known {
    pub rules: Vec<Rule>,
    /// Why the list is not complete.
    pub faults: Vec<String>,
}

pub struct Authorizer {
    pub rbac: Rbac,
    lookup: Arc<dyn Lookup>,
    node_rules: Vec<Rule>,
}

impl Authorizer {
    pub fn new(cache: Arc<Cache>) -> Authorizer {
        Authorizer {
            rbac: Rbac::new(&cache),
            lookup: cache,
            node_rules: bootstrap::node_rules(),
        }
    }

    /// Whether the user may do this to a resource.
    pub fn resource(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        if user.is_in(MASTERS) {
            return allow("");
        }
        let mut hint = None;
        if let Some(node) = user.as_node() {
            match node::decide(node, attributes, &self.node_rules, &*self.lookup) {
                Ok(()) => return allow(""),
                Err(why) => hint = why,
            }
        }
        if is_agent(user) && agent_writes(user, attributes, &*self.lookup) {
            return allow("");
        }
        let mut decision = self.rbac.decide(user, &attributes.action());
        if let Some(hint) = hint
            && !decision.allowed
        {
            decision.reason = match decision.reason.as_str() {
                "" => hint,
                reason => format!("{hint}\n{reason}"),
            };
        }
        decision
    }

    /// Whether the user may use a path that is no resource.
    pub fn path(&self, user: &User, verb: &str, path: &str) -> Decision {
        if user.is_in(MASTERS) || HEALTH.contains(&path) {
            return allow("");
        }
        self.rbac.decide(user, &Action::Path { verb, path })
    }

    pub fn rules_for(&self, user: &User, namespace: &str) -> Known {
        let (mut rules, mut faults) = self.rbac.rules_for(user, namespace);
        if user.is_in(MASTERS) {
            rules.extend(rhumb_api::rbac::full_authority());
        }
        if user.as_node().is_some() {
            faults.push("node authorizer does not support user rule resolution".into());
        }
        if is_agent(user) {
            faults.push("what an agent may do to its own node is not listed".into());
        }
        Known { rules, faults }
    }
}

/// An agent by its certificate, or by the service account of its DaemonSet.
pub fn is_agent(user: &User) -> bool {
    user.is_in(AGENTS) || user.as_service_account() == Some(("kube-system", "rhumb-agent"))
}

/// An agent patches its own node and that node's pods (their annotations: see `admit`). RBAC
/// can't say "its own"; what agents may do besides is the ClusterRole `system:rhumb-agent`.
fn agent_writes(user: &User, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> bool {
    let node = match (user.as_agent(), user.as_service_account(), user.pod()) {
        (Some(node), _, _) => node.to_string(),
        (None, Some((namespace, _)), Some(pod)) => match lookup.node_of(namespace, pod) {
            Some(node) => node,
            None => return false,
        },
        _ => return false,
    };
    if attributes.verb != "patch" || !attributes.group.is_empty() {
        return false;
    }
    match (attributes.resource, attributes.subresource) {
        ("nodes", "" | "status") => attributes.name == node,
        ("pods", "" | "status") => {
            lookup
                .node_of(attributes.namespace, attributes.name)
                .as_deref()
                == Some(node.as_str())
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "authorize_tests.rs"]
mod tests;
