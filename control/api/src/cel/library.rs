//! Functions. Strings are counted in code points, as CEL does.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;

use super::eval::{Budget, EvalError, Evaluated, failed, no_overload};
use super::network::{address, cidr_part, ip_part, network, url_part};
use super::semver::Semver;
use super::value::Value;
use super::{authorizer, lists, named_format, semver, text};
use crate::crd::format;
use crate::quantity::Quantity;
use crate::time;

/// Calls a function; the value that it is called on comes first.
pub fn call(name: &str, on_target: bool, values: &[Value], budget: &mut Budget) -> Evaluated {
    let found = match (on_target, values) {
        (false, _) => global(name, values, budget),
        (true, [Value::String(text), args @ ..]) => string(name, text, args, budget),
        (true, [Value::List(list), args @ ..]) => lists::call(name, &list.items, args, budget),
        (true, [Value::Timestamp(at), args @ ..]) => date(name, *at, args),
        (true, [Value::Duration(nanos), ..]) => span(name, *nanos),
        (true, [Value::Quantity(quantity), args @ ..]) => amount(name, *quantity, args),
        (true, [Value::Url(url), ..]) => url_part(name, url),
        (true, [Value::Ip(ip), ..]) => ip_part(name, *ip),
        (true, [Value::Cidr(cidr), args @ ..]) => cidr_part(name, cidr, args),
        (true, [Value::Semver(version), args @ ..]) => semver_part(name, version, args),
        (true, [Value::Format(format), Value::String(text)]) if name == "validate" => {
            let faults = named_format::faults(format, text);
            let faults: Vec<Value> = faults.into_iter().map(Value::text).collect();
            Some(Ok(match faults.is_empty() {
                true => Value::none(),
                false => Value::some(Value::list(faults)),
            }))
        }
        (true, [Value::Question(question), args @ ..]) => question.call(name, args, budget),
        (true, [Value::Decision(decision)]) => authorizer::decision(decision, name),
        (true, [Value::Optional(inner), args @ ..]) => optional(name, inner.as_deref(), args),
        (true, [Value::Bytes(bytes)]) if name == "size" => Some(Ok(count(bytes.len()))),
        (true, [Value::Map(map)]) if name == "size" => Some(Ok(count(map.len()))),
        _ => None,
    };
    found.unwrap_or_else(no_overload)
}

fn count(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn global(name: &str, values: &[Value], budget: &mut Budget) -> Option<Evaluated> {
    Some(match (name, values) {
        ("size", [value]) => match value {
            Value::String(s) => Ok(count(s.chars().count())),
            Value::Bytes(b) => Ok(count(b.len())),
            Value::List(list) => Ok(count(list.items.len())),
            Value::Map(map) => Ok(count(map.len())),
            _ => no_overload(),
        },
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.type_name().into())),
        (
            "int" | "uint" | "double" | "string" | "bytes" | "bool" | "timestamp" | "duration",
            [value],
        ) => convert(name, value),
        (
            "sets.contains" | "sets.intersects" | "sets.equivalent",
            [Value::List(a), Value::List(b)],
        ) => lists::sets(name, &a.items, &b.items, budget),
        ("lists.range", [Value::Int(n)]) => lists::range(*n, budget),
        ("optional.unwrap", [Value::List(list)]) => lists::unwrapped(&list.items),
        ("quantity", [Value::String(text)]) => match Quantity::parse(text) {
            Ok(quantity) => Ok(Value::Quantity(quantity)),
            Err(error) => failed(error.to_string()),
        },
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool(Quantity::parse(text).is_ok())),
        ("url", [Value::String(text)]) if format::uri(text) => Ok(Value::Url(text.clone())),
        ("url", [Value::String(text)]) => failed(format!(
            "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
        )),
        ("isURL", [Value::String(text)]) => Ok(Value::Bool(format::uri(text))),
        ("ip", [Value::String(text)]) => match address(text) {
            Some(ip) => Ok(Value::Ip(ip)),
            None => failed(format!(
                "IP Address {text:?} parse error during conversion from string"
            )),
        },
        ("isIP", [Value::String(text)]) => Ok(Value::Bool(address(text).is_some())),
        ("ip.isCanonical", [Value::String(text)]) => match address(text) {
            Some(ip) => Ok(Value::Bool(ip.to_string() == **text)),
            None => failed(format!(
                "IP Address {text:?} parse error during conversion from string"
            )),
        },
        ("cidr", [Value::String(text)]) => match network(text) {
            Some(cidr) => Ok(Value::Cidr(cidr)),
            None => failed(format!(
                "CIDR {text:?} parse error during conversion from string"
            )),
        },
        ("isCIDR", [Value::String(text)]) => Ok(Value::Bool(network(text).is_some())),
        ("strings.quote", [Value::String(text)]) => Ok(Value::text(text::quote(text))),
        ("semver" | "isSemver", [Value::String(text), normalize @ ..]) => {
            let normalize = match normalize {
                [] => false,
                [Value::Bool(normalize)] => *normalize,
                _ => return None,
            };
            match (name, semver::parse(text, normalize)) {
                ("isSemver", found) => Ok(Value::Bool(found.is_some())),
                (_, Some(version)) => Ok(Value::Semver(Arc::new(version))),
                (_, None) => failed(semver::fault(text, normalize)),
            }
        }
        ("format.named", [Value::String(name)]) => Ok(named_format::named(name)
            .map_or_else(Value::none, |name| Value::some(Value::Format(name)))),
        (name, []) if name.starts_with("format.") => {
            let format = named_format::named(name.trim_start_matches("format."))?;
            Ok(Value::Format(format))
        }
        ("optional.of", [value]) => Ok(Value::some(value.clone())),
        ("optional.none", []) => Ok(Value::none()),
        ("optional.ofNonZeroValue", [value]) => Ok(match is_zero(value) {
            true => Value::none(),
            false => Value::some(value.clone()),
        }),
        _ => return None,
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Optional(None) | Value::Bool(false) => true,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(n) => *n == 0.0,
        Value::String(s) => s.is_empty(),
        Value::Bytes(b) => b.is_empty(),
        Value::List(list) => list.items.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Duration(n) => *n == 0,
        _ => false,
    }
}

