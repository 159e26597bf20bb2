//! Running other programs, so that a failure says which one and how.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// The workspace's root directory.
pub fn root() -> PathBuf {
    // `cargo xtask` may be called from any directory of the workspace.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Where Cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The stable Cargo that runs us.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // What `cargo run` sets for xtask itself must not leak into what xtask builds.
    for (key, _) in std::env::vars_os() {
        if let Some(name) = key.to_str()
            && (name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST"))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut words = vec![
        Path::new(command.get_program())
            .file_name()
            .unwrap_or(OsStr::new("?"))
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a command with its output shown, and fails if it does.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let what = shown(command);
    eprintln!("+ {what}");
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("starting `{what}`"))?;
    if !status.success() {
        bail!("`{what}` failed ({status})");
    }
    let took = start.elapsed().as_secs_f64();
    if took > 5.0 {
        eprintln!("  ({took:.0} s)");
    }
    Ok(())
}

/// Runs a command with its output shown, and gives its standard output and whether it succeeded.
pub fn run_and_keep(command: &mut Command) -> anyhow::Result<(String, anyhow::Result<()>)> {
    let what = shown(command);
    eprintln!("+ {what}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{what}`"))?;
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (done, finished) = mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        let kept = kept.clone();
        std::thread::spawn(move || {
            // In pieces, not in lines: the name of a running test ends no line yet.
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut piece) {
                let mut out = std::io::stdout();
                let _ = out.write_all(&piece[..length]).and_then(|()| out.flush());
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&piece[..length]);
            }
            let _ = done.send(());
        });
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for `{what}`"))?;
    // A process left behind may hold the pipe open: what it says later is of no interest.
    let _ = finished.recv_timeout(Duration::from_secs(2));
    let kept = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
    let result = if status.success() {
        Ok(())
    } else {
        Err(anyhow::anyhow!("`{what}` failed ({status})"))
    };
    Ok((String::from_utf8_lossy(&kept).into_owned(), result))
}

/// Runs a command and gives its standard output.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let what = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{what}`"))?;
    if !output.status.success() {
        bail!(
            "`{what}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The path of a program, if one of the usual directories has it.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Whether we are root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
