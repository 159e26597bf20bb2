//! Admission: what depends on other objects and on who asks.

use rhumb_api::admission;
use rhumb_api::json::{self, at, text};
use rhumb_api::node_restriction;
use rhumb_api::registry::{self, Kind};
use rhumb_api::service::{self, Family};
use rhumb_api::status::{ApiError, Errors, Result};
use rhumb_api::strategy;
use serde_json::{Value, json};

use super::{Request, priority, store_error, store_key};
use crate::auth::authorize;
use crate::bootstrap::BootstrapError;
use crate::ip_addresses;
use crate::object;
use crate::service_ips::{Refused, Reserved};

/// The namespaces that the cluster can't be without.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public"];

/// An object of the cache, or, since the cache may be a moment behind, of the store.
pub async fn find(
    request: &Request,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>> {
    let kind = registry::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    find_kind(request, kind, namespace, name).await
}

pub async fn find_kind(
    request: &Request,
    kind: &Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>> {
    let cached = request
        .api
        .cache
        .collection(kind)
        .and_then(|c| c.get(namespace, name));
    if let Some(object) = cached {
        return Ok(Some(object.value()));
    }
    let key = store_key(kind, namespace, name);
    match request.api.store.get(&key).await.map_err(store_error)? {
        Some(kv) => object::value_of(&kv).map(Some).map_err(ApiError::internal),
        None => Ok(None),
    }
}

/// Before a new object is made ready to be stored.
pub async fn create(request: &Request, object: &mut Value) -> Result<()> {
    let kind = &request.kind;
    let name = strategy::called(object).to_string();
    if let Some(namespace) = request.namespace() {
        namespace_open(request, namespace, &name).await?;
    }
    may_create(request, object).await?;
    super::certificates::create(request, object)?;
    match kind.id() {
        ("", "Pod") => {
            super::admission::limits::default(request, object).await?;
            service_account(request, object, &name).await?;
            priority::pod(request, object).await?;
            admission::default_tolerations(object);
        }
        ("", "Service") => {
            service::default_families(object, request.api.service_ips.families());
        }
        ("scheduling.k8s.io", "PriorityClass") => priority::class(request, object)?,
        _ => {}
    }
    Ok(())
}

/// Whether the user may make this object, as it is: asked again when others have changed it.
pub async fn may_create(request: &Request, object: &Value) -> Result<()> {
    restricted_create(request, object).await?;
    super::escalate::check(request, object, None)?;
    super::params::check(request, object, None).await
}

/// Gives a pod its service account, and the token of it. Mirror pods run without the API's doing.
async fn service_account(request: &Request, object: &mut Value, name: &str) -> Result<()> {
    let kind = &request.kind;
    let annotations = json::map(object, "metadata.annotations");
    if annotations.is_some_and(|a| a.contains_key(node_restriction::MIRROR)) {
        return match text(object, "spec.serviceAccountName") {
            "" => Ok(()),
            _ => Err(ApiError::forbidden(
                kind,
                name,
                "a mirror pod may not reference service accounts",
            )),
        };
    }
    let account = admission::service_account_name(object).to_string();
    let namespace = request.resource.namespace.as_str();
    let found = find(request, "serviceaccounts", namespace, &account).await?;
    let Some(found) = found else {
        return Err(ApiError::forbidden(
            kind,
            name,
            &format!(
                "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
            ),
        ));
    };
    let suffix = strategy::name_suffix(rand::random());
    admission::service_account(object, &found, &suffix);
    Ok(())
}

/// A kubelet's refusal, in admission's words.
fn kubelet_verdict(
    request: &Request,
    name: &str,
    verdict: std::result::Result<(), String>,
) -> Result<()> {
    verdict.map_err(|why| ApiError::forbidden(&request.kind, name, &why))
}

async fn restricted_create(request: &Request, object: &Value) -> Result<()> {
    let Some(node) = request.user.as_node() else {
        return Ok(());
    };
    let name = strategy::called(object);
    let verdict = match request.kind.id() {
        ("", "Pod") => {
            let own = find(request, "nodes", "", node).await?;
            let uid = own.as_ref().map(|n| text(n, "metadata.uid"));
            node_restriction::pod_create(node, object, uid)
        }
        ("", "Node") => node_restriction::node(node, object, None),
        ("coordination.k8s.io", "Lease") => {
            node_restriction::lease(node, &request.resource.namespace, name)
        }
        ("storage.k8s.io", "CSINode") => node_restriction::csi_node(node, name),
        _ => Ok(()),
    };
    kubelet_verdict(request, name, verdict)
}

fn restricted_update(request: &Request, new: &Value, old: &Value) -> Result<()> {
    let Some(node) = request.user.as_node() else {
        return Ok(());
    };
    let name = text(old, "metadata.name");
    let verdict = match (request.kind.id(), request.resource.subresource.as_str()) {
        (("", "Pod"), "status") => node_restriction::pod_status(node, new, old),
        (("", "Pod"), "") => node_restriction::pod_update(node),
        (("", "Pod"), other) => node_restriction::pod_subresource(other),
        (("", "Node"), _) => node_restriction::node(node, new, Some(old)),
        (("", "PersistentVolumeClaim"), "status") => node_restriction::claim_status(node, new, old),
        (("", "PersistentVolumeClaim"), _) => Err("may only update PVC status".into()),
        (("coordination.k8s.io", "Lease"), _) => {
            node_restriction::lease(node, &request.resource.namespace, name)
        }
        (("storage.k8s.io", "CSINode"), _) => node_restriction::csi_node(node, name),
        _ => Ok(()),
    };
    kubelet_verdict(request, name, verdict)
}

async fn restricted_delete(request: &Request, name: &str) -> Result<()> {
    let Some(node) = request.user.as_node() else {
        return Ok(());
    };
    let namespace = request.resource.namespace.as_str();
    let verdict = match request.kind.id() {
        ("", "Pod") => match find(request, "pods", namespace, name).await? {
            Some(pod) => node_restriction::pod_delete(node, &pod),
            None => Ok(()),
        },
        ("", "Node") => node_restriction::node_delete(node, name),
        ("coordination.k8s.io", "Lease") => node_restriction::lease(node, namespace, name),
        ("storage.k8s.io", "CSINode") => node_restriction::csi_node(node, name),
        _ => Ok(()),
    };
    kubelet_verdict(request, name, verdict)
}

async fn namespace_open(request: &Request, namespace: &str, name: &str) -> Result<()> {
    let kind = &request.kind;
    let Some(found) = find(request, "namespaces", "", namespace).await? else {
        let namespaces =
            registry::find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
        return Err(ApiError::not_found(namespaces, namespace));
    };
    let terminating = at(&found, "metadata.deletionTimestamp").is_some()
        || text(&found, "status.phase") == "Terminating";
    // Why it can't be deleted yet, and who holds a lease, must still be said.
    if terminating
        && !matches!(
            kind.id(),
            ("" | "events.k8s.io", "Event") | ("coordination.k8s.io", "Lease")
        )
    {
        let mut error = ApiError::forbidden(
            kind,
            name,
            &format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            ),
        );
        let causes = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        error
            .details
            .get_or_insert_default()
            .insert("causes".into(), causes);
        return Err(error);
    }
    Ok(())
}

/// An agent runs where the kubelet does: it may not give its node what the kubelet may not.
fn agent_node(request: &Request, new: &Value, old: &Value) -> Result<()> {
    let agent = authorize::is_agent(&request.user) && !request.user.is_in(crate::auth::MASTERS);
    if !agent || !request.kind.is("", "Node") {
        return Ok(());
    }
    let name = text(old, "metadata.name");
    let verdict = node_restriction::node(name, new, Some(old));
    kubelet_verdict(request, name, verdict)
}

/// Before a pod is evicted, and its budget charged.
pub fn evict(request: &Request, pod: &Value) -> Result<()> {
    match request.user.as_node() {
        Some(node) => kubelet_verdict(
            request,
            text(pod, "metadata.name"),
            node_restriction::pod_evict(node, pod),
        ),
        None => Ok(()),
    }
}

/// Before a changed object is stored. Agents may change their pods' annotations, and nothing else
/// of a pod.
pub async fn update(request: &Request, new: &Value, old: &Value) -> Result<()> {
    super::escalate::check(request, new, Some(old))?;
    super::params::check(request, new, Some(old)).await?;
    super::certificates::update(request, new, old)?;
    restricted_update(request, new, old)?;
    agent_node(request, new, old)?;
    if request.kind.is("scheduling.k8s.io", "PriorityClass") {
        priority::class(request, new)?;
    }
    let restricted = request.kind.is("", "Pod")
        && matches!(request.resource.subresource.as_str(), "" | "status")
        && !request.user.is_in(crate::auth::MASTERS)
        && authorize::is_agent(&request.user);
    if restricted {
        let without = |value: &Value| {
            let mut value = value.clone();
            if let Some(metadata) = json::child(&mut value, "metadata") {
                json::remove(metadata, "annotations");
                // Whoever changes an annotation owns it then.
                json::remove(metadata, "managedFields");
            }
            drop_nulls(&mut value);
            value
        };
        if without(new) != without(old) {
            return Err(ApiError::forbidden(
                &request.kind,
                &request.resource.name,
                &format!(
                    "User \"{}\" may change annotations of pods only",
                    request.user.name
                ),
            ));
        }
    }
    Ok(())
}

/// A null says nothing: decoding drops it.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

pub async fn delete(request: &Request, name: &str) -> Result<()> {
    restricted_delete(request, name).await?;
    if request.kind.is("", "Namespace") && PROTECTED.contains(&name) {
        return Err(ApiError::forbidden(
            &request.kind,
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// The cluster's families, if the kind is Service.
pub fn service_families<'a>(request: &'a Request, kind: &Kind) -> Option<&'a [Family]> {
    is_service(kind).then(|| request.api.service_ips.families())
}

fn is_service(kind: &Kind) -> bool {
    kind.is("", "Service")
}

/// Gives a Service its cluster IPs. They return to the pool unless `Reserved::keep` is called.
pub fn allocate(request: &Request, new: &mut Value, old: Option<&Value>) -> Result<Reserved> {
    let ips = &request.api.service_ips;
    if !is_service(&request.kind) || !matches!(request.resource.subresource.as_str(), "") {
        return Ok(Reserved::nothing(ips.clone()));
    }
    let held = old.map(held_ips).unwrap_or_default();
    let wanted = service::wanted_ips(new);
    let allocated = ips.reserve(&wanted, &held);
    let (addresses, reserved) = allocated.map_err(|refused| {
        let name = text(new, "metadata.name");
        match refused {
            Refused::Taken(ip) => invalid(request, name, new, format!("failed to allocate IP {ip}: provided IP is already allocated")),
            Refused::OutOfRange(ip) => invalid(request, name, new, format!("failed to allocate IP {ip}: the provided IP is not in the valid range. The range of valid IPs is {}", ips.described())),
            Refused::NoFamily(family) => invalid(request, name, new, format!("the cluster has no service range of the family {}", family.name())),
            Refused::Full(family) => ApiError::internal(format!("failed to allocate a serviceIP: the {} range is full", family.name())),
        }
    })?;
    service::set_cluster_ips(new, &addresses);
    Ok(reserved)
}

fn invalid(request: &Request, name: &str, service: &Value, why: String) -> ApiError {
    let mut errors = Errors::default();
    let given = at(service, "spec")
        .map(service::cluster_ips)
        .unwrap_or_default();
    errors.invalid("spec.clusterIPs", given, why);
    ApiError::invalid(&request.kind, name, errors)
}

/// The addresses that a stored Service holds.
pub fn held_ips(service: &Value) -> Vec<std::net::IpAddr> {
    if text(service, "spec.type") == "ExternalName" {
        return Vec::new();
    }
    at(service, "spec")
        .map(service::cluster_ips)
        .unwrap_or_default()
        .iter()
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

/// After a Service was changed or removed (`new` is `None`): what it no longer has is free.
pub async fn released(request: &Request, old: &Value, new: Option<&Value>) {
    if !is_service(&request.kind) {
        return;
    }
    let keeps = new.map(held_ips).unwrap_or_default();
    let gone: Vec<_> = held_ips(old)
        .into_iter()
        .filter(|ip| !keeps.contains(ip))
        .collect();
    // While the addresses are still taken: nobody else's objects are removed.
    report(ip_addresses::let_go(&request.api, &gone).await);
    request.api.service_ips.release(&gone);
}

/// A failure to write an IPAddress: the Services are right all the same, and the next start mends it.
pub fn report(written: std::result::Result<(), BootstrapError>) {
    if let Err(error) = written {
        tracing::warn!(%error, "the IPAddress objects differ from the Services until the next start");
    }
}
