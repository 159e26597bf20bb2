//! The composition root: which part starts when, and what each is given.

use std::{
    fs::{File, TryLockError},
    net::IpAddr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use rhumb_cni::{attachments::Attachments, node::Paths};
use rhumb_core::{
    Source,
    planner::Planner,
    snapshot::{Change, Snapshot},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, broadcast, watch},
    time::sleep,
};
use tracing::{error, info, warn};

use crate::{
    cni_socket,
    config::{Config, Dirs},
    dataplane::{
        bpf::{self, Dataplane, Hang, Maps},
        netlink::Netlink,
        sysctl,
    },
    drops,
    engine::{Command, Engine, Handle, RoutePlan, Shared, Started},
    grpc, guard, install, journal,
    keeper::Keeper,
    metrics::Metrics,
    observe::{Observer, SetLog},
    runtime::{self, Reconciler},
    watch as watches,
    writer::{self, NodeSettings, Writer},
};

/// How often interfaces, addresses and routes are looked at again.
const NETLINK_INTERVAL: Duration = Duration::from_secs(5);

async fn client(config: &Config) -> Result<Client> {
    let mut kube_config = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("using the kubeconfig {}", path.display()))?
        }
        None => kube::Config::incluster()
            .context("no --kubeconfig given, and there is no in-cluster service account")?,
    };
    let agent = concat!("rhumb-agent/", env!("CARGO_PKG_VERSION"));
    let agent = http::HeaderValue::from_static(agent);
    kube_config.headers.push((http::header::USER_AGENT, agent));
    Client::try_from(kube_config).context("making a Kubernetes client")
}

/// One agent a node: two would undo each other's writes. Held until the process ends.
async fn lock(dirs: &Dirs) -> Result<File> {
    let path = dirs.state_dir.join("agent.lock");
    let file = std::fs::create_dir_all(&dirs.state_dir)
        .and_then(|()| File::create(&path))
        .with_context(|| format!("opening {}", path.display()))?;
    // An agent that is being replaced needs a moment to end.
    for _ in 0..50 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(100)).await,
            Err(TryLockError::Error(e)) => {
                return Err(e).with_context(|| format!("locking {}", path.display()));
            }
        }
    }
    anyhow::bail!("another rhumb-agent holds {}: end it first", path.display())
}

