//! The network configuration on standard input.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{
    env::{Command, is_identifier},
    error::{CniError, Code},
    runtime::Requested,
    version::Version,
};
use crate::{attachment::Key, node::Paths};

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub version: Version,
    /// Name of the network.
    pub name: String,
    pub paths: Paths,
    /// `dns` of the configuration, which goes into the result as it is.
    pub dns: Option<Value>,
    pub prev_result: Option<Value>,
    /// What the runtime asks for by capabilities.
    pub requested: Requested,
    /// GC: the attachments that live.
    pub valid_attachments: Option<Vec<Key>>,
}

/// Fields that runtimes and network lists add, or that every plugin may be given.
const KNOWN: [&str; 15] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "disableCheck",
    "disableGC",
    "dns",
    "ipam",
    "prevResult",
    "runtimeConfig",
    "stateDir",
    "runDir",
    "bpfDir",
];

/// The version that a request asks for, as far as it can be told; error answers echo it.
pub fn version_of(input: &[u8]) -> Option<Version> {
    let value: Value = serde_json::from_slice(input).ok()?;
    Version::parse(value.get("cniVersion")?.as_str()?)
}

/// Answers VERSION.
pub fn versions(input: &[u8]) -> String {
    let version = version_of(input).unwrap_or(Version::NEWEST);
    serde_json::json!({
        "cniVersion": version.text(),
        "supportedVersions": Version::ALL.map(Version::text),
    })
    .to_string()
}

impl Config {
    pub fn parse(command: Command, input: &[u8]) -> Result<Config, CniError> {
        let value: Value = serde_json::from_slice(input).map_err(|e| {
            CniError::new(
                Code::Decode,
                format!("decoding the network configuration on standard input: {e}"),
            )
        })?;
        let Value::Object(fields) = value else {
            return Err(CniError::new(
                Code::Decode,
                "the network configuration on standard input is not a JSON object",
            ));
        };
        let version = version(command, &fields)?;
        let name = string(&fields, "name")?.unwrap_or_default();
        if !is_identifier(&name) {
            return Err(invalid(
                "name",
                format!(
                    "is {name:?}; it has to start with a letter or digit and hold only those, '_', '.' and '-'"
                ),
            ));
        }
        // Cleaning up has to go on with a configuration that ADD would refuse.
        if matches!(command, Command::Add | Command::Check | Command::Status) {
            refuse_unsupported(&fields)?;
        }
        let paths = Paths {
            state_dir: directory(&fields, "stateDir", "/var/lib/rhumb")?,
            run_dir: directory(&fields, "runDir", "/run/rhumb")?,
            bpf_dir: directory(&fields, "bpfDir", "/sys/fs/bpf/rhumb")?,
        };
        let dns = fields.get("dns").filter(|d| !d.is_null()).cloned();
        if dns.as_ref().is_some_and(|d| !d.is_object()) {
            return Err(invalid("dns", "is not an object"));
        }
        let prev_result = fields.get("prevResult").filter(|p| !p.is_null()).cloned();
        if prev_result.as_ref().is_some_and(|p| !p.is_object()) {
            return Err(invalid("prevResult", "is not an object"));
        }
        if command == Command::Check && prev_result.is_none() {
            return Err(invalid("prevResult", "is missing, which CHECK needs"));
        }
        let has_interfaces = |p: &Value| {
            let list = p.get("interfaces").and_then(Value::as_array);
            list.is_some_and(|l| !l.is_empty())
        };
        if command == Command::Add && prev_result.as_ref().is_some_and(has_interfaces) {
            return Err(invalid(
                "prevResult",
                "has interfaces: rhumb-cni makes the pod's interface, so it has to be the first plugin of its list",
            ));
        }
        let requested = match (command, fields.get("runtimeConfig")) {
            (Command::Add, Some(Value::Object(runtime))) => Requested::parse(runtime)?,
            (Command::Add, Some(other)) if !other.is_null() => {
                return Err(invalid("runtimeConfig", "is not an object"));
            }
            _ => Requested::default(),
        };
        let valid_attachments = valid_attachments(&fields)?;
        if command == Command::Gc && valid_attachments.is_none() {
            return Err(invalid(
                "cni.dev/valid-attachments",
                "is missing, which GC needs: without it everything would seem stale",
            ));
        }
        Ok(Config {
            version,
            name,
            paths,
            dns,
            prev_result,
            requested,
            valid_attachments,
        })
    }
}

