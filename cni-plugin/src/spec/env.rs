//! The environment that a runtime calls the plugin with.

use std::path::PathBuf;

use super::error::{CniError, Code};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    pub fn text(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Gc => "GC",
            Command::Status => "STATUS",
            Command::Version => "VERSION",
        }
    }

    fn parse(text: &str) -> Option<Command> {
        use Command::*;
        [Add, Del, Check, Gc, Status, Version]
            .into_iter()
            .find(|c| c.text() == text)
    }
}

/// Parameters of a command that is about one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub container_id: String,
    pub ifname: String,
    /// Always there for ADD and CHECK.
    pub netns: Option<PathBuf>,
    pub pod: PodNames,
}

/// Kubernetes' names from `CNI_ARGS`, empty where not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodNames {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub infra_container_id: String,
}

fn invalid(name: &str, what: impl std::fmt::Display) -> CniError {
    CniError::new(Code::InvalidEnvironment, format!("{name} {what}"))
}

pub fn command(var: &dyn Fn(&str) -> Option<String>) -> Result<Command, CniError> {
    let text = var("CNI_COMMAND")
        .filter(|c| !c.is_empty())
        .ok_or_else(|| {
            invalid(
                "CNI_COMMAND",
                "is not set: the plugin is executed by a container runtime",
            )
        })?;
    Command::parse(&text).ok_or_else(|| {
        invalid(
            "CNI_COMMAND",
            format!("is {text:?}; it has to be ADD, DEL, CHECK, GC, STATUS or VERSION"),
        )
    })
}

/// Reads and checks the parameters of ADD, DEL and CHECK.
pub fn target(command: Command, var: &dyn Fn(&str) -> Option<String>) -> Result<Target, CniError> {
    let get = |name: &str| var(name).filter(|v| !v.is_empty());
    let netns_needed = matches!(command, Command::Add | Command::Check);
    let mut missing: Vec<&str> = ["CNI_CONTAINERID", "CNI_IFNAME"]
        .into_iter()
        .filter(|n| get(n).is_none())
        .collect();
    if netns_needed && get("CNI_NETNS").is_none() {
        missing.push("CNI_NETNS");
    }
    if !missing.is_empty() {
        return Err(invalid(
            &missing.join(", "),
            format!("not set, which {} needs", command.text()),
        ));
    }
    let container_id = get("CNI_CONTAINERID").unwrap_or_default();
    check_container_id(&container_id)?;
    let ifname = get("CNI_IFNAME").unwrap_or_default();
    check_ifname(&ifname)?;
    // DEL has to work with whatever is left, so it reads no arguments that it doesn't need.
    let pod = match command {
        Command::Add => pod_names(&get("CNI_ARGS").unwrap_or_default())?,
        _ => PodNames::default(),
    };
    Ok(Target {
        container_id,
        ifname,
        netns: get("CNI_NETNS").map(PathBuf::from),
        pod,
    })
}

/// "Must start with an alphanumeric character, optionally followed by alphanumeric characters,
/// underscore, dot or hyphen": container ids and network names alike.
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    if !is_identifier(id) {
        return Err(invalid(
            "CNI_CONTAINERID",
            format!(
                "is {id:?}; it has to start with a letter or digit and hold only those, '_', '.' and '-'"
            ),
        ));
    }
    // Runtimes use 64 hex digits; the interface's alias has to hold it (IFALIASZ, 256).
    if id.len() > 200 {
        return Err(invalid("CNI_CONTAINERID", "is longer than 200 characters"));
    }
    Ok(())
}

/// The kernel's `dev_valid_name`.
fn check_ifname(name: &str) -> Result<(), CniError> {
    let bad = |why: &str| Err(invalid("CNI_IFNAME", format!("is {name:?}, {why}")));
    if name.len() > 15 {
        return bad("longer than 15 characters");
    }
    if name == "." || name == ".." {
        return bad("which the kernel reserves");
    }
    if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return bad("with a '/', ':', blank or control character");
    }
    if name == "lo" {
        return bad("the loopback interface's name");
    }
    Ok(())
}

fn pod_names(args: &str) -> Result<PodNames, CniError> {
    let mut pod = PodNames::default();
    let mut unknown = Vec::new();
    let mut ignore_unknown = false;
    for pair in args.split(';').filter(|p| !p.is_empty()) {
        let Some((key, value)) = pair.split_once('=').filter(|(k, _)| !k.is_empty()) else {
            return Err(invalid(
                "CNI_ARGS",
                format!("holds {pair:?}, which is not KEY=VALUE"),
            ));
        };
        let value_of = match key {
            "K8S_POD_NAMESPACE" => &mut pod.namespace,
            "K8S_POD_NAME" => &mut pod.name,
            "K8S_POD_UID" => &mut pod.uid,
            "K8S_POD_INFRA_CONTAINER_ID" => &mut pod.infra_container_id,
            "IgnoreUnknown" => {
                ignore_unknown = match value {
                    "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
                    "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
                    _ => {
                        return Err(invalid(
                            "CNI_ARGS",
                            format!("holds IgnoreUnknown={value:?}, which is not a boolean"),
                        ));
                    }
                };
                continue;
            }
            _ => {
                unknown.push(key);
                continue;
            }
        };
        value_of.replace_range(.., value);
    }
    if !unknown.is_empty() && !ignore_unknown {
        return Err(invalid(
            "CNI_ARGS",
            format!(
                "holds {}, which the plugin doesn't know, and no IgnoreUnknown=1",
                unknown.join(", ")
            ),
        ));
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(vars: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, v)| (*v).to_owned())
        }
    }

    const GOOD: [(&str, &str); 3] = [
        ("CNI_CONTAINERID", "c-1_a.b"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
    ];

    fn refused(change: (&'static str, &'static str)) -> String {
        let mut vars = GOOD.to_vec();
        vars.retain(|(n, _)| *n != change.0);
        vars.push(change);
        let e = target(Command::Add, &with(&vars)).unwrap_err();
        assert_eq!(e.code, Code::InvalidEnvironment);
        assert!(e.msg.contains(change.0), "{}", e.msg);
        e.msg
    }

    #[test]
    fn what_is_invalid_is_named() {
        assert!(target(Command::Add, &with(&GOOD)).is_ok());
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", "a;b"] {
            refused(("CNI_CONTAINERID", bad));
        }
        for bad in [
            "",
            "sixteencharacter",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\u{7f}",
            "lo",
        ] {
            refused(("CNI_IFNAME", bad));
        }
        refused(("CNI_NETNS", ""));
        for bad in [
            "x",
            "=1",
            "FOO=1",
            "IgnoreUnknown=maybe",
            "FOO=1;IgnoreUnknown=0",
        ] {
            refused(("CNI_ARGS", bad));
        }
        let e = target(Command::Add, &with(&[])).unwrap_err().msg;
        assert!(e.contains("CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS"), "{e}");
        for bad in ["", "add", "NOPE"] {
            let e = command(&with(&[("CNI_COMMAND", bad)])).unwrap_err();
            assert!(e.msg.contains("CNI_COMMAND"));
        }
    }

    #[test]
    fn del_needs_neither_netns_nor_sound_arguments() {
        let vars = [GOOD[0], GOOD[1], ("CNI_ARGS", "rubbish")];
        let t = target(Command::Del, &with(&vars)).unwrap();
        assert_eq!(t.netns, None);
    }

    #[test]
    fn kubernetes_names_are_read() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u=1;X=y";
        let pod = pod_names(args).unwrap();
        assert_eq!(
            (&*pod.namespace, &*pod.name, &*pod.uid),
            ("ns", "web-1", "u=1")
        );
    }
}
