//! `--token-auth-file`: tokens that an admin has given out, in kube-apiserver's CSV form: token,
//! user name, uid, and optionally groups in quotes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::User;

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("reading the token file {path}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "token file {path}, line {line}: must have at least 3 columns (token, user name, user uid), found {found}"
    )]
    Columns {
        path: PathBuf,
        line: usize,
        found: usize,
    },
    #[error("token file {path}, line {line}: {what}")]
    Line {
        path: PathBuf,
        line: usize,
        what: &'static str,
    },
}

/// Users by the digest of their token: to compare digests tells nothing about a token.
#[derive(Default)]
pub struct TokenFile(HashMap<[u8; 32], User>);

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The fields of a line; `None` if a quote is not closed or in the midst of a field.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = line;
    loop {
        let rest_of = rest.trim_start();
        if let Some(mut inner) = rest_of.strip_prefix('"') {
            let mut field = String::new();
            loop {
                let (text, after) = inner.split_once('"')?;
                field.push_str(text);
                match after.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        inner = more;
                    }
                    None => {
                        inner = after;
                        break;
                    }
                }
            }
            out.push(field);
            match inner.trim_start() {
                "" => return Some(out),
                more => rest = more.strip_prefix(',')?,
            }
        } else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains('"') {
                return None;
            }
            out.push(field.trim().to_string());
            match more {
                Some(more) => rest = more,
                None => return Some(out),
            }
        }
    }
}

impl TokenFile {
    pub fn read(path: &Path) -> Result<TokenFile, TokenFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        TokenFile::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<TokenFile, TokenFileError> {
        let mut users = HashMap::new();
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let line_error = |what| TokenFileError::Line {
                path: path.to_owned(),
                line: i + 1,
                what,
            };
            let fields = fields(line).ok_or_else(|| line_error("a quote is out of place"))?;
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(TokenFileError::Columns {
                    path: path.to_owned(),
                    line: i + 1,
                    found: fields.len(),
                });
            };
            if token.is_empty() || name.is_empty() {
                return Err(line_error("the token or the user name is empty"));
            }
            let groups = rest.first().map(String::as_str).unwrap_or("").split(',');
            let groups = groups
                .map(|g| g.trim().to_string())
                .filter(|g| !g.is_empty())
                .collect();
            let user = User {
                uid: uid.clone(),
                ..User::named(name, groups)
            };
            if users.insert(digest(token), user).is_some() {
                return Err(line_error("the token is in the file twice"));
            }
        }
        Ok(TokenFile(users))
    }

    pub fn user(&self, token: &str) -> Option<&User> {
        self.0.get(&digest(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TokenFile, String> {
        TokenFile::parse(text, Path::new("f")).map_err(|e| e.to_string())
    }

    #[test]
    fn lines() {
        let file = parse("t1,anna,1\n\nt2, otto ,2,\"dev,ops\"\n\"t\"\"3\",x,3,one\n").unwrap();
        let groups = |token: &str| file.user(token).unwrap().groups.join(" ");
        assert_eq!(file.user("t1").unwrap().name, "anna");
        assert_eq!(file.user("t2").unwrap().name, "otto");
        assert_eq!(file.user("t2").unwrap().uid, "2");
        assert_eq!(groups("t1"), "system:authenticated");
        assert_eq!(groups("t2"), "dev ops system:authenticated");
        assert_eq!(groups("t\"3"), "one system:authenticated");
        assert_eq!(file.user(""), None);
        for (text, why) in [
            ("t,u", "must have at least 3 columns"),
            ("t,u,1\nt,v,2", "line 2: the token is in the file twice"),
            (",u,1", "empty"),
            ("t,u,1,\"dev", "quote"),
            ("t,u,1,\"dev\"x", "quote"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn whatever_is_in_the_file() {
        const GOOD: &str = "token,user,uid,\"group1,group2\"\nother,\"a \"\"b\"\"\",2\n";
        assert!(TokenFile::parse(GOOD, Path::new("f")).is_ok());
        rhumb_fuzz::run("token_file", 3000, |dice| {
            let text = rhumb_fuzz::bytes(GOOD.as_bytes(), &["\"", ",", "\n", "\"\""], dice);
            let _ = TokenFile::parse(&String::from_utf8_lossy(&text), Path::new("f"));
        });
    }
}
