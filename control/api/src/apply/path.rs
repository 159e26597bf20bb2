//! Steps of a path into an object, as `FieldsV1` writes them and as messages show them.
//! Source: structured-merge-diff `fieldpath`.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

/// One step. Steps have an order, which is that of written sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field of a struct, a key of a map.
    Field(String),
    /// The item of a list that has these values in these fields, by name.
    Key(Vec<(String, Plain)>),
    /// The item of a set.
    Item(Plain),
    /// The item at a place. Only decoded: no list here goes by places.
    Index(i64),
}

/// A JSON value with an order: numbers, strings, booleans, lists, objects, null.
#[derive(Clone, Debug)]
pub struct Plain(pub Value);

impl Plain {
    fn rank(&self) -> u8 {
        match &self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl Ord for Plain {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                // JSON has no NaN.
                _ => a
                    .as_f64()
                    .partial_cmp(&b.as_f64())
                    .unwrap_or(Ordering::Equal),
            },
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
                self.0.to_string().cmp(&other.0.to_string())
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Plain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Plain {}

impl Step {
    pub fn field(name: &str) -> Step {
        Step::Field(name.to_string())
    }

    /// `f:name`, `k:{"name":"a"}`, `v:"x"`, `i:0`.
    pub fn encode(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(fields) => {
                let fields: Map<String, Value> = fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.0.clone()))
                    .collect();
                format!("k:{}", Value::Object(fields))
            }
            Step::Item(value) => format!("v:{}", value.0),
            Step::Index(index) => format!("i:{index}"),
        }
    }

    /// `Ok(None)`: a form of steps that is not known, which a later version may have written.
    pub fn decode(text: &str) -> Result<Option<Step>, String> {
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err(format!("path element too short: {text:?}"));
        };
        let json = || -> Result<Value, String> {
            serde_json::from_str(rest).map_err(|e| format!("parsing {rest:?}: {e}"))
        };
        Ok(Some(match kind {
            "f:" => Step::field(rest),
            "v:" => Step::Item(Plain(json()?)),
            "i:" => Step::Index(rest.parse().map_err(|e| format!("parsing {rest:?}: {e}"))?),
            "k:" => match json()? {
                Value::Object(fields) => {
                    let mut fields: Vec<(String, Plain)> = fields
                        .into_iter()
                        .map(|(name, value)| (name, Plain(value)))
                        .collect();
                    fields.sort();
                    Step::Key(fields)
                }
                _ => return Err(format!("the key is no object: {rest:?}")),
            },
            _ if kind.ends_with(':') => return Ok(None),
            _ => return Err(format!("missing colon: {text:?}")),
        }))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", value.0)?;
                }
                f.write_str("]")
            }
            Step::Item(value) => write!(f, "[={}]", value.0),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path as messages show it: `.spec.containers[name="a"].image`.
pub fn shown(path: &[Step]) -> String {
    path.iter().map(Step::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_are_written_and_read() {
        let key = Step::Key(vec![
            ("port".into(), Plain(json!(80))),
            ("protocol".into(), Plain(json!("TCP"))),
        ]);
        for (step, text, shown) in [
            (Step::field("spec"), "f:spec", ".spec"),
            (
                key,
                r#"k:{"port":80,"protocol":"TCP"}"#,
                r#"[port=80,protocol="TCP"]"#,
            ),
            (
                Step::Item(Plain(json!("a\"b"))),
                r#"v:"a\"b""#,
                r#"[="a\"b"]"#,
            ),
            (Step::Index(3), "i:3", "[3]"),
        ] {
            assert_eq!(step.encode(), text);
            assert_eq!(Step::decode(text), Ok(Some(step.clone())));
            assert_eq!(step.to_string(), shown);
        }
        let swapped = Step::decode(r#"k:{"protocol":"TCP","port":80}"#)
            .unwrap()
            .unwrap();
        assert_eq!(swapped.encode(), r#"k:{"port":80,"protocol":"TCP"}"#);
        assert_eq!(Step::decode("z:later"), Ok(None));
        for bad in ["", "f", "fx", "k:[]", "k:{", "v:", "i:x", "é"] {
            assert!(Step::decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_have_an_order() {
        let ordered = [
            Step::field("a"),
            Step::field("b"),
            Step::Key(vec![("a".into(), Plain(json!(2)))]),
            Step::Key(vec![("a".into(), Plain(json!(10)))]),
            Step::Key(vec![("a".into(), Plain(json!("1")))]),
            Step::Item(Plain(json!(1.5))),
            Step::Item(Plain(json!(2))),
            Step::Item(Plain(json!("x"))),
            Step::Item(Plain(json!(true))),
            Step::Item(Plain(json!(null))),
            Step::Index(0),
        ];
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }
}
