//! Strategic merge patch: lists merge by key, `$patch`, `$retainKeys`, `$setElementOrder/…` and
//! `$deleteFromPrimitiveList/…`. Source: apimachinery `pkg/util/strategicpatch`.

use serde_json::{Map, Value};

use crate::schema::{Merge, StructId, Type, Types};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("the patch of {0} is not an object")]
    NotAnObject(String),
    #[error("unknown patch type {0} in {1}")]
    UnknownDirective(String, String),
    #[error("map: {0} does not contain declared merge key: {1}")]
    NoMergeKey(String, String),
    #[error("{0} must be a list of keys")]
    BadDirective(String),
    #[error("{0} is nested too deep")]
    TooDeep(String),
}

type Result<T> = std::result::Result<T, PatchError>;

/// Deeper nesting than any type has; JSON's own limit is 128.
const MAX_DEPTH: usize = 64;

/// Applies `patch` to `object`, which has the type `id`.
pub fn apply(types: &Types, id: StructId, object: &Value, patch: &Value) -> Result<Value> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::NotAnObject("the object".into()));
    };
    let original = object.as_object().cloned().unwrap_or_default();
    let merged = Merger { types }.object(Some(&Type::Struct(id)), original, patch, "", 0)?;
    Ok(Value::Object(merged.unwrap_or_default()))
}

struct Merger<'a> {
    types: &'a Types,
}

impl<'a> Merger<'a> {
    /// Type and merge strategy of a field of a value of type `ty`.
    fn field(&self, ty: Option<&'a Type>, name: &str) -> (Option<&'a Type>, Option<Merge>) {
        match ty {
            Some(Type::Struct(id)) => match self.types.get(*id).fields.get(name) {
                Some(field) => (Some(&field.ty), field.merge),
                None => (None, None),
            },
            Some(Type::Map(item)) => (Some(item), None),
            _ => (None, None),
        }
    }

    /// `None`: the directive deletes the object.
    fn object(
        &self,
        ty: Option<&'a Type>,
        mut original: Map<String, Value>,
        patch: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<Option<Map<String, Value>>> {
        if depth > MAX_DEPTH {
            return Err(PatchError::TooDeep(path.to_string()));
        }
        match directive(patch, path)? {
            Some("replace") => {
                let mut replaced = clean_object(patch);
                replaced.shift_remove(DIRECTIVE);
                return Ok(Some(replaced));
            }
            Some("delete") => return Ok(None),
            _ => {}
        }
        if let Some(keys) = patch.get(RETAIN_KEYS) {
            let keys = keys
                .as_array()
                .ok_or_else(|| PatchError::BadDirective(RETAIN_KEYS.into()))?;
            original.retain(|key, _| keys.iter().any(|k| k == key));
        }
        for (key, value) in patch {
            if let Some(list) = key.strip_prefix(DELETE_FROM) {
                let doomed = value
                    .as_array()
                    .ok_or_else(|| PatchError::BadDirective(key.clone()))?;
                if let Some(Value::Array(items)) = original.get_mut(list) {
                    items.retain(|item| !doomed.contains(item));
                }
            }
        }
        for (key, value) in patch {
            if key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) {
                continue;
            }
            if let Some(list) = key.strip_prefix(ELEMENT_ORDER) {
                // With a patch of the list itself, the order is applied there.
                if !patch.contains_key(list) {
                    let (_, merge) = self.field(ty, list);
                    if let Some(Value::Array(items)) = original.get_mut(list) {
                        let order = order_of(value, key)?;
                        *items = in_order(std::mem::take(items), &[], order, merge);
                    }
                }
                continue;
            }
            let field_path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            self.entry(ty, &mut original, patch, key, value, &field_path, depth)?;
        }
        Ok(Some(original))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of a recursion, not an interface"
    )]
    fn entry(
        &self,
        ty: Option<&'a Type>,
        original: &mut Map<String, Value>,
        patch: &Map<String, Value>,
        key: &str,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<()> {
        let (field_type, merge) = self.field(ty, key);
        match value {
            Value::Null => {
                original.shift_remove(key);
            }
            Value::Object(change) => {
                let before = match original.get(key) {
                    Some(Value::Object(before)) => before.clone(),
                    _ => Map::new(),
                };
                match self.object(field_type, before, change, path, depth + 1)? {
                    Some(merged) => {
                        original.insert(key.to_string(), Value::Object(merged));
                    }
                    None => {
                        original.shift_remove(key);
                    }
                }
            }
            Value::Array(changes) => {
                let before = match original.get(key) {
                    Some(Value::Array(before)) => before.clone(),
                    _ => Vec::new(),
                };
                let order = match patch.get(&format!("{ELEMENT_ORDER}{key}")) {
                    Some(order) => Some(order_of(order, key)?),
                    None => None,
                };
                let list = self.list(field_type, merge, before, changes, order, path, depth + 1)?;
                original.insert(key.to_string(), Value::Array(list));
            }
            scalar => {
                original.insert(key.to_string(), scalar.clone());
            }
        }
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of a recursion, not an interface"
    )]
    fn list(
        &self,
        ty: Option<&'a Type>,
        merge: Option<Merge>,
        before: Vec<Value>,
        changes: &[Value],
        order: Option<&[Value]>,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Value>> {
        let replace = changes
            .iter()
            .any(|c| c.get(DIRECTIVE).is_some_and(|d| d == "replace"));
        let merging = merge.filter(|m| m.merge);
        let (Some(strategy), false) = (merging, replace) else {
            // Atomic, or told to replace: the directive's own item is not content.
            return Ok(changes
                .iter()
                .filter(|c| !is_bare_directive(c))
                .map(clean)
                .collect());
        };
        let Some(key) = strategy.key else {
            let mut items = before.clone();
            for change in changes {
                if !items.contains(change) {
                    items.push(change.clone());
                }
            }
            return Ok(match order {
                Some(order) => in_order(items, &before, order, merge),
                None => items,
            });
        };
        let item_type = match ty {
            Some(Type::List(item)) => Some(&**item),
            _ => None,
        };
        let mut items = before.clone();
        for (i, change) in changes.iter().enumerate() {
            let item_path = format!("{path}[{i}]");
            let Value::Object(change_fields) = change else {
                return Err(PatchError::NotAnObject(item_path));
            };
            let Some(id) = change_fields.get(key) else {
                return Err(PatchError::NoMergeKey(change.to_string(), key.to_string()));
            };
            let found = items.iter().position(|item| item.get(key) == Some(id));
            if directive(change_fields, &item_path)? == Some("delete") {
                items.retain(|item| item.get(key) != Some(id));
                continue;
            }
            match found {
                Some(at) => {
                    let original = items[at].as_object().cloned().unwrap_or_default();
                    if let Some(merged) =
                        self.object(item_type, original, change_fields, &item_path, depth + 1)?
                    {
                        items[at] = Value::Object(merged);
                    }
                }
                None => {
                    if let Some(added) =
                        self.object(item_type, Map::new(), change_fields, &item_path, depth + 1)?
                    {
                        items.push(Value::Object(added));
                    }
                }
            }
        }
        Ok(match order {
            Some(order) => in_order(items, &before, order, merge),
            None => items,
        })
    }
}

