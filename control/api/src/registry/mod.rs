//! The registry of kinds: a row a built-in kind, in a file a group. Discovery, OpenAPI, defaulting,
//! validation, selectors, tables and the rules for writes are all derived from a kind, so that the
//! API server is generic. A [`Registry`] is what is served at one moment.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod effects;
mod events;
mod flowcontrol;
mod habits;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod reviews;
mod scheduling;
mod storage;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use crate::crd::Custom;
use crate::status::Errors;
use crate::table::{self, Column, Now};
use crate::{defaults, validation};

pub use effects::{Effect, effect, effects_page};
pub use reviews::{REVIEWS, Review, find_review};

/// The rows of the built-in kinds, a group each, in the order in which discovery shows them.
static GROUPS: &[&[Row]] = &[
    core::ROWS,
    apiregistration::ROWS,
    apps::ROWS,
    apiextensions::ROWS,
    events::ROWS,
    autoscaling::ROWS,
    batch::ROWS,
    certificates::ROWS,
    networking::ROWS,
    rbac::ROWS,
    policy::ROWS,
    storage::ROWS,
    admissionregistration::ROWS,
    scheduling::ROWS,
    coordination::ROWS,
    node::ROWS,
    discovery::ROWS,
    flowcontrol::ROWS,
    resource::ROWS,
];

/// A built-in kind as it is declared.
pub struct Row {
    /// "" for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Which syntax `metadata.name` must have.
    pub name_rule: NameRule,
    /// Whether `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// What happens to `status` in a write of the main resource.
    pub status: StatusRule,
    /// Field selectors besides metadata.name and metadata.namespace: label, path in the stored
    /// form, and the value that stands for an absent field.
    pub fields: &'static [(&'static str, &'static str, &'static str)],
    /// Name in OpenAPI, e.g. `io.k8s.api.core.v1.Pod`.
    pub schema_name: fn() -> Cow<'static, str>,
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    pub defaults: fn(&mut Value),
    /// Checks an object that is to be stored, metadata aside.
    pub validate: fn(&Value, &mut Errors),
    /// Checks what may change: new, old.
    pub validate_update: fn(&Value, &Value, &mut Errors),
    pub columns: &'static [Column],
    pub cells: fn(&Value, Now) -> Vec<Value>,
    /// Group and plural of the kind in whose form and under whose key objects are stored, if not
    /// its own (`events.k8s.io` events are stored as core ones).
    pub stored_as: Option<(&'static str, &'static str)>,
}

/// One served kind.
pub struct Kind {
    /// "" for the core group.
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub list_kind: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub singular: Cow<'static, str>,
    pub short_names: Vec<Cow<'static, str>>,
    pub categories: Vec<Cow<'static, str>>,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: Vec<Subresource>,
    pub name_rule: NameRule,
    pub generation: bool,
    pub status: StatusRule,
    pub fields: Vec<Selectable>,
    pub(crate) behaviour: Behaviour,
}

/// Where a kind's rules are.
pub(crate) enum Behaviour {
    BuiltIn(&'static Row),
    Custom(Box<Custom>),
}

/// A field that selectors can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectable {
    pub label: Cow<'static, str>,
    /// Where it is in the stored form.
    pub path: Cow<'static, str>,
    /// What stands for an absent field.
    pub absent: &'static str,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.qualified_resource())
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (&self.group, &self.version, &self.plural) == (&other.group, &other.version, &other.plural)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    Dns1123Subdomain,
    Dns1123Label,
    Dns1035Label,
    /// Anything that can stand between two slashes of a URL.
    PathSegment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRule {
    /// The kind has no status.
    None,
    /// Dropped on create, kept from the old object on update; written by the subresource.
    Subresource,
    /// As `Subresource`, but a create keeps it (nodes register with their status).
    KeptOnCreate,
}

/// A subresource. Its own kind is what a client sends and gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: &'static str,
    /// Group, version and kind; all of them empty for the kind's own.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

pub(crate) const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Namespaces can't be deleted as a collection.
const NO_COLLECTION: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
/// Of kinds whose objects only the server makes, if anybody.
const READ: &[&str] = &["get", "list", "watch"];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

const fn status_of(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    Subresource {
        name: "status",
        group,
        version,
        kind,
        verbs: STATUS_VERBS,
    }
}

pub(crate) const SCALE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: STATUS_VERBS,
};

/// `status` of a kind that isn't compiled in.
pub(crate) const STATUS: Subresource = status_of("", "", "");

/// The functions of a type that give its name in OpenAPI and its schema.
macro_rules! schema {
    ($t:ty) => {
        (
            <$t as schemars::JsonSchema>::schema_name as fn() -> std::borrow::Cow<'static, str>,
            <$t as schemars::JsonSchema>::json_schema
                as fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
        )
    };
}
use schema;

