//! One request: who, what, may they, do it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, CONTENT_LENGTH};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rhumb_api::rbac::{self, Decision};
use rhumb_api::registry::{self, Kind};
use rhumb_api::status::{ApiError, Result};

use crate::audit::{self, Record};
use crate::auth::authorize::{Attributes, HEALTH};
use crate::auth::{self, User, authenticate, impersonate};
use crate::definitions;
use crate::http::negotiate::{self, Accept, JSON_ACCEPT, Target as AcceptTarget};
use crate::http::relay;
use crate::http::reply::{self, Body};
use crate::kubelet;
use crate::proxy;
use crate::route::{self, Query, Resource, Target};
use crate::server::Api;
use crate::system;
use crate::verbs::review::Asked;
use crate::verbs::write::Part;
use crate::verbs::{
    self, Notes, Request, admission, bind, delete, eviction, list, review, scale, token, watch,
    write,
};

/// As kube-apiserver.
const MAX_BODY: usize = 3 << 20;
/// How much, and how long, of a body that is too large is read to no purpose.
const MAX_DISCARDED: usize = 16 << 20;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(60);
const DISCARD: Duration = Duration::from_secs(5);

pub async fn handle(
    api: Arc<Api>,
    peer: IpAddr,
    certificate: Option<Arc<User>>,
    request: hyper::Request<Incoming>,
) -> Response<Body> {
    let began = Instant::now();
    let gzip = negotiate::gzip(request.headers());
    let head = request.method() == Method::HEAD;
    let shown = format!("{} {}", request.method(), request.uri().path());
    let id = audit::id(&request);
    let pretty = negotiate::pretty(request.uri().query(), request.headers());
    let mut labels = Labels::default();
    if api.audit.is_some() {
        labels.record = Record::begin(&request, &id, peer);
    }
    let answered = answer(&api, certificate, request, &mut labels).await;
    if let Some(audit) = &api.audit {
        labels.record.verb = labels.verb;
        if let Some(line) = audit::line(&labels.record, &answered) {
            audit.write(line).await;
        }
    }
    let mut response = answered.unwrap_or_else(|error| {
        if error.code >= 500 {
            tracing::warn!(request = shown, code = error.code, error = %error, "refused");
        }
        reply::error(&error)
    });
    reply::warn(&mut response, &labels.record.notes.take_warnings());
    api.metrics.count(
        labels.verb,
        &labels.resource,
        response.status().as_u16(),
        began.elapsed(),
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(audit::AUDIT_ID, id);
    }
    if pretty {
        response = reply::indent(response).await;
    }
    if gzip && response.status() == StatusCode::OK {
        response = reply::compress(response).await;
    }
    if head {
        *response.body_mut() = reply::full("");
    }
    response
}

/// What metrics and the audit call the request.
#[derive(Default)]
struct Labels {
    verb: &'static str,
    resource: String,
    record: Record,
}

