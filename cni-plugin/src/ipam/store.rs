//! The journal's file, its lock, and the lock of each attachment.
//!
//! * The journal lock (`flock` on `<stateDir>/ipam/lock`) is held for moments: while the journal is
//!   read and appended to, and while ENDPOINTS or a pod's programs change.
//! * An attachment's lock (an open-file-description lock on a byte of the same file that its key
//!   hashes to) is held by a process for as long as it works on that attachment. The kernel drops
//!   it with the process, so an unfinished attachment whose lock is free has no owner any more.
//!   That holds across pid namespaces too, where pids could not be compared.
//!
//! Order: the attachment's lock first, then the journal's. Who holds the journal takes the locks
//! of attachments only if they are free.
//!
//! Records are not flushed to the disk one by one. A process that is killed loses nothing that it
//! wrote, and a machine that crashes loses every pod along with the last records: in another boot
//! the journal only says which addresses to reuse last. What a crash must not do is to leave a file
//! that can't be read, hence checksums, and `fsync` before a rename; a flush a record would cost
//! some 8 ms an ADD on an ordinary disk and buy nothing. Damage that a crash left in the middle is
//! told by its boot: a journal without a record of this boot is set aside, unless pods run.
//!
//! Damage while pods run is nobody's crash, but for a last record that was cut short: nothing is changed until
//! [`Damaged::replace`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
};

use super::{
    journal::{self, JournalError, Read},
    state::{Record, State, StateError},
};
use crate::{
    attachment::{Attachment, Key},
    kernel::wire,
};

/// A journal is rewritten as one snapshot when it is this long and more than twice the snapshot.
const COMPACT_AT: u64 = 128 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "the journal {} is {source}; nothing was changed. rhumb-agent makes it anew, from the kernel, the runtime and what can be read of it: start the agent on this node, or look at its log (without one, reboot the node)",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        source: Box<JournalError>,
    },
    #[error("the change would contradict the journal: {0}")]
    Contradiction(Box<StateError>),
    #[error("encoding a journal record: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("{} reads {got:?}, which is not a boot id", path.display())]
    BootId { path: PathBuf, got: String },
}

/// The directory `<stateDir>/ipam`.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    boot_id: String,
    /// Whether pods of ours run, asked where a journal can't be read.
    pods_run: fn() -> bool,
}

/// A journal that can't be read, under its lock: nobody changes anything until it is replaced.
#[derive(Debug)]
pub struct Damaged {
    path: PathBuf,
    data: Vec<u8>,
    boot_id: String,
    _lock: Flock<File>,
}

/// The exclusive right to change the journal, ENDPOINTS and the pods' programs. Drop ends it.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    file: File,
    len: u64,
    state: State,
    _lock: Flock<File>,
}

/// The exclusive right to work on one attachment. Drop, or the end of the process, ends it.
#[derive(Debug)]
pub struct AttachmentLock {
    _file: File,
}

