//! Secrets at rest: their values are encrypted before they reach the store, and decrypted on the way
//! out. The rest of the server never sees a difference.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rhumb_store::{
    Change, Condition, Event, KeyValue, ListRequest, ListResponse, Outcome, Result, Revision,
    Store, StoreError, Watch, Write,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

use crate::pki::PkiError;
use crate::pki::files;

/// Begins every encrypted value. JSON never does.
const MAGIC: &[u8] = b"\0rhumb:aes256gcm:1\0";
const KEY: usize = 32;
const ID: usize = 8;

/// Keys of Secrets in the store begin so.
pub const SECRETS: &str = "core/secrets/";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    File(#[from] PkiError),
    #[error(
        "{}, line {line}: not a key: each line is the base64 of {KEY} random bytes (head -c {KEY} /dev/urandom | base64)",
        path.display()
    )]
    Malformed { path: PathBuf, line: usize },
    #[error(
        "{}: holds no key; put the cluster's back, or add a line (head -c {KEY} /dev/urandom | base64)",
        path.display()
    )]
    Empty { path: PathBuf },
}

struct Key {
    /// Names the key in what it encrypted.
    id: [u8; ID],
    aead: LessSafeKey,
}

impl Key {
    fn new(bytes: &[u8]) -> Option<Key> {
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?);
        let id = *Sha256::digest(bytes).first_chunk::<ID>()?;
        Some(Key { id, aead })
    }
}

/// The keys: the first encrypts, any decrypts.
pub struct Keys(Vec<Key>);

impl Keys {
    /// Reads the file of keys, which is made on first start.
    pub fn open(path: &Path) -> Result<Keys, KeyError> {
        let text = match files::read(path)? {
            Some(text) => text,
            None => {
                let text = format!("{}\n", STANDARD.encode(rand::random::<[u8; KEY]>()));
                files::write_private(path, &text)?;
                text
            }
        };
        Keys::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Keys, KeyError> {
        let mut keys = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = STANDARD.decode(line).unwrap_or_default();
            keys.push(Key::new(&bytes).ok_or_else(|| KeyError::Malformed {
                path: path.to_owned(),
                line: i + 1,
            })?);
        }
        if keys.is_empty() {
            return Err(KeyError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Keys(keys))
    }

    /// The store's key is part of what is authenticated: a value can't be moved to another name.
    fn seal(&self, key: &[u8], value: &[u8]) -> Result<Bytes> {
        let first = &self.0[0];
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = value.to_vec();
        first
            .aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(key),
                &mut sealed,
            )
            .map_err(|_| unreadable(key, "encrypting failed"))?;
        Ok([MAGIC, &first.id, &nonce, &sealed].concat().into())
    }

    /// What was written before there was encryption is as it was.
    fn unseal(&self, key: &[u8], value: Bytes) -> Result<Bytes> {
        let Some(rest) = value.strip_prefix(MAGIC) else {
            return Ok(value);
        };
        let parts = rest.split_first_chunk::<ID>().and_then(|(id, rest)| {
            let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
            Some((id, nonce, sealed))
        });
        let (id, nonce, sealed) = parts.ok_or_else(|| unreadable(key, "it is cut short"))?;
        let found = self.0.iter().find(|k| k.id == *id).ok_or_else(|| {
            unreadable(
                key,
                "it is encrypted with a key that the file of keys does not hold; put that key back",
            )
        })?;
        let mut plain = sealed.to_vec();
        let length = found
            .aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(key),
                &mut plain,
            )
            .map_err(|_| unreadable(key, "it was changed since it was encrypted"))?
            .len();
        plain.truncate(length);
        Ok(plain.into())
    }

    /// Whether a value is as the first key writes it.
    fn is_current(&self, value: &[u8]) -> bool {
        value
            .strip_prefix(MAGIC)
            .is_some_and(|rest| rest.starts_with(&self.0[0].id))
    }
}

fn unreadable(key: &[u8], what: &'static str) -> StoreError {
    StoreError::Unreadable {
        key: String::from_utf8_lossy(key).into_owned(),
        what,
    }
}

/// A store whose values below a prefix are encrypted.
pub struct Sealed {
    inner: Arc<dyn Store>,
    shared: Arc<Shared>,
}

struct Shared {
    prefix: &'static [u8],
    keys: Keys,
}

