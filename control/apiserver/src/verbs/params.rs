//! Who writes an admission policy, or binds one, must be able to read its parameters: what a policy
//! says about a request may tell what is in them.
//! Source: Kubernetes `pkg/registry/admissionregistration/validatingadmissionpolicy{,binding}/authz.go`.

use rhumb_api::admission::dynamic::GROUP;
use rhumb_api::json::{at, text};
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Errors, Result};
use serde_json::Value;

use super::{Request, admit};
use crate::auth::MASTERS;
use crate::auth::authorize::Attributes;

/// Checks a policy or a binding that is about to be stored.
pub async fn check(request: &Request, new: &Value, old: Option<&Value>) -> Result<()> {
    if request.kind.group != GROUP || request.user.is_in(MASTERS) {
        return Ok(());
    }
    let same = |path: &str| old.is_some_and(|old| at(old, path) == at(new, path));
    match &*request.kind.kind {
        "ValidatingAdmissionPolicy" if !same("spec.paramKind") => policy(request, new),
        "ValidatingAdmissionPolicyBinding"
            if !(same("spec.paramRef") && same("spec.policyName")) =>
        {
            binding(request, new).await
        }
        _ => Ok(()),
    }
}

/// Whether the user may read objects of the kind; one that isn't served may be any of its group.
fn may_read(request: &Request, kind: Option<&Value>, namespace: &str, name: &str) -> bool {
    let registry = request.api.registry();
    let api_version = kind.map_or("*/*", |kind| text(kind, "apiVersion"));
    let found = kind.and_then(|kind| {
        registry
            .kinds()
            .iter()
            .find(|k| k.kind == text(kind, "kind") && k.api_version() == api_version)
    });
    let attributes = Attributes {
        verb: "get",
        group: api_version.split_once('/').map_or("", |(group, _)| group),
        resource: found.map_or("*", |k| &k.plural),
        namespace,
        name,
        ..Default::default()
    };
    let authorizer = &request.api.authorizer;
    authorizer.resource(&request.user, &attributes).allowed
}

fn refused(request: &Request, object: &Value, field: &str, why: &str) -> ApiError {
    let mut errors = Errors::default();
    errors.forbidden(field, why);
    ApiError::invalid(&request.kind, text(object, "metadata.name"), errors)
}

fn policy(request: &Request, policy: &Value) -> Result<()> {
    let Some(kind) = at(policy, "spec.paramKind") else {
        return Ok(());
    };
    if may_read(request, Some(kind), "*", "*") {
        return Ok(());
    }
    let why = format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        request.user.name,
        text(kind, "kind"),
        text(kind, "apiVersion")
    );
    Err(refused(request, policy, "spec.paramKind", &why))
}

async fn binding(request: &Request, binding: &Value) -> Result<()> {
    let Some(reference) = at(binding, "spec.paramRef") else {
        return Ok(());
    };
    let or_any = |field: &str| match text(reference, field) {
        "" => "*",
        given => given,
    };
    let policies = registry::find(GROUP, "v1", "validatingadmissionpolicies");
    let policies = policies.ok_or_else(ApiError::no_such_path)?;
    let policy = admit::find_kind(request, policies, "", text(binding, "spec.policyName")).await?;
    // Of a policy that is to come, or takes none, the parameters may be anything.
    let kind = policy.as_ref().and_then(|p| at(p, "spec.paramKind"));
    if may_read(request, kind, or_any("namespace"), or_any("name")) {
        return Ok(());
    }
    let why = format!(
        "user {} does not have \"get\" permission on the object referenced by paramRef",
        request.user.name
    );
    Err(refused(request, binding, "spec.paramRef", &why))
}
