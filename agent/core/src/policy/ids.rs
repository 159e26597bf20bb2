//! Numbers for sets, identities and rules, by content. Kept on disk by the agent: the maps hold
//! the numbers alone, and a restarted agent that gave out new ones would rewrite every row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{Atom, RuleName, SetContent};

/// Contents that nothing refers to are dropped when they outnumber those in use by this much.
const SLACK: usize = 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Ids {
    next: Next,
    sets: Interned<SetContent>,
    /// Atoms in order.
    identities: Interned<Vec<Atom>>,
    rules: Interned<RuleName>,
    /// Whether something was given out since the last [`Ids::take_changed`].
    changed: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Next {
    set: u32,
    identity: u32,
    rule: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    next: Next,
    sets: BTreeMap<u32, SetContent>,
    identities: BTreeMap<u32, Vec<Atom>>,
    rules: BTreeMap<u32, RuleName>,
}

#[derive(Clone, Debug)]
struct Interned<T> {
    content: BTreeMap<u32, T>,
    /// By the canonical text of the content.
    ids: HashMap<String, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned {
            content: BTreeMap::new(),
            ids: HashMap::new(),
        }
    }
}

/// Contents are plain data with string keys: they always have a JSON text.
fn canonical<T: Serialize>(content: &T) -> String {
    serde_json::to_string(content).unwrap_or_default()
}

impl<T: Serialize + Clone> Interned<T> {
    fn from_map(content: BTreeMap<u32, T>) -> Self {
        let ids = content.iter().map(|(id, c)| (canonical(c), *id)).collect();
        Interned { content, ids }
    }

    fn id(&mut self, content: &T, next: &mut u32, changed: &mut bool) -> u32 {
        let text = canonical(content);
        if let Some(id) = self.ids.get(&text) {
            return *id;
        }
        let id = *next;
        *next += 1;
        *changed = true;
        self.ids.insert(text, id);
        self.content.insert(id, content.clone());
        id
    }

    fn retain(&mut self, live: &BTreeSet<u32>) {
        if self.content.len() > 2 * live.len() + SLACK {
            self.content.retain(|id, _| live.contains(id));
            self.ids.retain(|_, id| live.contains(id));
        }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Ids {
            next: Next {
                set: 1,
                identity: 1,
                rule: 1,
            },
            sets: Interned::default(),
            identities: Interned::default(),
            rules: Interned::default(),
            changed: false,
        }
    }
}

impl From<Stored> for Ids {
    fn from(s: Stored) -> Ids {
        // Counters are not to be believed less than what was given out.
        fn above<T>(map: &BTreeMap<u32, T>, next: u32) -> u32 {
            map.last_key_value()
                .map_or(1, |(id, _)| id.saturating_add(1))
                .max(next)
                .max(1)
        }
        Ids {
            next: Next {
                set: above(&s.sets, s.next.set),
                identity: above(&s.identities, s.next.identity),
                rule: above(&s.rules, s.next.rule),
            },
            sets: Interned::from_map(s.sets),
            identities: Interned::from_map(s.identities),
            rules: Interned::from_map(s.rules),
            changed: false,
        }
    }
}

impl From<Ids> for Stored {
    fn from(ids: Ids) -> Stored {
        Stored {
            next: ids.next,
            sets: ids.sets.content,
            identities: ids.identities.content,
            rules: ids.rules.content,
        }
    }
}

impl Ids {
    /// Numbers that the kernel's maps hold are never given out anew, even if their contents are
    /// lost.
    pub fn reserve(&mut self, set: u32, identity: u32, rule: u32) {
        self.next.set = self.next.set.max(set.saturating_add(1));
        self.next.identity = self.next.identity.max(identity.saturating_add(1));
        self.next.rule = self.next.rule.max(rule.saturating_add(1));
    }

    pub fn set_id(&mut self, content: &SetContent) -> u32 {
        self.sets.id(content, &mut self.next.set, &mut self.changed)
    }

    /// 0 for an address without any atom.
    pub fn identity_id(&mut self, atoms: &Vec<Atom>) -> u32 {
        if atoms.is_empty() {
            return 0;
        }
        self.identities
            .id(atoms, &mut self.next.identity, &mut self.changed)
    }

    pub fn rule_id(&mut self, rule: &RuleName) -> u32 {
        self.rules.id(rule, &mut self.next.rule, &mut self.changed)
    }

    pub fn set(&self, id: u32) -> Option<&SetContent> {
        self.sets.content.get(&id)
    }

    pub fn identity(&self, id: u32) -> Option<&[Atom]> {
        self.identities.content.get(&id).map(Vec::as_slice)
    }

    pub fn rule(&self, id: u32) -> Option<&RuleName> {
        self.rules.content.get(&id)
    }

    /// Whether it has to be written to disk again, before the numbers go into the maps.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Writing them failed: they still have to be.
    pub fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// Forgets contents that nothing refers to any longer, now and then. Numbers are not given
    /// out again.
    pub fn forget(&mut self, sets: &BTreeSet<u32>, identities: &BTreeSet<u32>) {
        self.sets.retain(sets);
        self.identities.retain(identities);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survive_a_restart_and_are_not_reused() {
        let mut ids = Ids::default();
        let port = |n: u16| {
            vec![Atom::Port {
                name: "p".into(),
                protocol: 6,
                port: n,
            }]
        };
        assert_eq!(ids.identity_id(&vec![]), 0);
        assert_eq!(ids.identity_id(&port(1)), 1);
        assert_eq!(ids.identity_id(&port(2)), 2);
        assert_eq!(ids.identity_id(&port(1)), 1);
        assert!(ids.take_changed());
        let text = serde_json::to_string(&ids).unwrap();
        let mut back: Ids = serde_json::from_str(&text).unwrap();
        assert_eq!(back.identity_id(&port(2)), 2);
        assert!(!back.take_changed());
        back.reserve(0, 17, 0);
        assert_eq!(back.identity_id(&port(3)), 18);
    }
}
