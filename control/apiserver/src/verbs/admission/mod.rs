//! Admission by what the cluster's users have configured: an object that is ready to be stored is
//! looked at once more, in the light of its namespace.

pub mod dynamic;
pub mod limits;
mod pod_security;
pub mod quota;

use rhumb_api::registry;
use rhumb_api::status::{ApiError, Result};
use rhumb_store::ListRequest;
use serde_json::Value;

use super::{Request, store_error, store_key};
use crate::object;

/// An object that is to be stored, and the one that it replaces.
pub async fn validate(request: &Request, new: &Value, old: Option<&Value>) -> Result<()> {
    limits::validate(request, new, old).await?;
    pod_security::validate(request, new, old).await
}

/// An object as the store has it: the cache may be a moment behind, and what was configured holds
/// for the next request.
async fn stored(
    request: &Request,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>> {
    let kind = registry::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let key = store_key(kind, namespace, name);
    match request.api.store.get(&key).await.map_err(store_error)? {
        Some(kv) => object::value_of(&kv).map(Some).map_err(ApiError::internal),
        None => Ok(None),
    }
}

/// The objects of a core kind in the request's namespace, as the store has them.
async fn stored_list(request: &Request, plural: &str) -> Result<Vec<Value>> {
    let kind = registry::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let list = ListRequest {
        prefix: store_key(kind, &request.resource.namespace, ""),
        ..ListRequest::default()
    };
    let found = request.api.store.list(list).await.map_err(store_error)?;
    let objects = found.items.iter().map(object::value_of);
    objects
        .collect::<std::result::Result<_, _>>()
        .map_err(ApiError::internal)
}
