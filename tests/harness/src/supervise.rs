//! What systemd is to a real node: keeps the daemons of a dev cluster running.
//!
//! One process supervises all daemons of a cluster. Each daemon is started in its namespace and
//! cgroup, with its listening sockets handed over (`LISTEN_FDS`, sd_listen_fds(3)), and started
//! again whenever it ends, as with `Restart=always`; the pause grows while it keeps failing.

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// First pause before a restart, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A daemon that ran for so long is healthy: the next pause is the first one again.
const HEALTHY: Duration = Duration::from_secs(10);
/// How long a daemon may take to end when asked to.
const STOP: Duration = Duration::from_secs(8);

/// The daemons of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where pid files and markers are.
    pub run_dir: PathBuf,
    /// Where each daemon's output goes: `<log_dir>/<name>.log`.
    pub log_dir: PathBuf,
    /// What to keep running.
    pub daemons: Vec<Daemon>,
}

/// One daemon, much as a unit file has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Daemon {
    /// Name, unique in the plan.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment, beside the inherited one.
    pub env: BTreeMap<String, String>,
    /// Network namespace, by name; none: the supervisor's.
    pub netns: Option<String>,
    /// Cgroup, in every hierarchy.
    pub cgroup: Option<String>,
    /// Sockets that the supervisor opens in its own namespace and hands over.
    pub listen: Vec<SocketAddr>,
    /// Files without which it is not started yet.
    pub needs: Vec<PathBuf>,
}

impl Plan {
    /// Reads a plan.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", file.display()))
    }

    fn pid_file(&self, daemon: &str) -> PathBuf {
        self.run_dir.join(format!("{daemon}.pid"))
    }

    fn stopped_file(&self, daemon: &str) -> PathBuf {
        self.run_dir.join(format!("{daemon}.stopped"))
    }

    /// A daemon's log.
    pub fn log_file(&self, daemon: &str) -> PathBuf {
        self.log_dir.join(format!("{daemon}.log"))
    }

    /// The process that is a daemon now, if it runs.
    pub fn pid(&self, daemon: &str) -> Option<i32> {
        let text = fs::read_to_string(self.pid_file(daemon)).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        kill(Pid::from_raw(pid), None).ok().map(|()| pid)
    }

    /// Stops a daemon until [`Plan::start`]. `signal` is what it is sent.
    pub fn stop(&self, daemon: &str, signal: Signal) -> anyhow::Result<()> {
        let marker = self.stopped_file(daemon);
        fs::write(&marker, "").with_context(|| format!("writing {}", marker.display()))?;
        if let Some(pid) = self.pid(daemon) {
            // That it has just ended by itself is as good.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        crate::wait_for(&format!("{daemon} has ended"), STOP * 2, || {
            Ok(self.pid(daemon).is_none().then_some(()))
        })
    }

    /// Lets a stopped daemon run again.
    pub fn start(&self, daemon: &str) -> anyhow::Result<()> {
        let marker = self.stopped_file(daemon);
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", marker.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Starts a supervisor in a session of its own and gives its pid.
pub fn spawn(program: &Path, plan_file: &Path, log: &Path) -> anyhow::Result<u32> {
    let log_file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(plan_file)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone().context("duplicating a file")?)
        .stderr(log_file);
    // SAFETY: setsid(2) is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()
                .map(drop)
                .map_err(std::io::Error::from)
        });
    }
    let child = command
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    Ok(child.id())
}

/// Supervises until SIGTERM.
pub fn run(plan_file: &Path) -> anyhow::Result<()> {
    let plan = Plan::read(plan_file)?;
    for dir in [&plan.run_dir, &plan.log_dir] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    runtime.block_on(supervise(plan_file, plan))
}

async fn supervise(plan_file: &Path, plan: Plan) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let (stop, stopping) = watch::channel(false);
    let mut keepers = Vec::new();
    for daemon in &plan.daemons {
        // Opened once: a restart finds the sockets, and what clients sent them meanwhile.
        let mut sockets = Vec::new();
        for address in &daemon.listen {
            let socket = TcpListener::bind(address)
                .with_context(|| format!("listening on {address} for {}", daemon.name))?;
            sockets.push(socket);
        }
        let keeper = Keeper {
            plan_file: plan_file.to_path_buf(),
            plan: plan.clone(),
            daemon: daemon.clone(),
            sockets,
        };
        keepers.push(tokio::spawn(keeper.keep(stopping.clone())));
    }
    terminate.recv().await;
    println!("stopping");
    let _ = stop.send(true);
    for keeper in keepers {
        let _ = keeper.await;
    }
    Ok(())
}