const TWO_63: f64 = 9_223_372_036_854_775_808.0;

fn convert(to: &str, value: &Value) -> Evaluated {
    let range = || {
        failed(match to {
            "int" => "integer overflow",
            "uint" => "unsigned integer overflow",
            _ => "timestamp overflow",
        })
    };
    match (to, value) {
        ("int", Value::Int(_)) | ("uint", Value::Uint(_)) | ("double", Value::Double(_)) => {}
        ("string", Value::String(_)) | ("bytes", Value::Bytes(_)) | ("bool", Value::Bool(_)) => {}
        ("timestamp", Value::Timestamp(_)) | ("duration", Value::Duration(_)) => {}
        ("int", Value::Uint(n)) => {
            return i64::try_from(*n).map_or_else(|_| range(), |n| Ok(Value::Int(n)));
        }
        // The doubles next to 2⁶³ and 2⁶⁴ are those powers themselves.
        ("int", Value::Double(n)) if n.abs() < TWO_63 => return Ok(Value::Int(*n as i64)),
        ("uint", Value::Double(n)) if (0.0..2.0 * TWO_63).contains(n) => {
            return Ok(Value::Uint(*n as u64));
        }
        ("int" | "uint", Value::Double(_)) => return range(),
        ("int", Value::Timestamp(t)) => return Ok(Value::Int(t.as_second())),
        ("uint", Value::Int(n)) => {
            return u64::try_from(*n).map_or_else(|_| range(), |n| Ok(Value::Uint(n)));
        }
        ("double", Value::Int(n)) => return Ok(Value::Double(*n as f64)),
        ("double", Value::Uint(n)) => return Ok(Value::Double(*n as f64)),
        ("bytes", Value::String(s)) => return Ok(Value::Bytes(s.as_bytes().into())),
        ("int" | "uint" | "double" | "bool" | "timestamp" | "duration", Value::String(s)) => {
            let parsed = match to {
                "int" => s.parse().ok().map(Value::Int),
                "uint" => s.parse().ok().map(Value::Uint),
                "double" => s.parse().ok().map(Value::Double),
                "bool" => match &**s {
                    "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(Value::Bool(true)),
                    "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(Value::Bool(false)),
                    _ => None,
                },
                "timestamp" => time::parse(s).map(Value::Timestamp),
                _ => format::nanoseconds(s).map(Value::Duration),
            };
            let why = || failed(format!("type conversion error from 'string' to '{to}'"));
            return parsed.map_or_else(why, Ok);
        }
        ("timestamp", Value::Int(n)) => {
            return Timestamp::from_second(*n)
                .map_or_else(|_| range(), |t| Ok(Value::Timestamp(t)));
        }
        ("string", value) => {
            return match value {
                Value::Int(n) => Ok(Value::text(n.to_string())),
                Value::Uint(n) => Ok(Value::text(n.to_string())),
                Value::Double(n) => Ok(Value::text(text::double(*n))),
                Value::Bool(b) => Ok(Value::text(b.to_string())),
                Value::Ip(ip) => Ok(Value::text(ip.to_string())),
                Value::Cidr(cidr) => Ok(Value::text(cidr.to_string())),
                Value::Timestamp(t) => Ok(Value::text(t.to_string())),
                Value::Duration(n) => Ok(Value::text(text::duration(*n))),
                Value::Bytes(b) => match std::str::from_utf8(b) {
                    Ok(text) => Ok(Value::text(text)),
                    Err(_) => failed("invalid UTF-8 in bytes, cannot convert to string"),
                },
                _ => no_overload(),
            };
        }
        _ => return no_overload(),
    }
    Ok(value.clone())
}

