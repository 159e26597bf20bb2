//! `rhumb-control kubelet`: the kubelet of one node.

use anyhow::Context as _;

use crate::signals;

pub fn run(args: rhumb_kubelet::Args) -> anyhow::Result<()> {
    let config = rhumb_kubelet::Config::try_from(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = signals::stop_on_signals()?;
        rhumb_kubelet::run(config, shutdown).await
    })
}
