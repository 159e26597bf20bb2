use std::time::Duration;

use ipnetwork::IpNetwork;

/// Options of the controllers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pod networks, at most one a family, from which each node gets its part. Empty: no allocation.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Service networks: no node gets a part of them, should they overlap.
    pub service_cidrs: Vec<IpNetwork>,
    /// Prefix length of a node's part.
    pub node_mask_v4: u8,
    pub node_mask_v6: u8,
    /// The CA that pods verify the API server with, PEM; published as `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// A node that hasn't been heard of for this long is not ready.
    pub node_grace: Duration,
    /// The same for a node that has never been heard of.
    pub node_startup_grace: Duration,
    /// Finished pods kept in the cluster; beyond that the oldest are deleted.
    pub finished_pods_kept: usize,
}

impl Default for Config {
    /// Kubernetes' defaults.
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_mask_v4: 24,
            node_mask_v6: 64,
            root_ca_pem: String::new(),
            node_grace: Duration::from_secs(40),
            node_startup_grace: Duration::from_secs(60),
            finished_pods_kept: 12_500,
        }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        for family_is_v4 in [true, false] {
            let of_family: Vec<_> = self
                .cluster_cidrs
                .iter()
                .filter(|c| c.is_ipv4() == family_is_v4)
                .collect();
            anyhow::ensure!(
                of_family.len() <= 1,
                "cluster CIDRs {} and {} are of one family: give at most one IPv4 and one IPv6 network",
                of_family[0],
                of_family[1]
            );
        }
        for cidr in &self.cluster_cidrs {
            let (mask, longest) = if cidr.is_ipv4() {
                (self.node_mask_v4, 32)
            } else {
                (self.node_mask_v6, 128)
            };
            anyhow::ensure!(
                mask <= longest && cidr.prefix() <= mask && mask - cidr.prefix() <= 16,
                "nodes can't get /{mask} networks out of {cidr}: the node mask must be at least as long as the cluster's and at most 16 bits longer"
            );
        }
        Ok(())
    }
}
