//! The attachments of this node: what the verbs and the agent share.
//!
//! Taking one down goes through the journal: it is marked, ENDPOINTS forgets its addresses (no
//! packet is taken for it any more), the link goes with its programs, and only then are its
//! addresses free. Killed anywhere, the mark and the free lock of the attachment let the next one who holds
//! the journal finish.

use std::{collections::HashMap, io, net::IpAddr, path::PathBuf};

use crate::{
    attachment::{Attachment, Key, Phase},
    ipam::{
        state::State,
        store::{AttachmentLock, Locked, Store, StoreError, Watch},
    },
    kernel::{
        attach::{self, AttachError, Endpoints, Programs, Renewal},
        netlink::Netlink,
        wire::{self, PodLink, WireError},
    },
    node::{NodeConfig, Paths},
    rebuild::{self, Evidence, Sandbox, Unnamed},
};

#[derive(Debug, thiserror::Error)]
pub enum AttachmentsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("opening a netlink socket: {0}")]
    Netlink(io::Error),
    #[error("taking down {key}: {errors}")]
    TakeDown { key: Key, errors: String },
    #[error("repairing: {0}")]
    Repair(String),
    #[error(
        "the journal knows less than the kernel of pods that run here ({}): it was lost, or replaced by an older one; nothing was changed. rhumb-agent makes it anew: start the agent on this node, or look at its log",
        shown(.0)
    )]
    Behind(Vec<Key>),
    #[error("only the container runtime knows whose the attachments {} are", shown(.0))]
    Unnamed(Vec<Key>),
}

fn shown(keys: &[Key]) -> String {
    let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
    keys.join(", ")
}

impl AttachmentsError {
    /// Whether the journal is not to be gone by until [`Attachments::recover`] has mended it.
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            AttachmentsError::Store(StoreError::Damaged { .. })
                | AttachmentsError::Behind(_)
                | AttachmentsError::Unnamed(_)
        )
    }
}

/// What a deletion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// It was not there: as good as deleted.
    Absent,
    /// It has changed since the decision; nothing was done.
    Moved,
    /// A plugin process works on it; nothing was done.
    Busy,
}

/// What a recovery did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Attachments that the journal holds now.
    pub attachments: usize,
    /// Where the damaged journal is kept.
    pub kept: Option<PathBuf>,
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// ENDPOINTS entries written anew.
    pub written: usize,
    /// ENDPOINTS entries of no attachment, deleted.
    pub removed: usize,
    /// Pods whose programs were of another load, and were replaced.
    pub replaced: usize,
    /// Host-side veths that got their programs back.
    pub reattached: Vec<String>,
    /// Pins of earlier builds' tcx links, removed.
    pub old_links: usize,
    /// Attachments whose host-side veth is gone: their pods have no network until they restart.
    pub without_link: Vec<Key>,
}

#[derive(Clone, Debug)]
pub struct Attachments {
    paths: Paths,
    store: Store,
}

