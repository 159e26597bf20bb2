//! `runtimeConfig`: what a runtime asks for by capabilities.
//! Source: the CNI conventions, "dynamic plugin specific fields".

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::error::{CniError, Code};
use crate::attachment::{Mac, PortMapping, Protocol};

/// What the pod is to get besides what every pod gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// One a family at most.
    pub ips: Vec<IpAddr>,
    pub mac: Option<Mac>,
    pub ports: Vec<PortMapping>,
}

fn invalid(field: &str, what: impl std::fmt::Display) -> CniError {
    CniError::new(
        Code::InvalidConfig,
        format!("network configuration: runtimeConfig.{field} {what}"),
    )
}

fn list<'a>(runtime: &'a Map<String, Value>, field: &str) -> Result<&'a [Value], CniError> {
    match runtime.get(field) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(invalid(field, format!("is {other}, not a list"))),
    }
}

impl Requested {
    pub fn parse(runtime: &Map<String, Value>) -> Result<Requested, CniError> {
        let mut ips: Vec<IpAddr> = Vec::new();
        for value in list(runtime, "ips")? {
            let ip = ip(value)?;
            if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
                let why = format!("has {ip} as a second address of its family; a pod has one");
                return Err(invalid("ips", why));
            }
            ips.push(ip);
        }
        let ports = list(runtime, "portMappings")?.iter().map(port);
        let ports = ports
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        Ok(Requested {
            ips,
            mac: mac(runtime.get("mac"))?,
            ports,
        })
    }
}

/// An address, with or without the length of a network around it.
fn ip(value: &Value) -> Result<IpAddr, CniError> {
    let text = value.as_str().unwrap_or_default();
    let network = text.parse::<IpNetwork>().map(|network| network.ip());
    network.map_err(|_| invalid("ips", format!("holds {value}, which is no IP address")))
}

fn mac(value: Option<&Value>) -> Result<Option<Mac>, CniError> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text,
        Some(other) => return Err(invalid("mac", format!("is {other}, not a string"))),
    };
    let mac = Mac::try_from(text.to_lowercase()).map_err(|why| invalid("mac", why))?;
    if mac.0[0] & 1 != 0 || mac == Mac::default() {
        return Err(invalid(
            "mac",
            format!("is {mac}, which no single interface can have"),
        ));
    }
    Ok(Some(mac))
}

/// A field of an object, whatever the case of its name: containerd writes `HostPort`, since Go reads either.
fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let mut fields = object.as_object()?.iter();
    let found = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

/// `None`: the pod merely says that it uses a port.
fn port(value: &Value) -> Result<Option<PortMapping>, CniError> {
    let refuse = |why: &str| invalid("portMappings", format!("holds {value}: {why}"));
    let number = |name: &str| match field(value, name) {
        None | Some(Value::Null) => Ok(0),
        Some(found) => found
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .ok_or_else(|| refuse(&format!("{name} is no port"))),
    };
    if !value.is_object() {
        return Err(refuse("not an object"));
    }
    let (host_port, container_port) = (number("hostPort")?, number("containerPort")?);
    if host_port == 0 {
        return Ok(None);
    }
    if container_port == 0 {
        return Err(refuse("containerPort is missing"));
    }
    let text = |name: &str| field(value, name).and_then(Value::as_str);
    let protocol = text("protocol").unwrap_or("tcp");
    let protocol = match protocol.to_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => {
            return Err(CniError::new(
                Code::UnsupportedField,
                format!(
                    "network configuration: runtimeConfig.portMappings: the protocol {other:?} is not supported; tcp and udp are"
                ),
            ));
        }
    };
    let host_ip = match text("hostIP").unwrap_or("") {
        "" => None,
        text => match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_unspecified() => None,
            Ok(ip) => Some(ip),
            Err(_) => return Err(refuse("hostIP is no IP address")),
        },
    };
    Ok(Some(PortMapping {
        host_ip,
        host_port,
        container_port,
        protocol,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Requested, String> {
        let runtime = value.as_object().unwrap();
        Requested::parse(runtime).map_err(|e| e.to_string())
    }

    #[test]
    fn what_runtimes_ask_for() {
        let asked = parse(json!({
            "ips": ["10.244.1.7/24", "fd00::7"], "mac": "C2:11:22:33:44:55",
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
                {"hostPort": 54, "containerPort": 53, "hostIP": "0.0.0.0"},
                {"HostPort": 81, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
                {"hostPort": 0, "containerPort": 9},
            ],
        }))
        .unwrap();
        assert_eq!(
            asked.ips,
            [
                "10.244.1.7".parse::<IpAddr>().unwrap(),
                "fd00::7".parse().unwrap()
            ]
        );
        assert_eq!(asked.mac.unwrap().to_string(), "c2:11:22:33:44:55");
        let shown: Vec<_> = asked
            .ports
            .iter()
            .map(|p| {
                (
                    p.host_ip.is_some(),
                    p.host_port,
                    p.container_port,
                    p.protocol.number(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (false, 8080, 80, 6),
                (true, 53, 53, 17),
                (false, 54, 53, 6),
                (false, 81, 80, 6)
            ]
        );
        assert_eq!(
            parse(json!({"ips": null, "portMappings": []})).unwrap(),
            Requested::default()
        );
    }

    #[test]
    fn what_can_not_be_is_named() {
        for (value, word) in [
            (json!({"ips": "10.0.0.1"}), "not a list"),
            (json!({"ips": [7]}), "no IP address"),
            (json!({"ips": ["10.0.0.1", "10.0.0.2/8"]}), "second address"),
            (json!({"mac": 7}), "not a string"),
            (json!({"mac": "c2:11"}), "hardware address"),
            (json!({"mac": "01:00:5e:00:00:01"}), "no single interface"),
            (
                json!({"portMappings": [{"hostPort": 70000}]}),
                "hostPort is no port",
            ),
            (
                json!({"portMappings": [{"hostPort": 80}]}),
                "containerPort is missing",
            ),
            (
                json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "sctp"}]}),
                "sctp",
            ),
            (
                json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]}),
                "hostIP",
            ),
            (json!({"portMappings": [5]}), "not an object"),
        ] {
            let why = parse(value.clone()).unwrap_err();
            assert!(why.contains(word), "{value}: {why}");
        }
    }
}
