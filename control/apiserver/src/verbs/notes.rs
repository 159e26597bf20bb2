//! What admission has to say besides its verdict: warnings for the client, and annotations for the
//! audit log. Both come from webhooks too, so both are bounded.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

/// As kube-apiserver: all warnings together, and each of them when those are too many.
const WARNINGS: usize = 4 << 10;
const ONE_WARNING: usize = 256;
/// All annotations together, and one of a policy.
const ANNOTATIONS: usize = 256 << 10;
const ONE_ANNOTATION: usize = 10 << 10;

/// Clones share what is noted.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    warnings: Vec<String>,
    known: HashSet<String>,
    warned: usize,
    /// Whether warnings are cut short.
    cutting: bool,
    annotations: BTreeMap<String, Vec<String>>,
    annotated: usize,
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

/// As `cut`, to so many characters; says how many are left.
fn cut_characters(text: &mut String, characters: usize) -> usize {
    match text.char_indices().nth(characters) {
        Some((end, _)) => {
            text.truncate(end);
            characters
        }
        None => text.chars().count(),
    }
}

impl Notes {
    /// Adds a warning to the answer, once: a write may be tried several times.
    pub fn warn(&self, mut warning: String) {
        let mut noted = self.0.lock();
        let full = noted.cutting && noted.warned >= WARNINGS;
        if warning.is_empty() || full || !noted.known.insert(warning.clone()) {
            return;
        }
        let mut length = warning.chars().count();
        if !noted.cutting && noted.warned + length > WARNINGS {
            noted.cutting = true;
            let shorter = |w: &mut String| cut_characters(w, ONE_WARNING);
            noted.warned = noted.warnings.iter_mut().map(shorter).sum();
        }
        if noted.cutting {
            length = cut_characters(&mut warning, ONE_WARNING);
        }
        noted.warned += length;
        noted.warnings.push(warning);
    }

    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().warnings)
    }

    /// Sets an annotation of the audit log's line.
    pub fn annotate(&self, key: String, value: String) {
        let mut noted = self.0.lock();
        noted.annotated += key.len() + value.len();
        if noted.annotated > ANNOTATIONS {
            tracing::warn!(key, "too much for the audit log is said about a request");
            return;
        }
        noted.annotations.insert(key, vec![value]);
    }

    /// As `annotate`, behind what the annotation says already.
    pub fn annotate_more(&self, key: String, mut value: String) {
        cut(&mut value, ONE_ANNOTATION);
        let said = self.0.lock().annotations.get(&key).cloned();
        match said {
            Some(said) if said.contains(&value) => {}
            Some(mut said) => {
                said.push(value);
                self.0.lock().annotations.insert(key, said);
            }
            None => self.annotate(key, value),
        }
    }

    pub fn annotations(&self) -> Vec<(String, String)> {
        let noted = self.0.lock();
        let annotations = noted.annotations.iter();
        annotations
            .map(|(key, values)| (key.clone(), values.join(", ")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_bounded_and_said_once() {
        let notes = Notes::default();
        notes.warn("a".into());
        notes.warn("a".into());
        notes.warn(String::new());
        let long = "ö".repeat(3000);
        notes.warn(long.clone());
        assert_eq!(notes.0.lock().warnings, ["a".to_string(), long]);
        for i in 0..100_000 {
            notes.warn(format!("{i}{}", "x".repeat(1500)));
        }
        let warnings = notes.take_warnings();
        assert_eq!(warnings[1], "ö".repeat(256));
        let all: usize = warnings.iter().map(|w| w.chars().count()).sum();
        assert!((WARNINGS..WARNINGS + 256).contains(&all), "{all}");
    }

    #[test]
    fn annotations_are_bounded() {
        let notes = Notes::default();
        for _ in 0..2 {
            notes.annotate_more("p/k".into(), "v".into());
        }
        notes.annotate_more("p/k".into(), "w".repeat(ONE_ANNOTATION + 1));
        let found = notes.annotations();
        assert_eq!(found[0].1.len(), "v, ".len() + ONE_ANNOTATION);
        for i in 0..100 {
            notes.annotate(format!("h/{i}"), "x".repeat(10_000));
        }
        assert!(notes.annotations().len() < 30);
    }
}