/// Where a search begins; `None` behind the end.
fn search_from(text: &str, index: i64) -> Result<Option<usize>, EvalError> {
    match byte_at(text, index) {
        Err(error) if index < 0 => Err(error),
        found => Ok(found.ok()),
    }
}

/// The byte at which a code point begins; the end for one past the last.
fn byte_at(text: &str, index: i64) -> Result<usize, EvalError> {
    let out = || EvalError::Failed(format!("index out of range: {index}"));
    let index = usize::try_from(index).map_err(|_| out())?;
    let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    starts.nth(index).ok_or_else(out)
}

fn position(text: &str, byte: Option<usize>) -> Value {
    byte.map_or(Value::Int(-1), |at| count(text[..at].chars().count()))
}

fn string(name: &str, text: &Arc<str>, args: &[Value], budget: &mut Budget) -> Option<Evaluated> {
    Some(match (name, args) {
        ("size", []) => Ok(count(text.chars().count())),
        ("contains", [Value::String(other)]) => Ok(Value::Bool(text.contains(&**other))),
        ("startsWith", [Value::String(other)]) => Ok(Value::Bool(text.starts_with(&**other))),
        ("endsWith", [Value::String(other)]) => Ok(Value::Bool(text.ends_with(&**other))),
        ("lowerAscii", []) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("charAt", [Value::Int(at)]) => byte_at(text, *at).map(|at| {
            let found = text[at..].chars().next();
            Value::text(found.map(String::from).unwrap_or_default())
        }),
        ("indexOf", [Value::String(other)]) => Ok(position(text, text.find(&**other))),
        ("indexOf", [Value::String(other), Value::Int(from)]) => {
            search_from(text, *from).map(|from| {
                let found = from.and_then(|from| Some(text[from..].find(&**other)? + from));
                position(text, found)
            })
        }
        ("lastIndexOf", [Value::String(other)]) => Ok(position(text, text.rfind(&**other))),
        ("lastIndexOf", [Value::String(other), Value::Int(until)]) => {
            search_from(text, *until).map(|until| {
                let starts = |until: usize| text[..until].rfind(&**other);
                let found = until.and_then(|until| {
                    // What begins there may end behind it.
                    let end = until.saturating_add(other.len());
                    let end = text.ceil_char_boundary(end.min(text.len()));
                    starts(end)
                });
                position(text, found)
            })
        }
        ("substring", [Value::Int(from)]) => {
            byte_at(text, *from).map(|from| Value::text(&text[from..]))
        }
        ("substring", [Value::Int(from), Value::Int(until)]) => {
            match (byte_at(text, *from), byte_at(text, *until)) {
                (Ok(from), Ok(until)) if from <= until => Ok(Value::text(&text[from..until])),
                (Err(error), _) | (_, Err(error)) => Err(error),
                _ => failed(format!(
                    "invalid substring range. start: {from}, end: {until}"
                )),
            }
        }
        ("replace", [Value::String(from), Value::String(to)]) => {
            replace(text, from, to, -1, budget)
        }
        ("replace", [Value::String(from), Value::String(to), Value::Int(most)]) => {
            replace(text, from, to, *most, budget)
        }
        ("split", [Value::String(by)]) => Ok(split(text, by, -1)),
        ("split", [Value::String(by), Value::Int(most)]) => Ok(split(text, by, *most)),
        ("format", [Value::List(args)]) => text::format(text, &args.items, budget),
        _ => return None,
    })
}

fn replace(text: &str, from: &str, to: &str, most: i64, budget: &mut Budget) -> Evaluated {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let times = text.matches(from).count().min(most) as u64;
    budget.spend(times.saturating_mul(1 + to.len() as u64 / 10))?;
    Ok(Value::text(text.replacen(from, to, most)))
}

