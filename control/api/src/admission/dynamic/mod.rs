//! Admission that users configure: webhooks, and policies in CEL. Pure: the API server brings objects,
//! users and the network.
//! Source: Kubernetes `pkg/admission/plugin/{webhook,policy}` of apiserver.

pub mod expression;
mod policy;
mod review;
mod rules;
mod webhook;

use serde_json::{Value, json};

pub use expression::{Input, Scope};
pub use policy::{Action, Binding, Conditions, ParamRef, Policy, Violation};
pub use review::{Answer, refusal, verify};
pub use rules::{Constraints, Labels, MatchPolicy, Place, Selectors};
pub use webhook::{ClientConfig, FailurePolicy, Webhook, webhooks};

pub const GROUP: &str = "admissionregistration.k8s.io";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Group, version, and the name of a resource or kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub group: String,
    pub version: String,
    pub name: String,
}

/// What a request is about, whatever its object.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub operation: Operation,
    /// Of what the client sent.
    pub kind: Named,
    pub resource: Named,
    pub subresource: String,
    /// Of a Namespace: its own name.
    pub namespace: String,
    /// "" if the server makes it.
    pub name: String,
    /// As `authentication.k8s.io/v1` shows it.
    pub user: Value,
    pub dry_run: bool,
    /// `CreateOptions`, `UpdateOptions`, …
    pub options: Value,
}

impl Attributes {
    /// What rules are asked about.
    pub fn place(&self) -> Place<'_> {
        Place {
            operation: self.operation,
            group: &self.resource.group,
            version: &self.resource.version,
            resource: &self.resource.name,
            subresource: &self.subresource,
            namespace: &self.namespace,
        }
    }

    /// Objects of this kind are never put before what they configure: nobody could mend it.
    pub fn is_exempt(&self) -> bool {
        self.resource.group == GROUP
    }

    /// The `AdmissionRequest`, without objects and uid; `seen` is the resource and the kind in whose
    /// form the objects are shown.
    pub fn request(&self, seen: (&Named, &Named)) -> Value {
        let resource =
            |r: &Named| json!({"group": r.group, "version": r.version, "resource": r.name});
        let kind = |k: &Named| json!({"group": k.group, "version": k.version, "kind": k.name});
        let mut request = json!({
            "kind": kind(seen.1),
            "resource": resource(seen.0),
            "requestKind": kind(&self.kind),
            "requestResource": resource(&self.resource),
            "operation": self.operation.name(),
            "userInfo": self.user,
            "dryRun": self.dry_run,
            "options": self.options,
        });
        for (field, text) in [
            ("subResource", &self.subresource),
            ("requestSubResource", &self.subresource),
            ("name", &self.name),
            ("namespace", &self.namespace),
        ] {
            if !text.is_empty() {
                request[field] = text.as_str().into();
            }
        }
        request
    }
}

#[cfg(test)]
mod tests;
