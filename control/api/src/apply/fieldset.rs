//! Sets of fields: which fields a manager owns, which changed. A tree of steps, sorted, in which
//! being a member and having members below are two things.
//! Source: structured-merge-diff `fieldpath.Set` and its `FieldsV1` form.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::path::Step;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Sorted by step. Each is a member or has members below.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    step: Step,
    member: bool,
    below: FieldSet,
}

/// What becomes of a step in one set or both: whether it is a member, and what is below.
type Combine = fn(Option<&Node>, Option<&Node>) -> (bool, FieldSet);

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many fields are members.
    pub fn len(&self) -> usize {
        self.nodes
            .iter()
            .map(|node| usize::from(node.member) + node.below.len())
            .sum()
    }

    pub fn insert(&mut self, path: &[Step]) {
        let Some((step, rest)) = path.split_first() else {
            // Nobody owns a whole object.
            return;
        };
        let node = self.node_mut(step);
        match rest {
            [] => node.member = true,
            rest => node.below.insert(rest),
        }
    }

    fn node_mut(&mut self, step: &Step) -> &mut Node {
        let at = match self.nodes.binary_search_by(|node| node.step.cmp(step)) {
            Ok(at) => at,
            Err(at) => {
                let node = Node {
                    step: step.clone(),
                    member: false,
                    below: FieldSet::default(),
                };
                self.nodes.insert(at, node);
                at
            }
        };
        &mut self.nodes[at]
    }

    /// Adds what is known of a step: whether it is a member, and the members below.
    pub fn add(&mut self, step: Step, member: bool, below: FieldSet) {
        if !member && below.is_empty() {
            return;
        }
        let node = self.node_mut(&step);
        node.member |= member;
        if node.below.is_empty() {
            node.below = below;
        } else {
            node.below = node.below.union(&below);
        }
    }

    fn node(&self, step: &Step) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|node| node.step.cmp(step));
        at.ok().map(|at| &self.nodes[at])
    }

    /// Whether the step itself is a member.
    pub fn has_step(&self, step: &Step) -> bool {
        self.node(step).is_some_and(|node| node.member)
    }

    /// The members below a step.
    pub fn below(&self, step: &Step) -> Option<&FieldSet> {
        self.node(step)
            .map(|node| &node.below)
            .filter(|below| !below.is_empty())
    }

    /// Finds a field by its name, without making a step of it.
    pub fn field(&self, name: &str) -> (bool, Option<&FieldSet>) {
        let at = self.nodes.binary_search_by(|node| match &node.step {
            Step::Field(field) => field.as_str().cmp(name),
            _ => Ordering::Greater,
        });
        match at {
            Ok(at) => {
                let node = &self.nodes[at];
                let below = (!node.below.is_empty()).then_some(&node.below);
                (node.member, below)
            }
            Err(_) => (false, None),
        }
    }

    pub fn has(&self, path: &[Step]) -> bool {
        match path {
            [] => false,
            [step] => self.has_step(step),
            [step, rest @ ..] => self.below(step).is_some_and(|below| below.has(rest)),
        }
    }

    /// Walks both sets in step.
    fn combine(&self, other: &FieldSet, combine: Combine) -> FieldSet {
        let (mut left, mut right) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        let mut nodes = Vec::new();
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.step.cmp(&b.step),
            };
            let a = if order.is_le() { left.next() } else { None };
            let b = if order.is_ge() { right.next() } else { None };
            let Some(step) = a.or(b).map(|node| &node.step) else {
                break;
            };
            let (member, below) = combine(a, b);
            if member || !below.is_empty() {
                nodes.push(Node {
                    step: step.clone(),
                    member,
                    below,
                });
            }
        }
        FieldSet { nodes }
    }

    pub fn union(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member || b.member, a.below.union(&b.below)),
            (Some(one), None) | (None, Some(one)) => (one.member, one.below.clone()),
            (None, None) => (false, FieldSet::default()),
        })
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member && b.member, a.below.intersection(&b.below)),
            _ => (false, FieldSet::default()),
        })
    }

    /// The members that the other has not, each for itself: a field stays when the other has only
    /// its parent, or only its children.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member && !b.member, a.below.difference(&b.below)),
            (Some(a), None) => (a.member, a.below.clone()),
            (None, _) => (false, FieldSet::default()),
        })
    }

    /// As `difference`, but without everything below a field that the other has.
    pub fn without(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |a, b| match (a, b) {
            (Some(_), Some(b)) if b.member => (false, FieldSet::default()),
            (Some(a), Some(b)) => (a.member, a.below.without(&b.below)),
            (Some(a), None) => (a.member, a.below.clone()),
            (None, _) => (false, FieldSet::default()),
        })
    }

    /// With the members that `also` adds: it is shown each step that has members below, and says
    /// whether the step becomes a member and what to show those below it.
    pub fn with_parents<C: Copy>(
        &self,
        place: C,
        also: &dyn Fn(C, &Step) -> (bool, C),
    ) -> FieldSet {
        let nodes = self.nodes.iter().map(|node| {
            if node.below.is_empty() {
                return node.clone();
            }
            let (member, inner) = also(place, &node.step);
            Node {
                step: node.step.clone(),
                member: node.member || member,
                below: node.below.with_parents(inner, also),
            }
        });
        FieldSet {
            nodes: nodes.collect(),
        }
    }

    /// Every member, parents before children.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        fn walk(set: &FieldSet, path: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
            for node in &set.nodes {
                path.push(node.step.clone());
                if node.member {
                    out.push(path.clone());
                }
                walk(&node.below, path, out);
                path.pop();
            }
        }
        let mut out = Vec::new();
        walk(self, &mut Vec::new(), &mut out);
        out
    }

    /// The `FieldsV1` form.
    pub fn encode(&self) -> Value {
        Value::Object(self.encode_with(false))
    }

    fn encode_with(&self, member: bool) -> Map<String, Value> {
        let mut out = Map::new();
        if member && !self.is_empty() {
            out.insert(".".into(), Value::Object(Map::new()));
        }
        for node in &self.nodes {
            let below = node.below.encode_with(node.member);
            out.insert(node.step.encode(), Value::Object(below));
        }
        out
    }

    /// From the `FieldsV1` form. What has nothing below it is a member.
    pub fn decode(value: &Value) -> Result<FieldSet, String> {
        let Value::Object(entries) = value else {
            return Err(format!("expected an object, got {value}"));
        };
        let mut set = FieldSet::default();
        for (key, inner) in entries {
            if key == "." {
                continue;
            }
            let Some(step) = Step::decode(key)? else {
                continue;
            };
            let below = FieldSet::decode(inner)?;
            let member = below.is_empty() || inner.get(".").is_some();
            set.add(step, member, below);
        }
        Ok(set)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::apply::path::Plain;
    use proptest::prelude::*;
    use serde_json::json;

    pub fn any_set() -> impl Strategy<Value = FieldSet> {
        let step = prop_oneof![
            prop::sample::select(vec!["a", "b", "spec"]).prop_map(Step::field),
            (0..3i64).prop_map(|n| Step::Key(vec![("port".into(), Plain(n.into()))])),
            prop::sample::select(vec!["x", "y"]).prop_map(|v| Step::Item(Plain(v.into()))),
            (0..2i64).prop_map(Step::Index),
        ];
        let paths = prop::collection::vec(prop::collection::vec(step, 1..4), 0..12);
        paths.prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in &paths {
                set.insert(path);
            }
            set
        })
    }

    proptest! {
        #[test]
        fn written_sets_are_read_back(set in any_set()) {
            prop_assert_eq!(FieldSet::decode(&set.encode()).unwrap(), set);
        }

        #[test]
        fn the_algebra_is_that_of_sets_of_paths(a in any_set(), b in any_set()) {
            let (pa, pb) = (a.paths(), b.paths());
            let sorted = |set: &FieldSet| { let mut p = set.paths(); p.sort(); p };
            let mut union: Vec<_> = pa.iter().chain(&pb).cloned().collect();
            union.sort();
            union.dedup();
            prop_assert_eq!(sorted(&a.union(&b)), union);
            let mut both: Vec<_> = pa.iter().filter(|p| b.has(p)).cloned().collect();
            both.sort();
            prop_assert_eq!(sorted(&a.intersection(&b)), both);
            let mut left: Vec<_> = pa.iter().filter(|p| !b.has(p)).cloned().collect();
            left.sort();
            prop_assert_eq!(sorted(&a.difference(&b)), left);
            let covered = |p: &Vec<Step>| (1..=p.len()).any(|n| b.has(&p[..n]));
            let mut bare: Vec<_> = pa.iter().filter(|p| !covered(p)).cloned().collect();
            bare.sort();
            prop_assert_eq!(sorted(&a.without(&b)), bare);
            prop_assert_eq!(a.len(), pa.len());
            prop_assert_eq!(a.is_empty(), pa.is_empty());
        }
    }

    #[test]
    fn the_written_form() {
        let written = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:ports": {r#"k:{"port":80,"protocol":"TCP"}"#: {".": {}, "f:port": {}}},
                "f:finalizers": {r#"v:"x""#: {}},
            },
        });
        let set = FieldSet::decode(&written).unwrap();
        assert_eq!(set.len(), 5);
        // In order, whatever the order that it was read in.
        assert_eq!(
            set.encode().to_string(),
            r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:finalizers":{"v:\"x\"":{}},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}}"#
        );
        // Steps of a later version are left aside.
        let later = FieldSet::decode(&json!({"q:new": {"f:a": {}}, "f:b": {}})).unwrap();
        assert_eq!(later.encode(), json!({"f:b": {}}));
        for bad in [
            json!([]),
            json!({"f:a": 1}),
            json!({"x": {}}),
            json!({"k:1": {}}),
        ] {
            assert!(FieldSet::decode(&bad).is_err(), "{bad}");
        }
    }
}