fn invalid(field: &str, what: impl std::fmt::Display) -> CniError {
    CniError::new(
        Code::InvalidConfig,
        format!("network configuration: {field} {what}"),
    )
}

fn version(command: Command, fields: &Map<String, Value>) -> Result<Version, CniError> {
    // "If not present, 0.1.0 is assumed."
    let text = string(fields, "cniVersion")?.unwrap_or_else(|| "0.1.0".to_owned());
    let known = Version::ALL.map(Version::text).join(", ");
    let version = Version::parse(&text).ok_or_else(|| {
        CniError::new(
            Code::IncompatibleVersion,
            format!("cniVersion {text:?} is not supported; rhumb-cni speaks {known}"),
        )
    })?;
    let since = match command {
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
        Command::Add | Command::Del | Command::Version => Version::V0_3_1,
    };
    if version < since {
        return Err(CniError::new(
            Code::IncompatibleVersion,
            format!(
                "cniVersion {version} has no {}, which came with {since}",
                command.text()
            ),
        ));
    }
    Ok(version)
}

fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), CniError> {
    let refuse = |key: &str, value: &Value, why: &str| {
        Err(CniError::new(
            Code::UnsupportedField,
            format!("network configuration: {key} = {value} is not supported{why}"),
        ))
    };
    let is_empty = |v: &Value| match v {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    };
    for (key, value) in fields {
        if key == "ipam" && !is_empty(value) {
            return refuse(
                key,
                value,
                ": rhumb-cni gives out addresses itself, from the node's pod CIDRs",
            );
        }
        // Keys of the specification's own domain may grow.
        if !KNOWN.contains(&key.as_str()) && !key.starts_with("cni.dev/") && !is_empty(value) {
            return refuse(key, value, "");
        }
    }
    if let Some(Value::Object(runtime)) = fields.get("runtimeConfig") {
        // What rests on a capability must not be dropped silently; the last four are informative.
        let known = [
            "ips",
            "mac",
            "portMappings",
            "podAnnotations",
            "io.kubernetes.cri.pod-annotations",
            "cgroupPath",
            "dns",
        ];
        for (key, value) in runtime {
            if !known.contains(&key.as_str()) && !is_empty(value) {
                return refuse(&format!("runtimeConfig.{key}"), value, "");
            }
        }
    }
    Ok(())
}

fn string(fields: &Map<String, Value>, key: &str) -> Result<Option<String>, CniError> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(other) => Err(invalid(key, format!("is {other}, not a string"))),
    }
}

fn directory(fields: &Map<String, Value>, key: &str, default: &str) -> Result<PathBuf, CniError> {
    let path = PathBuf::from(string(fields, key)?.unwrap_or_else(|| default.to_owned()));
    match path.is_absolute() {
        true => Ok(path),
        false => Err(invalid(
            key,
            format!("is {}, not an absolute path", path.display()),
        )),
    }
}