struct Keeper {
    plan_file: PathBuf,
    plan: Plan,
    daemon: Daemon,
    sockets: Vec<TcpListener>,
}

impl Keeper {
    async fn keep(self, mut stopping: watch::Receiver<bool>) {
        let name = &self.daemon.name;
        let mut pause = BACK_OFF.0;
        while !*stopping.borrow() {
            let wanted = !self.plan.stopped_file(name).exists()
                && self.daemon.needs.iter().all(|file| file.exists());
            if !wanted {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(50)) => continue,
                    _ = stopping.changed() => break,
                }
            }
            let start = Instant::now();
            match self.start() {
                Err(error) => println!("{name}: {error:#}"),
                Ok(child) => self.attend(child, &mut stopping).await,
            }
            let _ = fs::remove_file(self.plan.pid_file(name));
            if start.elapsed() >= HEALTHY {
                pause = BACK_OFF.0;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopping.changed() => break,
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    fn start(&self) -> anyhow::Result<tokio::process::Child> {
        let log = self.plan.log_file(&self.daemon.name);
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let myself = std::env::current_exe().context("finding the supervisor's own program")?;
        let mut command = Command::new(myself);
        command
            .arg("exec")
            .arg(&self.plan_file)
            .arg(&self.daemon.name)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("duplicating a file")?)
            .stderr(log_file);
        let sockets: Vec<_> = self.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec only fcntl(2), dup2(2) and prctl(2) are called, which are
        // async-signal-safe, and nothing is allocated.
        unsafe {
            command.pre_exec(move || hand_over(&sockets));
        }
        let child = tokio::process::Command::from(command)
            .spawn()
            .context("starting")?;
        if let Some(pid) = child.id() {
            let file = self.plan.pid_file(&self.daemon.name);
            fs::write(&file, pid.to_string())
                .with_context(|| format!("writing {}", file.display()))?;
            println!("{}: started, pid {pid}", self.daemon.name);
        }
        Ok(child)
    }

    /// Waits until the daemon ends, and ends it if that is asked for.
    async fn attend(&self, mut child: tokio::process::Child, stopping: &mut watch::Receiver<bool>) {
        let name = &self.daemon.name;
        tokio::select! {
            status = child.wait() => {
                match status {
                    Ok(status) => println!("{name}: ended ({status})"),
                    Err(error) => println!("{name}: lost ({error})"),
                }
                return;
            }
            _ = stopping.changed() => {}
        }
        if let Some(pid) = child.id() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP, child.wait()).await.is_err() {
            println!("{name}: did not end within {STOP:?} and is killed");
            let _ = child.kill().await;
        }
    }
}

/// In the child: the sockets become file descriptors 3, 4, …; and it ends with its supervisor.
fn hand_over(sockets: &[i32]) -> std::io::Result<()> {
    // Two passes over numbers far away, since a source may be another's destination.
    const AWAY: i32 = 500;
    let checked = |result: i32| match result {
        -1 => Err(std::io::Error::last_os_error()),
        fd => Ok(fd),
    };
    for (index, socket) in sockets.iter().enumerate() {
        // SAFETY: plain system calls on numbers.
        checked(unsafe { libc::dup2(*socket, AWAY + index as i32) })?;
    }
    for index in 0..sockets.len() as i32 {
        // SAFETY: as above. dup2 leaves close-on-exec off, which is what is wanted of 3, 4, ….
        checked(unsafe { libc::dup2(AWAY + index, 3 + index) })?;
        // SAFETY: as above.
        checked(unsafe { libc::close(AWAY + index) })?;
    }
    // SAFETY: as above.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })?;
    Ok(())
}

/// Becomes a daemon: enters its cgroup and namespace, and executes its program.
pub fn exec(plan_file: &Path, name: &str) -> anyhow::Result<()> {
    let plan = Plan::read(plan_file)?;
    let Some(daemon) = plan.daemons.iter().find(|daemon| daemon.name == name) else {
        bail!("{} has no daemon {name}", plan_file.display());
    };
    let Some((program, arguments)) = daemon.argv.split_first() else {
        bail!("daemon {name} has no program");
    };
    let pid = std::process::id();
    if let Some(cgroup) = &daemon.cgroup {
        crate::cgroup::enter(cgroup, pid)?;
    }
    if let Some(netns) = &daemon.netns {
        let file = crate::Netns::open(netns)?.file()?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {netns}"))?;
    }
    let mut command = Command::new(program);
    command.args(arguments).envs(&daemon.env);
    if !daemon.listen.is_empty() {
        command
            .env("LISTEN_FDS", daemon.listen.len().to_string())
            .env("LISTEN_PID", pid.to_string());
    }
    Err(anyhow::Error::new(command.exec()).context(format!("executing {program}")))
}
