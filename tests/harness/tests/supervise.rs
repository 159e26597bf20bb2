//! The supervisor keeps daemons running as systemd would; none of this takes root.
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rhumb_harness::supervise::{Daemon, Plan, spawn};
use rhumb_harness::wait_for;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

struct Supervisor {
    plan: Plan,
    pid: Pid,
    _dir: tempfile::TempDir,
}

impl Supervisor {
    fn start(daemons: impl FnOnce(&Path) -> Vec<Daemon>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            run_dir: dir.path().join("run"),
            log_dir: dir.path().join("log"),
            daemons: daemons(dir.path()),
        };
        let file = dir.path().join("plan.json");
        std::fs::write(&file, serde_json::to_vec(&plan).unwrap()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_rhumb-supervise"));
        let pid = spawn(program, &file, &dir.path().join("supervisor.log")).unwrap();
        Self {
            plan,
            pid: Pid::from_raw(pid as i32),
            _dir: dir,
        }
    }

    fn pid_other_than(&self, daemon: &str, old: i32) -> i32 {
        wait_for("another process runs", SOON, || {
            Ok(self.plan.pid(daemon).filter(|pid| *pid != old))
        })
        .unwrap()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGTERM);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

fn shell(name: &str, script: &str) -> Daemon {
    Daemon {
        name: name.to_owned(),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        ..Daemon::default()
    }
}

#[test]
fn a_killed_daemon_comes_back_and_a_stopped_one_waits() {
    let supervisor = Supervisor::start(|_| vec![shell("d", "exec sleep 1000")]);
    let plan = &supervisor.plan;
    let first = supervisor.pid_other_than("d", 0);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let second = supervisor.pid_other_than("d", first);
    plan.stop("d", Signal::SIGTERM).unwrap();
    assert_eq!(plan.pid("d"), None);
    plan.start("d").unwrap();
    let third = supervisor.pid_other_than("d", second);
    assert!(Path::new("/proc").join(third.to_string()).exists());
    // And all of them end with the supervisor.
    let plan = plan.clone();
    drop(supervisor);
    assert_eq!(plan.pid("d"), None);
    assert!(!Path::new("/proc").join(third.to_string()).exists());
}

#[test]
fn a_daemon_waits_for_what_it_needs() {
    let supervisor = Supervisor::start(|dir| {
        let needed = dir.join("needed");
        let needed = needed.display();
        vec![
            Daemon {
                needs: vec![dir.join("needed")],
                ..shell("late", &format!("test -e {needed} && exec sleep 1000"))
            },
            shell("early", "exec sleep 1000"),
        ]
    });
    supervisor.pid_other_than("early", 0);
    assert_eq!(supervisor.plan.pid("late"), None);
    let needed = supervisor.plan.run_dir.with_file_name("needed");
    std::fs::write(needed, "").unwrap();
    supervisor.pid_other_than("late", 0);
}

#[test]
fn a_socket_is_handed_over_and_outlives_the_daemon() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    // It says what it was given, on the very socket.
    let script = "test $LISTEN_PID = $$ || exit 1
        exec python3 -c 'import socket
s = socket.socket(fileno=3)
while True:
    c, _ = s.accept()
    c.sendall(b\"'$LISTEN_FDS'\")
    c.close()'";
    let supervisor = Supervisor::start(|_| {
        vec![Daemon {
            listen: vec![address],
            ..shell("server", script)
        }]
    });
    let ask = || -> anyhow::Result<Option<String>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Some(text))
    };
    assert_eq!(wait_for("an answer", SOON, ask).unwrap(), "1");
    let pid = supervisor.pid_other_than("server", 0);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    // No server runs, and yet this connection is not refused: it waits for the next one.
    assert_eq!(ask().unwrap().as_deref(), Some("1"));
    assert_ne!(supervisor.pid_other_than("server", pid), pid);
}
