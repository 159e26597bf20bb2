//! Ring 1: the kernel programs against the verifier. Needs root.

mod ring1 {
    pub mod kernel;
    mod sockets;
    pub mod wire;
}

use aya::programs::ProgramError;
use ring1::kernel::{self, Programs};

#[test]
fn every_program_loads() -> Result<(), ProgramError> {
    let programs = Programs::load();
    let names: Vec<&str> = programs.names().collect();
    assert_eq!(names.len(), kernel::PROGRAMS.len());
    for name in names {
        let info = programs.info(name)?;
        println!(
            "{name}: {:?} instructions verified, {} bytes",
            info.verified_instruction_count(),
            info.size_translated().unwrap_or(0)
        );
        assert!(info.verified_instruction_count().is_some_and(|n| n > 0));
    }
    Ok(())
}
