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
        r#"'%s is %d, %.2f, %x, %s'.format([dyn('a'), 7, 1.5, 255, [dyn(1), 'b']]) == 'a is 7, 1.50, ff, [1, "b"]' && '100%%'.format([]) == '100%'"#,
        "'%b %o %X'.format([dyn(5), 8, 'hi']) == '101 10 6869' && '%.6e|%f'.format([1052.032911275, 1234567.5]) == '1.052033\\u202f×\\u202f10⁰³|1,234,567.500000'",
        "'%s'.format([{'b': dyn(2.5), 'a': null}]) == '{\"a\":null, \"b\":2.500000}' && '%s %s'.format([dyn(2e-09), duration('1h45m47s')]) == '2e-09 6347s'",
        "string(1.0) == '1' && string(1234567.0) == '1.234567e+06' && string(123456.0) == '123456' && string(0.5) == '0.5' && string(double('-Inf')) == '-Inf'",
        "[3, 1, 2].sort() == [1, 2, 3] && ['b', 'a'].sort() == ['a', 'b'] && [1, 2, 1].distinct() == [1, 2] && self.list.reverse() == [3, 2, 1]",
        "[{'n': 'x'}, {'n': 'a'}].sortBy(e, e.n)[0].n == 'a' && self.list.sortBy(x, -x) == [3, 2, 1] && self.list.sortBy(x, x > 2).sortBy(x, -x).map(x, x + 1) == [4, 3, 2]",
        "[[1], [2, 3]].flatten() == [1, 2, 3] && [dyn(1), [dyn(2), [3]]].flatten(2) == [1, 2, 3] && self.list.slice(1, 3) == [2, 3] && lists.range(3) == [0, 1, 2]",
        "self.list.first().value() == 1 && self.list.last().orValue(0) == 3 && !self.list.filter(x, x > 9).first().hasValue()",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.none(), optional.of(2)].unwrapOpt() == [2]",
        "'abc'.indexOf('b', 9) == -1 && 'abcabc'.lastIndexOf('bc', 3) == 1 && 'abcabc'.lastIndexOf('bc', 4) == 4 && 'abc'.lastIndexOf('c', 9) == -1 && 'aéa'.lastIndexOf('é', 1) == 1",
        "int(1.9) == 1 && int(-1.9) == -1 && uint(1.8e19) > 1u && bool('T') && !bool('F')",
        r#"strings.quote('a "b"\n') == '"a \\"b\\"\\n"'"#,
        "semver('1.2.3').minor() == 2 && semver('1.10.0').isGreaterThan(semver('1.9.9')) && semver('v1.2', true) == semver('1.2.0') && isSemver('1.0.0-rc.1') && !isSemver('1.0') && semver('1.0.0').compareTo(semver('2.0.0')) == -1",
        "!format.dns1123Label().validate('my-label').hasValue() && format.dns1123Label().validate('My').hasValue() && format.named('uuid').hasValue() && !format.named('x').hasValue() && !format.dns1123LabelPrefix().validate('a-').hasValue()",
        "self.list.all(i, x, x == i + 1) && self.list.exists(i, x, i == 2 && x == 3) && self.list.existsOne(i, x, x > 2)",
        "self.labels.all(k, v, k == 'a' && v == 'b') && {'a': 1, 'b': 2}.exists(k, v, k == 'b' && v == 2)",
        "self.list.transformList(i, x, i * x) == [0, 2, 6] && self.list.transformList(i, x, i > 0, x) == [2, 3]",
        "self.list.transformMap(i, x, x * 2) == {0: 2, 1: 4, 2: 6} && {'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "self.list.exists(i, x, 6 / (x - 1) == 6)",
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
            "self.s.reverse()",
            "found no matching overload for 'reverse' applied to 'string.()'",
        ),
        (
            "[1, 'a'].size() == 2",
            "expected type 'int' but found 'string'",
        ),
        (
            "{'a': 1, 'b': 'c'}.size() == 2",
            "expected type 'int' but found 'string'",
        ),
        (
            "[[1]].sortBy(x, x).size() == 1",
            "found no matching overload for '@sortByAssociatedKeys' applied to 'list(list(int)).(list(list(int)))'",
        ),
        (
            "math.greatest(1, 2) == 2",
            "undeclared reference to 'math.greatest' (in container '')",
        ),
        ("self.list.all(i, i, true)", "duplicate variable name: i"),
        (
            "self.list.all(i, x, x)",
            "expected type 'bool' but found 'int'",
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
        ("int(9.3e18) == 1", "evaluated: integer overflow"),
        ("uint(-1) == 1u", "evaluated: unsigned integer overflow"),
        (
            "self.list.slice(2, 9) == []",
            "evaluated: cannot slice(2, 9), list is length 3",
        ),
        (
            "[dyn(1), 'a'].sortBy(x, x) == []",
            "evaluated: list elements must have the same type",
        ),
        (
            "'%d'.format(['a']) == ''",
            "evaluated: error during formatting: argument 0: decimal clause can only be used on integers, was given string",
        ),
        (
            "semver('1.0').major() == 1",
            "evaluated: No Major.Minor.Patch elements found",
        ),
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
    let patterns =
        format!("{list}.all(a, {list}.all(b, 'x'.matches('(x{{1,' + string(a) + '}}){{1,90}}$')))");
    let searched = format!(
        "{list}.map(a, 'x').join('{long}').matches('(x*)*(y*)*(x*)*(y*)*(x*)*(y*)*(x*)*(y*)*(x*)*(y*)*z$')",
        long = "y".repeat(9000)
    );
    for rule in [nested, doubled, replaced, patterns, searched] {
        let began = std::time::Instant::now();
        assert_eq!(
            evaluate(&rule).unwrap_err(),
            "evaluated: operation cancelled: actual cost limit exceeded"
        );
        assert!(began.elapsed().as_secs() < 10, "{rule}");
    }
}

