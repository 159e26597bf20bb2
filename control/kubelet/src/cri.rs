//! The runtime's door: CRI v1 over a unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A CRI call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {}", .status.message())]
pub struct CriError {
    /// The call by its name in the CRI.
    pub call: &'static str,
    #[source]
    pub status: tonic::Status,
}

impl CriError {
    pub fn not_found(&self) -> bool {
        self.status.code() == tonic::Code::NotFound
    }

    /// What the runtime said, without the call's name.
    pub fn message(&self) -> &str {
        self.status.message()
    }
}

type Result<T> = std::result::Result<T, CriError>;

/// Time for calls that answer from memory.
const SHORT: Duration = Duration::from_secs(30);
/// Time for calls that do work; the kubelet's runtime request timeout is two minutes too.
const LONG: Duration = Duration::from_secs(120);
const MAX_MESSAGE: usize = 32 << 20;

/// A client of one container runtime. The connection is made when needed, again after a restart.
#[derive(Clone, Debug)]
pub struct Cri {
    channel: Channel,
    socket: PathBuf,
}

async fn within<T>(
    call: &'static str,
    limit: Duration,
    f: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T> {
    match tokio::time::timeout(limit, f).await {
        Ok(Ok(r)) => Ok(r.into_inner()),
        Ok(Err(status)) => Err(CriError { call, status }),
        Err(_) => Err(CriError {
            call,
            status: tonic::Status::deadline_exceeded(format!(
                "no answer from the container runtime within {limit:?}"
            )),
        }),
    }
}

impl Cri {
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_path_buf();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The URI is only a placeholder that tonic asks for.
        let channel =
            Endpoint::from_static("http://cri.local").connect_with_connector_lazy(connect);
        Cri {
            channel,
            socket: socket.to_path_buf(),
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn image(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub async fn version(&self) -> Result<cri::VersionResponse> {
        let req = cri::VersionRequest {
            version: "v1".into(),
        };
        within("Version", SHORT, self.runtime().version(req)).await
    }

    pub async fn status(&self) -> Result<cri::RuntimeStatus> {
        let r = within(
            "Status",
            SHORT,
            self.runtime().status(cri::StatusRequest { verbose: false }),
        )
        .await?;
        Ok(r.status.unwrap_or_default())
    }

    pub async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let req = cri::UpdateRuntimeConfigRequest {
            runtime_config: Some(cri::RuntimeConfig {
                network_config: Some(cri::NetworkConfig {
                    pod_cidr: pod_cidr.into(),
                }),
            }),
        };
        within(
            "UpdateRuntimeConfig",
            SHORT,
            self.runtime().update_runtime_config(req),
        )
        .await
        .map(drop)
    }

    pub async fn run_sandbox(&self, config: cri::PodSandboxConfig) -> Result<String> {
        let req = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        let r = within(
            "RunPodSandbox",
            2 * LONG,
            self.runtime().run_pod_sandbox(req),
        )
        .await?;
        Ok(r.pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let req = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        absent_is_fine(within("StopPodSandbox", LONG, self.runtime().stop_pod_sandbox(req)).await)
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let req = cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        absent_is_fine(
            within(
                "RemovePodSandbox",
                LONG,
                self.runtime().remove_pod_sandbox(req),
            )
            .await,
        )
    }

    pub async fn sandbox_status(&self, id: &str) -> Result<Option<cri::PodSandboxStatus>> {
        let req = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.into(),
            verbose: false,
        };
        match within(
            "PodSandboxStatus",
            SHORT,
            self.runtime().pod_sandbox_status(req),
        )
        .await
        {
            Ok(r) => Ok(r.status),
            Err(e) if e.not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All sandboxes, or those of one pod.
    pub async fn list_sandboxes(&self, uid: Option<&str>) -> Result<Vec<cri::PodSandbox>> {
        let filter = uid.map(|uid| cri::PodSandboxFilter {
            label_selector: [(crate::labels::POD_UID.to_string(), uid.to_string())].into(),
            ..Default::default()
        });
        let req = cri::ListPodSandboxRequest { filter };
        Ok(within(
            "ListPodSandbox",
            SHORT,
            self.runtime().list_pod_sandbox(req),
        )
        .await?
        .items)
    }

    /// All containers, or those of one pod.
    pub async fn list_containers(&self, uid: Option<&str>) -> Result<Vec<cri::Container>> {
        let filter = uid.map(|uid| cri::ContainerFilter {
            label_selector: [(crate::labels::POD_UID.to_string(), uid.to_string())].into(),
            ..Default::default()
        });
        let req = cri::ListContainersRequest { filter };
        Ok(
            within("ListContainers", SHORT, self.runtime().list_containers(req))
                .await?
                .containers,
        )
    }

    pub async fn container_status(&self, id: &str) -> Result<Option<cri::ContainerStatus>> {
        let req = cri::ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        match within(
            "ContainerStatus",
            SHORT,
            self.runtime().container_status(req),
        )
        .await
        {
            Ok(r) => Ok(r.status),
            Err(e) if e.not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let req = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(within(
            "CreateContainer",
            LONG,
            self.runtime().create_container(req),
        )
        .await?
        .container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<()> {
        let req = cri::StartContainerRequest {
            container_id: id.into(),
        };
        within("StartContainer", LONG, self.runtime().start_container(req))
            .await
            .map(drop)
    }

    /// SIGTERM, then SIGKILL after `grace` seconds.
    pub async fn stop_container(&self, id: &str, grace: i64) -> Result<()> {
        // containerd counts in nanoseconds, of which a larger number has too many.
        let grace = grace.clamp(0, i64::from(i32::MAX));
        let req = cri::StopContainerRequest {
            container_id: id.into(),
            timeout: grace,
        };
        let limit = LONG + Duration::from_secs(grace as u64);
        absent_is_fine(within("StopContainer", limit, self.runtime().stop_container(req)).await)
    }

    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let req = cri::RemoveContainerRequest {
            container_id: id.into(),
        };
        absent_is_fine(
            within(
                "RemoveContainer",
                LONG,
                self.runtime().remove_container(req),
            )
            .await,
        )
    }

    /// Runs a command and waits for it; `timeout` of zero is none.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: &[String],
        timeout: Duration,
    ) -> Result<cri::ExecSyncResponse> {
        let seconds = timeout.as_secs() as i64;
        let req = cri::ExecSyncRequest {
            container_id: id.into(),
            cmd: cmd.to_vec(),
            timeout: seconds,
        };
        let limit = if timeout.is_zero() {
            Duration::from_secs(24 * 3600)
        } else {
            timeout + Duration::from_secs(5)
        };
        within("ExecSync", limit, self.runtime().exec_sync(req)).await
    }

    /// The URL of a stream to a container's first process.
    pub async fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        let r = within("Attach", SHORT, self.runtime().attach(request)).await?;
        Ok(r.url)
    }

    pub async fn image_status(&self, image: &str) -> Result<Option<cri::Image>> {
        let req = cri::ImageStatusRequest {
            image: Some(image_spec(image)),
            verbose: false,
        };
        Ok(within("ImageStatus", SHORT, self.image().image_status(req))
            .await?
            .image)
    }

    pub async fn list_images(&self) -> Result<Vec<cri::Image>> {
        Ok(within(
            "ListImages",
            SHORT,
            self.image()
                .list_images(cri::ListImagesRequest { filter: None }),
        )
        .await?
        .images)
    }

    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let req = cri::PullImageRequest {
            image: Some(image_spec(image)),
            auth,
            sandbox_config: Some(sandbox_config),
        };
        // A large image takes as long as it takes; the runtime gives up when there is no progress.
        let limit = Duration::from_secs(3600);
        Ok(within("PullImage", limit, self.image().pull_image(req))
            .await?
            .image_ref)
    }
}

pub fn image_spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: image.into(),
        user_specified_image: image.into(),
        ..Default::default()
    }
}

fn absent_is_fine<T>(r: Result<T>) -> Result<()> {
    match r {
        Ok(_) => Ok(()),
        Err(e) if e.not_found() => Ok(()),
        Err(e) => Err(e),
    }
}
