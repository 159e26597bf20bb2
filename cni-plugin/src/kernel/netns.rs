//! A pod's network namespace.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};

/// `NS_GET_NSTYPE` of linux/nsfs.h.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
/// `SO_NETNS_COOKIE`, Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("the network namespace {} does not exist", .0.display())]
    Missing(PathBuf),
    #[error("CNI_NETNS {} is not a network namespace", .0.display())]
    NotOne(PathBuf),
    #[error("CNI_NETNS {} is the network namespace that the plugin itself runs in: a pod on the host's network gets no interface", .0.display())]
    Own(PathBuf),
    #[error("opening the network namespace {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    pub fn open(path: &Path) -> Result<Netns, NetnsError> {
        let open_error = |source: io::Error| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ESRCH) => NetnsError::Missing(path.into()),
            _ => NetnsError::Open {
                path: path.into(),
                source,
            },
        };
        let kind = std::fs::metadata(path).map_err(open_error)?;
        // A FIFO or a device must not be opened: it may block, or act.
        if !kind.is_file() {
            return Err(NetnsError::NotOne(path.into()));
        }
        let file = File::open(path).map_err(open_error)?;
        // SAFETY: an ioctl without argument; it fails on what is not a namespace.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
        if kind != libc::CLONE_NEWNET {
            return Err(NetnsError::NotOne(path.into()));
        }
        let id = |m: io::Result<std::fs::Metadata>| m.map(|m| (m.dev(), m.ino()));
        let own = id(std::fs::metadata("/proc/thread-self/ns/net")).map_err(open_error)?;
        if id(file.metadata()).map_err(open_error)? == own {
            return Err(NetnsError::Own(path.into()));
        }
        Ok(Netns { file })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `f` on a thread of its own inside the namespace. The caller's thread never leaves its.
    pub fn run<T: Send, E: Send + From<io::Error>>(
        &self,
        f: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                f()
            });
            thread.join().unwrap_or_else(|_| {
                Err(io::Error::other("the thread inside the pod's namespace panicked").into())
            })
        })
    }
}

/// Cookie of the calling thread's network namespace: never given twice in a boot.
pub fn cookie() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))
        .map(std::os::fd::OwnedFd::from)
        .or_else(|_| std::os::unix::net::UnixDatagram::unbound().map(Into::into))?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is as long as `len` says.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut len,
        )
    };
    match rc {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}