impl Store {
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store, StoreError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = fs::read_to_string(path).map_err(|e| io_error("reading", path, e))?;
        let boot_id = text.trim();
        if boot_id.len() < 32 {
            return Err(StoreError::BootId {
                path: path.into(),
                got: text,
            });
        }
        Store::open_in_boot(dir, boot_id, wire::pods_run)
    }

    /// As if the machine had been booted as `boot_id`.
    pub fn open_in_boot(
        dir: impl Into<PathBuf>,
        boot_id: &str,
        pods_run: fn() -> bool,
    ) -> Result<Store, StoreError> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|e| io_error("making", &dir, e))?;
        Ok(Store {
            dir,
            boot_id: boot_id.to_owned(),
            pods_run,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn journal_path(&self) -> PathBuf {
        self.dir.join("journal")
    }

    fn open_lock_file(&self) -> Result<File, StoreError> {
        let path = self.dir.join("lock");
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io_error("opening", &path, e))
    }

    /// The state as of now, without a lock: a record that is being appended is not seen yet.
    /// Attachments of an earlier boot are left out, as the next [`Store::lock`] will free them.
    pub fn snapshot(&self) -> Result<State, StoreError> {
        let path = self.journal_path();
        let data = match fs::read(&path) {
            Ok(data) => data,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(e) => return Err(io_error("reading", &path, e)),
        };
        let mut state = match self.judge(&data) {
            Ok(read) => read.state,
            Err(_) if self.is_past(&data) => State::default(),
            Err(e) => {
                let source = Box::new(e);
                return Err(StoreError::Damaged { path, source });
            }
        };
        if state.boot_id != self.boot_id {
            state.attachments.clear();
        }
        Ok(state)
    }

    /// What a journal says, if it is sound, or its end is what a kill or a crash explains.
    fn judge(&self, data: &[u8]) -> Result<Read, JournalError> {
        let read = journal::decode(data)?;
        let tail = &data[read.good..];
        if tail.is_empty() || journal::is_cut_short(tail) || !(self.pods_run)() {
            return Ok(read);
        }
        Err(JournalError::End { at: read.good })
    }

    /// Whether a journal that can't be read is of an earlier boot: no pod runs that it knows.
    fn is_past(&self, data: &[u8]) -> bool {
        !journal::speaks_of(data, &self.boot_id) && !(self.pods_run)()
    }

    fn flock(&self) -> Result<Flock<File>, StoreError> {
        Flock::lock(self.open_lock_file()?, FlockArg::LockExclusive)
            .map_err(|(_, e)| io_error("locking", &self.dir.join("lock"), e.into()))
    }

    /// The journal under its lock, if it can't be read.
    pub fn lock_damaged(&self) -> Result<Option<Damaged>, StoreError> {
        let lock = self.flock()?;
        let path = self.journal_path();
        let data = match fs::read(&path) {
            Ok(data) => data,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("reading", &path, e)),
        };
        let damaged = self.judge(&data).is_err() && !self.is_past(&data);
        Ok(damaged.then(|| Damaged {
            path,
            data,
            boot_id: self.boot_id.clone(),
            _lock: lock,
        }))
    }

    /// Takes the journal lock (waiting for it), reads the journal, and mends what a crash left:
    /// an append that was cut short is cut off, and the attachments of an earlier boot are freed.
    pub fn lock(&self) -> Result<Locked, StoreError> {
        let lock = self.flock()?;
        let path = self.journal_path();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io_error("opening", &path, e))?;
        let mut data = Vec::new();
        file.read_to_end(&mut data)
            .map_err(|e| io_error("reading", &path, e))?;
        let read = match self.judge(&data) {
            Ok(read) => read,
            Err(e) if self.is_past(&data) => {
                let aside = path.with_extension("damaged");
                eprintln!(
                    "rhumb-cni: {} is {e}; it holds nothing of this boot, so no pod runs that it knows: keeping it as {}",
                    path.display(),
                    aside.display()
                );
                fs::write(&aside, &data).map_err(|e| io_error("writing", &aside, e))?;
                Read::default()
            }
            Err(e) => {
                let source = Box::new(e);
                return Err(StoreError::Damaged { path, source });
            }
        };
        if read.good < data.len() {
            eprintln!(
                "rhumb-cni: {}: cutting off {} bytes behind byte {}: an append was interrupted; the {} attachments before it are kept",
                path.display(),
                data.len() - read.good,
                read.good,
                read.state.attachments.len()
            );
            file.set_len(read.good as u64)
                .map_err(|e| io_error("truncating", &path, e))?;
        }
        let mut locked = Locked {
            path,
            file,
            len: read.good as u64,
            state: read.state,
            _lock: lock,
        };
        if locked.state.boot_id != self.boot_id {
            let boot_id = self.boot_id.clone();
            locked.append(|revision| Record::Boot { revision, boot_id })?;
        }
        Ok(locked)
    }

    /// Takes an attachment's lock, waiting for the process that works on it.
    pub fn lock_attachment(&self, key: &Key) -> Result<AttachmentLock, StoreError> {
        let file = self.open_lock_file()?;
        let range = byte_of(key);
        fcntl(&file, FcntlArg::F_OFD_SETLKW(&range))
            .map_err(|e| io_error("locking an attachment in", &self.dir.join("lock"), e.into()))?;
        Ok(AttachmentLock { _file: file })
    }

    /// Takes an attachment's lock if no process works on it.
    pub fn try_lock_attachment(&self, key: &Key) -> Result<Option<AttachmentLock>, StoreError> {
        let file = self.open_lock_file()?;
        let range = byte_of(key);
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&range)) {
            Ok(_) => Ok(Some(AttachmentLock { _file: file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(e) => Err(io_error(
                "locking an attachment in",
                &self.dir.join("lock"),
                e.into(),
            )),
        }
    }

    /// Tells of changes to the journal from now on.
    pub fn watch(&self) -> Result<Watch, StoreError> {
        Watch::new(&self.dir).map_err(|e| io_error("watching", &self.dir, e))
    }
}

fn byte_of(key: &Key) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        // 62 bits, so that start + length stays positive.
        l_start: (key.hash64() >> 2) as i64,
        l_len: 1,
        l_pid: 0,
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        what,
        path: path.into(),
        source,
    }
}

