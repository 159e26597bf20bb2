//! The test-suite that every [`Store`] passes. A test calls [`run`] with something that makes
//! empty stores; the suite panics at the first promise that is not kept.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Change, Condition, Event, ListRequest, Outcome, Revision, Store, StoreError, Watch, Write,
};

/// Runs every check, each on a store of its own.
pub async fn run<S, F, Fut>(factory: F)
where
    S: Store,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    compare_and_swap(&factory().await).await;
    reads_of_the_past(&factory().await).await;
    pages(&factory().await).await;
    watches(&factory().await).await;
    compaction(&factory().await).await;
    expiry(&factory().await).await;
    many_writers(Arc::new(factory().await)).await;
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str, condition: Condition) -> Write {
    Write {
        key: bytes(key),
        condition,
        change: Change::Put {
            value: bytes(value),
            ttl: None,
        },
    }
}

fn delete(key: &str, at: Revision) -> Write {
    Write {
        key: bytes(key),
        condition: Condition::ModRevision(at),
        change: Change::Delete,
    }
}

async fn committed(store: &impl Store, write: Write) -> Revision {
    let shown = format!("{write:?}");
    match store.write(write).await {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("{shown} was not committed: {other:?}"),
    }
}

async fn conflict(store: &impl Store, write: Write) -> Option<String> {
    let shown = format!("{write:?}");
    match store.write(write).await {
        Ok(Outcome::Conflict(current)) => {
            current.map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
        }
        other => panic!("{shown} had to conflict: {other:?}"),
    }
}

async fn list(store: &impl Store, prefix: &str, at: Option<Revision>) -> Vec<(String, String)> {
    let response = store
        .list(ListRequest {
            prefix: bytes(prefix),
            at,
            ..Default::default()
        })
        .await
        .unwrap_or_else(|e| panic!("listing {prefix} at {at:?}: {e}"));
    response
        .items
        .iter()
        .map(|kv| {
            (
                String::from_utf8_lossy(&kv.key).into_owned(),
                String::from_utf8_lossy(&kv.value).into_owned(),
            )
        })
        .collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

/// The next `count` events of the watch.
async fn events(watch: &mut Box<dyn Watch>, count: usize) -> Vec<Event> {
    let mut out = Vec::new();
    while out.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        match next {
            Ok(Ok((mut events, _))) => out.append(&mut events),
            other => panic!("{} of {count} events came, then {other:?}", out.len()),
        }
    }
    out
}

async fn compare_and_swap(store: &impl Store) {
    let start = store.revision();
    let created = committed(store, put("/a", "1", Condition::Absent)).await;
    assert_eq!(
        created,
        start + 1,
        "the first write takes the next revision"
    );
    assert_eq!(
        conflict(store, put("/a", "x", Condition::Absent)).await,
        Some("1".into())
    );
    assert_eq!(
        conflict(store, put("/a", "x", Condition::ModRevision(created + 9))).await,
        Some("1".into())
    );
    assert_eq!(
        conflict(store, put("/b", "x", Condition::ModRevision(created))).await,
        None
    );
    assert_eq!(store.revision(), created, "a conflict takes no revision");

    let updated = committed(store, put("/a", "2", Condition::ModRevision(created))).await;
    let now = store.get(b"/a").await.expect("get").expect("it is there");
    assert_eq!((now.create_revision, now.mod_revision), (created, updated));
    assert_eq!(&now.value[..], b"2");

    assert_eq!(
        conflict(store, delete("/a", created)).await,
        Some("2".into())
    );
    committed(store, delete("/a", updated)).await;
    assert!(store.get(b"/a").await.expect("get").is_none());
    assert_eq!(conflict(store, delete("/a", updated)).await, None);

    let again = committed(store, put("/a", "3", Condition::Absent)).await;
    let now = store.get(b"/a").await.expect("get").expect("it is there");
    assert_eq!(now.create_revision, again, "a new life starts a new count");
}

async fn reads_of_the_past(store: &impl Store) {
    let a = committed(store, put("/x/a", "1", Condition::Absent)).await;
    let b = committed(store, put("/x/b", "1", Condition::Absent)).await;
    committed(store, put("/xy", "other prefix", Condition::Absent)).await;
    let a2 = committed(store, put("/x/a", "2", Condition::ModRevision(a))).await;
    let gone = committed(store, delete("/x/b", b)).await;
    assert_eq!(list(store, "/x/", Some(a)).await, pairs(&[("/x/a", "1")]));
    assert_eq!(
        list(store, "/x/", Some(b)).await,
        pairs(&[("/x/a", "1"), ("/x/b", "1")])
    );
    assert_eq!(
        list(store, "/x/", Some(a2)).await,
        pairs(&[("/x/a", "2"), ("/x/b", "1")])
    );
    assert_eq!(
        list(store, "/x/", Some(gone)).await,
        pairs(&[("/x/a", "2")])
    );
    assert_eq!(list(store, "/x/", None).await, pairs(&[("/x/a", "2")]));
    let future = store
        .list(ListRequest {
            at: Some(gone + 100),
            ..Default::default()
        })
        .await;
    assert!(
        matches!(future, Err(StoreError::Future { .. })),
        "{future:?}"
    );
}

