//! Nobody grants what they don't have: writes of roles and bindings.
//! Source: Kubernetes `pkg/registry/rbac/*/policybased`.

use rhumb_api::json::{self, text};
use rhumb_api::rbac::{self, GROUP, Rule};
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Result};
use serde_json::Value;

use super::Request;
use crate::auth::MASTERS;
use crate::auth::authorize::Attributes;
use crate::auth::rbac::subject;

/// Whether two objects differ in what the garbage collector changes only.
fn only_collected(new: &Value, old: &Value) -> bool {
    let rest = |value: &Value| {
        let mut value = value.clone();
        if let Some(metadata) = json::child(&mut value, "metadata") {
            for field in [
                "ownerReferences",
                "finalizers",
                "resourceVersion",
                "managedFields",
            ] {
                json::remove(metadata, field);
            }
        }
        value
    };
    rest(new) == rest(old)
}

/// Checks a role or binding that is about to be stored.
pub fn check(request: &Request, new: &Value, old: Option<&Value>) -> Result<()> {
    if request.kind.group != GROUP || request.user.is_in(MASTERS) {
        return Ok(());
    }
    if old.is_some_and(|old| only_collected(new, old)) {
        return Ok(());
    }
    match &*request.kind.kind {
        "Role" | "ClusterRole" => role(request, new, old),
        "RoleBinding" | "ClusterRoleBinding" => binding(request, new),
        _ => Ok(()),
    }
}

fn may(request: &Request, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        verb,
        group: GROUP,
        resource,
        namespace: request.namespace().unwrap_or(""),
        name,
        ..Default::default()
    };
    let authorizer = &request.api.authorizer;
    authorizer.resource(&request.user, &attributes).allowed
}

fn role(request: &Request, new: &Value, old: Option<&Value>) -> Result<()> {
    let name = text(new, "metadata.name");
    if may(request, "escalate", &request.kind.plural, name) {
        return Ok(());
    }
    covered(request, name, &Rule::all_of(new))?;
    let gathers = |role: &Value| rbac::is_aggregated(role);
    // It can gather anything, now or later.
    if gathers(new) || old.is_some_and(gathers) {
        let (owned, _) = owned(request);
        if !rbac::covers(&owned, &rbac::full_authority()).is_empty() {
            return Err(ApiError::forbidden(
                &request.kind,
                name,
                "must have cluster-admin privileges to use the aggregationRule",
            ));
        }
    }
    Ok(())
}

fn binding(request: &Request, new: &Value) -> Result<()> {
    let name = text(new, "metadata.name");
    let role = text(new, "roleRef.name");
    let kind = text(new, "roleRef.kind");
    let plural = match kind {
        "Role" => "roles",
        _ => "clusterroles",
    };
    if may(request, "bind", plural, role) {
        return Ok(());
    }
    let namespace = request.namespace().unwrap_or("");
    let rules = request.api.authorizer.rbac.rules_of(kind, role, namespace);
    let Some(rules) = rules else {
        let kind = registry::find(GROUP, "v1", plural).ok_or_else(ApiError::no_such_path)?;
        return Err(ApiError::not_found(kind, role));
    };
    covered(request, name, &rules)
}

fn owned(request: &Request) -> (Vec<Rule>, Vec<String>) {
    let namespace = request.namespace().unwrap_or("");
    let rbac = &request.api.authorizer.rbac;
    rbac.rules_for(&request.user, namespace)
}

fn covered(request: &Request, name: &str, granted: &[Rule]) -> Result<()> {
    let (owned, faults) = owned(request);
    match rbac::escalation(&subject(&request.user), &owned, &faults, granted) {
        None => Ok(()),
        Some(why) => Err(ApiError::forbidden(&request.kind, name, &why)),
    }
}
