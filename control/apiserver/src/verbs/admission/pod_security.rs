//! The plugin PodSecurity. Pods are refused or warned about; what makes pods is only warned about,
//! since the pods themselves are looked at when they come.

use rhumb_api::admission::pod_security::{self, Level, Policy, Standard};
use rhumb_api::json::text;
use rhumb_api::registry;
use rhumb_api::status::{ApiError, Result};
use serde_json::Value;

use super::stored;
use crate::verbs::Request;

pub async fn validate(request: &Request, new: &Value, old: Option<&Value>) -> Result<()> {
    let kind = &request.kind;
    let subresource = request.resource.subresource.as_str();
    match (kind.id(), subresource) {
        (("", "Namespace"), "") => return namespace(request, new, old),
        (("", "Pod"), "" | "ephemeralcontainers" | "resize") => {}
        (_, "") => {}
        _ => return Ok(()),
    }
    let is_pod = kind.is("", "Pod");
    let Some(pod) = pod_security::pod_of(&kind.group, &kind.kind, new) else {
        return Ok(());
    };
    if is_pod && old.is_some_and(|old| !pod_security::is_significant_update(new, old)) {
        return Ok(());
    }
    let namespace = request.resource.namespace.as_str();
    let Some(namespace) = stored(request, "namespaces", "", namespace).await? else {
        return Ok(());
    };
    let (policy, errors) = pod_security::policy(&namespace);
    if !errors.is_empty() {
        tracing::warn!(
            namespace = request.resource.namespace,
            errors = ?errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "the PodSecurity labels of a namespace can't be read"
        );
    }
    judge(request, &policy, pod, new, is_pod)
}

/// The sentence about what the pod breaks; `None` if it breaks nothing.
fn broken(standard: Standard, pod: &Value) -> Option<String> {
    let violations = pod_security::evaluate(standard, pod);
    let details = pod_security::details(&violations);
    (!violations.is_empty()).then(|| format!("violate PodSecurity \"{standard}\": {details}"))
}

fn judge(
    request: &Request,
    policy: &Policy,
    pod: &Value,
    object: &Value,
    enforce: bool,
) -> Result<()> {
    let name = text(object, "metadata.name");
    let annotation = |what: &str| format!("pod-security.kubernetes.io/{what}");
    if enforce {
        request
            .notes
            .annotate(annotation("enforce-policy"), policy.enforce.to_string());
    }
    if let Some(broken) = broken(policy.audit, pod) {
        request
            .notes
            .annotate(annotation("audit-violations"), format!("would {broken}"));
    }
    if enforce && let Some(broken) = broken(policy.enforce, pod) {
        let why = broken.replacen("violate", "violates", 1);
        return Err(ApiError::forbidden(&request.kind, name, &why));
    }
    if let Some(broken) = broken(policy.warn, pod) {
        request.notes.warn(format!("would {broken}"));
    }
    Ok(())
}

/// Labels must be readable, and a stricter level says which pods wouldn't be let in now.
fn namespace(request: &Request, new: &Value, old: Option<&Value>) -> Result<()> {
    let name = text(new, "metadata.name");
    let (policy, errors) = pod_security::policy(new);
    let before = old.map(pod_security::policy);
    let known = before.as_ref().is_some_and(|(_, before)| *before == errors);
    if !known {
        errors.into_result(&request.kind, name)?;
    }
    let Some((before, _)) = before else {
        return Ok(());
    };
    if policy.enforce.level == Level::Privileged
        || !pod_security::tightens(policy.enforce, before.enforce)
    {
        return Ok(());
    }
    let pods = registry::find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let pods = request.api.cache.collection(pods);
    let pods: Vec<Value> = pods
        .iter()
        .flat_map(|pods| pods.list(name))
        .map(|pod| pod.value())
        .collect();
    for warning in pod_security::existing(name, policy.enforce, &pods) {
        request.notes.warn(warning);
    }
    Ok(())
}
