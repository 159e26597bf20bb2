//! The verbs, generic over the registry of kinds.

pub mod admission;
pub mod admit;
pub mod bind;
pub mod certificates;
pub mod delete;
pub mod escalate;
pub mod eviction;
pub mod fields;
pub mod list;
pub mod list_body;
pub mod notes;
pub mod params;
pub mod priority;
pub mod render;
pub mod review;
pub mod scale;
pub mod token;
pub mod watch;
pub mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use parking_lot::Mutex;
use rhumb_api::codec::FieldValidation;
use rhumb_api::json;
use rhumb_api::registry::Kind;
use rhumb_api::status::{ApiError, Result};
use rhumb_store::{KeyValue, StoreError};
use serde_json::Value;

use crate::auth::User;
use crate::cache::Collection;
use crate::flows::Seat;
use crate::http::negotiate::Accept;
use crate::http::reply::{self, Body};
use crate::object;
use crate::route::{Query, Resource};
use crate::server::Api;

pub use notes::Notes;

/// How long a read waits for the cache to show a revision.
pub const WAIT: Duration = Duration::from_secs(3);
/// How long a request may wait for those who are asked about it, as kube-apiserver's upper bound.
pub const PATIENCE: Duration = Duration::from_secs(34);
/// Attempts of a write that races with others before it gives up.
const ATTEMPTS: usize = 20;

/// A request about a kind that is served.
pub struct Request {
    pub api: Arc<Api>,
    pub user: Arc<User>,
    pub kind: Arc<Kind>,
    pub resource: Resource,
    pub query: Query,
    /// The verb of authorization.
    pub verb: &'static str,
    pub accept: Accept,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What others have to say about it.
    pub notes: Notes,
    /// When those who are asked about it must have answered.
    pub deadline: Instant,
    /// The request's place among those at work, for an answer that goes on after it.
    pub seat: Mutex<Option<Seat>>,
}

impl Request {
    pub fn namespace(&self) -> Option<&str> {
        self.kind
            .namespaced
            .then_some(self.resource.namespace.as_str())
    }

    pub fn store_key(&self, name: &str) -> Bytes {
        store_key(&self.kind, &self.resource.namespace, name)
    }

    pub fn collection(&self) -> Result<Arc<Collection>> {
        self.api
            .cache
            .collection(&self.kind)
            // A custom kind may just have gone.
            .ok_or_else(ApiError::no_such_path)
    }

    pub fn dry_run(&self) -> Result<bool> {
        rhumb_api::options::dry_run(self.options(), self.query.all("dryRun"))
    }

    pub fn field_validation(&self) -> Result<FieldValidation> {
        FieldValidation::parse(self.options(), self.query.get("fieldValidation"))
    }

    /// The type of the options in the query.
    fn options(&self) -> &'static str {
        match self.verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        }
    }

    pub fn content_type(&self) -> &str {
        self.headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    }

    /// The stored entry under a name, or 404.
    pub async fn current(&self, name: &str) -> Result<(KeyValue, Value)> {
        let kv = self
            .api
            .store
            .get(&self.store_key(name))
            .await
            .map_err(store_error)?
            .ok_or_else(|| ApiError::not_found(&self.kind, name))?;
        let value = object::value_of(&kv).map_err(ApiError::internal)?;
        Ok((kv, self.kind.from_store(value)))
    }

    /// The answer of a write: the stored object in the client's form.
    pub fn answer(&self, code: StatusCode, stored: Value) -> Result<Response<Body>> {
        let json = render::one(self, stored)?;
        Ok(reply::json_bytes(code, self.accept, json))
    }
}

/// `<group or core>/<plural>/[<namespace>/]<name>`
pub fn store_key(kind: &Kind, namespace: &str, name: &str) -> Bytes {
    let prefix = kind.storage_prefix();
    if kind.namespaced {
        format!("{prefix}/{namespace}/{name}").into()
    } else {
        format!("{prefix}/{name}").into()
    }
}

pub fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { .. } => ApiError::list_too_old(),
        StoreError::Future { requested, current } => {
            ApiError::too_large_resource_version(requested, current)
        }
        StoreError::Closed => ApiError::service_unavailable("the server is shutting down"),
        other => {
            tracing::error!(error = %other, "the store failed");
            ApiError::internal(other)
        }
    }
}

/// Sets the resourceVersion that a write got.
pub fn set_version(object: &mut Value, revision: u64) {
    if let Some(metadata) = json::child(object, "metadata") {
        json::put(
            metadata,
            "resourceVersion",
            Some(revision.to_string().into()),
        );
    }
}

/// A resourceVersion of the query: "" is `None`.
pub fn parse_version(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}
