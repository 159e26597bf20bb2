//! The command line: words, and `--option VALUE` pairs.

use std::str::FromStr;
use std::time::Duration;

/// What stood on the command line and has not been taken yet.
pub struct Options {
    words: Vec<String>,
    pairs: Vec<(String, String)>,
}

impl Options {
    /// Splits words from options; `flags` take no value.
    pub fn parse(arguments: Vec<String>, flags: &[&str]) -> Result<Self, String> {
        let mut words = Vec::new();
        let mut pairs = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(option) = argument.strip_prefix("--") else {
                words.push(argument);
                continue;
            };
            if let Some((name, value)) = option.split_once('=') {
                pairs.push((name.to_owned(), value.to_owned()));
            } else if flags.contains(&option) {
                pairs.push((option.to_owned(), String::new()));
            } else {
                let value = arguments
                    .next()
                    .ok_or_else(|| format!("--{option} wants a value"))?;
                pairs.push((option.to_owned(), value));
            }
        }
        words.reverse();
        Ok(Self { words, pairs })
    }

    /// The next word.
    pub fn word(&mut self, what: &str) -> Result<String, String> {
        self.words.pop().ok_or_else(|| format!("{what} is missing"))
    }

    /// Every value of an option.
    pub fn all<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, String> {
        let mut values = Vec::new();
        let mut rest = Vec::new();
        for (option, value) in self.pairs.drain(..) {
            if option == name {
                let parsed = value
                    .parse()
                    .map_err(|_| format!("--{name}: `{value}` is not understood"))?;
                values.push(parsed);
            } else {
                rest.push((option, value));
            }
        }
        self.pairs = rest;
        Ok(values)
    }

    /// The last value of an option.
    pub fn one<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        Ok(self.all(name)?.pop())
    }

    /// Whether a flag stands there.
    pub fn flag(&mut self, name: &str) -> Result<bool, String> {
        Ok(!self.all::<String>(name)?.is_empty())
    }

    /// A time in milliseconds.
    pub fn millis(&mut self, name: &str, default: u64) -> Result<Duration, String> {
        Ok(Duration::from_millis(self.one(name)?.unwrap_or(default)))
    }

    /// Fails if anything is left.
    pub fn end(self) -> Result<(), String> {
        if let Some(word) = self.words.last() {
            return Err(format!("`{word}` is not understood"));
        }
        match self.pairs.first() {
            Some((option, _)) => Err(format!("there is no option --{option} here")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        let arguments = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(arguments, &["summary"]).unwrap()
    }

    #[test]
    fn words_options_flags() {
        let mut options = parse("tcp 1.2.3.4:80 --count 3 --summary --timeout=50");
        assert_eq!(options.word("protocol").unwrap(), "tcp");
        assert_eq!(options.one::<u32>("count").unwrap(), Some(3));
        assert!(options.flag("summary").unwrap());
        assert_eq!(
            options.millis("timeout", 1).unwrap(),
            Duration::from_millis(50)
        );
        assert_eq!(options.word("target").unwrap(), "1.2.3.4:80");
        options.end().unwrap();
    }

    #[test]
    fn what_is_left_is_an_error() {
        assert!(parse("--counts 3").end().is_err());
        assert!(parse("tcp").end().is_err());
        assert!(parse("--count x").one::<u32>("count").is_err());
    }
}
