//! Patterns as Go's RE2 reads them, in the words of the crate `regex`: there `\d`, `\w`, `\s` and
//! `\b` are about ASCII only, a class knows no nested class and no set operators, and a brace that
//! begins no repetition is a brace. Source: RE2's syntax page.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// What a compiled pattern may take, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// A pattern, with a bound on what it may take to match.
pub fn regex(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translated(pattern))
        .size_limit(SIZE_LIMIT)
        .build()
}

/// A pattern of a schema.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As it was written.
    source: String,
    regex: Regex,
}

impl Pattern {
    pub fn new(source: &str) -> Result<Pattern, regex::Error> {
        let source = source.to_string();
        regex(&source).map(|regex| Pattern { source, regex })
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.source)
    }
}

/// What stands in a class for `\d`, `\w` and `\s`.
fn perl(letter: char) -> Option<&'static str> {
    Some(match letter.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => r"\t\n\x0C\r ",
        _ => return None,
    })
}

fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(letter @ ('b' | 'B')) => out.push_str(&format!("(?-u:\\{letter})")),
                Some('Q') => quoted(&mut chars, &mut out),
                Some(letter) => match perl(letter) {
                    Some(set) => {
                        let not = if letter.is_ascii_uppercase() { "^" } else { "" };
                        out.push_str(&format!("[{not}{set}]"));
                    }
                    None => {
                        out.extend(['\\', letter]);
                        // The braces of `\p{L}` and `\x{e9}`.
                        if matches!(letter, 'p' | 'P' | 'x') {
                            out.extend(chars.next_if_eq(&'{'));
                        }
                    }
                },
                None => out.push('\\'),
            },
            '[' => class(&mut chars, &mut out),
            '{' if !repeats(chars.clone()) => out.push_str("\\{"),
            c => out.push(c),
        }
    }
    out
}

/// Up to `\E` all is as it stands.
fn quoted(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(c);
    }
    out.push_str(&regex::escape(&text));
}

/// Whether what follows a brace makes it a repetition: `3}`, `3,}` or `3,5}`.
fn repeats(chars: Peekable<Chars<'_>>) -> bool {
    let inner: String = chars
        .take_while(|c| c.is_ascii_digit() || matches!(c, ',' | '}'))
        .collect();
    let Some((inner, _)) = inner.split_once('}') else {
        return false;
    };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    !least.is_empty() && !most.contains(',')
}

/// A class, up to its bracket.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return;
            }
            ']' => out.push_str("\\]"),
            '[' if chars.peek() == Some(&':') => {
                // A class with a name, such as `[:alpha:]`.
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' => out.extend(['\\', c]),
            // Two of them would take one set from another.
            '-' if first => out.push_str("\\-"),
            '-' if chars.next_if_eq(&'-').is_some() => out.push_str("-\\-"),
            '\\' => match chars.next() {
                Some(letter) => match perl(letter) {
                    Some(set) if letter.is_ascii_uppercase() => {
                        out.push_str(&format!("[^{set}]"));
                    }
                    Some(set) => out.push_str(set),
                    None => out.extend(['\\', letter]),
                },
                None => out.push('\\'),
            },
            c => out.push(c),
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_go_reads_them() {
        for (pattern, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "٣", false),
            (r"^\w+$", "a_1", true),
            (r"^\w+$", "é", false),
            (r"^\W$", "é", true),
            (r"^\s$", "\u{a0}", false),
            (r"^[\w.-]+$", "a.b-c", true),
            (r"^[\d\s]+$", "1 2", true),
            (r"^[\D]$", "1", false),
            (r"^[^\D]$", "1", true),
            (r"\bb\b", "a b c", true),
            (r"é\b", "éa", true),
            (r"^[[]$", "[", true),
            (r"^[a[b]$", "[", true),
            (r"^[]a]$", "]", true),
            (r"^[^]a]$", "]", false),
            (r"^[a&&b]$", "&", true),
            (r"^[a~~b]$", "~", true),
            (r"^[+--]$", ",", true),
            (r"^[--/]$", ".", true),
            (r"^[a-]$", "-", true),
            (r"^[[:alpha:][:digit:]_]+$", "a1_", true),
            (r"^[[:^alpha:]]$", "a", false),
            (r"^\$\{[a-z]+}$", "${a}", true),
            (r"^{a}$", "{a}", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^a{2,}$", "a", false),
            (r"^\Qa.b\E.$", "a.bc", true),
            (r"^\Qa.b\E.$", "axbc", false),
            (r"^\p{L}+$", "é", true),
            (r"^(?i)A$", "a", true),
            (r"^[\]\[]+$", "[]", true),
            (r"^(?P<x>a)\x{62}$", "ab", true),
        ] {
            let found = regex(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(found.is_match(text), expected, "{pattern} {text}");
        }
        for pattern in ["[", "(", "a{2", "*", "[b-a]", r"\", r"(?=a)", r"\1"] {
            let refused = regex(pattern).is_err();
            assert_eq!(refused, pattern != "a{2", "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn none_panics(pattern in r"[\[\]\\^$.*+?(){}|&~:,\-a-z0-9éQEdDwWsSbB]{0,24}") {
            let _ = regex(&pattern);
        }
    }
}
