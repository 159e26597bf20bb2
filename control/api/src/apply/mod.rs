//! Server-side apply: which manager owns which field of an object, and the merge of what a manager
//! applies. Pure: the caller brings the clock.
//!
//! - [`path`], [`fieldset`]: fields, and sets of them; [`managed`]: sets by manager, as objects
//!   carry them.
//! - [`typed`]: a value through its type; [`compare`], [`merge`], [`check`]: what is done with it.
//! - [`Writer`]: the rules of a write. [`Writer::track`] after a create, update or patch,
//!   [`Writer::apply`] for an apply patch.
//!
//! Source: structured-merge-diff v6 `merge/update.go`, apimachinery `pkg/util/managedfields`.

pub mod check;
pub mod compare;
pub mod custom;
pub mod fieldset;
pub mod managed;
pub mod merge;
mod options;
pub mod path;
#[cfg(test)]
mod properties;
mod refusal;
pub mod scale;
#[cfg(test)]
mod tests;
pub mod typed;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::json::{self, at, text};
use crate::registry::{Kind, StatusRule};
use crate::schema::{Type, Types, types};
use crate::status::{ApiError, Result};
use compare::{Comparison, compare};
use fieldset::FieldSet;
use managed::{Entry, Managed, Manager};
use path::Step;
use typed::Place;

pub use options::{check_options, manager_of, parse};
pub use refusal::Conflict;

/// What client-side apply keeps its last configuration in.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Whose everything is that an object had before anybody applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager of `kubectl apply --server-side`.
const KUBECTL: &str = "kubectl";

/// Another served version of an object, in whose form some manager's fields are.
pub trait Versions {
    /// The kind at `api_version` and the object in its form, if that version is served.
    fn convert(&self, api_version: &str, object: &Value) -> Option<(std::sync::Arc<Kind>, Value)>;
}

/// Of a kind with one version.
pub struct OneVersion;

impl Versions for OneVersion {
    fn convert(&self, _: &str, _: &Value) -> Option<(std::sync::Arc<Kind>, Value)> {
        None
    }
}

/// What is written: a kind, in one version.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    api_version: String,
    kind: &'a str,
    types: &'a Types,
    ty: Type,
    /// Writes of the main resource leave the status alone.
    keeps_status: bool,
}

impl<'a> Subject<'a> {
    pub fn of(kind: &'a Kind) -> Subject<'a> {
        Subject {
            api_version: kind.api_version(),
            kind: &kind.kind,
            types: match kind.as_custom() {
                Some(custom) => custom.types(),
                None => types(),
            },
            ty: Type::Struct(match kind.as_custom() {
                Some(_) => custom::ROOT,
                None => types().of(kind),
            }),
            keeps_status: kind.status != StatusRule::None,
        }
    }

    /// The scale of any kind.
    pub fn scale() -> Option<Subject<'static>> {
        Some(Subject {
            api_version: scale::VERSION.to_string(),
            kind: "Scale",
            types: types(),
            ty: Type::Struct(types().by_name("io.k8s.api.autoscaling.v1.Scale")?),
            keeps_status: true,
        })
    }

    fn root(&self) -> Place<'_> {
        Place::root(self.types, &self.ty)
    }

    fn compare(&self, old: &Value, new: &Value, skip: &FieldSet) -> Comparison {
        compare(self.root(), old, new, skip)
    }
}

/// One write: who, through which door, when.
pub struct Writer<'a> {
    pub of: Subject<'a>,
    pub versions: &'a dyn Versions,
    /// `fieldManager`, or what stands for it.
    pub manager: &'a str,
    /// "" for the main resource.
    pub subresource: &'a str,
    pub now: Timestamp,
}

/// What an apply makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// In the served form, neither decoded nor defaulted, without managedFields.
    pub object: Value,
    /// `metadata.managedFields`.
    pub managed: Option<Value>,
}

/// The fields of metadata that nobody owns.
const SYSTEM: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