pub async fn run(config: Config, set_log: SetLog) -> Result<()> {
    let start = Instant::now();
    info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let dirs = &config.dirs;

    // The machine first: its lacks are the clearest messages, and need no API server.
    bpf::preflight(&dirs.bpf_dir, config.cgroup_root.as_deref())?;
    let _lock = lock(dirs).await?;
    let attachments = Attachments::open(&Paths {
        state_dir: dirs.state_dir.clone(),
        run_dir: dirs.run_dir.clone(),
        bpf_dir: dirs.bpf_dir.clone(),
    })
    .context("opening the plugin's journal")?;
    let mut dataplane = Dataplane::open(&bpf::Options {
        bpf_dir: dirs.bpf_dir.clone(),
    })?;
    let metrics = Arc::new(Metrics::default());
    let keeper = Keeper {
        attachments: attachments.clone(),
        cri: config.cri_endpoint.clone(),
        tokio: tokio::runtime::Handle::current(),
        metrics: metrics.clone(),
    };
    // Pods that the plugin attaches meanwhile have got the new programs already.
    let trusted = tokio::task::spawn_blocking({
        let keeper = keeper.clone();
        move || keeper.start()
    })
    .await?;
    let cgroup = dataplane.attach_cgroup(config.cgroup_root.as_deref())?;
    info!(
        ms = start.elapsed().as_millis() as u64,
        cgroup = %cgroup.display(),
        "programs are in place"
    );
    sysctl::prepare(config.uplink.as_deref())?;
    install::plugin(dirs)?;

    let client = client(&config).await?;
    let (settings_tx, settings_rx) = watch::channel(NodeSettings::default());
    let ids_file = dirs.state_dir.join("policy-ids.json");
    let writer = Writer::new(Maps::open(&dirs.bpf_dir)?, ids_file.clone(), settings_rx);
    let planner = Planner::restore(
        writer.read()?,
        writer::load_ids(&ids_file),
        writer.generation(),
    );
    let mut snapshot = Snapshot::new(&config.node_name);
    snapshot.non_masquerade = config.non_masquerade_cidrs.iter().copied().collect();
    let Started {
        handle,
        world,
        engine,
        route_plan,
        applied,
    } = Engine::prepare(snapshot, planner, writer, metrics.clone());
    thread::Builder::new()
        .name("engine".into())
        .spawn(move || engine.run())
        .context("starting the engine's thread")?;

    watches::start(&client, &handle, &metrics);
    journal::start(keeper.clone(), handle.clone(), trusted)
        .context("starting the journal's thread")?;
    let uplink_lost = Arc::new(Notify::new());
    guard::start(keeper, uplink_lost.clone())
        .context("starting the thread that watches for lost programs")?;
    if config.cri_endpoint.as_deref() == Some(runtime::NONE) {
        info!("leaked addresses are not looked for (--cri-endpoint none)");
    } else {
        let reconciler = Reconciler {
            cri: config.cri_endpoint.clone(),
            interval: Duration::from_secs(config.reconcile_interval),
            attachments: attachments.clone(),
            world: world.clone(),
            metrics: metrics.clone(),
        };
        tokio::spawn(reconciler.run());
    }
    let listener = cni_socket::bind(&dirs.run_dir.join("cni.sock"))
        .with_context(|| format!("listening on {}/cni.sock", dirs.run_dir.display()))?;
    let server = cni_socket::Server {
        engine: handle.clone(),
        world: world.clone(),
        api: watches::PodApi::new(client),
        announce: config.announce_addresses,
        metrics: metrics.clone(),
    };
    tokio::spawn(server.serve(listener));

    let (drops_tx, _) = broadcast::channel(1024);
    drops::start(
        dataplane.events()?,
        world.clone(),
        metrics.clone(),
        drops_tx.clone(),
    )
    .context("starting the thread that reads drops")?;
    let observer = Observer {
        world: world.clone(),
        metrics: metrics.clone(),
        bpf_dir: dirs.bpf_dir.clone(),
        set_log,
    };
    let http = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {} (--listen)", config.listen))?;
    tokio::spawn(observer.clone().serve(http));
    grpc::start(
        &dirs.run_dir.join("agent.sock"),
        observer,
        attachments,
        drops_tx,
        &config.node_name,
    )?;

    // A socket each: the kernel refuses a second dump on one.
    tokio::spawn(keep_routes(Netlink::open()?, route_plan, metrics.clone()));
    tokio::spawn(node(
        config.clone(),
        Netlink::open()?,
        dataplane,
        handle,
        world,
        settings_tx,
        applied,
        metrics,
        uplink_lost,
        start,
    ));

    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    info!("ending; the datapath stays in place");
    Ok(())
}

