//! An object as the store and the cache hold it: its JSON, and a small document for selectors.
//!
//! The stored bytes have no resourceVersion, because the store assigns it with the write. It is
//! spliced in as the first field of the metadata.

use std::sync::Arc;

use bytes::Bytes;
use rhumb_api::crd::Custom;
use rhumb_api::json;
use rhumb_api::registry::Kind;
use rhumb_store::{KeyValue, Revision};
use serde_json::{Map, Value};

const METADATA: &[u8] = br#""metadata":{"#;
const VERSION: &[u8] = br#""resourceVersion":""#;

#[derive(Debug)]
pub struct Object {
    /// Name within the kind, in the order of lists: `namespace/name`, `/name` without a namespace.
    key: Box<str>,
    pub revision: Revision,
    /// With resourceVersion.
    pub json: Box<[u8]>,
    /// Where the resourceVersion's digits begin.
    version_at: usize,
    /// Labels and selectable fields, at the paths where the whole object has them; as JSON, since
    /// a `Value` takes several times the memory and most objects are rarely asked. Name and namespace
    /// are in the key already.
    index: Box<str>,
}

#[derive(Debug, thiserror::Error)]
#[error("the stored value of {key} is not an object: {why}")]
pub struct BadObject {
    key: String,
    why: String,
}

/// The bytes to store. The object has passed `strategy`, so its metadata is not empty.
pub fn to_stored(object: &Value) -> Bytes {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata") {
        json::remove(metadata, "resourceVersion");
    }
    object.to_string().into()
}

/// `None` if the bytes have no metadata.
fn splice(stored: &[u8], revision: Revision) -> Option<(Vec<u8>, usize)> {
    // Ahead of metadata there are apiVersion and kind only, which can't contain this.
    let at = stored
        .windows(METADATA.len())
        .position(|window| window == METADATA)?
        + METADATA.len();
    let digits = revision.to_string();
    let mut out = Vec::with_capacity(stored.len() + VERSION.len() + digits.len() + 2);
    out.extend_from_slice(&stored[..at]);
    out.extend_from_slice(VERSION);
    let version_at = out.len();
    out.extend_from_slice(digits.as_bytes());
    out.push(b'"');
    if stored.get(at) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&stored[at..]);
    Some((out, version_at))
}

/// The whole object of a store entry, with its resourceVersion.
pub fn value_of(kv: &KeyValue) -> Result<Value, BadObject> {
    let bad = |why: String| BadObject {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        why,
    };
    let (json, _) =
        splice(&kv.value, kv.mod_revision).ok_or_else(|| bad("it has no metadata".into()))?;
    serde_json::from_slice(&json).map_err(|e| bad(e.to_string()))
}

impl Object {
    pub fn from_stored(kind: &Kind, kv: &KeyValue) -> Result<Object, BadObject> {
        let bad = |why: String| BadObject {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            why,
        };
        let (json, version_at) =
            splice(&kv.value, kv.mod_revision).ok_or_else(|| bad("it has no metadata".into()))?;
        let mut value: Value = serde_json::from_slice(&json).map_err(|e| bad(e.to_string()))?;
        let (mut json, mut version_at) = (json, version_at);
        if kind.as_custom().is_some() {
            // As the definition of now has it: it may be another than when this was written.
            let served = kind.from_store(value.clone());
            if served != value {
                let stored = to_stored(&served);
                (json, version_at) = splice(&stored, kv.mod_revision)
                    .ok_or_else(|| bad("it has no metadata".into()))?;
                value = served;
            }
        }
        let part = |path| json::text(&value, path);
        Ok(Object {
            key: key(part("metadata.namespace"), part("metadata.name")).into(),
            revision: kv.mod_revision,
            index: index(kind, &value).to_string().into(),
            json: json.into(),
            version_at,
        })
    }

