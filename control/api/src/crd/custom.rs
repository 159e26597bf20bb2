//! The kinds that a CustomResourceDefinition defines: a kind a served version, and what makes them
//! different from built-in ones.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde_json::{Number, Value, json};

use super::json_path::JsonPath;
use super::structural::Schema;
use super::{names, openapi, prune, rules, validate};
use crate::apply;
use crate::codec;
use crate::json::{self, at, flag, list, text};
use crate::registry::{
    ALL, Behaviour, Kind, NameRule, SCALE, STATUS, Selectable, StatusRule, Subresource,
};
use crate::schema::Types;
use crate::status::Errors;
use crate::table::Now;
use crate::time;

/// All versions of a definition; those that aren't served may still be stored.
#[derive(Debug)]
struct Family {
    group: String,
    versions: Vec<Version>,
    /// Index of the version in which objects are stored.
    storage: usize,
    terminating: bool,
}

#[derive(Debug)]
struct Version {
    name: String,
    schema: Schema,
    /// As it was written.
    source: Value,
    /// As apply sees it, made when somebody tracks fields first.
    types: OnceLock<Types>,
    columns: Vec<CustomColumn>,
    scale: Option<ScalePaths>,
    warning: Option<String>,
    /// Dotted paths of the fields that selectors can name.
    selectable: Vec<String>,
}

#[derive(Debug)]
pub struct CustomColumn {
    pub name: String,
    pub ty: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    path: JsonPath,
}

/// Where a kind has what its scale shows; dotted paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// Of a selector that is text. "" for none.
    pub selector: String,
}

/// One version of a definition.
#[derive(Clone, Debug)]
pub struct Custom {
    family: Arc<Family>,
    index: usize,
}

/// The kinds of a definition's served versions. The definition has been validated, and got its
/// names.
pub fn kinds(crd: &Value) -> Vec<Kind> {
    let versions: Vec<&Value> = list(crd, "spec.versions").iter().collect();
    let storage = versions.iter().position(|v| flag(v, "storage"));
    let group = text(crd, "spec.group").to_string();
    let family = Arc::new(Family {
        versions: versions.iter().map(|v| Version::of(crd, v)).collect(),
        storage: storage.unwrap_or(0),
        terminating: names::holds(crd, "Terminating"),
        group,
    });
    let mut served: Vec<usize> = (0..versions.len())
        .filter(|i| flag(versions[*i], "served"))
        .collect();
    served.sort_by(|a, b| {
        priority(&family.versions[*b].name).cmp(&priority(&family.versions[*a].name))
    });
    served
        .into_iter()
        .map(|index| kind(crd, versions[index], &family, index))
        .collect()
}

/// The order of versions: stable ones before betas before alphas, higher ones first, and other
/// names last. Greater is preferred.
pub fn priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = || (0, 0, 0, std::cmp::Reverse(version.to_string()));
    let Some(rest) = version.strip_prefix('v') else {
        return other();
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let Ok(major) = rest[..end].parse() else {
        return other();
    };
    let none = std::cmp::Reverse(String::new());
    let minor = |text: &str| text.parse::<u64>().ok();
    match &rest[end..] {
        "" => (3, major, 0, none),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(n), _) if minor(n).is_some() => (2, major, minor(n).unwrap_or(0), none),
            (_, Some(n)) if minor(n).is_some() => (1, major, minor(n).unwrap_or(0), none),
            _ => other(),
        },
    }
}

fn kind(crd: &Value, version: &Value, family: &Arc<Family>, index: usize) -> Kind {
    let accepted = |field: &str| -> Cow<'static, str> {
        text(crd, &format!("status.acceptedNames.{field}"))
            .to_string()
            .into()
    };
    let all = |field: &str| -> Vec<Cow<'static, str>> {
        list(crd, &format!("status.acceptedNames.{field}"))
            .iter()
            .filter_map(|n| n.as_str().map(|n| n.to_string().into()))
            .collect()
    };
    let has_status = at(version, "subresources.status").is_some();
    let mut subresources: Vec<Subresource> = Vec::new();
    if family.versions[index].scale.is_some() {
        subresources.push(SCALE);
    }
    if has_status {
        subresources.push(STATUS);
    }
    let fields = list(version, "selectableFields").iter().map(|field| {
        let path = text(field, "jsonPath").trim_start_matches('.').to_string();
        Selectable {
            label: path.clone().into(),
            path: path.into(),
            absent: "",
        }
    });
    let custom = Custom {
        family: family.clone(),
        index,
    };
    Kind {
        group: family.group.clone().into(),
        version: family.versions[index].name.clone().into(),
        kind: accepted("kind"),
        list_kind: accepted("listKind"),
        plural: accepted("plural"),
        singular: accepted("singular"),
        short_names: all("shortNames"),
        categories: all("categories"),
        namespaced: text(crd, "spec.scope") == "Namespaced",
        verbs: ALL,
        subresources,
        name_rule: NameRule::Dns1123Subdomain,
        generation: true,
        status: match has_status {
            true => StatusRule::Subresource,
            false => StatusRule::None,
        },
        fields: fields.collect(),
        behaviour: Behaviour::Custom(Box::new(custom)),
    }
}

