//! get and list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use rhumb_api::options::{ListOptions, number};
use rhumb_api::selector::{FieldSelector, LabelSelector};
use rhumb_api::status::{ApiError, Result};
use rhumb_store::{ListRequest, Revision, StoreError};
use serde::{Deserialize, Serialize};

use super::{Request, WAIT, list_body, parse_version, render, store_error, store_key};
use crate::http::reply::{self, Body};
use crate::object::Object;

/// What of a collection a client wants.
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// A single object by its path's name (`watch` of one).
    pub name: String,
}

impl Selection {
    pub fn parse(request: &Request) -> Result<Selection> {
        let selection = Selection {
            labels: LabelSelector::parse(request.query.get("labelSelector"))?,
            fields: FieldSelector::parse(&request.kind, request.query.get("fieldSelector"))?,
            name: request.resource.name.clone(),
        };
        let required = selection.fields.required("metadata.name");
        if !selection.name.is_empty()
            && !selection.fields.is_everything()
            && required != Some(&selection.name)
        {
            return Err(ApiError::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
        Ok(selection)
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_empty()
    }

    pub fn matches(&self, request: &Request, object: &Object) -> bool {
        let namespace = &request.resource.namespace;
        let here = (namespace.is_empty() || **namespace == *object.namespace())
            && (self.name.is_empty() || *self.name == *object.name());
        if !here || (self.labels.is_everything() && self.fields.is_everything()) {
            return here;
        }
        let index = object.index();
        self.labels.matches(&index) && self.fields.matches(&request.kind, &index)
    }
}

pub async fn get(request: &Request) -> Result<Response<Body>> {
    let name = &request.resource.name;
    // "0" takes what there is, everything else is at least as new as now.
    let wanted = match parse_version(request.query.get("resourceVersion"))? {
        Some(0) => 0,
        Some(at) => at,
        None => request.api.store.revision(),
    };
    reach(request, wanted).await?;
    let collection = request.collection()?;
    let namespace = &request.resource.namespace;
    let object = collection
        .get(namespace, name)
        .ok_or_else(|| ApiError::not_found(&request.kind, name))?;
    let json = render::single(request, &object)?;
    Ok(reply::json_bytes(StatusCode::OK, request.accept, json))
}

/// Waits until the cache shows at least `revision`.
pub async fn reach(request: &Request, revision: Revision) -> Result<()> {
    request
        .api
        .cache
        .reach(revision, WAIT)
        .await
        .map_err(|late| ApiError::too_large_resource_version(revision, late.current))
}

/// Where the next page begins; opaque to clients.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "rv")]
    revision: Revision,
    /// Key of the last object of the page before, as in `Object::key`.
    #[serde(rename = "start")]
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        let json = serde_json::json!({"rv": self.revision, "start": self.after}).to_string();
        URL_SAFE_NO_PAD.encode(json)
    }

