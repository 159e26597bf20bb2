//! bpf(2) for what aya has no door to: maps by raw key and value (batches too), pins, and
//! BPF_LINK_UPDATE of any link. Layouts: `union bpf_attr` in `include/uapi/linux/bpf.h`.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_UPDATE: libc::c_int = 29;

fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: every `T` below is the prefix of `union bpf_attr` that `cmd` reads, without implicit
    // padding, and its pointers outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd,
            std::ptr::from_mut(attr),
            size_of::<T>() as libc::c_uint,
        )
    };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn elem(fd: BorrowedFd<'_>, key: u64, value: u64) -> ElemAttr {
    ElemAttr {
        map_fd: fd.as_raw_fd() as u32,
        _pad: 0,
        key,
        value,
        flags: 0,
    }
}

fn address<T>(r: &T) -> u64 {
    std::ptr::from_ref(r) as u64
}

fn absent(error: io::Error) -> io::Result<bool> {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(false),
        _ => Err(error),
    }
}

/// `K` and `V` must have the map's sizes (checked once when a table is opened).
pub fn lookup<K: aya::Pod, V: aya::Pod>(fd: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let mut attr = elem(fd, address(key), value.as_mut_ptr() as u64);
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        // SAFETY: the kernel filled it, and every bit pattern of a Pod is valid.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(e) => absent(e).map(|_| None),
    }
}

/// Values of every possible CPU, for per-CPU maps; `V` must be a multiple of eight bytes.
pub fn lookup_percpu<K: aya::Pod, V: aya::Pod + Default>(
    fd: BorrowedFd<'_>,
    key: &K,
    cpus: usize,
) -> io::Result<Vec<V>> {
    let mut values = vec![V::default(); cpus];
    let mut attr = elem(fd, address(key), values.as_mut_ptr() as u64);
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(values)
}

pub fn update<K: aya::Pod, V: aya::Pod>(fd: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    bpf(
        BPF_MAP_UPDATE_ELEM,
        &mut elem(fd, address(key), address(value)),
    )
    .map(drop)
}

/// Whether there was such an entry.
pub fn delete<K: aya::Pod>(fd: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    match bpf(BPF_MAP_DELETE_ELEM, &mut elem(fd, address(key), 0)) {
        Ok(_) => Ok(true),
        Err(e) => absent(e),
    }
}

/// The key after `key`, or the first.
pub fn next_key<K: aya::Pod>(fd: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = std::mem::MaybeUninit::<K>::zeroed();
    let mut attr = elem(fd, key.map_or(0, address), next.as_mut_ptr() as u64);
    match bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) {
        // SAFETY: the kernel filled it, and every bit pattern of a Pod is valid.
        Ok(_) => Ok(Some(unsafe { next.assume_init() })),
        Err(e) => absent(e).map(|_| None),
    }
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes all pairs by one system call. On an error some of them may have been written.
pub fn update_batch<K: aya::Pod, V: aya::Pod>(
    fd: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    debug_assert_eq!(keys.len(), values.len());
    bpf(
        BPF_MAP_UPDATE_BATCH,
        &mut BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len() as u32,
            map_fd: fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        },
    )
    .map(drop)
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path has a zero byte"))
}

pub fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let c = c_path(path)?;
    let fd = bpf(
        BPF_OBJ_GET,
        &mut ObjAttr {
            pathname: c.as_ptr() as u64,
            bpf_fd: 0,
            file_flags: 0,
        },
    )?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

pub fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let c = c_path(path)?;
    bpf(
        BPF_OBJ_PIN,
        &mut ObjAttr {
            pathname: c.as_ptr() as u64,
            bpf_fd: fd.as_raw_fd() as u32,
            file_flags: 0,
        },
    )
    .map(drop)
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the link's program; packets see either the old or the new one.
pub fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    bpf(
        BPF_LINK_UPDATE,
        &mut LinkUpdateAttr {
            link_fd: link.as_raw_fd() as u32,
            new_prog_fd: prog.as_raw_fd() as u32,
            flags: 0,
            old_prog_fd: 0,
        },
    )
    .map(drop)
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
pub struct MapInfo {
    pub map_type: u32,
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
}

/// Head of `struct bpf_link_info`; for tcx links the union starts with the ifindex.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
pub struct LinkInfo {
    pub link_type: u32,
    pub id: u32,
    pub prog_id: u32,
    pub _pad: u32,
    pub ifindex: u32,
    pub attach_type: u32,
}

/// `struct bpf_link_info` of a cgroup link.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
pub struct CgroupLinkInfo {
    pub link_type: u32,
    pub id: u32,
    pub prog_id: u32,
    pub _pad: u32,
    pub cgroup_id: u64,
    pub attach_type: u32,
    pub _pad2: u32,
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut out = T::default();
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &mut InfoAttr {
            bpf_fd: fd.as_raw_fd() as u32,
            info_len: size_of::<T>() as u32,
            info: std::ptr::from_mut(&mut out) as u64,
        },
    )?;
    Ok(out)
}

pub fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(fd)
}

pub fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(fd)
}

pub fn cgroup_link_info(fd: BorrowedFd<'_>) -> io::Result<CgroupLinkInfo> {
    info(fd)
}
