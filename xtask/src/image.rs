//! `cargo xtask image`: the agent's image as a file, made without a container engine.

use crate::binaries;
use crate::shell::target_dir;
use anyhow::Context;
use rhumb_harness::cluster::{Built, Profile};
use rhumb_harness::image;
use std::path::Path;

/// Builds for release and writes an OCI image layout, packed into one file.
pub fn run(name: &str, file: Option<&Path>) -> anyhow::Result<()> {
    binaries::build_static(Profile::Release)?;
    let built = Built::new(&target_dir())?.with(Profile::Release);
    let default = built.target.join("rhumb-agent.tar");
    let file = file.unwrap_or(&default);
    let layout = tempfile::tempdir().context("making a directory for the layout")?;
    image::write_layout(layout.path(), vec![image::agent(name, &built)?])?;
    image::pack(layout.path(), file)?;
    println!("{name} is in {}", file.display());
    Ok(())
}
