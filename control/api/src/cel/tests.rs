//! Expressions, refused or evaluated.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::crd::structural::Schema;

fn schema() -> Schema {
    Schema::compile(&json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "f": {"type": "number"}, "s": {"type": "string"},
        "maybe": {"type": "integer"},
        "when": {"type": "string", "format": "date-time"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "port": {"x-kubernetes-int-or-string": true},
        "namespace": {"type": "string"}, "x-y": {"type": "string"},
    }}))
}

fn evaluate(source: &str) -> Result<Value, String> {
    let schema = schema();
    let ty = declare(&schema, false).unwrap();
    let program = Program::compile(source, &[("self", ty)])?;
    let object = json!({"n": 3, "f": 1, "s": "hello", "when": "2026-03-04T05:06:07Z",
        "list": [1, 2, 3], "set": ["a", "b"], "labels": {"a": "b"}, "port": "http",
        "namespace": "ns", "x-y": "z"});
    let variables = BTreeMap::from([("self", of_json(&object, &schema, false))]);
    let value = program.evaluate(&variables, &mut Budget::new(1_000_000));
    value.map_err(|e| format!("evaluated: {e}"))
}

#[test]
fn what_is_true() {
    for rule in [
        "self.n == 3 && self.f == 1.0 && self.n < 4.5",
        "self.n + 1 == 4 && self.n * 2 - 1 == 5 && self.n / 2 == 1 && self.n % 2 == 1 && -self.n == -3",
        "self.s.startsWith('he') && self.s.endsWith('lo') && self.s.contains('ell') && self.s.matches('^h.*o$')",
        "self.s + ' world' == 'hello world' && size(self.s) == 5 && self.s.size() == 5",
        "has(self.n) && !has(self.maybe)",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 3)",
        "self.list.map(x, x * 2) == [2, 4, 6] && self.list.filter(x, x > 1) == [2, 3] && self.list.map(x, x > 1, x + 1) == [3, 4]",
        "self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3 && self.list.isSorted() && self.list.indexOf(2) == 1",
        "self.set == ['b', 'a'] && self.set + ['b', 'c'] == ['c', 'b', 'a']",
        "self.labels['a'] == 'b' && self.labels.a == 'b' && 'a' in self.labels && self.labels.all(k, k == 'a')",
        "self.port == 'http' && type(self.port) == string && type(1) == int",
        "self.__namespace__ == 'ns' && self.x__dash__y == 'z'",
        "self.n > 2 ? true : false",
        "false && self.labels['gone'] == 'x' || true",
        "self.list.exists(x, 6 / (x - 1) == 6)",
        "self.when.getFullYear() == 2026 && self.when.getMonth() == 2 && self.when.getDate() == 4 && self.when.getHours('+02:00') == 7",
        "self.when + duration('1h') > self.when && (self.when - timestamp('2026-03-04T05:06:00Z')) == duration('7s')",
        "duration('90m').getHours() == 1 && duration('90m').getMinutes() == 90",
        "'a,b,c'.split(',').join('-') == 'a-b-c' && 'abc'.charAt(1) == 'b' && 'abcabc'.lastIndexOf('b') == 4 && 'abc'.substring(1) == 'bc'",
        "'Hi'.lowerAscii() == 'hi' && 'x y'.replace(' ', '_') == 'x_y' && ' a '.trim() == 'a' && 'héé'.indexOf('é', 2) == 2",
        "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').add(quantity('500m')) == quantity('1') && isQuantity('1k') && !isQuantity('x')",
        "url('https://u@example.com:80/a%20b?k=v').getHost() == 'example.com:80' && url('https://example.com:80/p').getPort() == '80' && url('/p?k=a&k=b').getQuery()['k'] == ['a', 'b'] && isURL('/x')",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isIP('10.0.0.1') && !isIP('x') && ip.isCanonical('::1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.0.0/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8",
        "self.?maybe.orValue(7) == 7 && self.?n.hasValue() && optional.of(1).value() == 1 && self.labels[?'x'].orValue('d') == 'd'",
        "self.?n.optMap(v, v + 1).orValue(0) == 4 && !optional.none().hasValue()",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
        "int('5') == 5 && string(5) == '5' && double('1.5') == 1.5 && bytes('a') == b'a' && uint(1) == 1u",
        "{'a': 1}.a == 1 && {'a': 1}['a'] == 1 && size({'a': 1}) == 1",
        "self.s != null",
    ] {
        assert_eq!(evaluate(rule), Ok(Value::Bool(true)), "{rule}");
    }
}

#[test]
fn what_is_refused_when_it_is_written() {
    for (rule, why) in [
        ("self.gone == 1", "undefined field 'gone'"),
        ("other", "undeclared reference to 'other' (in container '')"),
        (
            "self.s.frobnicate()",
            "undeclared reference to 'frobnicate' (in container '')",
        ),
        (
            "self.s.format([1])",
            "undeclared reference to 'format' (in container '')",
        ),
        (
            "self.s > 1",
            "found no matching overload for '_>_' applied to '(string, int)'",
        ),
        (
            "self.n == 'x'",
            "found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            "self.n.startsWith('x')",
            "found no matching overload for 'startsWith' applied to 'int.(string)'",
        ),
        (
            "self.n.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        (
            "self.list.map(x, y)",
            "undeclared reference to 'y' (in container '')",
        ),
    ] {
        assert_eq!(evaluate(rule).unwrap_err(), why, "{rule}");
    }
    for rule in [
        "",
        "1 +",
        "self.",
        "a b",
        "'",
        "has(self)",
        &"(".repeat(4000),
        &["1"; 3000].join("+"),
    ] {
        assert!(evaluate(rule).is_err(), "{rule}");
    }
}

#[test]
fn what_fails_when_it_runs() {
    for (rule, why) in [
        ("self.maybe == 1", "evaluated: no such key: maybe"),
        ("self.labels['x'] == 'y'", "evaluated: no such key: x"),
        ("self.list[7] == 1", "evaluated: index out of bounds: 7"),
        ("1 / (self.n - 3) == 1", "evaluated: division by zero"),
        (
            "9223372036854775807 + self.n == 1",
            "evaluated: integer overflow",
        ),
        (
            "int('x') == 1",
            "evaluated: type conversion error from 'string' to 'int'",
        ),
        ("self.port > 1", "evaluated: no such overload"),
    ] {
        assert_eq!(evaluate(rule).unwrap_err(), why, "{rule}");
    }
}

#[test]
fn work_is_bounded() {
    let numbers: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let list = format!("[{}]", numbers.join(","));
    let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c >= 0)))");
    let doubled = format!("['x']{}.size() > 0", ".map(s, s + s)".repeat(48));
    let replaced = "['x']".to_string()
        + &".map(s, s.replace('', 'yyyyyyyyyyyyyyyyyyyyy'))".repeat(12)
        + ".size() > 0";
    for rule in [nested, doubled, replaced] {
        let began = std::time::Instant::now();
        assert_eq!(
            evaluate(&rule).unwrap_err(),
            "evaluated: operation cancelled: actual cost limit exceeded"
        );
        assert!(began.elapsed().as_secs() < 10, "{rule}");
    }
}
