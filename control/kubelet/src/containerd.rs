//! The part of containerd's own API that CRI has nothing for: events, and an exec whose input can be
//! closed by itself. <https://github.com/containerd/containerd/tree/release/1.6/api/services>

use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

/// Where CRI keeps its containers.
const NAMESPACE: &str = "k8s.io";

#[derive(Clone, PartialEq, prost::Message)]
pub struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// `containerd.types.Envelope` without the event itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetContainerRequest {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    container: Option<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "5")]
    spec: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecProcessRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub stdin: String,
    #[prost(string, tag = "3")]
    pub stdout: String,
    #[prost(string, tag = "4")]
    pub stderr: String,
    #[prost(bool, tag = "5")]
    pub terminal: bool,
    #[prost(message, optional, tag = "6")]
    pub spec: Option<Any>,
    #[prost(string, tag = "7")]
    pub exec_id: String,
}

/// Start, DeleteProcess and Wait name a process alike.
#[derive(Clone, PartialEq, prost::Message)]
struct ProcessRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WaitResponse {
    #[prost(uint32, tag = "1")]
    exit_status: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KillRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    signal: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResizePtyRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    width: u32,
    #[prost(uint32, tag = "4")]
    height: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CloseIoRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(bool, tag = "3")]
    stdin: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut r = tonic::Request::new(message);
    r.metadata_mut().insert(
        "containerd-namespace",
        tonic::metadata::MetadataValue::from_static(NAMESPACE),
    );
    r
}

async fn ready(channel: &Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(32 << 20);
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(format!("containerd does not answer: {e}")))?;
    Ok(grpc)
}

async fn call<Q, A>(channel: &Channel, path: &'static str, message: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let mut grpc = ready(channel).await?;
    Ok(grpc
        .unary(request(message), PathAndQuery::from_static(path), codec)
        .await?
        .into_inner())
}

/// Events that match any of the filters.
pub async fn subscribe(
    channel: &Channel,
    filters: Vec<String>,
) -> Result<tonic::Streaming<Envelope>, Status> {
    let codec = tonic_prost::ProstCodec::<SubscribeRequest, Envelope>::default();
    let path = PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    let mut grpc = ready(channel).await?;
    Ok(grpc
        .server_streaming(
            tonic::Request::new(SubscribeRequest { filters }),
            path,
            codec,
        )
        .await?
        .into_inner())
}

/// The OCI runtime specification of a container, as JSON.
pub async fn container_spec(channel: &Channel, id: &str) -> Result<serde_json::Value, Status> {
    let q = GetContainerRequest { id: id.into() };
    let a: GetContainerResponse = call(
        channel,
        "/containerd.services.containers.v1.Containers/Get",
        q,
    )
    .await?;
    let spec = a
        .container
        .and_then(|c| c.spec)
        .ok_or_else(|| Status::not_found(format!("container {id} has no spec")))?;
    serde_json::from_slice(&spec.value)
        .map_err(|e| Status::internal(format!("the spec of container {id}: {e}")))
}

/// A process beside a container's first one.
#[derive(Clone, Debug)]
pub struct Process {
    pub channel: Channel,
    pub container_id: String,
    pub exec_id: String,
}

impl Process {
    fn name(&self) -> ProcessRequest {
        ProcessRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
        }
    }

    pub async fn create(&self, q: ExecProcessRequest) -> Result<(), Status> {
        call::<_, Empty>(&self.channel, "/containerd.services.tasks.v1.Tasks/Exec", q)
            .await
            .map(drop)
    }

    pub async fn start(&self) -> Result<(), Status> {
        call::<_, Empty>(
            &self.channel,
            "/containerd.services.tasks.v1.Tasks/Start",
            self.name(),
        )
        .await
        .map(drop)
    }

    /// Waits for the end; gives the exit status.
    pub async fn wait(&self) -> Result<u32, Status> {
        let a: WaitResponse = call(
            &self.channel,
            "/containerd.services.tasks.v1.Tasks/Wait",
            self.name(),
        )
        .await?;
        Ok(a.exit_status)
    }

    pub async fn kill(&self) -> Result<(), Status> {
        let q = KillRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
            signal: libc::SIGKILL as u32,
        };
        call::<_, Empty>(&self.channel, "/containerd.services.tasks.v1.Tasks/Kill", q)
            .await
            .map(drop)
    }

    pub async fn close_stdin(&self) -> Result<(), Status> {
        let q = CloseIoRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
            stdin: true,
        };
        call::<_, Empty>(
            &self.channel,
            "/containerd.services.tasks.v1.Tasks/CloseIO",
            q,
        )
        .await
        .map(drop)
    }

    pub async fn resize(&self, width: u32, height: u32) -> Result<(), Status> {
        let q = ResizePtyRequest {
            container_id: self.container_id.clone(),
            exec_id: self.exec_id.clone(),
            width,
            height,
        };
        call::<_, Empty>(
            &self.channel,
            "/containerd.services.tasks.v1.Tasks/ResizePty",
            q,
        )
        .await
        .map(drop)
    }

    pub async fn delete(&self) -> Result<(), Status> {
        call::<_, Empty>(
            &self.channel,
            "/containerd.services.tasks.v1.Tasks/DeleteProcess",
            self.name(),
        )
        .await
        .map(drop)
    }
}
