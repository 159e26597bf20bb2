//! The embedded store: the contract, restarts, kills and damaged files.

#![expect(clippy::unwrap_used, reason = "a test says what failed by its line")]

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rhumb_store::{
    Change, Condition, Embedded, ListRequest, Options, Outcome, Store, StoreError, Write, contract,
};

fn options() -> Options {
    Options {
        tick: Duration::from_millis(50),
        ..Default::default()
    }
}

fn put(key: String, value: Vec<u8>) -> Write {
    Write {
        key: key.into(),
        condition: Condition::Absent,
        change: Change::Put {
            value: value.into(),
            ttl: None,
        },
    }
}

async fn all(store: &Embedded) -> Vec<(String, Bytes)> {
    let list = store.list(ListRequest::default()).await.unwrap();
    list.items
        .into_iter()
        .map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv.value))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    contract::run(|| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = dir.path().join(format!("{n}.db"));
        async move { Embedded::open(&path, options()).unwrap() }
    })
    .await;
}

/// Watches that are behind the ring read the log.
#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract_without_a_ring() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    contract::run(|| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = dir.path().join(format!("{n}.db"));
        let options = Options {
            ring_bytes: 1,
            ..options()
        };
        async move { Embedded::open(&path, options).unwrap() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Embedded::open(&path, options()).unwrap();
    for i in 0..10 {
        store.write(put(format!("/{i}"), vec![i])).await.unwrap();
    }
    let Outcome::Committed(_) = store
        .write(Write {
            key: "/9".into(),
            condition: Condition::ModRevision(store.revision()),
            change: Change::Delete,
        })
        .await
        .unwrap()
    else {
        panic!("the deletion conflicts");
    };
    store.compact(store.revision()).await.unwrap();
    let (head, oldest, items) = (store.revision(), store.oldest(), all(&store).await);
    assert_eq!(items.len(), 9);
    assert!(matches!(
        Embedded::open(&path, options()),
        Err(StoreError::InUse { .. })
    ));
    drop(store);
    let store = Embedded::open(&path, options()).unwrap();
    assert_eq!((store.revision(), store.oldest()), (head, oldest));
    assert_eq!(all(&store).await, items);
    let next = store.write(put("/next".into(), vec![])).await.unwrap();
    assert_eq!(
        next,
        Outcome::Committed(head + 1),
        "no revision is used twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn history_goes_by_age_and_count() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        keep: Duration::from_millis(100),
        keep_revisions: 5,
        ..options()
    };
    let store = Embedded::open(&dir.path().join("store.db"), options).unwrap();
    for i in 0..100 {
        store.write(put(format!("/{i}"), vec![])).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.oldest() != store.revision() - 5 {
        assert!(Instant::now() < deadline, "oldest stays {}", store.oldest());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(all(&store).await.len(), 100);
}

const CHILD: &str = "RHUMB_STORE_TEST_CHILD";

/// Not a test of its own: the process that `kill_loses_no_acknowledged_write` kills.
#[test]
fn writer_child() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = std::sync::Arc::new(Embedded::open(Path::new(&path), options()).unwrap());
        let run = store.revision();
        for writer in 0..16 {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let key = format!("/{run}/{writer}/{i}");
                    let value = vec![i as u8; 100 + i % 3000];
                    match store.write(put(key.clone(), value)).await {
                        Ok(Outcome::Committed(revision)) => {
                            let mut out = std::io::stdout().lock();
                            writeln!(out, "acked {key} {revision}").unwrap();
                            out.flush().unwrap();
                        }
                        other => panic!("{key}: {other:?}"),
                    }
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_loses_no_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let mut acked = Vec::new();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_child", "--nocapture", "--test-threads=1"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let before = acked.len();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut killed = false;
        // What was printed before the kill may still be in the pipe: it was acknowledged too.
        while let Some(Ok(line)) = lines.next() {
            if let Some((_, entry)) = line.split_once("acked ")
                && let Some((key, revision)) = entry.split_once(' ')
                && let Ok(revision) = revision.parse::<u64>()
            {
                acked.push((key.to_owned(), revision));
            }
            if !killed && acked.len() >= before + 100 * round {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        let store = Embedded::open(&path, options()).unwrap();
        for (key, revision) in &acked {
            let found = store.get(key.as_bytes()).await.unwrap();
            assert_eq!(found.map(|kv| kv.mod_revision), Some(*revision), "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_said_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    {
        let store = Embedded::open(&path, options()).unwrap();
        for i in 0..200 {
            let value = format!("value {i} ").repeat(50).into_bytes();
            store.write(put(format!("/{i}"), value)).await.unwrap();
        }
    }
    let good = std::fs::read(&path).unwrap();
    let at = good
        .windows(10)
        .position(|w| w == b"value 150 ")
        .expect("a value is in the file");
    let mut flipped = good.clone();
    flipped[at] ^= 1;
    let damages = [
        ("not a store", b"#!/bin/sh\nexit 0\n".repeat(1000)),
        ("cut short", good[..good.len() / 3].to_vec()),
        ("another header", [&[0xff; 512], &good[512..]].concat()),
        ("one bit of a value", flipped),
    ];
    for (what, bytes) in damages {
        std::fs::write(&path, &bytes).unwrap();
        match Embedded::open(&path, options()) {
            Err(StoreError::Corrupt { path: named, .. }) => {
                assert_eq!(named, path.display().to_string());
            }
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what}: opened"),
        }
        let now = std::fs::read(&path).unwrap();
        // A check may mark the header as being repaired; the data stay for a rescue.
        assert_eq!(now.len(), bytes.len(), "{what}: the file's size changed");
        assert!(
            now[512..] == bytes[512..],
            "{what}: the file was overwritten"
        );
    }
    std::fs::write(&path, &good).unwrap();
    let store = Embedded::open(&path, options()).unwrap();
    assert_eq!(all(&store).await.len(), 200);
}
