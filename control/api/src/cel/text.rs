//! `format` and `quote` of cel-go's strings extension. Source: cel-go `ext/{formatting,strings}.go`.

use super::eval::{Budget, EvalError, Evaluated, failed};
use super::value::{Key, Value};

/// The most digits that a clause may ask for.
const MAX_PRECISION: usize = 1000;

fn fail<T>(why: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(why.into()))
}

/// `text.format(args)`.
pub fn format(text: &str, args: &[Value], budget: &mut Budget) -> Evaluated {
    let mut out = String::new();
    let mut args_left = args.iter().enumerate();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            match digits.parse() {
                Ok(n) if n <= MAX_PRECISION => precision = Some(n),
                _ => {
                    return failed(format!(
                        "could not parse formatting clause: error while converting precision to integer: {digits:?}"
                    ));
                }
            }
        }
        let Some(clause) = chars.next() else {
            return failed("could not parse formatting clause: unexpected end of string");
        };
        let Some((i, arg)) = args_left.next() else {
            return failed(format!("index {} out of range", args.len()));
        };
        let written = clause_of(clause, precision, arg);
        let written = written.map_err(|error| match error {
            EvalError::Failed(why) => {
                EvalError::Failed(format!("error during formatting: argument {i}: {why}"))
            }
            spent => spent,
        })?;
        budget.spend(1 + written.len() as u64 / 10)?;
        out.push_str(&written);
    }
    Ok(Value::text(out))
}

fn clause_of(clause: char, precision: Option<usize>, arg: &Value) -> Result<String, EvalError> {
    let wrong = |of: &str| {
        fail(format!(
            "{of} can only be used on integers, got {}",
            arg.type_name()
        ))
    };
    let digits = precision.unwrap_or(6);
    match (clause, arg) {
        ('s', _) => shown(arg),
        ('d', Value::Int(n)) => Ok(n.to_string()),
        ('d', Value::Uint(n)) => Ok(n.to_string()),
        ('d', _) => wrong("decimal clause"),
        ('b', Value::Int(n)) => Ok(signed(*n, |n| format!("{n:b}"))),
        ('b', Value::Uint(n)) => Ok(format!("{n:b}")),
        ('b', Value::Bool(b)) => Ok(u8::from(*b).to_string()),
        ('b', _) => wrong("binary clause"),
        ('o', Value::Int(n)) => Ok(signed(*n, |n| format!("{n:o}"))),
        ('o', Value::Uint(n)) => Ok(format!("{n:o}")),
        ('o', _) => wrong("octal clause"),
        ('x' | 'X', _) => {
            let hex = match arg {
                Value::Int(n) => signed(*n, |n| format!("{n:x}")),
                Value::Uint(n) => format!("{n:x}"),
                Value::String(s) => hex(s.as_bytes()),
                Value::Bytes(b) => hex(b),
                _ => {
                    return fail(format!(
                        "only integers, byte buffers, and strings can be formatted as hex, was given {}",
                        arg.type_name()
                    ));
                }
            };
            Ok(if clause == 'X' {
                hex.to_uppercase()
            } else {
                hex
            })
        }
        ('f' | 'e', _) => {
            let number = match arg {
                Value::Double(n) => *n,
                Value::Int(n) => *n as f64,
                Value::Uint(n) => *n as f64,
                Value::String(s) if matches!(&**s, "NaN" | "Infinity" | "-Infinity") => {
                    return Ok(s.to_string());
                }
                _ => {
                    return fail(format!(
                        "fixed-point clause can only be used on doubles, was given {}",
                        arg.type_name()
                    ));
                }
            };
            Ok(match (number.is_nan(), number.is_infinite(), clause) {
                (true, ..) => "NaN".into(),
                (_, true, _) if number > 0.0 => "Infinity".into(),
                (_, true, _) => "-Infinity".into(),
                (.., 'f') => format!("{number:.digits$}"),
                _ => scientific(number, digits),
            })
        }
        (other, _) => fail(format!(
            "could not parse formatting clause: unrecognized formatting clause \"{other}\""
        )),
    }
}

fn signed(n: i64, write: impl Fn(u64) -> String) -> String {
    let sign = if n < 0 { "-" } else { "" };
    format!("{sign}{}", write(n.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// As Go writes it: two digits of exponent, with its sign.
fn scientific(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{exponent:0>2}")
}

/// What `%s` makes of a value.
fn shown(value: &Value) -> Result<String, EvalError> {
    Ok(match value {
        Value::String(s) | Value::Url(s) | Value::Type(s) => s.to_string(),
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) if n.is_nan() => "NaN".into(),
        Value::Double(n) if n.is_infinite() => {
            if *n > 0.0 { "Infinity" } else { "-Infinity" }.into()
        }
        Value::Double(n) => n.to_string(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Value::Timestamp(t) => t.to_string(),
        Value::Duration(n) => format!("{}s", *n as f64 / 1e9),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        Value::List(list) => {
            let items: Result<Vec<String>, EvalError> = list.items.iter().map(shown).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(map) => {
            let entry = |(key, value): (&Key, &Value)| {
                Ok(format!("{}: {}", shown(&key.value())?, shown(value)?))
            };
            let entries: Result<Vec<String>, EvalError> = map.iter().map(entry).collect();
            format!("{{{}}}", entries?.join(", "))
        }
        other => {
            return fail(format!(
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            ));
        }
    })
}

/// `strings.quote(text)`.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