/// Follows the node's interfaces and its Node object: uplink, settings, node.json, conflist.
#[expect(
    clippy::too_many_arguments,
    reason = "called once, by the composition root"
)]
async fn node(
    config: Config,
    netlink: Netlink,
    mut dataplane: Dataplane,
    engine: Handle,
    world: Shared,
    settings: watch::Sender<NodeSettings>,
    mut applied: watch::Receiver<u64>,
    metrics: Arc<Metrics>,
    uplink_lost: Arc<Notify>,
    start: Instant,
) {
    let hang = Hang::of_this_kernel();
    let mut uplink_index = 0;
    let mut conflist = false;
    let mut last_problem = String::new();
    loop {
        let this = world.read().snapshot.this_node().cloned();
        let addresses: &[IpAddr] = this.as_ref().map_or(&[], |n| &n.internal);
        // Without the Node object only a named uplink, or a default route, is known.
        let problem = async {
            let all = netlink.addresses().await?;
            let host = all.iter().map(|(_, a)| *a).collect();
            engine.send(Command::Changes(vec![Change::HostAddresses(host)]));
            engine.send(Command::Synced(Source::HostAddresses));
            let uplink = netlink.uplink(config.uplink.as_deref(), addresses).await?;
            // A filter may have been taken away; putting it anew costs little.
            if hang == Hang::Filter || uplink.index != uplink_index {
                let attached = dataplane.attach_uplink(&uplink.name, hang)?;
                if attached != uplink_index {
                    uplink_index = attached;
                    sysctl::prepare(Some(&uplink.name))?;
                    info!(uplink = uplink.name, mtu = uplink.mtu, "uplink attached");
                }
            }
            let new = NodeSettings {
                masquerade: config.masquerade,
                uplink_ifindex: uplink.index,
                mtu: uplink.mtu,
                addresses: all
                    .into_iter()
                    .filter(|(index, _)| *index == uplink.index)
                    .map(|(_, a)| a)
                    .collect(),
            };
            let changed = settings.send_if_modified(|old| {
                let changed = *old != new;
                *old = new;
                changed
            });
            if changed {
                engine.send(Command::Configure);
            }
            let Some(node) = &this else {
                anyhow::bail!(
                    "the API has no Node {} yet; does --node-name name it?",
                    config.node_name
                );
            };
            let Some(file) = install::node_config(node, uplink.mtu) else {
                anyhow::bail!("the Node {} has no spec.podCIDRs yet", config.node_name);
            };
            if install::node_json(&config.dirs, &file)? {
                info!(pod_cidrs = ?file.pod_cidrs, mtu = file.mtu, "node.json written");
            }
            // Pods may start once policy is in force for them.
            if !conflist && *applied.borrow() > 0 {
                install::conflist(&config.dirs)?;
                conflist = true;
                metrics.start_seconds.set(start.elapsed().as_secs_f64());
                info!(ms = start.elapsed().as_millis() as u64, "ready for pods");
            }
            Ok(())
        }
        .await;
        match problem {
            Ok(()) => last_problem.clear(),
            Err(error) => {
                let text = format!("{error:#}");
                if text != last_problem {
                    warn!(problem = text, "the node is not set up yet; looking again");
                    last_problem = text;
                }
            }
        }
        // Quick until everything stands, then now and then.
        let wait = if conflist {
            NETLINK_INTERVAL
        } else {
            Duration::from_millis(200)
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = uplink_lost.notified(), if hang == Hang::Filter => {}
            _ = applied.changed(), if !conflist => {}
        }
    }
}

/// Keeps the host's routes what the last plan says, also against others' changes.
async fn keep_routes(
    netlink: Netlink,
    mut plan: watch::Receiver<Option<RoutePlan>>,
    metrics: Arc<Metrics>,
) {
    let mut last_problem = String::new();
    loop {
        let now = plan.borrow_and_update().clone();
        if let Some(now) = now {
            let errors = netlink.sync_routes(&now.routes, &now.proof).await;
            metrics.route_errors.inc_by(errors.len() as u64);
            let text: Vec<String> = errors
                .into_iter()
                .map(|e| format!("{:#}", anyhow::Error::from(e)))
                .collect();
            let text = text.join("; ");
            if !text.is_empty() && text != last_problem {
                error!(
                    problem = text,
                    "routes to other nodes' pods are not all set"
                );
            }
            last_problem = text;
        }
        tokio::select! {
            changed = plan.changed() => if changed.is_err() { return },
            () = sleep(NETLINK_INTERVAL) => {}
        }
    }
}

/// Takes away everything of ours. Goes on after an error, and reports them all.
pub async fn uninstall(dirs: &Dirs) -> Result<()> {
    let mut problems: Vec<String> = Vec::new();
    let mut note = |what: &str, result: Result<()>| match result {
        Ok(()) => println!("{what}: done"),
        Err(error) => problems.push(format!("{what}: {error:#}")),
    };
    // First what makes others call us, last what they would miss.
    note(
        "network configuration",
        install::remove_conflist(dirs).map_err(Into::into),
    );
    let kernel = async {
        let netlink = Netlink::open()?;
        let errors = netlink.remove_all_routes().await?;
        let pods = netlink.remove_veths().await?;
        if pods > 0 {
            println!("{pods} pods lost their network; restart them under the next plugin");
        }
        match errors.into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    };
    note("routes and pod interfaces", kernel.await);
    note("programs and maps", remove_bpf(&dirs.bpf_dir));
    note("sysctls", sysctl::restore().map_err(Into::into));
    note("files", install::remove_files(dirs).map_err(Into::into));
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn remove_bpf(dir: &Path) -> Result<()> {
    bpf::remove(dir)?;
    Ok(())
}
