//! A value seen through its type: where it comes apart, and how its parts are called.

use serde_json::{Map, Value};

use super::fieldset::FieldSet;
use super::path::{Plain, Step};
use crate::schema::{Struct, StructId, Type, Types};
use crate::topology::{Key, Relation, Topology};

/// A place in a type.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    types: &'a Types,
    ty: &'a Type,
    topology: Option<&'a Topology>,
}

/// How the value at a place comes apart.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// One value.
    Leaf,
    Struct(&'a Struct),
    /// An object with free keys, and the place of its values.
    Map(Place<'a>),
    /// A list whose items name themselves.
    Set(Place<'a>),
    /// A list whose items have names in these fields.
    Keyed(&'a [Key], Place<'a>),
}

static ANYTHING: Type = Type::Any;

impl<'a> Place<'a> {
    /// A whole object of the type.
    pub fn root(types: &'a Types, ty: &'a Type) -> Place<'a> {
        Place {
            types,
            ty,
            topology: None,
        }
    }

    pub fn ty(self) -> &'a Type {
        self.ty
    }

    pub fn struct_of(self, id: StructId) -> &'a Struct {
        self.types.get(id)
    }

    /// A field of a struct. What the struct doesn't declare is anything.
    pub fn field(self, of: &'a Struct, name: &str) -> Place<'a> {
        match of.fields.get(name) {
            Some(field) => Place {
                types: self.types,
                ty: &field.ty,
                topology: Some(&field.topology),
            },
            None => self.anything(),
        }
    }

    fn anything(self) -> Place<'a> {
        Place {
            types: self.types,
            ty: &ANYTHING,
            topology: None,
        }
    }

    fn inner(self, ty: &'a Type) -> Place<'a> {
        Place {
            types: self.types,
            ty,
            topology: self.topology.and_then(|t| t.items.as_deref()),
        }
    }

    fn relation(self) -> &'a Relation {
        self.topology.map_or(&Relation::Unsaid, |t| &t.relation)
    }

    /// What has no type goes by its value: objects by their keys, lists as one.
    pub fn shape(self, value: &Value) -> Shape<'a> {
        match (self.ty, self.relation()) {
            (_, Relation::Atomic) => Shape::Leaf,
            (Type::StructOrAny(_), _) if !value.is_object() => Shape::Leaf,
            (Type::Struct(id) | Type::StructOrAny(id), relation) => {
                let of = self.types.get(*id);
                match of.atomic && *relation != Relation::Granular {
                    true => Shape::Leaf,
                    false => Shape::Struct(of),
                }
            }
            (Type::Map(inner), _) => Shape::Map(self.inner(inner)),
            (Type::List(inner), Relation::Set) => Shape::Set(self.inner(inner)),
            (Type::List(inner), Relation::Map(keys)) => Shape::Keyed(keys, self.inner(inner)),
            (Type::Any, _) if value.is_object() => Shape::Map(self.anything()),
            _ => Shape::Leaf,
        }
    }

    /// The place of a list's items, whatever the list's relation.
    pub fn items(self) -> Place<'a> {
        match self.ty {
            Type::List(inner) | Type::Map(inner) => self.inner(inner),
            _ => self.anything(),
        }
    }

    /// Whether two values of this place are the same.
    pub fn same(self, a: &Value, b: &Value) -> bool {
        match (self.ty, a, b) {
            (Type::Quantity, Value::String(a), Value::String(b)) => {
                a == b
                    || match (crate::Quantity::parse(a), crate::Quantity::parse(b)) {
                        (Ok(a), Ok(b)) => a == b,
                        _ => false,
                    }
            }
            (_, Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            _ => a == b,
        }
    }

    /// The fields that the value sets: whether the value is one itself, and those below.
    pub fn fields(self, value: &Value) -> (bool, FieldSet) {
        let mut set = FieldSet::default();
        match self.shape(value) {
            Shape::Leaf => return (true, set),
            Shape::Struct(of) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let (mut member, below) = self.field(of, name).fields(value);
                    member |= empty_object(value) || !of.fields.contains_key(name);
                    set.add(Step::field(name), member, below);
                }
            }
            Shape::Map(inner) => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let (_, below) = inner.fields(value);
                    set.add(Step::field(name), true, below);
                }
            }
            shape @ (Shape::Set(inner) | Shape::Keyed(_, inner)) => {
                for item in items_of(value) {
                    // Items without a name belong to nobody.
                    if let Ok(step) = step_of(shape, item) {
                        let (_, below) = inner.fields(item);
                        set.add(step, true, below);
                    }
                }
            }
        }
        (false, set)
    }
}

/// Null counts as an object without fields.
fn empty_object(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// Whether it is a list with items or an object with fields.
pub fn has_content(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

pub fn items_of(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What an item of a list is called.
pub fn step_of(list: Shape<'_>, item: &Value) -> Result<Step, String> {
    match list {
        Shape::Keyed(keys, _) => key_of(keys, item),
        _ => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".into())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".into())
            }
            plain => Ok(Step::Item(Plain(plain.clone()))),
        },
    }
}

fn key_of(keys: &[Key], item: &Value) -> Result<Step, String> {
    let Value::Object(fields) = item else {
        return Err(match item {
            Value::Null => "associative list with keys may not have a null element".into(),
            _ => "associative list with keys may not have non-map elements".into(),
        });
    };
    let mut key: Vec<(String, Plain)> = keys
        .iter()
        .filter_map(|key| {
            let value = fields.get(&key.name).or(key.default.as_ref())?;
            Some((key.name.clone(), Plain(value.clone())))
        })
        .collect();
    if key.is_empty() {
        let names: Vec<&str> = keys.iter().map(|k| k.name.as_str()).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names
                .iter()
                .map(|name| format!("{name:?}"))
                .collect::<Vec<_>>()
                .join(" ")
        ));
    }
    key.sort();
    Ok(Step::Key(key))
}