fn directive<'v>(patch: &'v Map<String, Value>, path: &str) -> Result<Option<&'v str>> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(d)) if matches!(d.as_str(), "replace" | "delete" | "merge") => {
            Ok(Some(d))
        }
        Some(other) => Err(PatchError::UnknownDirective(
            other.to_string(),
            path.to_string(),
        )),
    }
}

fn is_bare_directive(item: &Value) -> bool {
    item.as_object()
        .is_some_and(|o| o.len() == 1 && o.contains_key(DIRECTIVE))
}

fn order_of<'v>(order: &'v Value, key: &str) -> Result<&'v [Value]> {
    order
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| PatchError::BadDirective(key.to_string()))
}

/// A copy without directives and nulls, for content that is taken as a whole.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(clean_object(fields)),
        Value::Array(items) => items
            .iter()
            .filter(|c| !is_bare_directive(c))
            .map(clean)
            .collect(),
        scalar => scalar.clone(),
    }
}

fn clean_object(fields: &Map<String, Value>) -> Map<String, Value> {
    fields
        .iter()
        .filter(|(key, value)| {
            !value.is_null()
                && *key != DIRECTIVE
                && *key != RETAIN_KEYS
                && !key.starts_with(ELEMENT_ORDER)
                && !key.starts_with(DELETE_FROM)
        })
        .map(|(key, value)| (key.clone(), clean(value)))
        .collect()
}