/// What most kinds have in common, for the rest of a row. The schema is each kind's own.
const PLAIN: Row = Row {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL,
    subresources: &[],
    name_rule: NameRule::Dns1123Subdomain,
    generation: false,
    status: StatusRule::None,
    fields: &[],
    schema_name: schema!(k8s_openapi::api::core::v1::ConfigMap).0,
    schema: schema!(k8s_openapi::api::core::v1::ConfigMap).1,
    defaults: defaults::nothing,
    validate: validation::nothing,
    validate_update: validation::nothing_update,
    columns: table::workloads::NAME_AND_AGE,
    cells: table::workloads::name_and_age,
    stored_as: None,
};

/// Every built-in kind, in the order in which discovery shows them.
pub static KINDS: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
    let rows = GROUPS.iter().flat_map(|rows| rows.iter());
    rows.map(|row| Arc::new(Kind::from(row))).collect()
});

/// The built-in kind served under a group, version and plural.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Kind>> {
    KINDS
        .iter()
        .find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// The built-in kind of an object's `apiVersion` and `kind`.
pub fn of_object(api_version: &str, kind: &str) -> Option<&'static Arc<Kind>> {
    KINDS
        .iter()
        .find(|k| k.kind == kind && k.api_version() == api_version)
}

/// What is served at one moment.
#[derive(Clone, Debug)]
pub struct Registry {
    kinds: Vec<Arc<Kind>>,
}

impl Registry {
    /// The built-in kinds alone.
    pub fn built_in() -> Registry {
        Registry {
            kinds: KINDS.clone(),
        }
    }

    /// The built-in kinds and these, which are in the order in which discovery shows them.
    pub fn with(custom: Vec<Arc<Kind>>) -> Registry {
        let mut kinds = KINDS.clone();
        kinds.extend(custom);
        Registry { kinds }
    }

    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// The kind served under a group, version and plural.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds
            .iter()
            .find(|k| k.plural == plural && k.group == group && k.version == version)
    }

    /// The kinds of a group and version.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Kind>> {
        self.kinds
            .iter()
            .filter(move |k| k.group == group && k.version == version)
    }

    /// The groups that are served, each with its versions, the preferred one first. Core is "".
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for kind in &self.kinds {
            match groups.iter_mut().find(|(group, _)| *group == kind.group) {
                Some((_, versions)) if versions.contains(&&*kind.version) => {}
                Some((_, versions)) => versions.push(&kind.version),
                None => groups.push((&kind.group, vec![&kind.version])),
            }
        }
        groups
    }
}

impl From<&'static Row> for Kind {
    fn from(row: &'static Row) -> Self {
        let names = |names: &[&'static str]| names.iter().map(|n| Cow::Borrowed(*n)).collect();
        let fields = row.fields.iter().map(|(label, path, absent)| Selectable {
            label: Cow::Borrowed(label),
            path: Cow::Borrowed(path),
            absent,
        });
        Kind {
            group: row.group.into(),
            version: row.version.into(),
            kind: row.kind.into(),
            list_kind: format!("{}List", row.kind).into(),
            plural: row.plural.into(),
            singular: row.singular.into(),
            short_names: names(row.short_names),
            categories: names(row.categories),
            namespaced: row.namespaced,
            verbs: row.verbs,
            subresources: row.subresources.to_vec(),
            name_rule: row.name_rule,
            generation: row.generation,
            status: row.status,
            fields: fields.collect(),
            behaviour: Behaviour::BuiltIn(row),
        }
    }
}

impl Kind {
    /// Group and kind, for rules about one kind: the kind alone may be anybody's.
    pub fn id(&self) -> (&str, &str) {
        (&self.group, &self.kind)
    }

