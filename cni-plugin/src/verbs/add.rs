//! ADD.
//!
//! 1. Under the journal's lock: finish what others left, choose addresses, note the intent, make
//!    the pair, hang the programs onto it, write ENDPOINTS (closed).
//! 2. Without it: addresses, routes, neighbours.
//! 3. Under it again: the attachment counts.
//! 4. Tell the agent, and wait for the pod's policy; without an agent, by what it last knew.
//!
//! What fails is undone in reverse by taking the attachment down; what is killed, by the next.

use std::net::IpAddr;

use serde_json::Value;

use crate::{
    agent::{self, Answer, Op, Request},
    attachment::{Attachment, Key, Phase},
    attachments::{Attachments, AttachmentsError},
    ipam::store::{AttachmentLock, Locked},
    kernel::{
        attach::{self, Endpoints, Programs},
        netlink::Netlink,
        netns::Netns,
        wire,
    },
    node::{NodeConfig, Paths},
    spec::{
        config::Config,
        env::Target,
        error::{CniError, Code},
        result,
    },
};

pub fn add(config: &Config, target: &Target) -> Result<Value, CniError> {
    let node = NodeConfig::read(&config.paths.node_json())?;
    attach::ready(&config.paths)?;
    // `env::target` has made sure that ADD has one.
    let pod = Netns::open(target.netns.as_deref().unwrap_or("".as_ref()))?;
    let cookie = wire::cookie_of(&pod)?;
    let attachments = Attachments::open(&config.paths)?;
    let key = Key::new(&*target.container_id, &*target.ifname);
    let own = attachments.store().lock_attachment(&key)?;
    let mut locked = attachments.lock()?;
    attachments.sweep(&mut locked, Some(&key))?;

    let mut done = None;
    if let Some(old) = locked.get(&key).cloned() {
        // The runtime repeats an ADD whose answer it didn't get: the same pod gets the same
        // answer, if all is as it was left.
        let asked = &config.requested;
        let same = old.phase == Phase::Attached
            && old.netns_cookie == cookie
            && asked.ips.iter().all(|ip| old.ips.contains(ip))
            && asked.mac.is_none_or(|mac| mac == old.pod_mac)
            && asked.ports == old.ports;
        if same && super::check::differences(&config.paths, &pod, &old)?.is_empty() {
            done = Some(Ok(old));
        } else {
            attachments.take_down(&own, locked, &key)?;
            locked = attachments.lock()?;
        }
    }
    let done = match done {
        Some(done) => {
            drop(locked);
            done
        }
        None => {
            let mut intent = intent(config, target, &node, &attachments, &mut locked)?;
            intent.netns_cookie = cookie;
            let intent = locked.put(intent)?;
            wire_up(&attachments, locked, &pod, intent)
        }
    };
    match done.and_then(|a| announce(&attachments, a)) {
        Ok(a) => Ok(result::of_add(config, &a)),
        Err(e) => Err(undo(&attachments, &own, &key, e)),
    }
}

/// What the pod gets, with addresses that nobody has.
fn intent(
    config: &Config,
    target: &Target,
    node: &NodeConfig,
    attachments: &Attachments,
    locked: &mut Locked,
) -> Result<Attachment, CniError> {
    let asked = &config.requested;
    let chosen = match locked.state().choose(&node.pod_cidrs, &asked.ips) {
        Ok(chosen) => chosen,
        Err(none) => match attachments.reclaim(locked)? {
            0 => return Err(none.into()),
            _ => locked.state().choose(&node.pod_cidrs, &asked.ips)?,
        },
    };
    let chosen_ips: Vec<IpAddr> = chosen.iter().map(|c| c.0).collect();
    refuse_if_in_use(&config.paths, &chosen_ips)?;
    let mac = || {
        wire::random_mac()
            .map_err(|e| CniError::new(Code::Io, format!("drawing a MAC address: {e}")))
    };
    let key = Key::new(&*target.container_id, &*target.ifname);
    Ok(Attachment {
        host_ifname: key.host_ifname(),
        container_id: key.container_id,
        ifname: key.ifname,
        network: config.name.clone(),
        netns: target.netns.clone().unwrap_or_default(),
        namespace: target.pod.namespace.clone(),
        pod: target.pod.name.clone(),
        uid: target.pod.uid.clone(),
        ports: asked.ports.clone(),
        ips: chosen_ips,
        cidrs: chosen.iter().map(|c| c.1).collect(),
        mtu: node.mtu,
        host_mac: mac()?,
        pod_mac: match asked.mac {
            Some(mac) => mac,
            None => mac()?,
        },
        ifindex: 0,
        netns_cookie: 0,
        open: false,
        phase: Phase::Adding,
        revision: 0,
    })
}