impl Shared {
    fn covers(&self, key: &[u8]) -> bool {
        key.starts_with(self.prefix)
    }

    fn opened(&self, kv: KeyValue) -> Result<KeyValue> {
        if !self.covers(&kv.key) {
            return Ok(kv);
        }
        let value = self.keys.unseal(&kv.key, kv.value)?;
        Ok(KeyValue { value, ..kv })
    }
}

impl Sealed {
    pub fn new(inner: Arc<dyn Store>, prefix: &'static str, keys: Keys) -> Sealed {
        let prefix = prefix.as_bytes();
        Sealed {
            inner,
            shared: Arc::new(Shared { prefix, keys }),
        }
    }

    /// Encrypts anew what is not encrypted with the first key; gives how many values that were.
    pub async fn renew(&self) -> Result<usize> {
        let request = ListRequest {
            prefix: Bytes::from_static(self.shared.prefix),
            ..ListRequest::default()
        };
        let mut renewed = 0;
        for kv in self.inner.list(request).await?.items {
            if self.shared.keys.is_current(&kv.value) {
                continue;
            }
            let condition = Condition::ModRevision(kv.mod_revision);
            let kv = self.shared.opened(kv)?;
            let change = Change::Put {
                value: kv.value,
                ttl: None,
            };
            let key = kv.key;
            let outcome = self.write(Write {
                key,
                condition,
                change,
            });
            if matches!(outcome.await?, Outcome::Committed(_)) {
                renewed += 1;
            }
        }
        Ok(renewed)
    }
}

#[async_trait]
impl Store for Sealed {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn oldest(&self) -> Revision {
        self.inner.oldest()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        let found = self.inner.get(key).await?;
        found.map(|kv| self.shared.opened(kv)).transpose()
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse> {
        let mut list = self.inner.list(request).await?;
        list.items = list
            .items
            .into_iter()
            .map(|kv| self.shared.opened(kv))
            .collect::<Result<_>>()?;
        Ok(list)
    }

