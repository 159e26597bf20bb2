//! Embeds the eBPF object, so that the agent is one self-contained file.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=RHUMB_EBPF_OBJECT");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object = env::var_os("RHUMB_EBPF_OBJECT")
        .map_or_else(|| manifest.join("../target/bpf/rhumb.bpf.o"), PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    // A watch on a file that is not there yet never fires: watch where it will appear.
    if !object.exists()
        && let Some(dir) = object.ancestors().skip(1).find(|d| d.exists())
    {
        println!("cargo:rerun-if-changed={}", dir.display());
    }
    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) => {
            // Host-only work (checks, lints, the pure tests) goes on without the programs; the
            // agent refuses to start without them.
            println!(
                "cargo:warning=no eBPF programs at {} ({error}): run cargo xtask build-ebpf",
                object.display()
            );
            Vec::new()
        }
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("rhumb.bpf.o"), bytes).expect("OUT_DIR is writable");
}
