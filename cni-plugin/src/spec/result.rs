//! ADD's result, in the shape of the request's version.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{config::Config, version::Version};
use crate::{attachment::Attachment, kernel::wire};

/// * 1.1.0: interfaces have `mtu`.
/// * 1.0.0: as 0.4.0, without `version` in `ips`.
/// * 0.3.1, 0.4.0: `ips` have `version`, "4" or "6".
pub fn of_add(config: &Config, a: &Attachment) -> Value {
    let interface = |name: &str, mac: String, sandbox: Option<String>| {
        let mut i = Map::new();
        i.insert("name".into(), name.into());
        i.insert("mac".into(), mac.into());
        if config.version >= Version::V1_1_0 {
            i.insert("mtu".into(), a.mtu.into());
        }
        if let Some(sandbox) = sandbox {
            i.insert("sandbox".into(), sandbox.into());
        }
        Value::Object(i)
    };
    let ips: Vec<Value> = a
        .ips
        .iter()
        .map(|ip| address(config.version, *ip))
        .collect();
    let routes: Vec<Value> = a
        .ips
        .iter()
        .map(|ip| json!({"dst": if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": wire::gateway(*ip)}))
        .collect();
    json!({
        "cniVersion": config.version.text(),
        "interfaces": [
            interface(&a.host_ifname, a.host_mac.to_string(), None),
            interface(&a.ifname, a.pod_mac.to_string(), Some(a.netns.to_string_lossy().into_owned())),
        ],
        "ips": ips,
        "routes": routes,
        "dns": config.dns.clone().unwrap_or_else(|| json!({})),
    })
}

fn address(version: Version, ip: IpAddr) -> Value {
    let mut i = Map::new();
    if version < Version::V1_0_0 {
        i.insert(
            "version".into(),
            if ip.is_ipv4() { "4" } else { "6" }.into(),
        );
    }
    let len = if ip.is_ipv4() { 32 } else { 128 };
    i.insert("address".into(), format!("{ip}/{len}").into());
    i.insert("gateway".into(), wire::gateway(ip).to_string().into());
    // Index of the pod's side.
    i.insert("interface".into(), 1.into());
    Value::Object(i)
}

/// The addresses in a result that belong to the interface `ifname` of a sandbox (all, where the
/// result doesn't say).
pub fn addresses_of(result: &Value, ifname: &str) -> Vec<IpAddr> {
    let list = |key: &str| result.get(key).and_then(Value::as_array).cloned();
    let interfaces = list("interfaces").unwrap_or_default();
    let is_ours = |ip: &Value| match ip.get("interface").and_then(Value::as_u64) {
        None => true,
        Some(i) => usize::try_from(i)
            .ok()
            .and_then(|i| interfaces.get(i))
            .and_then(|i| i.get("name"))
            .is_some_and(|name| name == ifname),
    };
    let ips = list("ips").unwrap_or_default();
    let address = |ip: &Value| {
        let text = ip.get("address")?.as_str()?;
        text.split('/').next()?.parse().ok()
    };
    ips.iter()
        .filter(|ip| is_ours(ip))
        .filter_map(address)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ipam::state::tests::attachment, spec::env::Command};

    #[test]
    fn each_version_has_its_shape() {
        let ips = [
            ("10.0.0.2".parse().unwrap(), "10.0.0.0/24".parse().unwrap()),
            ("fd00::2".parse().unwrap(), "fd00::/64".parse().unwrap()),
        ];
        let a = attachment("c1", &ips, 1);
        for v in Version::ALL {
            let text = format!(r#"{{"cniVersion":"{v}","name":"n"}}"#);
            let config = Config::parse(Command::Add, text.as_bytes()).unwrap();
            let r = of_add(&config, &a);
            assert_eq!(r["cniVersion"], v.text());
            assert_eq!(r["ips"][0]["address"], "10.0.0.2/32");
            assert_eq!(r["ips"][0]["gateway"], "169.254.1.1");
            assert_eq!(r["ips"][1]["gateway"], "fe80::1");
            assert_eq!(r["interfaces"][1]["sandbox"], "/run/netns/x");
            assert!(r["interfaces"][0].get("sandbox").is_none());
            assert_eq!(r["ips"][1].get("version").is_some(), v < Version::V1_0_0);
            assert_eq!(
                r["interfaces"][1].get("mtu").is_some(),
                v == Version::V1_1_0
            );
            assert_eq!(r["routes"][1], json!({"dst": "::/0", "gw": "fe80::1"}));
            assert_eq!(addresses_of(&r, "eth0"), a.ips);
            assert!(addresses_of(&r, "eth1").is_empty());
        }
    }
}
