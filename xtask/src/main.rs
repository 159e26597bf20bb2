//! The one door for chores: `cargo xtask <chore>`.

mod bench;
mod binaries;
mod build_ebpf;
mod ci;
mod cluster;
mod demo;
mod doctor;
mod image;
mod setup;
mod shell;
mod tidy;

use clap::{Parser, Subcommand};
use rhumb_harness::cluster::Profile;
use std::process::ExitCode;

/// Chores of the Rhumb workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what is missing: Debian packages (as root, Debian 12) and kubectl
    Setup,
    /// Say what is missing on this machine, and how to get it
    Doctor,
    /// Build the eBPF programs
    BuildEbpf,
    /// Build the eBPF programs and then every binary
    Build,
    /// Build for release, and write the agent's image (for deploy/agent.yaml) to a file that `ctr images import`,
    /// `skopeo copy oci-archive:…` and the like take
    Image {
        /// The image's name
        #[arg(long, default_value = concat!("localhost/rhumb-agent:", env!("CARGO_PKG_VERSION")))]
        name: String,
        /// The file. Default: rhumb-agent.tar in Cargo's target directory
        #[arg(long)]
        out: Option<std::path::PathBuf>,
    },
    /// Check the rules of the house that Cargo can't
    Tidy,
    /// Set up, build, and start a cluster of nodes on this machine
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 2)]
        nodes: usize,
        /// The cluster's name; several stand side by side
        #[arg(long, default_value = "dev")]
        name: String,
        /// Don't run the demo
        #[arg(long)]
        no_demo: bool,
    },
    /// Take a cluster away: processes, namespaces, mounts, cgroups, files
    Down {
        /// The cluster's name
        #[arg(long, default_value = "dev")]
        name: String,
        /// Take every cluster away that this clone of the repository started
        #[arg(long)]
        all: bool,
    },
    /// Say what runs, and where
    Status {
        /// The cluster's name; without one, every cluster
        #[arg(long)]
        name: Option<String>,
    },
    /// Set up, build, and run the rings of tests (all of them if none is named)
    Test {
        /// Rings to run: 0, 1, 2, 3, 4 (or ring0 …)
        rings: Vec<ci::Ring>,
        /// Run only tests whose name contains this
        #[arg(long)]
        filter: Option<String>,
    },
    /// Build for release, start a cluster of two nodes, and measure: ratios in one run
    Bench {
        /// Parts to run (net, cni, apply, memory, api, datapath); all of them if none is named
        parts: Vec<String>,
        /// Pairs of thing and baseline
        #[arg(long, default_value_t = 31)]
        pairs: usize,
    },
    /// Everything that has to be green: fmt, tidy, clippy and every ring
    Ci,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.chore {
        Chore::Setup => setup::run(),
        Chore::Doctor => doctor::run(),
        Chore::BuildEbpf => build_ebpf::run(),
        Chore::Build => binaries::build(Profile::Dev),
        Chore::Image { name, out } => image::run(&name, out.as_deref()),
        Chore::Up {
            nodes,
            name,
            no_demo,
        } => cluster::up(&name, nodes, !no_demo),
        Chore::Down { name, all } => cluster::down(&name, all),
        Chore::Status { name } => cluster::status(name.as_deref()),
        Chore::Tidy => tidy::run(),
        Chore::Test { rings, filter } => ci::test(&rings, filter.as_deref()),
        Chore::Bench { parts, pairs } => bench::run(&parts, pairs),
        Chore::Ci => ci::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