    /// Labels and selectable fields.
    pub fn index(&self) -> Value {
        // Written by `from_stored`.
        let mut index: Value = serde_json::from_str(&self.index).unwrap_or_default();
        set(&mut index, "metadata.name", self.name().into());
        if !self.namespace().is_empty() {
            set(&mut index, "metadata.namespace", self.namespace().into());
        }
        index
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// "" for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.key
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or("", |(_, name)| name)
    }

    /// The same object at another revision: what a watch shows of a deletion.
    pub fn at_revision(&self, revision: Revision) -> Arc<Object> {
        let rest = self.json[self.version_at..]
            .iter()
            .position(|b| *b == b'"')
            .map_or(self.json.len(), |end| self.version_at + end);
        let mut json = Vec::with_capacity(self.json.len() + 4);
        json.extend_from_slice(&self.json[..self.version_at]);
        json.extend_from_slice(revision.to_string().as_bytes());
        json.extend_from_slice(&self.json[rest..]);
        Arc::new(Object {
            key: self.key.clone(),
            revision,
            json: json.into(),
            version_at: self.version_at,
            index: self.index.clone(),
        })
    }

    pub fn value(&self) -> Value {
        // Parsed once already, when it came in.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// What the object holds in memory.
    pub fn weight(&self) -> usize {
        self.json.len() + self.index.len() + self.key.len() + size_of::<Object>()
    }
}

/// The key of an object in lists.
pub fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Copies what selectors of the kind, or of a view of it, can ask for.
fn index(kind: &Kind, object: &Value) -> Value {
    let mut out = Value::Object(Map::new());
    let views = rhumb_api::registry::KINDS
        .iter()
        .filter(|k| k.storage() == kind);
    let paths = views.flat_map(|k| k.fields.iter().map(|field| &*field.path));
    let custom = kind.as_custom().into_iter().flat_map(Custom::indexed);
    let always = ["metadata.labels", "reportingComponent"];
    for path in always.into_iter().chain(paths).chain(custom) {
        if path == "metadata.name" || path == "metadata.namespace" {
            continue;
        }
        if let Some(value) = json::at(object, path) {
            set(&mut out, path, value.clone());
        }
    }
    out
}

fn set(out: &mut Value, path: &str, value: Value) {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut place = out;
    for key in parents.split('.').filter(|k| !k.is_empty()) {
        match json::child(place, key) {
            Some(child) => place = child,
            None => return,
        }
    }
    json::put(place, last, Some(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kv(value: &Value, revision: Revision) -> KeyValue {
        KeyValue {
            key: "core/pods/a/b".into(),
            value: to_stored(value),
            create_revision: 1,
            mod_revision: revision,
        }
    }

    #[test]
    fn the_version_is_spliced_and_replaced() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "b", "namespace": "a", "resourceVersion": "5",
            "labels": {"app": "x"}, "annotations": {"t": "\"metadata\":{"}},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let kind = rhumb_api::registry::find("", "v1", "pods").unwrap();
        let entry = kv(&pod, 99);
        assert!(!String::from_utf8_lossy(&entry.value).contains("resourceVersion"));
        let object = Object::from_stored(kind, &entry).unwrap();
        let mut expected = pod;
        expected["metadata"]["resourceVersion"] = "99".into();
        assert_eq!(object.value(), expected);
        assert_eq!(value_of(&entry).unwrap(), expected);
        let later = object.at_revision(1234);
        expected["metadata"]["resourceVersion"] = "1234".into();
        assert_eq!(later.value(), expected);
        assert_eq!(object.index()["spec"]["nodeName"], "n1");
        assert_eq!(object.index()["metadata"]["labels"]["app"], "x");
        assert_eq!(object.key(), "a/b");
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for bytes in ["", "{}", "[1]", r#"{"metadata":{"name":"#] {
            let entry = KeyValue {
                key: "core/pods/a/b".into(),
                value: bytes.into(),
                create_revision: 1,
                mod_revision: 1,
            };
            assert!(value_of(&entry).is_err(), "{bytes}");
        }
    }
}