impl Damaged {
    /// What can be read of it; see [`journal::salvage`].
    pub fn salvage(&self) -> State {
        journal::salvage(&self.data)
    }

    /// Puts the damaged file aside, and a journal of this state in its place. Says where it is.
    pub fn replace(self, mut state: State) -> Result<PathBuf, StoreError> {
        state.boot_id.clone_from(&self.boot_id);
        let aside = self.path.with_extension("damaged");
        fs::write(&aside, &self.data).map_err(|e| io_error("writing", &aside, e))?;
        let bytes = journal::encode(&Record::Snapshot { state })?;
        write_new(&self.path, &bytes).map_err(|e| io_error("replacing", &self.path, e))?;
        Ok(aside)
    }
}

/// Replaces a file, atomically and on disk.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

impl Locked {
    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn get(&self, key: &Key) -> Option<&Attachment> {
        self.state.attachments.get(key)
    }

    /// Writes the attachment's new state; the revision is given here and returned.
    pub fn put(&mut self, mut attachment: Attachment) -> Result<Attachment, StoreError> {
        attachment.revision = self.state.revision + 1;
        let written = attachment.clone();
        self.append(|_| Record::Put { attachment })?;
        Ok(written)
    }

    /// Forgets the attachment and frees its addresses.
    pub fn remove(&mut self, key: &Key) -> Result<(), StoreError> {
        if self.state.attachments.contains_key(key) {
            let key = key.clone();
            self.append(|revision| Record::Remove { revision, key })?;
        }
        Ok(())
    }

    fn append(&mut self, record: impl FnOnce(u64) -> Record) -> Result<(), StoreError> {
        let record = record(self.state.revision + 1);
        let bytes = journal::encode(&record)?;
        // Checked on a copy: what would make the journal unreadable must not be written.
        let mut state = self.state.clone();
        state
            .apply(record)
            .map_err(|e| StoreError::Contradiction(Box::new(e)))?;
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(self.len))?;
            file.write_all(&bytes)
        };
        if let Err(e) = write(&mut self.file) {
            // Half a record (a full disk) would be cut off as a torn tail by the next reader; to
            // leave nothing is nicer, and failing at it changes nothing.
            let _ = self.file.set_len(self.len);
            return Err(io_error("appending to", &self.path, e));
        }
        self.len += bytes.len() as u64;
        self.state = state;
        if self.len > COMPACT_AT {
            self.compact()?;
        }
        Ok(())
    }

    /// Replaces the journal, atomically.
    pub fn replace(&mut self, state: State) -> Result<(), StoreError> {
        let bytes = journal::encode(&Record::Snapshot {
            state: state.clone(),
        })?;
        self.file =
            write_new(&self.path, &bytes).map_err(|e| io_error("replacing", &self.path, e))?;
        self.len = bytes.len() as u64;
        self.state = state;
        Ok(())
    }

    /// Replaces the journal by a snapshot, atomically, where that makes it much shorter.
    fn compact(&mut self) -> Result<(), StoreError> {
        let bytes = journal::encode(&Record::Snapshot {
            state: self.state.clone(),
        })?;
        if bytes.len() as u64 * 2 > self.len {
            return Ok(());
        }
        self.file =
            write_new(&self.path, &bytes).map_err(|e| io_error("compacting", &self.path, e))?;
        self.len = bytes.len() as u64;
        Ok(())
    }
}

