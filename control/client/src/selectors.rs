//! Node selectors, label selectors and tolerations, compiled once for a pod and matched many times.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::{Expression, Selector, SelectorExt};

pub type Labels = BTreeMap<String, String>;

/// A label selector of a pod. `None` selects nothing, an empty one everything; one that can't be read
/// (the server validates them) selects nothing either.
#[derive(Debug, Clone)]
pub struct PodSelector(Option<Selector>);

impl PodSelector {
    /// `match_keys` adds "the same value as the pod has", `mismatch_keys` "another value than the pod has".
    pub fn compile(
        selector: Option<&LabelSelector>,
        labels: &Labels,
        match_keys: &[String],
        mismatch_keys: &[String],
    ) -> Self {
        let mut compiled = selector.and_then(|s| Selector::try_from(s.clone()).ok());
        if let Some(compiled) = &mut compiled {
            for key in match_keys {
                if let Some(value) = labels.get(key) {
                    compiled.extend(Expression::In(key.clone(), [value.clone()].into()));
                }
            }
            for key in mismatch_keys {
                if let Some(value) = labels.get(key) {
                    compiled.extend(Expression::NotIn(key.clone(), [value.clone()].into()));
                }
            }
        }
        Self(compiled)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|s| s.matches(labels))
    }
}

/// A term of a node selector: all its requirements have to hold, and a term without any selects nothing.
#[derive(Debug, Clone)]
pub struct NodeTerm {
    labels: Vec<NodeSelectorRequirement>,
    fields: Vec<NodeSelectorRequirement>,
}

impl From<&NodeSelectorTerm> for NodeTerm {
    fn from(term: &NodeSelectorTerm) -> Self {
        Self {
            labels: term.match_expressions.clone().unwrap_or_default(),
            fields: term.match_fields.clone().unwrap_or_default(),
        }
    }
}

impl NodeTerm {
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.labels
            .iter()
            .all(|r| requirement(r, labels.get(&r.key).map(String::as_str)))
            && self
                .fields
                .iter()
                .all(|r| r.key == "metadata.name" && requirement(r, Some(name)))
    }
}

fn requirement(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    match (r.operator.as_str(), value) {
        ("In", Some(v)) => values.iter().any(|x| x == v),
        ("NotIn", Some(v)) => !values.iter().any(|x| x == v),
        ("NotIn", None) => true,
        ("Exists", v) => v.is_some(),
        ("DoesNotExist", v) => v.is_none(),
        (op @ ("Gt" | "Lt"), Some(v)) => {
            match (v.parse::<i64>(), values.first().map(|x| x.parse::<i64>())) {
                (Ok(have), Some(Ok(bound))) if values.len() == 1 => {
                    if op == "Gt" {
                        have > bound
                    } else {
                        have < bound
                    }
                }
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether `toleration` tolerates `taint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        // An empty key goes with Exists only.
        "" | "Equal" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn req(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|v| v.to_string()).collect()),
        }
    }

    #[test]
    fn node_terms_follow_every_operator() {
        let labels: Labels = [
            ("zone".to_string(), "a".to_string()),
            ("cores".to_string(), "8".to_string()),
        ]
        .into();
        let term = |r: NodeSelectorRequirement| NodeTerm {
            labels: vec![r],
            fields: vec![],
        };
        for (r, expected) in [
            (req("zone", "In", &["a", "b"]), true),
            (req("zone", "In", &["b"]), false),
            (req("none", "In", &["a"]), false),
            (req("zone", "NotIn", &["a"]), false),
            (req("none", "NotIn", &["a"]), true),
            (req("zone", "Exists", &[]), true),
            (req("none", "Exists", &[]), false),
            (req("none", "DoesNotExist", &[]), true),
            (req("cores", "Gt", &["4"]), true),
            (req("cores", "Gt", &["8"]), false),
            (req("cores", "Lt", &["9"]), true),
            (req("zone", "Lt", &["9"]), false),
            (req("none", "Gt", &["0"]), false),
            (req("cores", "Near", &["8"]), false),
        ] {
            assert_eq!(term(r.clone()).matches("n", &labels), expected, "{r:?}");
        }
        let by_name = NodeTerm {
            labels: vec![],
            fields: vec![req("metadata.name", "In", &["n"])],
        };
        assert!(by_name.matches("n", &labels) && !by_name.matches("m", &labels));
        let empty = NodeTerm {
            labels: vec![],
            fields: vec![],
        };
        assert!(!empty.matches("n", &labels));
    }

    #[test]
    fn tolerations_match_as_kubernetes_documents() {
        let taint = Taint {
            key: "k".into(),
            value: Some("v".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        };
        let t = |key: &str, op: &str, value: &str, effect: &str| Toleration {
            key: (!key.is_empty()).then(|| key.into()),
            operator: (!op.is_empty()).then(|| op.into()),
            value: (!value.is_empty()).then(|| value.into()),
            effect: (!effect.is_empty()).then(|| effect.into()),
            toleration_seconds: None,
        };
        assert!(tolerates(&t("k", "Equal", "v", "NoSchedule"), &taint));
        assert!(tolerates(&t("k", "", "v", ""), &taint));
        assert!(tolerates(&t("k", "Exists", "", ""), &taint));
        assert!(tolerates(&t("", "Exists", "", ""), &taint));
        assert!(!tolerates(&t("k", "Equal", "w", "NoSchedule"), &taint));
        assert!(!tolerates(&t("k", "Exists", "", "NoExecute"), &taint));
        assert!(!tolerates(&t("j", "Exists", "", ""), &taint));
        assert!(!tolerates(&t("", "", "v", ""), &taint));
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        let labels = Labels::new();
        assert!(!PodSelector::compile(None, &labels, &[], &[]).matches(&labels));
        assert!(
            PodSelector::compile(Some(&LabelSelector::default()), &labels, &[], &[])
                .matches(&labels)
        );
    }
}
