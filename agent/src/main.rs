use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use rhumb_agent::{
    config::{Cli, Command, Config},
    observe::SetLog,
    run,
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

fn logging(config: &Config) -> anyhow::Result<SetLog> {
    let filter = EnvFilter::try_new(&config.log)?;
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry()
        .with(filter)
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
        .init();
    Ok(Arc::new(move |text: &str| {
        let filter = EnvFilter::try_new(text).map_err(|e| e.to_string())?;
        handle.reload(filter).map_err(|e| e.to_string())
    }))
}

fn start() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match cli.command {
        Command::Run(config) => {
            let set_log = logging(&config)?;
            runtime.block_on(run::run(*config, set_log))
        }
        Command::Uninstall(dirs) => runtime.block_on(run::uninstall(&dirs)),
        Command::Version => {
            println!(
                "rhumb-agent {} (map ABI {})",
                env!("CARGO_PKG_VERSION"),
                rhumb_common::ABI_VERSION
            );
            Ok(())
        }
    }
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rhumb-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
