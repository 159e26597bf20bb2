//! `metadata.managedFields`: who owns which fields, since when.
//! Source: apimachinery `pkg/util/managedfields/internal/{managedfields,capmanagers}.go`.

use serde_json::{Value, json};

use super::fieldset::FieldSet;
use crate::json::text;

/// More entries of updates than these are merged, the oldest first.
const MOST_UPDATERS: usize = 10;
/// Whose they become then.
const ANCIENT: &str = "ancient-changes";

/// Who manages: a manager has an entry for what it applied, and one for what it changed otherwise,
/// by version and subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    pub name: String,
    pub applies: bool,
    /// Of an update; "" of an apply, which keeps its entry over versions.
    pub version: String,
    pub subresource: String,
}

impl Manager {
    /// What managers are sorted by in messages.
    pub fn identifier(&self) -> String {
        let operation = if self.applies { "Apply" } else { "Update" };
        let mut id = json!({});
        if !self.name.is_empty() {
            id["manager"] = self.name.as_str().into();
        }
        id["operation"] = operation.into();
        if !self.version.is_empty() {
            id["apiVersion"] = self.version.as_str().into();
        }
        if !self.subresource.is_empty() {
            id["subresource"] = self.subresource.as_str().into();
        }
        id.to_string()
    }

    /// As conflicts name it: `"kubectl" using apps/v1`.
    pub fn shown(&self) -> String {
        let mut shown = Value::from(self.name.as_str()).to_string();
        if !self.subresource.is_empty() {
            shown = format!(
                "{shown} with subresource {}",
                Value::from(self.subresource.as_str())
            );
        }
        if self.applies {
            shown
        } else {
            format!("{shown} using {}", self.version)
        }
    }
}

/// One manager's fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: Manager,
    /// In whose form the fields are.
    pub version: String,
    pub fields: FieldSet,
    /// RFC 3339 in UTC; "" if it is not known.
    pub time: String,
}

/// All entries of an object; no two of one manager.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed {
    pub entries: Vec<Entry>,
}

impl Managed {
    pub fn position(&self, manager: &Manager) -> Option<usize> {
        self.entries.iter().position(|e| e.manager == *manager)
    }

    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.position(manager).map(|at| &self.entries[at])
    }

    pub fn take(&mut self, manager: &Manager) -> Option<Entry> {
        self.position(manager).map(|at| self.entries.remove(at))
    }

    pub fn set(&mut self, entry: Entry) {
        match self.position(&entry.manager) {
            Some(at) => self.entries[at] = entry,
            None => self.entries.push(entry),
        }
    }

    /// From the wire form; an entry that can't be read spoils all.
    pub fn decode(list: Option<&Value>) -> Result<Managed, String> {
        let mut managed = Managed::default();
        let entries = list.and_then(Value::as_array).into_iter().flatten();
        for (i, entry) in entries.enumerate() {
            let operation = text(entry, "operation");
            if !matches!(operation, "Apply" | "Update") {
                return Err("operation must be `Apply` or `Update`".into());
            }
            let version = text(entry, "apiVersion");
            if version.is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text(entry, "fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => {
                    return Err(format!(
                        "invalid fieldsType {other:?} in managed fields entry {i}"
                    ));
                }
            }
            let fields = match entry.get("fieldsV1") {
                None | Some(Value::Null) => FieldSet::default(),
                Some(fields) => FieldSet::decode(fields)?,
            };
            let applies = operation == "Apply";
            managed.set(Entry {
                manager: Manager {
                    name: text(entry, "manager").to_string(),
                    applies,
                    version: if applies { "" } else { version }.to_string(),
                    subresource: text(entry, "subresource").to_string(),
                },
                version: version.to_string(),
                fields,
                time: text(entry, "time").to_string(),
            });
        }
        Ok(managed)
    }

    /// The wire form, sorted; `None` if nobody manages anything.
    pub fn encode(&self) -> Option<Value> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| order(a).cmp(&order(b)));
        let list: Vec<Value> = entries.into_iter().map(encode_entry).collect();
        (!list.is_empty()).then_some(Value::Array(list))
    }

    /// Merges the oldest updaters of a version until there are few enough.
    pub fn cap(&mut self) {
        let mut updaters: Vec<(String, String, Manager)> = self
            .entries
            .iter()
            .filter(|e| !e.manager.applies)
            .map(|e| (e.time.clone(), e.manager.identifier(), e.manager.clone()))
            .collect();
        let mut left = updaters.len();
        if left <= MOST_UPDATERS {
            return;
        }
        updaters.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let mut first_of: Vec<Manager> = Vec::new();
        for (_, _, manager) in updaters {
            if left <= MOST_UPDATERS {
                return;
            }
            let bucket = Manager {
                name: ANCIENT.into(),
                applies: false,
                version: manager.version.clone(),
                subresource: String::new(),
            };
            let Some(first) = first_of.iter().find(|m| m.version == manager.version) else {
                first_of.push(manager);
                continue;
            };
            if self.get(&bucket).is_none()
                && let Some(first) = self.take(first)
            {
                self.set(Entry {
                    manager: bucket.clone(),
                    ..first
                });
            }
            if manager == bucket {
                continue;
            }
            if let Some(entry) = self.take(&manager)
                && let Some(at) = self.position(&bucket)
            {
                let old = &mut self.entries[at];
                old.fields = entry.fields.union(&old.fields);
                // The later of both.
                old.time = entry.time;
                left -= 1;
            }
        }
    }
}

fn order(entry: &Entry) -> (bool, &str, &str, &str, &str) {
    let manager = &entry.manager;
    (
        !manager.applies,
        &entry.time,
        &manager.name,
        &entry.version,
        &manager.subresource,
    )
}

fn encode_entry(entry: &Entry) -> Value {
    let mut out = json!({
        "manager": entry.manager.name,
        "operation": if entry.manager.applies { "Apply" } else { "Update" },
        "apiVersion": entry.version,
    });
    if !entry.time.is_empty() {
        out["time"] = entry.time.as_str().into();
    }
    out["fieldsType"] = "FieldsV1".into();
    out["fieldsV1"] = entry.fields.encode();
    if !entry.manager.subresource.is_empty() {
        out["subresource"] = entry.manager.subresource.as_str().into();
    }
    out
}

/// Whether two lists say the same, times aside.
pub fn same_but_times(a: Option<&Value>, b: Option<&Value>) -> bool {
    let entries = |list: Option<&Value>| -> Vec<Value> {
        let list = list.and_then(Value::as_array).cloned().unwrap_or_default();
        let bare = list.into_iter().map(|mut entry| {
            crate::json::remove(&mut entry, "time");
            entry
        });
        let mut bare: Vec<Value> = bare.collect();
        // Their order goes by time.
        bare.sort_by_cached_key(Value::to_string);
        bare
    };
    entries(a) == entries(b)
}

/// Whether a client wants `metadata.managedFields` emptied: an empty list, or one empty entry.
pub fn is_reset(list: Option<&Value>) -> bool {
    match list {
        Some(Value::Array(entries)) => match entries.as_slice() {
            [] => true,
            [Value::Object(entry)] => entry.is_empty(),
            _ => false,
        },
        _ => false,
    }
}