async fn answer(
    api: &Arc<Api>,
    certificate: Option<Arc<User>>,
    request: hyper::Request<Incoming>,
    labels: &mut Labels,
) -> Result<Response<Body>> {
    let user = match certificate {
        Some(user) => user,
        None => match authenticate::from_headers(request.headers(), api) {
            Ok(Some(user)) => Arc::new(user),
            // Without credentials there is health alone.
            Ok(None) if HEALTH.contains(&request.uri().path()) => Arc::new(User::anonymous()),
            Ok(None) => return Err(ApiError::unauthorized()),
            Err(why) => {
                tracing::debug!(why, "a token was refused");
                return Err(ApiError::unauthorized());
            }
        },
    };
    labels.record.user = Some(user.clone());
    let acting = impersonate::impersonated(&user, request.headers(), &api.authorizer)?;
    let acting = acting.map(Arc::new);
    labels.record.acting = acting.clone();
    let user = acting.unwrap_or(user);
    let query = Query::parse(request.uri().query().unwrap_or(""));
    match route::parse(request.uri().path(), &api.registry()) {
        Target::Path(path) => {
            let verb = route::path_verb(request.method());
            labels.verb = verb;
            let allowed = may_path(api, &user, verb, &path).await;
            labels.record.allowed = Some(allowed.is_ok());
            allowed?;
            if !matches!(verb, "get" | "head") {
                return Err(ApiError::method_not_allowed());
            }
            system::answer(api, &path, &query, request.headers())
        }
        Target::Resource(resource) => {
            let Some(verb) = route::verb(request.method(), &resource, &query) else {
                return Err(ApiError::method_not_allowed());
            };
            labels.verb = verb;
            if resource.kind.is_some() {
                labels.resource = resource.described();
            }
            let review =
                registry::find_review(&resource.group, &resource.version, &resource.plural);
            if api.audit.is_some() {
                labels.record.object = Some(resource.clone());
            }
            let allowed = may(api, &user, verb, &resource, &query).await;
            labels.record.allowed = Some(allowed.is_ok());
            allowed?;
            if let Some(review) = review {
                if resource.namespace.is_empty() == review.namespaced || !resource.name.is_empty() {
                    return Err(ApiError::no_such_path());
                }
                if verb != "create" {
                    return Err(ApiError::method_not_allowed());
                }
                labels.resource = resource.described();
                if review.kind == "Binding" {
                    let notes = labels.record.notes.clone();
                    return bind_by_body(api, user, resource, query, request, notes).await;
                }
                let (parts, body) = request.into_parts();
                let _room = api.flows.room(&user, expected(&parts.headers))?;
                let body = read_body(&parts.headers, body).await?;
                let _seat = api.flows.seat(&user).await?;
                let asked = Asked {
                    review,
                    user: &user,
                    namespace: &resource.namespace,
                    query: &query,
                    headers: &parts.headers,
                    body: &body,
                };
                // A role that was written before counts.
                let _ = api.cache.reach(api.store.revision(), verbs::WAIT).await;
                return review::create(api, &asked);
            }
            let kind = resource.kind.clone();
            let notes = labels.record.notes.clone();
            if let Some(warning) = kind.as_ref().and_then(|kind| kind.deprecation()) {
                notes.warn(warning.into());
            }
            let mut answered = dispatch(api, user, verb, resource, query, request, notes).await;
            if let Some(kind) = &kind {
                after(api, kind, verb, &mut answered).await;
            }
            answered
        }
    }
}

/// What an answer waits for, and warns of, whatever the verb.
async fn after(api: &Arc<Api>, kind: &Kind, verb: &str, answered: &mut Result<Response<Body>>) {
    let writes = !matches!(verb, "get" | "list" | "watch");
    if kind.group == rhumb_api::admission::dynamic::GROUP && writes {
        // What is configured holds for the next request.
        let _ = api.cache.reach(api.store.revision(), verbs::WAIT).await;
    }
    if kind.is("apiextensions.k8s.io", "CustomResourceDefinition") && writes {
        // Whoever defined a kind may use it.
        definitions::settled(api).await;
    }
    if let (Some(warning), Ok(response)) = (kind.as_custom().and_then(|c| c.warning()), answered) {
        reply::warn(response, &[warning.to_string()]);
    }
}

/// Whether something is allowed. A refusal is not given on the word of a cache that is behind.
async fn decided(api: &Api, decide: impl Fn() -> Decision) -> Decision {
    let decision = decide();
    if decision.allowed || api.cache.applied() >= api.store.revision() {
        return decision;
    }
    let _ = api.cache.reach(api.store.revision(), verbs::WAIT).await;
    decide()
}

async fn may_path(api: &Api, user: &User, verb: &str, path: &str) -> Result<()> {
    let decision = decided(api, || api.authorizer.path(user, verb, path)).await;
    match decision.allowed {
        true => Ok(()),
        false => Err(ApiError::unauthorised_path(
            &user.name,
            verb,
            path,
            &decision.reason,
        )),
    }
}

async fn may(
    api: &Api,
    user: &User,
    verb: &'static str,
    resource: &Resource,
    query: &Query,
) -> Result<()> {
    // The rules look at what a selector requires; one that can't be read requires nothing here,
    // and is refused later.
    let fields = resource.kind.as_deref().and_then(|kind| {
        rhumb_api::selector::FieldSelector::parse(kind, query.get("fieldSelector")).ok()
    });
    let required = |field: &str| fields.as_ref().and_then(|f| f.required(field));
    let collection =
        resource.name.is_empty() && matches!(verb, "list" | "watch" | "deletecollection");
    let attributes = Attributes {
        verb,
        group: &resource.group,
        resource: &resource.plural,
        subresource: &resource.subresource,
        namespace: &resource.namespace,
        name: match collection {
            true => required("metadata.name").unwrap_or(""),
            false => &resource.name,
        },
        node_field: required("spec.nodeName"),
    };
    let decision = decided(api, || api.authorizer.resource(user, &attributes)).await;
    match decision.allowed {
        true => Ok(()),
        false => Err(auth::refused(user, &attributes, &decision.reason)),
    }
}

