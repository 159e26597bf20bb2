//! `rhumb-control`: the small control plane, put together.

mod args;
mod issue;
mod node;
mod serve;
mod signals;
mod signer;
mod trim;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            // Many messages name their cause themselves.
            for cause in error.chain().skip(1).map(ToString::to_string) {
                if !text.contains(&cause) {
                    text += &format!(": {cause}");
                }
            }
            eprintln!("rhumb-control: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
                .parse(&args.log)?,
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    // kube and its TLS find the provider through the process.
    let provider = rustls::crypto::ring::default_provider();
    if provider.install_default().is_err() {
        anyhow::bail!("a TLS provider was installed already");
    }
    match args.command {
        Command::Server(server) => serve::run(server),
        Command::Kubelet(kubelet) => node::run(kubelet),
        Command::Kubeconfig(issue) => issue::run(issue),
    }
}
