//! Label selectors (`a=b,c!=d,e in (f,g),!h`) and field selectors, as query parameters have them,
//! and `metav1.LabelSelector` objects.

mod parse;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::json;
use crate::registry::Kind;
use crate::status::{ApiError, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// A conjunction of requirements. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
    /// A selector that matches nothing whatever the labels (a null `metav1.LabelSelector`).
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        LabelSelector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Parses the query parameter `labelSelector`.
    pub fn parse(text: &str) -> Result<Self> {
        parse::parse(text).map_err(ApiError::bad_request)
    }

    /// From a `metav1.LabelSelector`: null selects nothing, `{}` everything.
    pub fn from_object(selector: Option<&Value>) -> Self {
        let Some(selector) = selector.filter(|s| s.is_object()) else {
            return Self::nothing();
        };
        let mut requirements = Vec::new();
        for (key, value) in json::map(selector, "matchLabels").into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or("").to_string()],
            });
        }
        for expression in json::list(selector, "matchExpressions") {
            let operator = match json::text(expression, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                // Validation lets no other operator in; what slipped by must select nothing.
                _ => return Self::nothing(),
            };
            requirements.push(Requirement {
                key: json::text(expression, "key").to_string(),
                operator,
                values: json::list(expression, "values")
                    .iter()
                    .filter_map(|v| v.as_str().map(str::to_string))
                    .collect(),
            });
        }
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    /// Whether an object's labels satisfy the selector.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(json::map(object, "metadata.labels"))
    }

    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|r| {
                let value = labels.and_then(|l| l.get(&r.key)).and_then(Value::as_str);
                let listed = |v: &str| r.values.iter().any(|candidate| candidate == v);
                match r.operator {
                    Operator::In => value.is_some_and(listed),
                    Operator::NotIn => !value.is_some_and(listed),
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                    Operator::GreaterThan | Operator::LessThan => {
                        let number = value.and_then(|v| v.parse::<i64>().ok());
                        let bound = r.values.first().and_then(|v| v.parse::<i64>().ok());
                        match (number, bound) {
                            (Some(n), Some(b)) if r.operator == Operator::GreaterThan => n > b,
                            (Some(n), Some(b)) => n < b,
                            _ => false,
                        }
                    }
                }
            })
    }
}

impl std::fmt::Display for LabelSelector {
    /// `metav1.FormatLabelSelector`, as tables show it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nothing || self.requirements.is_empty() {
            return f.write_str("<none>");
        }
        let mut parts: Vec<(&str, String)> = self
            .requirements
            .iter()
            .map(|r| {
                let key = &r.key;
                let mut values = r.values.clone();
                values.sort();
                let values = values.join(",");
                let part = match r.operator {
                    Operator::In if r.values.len() == 1 => format!("{key}={values}"),
                    Operator::In => format!("{key} in ({values})"),
                    Operator::NotIn => format!("{key} notin ({values})"),
                    Operator::Exists => key.clone(),
                    Operator::DoesNotExist => format!("!{key}"),
                    Operator::GreaterThan => format!("{key}>{values}"),
                    Operator::LessThan => format!("{key}<{values}"),
                };
                (key.as_str(), part)
            })
            .collect();
        parts.sort_by(|a, b| a.0.cmp(b.0));
        let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
        f.write_str(&parts.join(","))
    }
}

/// A parsed `fieldSelector`: label, value, and whether they must be equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

impl FieldSelector {
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Parses the query parameter `fieldSelector`. A field that the kind doesn't serve is refused
    /// by name with 400.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (field, equal, value) = split_operator(&part).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                ))
            })?;
            let value = unescape(value)
                .map_err(|why| ApiError::bad_request(format!("invalid field selector: {why}")))?;
            if !serves(kind, field) {
                return Err(ApiError::bad_request(unsupported(kind, field)));
            }
            if !value.is_empty() || !equal || !field.is_empty() {
                terms.push(FieldTerm {
                    field: field.to_string(),
                    equal,
                    value,
                });
            }
        }
        Ok(FieldSelector { terms })
    }

    /// Whether an object, in its stored form, has the fields.
    pub fn matches(&self, kind: &Kind, stored: &Value) -> bool {
        self.terms.iter().all(|term| {
            let value = field_value(kind, &term.field, stored);
            (value.as_deref() == Some(term.value.as_str())) == term.equal
        })
    }

    /// The value that a field must equal, if the selector says so: for `metadata.name` a list
    /// becomes a read of one key.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| t.equal && t.field == field)
            .map(|t| t.value.as_str())
    }
}

/// Whether a kind's objects can be selected by the field.
fn serves(kind: &Kind, field: &str) -> bool {
    match field {
        "metadata.name" => true,
        // Kinds without fields of their own take it whatever their scope.
        "metadata.namespace" => kind.namespaced || has_plain_fields(kind),
        _ => kind.fields.iter().any(|f| f.label == field),
    }
}

/// A built-in kind that is selected by name and namespace alone.
fn has_plain_fields(kind: &Kind) -> bool {
    kind.fields.is_empty() && kind.as_custom().is_none()
}