async fn pages(store: &impl Store) {
    for i in 0..25 {
        committed(store, put(&format!("/p/{i:02}"), "v", Condition::Absent)).await;
    }
    let at = store.revision();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .list(ListRequest {
                prefix: bytes("/p/"),
                after: after.clone(),
                limit: 10,
                at: Some(at),
            })
            .await
            .expect("a page");
        // Written between pages: belongs to none of them.
        committed(
            store,
            put(&format!("/p/{}x", seen.len()), "v", Condition::Absent),
        )
        .await;
        seen.extend(page.items.iter().map(|kv| kv.key.clone()));
        assert_eq!(page.remaining, 25 - seen.len());
        if page.remaining == 0 {
            break;
        }
        after = page.items.last().map(|kv| kv.key.clone());
    }
    let expected: Vec<Bytes> = (0..25).map(|i| bytes(&format!("/p/{i:02}"))).collect();
    assert_eq!(seen, expected);
}

async fn watches(store: &impl Store) {
    let a = committed(store, put("/w/a", "1", Condition::Absent)).await;
    committed(store, put("/other", "1", Condition::Absent)).await;
    let a2 = committed(store, put("/w/a", "2", Condition::ModRevision(a))).await;
    let mut past = store.watch(bytes("/w/"), a).await.expect("watch");
    let mut all = store.watch(bytes(""), a - 1).await.expect("watch");
    let replayed = events(&mut past, 1).await;
    assert_eq!(
        (replayed[0].revision, replayed[0].value.clone()),
        (a2, Some(bytes("2")))
    );
    let gone = committed(store, delete("/w/a", a2)).await;
    let live = events(&mut past, 1).await;
    assert_eq!((live[0].revision, live[0].value.clone()), (gone, None));
    let whole = events(&mut all, 4).await;
    let revisions: Vec<Revision> = whole.iter().map(|e| e.revision).collect();
    assert_eq!(
        revisions,
        (a..=gone).collect::<Vec<_>>(),
        "no gap, in order"
    );
    let future = store.watch(bytes(""), gone + 100).await;
    assert!(matches!(future, Err(StoreError::Future { .. })));
}

async fn compaction(store: &impl Store) {
    let mut at = committed(store, put("/c/a", "0", Condition::Absent)).await;
    let first = at;
    let b = committed(store, put("/c/b", "0", Condition::Absent)).await;
    committed(store, delete("/c/b", b)).await;
    for i in 1..50 {
        at = committed(
            store,
            put("/c/a", &i.to_string(), Condition::ModRevision(at)),
        )
        .await;
    }
    let keep = store.revision();
    at = committed(store, put("/c/a", "last", Condition::ModRevision(at))).await;
    store.compact(keep).await.expect("compact");
    assert_eq!(store.oldest(), keep);
    assert_eq!(
        list(store, "/c/", Some(keep)).await,
        pairs(&[("/c/a", "49")])
    );
    assert_eq!(list(store, "/c/", None).await, pairs(&[("/c/a", "last")]));
    let old = store
        .list(ListRequest {
            at: Some(first),
            ..Default::default()
        })
        .await;
    assert!(matches!(old, Err(StoreError::Compacted { .. })), "{old:?}");
    let old = store.watch(bytes(""), first).await;
    assert!(matches!(old, Err(StoreError::Compacted { .. })));
    let mut rest = store.watch(bytes(""), keep).await.expect("watch");
    assert_eq!(events(&mut rest, 1).await[0].revision, at);
    let future = store.compact(at + 100).await;
    assert!(matches!(future, Err(StoreError::Future { .. })));
}

async fn expiry(store: &impl Store) {
    let with_ttl = |key: &str, seconds| Write {
        key: bytes(key),
        condition: Condition::Absent,
        change: Change::Put {
            value: bytes("v"),
            ttl: Some(Duration::from_secs(seconds)),
        },
    };
    let short = committed(store, with_ttl("/t/short", 1)).await;
    let kept = committed(store, with_ttl("/t/kept", 1)).await;
    committed(store, with_ttl("/t/long", 3600)).await;
    // Written again without a time to live: it stays.
    let kept = committed(store, put("/t/kept", "v", Condition::ModRevision(kept))).await;
    let mut watch = store.watch(bytes("/t/"), kept).await.expect("watch");
    let event = &events(&mut watch, 1).await[0];
    assert_eq!((&event.key[..], &event.value), (&b"/t/short"[..], &None));
    assert!(event.revision > short);
    assert_eq!(
        list(store, "/t/", None).await,
        pairs(&[("/t/kept", "v"), ("/t/long", "v")])
    );
}

/// Of writers that race for one key exactly one wins each round, and a watch sees every win once.
async fn many_writers<S: Store>(store: Arc<S>) {
    const WRITERS: usize = 32;
    const ROUNDS: usize = 20;
    let mut at = committed(&*store, put("/race", "start", Condition::Absent)).await;
    let mut watch = store.watch(bytes("/race"), at).await.expect("watch");
    let mut wins = Vec::new();
    for _ in 0..ROUNDS {
        let tasks: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let own = format!("/own/{writer}/{at}");
                    committed(&*store, put(&own, "v", Condition::Absent)).await;
                    store
                        .write(put(
                            "/race",
                            &writer.to_string(),
                            Condition::ModRevision(at),
                        ))
                        .await
                })
            })
            .collect();
        let mut won = None;
        for task in tasks {
            match task.await.expect("a writer") {
                Ok(Outcome::Committed(revision)) => {
                    assert_eq!(won.replace(revision), None, "two writers won");
                }
                Ok(Outcome::Conflict(Some(_))) => {}
                other => panic!("{other:?}"),
            }
        }
        at = won.expect("one writer wins");
        wins.push(at);
    }
    let seen: Vec<Revision> = events(&mut watch, ROUNDS)
        .await
        .iter()
        .map(|e| e.revision)
        .collect();
    assert_eq!(seen, wins);
    assert_eq!(list(&*store, "/own/", None).await.len(), WRITERS * ROUNDS);
}
