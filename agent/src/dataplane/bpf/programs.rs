//! Programs and links: pinned, replaced one link at a time, never detached on the way. The programs
//! of pods hang on filters, which the plugin's library replaces (`Attachments::repair`).

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr, Program, ProgramFd, SchedClassifier, TcAttachType,
        links::FdLink, tc::TcAttachOptions,
    },
    util::KernelVersion,
};
use netlink_packet_route::link::LinkAttribute;
use rhumb_cni::kernel::{
    filter::{self, Direction},
    netlink::Netlink,
};
use rhumb_common::maps::name;

use super::{Error, sys};

/// The tc programs, in the order in which they are loaded.
const TC: [&str; 3] = [name::FROM_POD, name::TO_POD, name::FROM_UPLINK];

/// How the uplink's program hangs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// A pinned link: nobody takes it away by mistake, and it goes with its pin.
    Tcx,
    /// A filter, where the kernel has no tcx (before Linux 6.6).
    Filter,
}

impl Hang {
    pub fn of_this_kernel() -> Hang {
        match KernelVersion::current() {
            Ok(v) if v < KernelVersion::new(6, 6, 0) => Hang::Filter,
            _ => Hang::Tcx,
        }
    }
}

/// What a pinned link must run, by its name. Links of pods, which earlier builds pinned here too,
/// keep their program until filters stand in their place and they go (`Attachments::repair`).
fn program_of_link(link: &str) -> Option<&'static str> {
    let all = name::SOCK_ADDR.into_iter().chain([name::FROM_UPLINK]);
    all.into_iter().find(|p| *p == link)
}

pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), Error> {
    for name in TC {
        let program: &mut SchedClassifier = typed(ebpf, name)?;
        program.load().map_err(|source| Error::Load {
            name,
            source: Box::new(source),
        })?;
    }
    for name in name::SOCK_ADDR {
        let program: &mut CgroupSockAddr = typed(ebpf, name)?;
        program.load().map_err(|source| Error::Load {
            name,
            source: Box::new(source),
        })?;
    }
    Ok(())
}

fn typed<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|p| p.try_into().ok())
        .ok_or(Error::MissingProgram { name })
}

fn program_fd<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a ProgramFd, Error> {
    ebpf.program(name)
        .ok_or(Error::MissingProgram { name })?
        .fd()
        .map_err(|source| Error::Load {
            name,
            source: Box::new(source),
        })
}