fn valid_attachments(fields: &Map<String, Value>) -> Result<Option<Vec<Key>>, CniError> {
    const KEY: &str = "cni.dev/valid-attachments";
    let Some(value) = fields.get(KEY).filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let list = value
        .as_array()
        .ok_or_else(|| invalid(KEY, format!("is {value}, not a list")))?;
    let keys = list.iter().map(|entry| {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        match (text("containerID"), text("ifname")) {
            (Some(id), Some(ifname)) => Ok(Key::new(id, ifname)),
            _ => Err(invalid(
                KEY,
                format!("holds {entry}, which lacks containerID or ifname"),
            )),
        }
    });
    keys.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: Command, text: &str) -> Result<Config, CniError> {
        Config::parse(command, text.as_bytes())
    }

    fn refused(command: Command, text: &str, code: Code, word: &str) {
        let e = parse(command, text).unwrap_err();
        assert_eq!(e.code, code, "{text}: {e}");
        assert!(e.msg.contains(word), "{text}: {e}");
    }

    #[test]
    fn what_runtimes_send_is_understood() {
        let c = parse(
            Command::Add,
            r#"{"cniVersion":"1.0.0","cniVersions":["1.0.0"],"name":"rhumb","type":"rhumb-cni","stateDir":"/s",
                "runtimeConfig":{"portMappings":[]},"ipam":{},"dns":{"nameservers":["10.96.0.10"]},"cni.dev/new":1}"#,
        )
        .unwrap();
        assert_eq!(c.version, Version::V1_0_0);
        assert_eq!(c.paths.state_dir, PathBuf::from("/s"));
        assert_eq!(c.paths.bpf_dir, PathBuf::from("/sys/fs/bpf/rhumb"));
        assert!(c.dns.is_some());
        let c = parse(
            Command::Gc,
            r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}"#,
        )
        .unwrap();
        assert_eq!(c.valid_attachments, Some(vec![Key::new("c", "eth0")]));
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_code_and_name() {
        use Command::*;
        refused(Add, "", Code::Decode, "standard input");
        refused(Add, "{", Code::Decode, "standard input");
        refused(Add, "[]", Code::Decode, "object");
        refused(Add, r#"{"name":"n"}"#, Code::IncompatibleVersion, "0.1.0");
        refused(
            Add,
            r#"{"cniVersion":"2.0.0","name":"n"}"#,
            Code::IncompatibleVersion,
            "2.0.0",
        );
        refused(
            Check,
            r#"{"cniVersion":"0.3.1","name":"n"}"#,
            Code::IncompatibleVersion,
            "CHECK",
        );
        refused(
            Gc,
            r#"{"cniVersion":"1.0.0","name":"n"}"#,
            Code::IncompatibleVersion,
            "GC",
        );
        refused(
            Status,
            r#"{"cniVersion":"0.4.0","name":"n"}"#,
            Code::IncompatibleVersion,
            "STATUS",
        );
        refused(
            Add,
            r#"{"cniVersion":1,"name":"n"}"#,
            Code::InvalidConfig,
            "cniVersion",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0"}"#,
            Code::InvalidConfig,
            "name",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"a/b"}"#,
            Code::InvalidConfig,
            "a/b",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"n","stateDir":"rel"}"#,
            Code::InvalidConfig,
            "stateDir",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"n","bpfDir":7}"#,
            Code::InvalidConfig,
            "bpfDir",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"n","dns":[]}"#,
            Code::InvalidConfig,
            "dns",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"host-local"}}"#,
            Code::UnsupportedField,
            "host-local",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"n","ipMasq":true}"#,
            Code::UnsupportedField,
            "ipMasq = true",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"n","runtimeConfig":{"bandwidth":{"ingressRate":1}}}"#,
            Code::UnsupportedField,
            "runtimeConfig.bandwidth",
        );
        refused(
            Add,
            r#"{"cniVersion":"1.0.0","name":"n","prevResult":{"interfaces":[{"name":"eth0"}]}}"#,
            Code::InvalidConfig,
            "first plugin",
        );
        refused(
            Check,
            r#"{"cniVersion":"1.0.0","name":"n"}"#,
            Code::InvalidConfig,
            "prevResult",
        );
        refused(
            Gc,
            r#"{"cniVersion":"1.1.0","name":"n"}"#,
            Code::InvalidConfig,
            "valid-attachments",
        );
        refused(
            Gc,
            r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{}]}"#,
            Code::InvalidConfig,
            "containerID",
        );
        // DEL takes what ADD would refuse.
        assert!(parse(Del, r#"{"cniVersion":"1.0.0","name":"n","ipMasq":true}"#).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn input_never_panics(text in ".{0,200}") {
            for c in [Command::Add, Command::Del, Command::Check, Command::Gc, Command::Status] {
                let _ = parse(c, &text);
            }
            let _ = versions(text.as_bytes());
        }
    }
}
