//! The functions and operators that rules may use, by their signatures. What isn't here is refused
//! when a rule is written. Source: cel-spec `doc/langdef.md`, cel-go `ext/strings.go`, Kubernetes
//! `pkg/cel/library`.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::types::Type;

/// One way to call a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    /// Of a function that is called on something.
    pub target: Option<Type>,
    pub args: Vec<Type>,
    pub result: Type,
}

/// `target.name(args): result`; names of one capital letter are open types.
const SIGNATURES: &str = "
_==_(A, A): bool
_==_(null, dyn): bool
_==_(dyn, null): bool
_!=_(A, A): bool
_!=_(null, dyn): bool
_!=_(dyn, null): bool
_&&_(bool, bool): bool
_||_(bool, bool): bool
!_(bool): bool
@not_strictly_false(bool): bool
_?_:_(bool, A, A): A
-_(int): int
-_(double): double
_+_(int, int): int
_+_(uint, uint): uint
_+_(double, double): double
_+_(string, string): string
_+_(bytes, bytes): bytes
_+_(list<A>, list<A>): list<A>
_+_(timestamp, duration): timestamp
_+_(duration, timestamp): timestamp
_+_(duration, duration): duration
_-_(int, int): int
_-_(uint, uint): uint
_-_(double, double): double
_-_(timestamp, timestamp): duration
_-_(timestamp, duration): timestamp
_-_(duration, duration): duration
_*_(int, int): int
_*_(uint, uint): uint
_*_(double, double): double
_/_(int, int): int
_/_(uint, uint): uint
_/_(double, double): double
_%_(int, int): int
_%_(uint, uint): uint
@in(A, list<A>): bool
@in(A, map<A, B>): bool
_[_](list<A>, int): A
_[_](map<A, B>, A): B
size(string): int
size(bytes): int
size(list<A>): int
size(map<A, B>): int
string.size(): int
bytes.size(): int
list<A>.size(): int
map<A, B>.size(): int
int(int): int
int(uint): int
int(double): int
int(string): int
int(timestamp): int
uint(uint): uint
uint(int): uint
uint(double): uint
uint(string): uint
double(double): double
double(int): double
double(uint): double
double(string): double
string(string): string
string(int): string
string(uint): string
string(double): string
string(bool): string
string(bytes): string
string(timestamp): string
string(duration): string
string(IP): string
string(CIDR): string
bytes(bytes): bytes
bytes(string): bytes
bool(bool): bool
bool(string): bool
dyn(A): dyn
type(A): type
timestamp(string): timestamp
timestamp(timestamp): timestamp
timestamp(int): timestamp
duration(string): duration
duration(duration): duration
string.contains(string): bool
string.startsWith(string): bool
string.endsWith(string): bool
string.matches(string): bool
matches(string, string): bool
string.charAt(int): string
string.indexOf(string): int
string.indexOf(string, int): int
string.lastIndexOf(string): int
string.lastIndexOf(string, int): int
string.lowerAscii(): string
string.upperAscii(): string
string.replace(string, string): string
string.replace(string, string, int): string
string.split(string): list<string>
string.split(string, int): list<string>
string.substring(int): string
string.substring(int, int): string
string.trim(): string
list<string>.join(): string
list<string>.join(string): string
string.find(string): string
string.findAll(string): list<string>
string.findAll(string, int): list<string>
timestamp.getFullYear(): int
timestamp.getMonth(): int
timestamp.getDayOfYear(): int
timestamp.getDayOfMonth(): int
timestamp.getDate(): int
timestamp.getDayOfWeek(): int
timestamp.getHours(): int
timestamp.getMinutes(): int
timestamp.getSeconds(): int
timestamp.getMilliseconds(): int
timestamp.getFullYear(string): int
timestamp.getMonth(string): int
timestamp.getDayOfYear(string): int
timestamp.getDayOfMonth(string): int
timestamp.getDate(string): int
timestamp.getDayOfWeek(string): int
timestamp.getHours(string): int
timestamp.getMinutes(string): int
timestamp.getSeconds(string): int
timestamp.getMilliseconds(string): int
duration.getHours(): int
duration.getMinutes(): int
duration.getSeconds(): int
duration.getMilliseconds(): int
list<int>.sum(): int
list<uint>.sum(): uint
list<double>.sum(): double
list<duration>.sum(): duration
list<A>.isSorted(): bool
list<A>.min(): A
list<A>.max(): A
list<A>.indexOf(A): int
list<A>.lastIndexOf(A): int
list<A>.slice(int, int): list<A>
list<list<A>>.flatten(): list<A>
list<dyn>.flatten(int): list<dyn>
list<A>.distinct(): list<A>
list<A>.reverse(): list<A>
list<A>.first(): optional<A>
list<A>.last(): optional<A>
list<optional<A>>.unwrapOpt(): list<A>
lists.range(int): list<int>
optional.unwrap(list<optional<A>>): list<A>
sets.contains(list<A>, list<A>): bool
sets.equivalent(list<A>, list<A>): bool
sets.intersects(list<A>, list<A>): bool
quantity(string): Quantity
isQuantity(string): bool
Quantity.isInteger(): bool
Quantity.asInteger(): int
Quantity.asApproximateFloat(): double
Quantity.sign(): int
Quantity.add(Quantity): Quantity
Quantity.add(int): Quantity
Quantity.sub(Quantity): Quantity
Quantity.sub(int): Quantity
Quantity.compareTo(Quantity): int
Quantity.isGreaterThan(Quantity): bool
Quantity.isLessThan(Quantity): bool
url(string): URL
isURL(string): bool
URL.getScheme(): string
URL.getHost(): string
URL.getHostname(): string
URL.getPort(): string
URL.getEscapedPath(): string
URL.getQuery(): map<string, list<string>>
ip(string): IP
isIP(string): bool
ip.isCanonical(string): bool
IP.family(): int
IP.isUnspecified(): bool
IP.isLoopback(): bool
IP.isLinkLocalMulticast(): bool
IP.isLinkLocalUnicast(): bool
IP.isGlobalUnicast(): bool
cidr(string): CIDR
isCIDR(string): bool
CIDR.containsIP(string): bool
CIDR.containsIP(IP): bool
CIDR.containsCIDR(string): bool
CIDR.containsCIDR(CIDR): bool
CIDR.ip(): IP
CIDR.masked(): CIDR
CIDR.prefixLength(): int
string.format(list<dyn>): string
strings.quote(string): string
semver(string): Semver
semver(string, bool): Semver
isSemver(string): bool
isSemver(string, bool): bool
Semver.major(): int
Semver.minor(): int
Semver.patch(): int
Semver.compareTo(Semver): int
Semver.isGreaterThan(Semver): bool
Semver.isLessThan(Semver): bool
format.named(string): optional<Format>
format.dns1123Label(): Format
format.dns1123Subdomain(): Format
format.dns1035Label(): Format
format.qualifiedName(): Format
format.dns1123LabelPrefix(): Format
format.dns1123SubdomainPrefix(): Format
format.dns1035LabelPrefix(): Format
format.labelValue(): Format
format.uri(): Format
format.uuid(): Format
format.byte(): Format
format.date(): Format
format.datetime(): Format
Format.validate(string): optional<list<string>>
Authorizer.path(string): PathCheck
Authorizer.group(string): GroupCheck
Authorizer.serviceAccount(string, string): Authorizer
PathCheck.check(string): Decision
GroupCheck.resource(string): ResourceCheck
ResourceCheck.subresource(string): ResourceCheck
ResourceCheck.namespace(string): ResourceCheck
ResourceCheck.name(string): ResourceCheck
ResourceCheck.fieldSelector(string): ResourceCheck
ResourceCheck.labelSelector(string): ResourceCheck
ResourceCheck.check(string): Decision
Decision.allowed(): bool
Decision.reason(): string
Decision.errored(): bool
Decision.error(): string
optional.of(A): optional<A>
optional.none(): optional<dyn>
optional.ofNonZeroValue(A): optional<A>
optional<A>.hasValue(): bool
optional<A>.value(): A
optional<A>.orValue(A): A
optional<A>.or(optional<A>): optional<A>
";

