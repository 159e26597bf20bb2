//! `rhumb-control server`: store, API server and its clients in one process.

use std::os::fd::{FromRawFd as _, RawFd};

use anyhow::Context as _;
use rhumb_apiserver::{Config, Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::args;

pub fn run(args: args::Server) -> anyhow::Result<()> {
    let inherited = inherited_listeners().context("taking over the sockets of LISTEN_FDS")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(args, inherited))
}

async fn serve(args: args::Server, inherited: Vec<std::net::TcpListener>) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %args.data_dir.display(),
        listen = ?args.listen,
        inherited = inherited.len(),
        advertise_address = ?args.advertise_address,
        service_cidr = ?args.service_cidr,
        cluster_cidr = ?args.cluster_cidr,
        tls_san = ?args.tls_san,
        "starting"
    );
    // Before anything is started: a signal meanwhile is a stop, not a kill.
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    let server = Server::start(Config {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        inherited,
        advertise: args.advertise_address,
        service_cidrs: args.service_cidr,
        tls_sans: args.tls_san,
    })
    .await?;
    tracing::info!(
        addresses = ?server.addresses,
        kubeconfig = %args.data_dir.join("admin.kubeconfig").display(),
        "serving"
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// systemd's protocol: `LISTEN_FDS` sockets from descriptor 3 on, meant for the process
/// `LISTEN_PID` (sd_listen_fds(3)).
fn inherited_listeners() -> anyhow::Result<Vec<std::net::TcpListener>> {
    const FIRST: RawFd = 3;
    let Ok(count) = std::env::var("LISTEN_FDS") else {
        return Ok(Vec::new());
    };
    if let Ok(pid) = std::env::var("LISTEN_PID")
        && pid != std::process::id().to_string()
    {
        return Ok(Vec::new());
    }
    let count: RawFd = count
        .parse()
        .with_context(|| format!("LISTEN_FDS={count} is no number"))?;
    let mut listeners = Vec::new();
    for fd in FIRST..FIRST.saturating_add(count) {
        use nix::sys::socket::{getsockopt, sockopt};
        // SAFETY: only borrowed to ask what it is; a descriptor that isn't open is an error.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let listening = getsockopt(&borrowed, sockopt::AcceptConn)
            .with_context(|| format!("descriptor {fd} is no socket"))?;
        anyhow::ensure!(listening, "descriptor {fd} is not a listening socket");
        nix::fcntl::fcntl(
            borrowed,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
        )
        .with_context(|| format!("descriptor {fd}"))?;
        // SAFETY: the protocol hands the descriptor over to this process, and nothing else here
        // owns it.
        listeners.push(unsafe { std::net::TcpListener::from_raw_fd(fd) });
    }
    Ok(listeners)
}