/// An inotify descriptor that becomes readable when the journal has changed.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    fn new(dir: &Path) -> io::Result<Watch> {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: plain system calls; the descriptor is owned at once.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // The directory, since compaction replaces the file.
        let mask = libc::IN_MODIFY
            | libc::IN_MOVED_TO
            | libc::IN_CREATE
            | libc::IN_MOVED_FROM
            | libc::IN_DELETE;
        // SAFETY: `dir` is a valid C string for the call.
        match unsafe { libc::inotify_add_watch(fd.as_raw_fd(), dir.as_ptr(), mask) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Watch { fd }),
        }
    }

    /// Whether something has changed since the last call; waits for it up to `timeout`. An async
    /// caller polls the descriptor for reading instead, and calls this with no time out.
    pub fn changed(&self, timeout: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd.
        if unsafe { libc::poll(&mut poll, 1, ms) } < 0 {
            let e = io::Error::last_os_error();
            return match e.kind() {
                io::ErrorKind::Interrupted => Ok(false),
                _ => Err(e),
            };
        }
        let mut changed = false;
        let mut buf = [0; 4096];
        loop {
            match nix::unistd::read(&self.fd, &mut buf) {
                Ok(1..) => changed = true,
                Ok(0) | Err(Errno::EAGAIN) => return Ok(changed),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl std::os::fd::AsRawFd for Watch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

impl std::os::fd::AsFd for Watch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::state::tests::attachment;

    fn add(store: &Store, id: &str) -> Result<Attachment, StoreError> {
        let mut locked = store.lock()?;
        let ips = locked
            .state()
            .choose(&["10.0.0.0/24".parse().unwrap()], &[])
            .unwrap();
        let a = locked.put(attachment(id, &ips, 0))?;
        Ok(a)
    }

    #[test]
    fn survives_reopening_compaction_and_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_in_boot(dir.path(), "boot-1", || false).unwrap();
        assert!(store.snapshot().unwrap().attachments.is_empty());
        let kept = add(&store, "kept").unwrap();
        let mut before = 0;
        let mut compacted = false;
        for i in 0..400 {
            let key = add(&store, &format!("c{i}")).unwrap().key();
            let mut locked = store.lock().unwrap();
            locked.remove(&key).unwrap();
            drop(locked);
            let len = fs::metadata(store.journal_path()).unwrap().len();
            compacted |= len < before;
            before = len;
        }
        assert!(compacted && before < COMPACT_AT + 4096);
        let path = store.journal_path();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"RJ1\nhalf a rec").unwrap();
        assert_eq!(store.snapshot().unwrap().attachments.len(), 1);
        let locked = store.lock().unwrap();
        assert_eq!(locked.get(&kept.key()), Some(&kept));
        drop(locked);
        assert_eq!(fs::metadata(&path).unwrap().len(), before);
    }

    #[test]
    fn damage_in_the_middle_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_in_boot(dir.path(), "boot-1", || false).unwrap();
        for id in ["a", "b", "c"] {
            add(&store, id).unwrap();
        }
        let path = store.journal_path();
        let mut data = fs::read(&path).unwrap();
        data[200] ^= 1;
        fs::write(&path, &data).unwrap();
        let e = store.lock().unwrap_err().to_string();
        assert!(
            e.contains("damaged at byte") && e.contains("start the agent"),
            "{e}"
        );
        assert!(store.snapshot().is_err());
        assert_eq!(fs::read(&path).unwrap(), data);
        // After a crash of the machine nothing in it can matter any more.
        let second = Store::open_in_boot(dir.path(), "boot-2", || false).unwrap();
        assert!(second.snapshot().unwrap().attachments.is_empty());
        add(&second, "d").unwrap();
        assert_eq!(second.snapshot().unwrap().attachments.len(), 1);
        assert_eq!(fs::read(dir.path().join("journal.damaged")).unwrap(), data);
    }

    #[test]
    fn no_damage_is_passed_over_while_pods_run() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_in_boot(dir.path(), "boot-1", || true).unwrap();
        assert!(store.lock_damaged().unwrap().is_none());
        for id in ["a", "b"] {
            add(&store, id).unwrap();
        }
        assert!(store.lock_damaged().unwrap().is_none());
        let path = store.journal_path();
        let sound = fs::read(&path).unwrap();
        // The last record, the first, which tells the boot, and all of it.
        let last = [&sound[..sound.len() - 1], b"x"].concat();
        let first = [&[sound[0] ^ 1], &sound[1..]].concat();
        for (data, known) in [(last, 1), (first, 2), (b"rubbish".to_vec(), 0)] {
            fs::write(&path, &data).unwrap();
            assert!(matches!(store.lock(), Err(StoreError::Damaged { .. })));
            assert_eq!(fs::read(&path).unwrap(), data);
            let damaged = store.lock_damaged().unwrap().unwrap();
            let state = damaged.salvage();
            assert_eq!(state.attachments.len(), known);
            let kept = damaged.replace(state.clone()).unwrap();
            assert_eq!(fs::read(kept).unwrap(), data);
            let now = store.lock().unwrap();
            assert_eq!(now.state().attachments, state.attachments);
        }
    }

    #[test]
    fn another_boot_frees_what_the_former_held() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open_in_boot(dir.path(), "boot-1", || false).unwrap();
        let a = add(&first, "a").unwrap();
        let second = Store::open_in_boot(dir.path(), "boot-2", || false).unwrap();
        assert!(second.snapshot().unwrap().attachments.is_empty());
        let b = add(&second, "b").unwrap();
        assert_ne!(a.ips, b.ips);
        let state = second.snapshot().unwrap();
        assert_eq!(state.attachments.len(), 1);
        assert_eq!(state.released, a.ips);
        assert!(b.revision > a.revision);
    }

    #[test]
    fn an_attachment_lock_is_exclusive_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_in_boot(dir.path(), "boot-1", || false).unwrap();
        let (a, b) = (Key::new("a", "eth0"), Key::new("b", "eth0"));
        let held = store.lock_attachment(&a).unwrap();
        assert!(store.try_lock_attachment(&a).unwrap().is_none());
        assert!(store.try_lock_attachment(&b).unwrap().is_some());
        // The journal's lock is another kind of lock on the same file.
        drop(store.lock().unwrap());
        drop(held);
        assert!(store.try_lock_attachment(&a).unwrap().is_some());
    }

    #[test]
    fn a_watch_tells_of_appends() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_in_boot(dir.path(), "boot-1", || false).unwrap();
        let watch = store.watch().unwrap();
        assert!(!watch.changed(Duration::ZERO).unwrap());
        add(&store, "a").unwrap();
        assert!(watch.changed(Duration::from_secs(5)).unwrap());
        assert!(!watch.changed(Duration::ZERO).unwrap());
    }

    #[test]
    fn parallel_adds_get_distinct_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_in_boot(dir.path(), "boot-1", || false).unwrap();
        std::thread::scope(|s| {
            for t in 0..8 {
                let store = &store;
                s.spawn(move || {
                    for i in 0..20 {
                        add(store, &format!("t{t}-{i}")).unwrap();
                    }
                });
            }
        });
        // State::apply would have refused a double.
        assert_eq!(store.snapshot().unwrap().attachments.len(), 160);
    }
}
