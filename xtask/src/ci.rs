//! `cargo xtask test` and `cargo xtask ci`.

use crate::shell::{cargo, is_root, output, run as run_command, run_and_keep};
use anyhow::{Context, bail};
use std::str::FromStr;

/// One ring of tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// Unit, property and golden tests: needs nothing.
    Zero,
    /// The eBPF programs in the kernel: needs root.
    One,
    /// Agent and plugin in namespaces: needs root.
    Two,
    /// The plugin as a runtime drives it: needs root.
    Three,
    /// Whole clusters: needs root and containerd.
    Four,
}

impl Ring {
    const ALL: [Self; 5] = [Self::Zero, Self::One, Self::Two, Self::Three, Self::Four];

    /// Cargo's arguments that select the ring's tests.
    fn selection(self) -> &'static [&'static str] {
        match self {
            Self::Zero => &["--workspace", "--exclude", "rhumb-tests", "--tests"],
            Self::One => &["-p", "rhumb-tests", "--test", "ring1"],
            Self::Two => &["-p", "rhumb-tests", "--test", "ring2"],
            Self::Three => &["-p", "rhumb-tests", "--test", "ring3"],
            Self::Four => &["-p", "rhumb-tests", "--test", "ring4"],
        }
    }
}

impl std::fmt::Display for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ring {}", *self as u8)
    }
}

impl FromStr for Ring {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("ring").unwrap_or(text) {
            "0" => Ok(Self::Zero),
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            "3" => Ok(Self::Three),
            "4" => Ok(Self::Four),
            _ => Err(format!("`{text}` is no ring: there are 0, 1, 2, 3 and 4")),
        }
    }
}

/// `cargo xtask test`: set-up, build, and the rings' tests; every ring runs even if one fails.
pub fn test(rings: &[Ring], filter: Option<&str>) -> anyhow::Result<()> {
    let rings = if rings.is_empty() { &Ring::ALL } else { rings };
    if !is_root() && rings.iter().any(|ring| *ring != Ring::Zero) {
        bail!(
            "rings 1 to 4 make network namespaces and load eBPF programs, which takes root; \
             `cargo xtask test 0` needs no root"
        );
    }
    crate::setup::run()?;
    crate::binaries::build(rhumb_harness::cluster::Profile::Dev)?;
    test_rings(rings, filter)
}

fn test_rings(rings: &[Ring], filter: Option<&str>) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let mut summaries = Vec::new();
    for ring in rings {
        // Tests that can't run fail: nothing is skipped here.
        let mut command = cargo();
        command
            .args(["test", "--no-fail-fast"])
            .args(ring.selection());
        if let Some(filter) = filter {
            command.args(["--", filter]);
        }
        let (output, result) = run_and_keep(&mut command)?;
        let lines = output.lines().filter(|line| is_summary(line));
        summaries.extend(lines.map(|line| format!("{ring}: {line}")));
        failed.extend(result.err().map(|e| e.to_string()));
    }
    // The runner's own words again, since a ring's report may be pages back.
    println!("\n{}", summaries.join("\n"));
    if failed.is_empty() {
        return Ok(());
    }
    bail!("tests failed:\n  {}", failed.join("\n  "))
}

/// A summary of the test runner that says something.
fn is_summary(line: &str) -> bool {
    line.starts_with("test result:") && !line.contains(" 0 passed; 0 failed;")
}

/// `cargo xtask ci`: everything that has to be green.
pub fn run() -> anyhow::Result<()> {
    crate::setup::run()?;
    for component in ["fmt", "clippy"] {
        output(cargo().args([component, "--version"])).context(
            "ci needs rustfmt and clippy: `rustup component add rustfmt clippy` installs them",
        )?;
    }
    run_command(cargo().args(["fmt", "--all", "--check"]))?;
    run_command(cargo().args(["fmt", "--manifest-path", "ebpf/Cargo.toml", "--check"]))?;
    crate::tidy::run()?;
    crate::build_ebpf::run()?;
    run_command(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    test(&[], None)
}

#[cfg(test)]
mod tests {
    use super::{Ring, is_summary};

    #[test]
    fn rings_by_number_or_name() {
        assert_eq!("3".parse(), Ok(Ring::Three));
        assert_eq!("ring0".parse(), Ok(Ring::Zero));
        assert!("5".parse::<Ring>().is_err());
        assert_eq!(Ring::Four.to_string(), "ring 4");
    }

    #[test]
    fn summaries() {
        assert!(is_summary(
            "test result: ok. 4 passed; 0 failed; 0 ignored;"
        ));
        assert!(is_summary(
            "test result: FAILED. 0 passed; 1 failed; 0 ignored;"
        ));
        assert!(!is_summary(
            "test result: ok. 0 passed; 0 failed; 0 ignored;"
        ));
        assert!(!is_summary("test a ... ok"));
    }
}
