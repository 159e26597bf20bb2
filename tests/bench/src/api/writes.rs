//! Durable writes a second, with one writer and with many: the store by itself, through the API
//! server, and etcd on the same disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rhumb_store::{Change, Condition, Embedded, Options, Store, Write};
use tokio::task::JoinSet;

use super::client::Server;
use super::etcd::Etcd;
use super::{MAPS, map};
use crate::stats::median_interval;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const WRITERS: [usize; 2] = [1, 256];
/// Connections that share the writers' requests.
const CONNECTIONS: usize = 4;

/// Runs `writers` loops for a while; how many writes a second they made. `write` gets the number of
/// its loop, and one that no other call gets.
async fn rate<F, Fut>(writers: usize, write: F) -> Result<f64>
where
    F: Fn(usize, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let start = Instant::now();
    let mut loops = JoinSet::new();
    for writer in 0..writers {
        let write = write.clone();
        loops.spawn(async move {
            let mut done = 0;
            while start.elapsed() < ROUND {
                write(writer, NEXT.fetch_add(1, Ordering::Relaxed)).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut all = 0;
    while let Some(done) = loops.join_next().await {
        all += done??;
    }
    Ok(all as f64 / start.elapsed().as_secs_f64())
}

pub async fn measure(binary: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(binary, dir.path()).await?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(server.connect().await?);
    }
    let store = Arc::new(Embedded::open(
        &dir.path().join("store.db"),
        Options::default(),
    )?);
    let etcd = Etcd::start(dir.path()).await?.map(Arc::new);
    if etcd.is_none() {
        eprintln!(
            "etcd is not installed: nothing to compare with (Debian: apt-get install etcd-server)"
        );
    }
    println!("\n## Durable writes a second, a new key each, values of some 300 bytes\n");
    println!(
        "| writers | etcd 3.4 | our store by itself | that ÷ etcd | through the API server | that ÷ etcd |"
    );
    println!("|---|---|---|---|---|---|");
    for writers in WRITERS {
        let (mut of_etcd, mut of_store, mut of_server) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            if let Some(etcd) = &etcd {
                let etcd = etcd.clone();
                let value = vec![b'x'; 300];
                let put = move |_, i: usize| {
                    let (mut putter, value) = (etcd.channel(), value.clone());
                    async move { putter.put(format!("/bench/{i}").as_bytes(), &value).await }
                };
                of_etcd.push(rate(writers, put).await?);
            }
            let store = store.clone();
            let put = move |_, i: usize| {
                let store = store.clone();
                async move {
                    let write = Write {
                        key: format!("core/configmaps/default/{i}").into(),
                        condition: Condition::Absent,
                        change: Change::Put {
                            value: vec![b'x'; 300].into(),
                            ttl: None,
                        },
                    };
                    store.write(write).await?;
                    Ok(())
                }
            };
            of_store.push(rate(writers, put).await?);
            let clients = clients.clone();
            let post = move |writer: usize, i: usize| {
                let mut client = clients[writer % CONNECTIONS].clone();
                async move {
                    client.post(MAPS, &map(&format!("m{i}"), "v")).await?;
                    Ok(())
                }
            };
            of_server.push(rate(writers, post).await?);
        }
        let against = |rates: &[f64]| match of_etcd.is_empty() {
            true => "–".to_string(),
            false => {
                let pairs = rates.iter().zip(&of_etcd).map(|(a, b)| a / b);
                median_interval(pairs.collect()).to_string()
            }
        };
        let median = |rates: &[f64]| match rates {
            [] => "–".to_string(),
            rates => format!("{:.0}", median_interval(rates.to_vec()).mid),
        };
        println!(
            "| {writers} | {} | {} | {} | {} | {} |",
            median(&of_etcd),
            median(&of_store),
            against(&of_store),
            median(&of_server),
            against(&of_server)
        );
    }
    Ok(())
}
