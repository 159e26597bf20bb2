//! Label selectors, in a canonical order so that equal ones compare equal.
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::model::Labels;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// All must hold; sorted, without duplicates. Empty selects everything.
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Requirement {
    key: String,
    op: Op,
    values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Op {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(Debug, thiserror::Error)]
pub enum SelectorError {
    #[error("the operator {0:?} of a selector is none of In, NotIn, Exists, DoesNotExist")]
    Operator(String),
}

impl Selector {
    pub fn everything() -> Selector {
        Selector::default()
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Adds `key = value`.
    pub fn label(&mut self, key: String, value: String) {
        self.add(Requirement {
            key,
            op: Op::In,
            values: BTreeSet::from([value]),
        });
    }

    /// Adds a match expression, as Kubernetes writes it.
    pub fn expression(
        &mut self,
        key: String,
        operator: &str,
        values: Vec<String>,
    ) -> Result<(), SelectorError> {
        let op = match operator {
            "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::DoesNotExist,
            other => return Err(SelectorError::Operator(other.to_owned())),
        };
        self.add(Requirement {
            key,
            op,
            values: values.into_iter().collect(),
        });
        Ok(())
    }

    fn add(&mut self, requirement: Requirement) {
        if let Err(at) = self.requirements.binary_search(&requirement) {
            self.requirements.insert(at, requirement);
        }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| {
            let value = labels.get(&r.key);
            match r.op {
                Op::In => value.is_some_and(|v| r.values.contains(v)),
                // As in Kubernetes: without the label, NotIn holds.
                Op::NotIn => value.is_none_or(|v| !r.values.contains(v)),
                Op::Exists => value.is_some(),
                Op::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let values: Vec<&str> = r.values.iter().map(String::as_str).collect();
            match (r.op, values.as_slice()) {
                (Op::In, [one]) => write!(f, "{}={one}", r.key)?,
                (Op::In, all) => write!(f, "{} in ({})", r.key, all.join(","))?,
                (Op::NotIn, all) => write!(f, "{} notin ({})", r.key, all.join(","))?,
                (Op::Exists, _) => f.write_str(&r.key)?,
                (Op::DoesNotExist, _) => write!(f, "!{}", r.key)?,
            }
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn operators() {
        let mut s = Selector::everything();
        assert!(s.matches(&labels(&[])));
        s.expression("a".into(), "In", vec!["1".into(), "2".into()])
            .unwrap();
        s.expression("b".into(), "NotIn", vec!["x".into()]).unwrap();
        assert!(s.matches(&labels(&[("a", "1")])));
        assert!(s.matches(&labels(&[("a", "2"), ("b", "y")])));
        assert!(!s.matches(&labels(&[("a", "3")])));
        assert!(!s.matches(&labels(&[("a", "1"), ("b", "x")])));
        s.expression("c".into(), "Exists", vec![]).unwrap();
        s.expression("d".into(), "DoesNotExist", vec![]).unwrap();
        assert!(s.matches(&labels(&[("a", "1"), ("c", "")])));
        assert!(!s.matches(&labels(&[("a", "1"), ("c", ""), ("d", "")])));
        assert!(s.expression("e".into(), "Gt", vec![]).is_err());
        assert_eq!(s.to_string(), "{a in (1,2),b notin (x),c,!d}");
    }

    #[test]
    fn order_of_writing_does_not_matter() {
        let mut a = Selector::everything();
        a.label("x".into(), "1".into());
        a.label("a".into(), "2".into());
        a.label("x".into(), "1".into());
        let mut b = Selector::everything();
        b.expression("a".into(), "In", vec!["2".into()]).unwrap();
        b.label("x".into(), "1".into());
        assert_eq!(a, b);
    }
}