#[test]
fn the_fields_of_a_variable_that_are_named() {
    let fields = |source: &str| {
        let program = Program::compile(source, &[("v", Type::Dyn)]).unwrap();
        program.fields("v")
    };
    let some = |names: &[&str]| Some(names.iter().map(|n| n.to_string()).collect());
    assert_eq!(fields("v.a + [1].map(x, v.b.c)[0]"), some(&["a", "b"]));
    assert_eq!(fields("has(v.a) && v.?b.hasValue()"), some(&["a", "b"]));
    assert_eq!(fields("1 + 1"), some(&[]));
    assert_eq!(fields("v['a']"), None);
    assert_eq!(fields("size(v) + v.a"), None);
}

#[test]
fn going_through_a_list_costs_what_is_looked_at() {
    let long = dynamic(&serde_json::Value::Array(vec![json!("x"); 100_000]));
    for source in [
        "x.all(a, x.exists(b, true))",
        "x.all(i, a, x.exists(i, b, true))",
    ] {
        let program = Program::compile(source, &[("x", Type::Dyn)]).unwrap();
        let variables = BTreeMap::from([("x", long.clone())]);
        let began = std::time::Instant::now();
        let result = program.evaluate(&variables, &mut Budget::new(1_000_000));
        let paid = matches!(result, Ok(Value::Bool(true)) | Err(EvalError::Budget));
        assert!(paid, "{source}: {result:?}");
        assert!(began.elapsed().as_secs() < 5, "{source}");
    }
}

/// Allows one thing.
#[derive(Debug)]
struct Only(Asked);

impl Authorize for Only {
    fn check(&self, asked: &Asked) -> Decision {
        Decision {
            allowed: *asked == self.0,
            reason: format!("{} {}", asked.verb, asked.resource),
            error: String::new(),
        }
    }
}

#[test]
fn the_authorizer_is_asked() {
    let allowed = Asked {
        group: "apps".into(),
        resource: "deployments".into(),
        subresource: "scale".into(),
        namespace: "a".into(),
        name: "d".into(),
        verb: "update".into(),
        ..Asked::default()
    };
    let request = Asked {
        verb: String::new(),
        ..allowed.clone()
    };
    let authorizer = Question::authorizer(std::sync::Arc::new(Only(allowed)), request);
    let ask = |source: &str| {
        let program = Program::compile(source, &[("authorizer", Type::Authorizer)])?;
        let variables = BTreeMap::from([("authorizer", authorizer.clone())]);
        let value = program.evaluate(&variables, &mut Budget::new(1_000_000));
        value.map_err(|e| e.to_string())
    };
    let deployment = "authorizer.group('apps').resource('deployments').subresource('scale').namespace('a').name('d')";
    for (source, expected) in [
        (format!("{deployment}.check('update').allowed()"), true),
        (format!("{deployment}.check('get').allowed()"), false),
        (
            format!("{deployment}.check('get').reason() == 'get deployments'"),
            true,
        ),
        (format!("{deployment}.check('get').errored()"), false),
        (
            "authorizer.requestResource.check('update').allowed()".into(),
            true,
        ),
        (
            "authorizer.path('/healthz').check('get').allowed()".into(),
            false,
        ),
        (
            "authorizer.serviceAccount('a', 'b').requestResource.check('update').allowed()".into(),
            false,
        ),
    ] {
        assert_eq!(ask(&source), Ok(Value::Bool(expected)), "{source}");
    }
    assert_eq!(
        ask("authorizer.check('get')").unwrap_err(),
        "found no matching overload for 'check' applied to 'kubernetes.authorization.Authorizer.(string)'"
    );
    // Questions are dear: three of them are more than an expression may cost.
    let many = format!("[1, 2, 3].exists(x, {deployment}.check('get').allowed())");
    assert_eq!(
        ask(&many).unwrap_err(),
        "operation cancelled: actual cost limit exceeded"
    );
}

mod conformance;
mod properties;
mod well_known;
