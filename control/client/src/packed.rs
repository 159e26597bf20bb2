//! Objects that a cache keeps as the JSON they came in, since the typed form of a small object takes
//! several times that: a map of three labels alone is half a kilobyte.

use std::{fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};

/// An object of the kind `K` for an [`Informer`](crate::Informer) that holds many and reads few.
/// Its metadata is what the informer needs, `facts` what is asked of all of them; everything else comes
/// from [`unpack`](Self::unpack).
pub struct Packed<K, F> {
    metadata: ObjectMeta,
    facts: F,
    json: Box<[u8]>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Resource + Serialize + DeserializeOwned, F: for<'a> From<&'a K>> Packed<K, F> {
    /// Without the managed fields, which are the largest part.
    pub fn pack(mut object: K) -> serde_json::Result<Self> {
        object.meta_mut().managed_fields = None;
        let facts = F::from(&object);
        let json = serde_json::to_vec(&object)?.into_boxed_slice();
        let meta = object.meta_mut();
        Ok(Self {
            metadata: ObjectMeta {
                name: meta.name.take(),
                namespace: meta.namespace.take(),
                uid: meta.uid.take(),
                resource_version: meta.resource_version.take(),
                ..Default::default()
            },
            facts,
            json,
            kind: PhantomData,
        })
    }

    pub fn facts(&self) -> &F {
        &self.facts
    }

    pub fn unpack(&self) -> serde_json::Result<K> {
        serde_json::from_slice(&self.json)
    }
}

impl<K, F: Clone> Clone for Packed<K, F> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            facts: self.facts.clone(),
            json: self.json.clone(),
            kind: PhantomData,
        }
    }
}

impl<K, F> fmt::Debug for Packed<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.json))
    }
}

impl<'de, K, F> Deserialize<'de> for Packed<K, F>
where
    K: Resource + Serialize + DeserializeOwned,
    F: for<'a> From<&'a K>,
{
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::pack(K::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl<K: Resource, F> Resource for Packed<K, F> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    struct Addresses(usize);

    impl From<&EndpointSlice> for Addresses {
        fn from(slice: &EndpointSlice) -> Self {
            Self(slice.endpoints.iter().flatten().count())
        }
    }

    #[test]
    fn nothing_but_the_managers_is_lost() {
        let mut slice: EndpointSlice = serde_json::from_value(serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7",
                "labels": {"x": "y"}, "managedFields": [{"manager": "m", "operation": "Update"}]},
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
        }))
        .unwrap();
        let text = serde_json::to_string(&slice).unwrap();
        let packed: Packed<EndpointSlice, Addresses> = serde_json::from_str(&text).unwrap();
        assert_eq!(packed.meta().resource_version.as_deref(), Some("7"));
        assert_eq!(packed.meta().labels, None);
        assert_eq!(packed.facts().0, 1);
        slice.metadata.managed_fields = None;
        assert_eq!(packed.unpack().unwrap(), slice);
    }
}