impl Writer<'_> {
    /// Fields that this door doesn't write: nobody gets to own them here.
    fn skipped(&self) -> FieldSet {
        let mut skip = FieldSet::default();
        for field in ["apiVersion", "kind"] {
            skip.insert(&[Step::field(field)]);
        }
        for field in SYSTEM {
            skip.insert(&[Step::field("metadata"), Step::field(field)]);
        }
        match self.subresource {
            "status" => skip.insert(&[Step::field("metadata")]),
            _ if self.of.keeps_status => skip.insert(&[Step::field("status")]),
            _ => {}
        }
        skip
    }

    /// As `skipped`, with what only the object's own fields tell: a status writer writes nothing
    /// but the status.
    fn skipped_of(&self, objects: &[&Value]) -> FieldSet {
        let mut skip = self.skipped();
        if self.subresource == "status" {
            let names = objects.iter().filter_map(|o| o.as_object());
            for name in names.flat_map(Map::keys).filter(|name| *name != "status") {
                skip.insert(&[Step::field(name)]);
            }
        }
        skip
    }

    fn id(&self, applies: bool) -> Manager {
        Manager {
            name: self.manager.to_string(),
            applies,
            version: match applies {
                true => String::new(),
                false => self.of.api_version.clone(),
            },
            subresource: self.subresource.to_string(),
        }
    }

    fn time(&self) -> String {
        crate::time::format(self.now)
    }

    /// Writes `metadata.managedFields` of an object that a create (`live` is `None`), update or
    /// patch made; both in the served form. What the client sent there counts as Kubernetes lets
    /// it: a client may rewrite the list, or empty it, but not through a subresource.
    pub fn track(&self, live: Option<&Value>, new: &mut Value) {
        let stored = live.and_then(|live| at(live, "metadata.managedFields"));
        let given = match json::child(new, "metadata") {
            Some(metadata) => json::remove(metadata, "managedFields"),
            None => return,
        };
        let given = given.filter(|_| self.subresource.is_empty());
        let reset = managed::is_reset(given.as_ref());
        let given = given.filter(|given| !reset && Some(given) != stored);
        let empty = json!({});
        let old = live.unwrap_or(&empty);
        let skip = self.skipped_of(&[old, new]);
        let changes = self.of.compare(old, new, &skip);
        if changes.is_same() && !reset && given.is_none() {
            set_managed(new, stored.cloned());
            return;
        }
        let sent = given.and_then(|given| Managed::decode(Some(&given)).ok());
        let mut managed = match sent {
            _ if reset => Managed::default(),
            Some(sent) if !sent.entries.is_empty() => sent,
            _ => Managed::decode(stored).unwrap_or_default(),
        };
        // An object that is not tracked stays so until somebody applies to it.
        if live.is_none() || !managed.entries.is_empty() {
            self.update(&mut managed, old, new, &changes, self.manager);
        }
        let encoded = managed.encode();
        let unchanged = changes.is_same() && managed::same_but_times(encoded.as_ref(), stored);
        set_managed(new, if unchanged { stored.cloned() } else { encoded });
    }

    /// Gives what changed to the manager, and takes it from all others.
    fn update(
        &self,
        managed: &mut Managed,
        old: &Value,
        new: &Value,
        changes: &Comparison,
        name: &str,
    ) {
        self.disown(managed, old, new, changes);
        let taken = changes.added.union(&changes.modified);
        let taken = taken.difference(&metadata_itself());
        if !taken.is_empty() {
            let manager = Manager {
                name: name.to_string(),
                ..self.id(false)
            };
            let before = managed.get(&manager).map(|e| e.fields.clone());
            managed.set(Entry {
                version: self.of.api_version.clone(),
                fields: taken.union(&before.unwrap_or_default()),
                time: self.time(),
                manager,
            });
        }
        managed.cap();
    }

    /// What of each manager's fields the change touches. `None`: the manager's version is no
    /// longer served.
    fn touched(
        &self,
        entry: &Entry,
        old: &Value,
        new: &Value,
        changes: &Comparison,
    ) -> Option<(FieldSet, FieldSet)> {
        let part = |changes: &Comparison| {
            let set = changes.modified.union(&changes.added);
            (entry.fields.intersection(&set), changes.removed.clone())
        };
        if entry.version == self.of.api_version {
            return Some(part(changes));
        }
        let (kind, old) = self.versions.convert(&entry.version, old)?;
        let (_, new) = self.versions.convert(&entry.version, new)?;
        let skip = self.skipped_of(&[&old, &new]);
        Some(part(&Subject::of(&kind).compare(&old, &new, &skip)))
    }

    /// Takes changed and removed fields from every manager.
    fn disown(&self, managed: &mut Managed, old: &Value, new: &Value, changes: &Comparison) {
        managed.entries.retain_mut(|entry| {
            let Some((conflicts, removed)) = self.touched(entry, old, new, changes) else {
                return false;
            };
            if !conflicts.is_empty() || !removed.is_empty() {
                entry.fields = entry.fields.difference(&conflicts).difference(&removed);
            }
            !entry.fields.is_empty()
        });
    }

    /// Lays an applied configuration over the live object (`None`: there is none), in the served
    /// form, and says who owns what then.
    pub fn apply(&self, live: Option<&Value>, config: &Value, force: bool) -> Result<Applied> {
        self.check_version(config)?;
        let first = self.apply_once(live, config, force)?;
        let (mut applied, conflicts) = first;
        if !conflicts.is_empty() {
            let left = match live {
                // An object that kubectl applied from the client's side is kubectl's still.
                Some(live) if self.manager == KUBECTL => {
                    let allowed = self.last_applied(live).unwrap_or_default();
                    let blocked = |c: &Conflict| !allowed.has(&c.path);
                    conflicts.into_iter().filter(blocked).collect()
                }
                _ => conflicts,
            };
            if !left.is_empty() {
                return Err(refusal::conflicts(&left));
            }
            (applied, _) = self.apply_once(live, config, true)?;
        }
        if self.manager == KUBECTL {
            keep_last_applied(&mut applied.object, config);
        }
        Ok(applied)
    }

    fn check_version(&self, config: &Value) -> Result<()> {
        let (version, kind) = (text(config, "apiVersion"), text(config, "kind"));
        if (version, kind) != (self.of.api_version.as_str(), self.of.kind) {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            return Err(ApiError::bad_request(format!(
                "invalid object type: {group}/{version}, Kind={kind}"
            )));
        }
        if at(config, "metadata.managedFields").is_some() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        Ok(())
    }

    fn apply_once(
        &self,
        live: Option<&Value>,
        config: &Value,
        force: bool,
    ) -> Result<(Applied, Vec<Conflict>)> {
        let stored = live.and_then(|live| at(live, "metadata.managedFields"));
        let mut managed = Managed::decode(stored).map_err(|why| {
            ApiError::bad_request(format!("failed to decode managed fields: {why}"))
        })?;
        let empty = json!({});
        let mut bare = live.unwrap_or(&empty).clone();
        if let Some(metadata) = bare.get_mut("metadata") {
            json::remove(metadata, "managedFields");
        }
        if let Some(why) = check::check(self.of.root(), config) {
            return Err(ApiError::bad_request(format!(
                "failed to create typed patch object ({}/{}; {}, Kind={}): {why}",
                text(config, "metadata.namespace"),
                text(config, "metadata.name"),
                self.of.api_version,
                self.of.kind,
            )));
        }
        let skip = self.skipped_of(&[&bare, config]);
        if managed.entries.is_empty() && live.is_some() {
            let changes = self.of.compare(&empty, &bare, &skip);
            self.update(&mut managed, &empty, &bare, &changes, BEFORE_FIRST_APPLY);
        }
        let me = self.id(true);
        let last = managed.take(&me);
        let root = self.of.root();
        let merged = merge::merge(root, Some(&bare), Some(config)).unwrap_or_default();
        let said = root.fields(config).1;
        let fields = said.without(&skip).difference(&metadata_itself());
        let object = self.prune(merged, &said, last.as_ref(), &managed);
        let changes = self.of.compare(&bare, &object, &skip);
        if !force {
            let conflicts = self.conflicts(&managed, &bare, &object, &changes);
            if !conflicts.is_empty() {
                let managed = None;
                return Ok((Applied { object, managed }, conflicts));
            }
        }
        self.disown(&mut managed, &bare, &object, &changes);
        let time = match &last {
            Some(last) if changes.is_same() => last.time.clone(),
            _ => self.time(),
        };
        if !fields.is_empty() {
            managed.set(Entry {
                manager: me,
                version: self.of.api_version.clone(),
                fields,
                time,
            });
        }
        managed.cap();
        let managed = managed.encode();
        Ok((Applied { object, managed }, Vec::new()))
    }

    fn conflicts(
        &self,
        managed: &Managed,
        old: &Value,
        new: &Value,
        changes: &Comparison,
    ) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for entry in &managed.entries {
            let Some((fields, _)) = self.touched(entry, old, new, changes) else {
                continue;
            };
            conflicts.extend(fields.paths().into_iter().map(|path| Conflict {
                manager: entry.manager.clone(),
                path,
            }));
        }
        conflicts.sort_by_cached_key(|c| c.manager.identifier());
        conflicts
    }

    /// Takes out what the manager applied last time, doesn't now, and nobody else owns.
    fn prune(
        &self,
        merged: Value,
        fields: &FieldSet,
        last: Option<&Entry>,
        others: &Managed,
    ) -> Value {
        let Some(last) = last.filter(|last| !last.fields.is_empty()) else {
            return merged;
        };
        let pruned = if last.version == self.of.api_version {
            let at_last = AtVersion {
                of: &self.of,
                merged: &merged,
            };
            self.prune_at(&at_last, last, fields, others)
        } else {
            // In the form in which it was applied, so that its fields have their names.
            let converted = self.versions.convert(&last.version, &merged);
            converted.and_then(|(kind, converted)| {
                let at_last = AtVersion {
                    of: &Subject::of(&kind),
                    merged: &converted,
                };
                let pruned = self.prune_at(&at_last, last, fields, others)?;
                let back = self.versions.convert(&self.of.api_version, &pruned);
                back.map(|(_, back)| back)
            })
        };
        pruned.unwrap_or(merged)
    }

    /// `None`: a version that is needed is no longer served.
    fn prune_at(
        &self,
        last_form: &AtVersion<'_>,
        last: &Entry,
        fields: &FieldSet,
        others: &Managed,
    ) -> Option<Value> {
        // Back comes what is applied now, and what others own, each in its form.
        let fields = fields.union(&metadata_itself());
        let mut owned = vec![(self.of.api_version.as_str(), fields)];
        for entry in &others.entries {
            match owned.iter_mut().find(|(v, _)| *v == entry.version) {
                Some((_, set)) => *set = set.union(&entry.fields),
                None => owned.push((&entry.version, entry.fields.clone())),
            }
        }
        owned.sort_by_key(|(version, _)| *version != last.version);
        let mut pruned = last_form.without(&last_form.named(&last.fields));
        for (version, owned) in &owned {
            if *version == last.version {
                pruned = last_form.add_back(&pruned, owned);
                continue;
            }
            let (kind, merged) = self.versions.convert(version, last_form.merged)?;
            let (_, there) = self.versions.convert(version, &pruned)?;
            let form = AtVersion {
                of: &Subject::of(&kind),
                merged: &merged,
            };
            let there = form.add_back(&there, owned);
            pruned = self.versions.convert(&last.version, &there)?.1;
        }
        // And what went with its parent, but was not this manager's.
        let all = last_form.fields(last_form.merged);
        let gone = all.difference(&last_form.fields(&pruned));
        Some(last_form.without(&gone.intersection(&last_form.named(&last.fields))))
    }

    /// The fields of client-side apply's last configuration that are as it said.
    fn last_applied(&self, live: &Value) -> Option<FieldSet> {
        let annotation = live
            .get("metadata")?
            .get("annotations")?
            .get(LAST_APPLIED)?;
        let last: Value = serde_json::from_str(annotation.as_str()?).ok()?;
        if text(&last, "apiVersion") != self.of.api_version.clone() {
            return None;
        }
        let root = self.of.root();
        if check::check(root, &last).is_some() {
            return None;
        }
        let fields = root.fields(&last).1;
        let changes = self.of.compare(&last, live, &FieldSet::default());
        Some(
            fields
                .difference(&changes.modified)
                .difference(&changes.added)
                .difference(&changes.removed),
        )
    }
}

