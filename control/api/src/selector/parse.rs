//! The syntax of label selectors, with Kubernetes' refusals.
//! Source: apimachinery `pkg/labels/selector.go`.

use super::{LabelSelector, Operator, Requirement};
use crate::validation::metadata::{label_value_faults, qualified_name_faults};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A sign: `(`, `)`, `,`, `!`, `=`, `==`, `!=`, `<`, `>`; or signs that are none together.
    Sign(&'a str),
    Word(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Sign(text) | Token::Word(text) => text,
            Token::End => "",
        }
    }

    fn is(self, sign: &str) -> bool {
        self == Token::Sign(sign)
    }
}

const SIGNS: &[char] = &['=', '!', '(', ')', ',', '>', '<'];
const BLANKS: &[char] = &[' ', '\t', '\r', '\n'];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut rest = text.trim_start_matches(BLANKS);
    let mut found = Vec::new();
    // A zero byte ends the text, as Go's lexer has it.
    while let Some(first) = rest.chars().next().filter(|c| *c != '\0') {
        let length = match first {
            '=' | '!' if rest[1..].starts_with('=') => 2,
            sign if SIGNS.contains(&sign) => 1,
            _ => rest
                .find(|c| c == '\0' || SIGNS.contains(&c) || BLANKS.contains(&c))
                .unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        found.push(match SIGNS.contains(&first) {
            true => Token::Sign(token),
            false => Token::Word(token),
        });
        rest = after.trim_start_matches(BLANKS);
    }
    found
}

struct Parser<'a> {
    tokens: std::vec::IntoIter<Token<'a>>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens
            .as_slice()
            .first()
            .copied()
            .unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token.is("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        if let faults @ [_, ..] = qualified_name_faults(key).as_slice() {
            // Kubernetes has no path there, and prints that.
            let why = faults.join("; ");
            return Err(format!("<nil>: Invalid value: {key:?}: {why}"));
        }
        let done = |operator, values: Vec<String>| Requirement {
            key: key.to_string(),
            operator,
            values,
        };
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            let operator = match negated {
                true => Operator::DoesNotExist,
                false => Operator::Exists,
            };
            return Ok(done(operator, Vec::new()));
        }
        // Go takes what follows for the operator, and so reads `!a=b` as `a=b`.
        let (operator, values) = match self.next() {
            Token::Word("in") => (Operator::In, self.set()?),
            Token::Word("notin") => (Operator::NotIn, self.set()?),
            Token::Sign("=" | "==") => (Operator::In, vec![self.exact()?]),
            Token::Sign("!=") => (Operator::NotIn, vec![self.exact()?]),
            Token::Sign(">") => (Operator::GreaterThan, vec![self.exact()?]),
            Token::Sign("<") => (Operator::LessThan, vec![self.exact()?]),
            other => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        };
        check_values(key, &operator, &values)?;
        Ok(done(operator, values))
    }

    /// `(x,y,z)`; values may be empty.
    fn set(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if !open.is("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        match self.peek() {
            Token::Sign(")") => {
                self.next();
                return Ok(vec![String::new()]);
            }
            Token::Word(_) | Token::Sign(",") => {}
            other => {
                return Err(format!(
                    "found '{}', expected: ',', ')' or identifier",
                    other.text()
                ));
            }
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word.to_string());
                    match self.peek() {
                        Token::Sign(",") => {}
                        Token::Sign(")") => break,
                        other => {
                            return Err(format!("found '{}', expected: ',' or ')'", other.text()));
                        }
                    }
                }
                Token::Sign(",") => {
                    // `(,` and `,,` and `,)` each hold an empty value.
                    if values.is_empty() || self.peek().is(",") || self.peek().is(")") {
                        values.push(String::new());
                    }
                    if self.peek().is(")") {
                        break;
                    }
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: ',', or identifier",
                        other.text()
                    ));
                }
            }
        }
        // The closing sign, which both ways out have seen.
        self.next();
        values.sort();
        values.dedup();
        Ok(values)
    }

    fn exact(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(word) => Ok(word.to_string()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }
}

fn check_values(key: &str, operator: &Operator, values: &[String]) -> Result<(), String> {
    let mut faults = Vec::new();
    for (i, value) in values.iter().enumerate() {
        if matches!(operator, Operator::GreaterThan | Operator::LessThan)
            && value.parse::<i64>().is_err()
        {
            faults.push(format!(
                "values[{i}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
    }
    for (i, value) in values.iter().enumerate() {
        if let found @ [_, ..] = label_value_faults(value).as_slice() {
            let why = found.join("; ");
            faults.push(format!(
                "values[{i}][{key}]: Invalid value: {value:?}: {why}"
            ));
        }
    }
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// Reads a selector; the error is Kubernetes'.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut parser = Parser {
        tokens: tokens(text).into_iter(),
    };
    let mut selector = LabelSelector::everything();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Sign("!") => {}
            Token::End => return Ok(selector),
            other => {
                return Err(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                ));
            }
        }
        let requirement = parser
            .requirement()
            .map_err(|why| format!("unable to parse requirement: {why}"))?;
        selector.requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(selector),
            Token::Sign(",") => match parser.peek() {
                Token::Word(_) | Token::Sign("!") => {}
                other => {
                    return Err(format!(
                        "found '{}', expected: identifier after ','",
                        other.text()
                    ));
                }
            },
            other => {
                return Err(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    other.text()
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_kubernetes() {
        for (bad, why) in [
            (
                "=x",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            (
                ",a",
                "found ',', expected: !, identifier, or 'end of string'",
            ),
            ("a,", "found '', expected: identifier after ','"),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (",
                "unable to parse requirement: found '', expected: ',', ')' or identifier",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "a=)",
                "unable to parse requirement: found ')', expected: identifier",
            ),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
            (
                "!!a",
                "unable to parse requirement: found '!', expected: identifier",
            ),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(parse(bad).unwrap_err(), why, "{bad}");
        }
        let key = parse("x/y/z=1").unwrap_err();
        let begin = "unable to parse requirement: <nil>: Invalid value: \"x/y/z\": a qualified";
        assert!(key.starts_with(begin), "{key}");
        let value = parse("a in (%,b)").unwrap_err();
        let begin =
            "unable to parse requirement: values[0][a]: Invalid value: \"%\": a valid label";
        assert!(value.starts_with(begin), "{value}");
    }

    #[test]
    fn what_go_takes() {
        let values = |text: &str| parse(text).unwrap().requirements[0].values.clone();
        assert_eq!(values("a in ()"), [""]);
        assert_eq!(values("a in (,b)"), ["", "b"]);
        assert_eq!(values("a in (b,)"), ["", "b"]);
        assert_eq!(values("a in (c,,b,c)"), ["", "b", "c"]);
        assert_eq!(values("a in (in, notin)"), ["in", "notin"]);
        assert_eq!(values("in=in"), ["in"]);
        assert_eq!(values("a="), [""]);
        assert_eq!(values("a=,b"), [""]);
        // An operator that follows counts more than the negation before.
        assert_eq!(
            parse("!a=b").unwrap().requirements[0].operator,
            Operator::In
        );
        assert!(parse(" \t").unwrap().is_everything());
        assert!(parse("\0=").unwrap().is_everything());
    }
}
