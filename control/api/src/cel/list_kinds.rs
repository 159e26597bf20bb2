//! Lists that a schema says are sets or maps: equal in any order, and added up item by item. Such
//! lists may be long, so an item is looked up by what identifies it.

use std::collections::BTreeMap;

use super::value::{Key, List, Value};
use crate::crd::structural::ListType;

impl List {
    /// What identifies an item in this list; `None` if it has to be compared.
    fn identity(&self, item: &Value) -> Option<Vec<Key>> {
        match (self.kind, item) {
            (ListType::Map, Value::Map(fields)) => self
                .keys
                .iter()
                .map(|key| Key::of(fields.get(&Key::String(key.as_str().into()))?))
                .collect(),
            (ListType::Set, item) => Some(vec![Key::of(item)?]),
            _ => None,
        }
    }

    /// Where the items are that have these identities; `None` if some have none.
    fn places(&self, items: &[Value]) -> Option<BTreeMap<Vec<Key>, usize>> {
        let items = items.iter().enumerate();
        items
            .map(|(at, item)| Some((self.identity(item)?, at)))
            .collect()
    }

    /// Both lists' items, as the first one's schema has lists add up.
    pub fn plus(mut self, other: &List) -> List {
        if self.kind == ListType::Atomic {
            self.items.extend(other.items.iter().cloned());
            return self;
        }
        let mut places = self.places(&self.items);
        for item in &other.items {
            let identity = self.identity(item);
            let there = match (&places, &identity) {
                (Some(places), Some(identity)) => places.get(identity).copied(),
                _ => self.items.iter().position(|i| self.same(i, item)),
            };
            match there {
                Some(at) => self.items[at] = item.clone(),
                None => {
                    match (&mut places, identity) {
                        (Some(places), Some(identity)) => {
                            places.insert(identity, self.items.len());
                        }
                        _ => places = None,
                    }
                    self.items.push(item.clone());
                }
            }
        }
        self
    }

    fn same(&self, a: &Value, b: &Value) -> bool {
        match (self.kind, a, b) {
            (ListType::Map, Value::Map(a), Value::Map(b)) => self.keys.iter().all(|key| {
                let key = Key::String(key.as_str().into());
                a.get(&key) == b.get(&key)
            }),
            _ => a == b,
        }
    }
}

/// As the first one's schema has it.
pub fn equal(a: &List, b: &List) -> bool {
    if a.items.len() != b.items.len() {
        return false;
    }
    if a.kind == ListType::Atomic {
        return a.items == b.items;
    }
    match (a.places(&a.items), a.places(&b.items)) {
        (Some(places), Some(others)) => {
            places.len() == others.len()
                && places.iter().all(|(identity, at)| {
                    let other = others.get(identity).map(|at| &b.items[*at]);
                    other == Some(&a.items[*at])
                })
        }
        _ => a.items.iter().all(|item| b.items.contains(item)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::cel::dynamic;

    fn list(kind: ListType, items: &[(u8, u8)]) -> List {
        let item = |(name, n): &(u8, u8)| match kind {
            ListType::Set => dynamic(&json!(format!("{name}"))),
            _ => dynamic(&json!({"name": format!("{name}"), "n": n})),
        };
        List {
            items: items.iter().map(item).collect(),
            kind,
            keys: vec!["name".into()],
        }
    }

    proptest! {
        /// The look-up finds what comparing each with each finds.
        #[test]
        fn as_if_compared(
            set in any::<bool>(),
            a in proptest::collection::vec((0_u8..6, 0_u8..2), 0..6),
            b in proptest::collection::vec((0_u8..6, 0_u8..2), 0..6),
        ) {
            let kind = if set { ListType::Set } else { ListType::Map };
            let unique = |items: Vec<(u8, u8)>| {
                let items: BTreeMap<u8, u8> = items.into_iter().collect();
                items.into_iter().collect::<Vec<_>>()
            };
            let (a, mut b) = (list(kind, &unique(a)), list(kind, &unique(b)));
            b.items.reverse();
            let compared = a.items.len() == b.items.len()
                && a.items.iter().all(|item| b.items.contains(item));
            prop_assert_eq!(equal(&a, &b), compared);
            let sum = a.clone().plus(&b);
            let mut expected = a.items.clone();
            for item in &b.items {
                match expected.iter().position(|i| a.same(i, item)) {
                    Some(at) => expected[at] = item.clone(),
                    None => expected.push(item.clone()),
                }
            }
            prop_assert_eq!(sum.items, expected);
        }
    }

    #[test]
    fn long_sets_are_compared_at_once() {
        let items: Vec<Value> = (0..200_000).map(Value::Int).collect();
        let mut turned = items.clone();
        turned.reverse();
        let set = |items| List {
            items,
            kind: ListType::Set,
            keys: Vec::new(),
        };
        let began = std::time::Instant::now();
        assert!(equal(&set(items.clone()), &set(turned.clone())));
        assert_eq!(set(items).plus(&set(turned)).items.len(), 200_000);
        assert!(began.elapsed().as_secs() < 10);
    }
}
