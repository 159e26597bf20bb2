//! The three bpf(2) calls of an ADD that aya would put a probe of the kernel's features before:
//! some twenty trial loads, in a process that lives for milliseconds.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// Behind the programs of others on the same hook.
const BPF_F_AFTER: u32 = 1 << 4;

/// `BPF_OBJ_*` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `BPF_LINK_CREATE` of `union bpf_attr`, with the tcx part.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    _pad: u32,
    expected_revision: u64,
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

pub fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attribute = Object {
        pathname: path.as_ptr() as u64,
        bpf_fd: fd.as_raw_fd() as u32,
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attribute).map(drop)
}

/// A tcx link of the program to an interface of the calling thread's network namespace.
pub fn tcx_attach(program: BorrowedFd<'_>, ifindex: u32, ingress: bool) -> io::Result<OwnedFd> {
    let attribute = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: match ingress {
            true => BPF_TCX_INGRESS,
            false => BPF_TCX_EGRESS,
        },
        flags: BPF_F_AFTER,
        ..LinkCreate::default()
    };
    bpf(BPF_LINK_CREATE, &attribute).map(owned)
}