    /// Whether it is the kind of this group and name.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.id() == (group, kind)
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: how error texts name the resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Group, version and kind of what a client sends and gets at a subresource.
    pub fn subresource_kind<'a>(&'a self, sub: &'a Subresource) -> (&'a str, &'a str, &'a str) {
        match sub.kind {
            "" => (&self.group, &self.version, &self.kind),
            kind => (sub.group, sub.version, kind),
        }
    }

    /// What a kind has that a CustomResourceDefinition defines.
    pub fn as_custom(&self) -> Option<&Custom> {
        match &self.behaviour {
            Behaviour::Custom(custom) => Some(custom),
            Behaviour::BuiltIn(_) => None,
        }
    }

    /// Name in OpenAPI, e.g. `io.k8s.api.core.v1.Pod`.
    pub fn schema_name(&self) -> Cow<'static, str> {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => (row.schema_name)(),
            Behaviour::Custom(custom) => custom.schema_name(&self.kind).into(),
        }
    }

    /// The schema of a built-in kind, with the definitions that it refers to added to the
    /// generator.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => Some((row.schema)(generator)),
            Behaviour::Custom(_) => None,
        }
    }

    /// Applies the defaults to an object in its served form.
    pub fn default(&self, object: &mut Value) {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => (row.defaults)(object),
            Behaviour::Custom(custom) => custom.default(object),
        }
    }

    /// Checks an object that is to be stored, metadata aside.
    pub fn validate(&self, object: &Value, errors: &mut Errors) {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => (row.validate)(object, errors),
            Behaviour::Custom(custom) => custom.validate(object, None, errors),
        }
    }

    /// Checks an object that is to replace another, and what may change.
    pub fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => {
                (row.validate)(new, errors);
                (row.validate_update)(new, old, errors);
            }
            Behaviour::Custom(custom) => custom.validate(new, Some(old), errors),
        }
    }

    /// The columns of tables, as their definitions.
    pub fn columns(&self) -> Vec<Value> {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => row.columns.iter().map(Column::definition).collect(),
            Behaviour::Custom(custom) => crate::table::custom_columns(custom),
        }
    }

    /// A table's row of an object: a cell a column.
    pub fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => (row.cells)(object, now),
            Behaviour::Custom(custom) => custom.cells(object, now),
        }
    }

    fn stored_as(&self) -> Option<(&'static str, &'static str)> {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => row.stored_as,
            Behaviour::Custom(_) => None,
        }
    }

    /// Whether objects are stored in another form than they are served in.
    pub fn is_view(&self) -> bool {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => row.stored_as.is_some(),
            Behaviour::Custom(custom) => !custom.is_storage_version(),
        }
    }

    /// The kind in whose form writes are prepared, and whose rules they follow: itself, but for
    /// built-in views of another kind.
    pub fn storage(&self) -> &Kind {
        match self.stored_as() {
            Some((group, plural)) => KINDS
                .iter()
                .find(|k| k.group == group && k.plural == plural && !k.is_view())
                .map_or(self, |k| k),
            None => self,
        }
    }

    /// Store key of the collection: `<group or core>/<plural>`; the same for all views of a kind.
    pub fn storage_prefix(&self) -> String {
        let kind = self.storage();
        let group = if kind.group.is_empty() {
            "core"
        } else {
            &kind.group
        };
        format!("{group}/{}", kind.plural)
    }

    /// Turns an object of this kind into the form in which writes are prepared.
    pub fn to_stored(&self, object: Value) -> Value {
        match (self.stored_as(), &*self.group) {
            (None, _) => object,
            (Some(_), "autoscaling") => crate::autoscaler::to_v2(object),
            (Some(_), _) => crate::event::to_core(object),
        }
    }

    /// Turns a stored object, or one that is ready to be stored, into this kind's form.
    pub fn served(&self, stored: Value) -> Value {
        match &self.behaviour {
            Behaviour::BuiltIn(row) => match (row.stored_as, row.group) {
                (None, _) => stored,
                (Some(_), "autoscaling") => crate::autoscaler::from_v2(stored),
                (Some(_), _) => crate::event::from_core(stored),
            },
            Behaviour::Custom(custom) => custom.served(stored),
        }
    }

    /// What the store held, in the form in which writes are prepared.
    pub fn from_store(&self, stored: Value) -> Value {
        match &self.behaviour {
            Behaviour::BuiltIn(_) => stored,
            Behaviour::Custom(custom) => custom.served(stored),
        }
    }

    /// What is ready to be stored, in the form that the store holds.
    pub fn into_store(&self, prepared: &Value) -> Value {
        match &self.behaviour {
            Behaviour::BuiltIn(_) => prepared.clone(),
            Behaviour::Custom(custom) => custom.stored(prepared.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_complete() {
        for (i, a) in KINDS.iter().enumerate() {
            for b in &KINDS[i + 1..] {
                assert_ne!(a, b);
                assert!(
                    a.group != b.group || a.kind != b.kind || a.storage() == b.storage(),
                    "{a:?} and {b:?} share group and kind, and are stored apart"
                );
            }
            assert!(a.schema_name().ends_with(&*a.kind));
            assert_eq!(
                a.status != StatusRule::None,
                a.subresource("status").is_some(),
                "{a:?}"
            );
        }
    }

    #[test]
    fn finds_and_names() {
        let kind = find("apps", "v1", "deployments").unwrap();
        assert_eq!(kind.api_version(), "apps/v1");
        assert_eq!(kind.qualified_resource(), "deployments.apps");
        assert_eq!(kind.list_kind, "DeploymentList");
        assert!(find("apps", "v1beta1", "deployments").is_none());
        assert_eq!(of_object("v1", "Pod").unwrap().plural, "pods");
        let events = find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(events.storage().group, "");
        assert_eq!(events.storage_prefix(), "core/events");
    }
}
