//! An etcd of the benchmark's own, if there is one, and puts to it over gRPC.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::client::{Ended, free_port};

/// `etcdserverpb.PutRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which nothing is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

pub struct Etcd {
    _process: Ended,
    channel: Channel,
}

impl Etcd {
    /// `None` where etcd is not installed.
    pub async fn start(dir: &Path) -> Result<Option<Etcd>> {
        let (client, peer) = (free_port()?, free_port()?);
        let (client, peer) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let spawned = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.join("etcd"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.context("starting etcd")?,
        };
        let process = Ended(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(channel) = Endpoint::from_shared(client.clone())?.connect().await {
                let mut etcd = Etcd {
                    _process: process,
                    channel,
                };
                // It answers once it has elected itself.
                while etcd.put(b"/ready", b"").await.is_err() {
                    ensure!(Instant::now() < deadline, "etcd does not answer");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return Ok(Some(etcd));
            }
            ensure!(Instant::now() < deadline, "etcd does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn channel(&self) -> Putter {
        Putter {
            grpc: Grpc::new(self.channel.clone()),
        }
    }

    async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.channel().put(key, value).await
    }
}

pub struct Putter {
    grpc: Grpc<Channel>,
}

impl Putter {
    pub async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.grpc.ready().await?;
        let request = PutRequest {
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec: ProstCodec<PutRequest, PutResponse> = ProstCodec::default();
        self.grpc
            .unary(tonic::Request::new(request), path, codec)
            .await?;
        Ok(())
    }
}
