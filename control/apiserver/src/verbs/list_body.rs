//! The body of a list. A long one is written piece by piece while the client takes it, from the
//! objects that the cache has anyway: a list costs no memory of its own size.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::Stream;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderValue, Response, StatusCode};
use rhumb_api::status::ApiError;
use tokio::sync::mpsc;

use super::Request;
use super::list::Page;
use super::render::ListForm;
use crate::http::negotiate;
use crate::http::reply::{self, Body};
use crate::object::Object;

/// What is short is answered at once.
const SHORT: usize = 1 << 20;
const PIECE: usize = 256 << 10;
/// How long a client may take for two pieces, and for all of them.
const STALLED: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(60);

pub fn answer(request: &Request, page: Page) -> Result<Response<Body>, ApiError> {
    let form = ListForm::of(request)?;
    let mut head = form.head(&page);
    let size: usize = page.objects.iter().map(|o| o.json.len() + 1).sum();
    // YAML is made of the whole.
    if size <= SHORT || request.accept.yaml {
        head.reserve(size);
        for (i, object) in page.objects.iter().enumerate() {
            if i > 0 {
                head.push(b',');
            }
            form.item(object, &mut head);
        }
        head.extend_from_slice(ListForm::TAIL);
        return Ok(reply::json_bytes(
            StatusCode::OK,
            request.accept,
            head.into(),
        ));
    }
    let packed = negotiate::gzip(&request.headers);
    let (pieces, body) = mpsc::channel(2);
    let whole = Arc::new(AtomicBool::new(false));
    let done = whole.clone();
    let seat = request.seat.lock().take();
    request.api.tasks.spawn(async move {
        let mut writer = Writer {
            packed: packed.then(|| Box::new(GzEncoder::new(Vec::new(), Compression::fast()))),
            pieces,
        };
        let written = tokio::time::timeout(WHOLE, writer.write(&form, head, page.objects)).await;
        // Before the client sees that there is no more.
        done.store(written == Ok(true), Ordering::Release);
        drop(writer);
        drop(seat);
    });
    let mut response = reply::json_bytes(StatusCode::OK, request.accept, Bytes::new());
    *response.body_mut() = reply::parts(until_whole(body, whole));
    if packed {
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Ok(response)
}

fn broken() -> io::Error {
    io::Error::other("the client did not take the list in time")
}

/// What is written; an error at the end if it isn't all.
fn until_whole(
    body: mpsc::Receiver<Bytes>,
    whole: Arc<AtomicBool>,
) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(Some((body, whole)), async |state| {
        let (mut body, whole) = state?;
        match body.recv().await {
            Some(piece) => Some((Ok(piece), Some((body, whole)))),
            None if whole.load(Ordering::Acquire) => None,
            None => Some((Err(broken()), None)),
        }
    })
}

struct Writer {
    /// If the client takes gzip.
    packed: Option<Box<GzEncoder<Vec<u8>>>>,
    pieces: mpsc::Sender<Bytes>,
}

impl Writer {
    /// Says whether the client has taken everything.
    async fn write(&mut self, form: &ListForm, head: Vec<u8>, objects: Vec<Arc<Object>>) -> bool {
        let mut plain = head;
        for (i, object) in objects.into_iter().enumerate() {
            if i > 0 {
                plain.push(b',');
            }
            form.item(&object, &mut plain);
            if plain.len() >= PIECE && !self.put(std::mem::take(&mut plain)).await {
                return false;
            }
        }
        plain.extend_from_slice(ListForm::TAIL);
        self.put(plain).await && self.end().await
    }

    async fn put(&mut self, plain: Vec<u8>) -> bool {
        let ready = match &mut self.packed {
            None => plain,
            Some(encoder) => {
                // Writing to memory doesn't fail.
                let _ = encoder.write_all(&plain);
                std::mem::take(encoder.get_mut())
            }
        };
        self.send(ready).await
    }

    async fn end(&mut self) -> bool {
        match self.packed.take() {
            None => true,
            Some(encoder) => match encoder.finish() {
                Ok(rest) => self.send(rest).await,
                Err(_) => false,
            },
        }
    }

    async fn send(&mut self, piece: Vec<u8>) -> bool {
        if piece.is_empty() {
            return true;
        }
        let sent = self.pieces.send_timeout(piece.into(), STALLED).await;
        sent.is_ok()
    }
}
