//! From the slices that are there to those that should be, with as few writes as will do.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    MANAGED_BY, MANAGER, SERVICE_NAME,
    desired::{Group, is_headless, sort_ports},
};
use crate::owner::controller_reference;

/// Endpoints a slice holds at most (Kubernetes' default; the API allows 1000).
pub const MAX_ENDPOINTS: usize = 100;
const HEADLESS: &str = "service.kubernetes.io/headless";

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<EndpointSlice>,
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(
        SERVICE_NAME.into(),
        service.metadata.name.clone().unwrap_or_default(),
    );
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

/// Tells endpoints apart: the pod, and the address.
fn identity(e: &Endpoint) -> (Option<String>, Vec<String>) {
    (
        e.target_ref.as_ref().and_then(|r| r.uid.clone()),
        e.addresses.clone(),
    )
}

fn sorted(ports: Option<&Vec<EndpointPort>>) -> Vec<EndpointPort> {
    let mut ports = ports.cloned().unwrap_or_default();
    sort_ports(&mut ports);
    ports
}

/// A slice that is there, and what becomes of it.
struct Held {
    slice: EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// The writes that bring `existing` (the slices of `service` that this controller manages) to `groups`.
pub fn plan(service: &Service, groups: &[Group], existing: Vec<EndpointSlice>) -> Plan {
    let mut plan = Plan::default();
    let labels = labels(service);
    let mut unused: Vec<EndpointSlice> = existing
        .into_iter()
        .filter(|s| s.metadata.deletion_timestamp.is_none())
        .collect();
    // Slices of deleted endpoints are kept for groups that need a new one.
    let mut wanting: Vec<(usize, Vec<Endpoint>)> = Vec::new();

    for (i, group) in groups.iter().enumerate() {
        let (mine, others): (Vec<_>, Vec<_>) = unused.into_iter().partition(|s| {
            s.address_type == group.address_type && sorted(s.ports.as_ref()) == group.ports
        });
        unused = others;
        let (mut held, mut rest) = keep(mine, group, &labels);
        place(&mut held, &mut rest);
        let empty_is_right = group.endpoints.is_empty();
        let mut kept = 0;
        for h in held {
            // An empty group keeps one empty slice, so that "no endpoints" can be told from "not looked at".
            if h.endpoints.is_empty() && !(empty_is_right && kept == 0) {
                unused.push(h.slice);
                continue;
            }
            kept += 1;
            if h.changed {
                plan.update.push(with(h.slice, group, h.endpoints, &labels));
            }
        }
        if !rest.is_empty() || (empty_is_right && kept == 0) {
            wanting.push((i, rest));
        }
    }
    for (i, rest) in wanting {
        let group = &groups[i];
        let chunks: Vec<Vec<Endpoint>> = if rest.is_empty() {
            vec![Vec::new()]
        } else {
            rest.chunks(MAX_ENDPOINTS).map(<[_]>::to_vec).collect()
        };
        for chunk in chunks {
            match unused
                .iter()
                .position(|s| s.address_type == group.address_type)
            {
                Some(at) => plan
                    .update
                    .push(with(unused.swap_remove(at), group, chunk, &labels)),
                None => plan
                    .create
                    .push(with(new_slice(service, group), group, chunk, &labels)),
            }
        }
    }
    plan.delete = unused;
    plan
}

/// Goes through the slices of a group: endpoints still wanted stay where they are, in their newest form.
/// Returns what isn't in any slice yet.
fn keep(
    mine: Vec<EndpointSlice>,
    group: &Group,
    labels: &BTreeMap<String, String>,
) -> (Vec<Held>, Vec<Endpoint>) {
    let mut wanted: BTreeMap<_, &Endpoint> =
        group.endpoints.iter().map(|e| (identity(e), e)).collect();
    let held = mine
        .into_iter()
        .map(|slice| {
            let there = slice.endpoints.clone().unwrap_or_default();
            let endpoints: Vec<Endpoint> = there
                .iter()
                .filter_map(|e| wanted.remove(&identity(e)).cloned())
                .collect();
            let changed = endpoints != there || slice.metadata.labels.as_ref() != Some(labels);
            Held {
                slice,
                endpoints,
                changed,
            }
        })
        .collect();
    let rest = group
        .endpoints
        .iter()
        .filter(|e| wanted.contains_key(&identity(e)))
        .cloned()
        .collect();
    (held, rest)
}

/// Puts the rest into slices that are written anyway, fullest first; then, if one slice has room for all
/// that is left, into that one.
fn place(held: &mut [Held], rest: &mut Vec<Endpoint>) {
    let mut order: Vec<usize> = (0..held.len())
        .filter(|i| held[*i].changed && !held[*i].endpoints.is_empty())
        .collect();
    order.sort_by_key(|i| std::cmp::Reverse(held[*i].endpoints.len()));
    for i in order {
        let room = MAX_ENDPOINTS.saturating_sub(held[i].endpoints.len());
        let take = room.min(rest.len());
        held[i].endpoints.extend(rest.drain(..take));
    }
    if rest.is_empty() {
        return;
    }
    let fits = held
        .iter_mut()
        .filter(|h| h.endpoints.len() + rest.len() <= MAX_ENDPOINTS)
        .max_by_key(|h| h.endpoints.len());
    if let Some(h) = fits {
        h.endpoints.append(rest);
        h.changed = true;
    }
}

fn with(
    mut slice: EndpointSlice,
    group: &Group,
    endpoints: Vec<Endpoint>,
    labels: &BTreeMap<String, String>,
) -> EndpointSlice {
    slice.metadata.labels = Some(labels.clone());
    slice.ports = Some(group.ports.clone());
    slice.endpoints = Some(endpoints);
    slice
}

fn new_slice(service: &Service, group: &Group) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!(
                "{}-",
                service.metadata.name.as_deref().unwrap_or_default()
            )),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![controller_reference(service)]),
            ..Default::default()
        },
        address_type: group.address_type.into(),
        ..Default::default()
    }
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