/// A merged object in the form of one version.
struct AtVersion<'a> {
    of: &'a Subject<'a>,
    merged: &'a Value,
}

impl AtVersion<'_> {
    fn named(&self, set: &FieldSet) -> FieldSet {
        merge::with_named_fields(self.of.root(), set)
    }

    fn fields(&self, object: &Value) -> FieldSet {
        self.named(&self.of.root().fields(object).1)
    }

    fn without(&self, fields: &FieldSet) -> Value {
        merge::remove(self.of.root(), self.merged, fields)
    }

    /// The merged object without what `pruned` lacks, but for what is owned.
    fn add_back(&self, pruned: &Value, owned: &FieldSet) -> Value {
        let kept = self.fields(pruned).union(&self.named(owned));
        self.without(&self.fields(self.merged).difference(&kept))
    }
}

fn metadata_itself() -> FieldSet {
    let mut set = FieldSet::default();
    set.insert(&[Step::field("metadata")]);
    set
}

fn set_managed(object: &mut Value, managed: Option<Value>) {
    if let Some(metadata) = json::child(object, "metadata") {
        json::put(metadata, "managedFields", managed);
    }
}

/// `kubectl apply` without `--server-side` goes on from what was applied last, if it ever kept it.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let annotations = object
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"));
    let Some(annotations) = annotations.filter(|a| a.get(LAST_APPLIED).is_some()) else {
        return;
    };
    // As Go writes it: one line, keys in order, and a line's end.
    let mut sorted = config.clone();
    sorted.sort_all_objects();
    let text = format!("{sorted}\n");
    let others: usize = annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != LAST_APPLIED)
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    // The most that all annotations of an object may have.
    if others + LAST_APPLIED.len() + text.len() > 256 << 10 {
        json::remove(annotations, LAST_APPLIED);
    } else {
        annotations[LAST_APPLIED] = text.into();
    }
}
