//! watch: a cursor into the cache's changes, written out as one JSON object a line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use rand::Rng as _;
use rhumb_api::options::number;
use rhumb_api::status::{ApiError, Result};
use rhumb_store::Revision;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::list::{Selection, list_options, reach};
use super::{Request, parse_version, render};
use crate::cache::{Change, Collection};
use crate::http::reply::{self, Body};
use crate::object::Object;

/// Changes that are taken from the cache, and written, together.
const BATCH: usize = 200;
const BOOKMARKS: Duration = Duration::from_secs(60);
/// When the last bookmark comes.
const BEFORE_END: Duration = Duration::from_millis(500);
/// Kubernetes' least default for a watch; it takes up to twice as long.
const DEFAULT_SECONDS: u64 = 1800;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Changes after the revision.
    After(Revision),
    /// First all objects as added, then changes.
    Everything,
}

pub async fn watch(request: Request) -> Result<Response<Body>> {
    let query = &request.query;
    let selection = Selection::parse(&request)?;
    let asked = parse_version(query.get("resourceVersion"))?;
    let bookmarks = query.flag("allowWatchBookmarks");
    let options = list_options(&request, true);
    options.check()?;
    let initial = options.send_initial_events;
    let seconds = match number(query.get("timeoutSeconds"))? {
        None | Some(0) => DEFAULT_SECONDS + rand::rng().random_range(0..DEFAULT_SECONDS),
        // A longer one would only meet the limits of everything in between; one below zero is over.
        Some(n) => u64::try_from(n).unwrap_or(0).min(24 * 3600),
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let start = match (initial, asked) {
        (Some(true), asked) => {
            reach(
                &request,
                asked
                    .filter(|at| *at != 0)
                    .unwrap_or(request.api.store.revision()),
            )
            .await?;
            Start::Everything
        }
        (Some(false), None) | (None, None) => {
            reach(&request, request.api.store.revision()).await?;
            if initial.is_none() {
                Start::Everything
            } else {
                Start::After(request.api.cache.applied())
            }
        }
        (None, Some(0)) => Start::Everything,
        (Some(false), Some(0)) => Start::After(request.api.cache.applied()),
        (_, Some(at)) => {
            reach(&request, at).await?;
            Start::After(at)
        }
    };
    let collection = request.collection()?;
    if let Start::After(at) = start
        && !collection.holds(at)
    {
        // The request is right, so that this is the watch's first and last event: what has not read that
        // far in a client is not prepared for another answer.
        let error = ApiError::expired(format!(
            "too old resource version: {at} ({})",
            collection.oldest()
        ));
        return Ok(ended(&error));
    }
    let content_type = match request.accept.yaml {
        true => {
            return Err(ApiError::not_acceptable(&["application/json"]));
        }
        false => "application/json",
    };
    let watching = request.api.flows.watch(&request.user)?;
    let (sender, receiver) = mpsc::channel(4);
    let mut watcher = Watcher {
        request,
        selection,
        collection,
        bookmarks,
        initial_end: initial == Some(true),
        sender,
        first_table: true,
    };
    let tasks = watcher.request.api.tasks.clone();
    tasks.spawn(async move {
        let _watching = watching;
        let stop = watcher.request.api.stop.clone();
        tokio::select! {
            _ = watcher.run(start, deadline) => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    });
    let mut response = Response::new(reply::stream(ReceiverStream::new(receiver).boxed()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

fn error_event(error: &ApiError) -> Bytes {
    let line = json!({"type": "ERROR", "object": error.to_status()});
    format!("{line}\n").into()
}

/// A watch that ends as it begins.
fn ended(error: &ApiError) -> Response<Body> {
    let mut response = Response::new(reply::full(error_event(error)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The client has gone.
struct Gone;

struct Watcher {
    request: Request,
    selection: Selection,
    collection: Arc<Collection>,
    bookmarks: bool,
    /// Whether the end of the initial objects is to be marked.
    initial_end: bool,
    sender: mpsc::Sender<Bytes>,
    first_table: bool,
}

impl Watcher {
    async fn run(&mut self, start: Start, deadline: Instant) -> Result<(), Gone> {
        let mut changed = self.collection.subscribe();
        let closed = self.collection.closed().clone();
        let mut after = match start {
            Start::After(at) => at,
            Start::Everything => self.everything().await?,
        };
        let mut next_bookmark = Instant::now() + BOOKMARKS;
        loop {
            changed.borrow_and_update();
            // Taken before the changes: what comes later is above it.
            let applied = self.request.api.cache.applied();
            let Some(changes) = self.collection.changes(after, BATCH) else {
                // The client was too slow, and what it missed is gone.
                return self.send(error_event(&ApiError::watch_too_old())).await;
            };
            if let Some(last) = changes.last() {
                after = last.revision;
                let mut out = Vec::new();
                for change in &changes {
                    self.write(change, &mut out);
                }
                if !out.is_empty() {
                    self.send(out.into()).await?;
                }
                continue;
            }
            after = after.max(applied);
            // Everything up to `after` has been sent, of all kinds. What is applied since may not
            // have been: a bookmark above it would let the client miss it.
            // One more comes shortly before the end, so that the client can go on from there.
            let last_bookmark = deadline - BEFORE_END;
            let now = Instant::now();
            if self.bookmarks && now >= next_bookmark.min(last_bookmark) {
                self.bookmark(after, false).await?;
                next_bookmark = now + BOOKMARKS;
                self.bookmarks = now < last_bookmark;
            }
            tokio::select! {
                () = self.sender.closed() => return Err(Gone),
                // The kind has gone, or is another now.
                () = closed.cancelled() => return Ok(()),
                seen = changed.changed() => {
                    if seen.is_err() {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(next_bookmark.min(last_bookmark)),
                    if self.bookmarks => {}
            }
        }
    }

    async fn everything(&mut self) -> Result<Revision, Gone> {
        let (objects, revision) = self
            .request
            .api
            .cache
            .snapshot(&self.collection, &self.request.resource.namespace);
        for objects in objects.chunks(BATCH) {
            let mut out = Vec::new();
            for object in objects {
                if self.selection.matches(&self.request, object) {
                    self.event("ADDED", object, &mut out);
                }
            }
            if !out.is_empty() {
                self.send(out.into()).await?;
            }
        }
        if self.initial_end && self.bookmarks {
            self.bookmark(revision, true).await?;
        }
        Ok(revision)
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.sender.send(bytes).await.map_err(|_| Gone)
    }

    /// An object that enters the selection is added, one that leaves it deleted.
    fn write(&mut self, change: &Change, out: &mut Vec<u8>) {
        let matching = |object: &Option<Arc<Object>>| {
            object
                .as_ref()
                .filter(|o| self.selection.matches(&self.request, o))
                .cloned()
        };
        match (matching(&change.previous), matching(&change.object)) {
            (None, Some(object)) => self.event("ADDED", &object, out),
            (Some(_), Some(object)) => self.event("MODIFIED", &object, out),
            (Some(previous), None) => {
                self.event("DELETED", &previous.at_revision(change.revision), out);
            }
            (None, None) => {}
        }
    }

    fn event(&mut self, kind: &str, object: &Object, out: &mut Vec<u8>) {
        match render::event(&self.request, object, self.first_table) {
            Ok(json) => {
                self.first_table = false;
                out.extend_from_slice(b"{\"type\":\"");
                out.extend_from_slice(kind.as_bytes());
                out.extend_from_slice(b"\",\"object\":");
                out.extend_from_slice(&json);
                out.extend_from_slice(b"}\n");
            }
            Err(error) => tracing::error!(%error, "an event can't be written"),
        }
    }

    async fn bookmark(&self, revision: Revision, initial_end: bool) -> Result<(), Gone> {
        let object = render::bookmark(&self.request, revision, initial_end);
        let line = json!({"type": "BOOKMARK", "object": object});
        self.send(format!("{line}\n").into()).await
    }
}
