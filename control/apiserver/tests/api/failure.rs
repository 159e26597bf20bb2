//! A server whose disk fails.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::client::Cluster;

/// Set in the process that fails its own writes, which would disturb other tests.
const CHILD: &str = "RHUMB_TEST_FAILING_STORE";

#[test]
fn a_failed_store_is_neither_alive_nor_ready() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "failure::child", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("failed as it should"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str| json!({"metadata": {"name": name}});
    admin.post(maps, &map("before")).await.ok(201);
    for path in ["/livez", "/readyz"] {
        assert_eq!(admin.get(path).await.status.as_u16(), 200);
    }
    let limit = libc::rlimit {
        rlim_cur: 4096,
        rlim_max: 4096,
    };
    // SAFETY: plain system calls with valid arguments. A file that may not grow then fails the
    // write instead of killing the process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    let answer = admin.post(maps, &map("after")).await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    let server = cluster.server.as_ref().unwrap();
    let why = tokio::time::timeout(Duration::from_secs(10), server.failed())
        .await
        .unwrap();
    assert!(why.starts_with("the store has failed: "), "{why}");
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(admin.get(path).await.status.as_u16(), 500, "{path}");
    }
    admin
        .post(maps, &map("later"))
        .await
        .refused(503, "ServiceUnavailable");
    println!("failed as it should");
}