impl Attachments {
    pub fn open(paths: &Paths) -> Result<Attachments, StoreError> {
        Ok(Attachments {
            paths: paths.clone(),
            store: Store::open(paths.ipam_dir())?,
        })
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The pods' attachments, with the journal's revision. Takes no lock.
    pub fn list(&self) -> Result<(u64, Vec<Attachment>), StoreError> {
        let state = self.store.snapshot()?;
        Ok((state.revision, attached(state)))
    }

    /// Tells of changes from now on; list after having got it.
    pub fn watch(&self) -> Result<Watch, StoreError> {
        self.store.watch()
    }

    /// The right to change pods' programs and ENDPOINTS; waits for it. While it is held no pod is
    /// attached: be short.
    pub fn lock(&self) -> Result<Locked, StoreError> {
        self.store.lock()
    }

    /// Takes an attachment down that was decided to be gone when it had `revision` (of the
    /// attachment, not of the journal).
    pub fn delete(&self, key: &Key, revision: u64) -> Result<Deletion, AttachmentsError> {
        let Some(own) = self.store.try_lock_attachment(key)? else {
            return Ok(Deletion::Busy);
        };
        let locked = self.store.lock()?;
        match locked.get(key) {
            None => Ok(Deletion::Absent),
            Some(a) if a.revision != revision => Ok(Deletion::Moved),
            Some(_) => {
                self.take_down(&own, locked, key)?;
                Ok(Deletion::Deleted)
            }
        }
    }

    /// Makes ENDPOINTS and the programs of pods what the journal and the pins say. For the agent,
    /// after it has made its maps and programs: this is how pods get a new build's programs, and how
    /// they are mended after the loss of the bpf file system. Goes on past failures, and fails with
    /// all of them. A journal that doesn't know what runs here is nothing to repair by: see
    /// [`AttachmentsError::is_loss`].
    pub fn repair(&self) -> Result<Repair, AttachmentsError> {
        let mut locked = self.store.lock()?;
        let mut endpoints = Endpoints::open(&self.paths)?;
        let programs = Programs::open(&self.paths)?;
        let mut netlink = Netlink::open().map_err(AttachmentsError::Netlink)?;
        let links = pod_links(&mut netlink)?;
        let behind = rebuild::behind(locked.state(), &links, &endpoints.all()?);
        if !behind.is_empty() {
            return Err(AttachmentsError::Behind(behind));
        }
        self.sweep(&mut locked, None)?;
        let mut repair = Repair::default();
        let mut errors = Errors::default();
        for a in locked.state().attachments.values() {
            // What is under way is wired by its own process.
            if a.phase == Phase::Attached {
                let mut tools = (&mut endpoints, &programs, &mut netlink);
                errors.note(repair_one(&locked, &mut tools, a, &mut repair));
            }
        }
        for (ip, _) in endpoints.all()? {
            let held = |a: &Attachment| a.ips.contains(&ip);
            if !locked.state().attachments.values().any(held) {
                errors.note(endpoints.remove(&locked, ip));
                repair.removed += 1;
            }
        }
        if !errors.0.is_empty() {
            return Err(AttachmentsError::Repair(errors.0.join("; ")));
        }
        repair.old_links = attach::remove_old_links(&locked, &self.paths)?;
        Ok(repair)
    }

    /// Makes a damaged or lost journal anew, from the kernel and what can be read of it; `None`: by now it is
    /// neither. `pods` are the runtime's; without them it may fail with [`AttachmentsError::Unnamed`].
    pub fn recover(
        &self,
        network: &str,
        pods: Option<&HashMap<String, Sandbox>>,
    ) -> Result<Option<Recovery>, AttachmentsError> {
        let damaged = self.store.lock_damaged()?;
        let locked = match &damaged {
            Some(_) => None,
            None => Some(self.store.lock()?),
        };
        // Under the lock: nobody changes any of it.
        let mut netlink = Netlink::open().map_err(AttachmentsError::Netlink)?;
        let evidence = Evidence {
            links: &pod_links(&mut netlink)?,
            entries: &Endpoints::open(&self.paths)?.all()?,
            // Without it the attachments' own addresses have to do for CIDRs.
            cidrs: &NodeConfig::read(&self.paths.node_json()).map_or(vec![], |node| node.pod_cidrs),
            network,
            pods,
        };
        let rebuild = |left| {
            rebuild::rebuild(left, evidence)
                .map_err(|Unnamed(keys)| AttachmentsError::Unnamed(keys))
        };
        if let Some(damaged) = damaged {
            let state = rebuild(damaged.salvage())?;
            return Ok(Some(Recovery {
                attachments: state.attachments.len(),
                kept: Some(damaged.replace(state)?),
            }));
        }
        let behind = |locked: &Locked| {
            let state = locked.state();
            !rebuild::behind(state, evidence.links, evidence.entries).is_empty()
        };
        let Some(mut locked) = locked.filter(behind) else {
            return Ok(None);
        };
        let state = rebuild(locked.state().clone())?;
        let attachments = state.attachments.len();
        locked.replace(state)?;
        Ok(Some(Recovery {
            attachments,
            kept: None,
        }))
    }

    /// Takes an attachment down, or what is left of it. The caller holds its lock and the
    /// journal's; the latter is let go while the kernel unregisters the link, which takes long.
    /// Goes on past failures, and fails with all of them.
    pub fn take_down(
        &self,
        _own: &AttachmentLock,
        mut locked: Locked,
        key: &Key,
    ) -> Result<(), AttachmentsError> {
        let mut errors = Errors::default();
        self.forget_addresses(&mut locked, key, &mut errors);
        drop(locked);
        self.delete_link(key, &mut errors);
        let mut locked = self.store.lock()?;
        self.finish(&mut locked, key, errors)
    }

    fn forget_addresses(&self, locked: &mut Locked, key: &Key, errors: &mut Errors) {
        let entry = locked.get(key).cloned();
        if let Some(a) = entry.clone().filter(|a| a.phase != Phase::Deleting) {
            let phase = Phase::Deleting;
            errors.note(locked.put(Attachment { phase, ..a }));
        }
        let mut endpoints = match Endpoints::open(&self.paths) {
            Ok(endpoints) => endpoints,
            // No maps, no entries.
            Err(AttachError::NotLoaded(_)) => return,
            Err(e) => return errors.note::<(), _>(Err(e)),
        };
        let ips = match entry {
            Some(a) => a.ips,
            // The journal was lost: entries are told by the interface.
            None => self.addresses_by_link(&endpoints, key, errors),
        };
        for ip in ips {
            match self.is_anothers(&endpoints, key, ip) {
                Ok(true) => {}
                Ok(false) => errors.note(endpoints.remove(locked, ip)),
                Err(e) => errors.note::<(), _>(Err(e)),
            }
        }
    }

    /// Whether an address is by now of another pod's interface, whatever the journal says.
    fn is_anothers(
        &self,
        endpoints: &Endpoints,
        key: &Key,
        ip: IpAddr,
    ) -> Result<bool, AttachmentsError> {
        let Some(entry) = endpoints.get(ip)? else {
            return Ok(false);
        };
        let mut netlink = Netlink::open().map_err(AttachmentsError::Netlink)?;
        let name = key.host_ifname();
        let own = netlink.link(&name).map_err(AttachmentsError::Netlink)?;
        if own.is_some_and(|l| l.header.index == entry.ifindex) {
            return Ok(false);
        }
        let links = pod_links(&mut netlink)?;
        Ok(links
            .iter()
            .any(|l| l.ifindex == entry.ifindex && l.name != name))
    }

    fn addresses_by_link(
        &self,
        endpoints: &Endpoints,
        key: &Key,
        errors: &mut Errors,
    ) -> Vec<IpAddr> {
        let link = Netlink::open().and_then(|mut nl| nl.link(&key.host_ifname()));
        let Ok(Some(link)) = link else {
            return vec![];
        };
        let all = errors.take(endpoints.all()).unwrap_or_default();
        all.into_iter()
            .filter(|(_, e)| e.ifindex == link.header.index)
            .map(|(ip, _)| ip)
            .collect()
    }

    fn delete_link(&self, key: &Key, errors: &mut Errors) {
        if let Some(mut nl) = errors.take(Netlink::open().map_err(AttachmentsError::Netlink)) {
            errors.note(wire::delete(&mut nl, &key.host_ifname()));
        }
    }

    fn finish(
        &self,
        locked: &mut Locked,
        key: &Key,
        mut errors: Errors,
    ) -> Result<(), AttachmentsError> {
        // As long as something may be left, so are the addresses.
        if errors.0.is_empty() {
            errors.note(locked.remove(key));
        }
        match errors.0.is_empty() {
            true => Ok(()),
            false => Err(AttachmentsError::TakeDown {
                key: key.clone(),
                errors: errors.0.join("; "),
            }),
        }
    }

    /// Finishes what processes that are gone have left unfinished. `own` is the caller's.
    pub fn sweep(&self, locked: &mut Locked, own: Option<&Key>) -> Result<(), AttachmentsError> {
        let unfinished: Vec<Key> = locked
            .state()
            .attachments
            .iter()
            .filter(|(key, a)| a.phase != Phase::Attached && Some(*key) != own)
            .map(|(key, _)| key.clone())
            .collect();
        for key in unfinished {
            let Some(_lock) = self.store.try_lock_attachment(&key)? else {
                continue;
            };
            self.refuse_if_behind(locked, &key)?;
            self.take_down_locked(locked, &key);
        }
        Ok(())
    }

    /// What a lost record has finished is not unfinished.
    fn refuse_if_behind(&self, locked: &Locked, key: &Key) -> Result<(), AttachmentsError> {
        let Some(a) = locked.get(key) else {
            return Ok(());
        };
        let endpoints = match Endpoints::open(&self.paths) {
            Ok(endpoints) => endpoints,
            Err(AttachError::NotLoaded(_)) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        for ip in &a.ips {
            let newer = endpoints.get(*ip)?.is_some_and(|e| e.revision > a.revision);
            if newer && !self.is_anothers(&endpoints, key, *ip)? {
                return Err(AttachmentsError::Behind(vec![key.clone()]));
            }
        }
        Ok(())
    }

    /// Frees attachments whose host-side veth is gone: they can't be any running pod's. Asked
    /// when addresses run out, since a runtime that crashed may never have called DEL.
    pub fn reclaim(&self, locked: &mut Locked) -> Result<usize, AttachmentsError> {
        let mut netlink = Netlink::open().map_err(AttachmentsError::Netlink)?;
        let mut freed = 0;
        let all: Vec<Attachment> = locked.state().attachments.values().cloned().collect();
        for a in all.into_iter().filter(|a| a.phase == Phase::Attached) {
            let alive = match netlink.link(&a.host_ifname) {
                Ok(link) => link.is_some_and(|l| l.header.index == a.ifindex),
                // Not knowing is no proof.
                Err(_) => true,
            };
            if alive {
                continue;
            }
            if let Some(_lock) = self.store.try_lock_attachment(&a.key())? {
                freed += usize::from(self.take_down_locked(locked, &a.key()));
            }
        }
        Ok(freed)
    }

    /// All of it under the journal's lock; what fails stays for the next one, and is told.
    fn take_down_locked(&self, locked: &mut Locked, key: &Key) -> bool {
        let mut errors = Errors::default();
        self.forget_addresses(locked, key, &mut errors);
        self.delete_link(key, &mut errors);
        match self.finish(locked, key, errors) {
            Ok(()) => true,
            Err(e) => {
                eprintln!("rhumb-cni: {e}");
                false
            }
        }
    }
}

fn pod_links(netlink: &mut Netlink) -> Result<Vec<PodLink>, AttachmentsError> {
    wire::pod_links(netlink).map_err(|source| {
        AttachmentsError::Wire(WireError {
            what: "listing the interfaces of pods".into(),
            source,
        })
    })
}

fn repair_one(
    locked: &Locked,
    (endpoints, programs, netlink): &mut (&mut Endpoints, &Programs, &mut Netlink),
    a: &Attachment,
    repair: &mut Repair,
) -> Result<(), AttachmentsError> {
    let entry = attach::endpoint(a);
    for ip in &a.ips {
        if endpoints.get(*ip)? != Some(entry) {
            endpoints.put(locked, *ip, entry)?;
            repair.written += 1;
        }
    }
    let link = netlink.link(&a.host_ifname).map_err(|source| WireError {
        what: format!("looking up {}", a.host_ifname),
        source,
    })?;
    if link.is_none_or(|l| l.header.index != a.ifindex) {
        repair.without_link.push(a.key());
        return Ok(());
    }
    match programs.renew(locked, netlink, a)? {
        Renewal::Current => {}
        Renewal::Replaced => repair.replaced += 1,
        Renewal::Attached => repair.reattached.push(a.host_ifname.clone()),
    }
    Ok(())
}

fn attached(state: State) -> Vec<Attachment> {
    let all = state.attachments.into_values();
    all.filter(|a| a.phase == Phase::Attached).collect()
}

#[derive(Default)]
struct Errors(Vec<String>);

impl Errors {
    fn take<T, E: std::fmt::Display>(&mut self, r: Result<T, E>) -> Option<T> {
        match r {
            Ok(v) => Some(v),
            Err(e) => {
                self.0.push(e.to_string());
                None
            }
        }
    }

    fn note<T, E: std::fmt::Display>(&mut self, r: Result<T, E>) {
        self.take(r);
    }
}
