//! OpenAPI documents: made when the first client asks, and kept as text.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, Response};
use rhumb_api::openapi::{Documents, v3_paths};
use rhumb_api::openapi_protobuf;
use rhumb_api::status::{ApiError, Result};

use crate::http::negotiate::{self, Target};
use crate::http::reply::Body;
use crate::system::tagged;

struct V3 {
    index: Bytes,
    documents: HashMap<String, Bytes>,
}

fn all_v3() -> &'static V3 {
    static V3: OnceLock<V3> = OnceLock::new();
    V3.get_or_init(|| {
        let documents = Documents::new();
        let texts = v3_paths().into_iter().filter_map(|path| {
            let document = documents.v3(&path)?;
            Some((path, Bytes::from(document.to_string())))
        });
        self::V3 {
            documents: texts.collect(),
            index: documents.v3_index().to_string().into(),
        }
    })
}

/// `/openapi/v2`, as JSON or, for Go clients, as protobuf.
pub fn v2(headers: &HeaderMap) -> Result<Response<Body>> {
    static V2: OnceLock<Bytes> = OnceLock::new();
    let protobuf = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(',').next())
        .is_some_and(|first| first.trim() == openapi_protobuf::MEDIA_TYPE);
    if protobuf {
        static PROTOBUF: OnceLock<Bytes> = OnceLock::new();
        let bytes =
            PROTOBUF.get_or_init(|| openapi_protobuf::encode(&Documents::new().v2()).into());
        let mut response = tagged(headers, bytes.clone());
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static(openapi_protobuf::CONTENT_TYPE),
        );
        return Ok(response);
    }
    negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    let text = V2.get_or_init(|| Documents::new().v2().to_string().into());
    Ok(tagged(headers, text.clone()))
}

pub fn v3_index(headers: &HeaderMap) -> Result<Response<Body>> {
    negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    Ok(tagged(headers, all_v3().index.clone()))
}

pub fn v3(path: &str, headers: &HeaderMap) -> Result<Response<Body>> {
    negotiate::accept(headers.get(ACCEPT), Target::Other)?;
    let text = all_v3()
        .documents
        .get(path)
        .ok_or_else(ApiError::no_such_path)?;
    Ok(tagged(headers, text.clone()))
}