/// What the journal has free, no pod has: else the journal was lost, and its word is worth nothing.
fn refuse_if_in_use(paths: &Paths, ips: &[IpAddr]) -> Result<(), CniError> {
    let endpoints = Endpoints::open(paths)?;
    for ip in ips {
        let Some(entry) = endpoints.get(*ip)? else {
            continue;
        };
        let links = Netlink::open().and_then(|mut netlink| wire::pod_links(&mut netlink));
        let links = links.map_err(AttachmentsError::Netlink)?;
        let holder = links.into_iter().find(|l| l.ifindex == entry.ifindex);
        if let Some(holder) = holder {
            return Err(CniError::new(
                Code::JournalDamaged,
                format!(
                    "{ip} is free by the journal {}, but a pod has it ({}): the journal was lost or replaced; \
                     nothing was changed. rhumb-agent completes it: start the agent on this node, or look at its log",
                    paths.ipam_dir().join("journal").display(),
                    holder.name,
                ),
            ));
        }
    }
    Ok(())
}

/// The kernel's part, and the journal's word that it is done.
fn wire_up(
    attachments: &Attachments,
    locked: Locked,
    pod: &Netns,
    mut a: Attachment,
) -> Result<Attachment, CniError> {
    let paths = attachments.paths();
    let mut host = Netlink::open().map_err(AttachmentsError::Netlink)?;
    a.ifindex = wire::create(&mut host, &a, pod)?;
    // Programs and entry stand before the pair is up: nothing passes unjudged. The entry is
    // closed until the agent has spoken, or is known not to be there.
    Programs::open(paths)?.attach(&locked, &mut host, &a)?;
    Endpoints::open(paths)?.put_all(&locked, &a)?;
    drop(locked);
    wire::set_up_host(&mut host, &a)?;
    wire::set_up_pod(pod, &a)?;
    record(attachments, a)
}

/// Writes the attachment as attached, in journal and ENDPOINTS.
fn record(attachments: &Attachments, a: Attachment) -> Result<Attachment, CniError> {
    let mut locked = attachments.lock()?;
    let phase = Phase::Attached;
    let a = locked.put(Attachment { phase, ..a })?;
    Endpoints::open(attachments.paths())?.put_all(&locked, &a)?;
    // An agent that started meanwhile has pinned its programs and left this pod alone, which was
    // not attached yet; one that starts from now on finds it.
    let mut host = Netlink::open().map_err(AttachmentsError::Netlink)?;
    Programs::open(attachments.paths())?.renew(&locked, &mut host, &a)?;
    Ok(a)
}

/// Waits until the pod's policy is in force; without an agent, opens the pod if nothing can apply.
fn announce(attachments: &Attachments, a: Attachment) -> Result<Attachment, CniError> {
    let paths = attachments.paths();
    let request = Request::new(Op::Add, &a);
    let why = match agent::tell(&paths.agent_socket(), &request, agent::PATIENCE) {
        Answer::InForce => return Ok(a),
        Answer::Refused(why) => {
            return Err(CniError::new(
                Code::TryAgainLater,
                format!(
                    "rhumb-agent did not take the pod {}/{}: {why}",
                    a.namespace, a.pod
                ),
            ));
        }
        Answer::Alone(why) => why,
    };
    let open = attach::may_open(paths, &a.namespace)?;
    eprintln!(
        "rhumb-cni: {}: no answer from rhumb-agent ({why}); the pod starts {} until it is back",
        a.key(),
        if open {
            "open, since no policy was in its namespace"
        } else {
            "closed except to its node"
        }
    );
    match open == a.open {
        true => Ok(a),
        false => record(attachments, Attachment { open, ..a }),
    }
}

fn undo(attachments: &Attachments, own: &AttachmentLock, key: &Key, e: CniError) -> CniError {
    let undone = attachments
        .lock()
        .map_err(AttachmentsError::from)
        .and_then(|locked| attachments.take_down(own, locked, key));
    match undone {
        Ok(()) => e,
        Err(more) => {
            let details = match e.details.is_empty() {
                true => format!("undoing failed too: {more}"),
                false => format!("{}; undoing failed too: {more}", e.details),
            };
            e.details(details)
        }
    }
}
