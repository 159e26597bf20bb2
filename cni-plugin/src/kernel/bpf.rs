//! The bpf(2) calls of an ADD that aya would put a probe of the kernel's features before: some twenty
//! trial loads, in a process that lives for milliseconds.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `BPF_OBJ_*` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_OBJ_GET_INFO_BY_FD` of `union bpf_attr`.
#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    program_type: u32,
    id: u32,
}

fn bpf<T>(command: libc::c_int, attribute: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a repr(C) struct without padding, and
    // takes what lies behind it as zero; pointers in it live as long as the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attribute),
            size_of::<T>(),
        )
    };
    match rc {
        0.. => Ok(rc),
        _ => Err(io::Error::last_os_error()),
    }
}

fn owned(rc: libc::c_long) -> OwnedFd {
    // SAFETY: a fresh descriptor (close-on-exec, as all of bpf's) that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(rc as i32) }
}

pub fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attribute = Object {
        pathname: path.as_ptr() as u64,
        ..Object::default()
    };
    bpf(BPF_OBJ_GET, &attribute).map(owned)
}

/// The program's id, which filters are listed with.
pub fn program_id(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = ProgramInfo::default();
    let attribute = InfoByFd {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attribute)?;
    Ok(info.id)
}