impl Version {
    fn of(crd: &Value, version: &Value) -> Version {
        let source = at(version, "schema.openAPIV3Schema")
            .cloned()
            .unwrap_or_default();
        let name = text(version, "name").to_string();
        let warning =
            flag(version, "deprecated").then(|| match text(version, "deprecationWarning") {
                "" => format!(
                    "{}/{name} {} is deprecated",
                    text(crd, "spec.group"),
                    text(crd, "spec.names.kind")
                ),
                given => given.to_string(),
            });
        let dotted =
            |scale: &Value, field: &str| text(scale, field).trim_start_matches('.').to_string();
        Version {
            schema: Schema::compile(&source),
            columns: columns(version),
            scale: at(version, "subresources.scale").map(|scale| ScalePaths {
                spec_replicas: dotted(scale, "specReplicasPath"),
                status_replicas: dotted(scale, "statusReplicasPath"),
                selector: dotted(scale, "labelSelectorPath"),
            }),
            selectable: list(version, "selectableFields")
                .iter()
                .map(|field| dotted(field, "jsonPath"))
                .collect(),
            source,
            types: OnceLock::new(),
            name,
            warning,
        }
    }
}

fn columns(version: &Value) -> Vec<CustomColumn> {
    let given = list(version, "additionalPrinterColumns");
    let age = [
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        "description": "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"}),
    ];
    let given = if given.is_empty() { &age } else { given };
    given
        .iter()
        .filter_map(|column| {
            Some(CustomColumn {
                name: text(column, "name").to_string(),
                ty: text(column, "type").to_string(),
                format: text(column, "format").to_string(),
                description: match text(column, "description") {
                    "" => format!(
                        "Custom resource definition column (in JSONPath format): {}",
                        text(column, "jsonPath")
                    ),
                    given => given.to_string(),
                },
                priority: json::int(column, "priority").unwrap_or(0),
                path: JsonPath::parse(text(column, "jsonPath")).ok()?,
            })
        })
        .collect()
}

impl Custom {
    fn version(&self) -> &Version {
        &self.family.versions[self.index]
    }

    pub fn schema(&self) -> &Schema {
        &self.version().schema
    }

    /// The schema as the definition has it.
    pub fn source(&self) -> &Value {
        &self.version().source
    }

    /// The types of the schema; the object's is `apply::custom::ROOT`.
    pub fn types(&self) -> &Types {
        let version = self.version();
        version
            .types
            .get_or_init(|| apply::custom::compile(&version.source))
    }

    pub fn is_storage_version(&self) -> bool {
        self.index == self.family.storage
    }

    /// Whether the definition is being deleted, and takes no new objects.
    pub fn terminating(&self) -> bool {
        self.family.terminating
    }

    /// What every answer about a deprecated version warns of.
    pub fn warning(&self) -> Option<&str> {
        self.version().warning.as_deref()
    }

    pub fn scale(&self) -> Option<&ScalePaths> {
        self.version().scale.as_ref()
    }

    /// Name in OpenAPI: `com.example.v1.Widget`.
    pub fn schema_name(&self, kind: &str) -> String {
        let reversed: Vec<&str> = self.family.group.rsplit('.').collect();
        format!("{}.{}.{kind}", reversed.join("."), self.version().name)
    }

    pub fn definition(&self, kind: &Kind) -> Value {
        openapi::definition(kind, self.source())
    }

