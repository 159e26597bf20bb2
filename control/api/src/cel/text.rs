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
        let kind = arg.type_name();
        fail(match of {
            "binary" => {
                format!("only integers and bools can be formatted as binary, was given {kind}")
            }
            _ => format!("{of} clause can only be used on integers, was given {kind}"),
        })
    };
    let digits = precision.unwrap_or(6);
    match (clause, arg) {
        ('s', _) => shown(arg),
        ('d', Value::Int(n)) => Ok(n.to_string()),
        ('d', Value::Uint(n)) => Ok(n.to_string()),
        ('d', _) => wrong("decimal"),
        ('b', Value::Int(n)) => Ok(signed(*n, |n| format!("{n:b}"))),
        ('b', Value::Uint(n)) => Ok(format!("{n:b}")),
        ('b', Value::Bool(b)) => Ok(u8::from(*b).to_string()),
        ('b', _) => wrong("binary"),
        ('o', Value::Int(n)) => Ok(signed(*n, |n| format!("{n:o}"))),
        ('o', Value::Uint(n)) => Ok(format!("{n:o}")),
        ('o', _) => wrong("octal"),
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
                Value::String(s) => match &**s {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return not_double(clause, arg),
                },
                _ => return not_double(clause, arg),
            };
            Ok(match clause {
                _ if number.is_nan() => "NaN".into(),
                _ if number.is_infinite() => if number > 0.0 { "∞" } else { "-∞" }.into(),
                'f' => grouped(&format!("{number:.digits$}")),
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

fn not_double(clause: char, arg: &Value) -> Result<String, EvalError> {
    let of = match clause {
        'f' => "fixed-point",
        _ => "scientific",
    };
    fail(format!(
        "{of} clause can only be used on doubles, was given {}",
        arg.type_name()
    ))
}

/// American English, as Kubernetes formats numbers: a comma before each three digits.
fn grouped(number: &str) -> String {
    let end = number.find('.').unwrap_or(number.len());
    let (whole, fraction) = number.split_at(end);
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => ("-", whole),
        None => ("", whole),
    };
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// `1.052033 × 10⁰³`, with narrow spaces that don't break.
fn scientific(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("⁻", exponent),
        None => ("", exponent),
    };
    let raised = format!("{exponent:0>2}")
        .chars()
        .map(|c| match c {
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '4' => '⁴',
            '5' => '⁵',
            '6' => '⁶',
            '7' => '⁷',
            '8' => '⁸',
            '9' => '⁹',
            _ => '⁰',
        })
        .collect::<String>();
    format!("{mantissa}\u{202f}×\u{202f}10{sign}{raised}")
}

/// A double as Go's `%g` writes it: with an exponent where it is small or large.
pub fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let shortest = format!("{number:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number == 0.0 || (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:0>2}", exponent.unsigned_abs())
}

pub fn duration(nanos: i64) -> String {
    format!("{}s", nanos as f64 / 1e9)
}

/// What `%s` makes of a value.
fn shown(value: &Value) -> Result<String, EvalError> {
    Ok(match value {
        Value::String(s) | Value::Type(s) => s.to_string(),
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => double(*n),
        Value::Bytes(b) => match std::str::from_utf8(b) {
            Ok(text) => text.to_string(),
            Err(_) => return fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Timestamp(t) => t.to_string(),
        Value::Duration(n) => duration(*n),
        Value::List(list) => {
            let items: Result<Vec<String>, EvalError> = list.items.iter().map(literal).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(map) => {
            let entry = |(key, value): (&Key, &Value)| {
                Ok(format!("{}:{}", literal(&key.value())?, literal(value)?))
            };
            let entries: Result<Vec<String>, EvalError> = map.iter().map(entry).collect();
            let mut entries = entries?;
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        other => {
            return fail(format!(
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            ));
        }
    })
}

/// A value inside a list or map, as CEL would have it written.
fn literal(value: &Value) -> Result<String, EvalError> {
    let text = match value {
        Value::Double(n) if n.is_finite() => return Ok(format!("{n:.6}")),
        value => shown(value)?,
    };
    Ok(match value {
        Value::String(_) | Value::Double(_) => quote(&text),
        Value::Bytes(_) => format!("b{}", quote(&text)),
        Value::Timestamp(_) => format!("timestamp({})", quote(&text)),
        Value::Duration(_) => format!("duration({})", quote(&text)),
        _ => text,
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
