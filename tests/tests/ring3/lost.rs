//! A journal that is damaged or lost while pods run.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use rhumb_cni::{
    attachment::Attachment,
    attachments::{AttachmentsError, Recovery, Repair},
    rebuild::Sandbox,
};

use serde_json::json;

use super::node::{Node, Pod};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00::/64"];

fn repair(node: &Node) -> anyhow::Result<Result<Repair, AttachmentsError>> {
    node.netns.run(|| Ok(node.attachments()?.repair()))?
}

fn recover(
    node: &Node,
    pods: Option<&HashMap<String, Sandbox>>,
) -> anyhow::Result<Result<Option<Recovery>, AttachmentsError>> {
    node.netns
        .run(|| Ok(node.attachments()?.recover("rhumb", pods)))?
}

/// As a runtime would name them.
fn names(pods: &[Pod]) -> HashMap<String, Sandbox> {
    let named = |pod: &Pod| {
        let names = Sandbox {
            namespace: "shop".into(),
            name: pod.id.clone(),
            uid: format!("u-{}", pod.id),
            netns: pod.netns.path(),
            ports: vec![],
        };
        (pod.id.clone(), names)
    };
    pods.iter().map(named).collect()
}

/// All but revisions.
fn essence(a: Attachment) -> Attachment {
    Attachment { revision: 0, ..a }
}

/// Each kind of loss, on two running pods: nothing is given out or taken away until the journal is made anew, and
/// then it is as before.
fn survives(
    node: &Node,
    pods: &[Pod; 2],
    what: &str,
    damage: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let all = || -> anyhow::Result<Vec<Attachment>> {
        pods.iter()
            .map(|pod| Ok(essence(node.attachment(pod)?)))
            .collect()
    };
    let before = all()?;
    let endpoints = node.endpoints()?;
    damage()?;
    let other = node.pod("other")?;
    node.run("ADD", &other)?.refused(103, "rhumb-agent")?;
    let lost = repair(node)?.err().context("nothing was noticed")?;
    ensure!(lost.is_loss(), "{lost}");
    ensure!(node.endpoints()? == endpoints, "ENDPOINTS were changed");
    match recover(node, None)? {
        Ok(recovery) => ensure!(recovery.is_some(), "{what}: nothing was made anew"),
        Err(e @ AttachmentsError::Unnamed(_)) => {
            ensure!(
                repair(node)?.is_err_and(|e| e.is_loss()),
                "{e} changed something"
            );
            recover(node, Some(&names(pods)))??;
        }
        Err(e) => return Err(e.into()),
    }
    ensure!(recover(node, None)??.is_none(), "{what}: made anew twice");
    repair(node)??;
    ensure!(all()? == before, "{what}: {:?}, not {before:?}", all()?);
    ensure!(node.consistent()? == 2, "{what}");
    // And it is a journal like any other.
    let result = node.add(&other)?;
    node.check(&other, &result)?.ok()?;
    node.del(&other)?;
    ensure!(node.consistent()? == 2, "{what}");
    Ok(())
}

#[test]
fn a_journal_damaged_anywhere_is_made_anew() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pods = [node.pod("a")?, node.pod("b")?];
    let gone = node.pod("gone")?;
    node.add(&gone)?;
    let results = [node.add(&pods[0])?, node.add(&pods[1])?];
    node.del(&gone)?;
    let path = node.paths.ipam_dir().join("journal");
    let sound = std::fs::read(&path)?;
    // A length that is wrong in the last record makes of it one that was cut short, which is no damage.
    let last = sound.windows(4).rposition(|w| w == b"RJ1\n");
    let last = last.context("no record")?;
    let positions = (0..sound.len()).step_by(sound.len() / 24);
    for at in positions.filter(|at| !(last + 4..last + 8).contains(at)) {
        std::fs::write(&path, &sound)?;
        // The other pod of the last round is none of this journal's.
        repair(&node)??;
        survives(&node, &pods, &format!("damage at {at}"), || {
            let mut data = std::fs::read(&path)?;
            data[at] ^= 0x10;
            Ok(std::fs::write(&path, &data)?)
        })?;
        let kept = std::fs::read(path.with_extension("damaged"))?;
        ensure!(
            kept.len() == sound.len() && kept[at] == sound[at] ^ 0x10,
            "the damaged journal was not kept"
        );
    }
    for (pod, result) in pods.iter().zip(&results) {
        node.check(pod, result)?.ok()?;
        node.del(pod)?;
    }
    node.clean()
}

fn add_at(node: &Node, pod: &Pod, ip: &str) -> anyhow::Result<()> {
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = json!({"ips": [ip]});
    let input = config.to_string();
    node.call(&node.env("ADD", pod), input.as_bytes())?.ok()?;
    Ok(())
}

#[test]
fn a_lost_journal_is_completed() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let path = node.paths.ipam_dir().join("journal");
    let first = node.pod("a")?;
    node.add(&first)?;
    let older = std::fs::read(&path)?;
    let pods = [first, node.pod("b")?];
    node.add(&pods[1])?;
    survives(&node, &pods, "an older copy", || {
        Ok(std::fs::write(&path, &older)?)
    })?;
    // It ends before the last pod's ADD did.
    node.del(&pods[1])?;
    node.add(&pods[1])?;
    let now = std::fs::read(&path)?;
    let end = now.windows(4).rposition(|w| w == b"RJ1\n");
    let end = end.context("no record")?;
    survives(&node, &pods, "a copy in the middle of an ADD", || {
        Ok(std::fs::write(&path, &now[..end])?)
    })?;
    // It has the second pod's address at another pod, which is gone.
    let before = node.pod("before")?;
    node.del(&pods[1])?;
    add_at(&node, &before, "10.244.1.77")?;
    let older = std::fs::read(&path)?;
    node.del(&before)?;
    add_at(&node, &pods[1], "10.244.1.77")?;
    survives(
        &node,
        &pods,
        "a copy of another life of its address",
        || Ok(std::fs::write(&path, &older)?),
    )?;
    survives(&node, &pods, "no file", || Ok(std::fs::remove_file(&path)?))?;
    survives(&node, &pods, "an empty file", || {
        Ok(std::fs::write(&path, b"")?)
    })?;
    survives(&node, &pods, "rubbish", || {
        Ok(std::fs::write(&path, [0; 5000])?)
    })?;
    // Pods go by the new journal as by the old one.
    for pod in &pods {
        node.del(pod)?;
    }
    ensure!(repair(&node)?? == Repair::default());
    node.clean()
}