    fn decode(text: &str) -> Result<Continue> {
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

/// A list before it is written out.
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    pub revision: Revision,
    pub next: String,
    pub remaining: Option<usize>,
}

pub async fn list(request: &Request) -> Result<Response<Body>> {
    let page = page(request).await?;
    list_body::answer(request, page)
}

pub async fn page(request: &Request) -> Result<Page> {
    let query = &request.query;
    let selection = Selection::parse(request)?;
    let limit = number(query.get("limit"))?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    number(query.get("timeoutSeconds"))?;
    list_options(request, false).check()?;
    let asked = parse_version(query.get("resourceVersion"))?;
    let matching = query.get("resourceVersionMatch");
    let token = query.get("continue");
    if !token.is_empty() && asked.is_some_and(|at| at != 0) {
        return Err(ApiError::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    if !token.is_empty() {
        let token = Continue::decode(token)?;
        return match at_revision(
            request,
            &selection,
            limit,
            token.revision,
            Some(&token.after),
        )
        .await
        {
            Err(error) if error.code == 410 => Err(ApiError::continue_expired()),
            other => other,
        };
    }
    if matching == "Exact"
        && let Some(at) = asked
        && at != request.api.cache.applied()
    {
        reach(request, at).await?;
        return at_revision(request, &selection, limit, at, None).await;
    }
    let wanted = match asked {
        Some(at) => at,
        None => request.api.store.revision(),
    };
    reach(request, wanted).await?;
    let collection = request.collection()?;
    let (objects, revision) = request
        .api
        .cache
        .snapshot(&collection, &request.resource.namespace);
    let objects = if selection.is_everything() {
        objects
    } else {
        objects
            .into_iter()
            .filter(|object| selection.matches(request, object))
            .collect()
    };
    Ok(cut(objects, &selection, limit, revision))
}

/// What the query says about where a list, or a watch, begins.
pub fn list_options(request: &Request, watch: bool) -> ListOptions<'_> {
    let query = &request.query;
    ListOptions {
        watch,
        resource_version: query.get("resourceVersion"),
        resource_version_match: query.get("resourceVersionMatch"),
        continue_token: query.get("continue"),
        send_initial_events: query
            .has("sendInitialEvents")
            .then(|| query.flag("sendInitialEvents")),
    }
}

/// The first `limit` objects, and how to go on.
fn cut(
    mut objects: Vec<Arc<Object>>,
    selection: &Selection,
    limit: usize,
    revision: Revision,
) -> Page {
    let mut next = String::new();
    let mut remaining = None;
    if limit != 0 && objects.len() > limit {
        // As in Kubernetes the count is only given when no selector makes it uncertain.
        if selection.is_everything() {
            remaining = Some(objects.len() - limit);
        }
        objects.truncate(limit);
        if let Some(last) = objects.last() {
            next = Continue {
                revision,
                after: last.key().to_string(),
            }
            .encode();
        }
    }
    Page {
        objects,
        revision,
        next,
        remaining,
    }
}

/// A list of the past: from memory while what has changed since is there, else from the store.
async fn at_revision(
    request: &Request,
    selection: &Selection,
    limit: usize,
    revision: Revision,
    after: Option<&str>,
) -> Result<Page> {
    let kind = &request.kind;
    let namespace = &request.resource.namespace;
    if revision <= request.api.cache.applied()
        && let Some(mut objects) =
            request
                .collection()?
                .list_at(namespace, after.unwrap_or_default(), revision)
    {
        objects.retain(|object| selection.matches(request, object));
        return Ok(cut(objects, selection, limit, revision));
    }
    let prefix = if namespace.is_empty() {
        format!("{}/", kind.storage_prefix())
    } else {
        format!("{}/{namespace}/", kind.storage_prefix())
    };
    let after = after.map(|key| {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        store_key(kind, namespace, name)
    });
    let response = request
        .api
        .store
        .list(ListRequest {
            prefix: prefix.into(),
            after,
            // A selector may drop any of them.
            limit: if selection.is_everything() && limit != 0 {
                limit + 1
            } else {
                0
            },
            at: Some(revision),
        })
        .await
        .map_err(|error| match error {
            // Not from this store at all, or from before a restore.
            StoreError::Future { .. } if revision > request.api.store.revision() => {
                ApiError::continue_expired()
            }
            other => store_error(other),
        })?;
    let mut objects = Vec::new();
    for kv in &response.items {
        let object = Object::from_stored(kind.storage(), kv).map_err(ApiError::internal)?;
        if selection.matches(request, &object) {
            objects.push(Arc::new(object));
        }
    }
    let mut page = cut(objects, selection, limit, revision);
    if let Some(remaining) = &mut page.remaining {
        *remaining += response.remaining;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens() {
        let token = Continue {
            revision: 7,
            after: "a/b".into(),
        };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        for bad in ["", "x", "!!", "e30"] {
            assert_eq!(Continue::decode(bad).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn forged_tokens_are_refused() {
        let token = Continue {
            revision: 7,
            after: "default/a".into(),
        };
        let good = token.encode();
        rhumb_fuzz::run("continue", 3000, |dice| {
            let forged = match dice.one_in(2) {
                true => rhumb_fuzz::bytes(good.as_bytes(), &["eyJ", "=="], dice),
                false => {
                    let json = serde_json::json!({"rv": 7, "start": "default/a"});
                    let json = rhumb_fuzz::value(&json, dice).to_string();
                    URL_SAFE_NO_PAD.encode(json).into_bytes()
                }
            };
            if let Err(error) = Continue::decode(&String::from_utf8_lossy(&forged)) {
                assert_eq!(error.code, 400);
            }
        });
    }
}
