//! Who owns whom, as the watches tell it, and what may be to do after each change. Pure; whether an owner
//! is really gone is asked of the server before anything is deleted.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

pub type Uid = Arc<str>;

/// An object, as far as this matters. There is one for each object of the cluster, so it is small.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Index of its kind in the list of watched kinds.
    pub kind: usize,
    pub namespace: Option<Box<str>>,
    pub name: Box<str>,
    pub uid: Uid,
    pub owners: Box<[Link]>,
    /// Being deleted, and waiting for its dependents to go first.
    pub foreground: bool,
    /// Being deleted, and its dependents are to be let go first.
    pub orphaning: bool,
    pub deleting: bool,
}

/// A reference to an owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub uid: Uid,
    /// An owner that is deleted in the foreground waits for this object.
    pub blocks: bool,
}

impl Link {
    fn of(reference: &OwnerReference) -> Self {
        Self {
            uid: reference.uid.as_str().into(),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }
}

impl Item {
    pub fn of(kind: usize, meta: &ObjectMeta) -> Self {
        let deleting = meta.deletion_timestamp.is_some();
        let has =
            |finalizer: &str| deleting && meta.finalizers.iter().flatten().any(|f| f == finalizer);
        Self {
            kind,
            namespace: meta.namespace.as_deref().map(Box::from),
            name: meta.name.as_deref().unwrap_or_default().into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            owners: meta
                .owner_references
                .iter()
                .flatten()
                .map(Link::of)
                .collect(),
            foreground: has(FOREGROUND),
            orphaning: has(ORPHAN),
            deleting,
        }
    }
}

/// What to look into.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Whether the object has to go, because its owners have, or can go, because its dependents have.
    Examine(Uid),
    /// Let the object's dependents go, then the object.
    Orphan(Uid),
}

#[derive(Debug, Default)]
pub struct Graph {
    items: HashMap<Uid, Item>,
    /// Owners with a dependent each; an owner need not be in `items`.
    dependents: BTreeSet<(Uid, Uid)>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> Vec<&Item> {
        self.dependents_of(uid)
            .filter_map(|uid| self.items.get(uid))
            .collect()
    }

    fn dependents_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Uid> {
        self.dependents
            .range((Uid::from(uid), Uid::from(""))..)
            .take_while(move |(owner, _)| **owner == *uid)
            .map(|(_, dependent)| dependent)
    }

    /// An object is there, or has changed.
    pub fn put(&mut self, item: Item) -> BTreeSet<Work> {
        let mut work = BTreeSet::new();
        let uid = item.uid.clone();
        let old = self.items.get(&uid).cloned();
        if old.as_ref() == Some(&item) {
            return work;
        }
        if let Some(old) = &old {
            self.unlink(old);
            // An owner that waits for its dependents may be free of this one.
            for owner in &old.owners {
                if self.items.get(&owner.uid).is_some_and(|o| o.foreground) {
                    work.insert(Work::Examine(owner.uid.clone()));
                }
            }
        }
        for owner in &item.owners {
            self.dependents.insert((owner.uid.clone(), uid.clone()));
        }
        // An owner that isn't known may be gone; one that goes foreground may wait for this.
        let questionable = |o: &Link| self.items.get(&o.uid).is_none_or(|owner| owner.foreground);
        if item.owners.iter().any(questionable) {
            work.insert(Work::Examine(uid.clone()));
        }
        if item.orphaning {
            work.insert(Work::Orphan(uid.clone()));
        }
        if item.foreground {
            work.insert(Work::Examine(uid.clone()));
            work.extend(self.dependents_of(&uid).cloned().map(Work::Examine));
        }
        self.items.insert(uid, item);
        work
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str) -> BTreeSet<Work> {
        let mut work = BTreeSet::new();
        if let Some(old) = self.items.remove(uid) {
            self.unlink(&old);
            for owner in &old.owners {
                if self.items.get(&owner.uid).is_some_and(|o| o.foreground) {
                    work.insert(Work::Examine(owner.uid.clone()));
                }
            }
        }
        work.extend(self.dependents_of(uid).cloned().map(Work::Examine));
        work
    }

    fn unlink(&mut self, item: &Item) {
        for owner in &item.owners {
            self.dependents
                .remove(&(owner.uid.clone(), item.uid.clone()));
        }
    }

    /// A complete list of one kind: what isn't in it is gone.
    pub fn replace(&mut self, kind: usize, items: Vec<Item>) -> BTreeSet<Work> {
        let listed: HashSet<Uid> = items.iter().map(|i| i.uid.clone()).collect();
        let gone: Vec<Uid> = self
            .items
            .values()
            .filter(|i| i.kind == kind && !listed.contains(&i.uid))
            .map(|i| i.uid.clone())
            .collect();
        let mut work = BTreeSet::new();
        for item in items {
            work.extend(self.put(item));
        }
        for uid in gone {
            work.extend(self.remove(&uid));
        }
        work
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// What the server said of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// There, and staying.
    Solid,
    /// Not there, or there under another uid.
    Gone,
    /// Being deleted in the foreground: it waits for dependents that block it.
    Foreground,
}

/// How to delete an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// It has owners that stay: only the references to these others go.
    DropReferences(Vec<String>),
    Delete(Policy),
    /// Its owner waits for it and it waits for its own dependents, one of which is being deleted in the
    /// foreground too: a circle. It stops blocking its owners first.
    UnblockAndDelete,
}