    /// Reads a value as an object of this version: its own metadata and that of embedded objects by
    /// type, and pruned.
    pub(crate) fn read(&self, mut object: Value) -> codec::Read {
        if !object.is_object() {
            return Err("the body is not a JSON object".into());
        }
        for field in ["apiVersion", "kind"] {
            if object.get(field).is_some_and(|v| !v.is_string()) {
                return Err(format!("{field} is not a string"));
            }
        }
        numbers(&mut object);
        let mut unknown = Vec::new();
        coerce(&mut object, self.schema(), true, "", &mut unknown)?;
        prune::prune(&mut object, self.schema(), &mut unknown);
        Ok((object, unknown))
    }

    pub fn default(&self, object: &mut Value) {
        prune::fill(object, self.schema());
    }

    /// An object in this version, from whatever version it is in: what that version has defaults
    /// for is filled in, then what this one doesn't know is dropped.
    pub fn served(&self, object: Value) -> Value {
        self.convert(object, self.index)
    }

    /// An object in the version in which it is stored.
    pub fn stored(&self, object: Value) -> Value {
        self.convert(object, self.family.storage)
    }

    fn convert(&self, mut object: Value, to: usize) -> Value {
        let to = &self.family.versions[to];
        let from = text(&object, "apiVersion")
            .strip_prefix(self.family.group.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|name| self.family.versions.iter().find(|v| v.name == name));
        if let Some(from) = from {
            prune::fill(&mut object, &from.schema);
        }
        if let Some(fields) = object.as_object_mut() {
            fields.insert(
                "apiVersion".into(),
                format!("{}/{}", self.family.group, to.name).into(),
            );
        }
        prune::prune(&mut object, &to.schema, &mut Vec::new());
        object
    }

    pub fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let before = errors.0.len();
        validate::validate(object, old, self.schema(), "", errors);
        if errors.0.len() == before {
            rules::check(object, old, self.schema(), errors);
        } else if self.schema().has_rules {
            errors.invalid("<nil>", "null", "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation");
        }
    }

    /// Where the fields are that a selector of any version can name.
    pub fn indexed(&self) -> impl Iterator<Item = &str> {
        let versions = self.family.versions.iter();
        versions.flat_map(|v| v.selectable.iter().map(String::as_str))
    }

    pub fn columns(&self) -> &[CustomColumn] {
        &self.version().columns
    }

    pub fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let name = text(object, "metadata.name").into();
        let cells = self.columns().iter().map(|column| column.cell(object, now));
        std::iter::once(name).chain(cells).collect()
    }
}

impl CustomColumn {
    fn cell(&self, object: &Value, now: Now) -> Value {
        let found = self.path.find(object);
        let Some(first) = found.first() else {
            return match self.ty.as_str() {
                "date" => "<unknown>".into(),
                _ => Value::Null,
            };
        };
        match (self.ty.as_str(), first) {
            ("string", Value::String(_)) => (*first).clone(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(n)) => n
                .as_i64()
                .or_else(|| n.as_f64().map(|f| f as i64))
                .map_or(Value::Null, Value::from),
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
            ("date", value) => time::age(Some(value), now).into(),
            _ => Value::Null,
        }
    }
}

/// Reads the metadata of the object, and of objects embedded in it, by its type.
fn coerce(
    value: &mut Value,
    schema: &Schema,
    root: bool,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            if (root || schema.embedded)
                && let Some(metadata) = fields.get_mut("metadata")
            {
                let at = validate::join(path, "metadata");
                *metadata = codec::metadata(metadata.take(), &at, unknown)?;
            }
            for (key, value) in fields.iter_mut() {
                let inner = match (schema.properties.get(key), &schema.additional) {
                    (Some(inner), _) => inner,
                    (None, Some(Some(inner))) => inner,
                    _ => continue,
                };
                coerce(value, inner, false, &validate::join(path, key), unknown)?;
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else {
                return Ok(());
            };
            for (i, item) in items.iter_mut().enumerate() {
                coerce(item, inner, false, &format!("{path}[{i}]"), unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Writes numbers as Go does, which has read them as integers or floats: `2.0` and `1e3` are 2 and 1000.
fn numbers(value: &mut Value) {
    match value {
        Value::Number(n) if !n.is_i64() => {
            let float = n.as_f64().filter(|f| f.fract() == 0.0);
            // Up to where a float and the integer are the same.
            let exact = float.filter(|f| f.abs() < (1_u64 << 63) as f64);
            if let Some(float) = exact {
                *n = Number::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(numbers),
        Value::Object(fields) => fields.values_mut().for_each(numbers),
        _ => {}
    }
}
