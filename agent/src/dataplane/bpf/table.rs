//! A pinned hash, LPM trie or array of known key and value types.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::Pod;

use super::{Error, sys};

/// Below this many entries a batch is not worth its set-up.
const BATCH_MIN: usize = 16;
/// Entries a system call; bounds what the kernel copies at once.
const BATCH_MAX: usize = 4096;

#[derive(Debug)]
pub struct Table<K, V> {
    name: &'static str,
    fd: OwnedFd,
    max_entries: u32,
    _kv: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Opens the pin `<maps>/<name>` and checks that the map has the sizes of `K` and `V`.
    pub fn open(maps: &Path, name: &'static str) -> Result<Self, Error> {
        let path = maps.join(name);
        let fd = sys::obj_get(&path).map_err(|source| Error::OpenPin {
            path: path.clone(),
            source,
        })?;
        let info = sys::map_info(fd.as_fd()).map_err(|source| Error::OpenPin {
            path: path.clone(),
            source,
        })?;
        if info.key_size as usize != size_of::<K>() || info.value_size as usize != size_of::<V>() {
            return Err(Error::Layout {
                path,
                found: (info.key_size, info.value_size),
                expected: (size_of::<K>() as u32, size_of::<V>() as u32),
            });
        }
        Ok(Table {
            name,
            fd,
            max_entries: info.max_entries,
            _kv: PhantomData,
        })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    fn error(&self, op: &'static str, source: io::Error) -> Error {
        Error::Map {
            op,
            map: self.name,
            max_entries: self.max_entries,
            source,
        }
    }

    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        sys::lookup(self.fd.as_fd(), key).map_err(|e| self.error("read", e))
    }

    pub fn put(&self, key: &K, value: &V) -> Result<(), Error> {
        sys::update(self.fd.as_fd(), key, value).map_err(|e| self.error("write to", e))
    }

    /// Deleting what is absent is success; tells whether it was there.
    pub fn delete(&self, key: &K) -> Result<bool, Error> {
        sys::delete(self.fd.as_fd(), key).map_err(|e| self.error("delete from", e))
    }

    /// Writes all; by batches where that pays and the kernel has them for this kind of map.
    pub fn put_all(&self, entries: &[(K, V)]) -> Result<(), Error> {
        if entries.len() < BATCH_MIN {
            return entries.iter().try_for_each(|(k, v)| self.put(k, v));
        }
        for chunk in entries.chunks(BATCH_MAX) {
            let keys: Vec<K> = chunk.iter().map(|(k, _)| *k).collect();
            let values: Vec<V> = chunk.iter().map(|(_, v)| *v).collect();
            // Whatever refuses the batch (no such operation, one entry too many): one by one says
            // which, and repeats harmlessly what was written.
            if sys::update_batch(self.fd.as_fd(), &keys, &values).is_err() {
                chunk.iter().try_for_each(|(k, v)| self.put(k, v))?;
            }
        }
        Ok(())
    }

    /// All entries. What others change meanwhile may be missed or seen.
    pub fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let mut out = Vec::new();
        let mut key: Option<K> = None;
        // A key that is deleted under us restarts the kernel's walk of a hash at its beginning:
        // bounded, so that churn can't hold us here.
        let limit = 4 * self.max_entries as usize + 16;
        for _ in 0..limit {
            key =
                sys::next_key(self.fd.as_fd(), key.as_ref()).map_err(|e| self.error("walk", e))?;
            let Some(k) = &key else { break };
            if let Some(v) = self.get(k)? {
                out.push((*k, v));
            }
        }
        Ok(out)
    }
}

impl<V: Pod + Default> Table<u32, V> {
    /// One value a possible CPU, of a per-CPU array.
    pub fn get_percpu(&self, index: u32, cpus: usize) -> Result<Vec<V>, Error> {
        sys::lookup_percpu(self.fd.as_fd(), &index, cpus).map_err(|e| self.error("read", e))
    }
}
