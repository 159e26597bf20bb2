//! Texts with a syntax of their own: selectors, quantities, times, paths, expressions, requests for
//! certificates.

use std::collections::BTreeMap;

use rhumb_fuzz::{bytes, run, soup};
use serde_json::{Value, json};

use super::{any_kind, blames_the_client, object};
use crate::cel::{Budget, Program, Type};
use crate::crd::json_path::JsonPath;
use crate::quantity::Quantity;
use crate::selector::{FieldSelector, LabelSelector};
use crate::{csr, options, time};

#[test]
fn selectors() {
    const WORDS: &[&str] = &[
        "a",
        "b",
        "in",
        "notin",
        "(",
        ")",
        ",",
        "=",
        "==",
        "!=",
        "!",
        ">",
        "<",
        "1",
        "x/y",
        "é",
        "\\",
        "\0",
        "\t",
        "metadata.name",
        "spec.nodeName",
        "%",
    ];
    run("selectors", 5000, |dice| {
        let text = soup(WORDS, dice);
        let kind = any_kind(dice);
        let object = object(kind, dice);
        if let Some(selector) = blames_the_client(LabelSelector::parse(&text)) {
            selector.matches(&object);
            let _ = selector.to_string();
        }
        if let Some(selector) = blames_the_client(FieldSelector::parse(kind, &text)) {
            selector.matches(kind, &object);
            selector.required("metadata.name");
        }
        blames_the_client(options::number(&text));
    });
}

#[test]
fn quantities_and_times() {
    const WORDS: &[&str] = &[
        "1",
        "0",
        "-",
        "+",
        ".",
        "e",
        "E",
        "Ki",
        "Gi",
        "m",
        "n",
        "k",
        "9999999999999999999999",
        "2026-01-01",
        "T",
        "00:00:00",
        "Z",
        "+23:59",
        ":",
        ".123456789",
    ];
    run("quantities_and_times", 8000, |dice| {
        let text = soup(WORDS, dice).replace(' ', "");
        if let Ok(quantity) = Quantity::parse(&text) {
            let shown = quantity.to_string();
            let again = Quantity::parse(&shown).expect("what is printed is read");
            assert_eq!(again, quantity, "{text} {shown}");
            let other = Quantity::from_units(7);
            let _ = quantity.saturating_add(other).saturating_sub(quantity);
            let _ = (quantity.units(), quantity.millis(), quantity.is_integer());
        }
        if let Some(at) = time::parse(&text) {
            let again = time::parse(&time::format(at)).expect("what is printed is read");
            assert_eq!(again.as_second(), at.as_second());
            let _ = time::format_micro(at);
            time::age(Some(&Value::from(text)), jiff::Timestamp::MIN);
        }
        time::human(dice.roll(u64::MAX) as i64);
    });
}

#[test]
fn paths_of_columns() {
    const WORDS: &[&str] = &[
        ".", "a", "[", "]", "0", "-1", "*", "?(", "@", "==", "'a'", "\"", ")", "$", "..", ":",
        "\\", "{", "}", "é",
    ];
    let object = json!({"a": [{"a": "a"}, {"a": 1}], "b": {"a": null}});
    run("paths_of_columns", 5000, |dice| {
        let text = format!(".{}", soup(WORDS, dice).replace(' ', ""));
        if let Ok(path) = JsonPath::parse(&text) {
            let found = path.find(&object);
            assert!(found.len() < 100, "{text}");
        }
    });
}

#[test]
fn expressions() {
    const WORDS: &[&str] = &[
        "self",
        "self.a",
        "oldSelf",
        ".b",
        "[0]",
        "?",
        ":",
        "(",
        ")",
        "&&",
        "||",
        "!",
        "==",
        "<",
        "+",
        "-",
        "*",
        "/",
        "%",
        "1",
        "0",
        "-1",
        "9223372036854775807",
        "1u",
        "1.5",
        "'x'",
        "b'x'",
        "null",
        "true",
        "[",
        "]",
        "{",
        "}",
        ",",
        "in",
        "size(",
        "has(",
        "all(",
        "exists(",
        "map(",
        "x, ",
        "matches('",
        "(a+)+$')",
        "quantity('1')",
        "ip('::1')",
        "url('http://a')",
        "duration('1h')",
        "timestamp('2026-01-01T00:00:00Z')",
        "string(",
        "int(",
        "double(",
        "optional.of(",
        ".orValue(",
        ".split(',')",
        ".substring(",
        ".replace('a', 'b')",
        "\\",
        "é",
    ];
    let object = json!({"a": "x", "b": [1, 2, 3], "c": {"d": true}});
    run("expressions", 600, |dice| {
        let source = match dice.one_in(2) {
            true => soup(WORDS, dice),
            false => {
                let valid = dice.pick(&[
                    "self.b.all(x, x > 0 && x < size(self.b) + 10)",
                    "has(self.a) ? self.a.matches('^[a-z]+$') : true",
                    "self.b.map(x, x * 2).exists(x, x == 4)",
                    "quantity('1Gi').isGreaterThan(quantity('1M'))",
                    "self.a.split('x').size() == 2 && self.a + 'y' != ''",
                ]);
                let made = bytes(valid.as_bytes(), WORDS, dice);
                String::from_utf8_lossy(&made).into_owned()
            }
        };
        let Ok(program) = Program::compile(&source, &[("self", Type::Dyn)]) else {
            return;
        };
        let given = crate::cel::dynamic(&object);
        let variables = BTreeMap::from([("self", given)]);
        let _ = program.evaluate(&variables, &mut Budget::new(100_000));
    });
}

#[test]
fn requests_for_certificates() {
    const REQUEST: &[u8] = include_bytes!("node.csr");
    let asked = csr::parse(REQUEST).unwrap();
    assert_eq!(asked.common_name, "system:node:n1");
    let (_, block) = x509_parser::pem::parse_x509_pem(REQUEST).unwrap();
    run("requests_for_certificates", 3000, |dice| {
        let pem = match dice.one_in(2) {
            true => bytes(REQUEST, &["-----BEGIN CERTIFICATE-----"], dice),
            false => {
                use base64::Engine as _;
                let der = bytes(&block.contents, &[], dice);
                let text = base64::engine::general_purpose::STANDARD.encode(der);
                format!(
                    "-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
                )
                .into_bytes()
            }
        };
        if let Ok(asked) = csr::parse(&pem) {
            let usages = ["client auth", "digital signature"];
            let _ = csr::kubelet_client(&asked, &usages);
        }
    });
}
