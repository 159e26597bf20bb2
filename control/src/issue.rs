//! `rhumb-control kubeconfig`

use anyhow::{Context as _, bail};
use rhumb_apiserver::pki::{Authority, Identity, files, kubeconfig};

use crate::args::Kubeconfig;

pub fn run(args: Kubeconfig) -> anyhow::Result<()> {
    if args.user.is_empty() {
        bail!("--user is empty");
    }
    if !args.server.starts_with("https://") {
        bail!(
            "--server {}: the server speaks TLS only; give https://HOST:PORT",
            args.server
        );
    }
    let dir = args.data_dir.join("pki");
    if !dir.join("ca.crt").exists() {
        bail!(
            "{} holds no certificate authority: start `rhumb-control server --data-dir {}` first",
            dir.display(),
            args.data_dir.display()
        );
    }
    let authority = Authority::open(&dir)?;
    let identity = Identity {
        user: args.user.clone(),
        groups: args.group,
    };
    let pair = authority.issue(&identity, &args.san)?;
    let text = kubeconfig::kubeconfig(&args.server, &authority.certificate, &args.user, &pair);
    match args.output {
        Some(path) => files::write_private(&path, &text).context("writing the kubeconfig")?,
        None => print!("{text}"),
    }
    Ok(())
}
