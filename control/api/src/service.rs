//! What Services need from the server besides the generic way: address families and the addresses
//! that the server allocates.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::json::{self, at, list, put, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        }
    }

    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// Fills in `ipFamilyPolicy` and `ipFamilies` for a cluster whose service ranges have these
/// families, the first being its default. Explicit cluster IPs decide families; what contradicts
/// them is left for validation to name.
pub fn default_families(service: &mut Value, cluster: &[Family]) {
    let Some(default) = cluster.first().copied() else {
        return;
    };
    let Some(spec) = json::child(service, "spec") else {
        return;
    };
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let mut families: Vec<Family> = list(spec, "ipFamilies")
        .iter()
        .filter_map(|f| f.as_str().and_then(Family::of_name))
        .collect();
    if families.len() != list(spec, "ipFamilies").len() {
        // An unknown family: validation refuses it.
        return;
    }
    for address in cluster_ips(spec) {
        if let Ok(address) = address.parse::<std::net::IpAddr>() {
            let family = Family::of(address);
            if !families.contains(&family) && list(spec, "ipFamilies").is_empty() {
                families.push(family);
            }
        }
    }
    let policy = match text(spec, "ipFamilyPolicy") {
        "" if families.len() == 2 => "RequireDualStack",
        "" => "SingleStack",
        given => given,
    }
    .to_string();
    if families.is_empty() {
        families.push(default);
    }
    if policy != "SingleStack" && families.len() == 1 {
        let first = families[0];
        families.extend(cluster.iter().copied().filter(|f| *f != first).take(1));
    }
    spec["ipFamilyPolicy"] = policy.into();
    spec["ipFamilies"] = families.iter().map(|f| f.name()).collect::<Vec<_>>().into();
}

/// The cluster IPs that a spec names, `clusterIP` and `clusterIPs` together, without repetition.
pub fn cluster_ips(spec: &Value) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    let first = std::iter::once(text(spec, "clusterIP"));
    for address in first.chain(list(spec, "clusterIPs").iter().filter_map(Value::as_str)) {
        if !address.is_empty() && !addresses.iter().any(|a| a == address) {
            addresses.push(address.to_string());
        }
    }
    addresses
}

/// One cluster IP that the server has to find: the family, and the address if the client asked
/// for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub family: Family,
    pub address: Option<std::net::IpAddr>,
}

/// The cluster IPs to allocate, in the order of `ipFamilies`. Empty for headless and ExternalName.
pub fn wanted_ips(service: &Value) -> Vec<Wanted> {
    let Some(spec) = at(service, "spec") else {
        return Vec::new();
    };
    let asked = cluster_ips(spec);
    if text(spec, "type") == "ExternalName" || asked.iter().any(|a| a == "None") {
        return Vec::new();
    }
    let asked: Vec<std::net::IpAddr> = asked.iter().filter_map(|a| a.parse().ok()).collect();
    list(spec, "ipFamilies")
        .iter()
        .filter_map(|f| f.as_str().and_then(Family::of_name))
        .map(|family| Wanted {
            family,
            address: asked.iter().copied().find(|a| Family::of(*a) == family),
        })
        .collect()
}

/// Writes the allocated addresses, in the order of `wanted_ips`.
pub fn set_cluster_ips(service: &mut Value, addresses: &[std::net::IpAddr]) {
    let Some(first) = addresses.first() else {
        return;
    };
    if let Some(spec) = json::child(service, "spec") {
        spec["clusterIP"] = first.to_string().into();
        spec["clusterIPs"] = addresses
            .iter()
            .map(|a| Value::from(a.to_string()))
            .collect();
    }
}

/// An update that leaves out what the server allocated keeps it, so that `kubectl apply` and
/// `kubectl replace` of a plain manifest work. Source: `pkg/registry/core/service` patchAllocatedValues
/// and normalizeClusterIPs.
pub fn patch_allocated(new: &mut Value, old: &Value) {
    let (Some(spec), Some(old)) = (json::child(new, "spec"), at(old, "spec")) else {
        return;
    };
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let unset = |spec: &Value, key: &str| match spec.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        Some(_) => false,
    };
    if unset(spec, "clusterIP") && unset(spec, "clusterIPs") {
        put(spec, "clusterIP", old.get("clusterIP").cloned());
        put(spec, "clusterIPs", old.get("clusterIPs").cloned());
    } else if !unset(spec, "clusterIP")
        && text(spec, "clusterIP") != text(old, "clusterIP")
        && (unset(spec, "clusterIPs") || list(spec, "clusterIPs") == list(old, "clusterIPs"))
    {
        // Only the first address was changed: the list follows it.
        let mut addresses = list(old, "clusterIPs").to_vec();
        let first = Value::from(text(spec, "clusterIP"));
        match addresses.first_mut() {
            Some(slot) => *slot = first,
            None => addresses.push(first),
        }
        spec["clusterIPs"] = addresses.into();
    } else if unset(spec, "clusterIPs") {
        put(spec, "clusterIPs", old.get("clusterIPs").cloned());
    } else if unset(spec, "clusterIP") {
        let first = list(spec, "clusterIPs")
            .first()
            .cloned()
            .unwrap_or(Value::Null);
        spec["clusterIP"] = first;
    }
    for key in ["ipFamilies", "ipFamilyPolicy"] {
        if unset(spec, key) {
            put(spec, key, old.get(key).cloned());
        }
    }
}

/// The object that says which Service holds an address.
pub fn ip_address(ip: IpAddr, service: &Value) -> Value {
    let mut parent = json!({"group": "", "resource": "services"});
    for field in ["namespace", "name"] {
        parent[field] = text(service, &format!("metadata.{field}")).into();
    }
    json!({
        "metadata": {"name": ip.to_string(), "labels": {
            "ipaddress.kubernetes.io/ip-family": Family::of(ip).name(),
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }},
        "spec": {"parentRef": parent},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn families() {
        let both = [Family::V4, Family::V6];
        let mut s = json!({"spec": {"type": "ClusterIP"}});
        default_families(&mut s, &both);
        assert_eq!(s["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(s["spec"]["ipFamilyPolicy"], "SingleStack");
        let mut s = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}});
        default_families(&mut s, &both);
        assert_eq!(s["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]));
        let mut s = json!({"spec": {"clusterIP": "fd00::1"}});
        default_families(&mut s, &both);
        assert_eq!(s["spec"]["ipFamilies"], json!(["IPv6"]));
        assert_eq!(
            wanted_ips(&s),
            [Wanted {
                family: Family::V6,
                address: Some("fd00::1".parse().unwrap())
            }]
        );
    }

    #[test]
    fn updates_keep_what_was_allocated() {
        let old = json!({"spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}});
        let mut new = json!({"spec": {"ports": []}});
        patch_allocated(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.1"]));
        assert_eq!(new["spec"]["ipFamilyPolicy"], "SingleStack");
        let mut new = json!({"spec": {"clusterIP": "10.96.0.9"}});
        patch_allocated(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.9"]));
    }
}