/// Functions whose name has a dot.
const SPACES: &[&str] = &["format", "ip", "lists", "optional", "sets", "strings"];

/// Types that have an order, each with itself.
const ORDERED: &[&str] = &[
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "timestamp",
    "duration",
];

pub fn is_type(name: &str) -> bool {
    matches!(
        name,
        "bool"
            | "int"
            | "uint"
            | "double"
            | "string"
            | "bytes"
            | "list"
            | "map"
            | "null_type"
            | "type"
    )
}

type Table = HashMap<(String, bool), Vec<Signature>>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table::new();
        let mut lines: Vec<String> = SIGNATURES.lines().map(str::to_string).collect();
        let numbers = ["int", "uint", "double"];
        for sign in ["_<_", "_<=_", "_>_", "_>=_"] {
            let same = ORDERED.iter().map(|t| (*t, *t));
            let mixed = numbers
                .iter()
                .flat_map(|a| numbers.iter().map(|b| (*a, *b)))
                .filter(|(a, b)| a != b);
            lines.extend(
                same.chain(mixed)
                    .map(|(a, b)| format!("{sign}({a}, {b}): bool")),
            );
        }
        let sorted = ORDERED.iter();
        lines.extend(sorted.map(|t| format!("list<{t}>.sort(): list<{t}>")));
        for (name, signature) in lines.iter().filter_map(|line| parse(line)) {
            let key = (name, signature.target.is_some());
            table.entry(key).or_default().push(signature);
        }
        table
    })
}

