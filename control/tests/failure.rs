//! `rhumb-control server` when its disk fails: it says so, and ends, so that its supervisor
//! starts it anew.
#![expect(clippy::unwrap_used, reason = "a test says what failed by its line")]

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;

const LIMIT: Duration = Duration::from_secs(60);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &std::path::Path) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhumb-control"));
    command
        .args(["server", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .stderr(Stdio::piped());
    // SAFETY: signal(2) is safe between fork and exec. Without it a file that may not grow kills
    // the process instead of failing the write.
    unsafe {
        command.pre_exec(|| {
            let ignore = nix::sys::signal::SigHandler::SigIgn;
            nix::sys::signal::signal(nix::sys::signal::Signal::SIGXFSZ, ignore)?;
            Ok(())
        });
    }
    Server(command.spawn().unwrap())
}

/// From now on no file of the process may grow, nor be written past its first page.
fn fail_writes(server: &Server) {
    let limit = libc::rlimit {
        rlim_cur: 4096,
        rlim_max: 4096,
    };
    let pid = libc::pid_t::try_from(server.0.id()).unwrap();
    // SAFETY: the limit is valid for the call, and no old one is asked for.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

async fn client(dir: &std::path::Path) -> kube::Client {
    let path = dir.join("admin.kubeconfig");
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < LIMIT, "the server does not come up");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Ok(text) = Kubeconfig::read_from(&path) else {
            continue;
        };
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(text, &options).await;
        let client = kube::Client::try_from(config.unwrap()).unwrap();
        if client.apiserver_version().await.is_ok() {
            return client;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_store_ends_the_server() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let mut server = spawn(dir.path());
    let client = client(dir.path()).await;
    let gvk = kube::core::GroupVersionKind::gvk("", "v1", "ConfigMap");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "configmaps");
    let maps: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
    let map = |name: &str| DynamicObject::new(name, &resource);
    maps.create(&PostParams::default(), &map("before"))
        .await
        .unwrap();
    fail_writes(&server);
    // The controllers may meet the failure first; the write fails either way.
    maps.create(&PostParams::default(), &map("after"))
        .await
        .unwrap_err();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = server.0.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < LIMIT, "the server goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status.code(), Some(1), "{status:?}");
    let mut log = String::new();
    let mut stderr = server.0.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    let last = log.lines().last().unwrap();
    assert!(
        last.starts_with("rhumb-control: the store has failed: ")
            && last.contains("store.db")
            && last.ends_with("The server stops, so as to be started anew"),
        "{last}"
    );
    // What was there before is there again.
    let mut server = spawn(dir.path());
    let began = Instant::now();
    let again = self::client(dir.path()).await;
    assert!(began.elapsed() < LIMIT);
    let maps: Api<DynamicObject> = Api::namespaced_with(again, "default", &resource);
    maps.get("before").await.unwrap();
    maps.create(&PostParams::default(), &map("later"))
        .await
        .unwrap();
    server.0.kill().unwrap();
}