/// An apply of what isn't there is a create too.
pub async fn may_create(request: &Request) -> Result<()> {
    let Request {
        api,
        user,
        resource,
        query,
        ..
    } = request;
    may(api, user, "create", resource, query).await
}

/// `POST …/bindings`: the older way to `pods/binding`, with the pod's name in the body.
async fn bind_by_body(
    api: &Arc<Api>,
    user: Arc<User>,
    mut resource: Resource,
    query: Query,
    request: hyper::Request<Incoming>,
    notes: Notes,
) -> Result<Response<Body>> {
    let kind = registry::find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let (parts, body) = request.into_parts();
    let _room = api.flows.room(&user, expected(&parts.headers))?;
    let body = read_body(&parts.headers, body).await?;
    let seat = api.flows.seat(&user).await?;
    let accept = negotiate::accept(parts.headers.get(ACCEPT), AcceptTarget::Other)?;
    resource.kind = Some(kind.clone());
    resource.plural = kind.plural.to_string();
    resource.subresource = "binding".into();
    let mut request = Request {
        api: api.clone(),
        user,
        kind: kind.clone(),
        resource,
        query,
        verb: "create",
        accept,
        headers: parts.headers,
        body,
        notes,
        deadline: Instant::now() + verbs::PATIENCE,
        seat: Mutex::new(Some(seat)),
    };
    request.resource.name = bind::named(&request)?;
    bind::create(&request).await
}