/// What Kubernetes says about a field that a kind doesn't serve: each kind has words of its own.
fn unsupported(kind: &Kind, field: &str) -> String {
    match kind.id() {
        ("batch", "Job") => format!("field label {field:?} not supported for batchv1.Job"),
        ("resource.k8s.io", "ResourceSlice") => format!(
            "field label not supported for {}, Kind=ResourceSlice: {field}",
            kind.api_version()
        ),
        _ if has_plain_fields(kind) => format!(
            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ),
        _ => format!("field label not supported: {field}"),
    }
}

/// The value of a selectable field of a stored object; `None` for a field that isn't selectable.
pub fn field_value<'a>(kind: &Kind, field: &str, stored: &'a Value) -> Option<Cow<'a, str>> {
    let (path, absent) = match field {
        "metadata.name" | "metadata.namespace" => (field, ""),
        _ => {
            let found = kind.fields.iter().find(|f| f.label == field)?;
            (&*found.path, found.absent)
        }
    };
    let value = match json::at(stored, path) {
        Some(Value::String(s)) => Cow::Borrowed(s.as_str()),
        Some(Value::Bool(b)) => Cow::Borrowed(if *b { "true" } else { "false" }),
        Some(other) => Cow::Owned(other.to_string()),
        None => Cow::Owned(absent.to_string()),
    };
    if field == "source" && value.is_empty() {
        return Some(Cow::Borrowed(json::text(stored, "reportingComponent")));
    }
    Some(value)
}

fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = terms.last_mut() {
            last.push(c);
        }
    }
    terms
}

/// At the first operator: `a!b=c` selects by the field `a!b`.
fn split_operator(term: &str) -> Option<(&str, bool, &str)> {
    let at = term
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| term[*at..].starts_with("!=") || term[*at..].starts_with('='))?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, false, value));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, true, value))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                other => {
                    return Err(format!(
                        "invalid escape sequence: \\{}",
                        other.map(String::from).unwrap_or_default()
                    ));
                }
            },
            // Go prints the character as its number.
            '=' => return Err("unescaped character in value: 61".into()),
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector)
            .unwrap()
            .matches(&json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn label_selectors() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "app in (web, db)",
            "app notin (db)",
            "app",
            "!gone",
            "app=web,tier=front",
            "gone!=x",
            "gone notin (x)",
            "n>4",
            "n<6",
            " app = web , tier ",
        ] {
            assert!(matches(yes, labels.clone()), "{yes:?}");
        }
        for no in [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "gone",
            "!app",
            "app=web,tier=back",
            "n>5",
            "app>1",
        ] {
            assert!(!matches(no, labels.clone()), "{no:?}");
        }
        assert!(matches("app=", json!({"app": ""})));
        for bad in [
            "=x", "a=b=c", "a in b", "a in (b", "a,,b", "a b", "a=%", "x/y/z=1", "a>x",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn selector_objects() {
        assert!(!LabelSelector::from_object(None).matches(&json!({})));
        assert!(LabelSelector::from_object(Some(&json!({}))).matches(&json!({})));
        let s = LabelSelector::from_object(Some(&json!({
            "matchLabels": {"b": "1"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}],
        })));
        assert_eq!(s.to_string(), "a in (x,y),b=1");
        assert!(s.matches(&json!({"metadata": {"labels": {"a": "x", "b": "1"}}})));
        assert!(!s.matches(&json!({"metadata": {"labels": {"a": "z", "b": "1"}}})));
    }

    #[test]
    fn field_selectors() {
        let pods = find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"},
                         "status": {"phase": "Running"}});
        let yes = |s: &str| FieldSelector::parse(pods, s).unwrap().matches(pods, &pod);
        assert!(yes("spec.nodeName=n1,status.phase!=Failed"));
        assert!(yes("metadata.name==a"));
        assert!(yes("spec.hostNetwork=false"));
        assert!(!yes("spec.nodeName="));
        let error = FieldSelector::parse(pods, "spec.foo=1").unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error
                .message
                .contains("field label not supported: spec.foo")
        );
        let refused = |plural: (&str, &str, &str), text: &str| {
            let kind = find(plural.0, plural.1, plural.2).unwrap();
            FieldSelector::parse(kind, text).unwrap_err().message
        };
        for (plural, text, message) in [
            (
                ("", "v1", "pods"),
                "metadata.name=a,nonsense",
                "invalid selector: 'metadata.name=a,nonsense'; can't understand 'nonsense'",
            ),
            (
                ("", "v1", "pods"),
                "metadata.name=a=b",
                "invalid field selector: unescaped character in value: 61",
            ),
            (
                ("", "v1", "pods"),
                "metadata.name=\\x",
                "invalid field selector: invalid escape sequence: \\x",
            ),
            (
                ("", "v1", "pods"),
                "a!b=c",
                "field label not supported: a!b",
            ),
            (
                ("", "v1", "configmaps"),
                "data=a",
                "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
            (
                ("", "v1", "nodes"),
                "metadata.namespace=a",
                "field label not supported: metadata.namespace",
            ),
            (
                ("batch", "v1", "jobs"),
                "x=a",
                "field label \"x\" not supported for batchv1.Job",
            ),
            (
                ("resource.k8s.io", "v1", "resourceslices"),
                "x=a",
                "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: x",
            ),
        ] {
            assert_eq!(refused(plural, text), message);
        }
        assert_eq!(
            FieldSelector::parse(pods, "metadata.name=a")
                .unwrap()
                .required("metadata.name"),
            Some("a")
        );
    }
}
