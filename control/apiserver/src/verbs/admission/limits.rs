//! The plugin LimitRanger: of pods when they are made, and of claims.

use rhumb_api::admission::limits;
use rhumb_api::status::{ApiError, Result};
use rhumb_api::strategy;
use serde_json::Value;

use super::stored_list;
use crate::verbs::Request;

fn is_limited(request: &Request) -> bool {
    request.kind.group.is_empty()
        && matches!(&*request.kind.kind, "Pod" | "PersistentVolumeClaim")
        && request.resource.subresource.is_empty()
}

/// Gives a new pod's containers what the namespace has for them.
pub async fn default(request: &Request, pod: &mut Value) -> Result<()> {
    for range in stored_list(request, "limitranges").await? {
        limits::default_pod(&range, pod);
    }
    Ok(())
}

/// Containers of a pod can't change; claims can.
pub async fn validate(request: &Request, new: &Value, old: Option<&Value>) -> Result<()> {
    let kind = &request.kind;
    let unchanged = old.is_some_and(|old| kind.is("", "Pod") || new["spec"] == old["spec"]);
    if !is_limited(request) || unchanged {
        return Ok(());
    }
    for range in stored_list(request, "limitranges").await? {
        limits::check(&range, &kind.group, &kind.kind, new)
            .map_err(|why| ApiError::forbidden(kind, strategy::called(new), &why))?;
    }
    Ok(())
}
