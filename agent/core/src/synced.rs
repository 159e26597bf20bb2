//! Proof that every source has been read whole: what deletes need.

/// A source of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Nodes,
    Namespaces,
    Pods,
    Services,
    EndpointSlices,
    NetworkPolicies,
    /// The plugin's journal of local endpoints.
    Journal,
    /// Addresses of this node's interfaces.
    HostAddresses,
}

impl Source {
    pub const ALL: [Source; 8] = [
        Source::Nodes,
        Source::Namespaces,
        Source::Pods,
        Source::Services,
        Source::EndpointSlices,
        Source::NetworkPolicies,
        Source::Journal,
        Source::HostAddresses,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Source::Nodes => "nodes",
            Source::Namespaces => "namespaces",
            Source::Pods => "pods",
            Source::Services => "services",
            Source::EndpointSlices => "endpointslices",
            Source::NetworkPolicies => "networkpolicies",
            Source::Journal => "journal",
            Source::HostAddresses => "host addresses",
        }
    }
}

/// "Not seen yet" can't be read as "gone": whoever deletes shows one of these, and only [`Gate`]
/// makes them.
#[derive(Clone, Debug)]
pub struct Synced(());

/// Collects which sources have been read whole at least once.
#[derive(Debug, Default)]
pub struct Gate {
    synced: std::collections::BTreeSet<Source>,
}

impl Gate {
    pub fn mark(&mut self, source: Source) {
        self.synced.insert(source);
    }

    pub fn missing(&self) -> Vec<Source> {
        Source::ALL
            .into_iter()
            .filter(|s| !self.synced.contains(s))
            .collect()
    }

    pub fn proof(&self) -> Option<Synced> {
        self.missing().is_empty().then_some(Synced(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_sources_make_a_proof() {
        let mut gate = Gate::default();
        for source in Source::ALL {
            assert!(gate.proof().is_none());
            gate.mark(source);
        }
        assert!(gate.proof().is_some());
    }
}
