//! OpenAPI documents: made when the first client asks after a change of the kinds, and kept as text.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use rhumb_api::openapi::Documents;
use rhumb_api::openapi_protobuf;
use rhumb_api::registry::{Kind, Registry};
use rhumb_api::status::{ApiError, Result};

use crate::http::negotiate::{self, Target};
use crate::http::reply::Body;
use crate::server::Api;
use crate::system::tagged;

/// The documents of the registry that was served when somebody asked last.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    of: Option<Arc<Registry>>,
    index: Option<Bytes>,
    v2: Option<Bytes>,
    v2_protobuf: Option<Bytes>,
    /// By path. A document stays while its kinds do.
    v3: HashMap<String, Document>,
}

struct Document {
    kinds: Vec<Arc<Kind>>,
    text: Bytes,
}

impl Made {
    /// Forgets what the registry of now has changed.
    fn follow(&mut self, registry: &Arc<Registry>) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, registry)) {
            return;
        }
        self.of = Some(registry.clone());
        self.index = None;
        self.v2 = None;
        self.v2_protobuf = None;
        let same = |document: &Document, path: &str| {
            let mut now = kinds_of(registry, path);
            let mut then = document.kinds.iter();
            loop {
                match (now.next(), then.next()) {
                    (None, None) => return true,
                    (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {}
                    _ => return false,
                }
            }
        };
        self.v3.retain(|path, document| same(document, path));
    }

    fn v3(&mut self, registry: &Registry, path: &str) -> Option<Bytes> {
        if let Some(document) = self.v3.get(path) {
            return Some(document.text.clone());
        }
        let text = Bytes::from(Documents::new(registry).v3(path)?.to_string());
        let document = Document {
            kinds: kinds_of(registry, path).cloned().collect(),
            text: text.clone(),
        };
        self.v3.insert(path.to_string(), document);
        Some(text)
    }
}

/// The kinds of `api/v1`, `apis/apps/v1`.
fn kinds_of<'a>(registry: &'a Registry, path: &'a str) -> impl Iterator<Item = &'a Arc<Kind>> {
    let group_version = path.split_once('/').map_or("", |(_, rest)| rest);
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    registry.of_version(group, version)
}

/// `/openapi/v2`, as JSON or, for Go clients, as protobuf.
pub fn v2(api: &Api, headers: &HeaderMap) -> Result<Response<Body>> {
    let protobuf = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(',').next())
        .is_some_and(|first| first.trim() == openapi_protobuf::MEDIA_TYPE);
    if !protobuf {
        negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    }
    let registry = api.registry();
    let mut made = api.openapi.made.lock();
    made.follow(&registry);
    let document = || Documents::new(&registry).v2();
    if protobuf {
        let bytes = made
            .v2_protobuf
            .get_or_insert_with(|| openapi_protobuf::encode(&document()).into());
        let mut response = tagged(headers, bytes.clone());
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static(openapi_protobuf::CONTENT_TYPE),
        );
        return Ok(response);
    }
    let text = made.v2.get_or_insert_with(|| document().to_string().into());
    Ok(tagged(headers, text.clone()))
}

pub fn v3_index(api: &Api, headers: &HeaderMap) -> Result<Response<Body>> {
    negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    let registry = api.registry();
    let mut made = api.openapi.made.lock();
    made.follow(&registry);
    if let Some(index) = &made.index {
        return Ok(tagged(headers, index.clone()));
    }
    let paths = Documents::new(&registry).v3_paths();
    let texts: Vec<(&str, Bytes)> = paths
        .iter()
        .filter_map(|path| Some((path.as_str(), made.v3(&registry, path)?)))
        .collect();
    let index = Documents::v3_index(texts.iter().map(|(path, text)| (*path, &**text)));
    let index = Bytes::from(index.to_string());
    made.index = Some(index.clone());
    Ok(tagged(headers, index))
}

pub fn v3(api: &Api, path: &str, headers: &HeaderMap) -> Result<Response<Body>> {
    negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    let registry = api.registry();
    let mut made = api.openapi.made.lock();
    made.follow(&registry);
    let text = made
        .v3(&registry, path)
        .ok_or_else(ApiError::no_such_path)?;
    Ok(tagged(headers, text))
}