async fn dispatch(
    api: &Arc<Api>,
    user: Arc<User>,
    verb: &'static str,
    resource: Resource,
    query: Query,
    request: hyper::Request<Incoming>,
    notes: Notes,
) -> Result<Response<Body>> {
    let Some(kind) = resource.kind.clone() else {
        return Err(ApiError::no_such_path());
    };
    let verbs = match resource.subresource.as_str() {
        "" => kind.verbs,
        name => {
            let subresource = kind.subresource(name);
            subresource.ok_or_else(ApiError::no_such_path)?.verbs
        }
    };
    if !verbs.contains(&verb) && !verb.is_empty() {
        let mut refused = ApiError::method_not_supported(&kind, verb);
        if let Some(registry::Effect::Served { why }) = registry::effect(&kind) {
            refused.message = format!("{}: {why}", refused.message);
        }
        return Err(refused);
    }
    if !api.ready() {
        return Err(ApiError::service_unavailable(
            "the server is not ready: its store has failed",
        ));
    }
    // A collection of a namespaced kind is created in, and removed from, one namespace.
    if kind.namespaced
        && resource.namespace.is_empty()
        && matches!(verb, "create" | "deletecollection")
    {
        return Err(ApiError::method_not_allowed());
    }
    if matches!(verb, "create") && resource.subresource.is_empty() && !resource.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    if matches!(verb, "update" | "patch") && resource.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    match (kind.id(), resource.subresource.as_str()) {
        // To open a stream at a kubelet is to run commands: no reading either.
        (("", "Node"), "proxy") if relay::is_upgrade(request.headers()) => {
            may(api, &user, "create", &resource, &query).await?;
        }
        (("", "Pod"), "log") => return kubelet::log(api, &resource, &query).await,
        (("", "Pod"), name) if kubelet::Stream::of(name).is_some() => {
            // A WebSocket opens by GET; what it does is no reading.
            may(api, &user, "create", &resource, &query).await?;
        }
        _ => {}
    }
    let stream = kubelet::Stream::of(&resource.subresource).filter(|_| kind.is("", "Pod"));
    if stream.is_some() || resource.subresource == "proxy" {
        let asked = Request {
            api: api.clone(),
            user,
            kind,
            resource,
            query,
            verb,
            accept: JSON_ACCEPT,
            headers: request.headers().clone(),
            body: bytes::Bytes::new(),
            notes,
            deadline: Instant::now() + verbs::PATIENCE,
            seat: Mutex::default(),
        };
        let (own, options) = match stream {
            Some(stream) => stream.options(&asked.query),
            None => proxy::options(&asked.resource),
        };
        admission::dynamic::connect(&asked, &own, options).await?;
        return match stream {
            Some(stream) => {
                kubelet::stream(api, stream, &asked.resource, &asked.query, request).await
            }
            None => proxy::serve(api, &asked.resource, request).await,
        };
    }
    let (parts, body) = request.into_parts();
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let room = if reads { 0 } else { expected(&parts.headers) };
    let _room = api.flows.room(&user, room)?;
    let body = if reads {
        bytes::Bytes::new()
    } else {
        read_body(&parts.headers, body).await?
    };
    // Once all of the body is there: a slow client holds no seat.
    let seat = api.flows.seat(&user).await?;
    let target = match resource.subresource.as_str() {
        "" if matches!(verb, "list" | "deletecollection") => AcceptTarget::List,
        "" | "status" | "finalize" | "approval" | "ephemeralcontainers" => AcceptTarget::Object,
        _ => AcceptTarget::Other,
    };
    let accept: Accept = match verb {
        // A watch that wants a form that isn't there falls back like everything else.
        _ if parts.headers.contains_key(ACCEPT) => {
            negotiate::accept(parts.headers.get(ACCEPT), target)?
        }
        _ => JSON_ACCEPT,
    };
    let request = Request {
        api: api.clone(),
        user,
        kind: kind.clone(),
        resource,
        query,
        verb,
        accept,
        headers: parts.headers,
        body,
        notes,
        deadline: Instant::now() + verbs::PATIENCE,
        seat: Mutex::new(Some(seat)),
    };
    if request.kind.group == rbac::GROUP {
        // What one may grant depends on all roles and bindings that were written before.
        let _ = api.cache.reach(api.store.revision(), verbs::WAIT).await;
    }
    let subresource = request.resource.subresource.clone();
    match (subresource.as_str(), verb) {
        ("", "get") | ("status", "get") => list::get(&request).await,
        ("", "list") => list::list(&request).await,
        ("", "watch") => {
            // It goes on for long, and takes no place then.
            let _seat = request.seat.lock().take();
            watch::watch(request).await
        }
        ("", "create") => write::create(&request).await,
        ("", "update") => write::update(&request, Part::Main).await,
        ("", "patch") => write::patch(&request, Part::Main).await,
        ("", "delete") => delete::delete(&request).await,
        ("", "deletecollection") => delete::delete_collection(&request).await,
        ("status", "update") => write::update(&request, Part::Status).await,
        ("status", "patch") => write::patch(&request, Part::Status).await,
        ("approval", "get") => list::get(&request).await,
        ("approval", "update") => write::update(&request, Part::Approval).await,
        ("approval", "patch") => write::patch(&request, Part::Approval).await,
        ("ephemeralcontainers", "get") => list::get(&request).await,
        ("ephemeralcontainers", "update") => write::update(&request, Part::Ephemeral).await,
        ("ephemeralcontainers", "patch") => write::patch(&request, Part::Ephemeral).await,
        ("finalize", "update") => write::update(&request, Part::Finalize).await,
        ("scale", "get") => scale::get(&request).await,
        ("scale", "update") => scale::update(&request).await,
        ("scale", "patch") => scale::patch(&request).await,
        ("binding", "create") => bind::create(&request).await,
        ("eviction", "create") => eviction::create(&request).await,
        ("token", "create") => token::create(&request).await,
        _ => Err(ApiError::method_not_supported(&kind, verb)),
    }
}

/// The most bytes that a body will have.
fn expected(headers: &http::HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|v| v.to_str().ok()?.parse().ok());
    length.map_or(MAX_BODY, |n: usize| n.min(MAX_BODY))
}

async fn read_body(headers: &http::HeaderMap, mut body: Incoming) -> Result<bytes::Bytes> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    let mut too_large = declared.is_some_and(|length| length > MAX_BODY);
    if !too_large {
        let collected = Limited::new(&mut body, MAX_BODY).collect();
        let collected = tokio::time::timeout(BODY, collected).await;
        match collected.map_err(|_| ApiError::timeout("the request's body did not come in time"))? {
            Ok(collected) => return Ok(collected.to_bytes()),
            Err(error) => too_large = error.downcast_ref::<LengthLimitError>().is_some(),
        }
    }
    if !too_large {
        return Err(ApiError::bad_request("the request's body broke off"));
    }
    // A client that is still sending would see a broken connection instead of the answer.
    let rest = Limited::new(body, MAX_DISCARDED).collect();
    let _ = tokio::time::timeout(DISCARD, rest).await;
    Err(ApiError::request_too_large(format!(
        "Request entity too large: limit is {MAX_BODY}"
    )))
}
