//! The verifier's gate.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use rhumb_common::maps::name;

use rhumb_tests::kernel::{PROGRAMS, Programs};

/// Name, verified instructions, stack bytes of the deepest function: what is used now and some
/// 30 % more (the kernel's own limits are 1 000 000, and 512 for a chain of calls). Instructions
/// are what loading costs at an agent's start.
const BUDGETS: [(&str, u32, i32); PROGRAMS.len()] = [
    (name::FROM_POD, 31_000, 224),
    (name::TO_POD, 17_000, 224),
    (name::FROM_UPLINK, 15_000, 224),
    ("connect4", 1_500, 224),
    ("connect6", 1_800, 224),
    ("sendmsg4", 1_500, 224),
    ("sendmsg6", 1_700, 224),
    ("recvmsg4", 60, 48),
    ("recvmsg6", 60, 48),
    ("getpeername4", 60, 48),
    ("getpeername6", 60, 48),
];

#[test]
fn every_program_loads_within_its_budget() -> Result<()> {
    let programs = Programs::load();
    let mut over = Vec::new();
    for (name, instructions, stack) in BUDGETS {
        let info = programs.info(name)?;
        let verified = info
            .verified_instruction_count()
            .context("the kernel tells no verified instructions")?;
        let fd = info.fd()?;
        let depth = stack_depth(&translated(fd.as_fd().as_raw_fd())?);
        println!("{name}: {verified} instructions verified, {depth} bytes of stack");
        ensure!(verified > 0 && depth > 0, "{name}: nothing was verified");
        if verified > instructions || depth > stack {
            over.push(format!(
                "{name}: {verified} of {instructions} instructions, {depth} of {stack} bytes"
            ));
        }
    }
    ensure!(over.is_empty(), "over budget: {over:#?}");
    Ok(())
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    head: [u32; 4],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
}

/// The program's instructions as the verifier left them.
fn translated(fd: i32) -> Result<Vec<[u8; 8]>> {
    const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
    let mut info = ProgInfo::default();
    let mut instructions = Vec::new();
    for _ in 0..2 {
        let attr = [
            fd as u64 | (size_of::<ProgInfo>() as u64) << 32,
            &raw mut info as u64,
        ];
        // SAFETY: the attribute and what it points to outlive the call and have the sizes named.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_OBJ_GET_INFO_BY_FD,
                attr.as_ptr(),
                size_of_val(&attr),
            )
        };
        if rc != 0 {
            return Err(std::io::Error::last_os_error()).context("read the program's instructions");
        }
        if instructions.is_empty() {
            instructions = vec![[0u8; 8]; info.xlated_len as usize / 8];
            info = ProgInfo {
                xlated_len: info.xlated_len,
                xlated: instructions.as_mut_ptr() as u64,
                ..ProgInfo::default()
            };
        }
    }
    Ok(instructions)
}

/// The deepest byte below the frame pointer (r10) that is read, written or pointed to.
fn stack_depth(instructions: &[[u8; 8]]) -> i32 {
    const FRAME: u8 = 10;
    let mut depth = 0;
    for (i, insn) in instructions.iter().enumerate() {
        let (dst, src) = (insn[1] & 15, insn[1] >> 4);
        let offset = i32::from(i16::from_le_bytes([insn[2], insn[3]]));
        let deepest = match insn[0] {
            // Loads by r10, stores by r10.
            code if code & 7 == 1 && src == FRAME => offset,
            code if (code & 7 == 2 || code & 7 == 3) && dst == FRAME => offset,
            // rX = r10; rX += constant.
            0xbf if src == FRAME => match instructions.get(i + 1) {
                Some(next) if next[0] == 0x07 && next[1] & 15 == dst => {
                    i32::from_le_bytes([next[4], next[5], next[6], next[7]])
                }
                _ => 0,
            },
            _ => 0,
        };
        depth = depth.max(-deepest);
    }
    depth
}