/// Items in the client's order; those that only the server has keep their place relative to their
/// neighbours in the live list.
fn in_order(
    items: Vec<Value>,
    live: &[Value],
    order: &[Value],
    merge: Option<Merge>,
) -> Vec<Value> {
    let key = merge.and_then(|m| m.key);
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    };
    let live: Vec<Value> = if live.is_empty() {
        items.clone()
    } else {
        live.to_vec()
    };
    let mut ordered: Vec<Value> = Vec::new();
    let mut server_only: Vec<Value> = Vec::new();
    let mut rest = items;
    for wanted in order {
        if let Some(at) = rest.iter().position(|item| same(item, wanted)) {
            ordered.push(rest.remove(at));
        }
    }
    server_only.append(&mut rest);
    let place = |item: &Value| live.iter().position(|l| same(l, item));
    // A server-only item goes before the first ordered item that the live list has after it.
    for item in server_only {
        let at = match place(&item) {
            Some(mine) => ordered
                .iter()
                .position(|o| place(o).is_some_and(|theirs| theirs > mine))
                .unwrap_or(ordered.len()),
            None => ordered.len(),
        };
        ordered.insert(at, item);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::types;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod(object: Value, patch: Value) -> Value {
        let id = types().by_name("io.k8s.api.core.v1.Pod").unwrap();
        apply(types(), id, &object, &patch).unwrap()
    }

    fn names(value: &Value) -> Vec<&str> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn lists_merge_by_key() {
        let base = json!({"spec": {"containers": [
            {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
            {"name": "b", "image": "2"},
        ]}});
        let out = pod(
            base,
            json!({"spec": {"containers": [
                {"name": "a", "env": [{"name": "Y", "value": "2"}]},
                {"name": "c", "image": "3"},
            ]}}),
        );
        assert_eq!(names(&out["spec"]["containers"]), ["a", "b", "c"]);
        assert_eq!(out["spec"]["containers"][0]["image"], "1");
        assert_eq!(names(&out["spec"]["containers"][0]["env"]), ["X", "Y"]);
    }

    #[test]
    fn items_are_deleted_and_lists_replaced() {
        let base = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let out = pod(
            base.clone(),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
        );
        assert_eq!(names(&out["spec"]["containers"]), ["b"]);
        let out = pod(
            base.clone(),
            json!({"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}}),
        );
        assert_eq!(names(&out["spec"]["containers"]), ["z"]);
        let out = pod(
            base,
            json!({"spec": {"$patch": "replace", "nodeName": "n"}}),
        );
        assert_eq!(out, json!({"spec": {"nodeName": "n"}}));
    }

    #[test]
    fn atomic_lists_are_replaced() {
        let base = json!({"spec": {"tolerations": [{"key": "a"}, {"key": "b"}]}});
        let out = pod(base, json!({"spec": {"tolerations": [{"key": "c"}]}}));
        assert_eq!(out["spec"]["tolerations"], json!([{"key": "c"}]));
    }

    #[test]
    fn nulls_remove_and_maps_merge() {
        let base = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let out = pod(base, json!({"metadata": {"labels": {"a": null, "c": "3"}}}));
        assert_eq!(out["metadata"]["labels"], json!({"b": "2", "c": "3"}));
    }

    #[test]
    fn retain_keys_drop_the_other_source_of_a_volume() {
        let base = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let out = pod(
            base,
            json!({"spec": {"volumes": [
                {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}},
            ]}}),
        );
        assert_eq!(
            out["spec"]["volumes"],
            json!([{"name": "v", "hostPath": {"path": "/x"}}])
        );
        let id = types().by_name("io.k8s.api.apps.v1.Deployment").unwrap();
        let base = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        let out = apply(types(), id, &base, &patch).unwrap();
        assert_eq!(out["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn element_order() {
        let base = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "server"}, {"name": "b"}]}});
        let out = pod(
            base.clone(),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
                "containers": [{"name": "new"}],
            }}),
        );
        // `server` stands before `b` in the live list, and stays before it.
        assert_eq!(
            names(&out["spec"]["containers"]),
            ["server", "b", "new", "a"]
        );
        let out = pod(
            base,
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        );
        assert_eq!(names(&out["spec"]["containers"]), ["server", "b", "a"]);
    }

    #[test]
    fn primitive_lists() {
        let base = json!({"metadata": {"finalizers": ["a", "b"]}});
        let out = pod(
            base,
            json!({"metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["c", "b"],
                "finalizers": ["c"],
            }}),
        );
        assert_eq!(out["metadata"]["finalizers"], json!(["c", "b"]));
    }

    #[test]
    fn faults_are_named() {
        let id = types().by_name("io.k8s.api.core.v1.Pod").unwrap();
        for (patch, text) in [
            (json!([]), "not an object"),
            (json!({"$patch": "burn"}), "unknown patch type"),
            (
                json!({"spec": {"containers": [{"image": "x"}]}}),
                "declared merge key: name",
            ),
            (json!({"spec": {"containers": [7]}}), "spec.containers[0]"),
            (json!({"spec": {"$retainKeys": 1}}), "must be a list"),
        ] {
            let error = apply(types(), id, &json!({}), &patch).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop::sample::select(vec![
            "spec",
            "metadata",
            "containers",
            "volumes",
            "name",
            "labels",
            "finalizers",
            "env",
            "$patch",
            "$retainKeys",
            "$setElementOrder/containers",
            "$deleteFromPrimitiveList/finalizers",
            "strategy",
            "ports",
            "containerPort",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            prop::sample::select(vec!["", "a", "b", "replace", "delete", "merge"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..5).prop_map(|entries| {
                    Value::Object(
                        entries
                            .into_iter()
                            .map(|(k, v)| (k.to_string(), v))
                            .collect(),
                    )
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn never_panics(object in any_json(), patch in any_json()) {
            let id = types().by_name("io.k8s.api.core.v1.Pod").unwrap();
            let _ = apply(types(), id, &object, &patch);
        }

        #[test]
        fn the_empty_patch_changes_nothing(object in any_json()) {
            let id = types().by_name("io.k8s.api.core.v1.Pod").unwrap();
            if object.is_object() {
                prop_assert_eq!(apply(types(), id, &object, &json!({})).unwrap(), object);
            }
        }
    }
}