    async fn write(&self, mut write: Write) -> Result<Outcome> {
        if self.shared.covers(&write.key)
            && let Change::Put { value, .. } = &mut write.change
        {
            *value = self.shared.keys.seal(&write.key, value)?;
        }
        Ok(match self.inner.write(write).await? {
            Outcome::Conflict(Some(kv)) => Outcome::Conflict(Some(self.shared.opened(kv)?)),
            other => other,
        })
    }

    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<Box<dyn Watch>> {
        Ok(Box::new(SealedWatch {
            inner: self.inner.watch(prefix, after).await?,
            shared: self.shared.clone(),
        }))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn failure(&self) -> String {
        self.inner.failure().await
    }
}

struct SealedWatch {
    inner: Box<dyn Watch>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Watch for SealedWatch {
    async fn next(&mut self) -> Result<(Vec<Event>, Revision)> {
        let (mut events, reached) = self.inner.next().await?;
        for event in &mut events {
            if self.shared.covers(&event.key)
                && let Some(value) = event.value.take()
            {
                event.value = Some(self.shared.keys.unseal(&event.key, value)?);
            }
        }
        Ok((events, reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_store::{Embedded, Options};

    const SECRET: &[u8] = b"core/secrets/ns/s";

    fn keys(lines: &[&str]) -> Keys {
        let text: String = lines
            .iter()
            .map(|l| STANDARD.encode(Sha256::digest(l)) + "\n")
            .collect();
        Keys::parse(Path::new("keys"), &text).unwrap()
    }

    fn put(key: &'static [u8], condition: Condition, value: &'static [u8]) -> Write {
        Write {
            key: Bytes::from_static(key),
            condition,
            change: Change::Put {
                value: Bytes::from_static(value),
                ttl: None,
            },
        }
    }

    #[tokio::test]
    async fn secrets_are_encrypted_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let plain: Arc<dyn Store> =
            Arc::new(Embedded::open(&dir.path().join("s"), Options::default()).unwrap());
        let store = Sealed::new(plain.clone(), SECRETS, keys(&["a"]));
        let mut watch = store.watch(Bytes::new(), store.revision()).await.unwrap();
        let secret = put(SECRET, Condition::Absent, b"{\"password\":1}");
        store.write(secret.clone()).await.unwrap();
        let other = put(b"core/configmaps/ns/c", Condition::Absent, b"{\"plain\":1}");
        store.write(other).await.unwrap();

        let raw = plain.get(SECRET).await.unwrap().unwrap().value;
        assert!(raw.starts_with(MAGIC));
        assert!(!raw.windows(8).any(|w| w == b"password"));
        let kv = store.get(SECRET).await.unwrap().unwrap();
        assert_eq!(kv.value, "{\"password\":1}");
        let list = store.list(ListRequest::default()).await.unwrap().items;
        assert_eq!(list[0].value, "{\"plain\":1}");
        assert_eq!(list[1].value, "{\"password\":1}");
        let (events, _) = watch.next().await.unwrap();
        assert_eq!(events[0].value.as_deref(), Some(&b"{\"password\":1}"[..]));
        let Outcome::Conflict(Some(found)) = store.write(secret).await.unwrap() else {
            panic!("no conflict");
        };
        assert_eq!(found.value, "{\"password\":1}");

        // Another key first: the old one still reads, and what is renewed needs it no more.
        let rotated = Sealed::new(plain.clone(), SECRETS, keys(&["b", "a"]));
        assert_eq!(rotated.renew().await.unwrap(), 1);
        assert_eq!(rotated.renew().await.unwrap(), 0);
        let only = Sealed::new(plain.clone(), SECRETS, keys(&["b"]));
        assert_eq!(
            only.get(SECRET).await.unwrap().unwrap().value,
            "{\"password\":1}"
        );
        let gone = Sealed::new(plain, SECRETS, keys(&["a"]));
        let error = gone.get(SECRET).await.unwrap_err().to_string();
        assert!(error.contains("put that key back"), "{error}");
    }

    #[tokio::test]
    async fn what_was_plain_is_read_and_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let plain: Arc<dyn Store> =
            Arc::new(Embedded::open(&dir.path().join("s"), Options::default()).unwrap());
        plain
            .write(put(SECRET, Condition::Absent, b"{}"))
            .await
            .unwrap();
        let store = Sealed::new(plain.clone(), SECRETS, keys(&["a"]));
        assert_eq!(store.get(SECRET).await.unwrap().unwrap().value, "{}");
        assert_eq!(store.renew().await.unwrap(), 1);
        assert!(
            plain
                .get(SECRET)
                .await
                .unwrap()
                .unwrap()
                .value
                .starts_with(MAGIC)
        );
    }

    #[test]
    fn values_keep_to_their_key_and_are_whole() {
        let keys = keys(&["a"]);
        let sealed = keys.seal(b"x", b"value").unwrap();
        assert_eq!(keys.unseal(b"x", sealed.clone()).unwrap(), "value");
        assert!(keys.unseal(b"y", sealed.clone()).is_err());
        let mut changed = sealed.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert!(keys.unseal(b"x", changed.into()).is_err());
        assert!(keys.unseal(b"x", sealed.slice(..MAGIC.len() + 3)).is_err());
        assert_ne!(keys.seal(b"x", b"value").unwrap(), sealed);
    }

    #[test]
    fn files_of_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let made = Keys::open(&path).unwrap();
        assert_eq!(Keys::open(&path).unwrap().0[0].id, made.0[0].id);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (text, says) in [("c2hvcnQ=\n", "line 1"), ("# none\n\n", "holds no key")] {
            std::fs::write(&path, text).unwrap();
            let error = Keys::open(&path).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn no_changed_value_opens() {
        let file = format!("{}\n", STANDARD.encode([7; KEY]));
        let keys = Keys::parse(Path::new("f"), &file).unwrap();
        let sealed = keys.seal(b"secrets/a/b", b"value").unwrap();
        rhumb_fuzz::run("sealed", 3000, |dice| {
            let changed = Bytes::from(rhumb_fuzz::bytes(&sealed, &[], dice));
            // Without the magic it is a value from before there was encryption.
            let plain = !changed.starts_with(MAGIC);
            let same = changed == sealed;
            let opened = keys.unseal(b"secrets/a/b", changed.clone());
            match opened {
                Ok(value) if plain => assert_eq!(value, changed),
                Ok(_) => assert!(same),
                Err(_) => assert!(!same),
            }
            let text = rhumb_fuzz::bytes(file.as_bytes(), &["#", "\n"], dice);
            let _ = Keys::parse(Path::new("f"), &String::from_utf8_lossy(&text));
        });
    }
}