fn split(text: &str, by: &str, most: i64) -> Value {
    let parts: Vec<Value> = match (most, by) {
        (0, _) => Vec::new(),
        (n, "") => {
            let mut parts: Vec<String> = text.chars().map(String::from).collect();
            if let Ok(n) = usize::try_from(n)
                && parts.len() > n
            {
                let rest = parts.split_off(n - 1).concat();
                parts.push(rest);
            }
            parts.into_iter().map(Value::text).collect()
        }
        (n, by) if n > 0 => text
            .splitn(usize::try_from(n).unwrap_or(usize::MAX), by)
            .map(Value::text)
            .collect(),
        (_, by) => text.split(by).map(Value::text).collect(),
    };
    Value::list(parts)
}

fn date(name: &str, at: Timestamp, args: &[Value]) -> Option<Evaluated> {
    let zone = match args {
        [] => jiff::tz::TimeZone::UTC,
        [Value::String(name)] => match zone(name) {
            Some(zone) => zone,
            None => return Some(failed(format!("unknown time zone {name}"))),
        },
        _ => return None,
    };
    let at = at.to_zoned(zone);
    let number = match name {
        "getFullYear" => i64::from(at.year()),
        // Months, days of the month and of the year begin with 0, getDate with 1.
        "getMonth" => i64::from(at.month()) - 1,
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    };
    Some(Ok(Value::Int(number)))
}

/// `+02:00`, or a name of the machine's time zone database.
fn zone(name: &str) -> Option<jiff::tz::TimeZone> {
    let (negative, offset) = match name.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, name.strip_prefix('+').unwrap_or(name)),
    };
    let Some((hours, minutes)) = offset.split_once(':') else {
        return match name {
            "" | "UTC" => Some(jiff::tz::TimeZone::UTC),
            name => jiff::tz::TimeZone::get(name).ok(),
        };
    };
    let seconds = hours.parse::<i32>().ok()?.checked_mul(3600)?;
    let seconds = seconds.checked_add(minutes.parse::<i32>().ok()?.checked_mul(60)?)?;
    let offset = jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds });
    offset.ok().map(jiff::tz::TimeZone::fixed)
}

fn span(name: &str, nanos: i64) -> Option<Evaluated> {
    let unit = match name {
        "getHours" => 3_600_000_000_000,
        "getMinutes" => 60_000_000_000,
        "getSeconds" => 1_000_000_000,
        "getMilliseconds" => 1_000_000,
        _ => return None,
    };
    Some(Ok(Value::Int(nanos / unit)))
}

fn amount(name: &str, quantity: Quantity, args: &[Value]) -> Option<Evaluated> {
    let other = match args {
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(units)] => Some(Quantity::from_units(*units)),
        _ => None,
    };
    Some(match (name, other) {
        ("isInteger", None) => Ok(Value::Bool(quantity.is_integer())),
        ("asInteger", None) if quantity.is_integer() => Ok(Value::Int(quantity.units())),
        ("asInteger", None) => failed("cannot convert value to integer"),
        ("asApproximateFloat", None) => Ok(Value::Double(quantity.millis() as f64 / 1000.0)),
        ("sign", None) => Ok(Value::Int(quantity.cmp(&Quantity::ZERO) as i64)),
        ("add", Some(other)) => Ok(Value::Quantity(quantity.saturating_add(other))),
        ("sub", Some(other)) => Ok(Value::Quantity(quantity.saturating_sub(other))),
        ("compareTo", Some(other)) => Ok(Value::Int(quantity.cmp(&other) as i64)),
        ("isGreaterThan", Some(other)) => Ok(Value::Bool(quantity > other)),
        ("isLessThan", Some(other)) => Ok(Value::Bool(quantity < other)),
        _ => return None,
    })
}

fn semver_part(name: &str, version: &Semver, args: &[Value]) -> Option<Evaluated> {
    let part = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let order = match args {
        [Value::Semver(other)] => Some(version.cmp(other)),
        [] => None,
        _ => return None,
    };
    Some(Ok(match (name, order) {
        ("major", None) => part(version.major),
        ("minor", None) => part(version.minor),
        ("patch", None) => part(version.patch),
        ("compareTo", Some(order)) => Value::Int(order as i64),
        ("isGreaterThan", Some(order)) => Value::Bool(order == Ordering::Greater),
        ("isLessThan", Some(order)) => Value::Bool(order == Ordering::Less),
        _ => return None,
    }))
}

fn optional(name: &str, inner: Option<&Value>, args: &[Value]) -> Option<Evaluated> {
    Some(match (name, inner, args) {
        ("hasValue", inner, []) => Ok(Value::Bool(inner.is_some())),
        ("value", Some(value), []) | ("orValue", Some(value), [_]) => Ok(value.clone()),
        ("value", None, []) => failed("optional.none() dereference"),
        ("orValue", None, [other]) | ("or", None, [other]) => Ok(other.clone()),
        ("or", Some(value), [_]) => Ok(Value::some(value.clone())),
        _ => return None,
    })
}
