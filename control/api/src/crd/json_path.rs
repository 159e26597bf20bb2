//! The JSONPath of printer columns: fields, indices, wildcards and filters by comparison, as
//! client-go's `util/jsonpath` has them. What isn't understood is refused when the definition is
//! written.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Filter {
        path: JsonPath,
        /// `None`: the path need only lead somewhere.
        test: Option<(Comparison, Value)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const COMPARISONS: &[(&str, Comparison)] = &[
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl JsonPath {
    /// Parses `.spec.a[0]['b'].c[?(@.type=="Ready")].status`.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            rest = match rest.as_bytes()[0] {
                b'.' => field(&rest[1..], &mut steps)?,
                b'[' => bracket(&rest[1..], &mut steps)?,
                _ => return Err(format!("{rest:?}: expected . or [")),
            };
        }
        Ok(JsonPath { steps })
    }

    /// Everything that the path leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|v| step.apply(v)).collect();
        }
        found
    }
}

/// A name up to the next step; `\.` is a dot of the name.
fn field<'a>(rest: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    if rest.starts_with('.') {
        return Err("recursive descent (..) is not supported".into());
    }
    let mut name = String::new();
    let mut chars = rest.char_indices();
    let mut end = rest.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = at;
                break;
            }
            c if c.is_whitespace() || "{}()|".contains(c) => {
                return Err(format!("unexpected {c:?} in a name"));
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        // `.[0]` and a lone `.` add nothing.
        "" => {}
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    Ok(&rest[end..])
}

fn bracket<'a>(rest: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    if let Some(rest) = rest.strip_prefix("?(") {
        let end = rest.find(")]").ok_or("unterminated filter")?;
        steps.push(filter(&rest[..end])?);
        return Ok(&rest[end + 2..]);
    }
    let end = rest.find(']').ok_or("unterminated array")?;
    let inner = rest[..end].trim();
    let quoted = ['\'', '"'].iter().find_map(|quote| {
        let inner = inner.strip_prefix(*quote)?;
        inner.strip_suffix(*quote)
    });
    let step = match (inner, quoted) {
        (_, Some(name)) => {
            // Read as a path of its own, so that a dot of the name needs its backslash here too.
            let path = JsonPath::parse(&format!(".{name}"))?;
            steps.extend(path.steps);
            return Ok(&rest[end + 1..]);
        }
        ("*", None) => Step::All,
        (number, None) => {
            let index = number.parse::<i64>();
            Step::Index(index.map_err(|_| format!("array index {number:?} is not supported"))?)
        }
    };
    steps.push(step);
    Ok(&rest[end + 1..])
}

fn filter(text: &str) -> Result<Step, String> {
    let text = text.trim();
    let found = COMPARISONS
        .iter()
        .filter_map(|(sign, comparison)| Some((text.find(sign)?, sign, *comparison)))
        .min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
    let (path, test) = match found {
        None => (text, None),
        Some((at, sign, comparison)) => {
            let right = text[at + sign.len()..].trim();
            let value = match right.strip_prefix('\'').and_then(|r| r.strip_suffix('\'')) {
                Some(text) => Value::from(text),
                None => serde_json::from_str(right)
                    .map_err(|_| format!("unrecognized value {right:?} in a filter"))?,
            };
            (text[..at].trim(), Some((comparison, value)))
        }
    };
    let path = path
        .strip_prefix('@')
        .ok_or_else(|| format!("a filter must begin with @, not {path:?}"))?;
    Ok(Step::Filter {
        path: JsonPath::parse(path)?,
        test,
    })
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(items)) => {
                let at = match *index {
                    i if i < 0 => items.len().checked_sub(i.unsigned_abs() as usize),
                    i => usize::try_from(i).ok(),
                };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Step::All, Value::Array(items)) => items.iter().collect(),
            (Step::All, Value::Object(fields)) => fields.values().collect(),
            (Step::Filter { path, test }, Value::Array(items)) => items
                .iter()
                .filter(|item| {
                    let found = path.find(item);
                    match test {
                        None => !found.is_empty(),
                        Some((comparison, value)) => {
                            found.iter().any(|f| compare(*comparison, f, value))
                        }
                    }
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn compare(comparison: Comparison, left: &Value, right: &Value) -> bool {
    use std::cmp::Ordering;
    let ordering = match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a
            .as_f64()
            .zip(b.as_f64())
            .and_then(|(a, b)| a.partial_cmp(&b)),
        (a, b) if a == b => Some(Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => ordering == Some(Ordering::Equal),
        Comparison::NotEqual => ordering != Some(Ordering::Equal),
        Comparison::Less => ordering == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => ordering == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => {
            matches!(ordering, Some(Ordering::Greater | Ordering::Equal))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "x"}},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "n": 3},
                {"type": "Other", "status": "False", "n": 5},
            ]},
        });
        let find = |path: &str| -> Vec<Value> {
            let path = JsonPath::parse(path).unwrap();
            path.find(&object).into_iter().cloned().collect()
        };
        assert_eq!(find(".metadata.labels.a\\.b/c"), [json!("x")]);
        assert_eq!(find(".metadata.labels['a\\.b/c']"), [json!("x")]);
        assert_eq!(find(".metadata.labels['a.b/c']"), Vec::<Value>::new());
        assert_eq!(find("['metadata'].labels['a\\.b/c']"), [json!("x")]);
        assert_eq!(
            find(".status.conditions[?(@.type==\"Ready\")].status"),
            [json!("True")]
        );
        assert_eq!(find(".status.conditions[?(@.type=='Other')].n"), [json!(5)]);
        assert_eq!(
            find(".status.conditions[?(@.n>=3)].n"),
            [json!(3), json!(5)]
        );
        assert_eq!(find(".status.conditions[-1].type"), [json!("Other")]);
        assert_eq!(find(".status.conditions[*].n"), [json!(3), json!(5)]);
        assert_eq!(find(".status.gone"), Vec::<Value>::new());
        for bad in [
            "spec",
            "..a",
            ".a[",
            ".a[x]",
            ".a[?(b==1)]",
            ".a[?(@.b==c)]",
            ".a b",
        ] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
