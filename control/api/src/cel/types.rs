//! The types of expressions, and those of the values that a schema describes.
//! Source: Kubernetes `pkg/apiserver/schema/cel/model`, cel-spec.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::crd::structural::Schema;

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Anything; checked when it is evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    Quantity,
    Ip,
    Cidr,
    Url,
    Semver,
    Format,
    Authorizer,
    PathCheck,
    GroupCheck,
    ResourceCheck,
    Decision,
    /// The type of types.
    Type,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
    Object(Arc<Object>),
    /// A type that a signature leaves open.
    Open(String),
}

/// An object with known fields, by their escaped names.
#[derive(Debug, Default, PartialEq)]
pub struct Object {
    pub fields: BTreeMap<String, Type>,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Type::Dyn => "dyn",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::Quantity => "kubernetes.Quantity",
            Type::Ip => "net.IP",
            Type::Cidr => "net.CIDR",
            Type::Url => "kubernetes.URL",
            Type::Semver => "kubernetes.Semver",
            Type::Format => "kubernetes.NamedFormat",
            Type::Authorizer => "kubernetes.authorization.Authorizer",
            Type::PathCheck => "kubernetes.authorization.PathCheck",
            Type::GroupCheck => "kubernetes.authorization.GroupCheck",
            Type::ResourceCheck => "kubernetes.authorization.ResourceCheck",
            Type::Decision => "kubernetes.authorization.Decision",
            Type::Type => "type",
            Type::Object(_) => "object",
            Type::Open(name) => name,
            Type::List(item) => return write!(f, "list({item})"),
            Type::Map(key, value) => return write!(f, "map({key}, {value})"),
            Type::Optional(inner) => return write!(f, "optional_type({inner})"),
        };
        f.write_str(name)
    }
}

impl Type {
    pub fn list(item: Type) -> Type {
        Type::List(Box::new(item))
    }

    pub fn optional(inner: Type) -> Type {
        Type::Optional(Box::new(inner))
    }
}

/// What stands for the open types of a signature.
pub type Bindings = BTreeMap<String, Type>;

/// Whether a value of `from` can be where `to` is wanted; binds the open types of `to`.
pub fn fits(from: &Type, to: &Type, bindings: &mut Bindings) -> bool {
    match (from, to) {
        (_, Type::Open(name)) => match bindings.get(name).cloned() {
            None | Some(Type::Dyn) => {
                bindings.insert(name.clone(), from.clone());
                true
            }
            Some(bound) => fits(from, &bound, bindings),
        },
        (Type::Dyn | Type::Open(_), _) | (_, Type::Dyn) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
            fits(a, b, bindings)
        }
        (Type::Map(ak, av), Type::Map(bk, bv)) => fits(ak, bk, bindings) && fits(av, bv, bindings),
        // Null is a value of everything that isn't a primitive.
        (Type::Null, Type::Object(_) | Type::Timestamp | Type::Duration | Type::Optional(_)) => {
            true
        }
        (a, b) => a == b,
    }
}

/// A type with its open types filled in.
pub fn filled(ty: &Type, bindings: &Bindings) -> Type {
    match ty {
        Type::Open(name) => bindings.get(name).cloned().unwrap_or(Type::Dyn),
        Type::List(item) => Type::list(filled(item, bindings)),
        Type::Optional(inner) => Type::optional(filled(inner, bindings)),
        Type::Map(key, value) => Type::Map(
            Box::new(filled(key, bindings)),
            Box::new(filled(value, bindings)),
        ),
        other => other.clone(),
    }
}

/// A type that both fit.
pub fn join(a: &Type, b: &Type) -> Type {
    match (a, b) {
        (a, b) if a == b => a.clone(),
        (Type::List(a), Type::List(b)) => Type::list(join(a, b)),
        (Type::Optional(a), Type::Optional(b)) => Type::optional(join(a, b)),
        (Type::Open(_), other) | (other, Type::Open(_)) => other.clone(),
        _ => Type::Dyn,
    }
}

/// What CEL keeps for itself.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name under which rules see a property; `None` if they can't.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let escaped = name
        .replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__");
    let mut chars = escaped.chars();
    let first = chars.next()?;
    let fits = (first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    fits.then_some(escaped)
}

/// The type of a value that a schema describes; `None` for what rules can't see. `resource`: the
/// root of an object.
pub fn declare(schema: &Schema, resource: bool) -> Option<Type> {
    if schema.int_or_string {
        return Some(Type::Dyn);
    }
    Some(match schema.ty.as_str() {
        "boolean" => Type::Bool,
        "integer" => Type::Int,
        "number" => Type::Double,
        "string" => match schema.checks.format.as_str() {
            "byte" => Type::Bytes,
            "date" | "date-time" => Type::Timestamp,
            "duration" => Type::Duration,
            _ => Type::String,
        },
        "array" => Type::list(declare(schema.items.as_deref()?, false)?),
        "object" => match &schema.additional {
            Some(Some(inner)) => {
                Type::Map(Box::new(Type::String), Box::new(declare(inner, false)?))
            }
            Some(None) => return None,
            None => object(schema, resource || schema.embedded),
        },
        _ => return None,
    })
}

fn object(schema: &Schema, resource: bool) -> Type {
    let mut fields: BTreeMap<String, Type> = schema
        .properties
        .iter()
        .filter_map(|(name, inner)| Some((escape(name)?, declare(inner, false)?)))
        .collect();
    if resource {
        let text = |names: [&str; 2]| names.map(|n| (n.to_string(), Type::String));
        fields.extend(text(["apiVersion", "kind"]));
        let metadata = Object {
            fields: text(["name", "generateName"]).into_iter().collect(),
        };
        fields.insert("metadata".into(), Type::Object(Arc::new(metadata)));
    }
    Type::Object(Arc::new(Object { fields }))
}