/// Pins every program under its name in `progs`, atomically in place of an older one.
pub(super) fn pin_all(ebpf: &Ebpf, progs: &Path) -> Result<(), Error> {
    for name in TC.into_iter().chain(name::SOCK_ADDR) {
        let fd = program_fd(ebpf, name)?;
        let path = progs.join(name);
        let new = progs.join(format!("{name}__new"));
        remove(&new)?;
        sys::obj_pin(fd.as_fd(), &new).map_err(|source| Error::Pin {
            path: new.clone(),
            source,
        })?;
        fs::rename(&new, &path).map_err(|source| Error::Pin { path, source })?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Unpin {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Gives every pinned link of ours the new program. A link whose interface or cgroup has gone
/// away is unpinned.
pub(super) fn replace_all(ebpf: &Ebpf, links: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(links).map_err(|source| Error::Open {
        path: links.to_owned(),
        source,
    })?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::Open {
            path: links.to_owned(),
            source,
        })?;
        let file_name = entry.file_name();
        let Some(program) = file_name.to_str().and_then(program_of_link) else {
            continue;
        };
        let path = entry.path();
        let link = match sys::obj_get(&path) {
            Ok(link) => link,
            // The plugin's DEL took it meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::OpenPin { path, source }),
        };
        match sys::link_update(link.as_fd(), program_fd(ebpf, program)?.as_fd()) {
            Ok(()) => {}
            // ENOLINK: what it was attached to is gone (the kernel keeps the link for its pin).
            Err(e) if e.raw_os_error() == Some(libc::ENOLINK) => remove(&path)?,
            Err(source) => return Err(Error::Replace { path, source }),
        }
    }
    Ok(())
}

fn pin_link(link: FdLink, path: &Path) -> Result<(), Error> {
    // Dropping the pinned link closes our descriptor; the pin keeps it attached.
    link.pin(path).map(drop).map_err(|error| Error::Pin {
        path: path.to_owned(),
        source: io::Error::other(error),
    })
}

fn ifindex(name: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(name).map_err(|e| Error::NoInterface {
        name: name.to_owned(),
        source: e.into(),
    })
}

/// `from_uplink` on the uplink's ingress. What hangs on another interface is taken away once the
/// new one stands.
pub(super) fn attach_uplink(
    ebpf: &mut Ebpf,
    links: &Path,
    uplink: &str,
    hang: Hang,
) -> Result<u32, Error> {
    match hang {
        Hang::Tcx => attach_uplink_link(ebpf, links, uplink),
        Hang::Filter => {
            let index = ifindex(uplink)?;
            let program = program_fd(ebpf, name::FROM_UPLINK)?;
            let hung = Netlink::open().and_then(|mut nl| {
                filter::make_hooks(&mut nl, index)?;
                let fd = program.as_fd();
                filter::put(&mut nl, index, Direction::Ingress, fd, name::FROM_UPLINK)?;
                remove_uplink_filters(&mut nl, Some(index))
            });
            hung.map_err(|source| Error::Filter {
                target: uplink.to_owned(),
                source,
            })?;
            Ok(index)
        }
    }
}

/// Takes our filters off every interface but `keep` and pods' (whose veths go with theirs).
fn remove_uplink_filters(nl: &mut Netlink, keep: Option<u32>) -> io::Result<()> {
    for link in nl.links()? {
        let of_pod = link
            .attributes
            .iter()
            .any(|a| matches!(a, LinkAttribute::IfAlias(alias) if alias.starts_with("rhumb:")));
        if !of_pod && Some(link.header.index) != keep {
            filter::remove(nl, link.header.index, Direction::Ingress)?;
        }
    }
    Ok(())
}

fn attach_uplink_link(ebpf: &mut Ebpf, links: &Path, uplink: &str) -> Result<u32, Error> {
    let index = ifindex(uplink)?;
    let path = links.join(name::FROM_UPLINK);
    match sys::obj_get(&path) {
        Ok(old) => {
            if sys::link_info(old.as_fd()).is_ok_and(|i| i.ifindex == index) {
                return Ok(index);
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::OpenPin { path, source }),
    }
    let program: &mut SchedClassifier = typed(ebpf, name::FROM_UPLINK)?;
    let attach = |source| Error::Attach {
        program: name::FROM_UPLINK,
        target: uplink.to_owned(),
        source: Box::new(source),
    };
    let id = program
        .attach_with_options(
            uplink,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(Default::default()),
        )
        .map_err(attach)?;
    let link = program.take_link(id).map_err(attach)?;
    let link: FdLink = link.try_into().map_err(|e| Error::Attach {
        program: name::FROM_UPLINK,
        target: uplink.to_owned(),
        source: Box::new(aya::programs::ProgramError::IOError(io::Error::other(e))),
    })?;
    remove(&path)?;
    pin_link(link, &path)?;
    Ok(index)
}

/// The socket hooks on the cgroup. A pinned link to another cgroup can't be told apart from user
/// space before Linux has `cgroup_id` in its info: the directory's id is compared.
pub(super) fn attach_cgroup(ebpf: &mut Ebpf, links: &Path, root: &Path) -> Result<(), Error> {
    let dir = fs::File::open(root).map_err(|source| Error::Open {
        path: root.to_owned(),
        source,
    })?;
    let id = cgroup_id(&dir).map_err(|source| Error::Open {
        path: root.to_owned(),
        source,
    })?;
    for name in name::SOCK_ADDR {
        let path = links.join(name);
        match sys::obj_get(&path) {
            Ok(old) => {
                if sys::cgroup_link_info(old.as_fd()).is_ok_and(|i| i.cgroup_id == id) {
                    continue;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::OpenPin { path, source }),
        }
        let program: &mut CgroupSockAddr = typed(ebpf, name)?;
        let attach = |source| Error::Attach {
            program: name,
            target: root.display().to_string(),
            source: Box::new(source),
        };
        let link_id = program
            .attach(&dir, CgroupAttachMode::Single)
            .map_err(attach)?;
        let link = program.take_link(link_id).map_err(attach)?;
        let link: FdLink = link.try_into().map_err(|e| Error::Attach {
            program: name,
            target: root.display().to_string(),
            source: Box::new(aya::programs::ProgramError::IOError(io::Error::other(e))),
        })?;
        remove(&path)?;
        pin_link(link, &path)?;
    }
    Ok(())
}

/// The id that `bpf_link_info` shows: the inode number of the cgroup's directory.
fn cgroup_id(dir: &fs::File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(dir.metadata()?.ino())
}

/// Detaches everything: programs of links, then pins.
pub(super) fn remove_all(bpf_dir: &Path) -> Result<(), Error> {
    Netlink::open()
        .and_then(|mut nl| remove_uplink_filters(&mut nl, None))
        .map_err(|source| Error::Filter {
            target: "interfaces".to_owned(),
            source,
        })?;
    for sub in ["links", "progs", "maps"] {
        let dir = bpf_dir.join(sub);
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        let paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        for path in paths {
            remove(&path)?;
        }
        fs::remove_dir(&dir).map_err(|source| Error::Unpin { path: dir, source })?;
    }
    match fs::remove_dir(bpf_dir) {
        Ok(()) => Ok(()),
        // Mounted there, or something foreign inside: not ours to take away.
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::ENOENT | libc::EBUSY | libc::ENOTEMPTY)
            ) =>
        {
            Ok(())
        }
        Err(source) => Err(Error::Unpin {
            path: bpf_dir.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_know_their_program() {
        assert_eq!(program_of_link("connect4"), Some("connect4"));
        assert_eq!(program_of_link("from_uplink"), Some("from_uplink"));
        assert_eq!(program_of_link("rh0123456789ab-ingress"), None);
        assert_eq!(program_of_link("eth0-ingress"), None);
        assert_eq!(program_of_link("stranger"), None);
    }
}