/// The ways to call a function, on something or not.
pub fn named(name: &str, on_target: bool) -> &'static [Signature] {
    table()
        .get(&(name.to_string(), on_target))
        .map_or(&[], Vec::as_slice)
}

/// Every function, those called on something with a dot in front; operators aside.
#[cfg(test)]
pub fn every_name() -> Vec<String> {
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    let mut names: Vec<String> = table()
        .keys()
        .filter(|(name, _)| plain(name))
        .map(|(name, on_target)| match on_target {
            true => format!(".{name}"),
            false => name.clone(),
        })
        .collect();
    names.sort();
    names
}

fn parse(line: &str) -> Option<(String, Signature)> {
    let (head, result) = line.rsplit_once("): ")?;
    let (name, args) = head.split_once('(')?;
    let args = split(args).iter().map(|a| type_of(a)).collect();
    // An operator has its own signs; a dot stands behind a target, or in a name.
    let dot = name.rfind('.').filter(|_| !name.contains('_'));
    let (target, name) = match dot.map(|at| (&name[..at], &name[at + 1..])) {
        Some((space, _)) if SPACES.contains(&space) => (None, name),
        Some((target, name)) => (Some(type_of(target)), name),
        None => (None, name),
    };
    let signature = Signature {
        target,
        args,
        result: type_of(result),
    };
    Some((name.to_string(), signature))
}

/// Splits at the commas that are in no bracket.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn type_of(text: &str) -> Type {
    let inner = |outer: &str| {
        text.strip_prefix(outer)?
            .strip_prefix('<')?
            .strip_suffix('>')
    };
    if let Some(item) = inner("list") {
        return Type::list(type_of(item));
    }
    if let Some(item) = inner("optional") {
        return Type::optional(type_of(item));
    }
    if let Some((key, value)) = inner("map").and_then(|both| both.split_once(", ")) {
        return Type::Map(Box::new(type_of(key)), Box::new(type_of(value)));
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null" => Type::Null,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "Quantity" => Type::Quantity,
        "IP" => Type::Ip,
        "CIDR" => Type::Cidr,
        "URL" => Type::Url,
        "Semver" => Type::Semver,
        "Format" => Type::Format,
        "Authorizer" => Type::Authorizer,
        "PathCheck" => Type::PathCheck,
        "GroupCheck" => Type::GroupCheck,
        "ResourceCheck" => Type::ResourceCheck,
        "Decision" => Type::Decision,
        open if open.len() == 1 => Type::Open(open.to_string()),
        _ => Type::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_signature() {
        let lines: Vec<&str> = SIGNATURES.lines().filter(|l| !l.is_empty()).collect();
        assert!(lines.iter().all(|line| parse(line).is_some()));
        let get = named("getQuery", true);
        assert_eq!(get[0].target, Some(Type::Url));
        assert_eq!(get[0].result.to_string(), "map(string, list(string))");
        assert_eq!(named("ip.isCanonical", false).len(), 1);
        assert_eq!(named("_<_", false).len(), 14);
        assert!(named("unheard", false).is_empty());
    }
}
