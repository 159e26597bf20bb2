//! `cargo xtask tidy`: rules of the house that Cargo's edges and lints can't hold.

use crate::shell::root;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Above this a file deserves a second look.
const LONG: usize = 600;

/// A rule broken.
struct Fault {
    file: PathBuf,
    line: usize,
    what: String,
}

/// Crates that may appear only in some places.
const FENCED: &[(&str, &[&str])] = &[
    (
        "kube",
        &[
            "agent/src/watch",
            // The composition root.
            "agent/src/run.rs",
            "control/",
            "tests/",
        ],
    ),
    (
        "aya",
        &[
            "agent/src/dataplane/bpf",
            "cni-plugin/src/kernel/",
            "ebpf/common/",
            "tests/",
        ],
    ),
];

/// Rooms whose code ships to users.
const PRODUCT: &[&str] = &["agent/", "cni-plugin/", "control/", "ebpf/"];

/// Checks every file that Git knows or would add.
pub fn run() -> anyhow::Result<()> {
    let root = root();
    let mut faults = Vec::new();
    for file in rust_files(&root)? {
        let text = std::fs::read_to_string(root.join(&file))
            .with_context(|| format!("reading {}", file.display()))?;
        check_rust(&file, &text, &mut faults);
    }
    map_names(&root, &mut faults)?;
    links(&root, &mut faults)?;
    for fault in &faults {
        println!("{}:{}: {}", fault.file.display(), fault.line, fault.what);
    }
    if !faults.is_empty() {
        bail!("tidy: {} faults", faults.len());
    }
    Ok(())
}

fn check_rust(file: &Path, text: &str, faults: &mut Vec<Fault>) {
    let name = file.to_string_lossy();
    let product = PRODUCT.iter().any(|room| name.starts_with(room));
    let this_file = name == "xtask/src/tidy.rs";
    let mut in_tests = name.contains("/tests/") || name.starts_with("tests/");
    let mut lines = 0;
    for (number, line) in text.lines().enumerate() {
        lines += 1;
        let code = line.split("//").next().unwrap_or_default();
        let mut fault = |what: String| {
            faults.push(Fault {
                file: file.to_path_buf(),
                line: number + 1,
                what,
            });
        };
        if line.trim() == "#[cfg(test)]" {
            in_tests = true;
        }
        if this_file {
            continue;
        }
        for word in ["todo!(", "unimplemented!("] {
            if code.contains(word) {
                fault(format!("`{word}…)`: what does not work yet does not exist"));
            }
        }
        if code.contains("#[ignore") {
            fault("`#[ignore]`: a test that can't run fails".to_owned());
        }
        if code.contains("#[allow(") || code.contains("#![allow(") {
            fault(
                "`#[allow(…)]`: `#[expect(…, reason = \"…\")]` says why, and when it is over"
                    .into(),
            );
        }
        if product
            && !in_tests
            && !name.ends_with("build.rs")
            && (code.contains("std::process::Command")
                || code.contains("process::Command::new")
                || code.contains("use tokio::process"))
        {
            fault("the product executes nothing: netlink and bpf(2) only".to_owned());
        }
        for (krate, rooms) in FENCED {
            if !in_tests
                && uses_crate(code, krate)
                && !rooms.iter().any(|room| name.starts_with(room))
            {
                fault(format!("`{krate}` belongs into {}", rooms.join(", ")));
            }
        }
    }
    if lines > LONG {
        println!("note: {name} has {lines} lines: does it hold one thing?");
    }
}

/// Whether a line of code names something of a crate by path.
fn uses_crate(code: &str, krate: &str) -> bool {
    let path = format!("{krate}::");
    let mut rest = code;
    while let Some(at) = rest.find(&path) {
        let before = rest[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
            return true;
        }
        rest = &rest[at + path.len()..];
    }
    false
}

/// Every object of the contract has a name of its own: names become pins in one directory.
fn map_names(root: &Path, faults: &mut Vec<Fault>) -> anyhow::Result<()> {
    let file = PathBuf::from("ebpf/common/src/maps.rs");
    let text = std::fs::read_to_string(root.join(&file))
        .with_context(|| format!("reading {}", file.display()))?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let Some((_, value)) = line.split_once(": &str = \"") else {
            continue;
        };
        let name = value.trim_end_matches("\";").to_owned();
        if let Some(first) = seen.insert(name.clone(), number + 1) {
            faults.push(Fault {
                file: file.clone(),
                line: number + 1,
                what: format!("`{name}` is the name of line {first} too"),
            });
        }
    }
    if seen.is_empty() {
        bail!("tidy: {} declares no map name any more", file.display());
    }
    Ok(())
}

/// Links of the documents to files of the repository lead somewhere.
fn links(root: &Path, faults: &mut Vec<Fault>) -> anyhow::Result<()> {
    for file in files(root)? {
        if file.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let text = std::fs::read_to_string(root.join(&file))
            .with_context(|| format!("reading {}", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            for target in link_targets(line) {
                let path = target.split('#').next().unwrap_or_default();
                if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                    continue;
                }
                let dir = file.parent().unwrap_or(Path::new(""));
                if !root.join(dir).join(path).exists() {
                    faults.push(Fault {
                        file: file.clone(),
                        line: number + 1,
                        what: format!("the link leads nowhere: {target}"),
                    });
                }
            }
        }
    }
    Ok(())
}

fn link_targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("](") {
        rest = &rest[at + 2..];
        let Some(end) = rest.find(')') else { break };
        targets.push(&rest[..end]);
        rest = &rest[end..];
    }
    targets
}

fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(files(root)?
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "rs"))
        .collect())
}

/// Files of the repository, relative to its root: all but what is built or hidden.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries =
            std::fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if name == "target" || name.to_string_lossy().starts_with('.') {
                continue;
            }
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                dirs.push(path);
            } else if let Ok(relative) = path.strip_prefix(root) {
                files.push(relative.to_path_buf());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(file: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_rust(Path::new(file), text, &mut faults);
        faults.into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn fenced_crates() {
        assert_eq!(
            faults_of("agent/src/state.rs", "use kube::Client;").len(),
            1
        );
        assert_eq!(
            faults_of("agent/src/watch.rs", "use kube::Client;").len(),
            0
        );
        assert_eq!(
            faults_of("agent/core/src/lib.rs", "use aya::Ebpf;").len(),
            1
        );
        assert_eq!(
            faults_of("agent/core/src/lib.rs", "use crate::aya::X;").len(),
            0
        );
        assert_eq!(faults_of("agent/src/state.rs", "// kube::Client").len(), 0);
    }

    #[test]
    fn forbidden_words() {
        assert_eq!(faults_of("control/src/x.rs", "    todo!()").len(), 1);
        assert_eq!(faults_of("tests/tests/ring1.rs", "#[ignore]").len(), 1);
        assert_eq!(
            faults_of("agent/src/x.rs", "use std::process::Command;").len(),
            1
        );
        assert_eq!(
            faults_of("xtask/src/x.rs", "use std::process::Command;").len(),
            0
        );
    }

    #[test]
    fn targets_of_links() {
        assert_eq!(
            link_targets("see [a](b.md#c) and [d](https://e.f)"),
            ["b.md#c", "https://e.f"]
        );
    }
}