/// What to do with an object: `finalizers` are its own, `owners` its references with what the server said of
/// each, `dependents` the objects that refer to it.
pub fn judge(
    deleting: bool,
    finalizers: &[String],
    owners: &[(OwnerReference, Owner)],
    dependents: &[&Item],
) -> Verdict {
    if deleting || owners.is_empty() {
        return Verdict::Keep;
    }
    let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
    for (reference, owner) in owners {
        match owner {
            Owner::Gone => gone.push(reference.uid.clone()),
            Owner::Foreground if reference.block_owner_deletion == Some(true) => {
                waiting.push(reference.uid.clone())
            }
            Owner::Solid | Owner::Foreground => solid += 1,
        }
    }
    if solid > 0 {
        gone.extend(waiting);
        return if gone.is_empty() {
            Verdict::Keep
        } else {
            Verdict::DropReferences(gone)
        };
    }
    if !waiting.is_empty() && !dependents.is_empty() {
        return if dependents.iter().any(|d| d.foreground) {
            Verdict::UnblockAndDelete
        } else {
            Verdict::Delete(Policy::Foreground)
        };
    }
    let has = |f: &str| finalizers.iter().any(|x| x == f);
    Verdict::Delete(if has(ORPHAN) {
        Policy::Orphan
    } else if has(FOREGROUND) {
        Policy::Foreground
    } else {
        Policy::Background
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(uid: &str, block: bool) -> OwnerReference {
        OwnerReference {
            uid: uid.into(),
            block_owner_deletion: Some(block),
            ..Default::default()
        }
    }

    fn item(uid: &str, owners: &[&str]) -> Item {
        Item {
            kind: 0,
            namespace: Some("ns".into()),
            name: uid.into(),
            uid: uid.into(),
            owners: owners
                .iter()
                .map(|o| Link::of(&reference(o, true)))
                .collect(),
            foreground: false,
            orphaning: false,
            deleting: false,
        }
    }

    fn examine(uids: &[&str]) -> BTreeSet<Work> {
        uids.iter().map(|u| Work::Examine((*u).into())).collect()
    }

    #[test]
    fn what_an_owner_leaves_behind_is_examined() {
        let mut g = Graph::default();
        assert_eq!(g.put(item("rs", &[])), examine(&[]));
        assert_eq!(g.put(item("p1", &["rs"])), examine(&[]));
        assert_eq!(g.put(item("p2", &["rs"])), examine(&[]));
        assert_eq!(g.remove("rs"), examine(&["p1", "p2"]));
    }

    #[test]
    fn an_owner_that_is_not_known_is_questioned() {
        let mut g = Graph::default();
        assert_eq!(g.put(item("p1", &["ghost"])), examine(&["p1"]));
        assert_eq!(g.put(item("p1", &["ghost"])), examine(&[]), "nothing new");
    }

    #[test]
    fn a_foreground_owner_examines_its_dependents_and_is_examined_as_they_go() {
        let mut g = Graph::default();
        g.put(item("d", &[]));
        g.put(item("rs", &["d"]));
        let mut d = item("d", &[]);
        (d.foreground, d.deleting) = (true, true);
        assert_eq!(g.put(d), examine(&["d", "rs"]));
        assert_eq!(g.remove("rs"), examine(&["d"]));
    }

    #[test]
    fn a_list_tells_who_is_gone() {
        let mut g = Graph::default();
        g.put(item("rs", &[]));
        g.put(item("p", &["rs"]));
        let mut other = item("other", &[]);
        other.kind = 1;
        g.put(other);
        assert_eq!(g.replace(0, vec![item("p", &["rs"])]), examine(&["p"]));
        assert!(g.get("other").is_some(), "of another kind");
        assert!(g.get("rs").is_none());
    }

    #[test]
    fn verdicts() {
        let solid = (reference("a", true), Owner::Solid);
        let gone = (reference("b", true), Owner::Gone);
        let waiting = (reference("c", true), Owner::Foreground);
        let not_blocking = (reference("c", false), Owner::Foreground);
        let (leaf, mut going) = (item("x", &[]), item("y", &[]));
        going.foreground = true;

        assert_eq!(judge(false, &[], &[], &[]), Verdict::Keep);
        assert_eq!(
            judge(true, &[], std::slice::from_ref(&gone), &[]),
            Verdict::Keep
        );
        assert_eq!(
            judge(false, &[], std::slice::from_ref(&solid), &[]),
            Verdict::Keep
        );
        assert_eq!(judge(false, &[], &[not_blocking], &[]), Verdict::Keep);
        assert_eq!(
            judge(false, &[], std::slice::from_ref(&gone), &[]),
            Verdict::Delete(Policy::Background)
        );
        assert_eq!(
            judge(false, &[ORPHAN.into()], std::slice::from_ref(&gone), &[]),
            Verdict::Delete(Policy::Orphan)
        );
        assert_eq!(
            judge(false, &[], &[solid, gone.clone(), waiting.clone()], &[]),
            Verdict::DropReferences(vec!["b".into(), "c".into()])
        );
        assert_eq!(
            judge(false, &[], std::slice::from_ref(&waiting), &[]),
            Verdict::Delete(Policy::Background)
        );
        assert_eq!(
            judge(false, &[], std::slice::from_ref(&waiting), &[&leaf]),
            Verdict::Delete(Policy::Foreground)
        );
        assert_eq!(
            judge(false, &[], &[waiting], &[&leaf, &going]),
            Verdict::UnblockAndDelete
        );
    }
}
