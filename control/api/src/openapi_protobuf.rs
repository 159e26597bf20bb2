//! The OpenAPI v2 document in the protobuf form of gnostic's `openapi.v2`, the only one in which
//! Go clients ask for `/openapi/v2`: kubectl does so for kinds that v3 doesn't tell it about.
//! Field numbers: gnostic `openapiv2/OpenAPIv2.proto`.

use serde_json::{Map, Value};

use crate::json::{list, map, text};

/// The media type in `Accept`.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The media type of the answer: `@` is no legal character in one, which is why it differs.
pub const CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn bytes(&mut self, number: u64, content: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(content.len() as u64);
        self.0.extend_from_slice(content);
    }

    /// Text, left out if it is empty, as proto3 does.
    fn text(&mut self, number: u64, content: &str) {
        if !content.is_empty() {
            self.bytes(number, content.as_bytes());
        }
    }

    fn texts(&mut self, number: u64, content: &[Value]) {
        for one in content.iter().filter_map(Value::as_str) {
            self.bytes(number, one.as_bytes());
        }
    }

    fn flag(&mut self, number: u64, set: bool) {
        if set {
            self.varint(number << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, number: u64, inner: Message) {
        self.bytes(number, &inner.0);
    }

    /// `name` 1, `value` 2: how maps are written.
    fn named(&mut self, number: u64, name: &str, value: Message) {
        let mut entry = Message::default();
        entry.text(1, name);
        entry.message(2, value);
        self.message(number, entry);
    }

    /// A oneof's only member.
    fn only(number: u64, inner: Message) -> Message {
        let mut outer = Message::default();
        outer.message(number, inner);
        outer
    }

    /// The `x-…` members, each as a piece of YAML.
    fn extensions(&mut self, number: u64, fields: &Map<String, Value>) {
        for (name, value) in fields.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.named(number, name, yaml(value));
        }
    }
}

/// `Any` with its content as YAML, of which JSON is a part.
fn yaml(value: &Value) -> Message {
    let mut any = Message::default();
    any.text(2, &value.to_string());
    any
}

/// Encodes a document of `Documents::v2`.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, text(document, "swagger"));
    let mut info = Message::default();
    info.text(1, text(document, "info.title"));
    info.text(2, text(document, "info.version"));
    out.message(2, info);
    let mut paths = Message::default();
    for (path, item) in map(document, "paths").into_iter().flatten() {
        paths.named(2, path, path_item(item));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in map(document, "definitions").into_iter().flatten() {
        definitions.named(1, name, schema(definition));
    }
    out.message(9, definitions);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    let methods = [
        ("get", 2),
        ("put", 3),
        ("post", 4),
        ("delete", 5),
        ("patch", 8),
    ];
    for (method, number) in methods {
        if let Some(found) = item.get(method) {
            out.message(number, operation(found));
        }
    }
    for found in list(item, "parameters") {
        out.message(9, parameter(found));
    }
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, list(operation, "tags"));
    out.text(3, text(operation, "description"));
    out.texts(6, list(operation, "produces"));
    out.texts(7, list(operation, "consumes"));
    for found in list(operation, "parameters") {
        out.message(8, parameter(found));
    }
    let mut responses = Message::default();
    for (code, found) in map(operation, "responses").into_iter().flatten() {
        let mut response = Message::default();
        response.text(1, text(found, "description"));
        if let Some(found) = found.get("schema") {
            response.message(2, Message::only(1, schema(found)));
        }
        responses.named(1, code, Message::only(1, response));
    }
    out.message(9, responses);
    out.texts(10, list(operation, "schemes"));
    if let Some(fields) = operation.as_object() {
        out.extensions(13, fields);
    }
    out
}

/// A `ParametersItem`.
fn parameter(parameter: &Value) -> Message {
    let required = crate::json::flag(parameter, "required");
    let place = text(parameter, "in");
    let mut out = Message::default();
    let parameter_message = if place == "body" {
        out.text(1, text(parameter, "description"));
        out.text(2, text(parameter, "name"));
        out.text(3, place);
        out.flag(4, required);
        if let Some(found) = parameter.get("schema") {
            out.message(5, schema(found));
        }
        Message::only(1, out)
    } else {
        let unique = crate::json::flag(parameter, "uniqueItems");
        out.flag(1, required);
        out.text(2, place);
        out.text(3, text(parameter, "description"));
        out.text(4, text(parameter, "name"));
        // Query parameters have `allowEmptyValue` before `type`, path parameters don't.
        let (type_number, unique_number, member) = if place == "path" {
            (5, 19, 4)
        } else {
            (6, 20, 3)
        };
        out.text(type_number, text(parameter, "type"));
        out.flag(unique_number, unique);
        Message::only(2, Message::only(member, out))
    };
    Message::only(1, parameter_message)
}

fn schema(schema_value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, text(schema_value, "$ref"));
    out.text(2, text(schema_value, "format"));
    out.text(4, text(schema_value, "description"));
    out.texts(19, list(schema_value, "required"));
    match schema_value.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.flag(2, *allowed);
            out.message(21, item);
        }
        Some(found @ Value::Object(_)) => out.message(21, Message::only(1, schema(found))),
        _ => {}
    }
    let ty = text(schema_value, "type");
    if !ty.is_empty() {
        let mut item = Message::default();
        item.text(1, ty);
        out.message(22, item);
    }
    if let Some(found) = schema_value.get("items") {
        out.message(23, Message::only(1, schema(found)));
    }
    if let Some(properties) = map(schema_value, "properties") {
        let mut all = Message::default();
        for (name, property) in properties {
            all.named(1, name, schema(property));
        }
        out.message(25, all);
    }
    if let Some(fields) = schema_value.as_object() {
        out.extensions(31, fields);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_small_document() {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "t", "version": "v"},
            "paths": {},
            "definitions": {"A": {"type": "object", "x-y": [1]}},
        });
        let expected: Vec<u8> = [
            b"\x0a\x032.0".as_slice(),
            b"\x12\x06\x0a\x01t\x12\x01v",
            b"\x42\x00",
            // definitions: entry "A": type 22 ["object"], extension 31 {"x-y": yaml "[1]"}
            b"\x4a\x21\x0a\x1f\x0a\x01A\x12\x1a",
            b"\xb2\x01\x08\x0a\x06object",
            b"\xfa\x01\x0c\x0a\x03x-y\x12\x05\x12\x03[1]",
        ]
        .concat();
        assert_eq!(encode(&document), expected);
    }

    #[test]
    fn the_whole_document_is_well_formed() {
        let encoded =
            encode(&crate::openapi::Documents::new(&crate::registry::Registry::built_in()).v2());
        // Walk the top level: fields 1, 2, 8 and 9, and nothing left over.
        let (mut at, mut numbers) = (0, Vec::new());
        while at < encoded.len() {
            let mut varint = || {
                let (mut n, mut shift) = (0_usize, 0);
                loop {
                    let byte = encoded[at];
                    at += 1;
                    n |= usize::from(byte & 0x7f) << shift;
                    shift += 7;
                    if byte & 0x80 == 0 {
                        return n;
                    }
                }
            };
            let tag = varint();
            assert_eq!(tag & 7, 2);
            let length = varint();
            numbers.push(tag >> 3);
            at += length;
        }
        assert_eq!((at, numbers), (encoded.len(), vec![1, 2, 8, 9]));
    }
}
