//! `rhumb-control server`: store, API server and its clients in one process.

use std::os::fd::{FromRawFd as _, RawFd};

use std::time::Duration;

use anyhow::Context as _;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::Client;
use kube::config::Kubeconfig;
use rhumb_apiserver::pki::Authority;
use rhumb_apiserver::{AuditLog, Config, Server};
use tokio::task::JoinSet;

use crate::{args, signals, signer, trim};

/// How long the scheduler and the controllers may take to stop.
const DRAIN: Duration = Duration::from_secs(5);

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
        token_auth_file = ?args.token_auth_file,
        service_account_signing_key_file = ?args.service_account_signing_key_file,
        service_account_key_file = ?args.service_account_key_file,
        audit_log_path = ?args.audit_log_path,
        "starting"
    );
    // Before anything is started: a signal meanwhile is a stop, not a kill.
    let stop = signals::stop_on_signals()?;
    let server = Server::start(Config {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        inherited,
        advertise: args.advertise_address,
        service_cidrs: args.service_cidr.iter().map(ToString::to_string).collect(),
        tls_sans: args.tls_san,
        token_auth_file: args.token_auth_file,
        service_account_signing_key: args.service_account_signing_key_file,
        service_account_keys: args.service_account_key_file,
        audit: args.audit_log_path.map(|path| AuditLog {
            path,
            max_size: args.audit_log_maxsize * 1_000_000,
            max_backups: args.audit_log_maxbackup,
        }),
    })
    .await?;
    tracing::info!(
        addresses = ?server.addresses,
        kubeconfig = %args.data_dir.join("admin.kubeconfig").display(),
        "serving"
    );
    let controllers = rhumb_controllers::Config {
        cluster_cidrs: args.cluster_cidr,
        service_cidrs: args.service_cidr,
        root_ca_pem: server.ca_certificate().to_string(),
        ..Default::default()
    };
    let mut clients = JoinSet::new();
    clients.spawn(rhumb_scheduler::run(
        client(&server, "system:kube-scheduler").await?,
        rhumb_scheduler::Config::default(),
        stop.child_token(),
    ));
    clients.spawn(rhumb_controllers::run(
        client(&server, "system:kube-controller-manager").await?,
        controllers,
        stop.child_token(),
    ));
    clients.spawn(signer::run(
        client(&server, "system:kube-controller-manager").await?,
        Authority::open(&args.data_dir.join("pki"))?,
        stop.child_token(),
    ));
    tokio::spawn(trim::after_start());
    let mut result = Ok(());
    tokio::select! {
        () = stop.cancelled() => {}
        why = server.failed() => {
            result = Err(anyhow::anyhow!("{why}. The server stops, so as to be started anew"));
            stop.cancel();
        }
        // Without one of them the cluster stands still: stop as a whole, and be started again.
        ended = clients.join_next() => {
            let ended = ended.map_or(Ok(Ok(())), |ended| ended);
            result = ended
                .context("the scheduler or the controllers panicked")
                .and_then(|r| r.context("the scheduler or the controllers ended"))
                .and_then(|()| anyhow::bail!("the scheduler or the controllers ended"));
            stop.cancel();
        }
    }
    tracing::info!("stopping");
    let drained = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("the scheduler or the controllers did not stop in time");
    }
    server.stop().await;
    result
}

/// A client of the public API as a component's user: the only way in that components have.
async fn client(server: &Server, user: &str) -> anyhow::Result<Client> {
    let text = server.kubeconfig(user, &[])?;
    let kubeconfig = Kubeconfig::from_yaml(&text).context("reading a kubeconfig of our own")?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .with_context(|| format!("making the client of {user}"))?;
    // Watches are quiet for longer than any time limit of a read.
    config.read_timeout = None;
    // By this name the fields that it writes are known.
    let name = user.trim_start_matches("system:");
    let agent = format!("{name}/{}", env!("CARGO_PKG_VERSION"));
    let agent = HeaderValue::from_str(&agent).with_context(|| format!("naming {user}"))?;
    config.headers.push((USER_AGENT, agent));
    Client::try_from(config).with_context(|| format!("making the client of {user}"))
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
