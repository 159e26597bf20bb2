//! What cel-spec says of values and operators, where it is easily got wrong.

use super::*;

fn eval(source: &str) -> Result<Value, String> {
    let program = Program::compile(source, &[("x", Type::Dyn)])?;
    let variables = BTreeMap::from([(
        "x",
        dynamic(&serde_json::json!({"a": 1, "f": 1.5, "n": null, "list": [1, "b", 2.0]})),
    )]);
    let value = program.evaluate(&variables, &mut Budget::new(1_000_000));
    value.map_err(|e| e.to_string())
}

#[test]
fn what_holds() {
    for source in [
        // An error beside what decides doesn't matter, on either side.
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "true ? true : 1 / 0 == 1",
        "false ? 1 / 0 == 1 : true",
        "[0, 2].exists(i, 4 / i == 2)",
        "![0, 2].all(i, 4 / i == 3)",
        // Equality of what isn't of one type is no error, and numbers are numbers.
        "dyn(1) == dyn(1.0) && dyn(1u) == dyn(1) && dyn(1) != dyn('1') && dyn([1]) == dyn([1.0])",
        "dyn({'a': 1}) == dyn({'a': 1u}) && dyn(null) == null && dyn(1) != null",
        "double('NaN') != double('NaN') && !(double('NaN') < 1.0) && !(double('NaN') >= 1.0)",
        "1 < 1.5 && 2u > 1 && 1.0 <= 1u && 9223372036854775807 < 1e19",
        "1 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': null} && x.a in x.list && !('z' in x)",
        "{1: 'a', 2: 'b'}[1] == 'a' && {true: 1}[true] == 1 && {1u: 'x'}[1u] == 'x' && {dyn(1): 'a'}[dyn(1.0)] == 'a'",
        "has({'a': null}.a) && !has({'a': 1}.b) && has(x.n) && !has(x.z) && x.n == null",
        "x.a == 1 && type(x.a) == int && type(x.f) == double && type(x.list[1]) == string && type(x.n) == null_type && type(x) == map && type(x.list) == list",
        r"'\a\b\f\n\r\t\v\\\'' == '\x07\x08\x0c\x0a\x0d\x09\x0b\x5c\x27' && '\u00e9' == 'é' && '\U0001F431' == '🐱' && '\101' == 'A'",
        r"r'\n' == '\\n' && '''a'b''' == 'a\'b'",
        r"b'\xff' != b'\xfe' && size(b'é') == 2 && size('é') == 1 && b'\303\251' == bytes('é') && string(b'\xc3\xa9') == 'é'",
        "7 / 2 == 3 && -7 / 2 == -3 && -7 % 2 == -1 && 7 % -2 == 1 && 0x1F == 31 && -0x10 == -16",
        "-9223372036854775808 < 0 && 18446744073709551615u > 0u",
        "1.0 / 0.0 > 1e308 && -1.0 / 0.0 < -1e308",
        "timestamp('2009-02-13T23:31:30Z') == timestamp(1234567890) && int(timestamp('1970-01-01T00:01:00Z')) == 60",
        "timestamp('2009-02-13T23:31:20.123456789Z').getMilliseconds() == 123 && timestamp('2009-02-13T23:31:30Z').getDayOfWeek() == 5 && timestamp('2009-02-13T23:31:30Z').getDayOfYear() == 43 && timestamp('2009-02-13T23:31:30Z').getDayOfMonth() == 12",
        "timestamp('2009-02-13T23:31:30Z').getHours('Asia/Kathmandu') == 5 && timestamp('2009-02-13T02:00:00Z').getDate('America/St_Johns') == 12 && timestamp('2009-02-13T02:00:00Z').getDate('-02:30') == 12",
        "timestamp('2009-02-13T23:00:00Z') - duration('1h') < timestamp('2009-02-13T23:00:00Z') && duration('1h') == duration('60m') && duration('-1.5h') < duration('0s')",
        "string(timestamp('2009-02-13T23:31:30Z')) == '2009-02-13T23:31:30Z' && string(duration('90m')) == '5400s'",
        "[1, 2].map(a, [3, 4].map(b, a * b)) == [[3, 4], [6, 8]] && [1, 2].map(a, [a].exists(a, a == 2)) == [false, true]",
        "[[1, 2], [3]].all(l, l.all(n, n > 0)) && {'a': 1, 'b': 2}.map(k, k).size() == 2 && [1, 2, 3].exists_one(n, n > 2)",
        "[1, 2] + [3] == [1, 2, 3] && 'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1, 2][1] == 2 && [?optional.of(1), ?optional.none()] == [1] && {?'a': optional.none()} == {}",
        "'abc' < 'abd' && 'Z' < 'a' && b'a' < b'b' && false < true",
        "x.?a.hasValue() && !x.?z.y.hasValue() && x[?'f'].orValue(0.0) == 1.5 && x.list[?9].or(optional.of(dyn(3))).value() == 3",
        "x.list.all(i, v, i < 3) && x.transformMap(k, v, k).a == 'a' && {'a': 1}.transformMapEntry(k, v, {v: k})[1] == 'a'",
    ] {
        assert_eq!(eval(source), Ok(Value::Bool(true)), "{source}");
    }
}

#[test]
fn what_fails() {
    for (source, why) in [
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808 - 1", "integer overflow"),
        ("9223372036854775807 * 2", "integer overflow"),
        ("-(-9223372036854775808)", "integer overflow"),
        ("-9223372036854775808 / -1", "integer overflow"),
        ("18446744073709551615u + 1u", "unsigned integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("1u / 0u", "division by zero"),
        ("x.z", "no such key: z"),
        ("x.a.b", "no such overload"),
        ("x['z']", "no such key: z"),
        ("{'a': 1}['b']", "no such key: b"),
        ("[1][1]", "index out of bounds: 1"),
        ("[1][-1]", "index out of bounds: -1"),
        ("x.a + 'b'", "no such overload"),
        ("dyn(1) && true", "no such overload"),
        ("dyn('a') ? 1 : 2", "no such overload"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key"),
        ("true && 1 / 0 == 1", "division by zero"),
        ("false || 1 / 0 == 1", "division by zero"),
        ("[0].all(i, 1 / i == 1)", "division by zero"),
        ("[0, 1].map(i, 1 / i)", "division by zero"),
        (
            "string(b'\\xff')",
            "invalid UTF-8 in bytes, cannot convert to string",
        ),
        ("optional.none().value()", "optional.none() dereference"),
    ] {
        let error = eval(source).unwrap_err();
        assert!(error.contains(why), "{source}: {error}");
    }
}

#[test]
fn what_is_refused() {
    for source in [
        "1 + 1u",
        "1 == 1.0",
        "'a' == 1",
        "[1, 'a']",
        "{'a': 1, 'b': true}",
        "1 ? 2 : 3",
        "true ? 1 : 'a'",
        "!1",
        "[1].map(1, 2)",
        "has(x)",
        "size(1)",
        "'a' in 'abc'",
        "math.abs(1)",
        "base64.encode(b'a')",
        "cel.bind(a, 1, a)",
        "'abc'.reverse()",
        "jsonpatch.escapeKey('a')",
        "9223372036854775808",
        "18446744073709551616u",
        "Pod{}",
        "x.in",
        "if",
    ] {
        assert!(eval(source).is_err(), "{source}");
    }
}
