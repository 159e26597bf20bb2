//! New inputs from valid ones.

use serde_json::{Map, Value, json};

use crate::Dice;

/// What numbers, texts and structures look like at their edges.
const EDGES: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[]",
    "{}",
    "[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "\u{fffd}",
    "é",
    "\\",
    "\"",
    "\n",
    "\0",
    ",",
    ":",
    "/",
    "%00",
    "&",
    "=",
];

/// Changes some bytes: flips, cuts, repeats, moves, and puts edges and `words` in.
pub fn bytes(sample: &[u8], words: &[&str], dice: &mut Dice) -> Vec<u8> {
    let mut out = sample.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.index(out.len() + 1);
        let to = (at + dice.index(16)).min(out.len());
        match dice.roll(8) {
            0 if at < out.len() => out[at] ^= 1 << dice.roll(8),
            1 if at < out.len() => out[at] = dice.roll(256) as u8,
            2 => drop(out.drain(at..to)),
            3 => {
                let part = out[at..to].to_vec();
                let repeated = part.repeat(dice.index(20));
                out.splice(at..at, repeated);
            }
            4 => {
                let part: Vec<u8> = out.drain(at..to).collect();
                let there = dice.index(out.len() + 1);
                out.splice(there..there, part);
            }
            5 => out.truncate(at),
            6 if !words.is_empty() => {
                let word = dice.pick(words).bytes();
                out.splice(at..to, word);
            }
            _ => {
                let edge = dice.pick(EDGES).bytes();
                out.splice(at..to, edge);
            }
        }
    }
    out
}

/// A text of words, with and without blanks between.
pub fn soup(words: &[&str], dice: &mut Dice) -> String {
    let mut out = String::new();
    for _ in 0..dice.roll(12) {
        out.push_str(dice.pick(words));
        if dice.one_in(3) {
            out.push(' ');
        }
    }
    out
}

fn edge(dice: &mut Dice) -> Value {
    let long = "x".repeat(300);
    let edges = [
        Value::Null,
        json!([]),
        json!({}),
        json!(""),
        json!("x"),
        json!("\u{0}"),
        json!("a/b/c"),
        json!(long),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(true),
        json!([null]),
        json!([[]]),
        json!({"": {}}),
    ];
    edges[dice.index(edges.len())].clone()
}

/// Changes some places of a JSON value: of another type, gone, twice, swapped, deeper.
pub fn value(sample: &Value, dice: &mut Dice) -> Value {
    let mut out = sample.clone();
    for _ in 0..=dice.roll(3) {
        change(&mut out, dice);
    }
    out
}

fn change(place: &mut Value, dice: &mut Dice) {
    // Go down, more often than not.
    if !dice.one_in(4) {
        match place {
            Value::Object(fields) if !fields.is_empty() => {
                let at = dice.index(fields.len());
                if let Some(inner) = fields.values_mut().nth(at) {
                    return change(inner, dice);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let at = dice.index(items.len());
                return change(&mut items[at], dice);
            }
            _ => {}
        }
    }
    match (dice.roll(5), place) {
        (0, Value::Object(fields)) if !fields.is_empty() => {
            let at = dice.index(fields.len());
            let key = fields.keys().nth(at).cloned();
            key.and_then(|key| fields.remove(&key));
        }
        (1, Value::Object(fields)) => {
            let inner = edge(dice);
            fields.insert(dice.pick(&["", "x", "$patch", "name", "é"]).into(), inner);
        }
        (0, Value::Array(items)) if !items.is_empty() => {
            let at = dice.index(items.len());
            items.remove(at);
        }
        (1, Value::Array(items)) if !items.is_empty() => {
            let again = items[dice.index(items.len())].clone();
            items.push(again);
        }
        (2, Value::Array(items)) => items.reverse(),
        (2, Value::String(text)) => *text = text.repeat(1 + dice.index(4)),
        (3, place) => {
            let inner = place.take();
            *place = match dice.one_in(2) {
                true => json!([inner]),
                false => Map::from_iter([("x".to_string(), inner)]).into(),
            };
        }
        (_, place) => *place = edge(dice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_follows_from_its_seed() {
        let sample = json!({"a": [1, 2, {"b": "c"}], "d": null});
        let text = sample.to_string();
        let made = |seed| {
            let mut dice = Dice::new(seed);
            (
                value(&sample, &mut dice),
                bytes(text.as_bytes(), &["w"], &mut dice),
                soup(&["a", "b"], &mut dice),
            )
        };
        let mut different = 0;
        for seed in 0..200 {
            let case = made(seed);
            assert_eq!(case, made(seed));
            different += usize::from(case.0 != sample && case.1 != text.as_bytes());
        }
        assert!(different > 150, "{different}");
    }
}
