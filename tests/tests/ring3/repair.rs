//! What the agent does by the plugin's library.

use std::time::Duration;

use anyhow::ensure;
use aya::programs::{
    SchedClassifier, TcAttachType, links::FdLink, links::LinkOrder, tc::TcAttachOptions,
};
use rhumb_agent::dataplane::bpf::{self, Dataplane, Hang, Options};
use rhumb_cni::{
    attachments::{Deletion, Repair},
    kernel::{
        filter::{self, Direction},
        netlink::Netlink,
    },
};
use rhumb_harness::{link, wait::wait_for};

use super::{node::Node, verbs};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00::/64"];

#[test]
fn a_lost_bpf_file_system_is_repaired_from_the_journal() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pods = [node.pod("a")?, node.pod("b")?];
    let results = [node.add(&pods[0])?, node.add(&pods[1])?];
    let bpffs = node.run.dir().join("bpf");
    let program = |pod| -> anyhow::Result<Option<u32>> {
        let index = node.attachment(pod)?.ifindex;
        Ok(node
            .netns
            .run(|| filter::attached(&mut Netlink::open()?, index, Direction::Ingress))??)
    };
    let before = program(&pods[0])?;
    ensure!(before.is_some(), "no program");
    rhumb_harness::mount::unmount_below(&bpffs)?;
    // The pod has its program all the same.
    ensure!(
        program(&pods[0])? == before,
        "the program went with its pin"
    );
    rhumb_harness::mount::bpffs(&bpffs)?;
    node.load()?;
    node.check(&pods[0], &results[0])?
        .refused(100, "ENDPOINTS has no")?;
    let repair = node
        .netns
        .run(|| node.attachments()?.repair().map_err(anyhow::Error::from))??;
    ensure!(
        repair.written == 4 && repair.replaced == 2 && repair.reattached.is_empty(),
        "{repair:?}"
    );
    for (pod, result) in pods.iter().zip(&results) {
        node.check(pod, result)?.ok()?;
    }
    let again = node
        .netns
        .run(|| node.attachments()?.repair().map_err(anyhow::Error::from))??;
    ensure!(again == Repair::default(), "{again:?}");
    for pod in &pods {
        node.del(pod)?;
    }
    node.clean()
}

#[test]
fn a_deletion_holds_only_at_its_revision() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let attachments = node.attachments()?;
    let watch = attachments.watch()?;
    let pod = node.pod("x")?;
    node.add(&pod)?;
    ensure!(
        watch.changed(Duration::from_secs(5))?,
        "the watch was silent"
    );
    let (_, list) = attachments.list()?;
    let (key, revision) = (list[0].key(), list[0].revision);
    // Deleted and made again meanwhile.
    node.del(&pod)?;
    node.add(&pod)?;
    let delete = |revision| -> anyhow::Result<Deletion> {
        Ok(node.netns.run(|| attachments.delete(&key, revision))??)
    };
    ensure!(delete(revision)? == Deletion::Moved);
    ensure!(node.consistent()? == 1);
    let own = attachments.store().lock_attachment(&key)?;
    let now = attachments.list()?.1[0].revision;
    ensure!(delete(now)? == Deletion::Busy);
    drop(own);
    // Until it executes, a child that another test forks holds the lock too.
    wait_for("the lock", Duration::from_secs(10), || {
        let done = delete(now)?;
        ensure!(
            matches!(done, Deletion::Deleted | Deletion::Busy),
            "{done:?}"
        );
        Ok((done == Deletion::Deleted).then_some(()))
    })?;
    wait_for("its absence", Duration::from_secs(10), || {
        Ok((delete(now)? == Deletion::Absent).then_some(()))
    })?;
    node.clean()
}

fn repair(node: &Node) -> anyhow::Result<Repair> {
    node.netns
        .run(|| node.attachments()?.repair().map_err(anyhow::Error::from))?
}

#[test]
fn a_new_load_replaces_the_programs_of_pods() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pods = [node.pod("a")?, node.pod("b")?];
    for pod in &pods {
        node.add(pod)?;
    }
    node.load()?;
    let attachment = node.attachment(&pods[0])?;
    let wrong = node.program_differences(&attachment)?;
    ensure!(
        wrong.len() == 2 && wrong.iter().all(|w| w.contains("not the pinned one")),
        "{wrong:?}"
    );
    // Lost, as by someone's `tc qdisc del`.
    let words = ["qdisc", "del", "dev", &attachment.host_ifname, "clsact"];
    verbs::run(&node.netns, "tc", &words)?;
    let done = repair(&node)?;
    ensure!(
        done.replaced == 1 && done.reattached == [attachment.host_ifname],
        "{done:?}"
    );
    ensure!(repair(&node)? == Repair::default());
    ensure!(node.consistent()? == 2);
    for pod in &pods {
        node.del(pod)?;
    }
    node.clean()
}

#[test]
fn links_of_earlier_builds_go_once_filters_stand() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pod = node.pod("old")?;
    node.add(&pod)?;
    let name = node.attachment(&pod)?.host_ifname;
    let pin = node.paths.links_dir().join(format!("{name}-ingress"));
    node.netns.run(|| -> anyhow::Result<()> {
        let mut program = SchedClassifier::from_pin(node.paths.program("from_pod"))?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(&name, TcAttachType::Ingress, order)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(&pin)?;
        Ok(())
    })??;
    let links = || -> anyhow::Result<usize> {
        Ok(node
            .netns
            .run(|| SchedClassifier::query_tcx(&name, TcAttachType::Ingress))??
            .1
            .len())
    };
    ensure!(links()? == 1);
    let done = repair(&node)?;
    ensure!(done.old_links == 1, "{done:?}");
    wait_for("the link's end", Duration::from_secs(5), || {
        Ok((links()? == 0 && !pin.exists()).then_some(()))
    })?;
    node.del(&pod)?;
    node.clean()
}

/// As on a kernel without tcx.
#[test]
fn the_uplinks_filter_leaves_others_alone() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let other = node.run.netns("other")?;
    for (here, there) in [("up0", "there0"), ("up1", "there1")] {
        link::veth(&node.netns, here, &other, there)?;
    }
    let tc = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        verbs::run(&node.netns, "tc", &words)
    };
    tc("qdisc add dev up0 clsact")?;
    let foreign = format!(
        "filter add dev up0 ingress protocol all prio 9 handle 82 bpf da pinned {}",
        node.paths.program("to_pod").display()
    );
    tc(&foreign)?;
    let bpf_dir = node.paths.bpf_dir.clone();
    let index = |name: &str| -> anyhow::Result<u32> {
        let links = link::list(&node.netns)?;
        let found = links.iter().find(|l| l.name == name);
        Ok(found.ok_or_else(|| anyhow::anyhow!("no {name}"))?.index)
    };
    let ours = |name: &str| -> anyhow::Result<Option<u32>> {
        let index = index(name)?;
        Ok(node
            .netns
            .run(|| filter::attached(&mut Netlink::open()?, index, Direction::Ingress))??)
    };
    let attach = |name: &str| -> anyhow::Result<()> {
        let bpf_dir = bpf_dir.clone();
        let mut dataplane = Dataplane::open(&Options { bpf_dir })?;
        let at = node
            .netns
            .run(|| dataplane.attach_uplink(name, Hang::Filter))??;
        ensure!(at == index(name)?);
        Ok(())
    };
    attach("up0")?;
    let first = ours("up0")?;
    // A restart replaces ours, and only ours.
    attach("up0")?;
    let second = ours("up0")?;
    ensure!(
        first.is_some() && second.is_some() && first != second,
        "{first:?} {second:?}"
    );
    let list = tc("filter show dev up0 ingress")?;
    ensure!(list.matches("direct-action").count() == 2, "{list}");
    // The uplink has changed.
    attach("up1")?;
    ensure!(ours("up0")?.is_none() && ours("up1")?.is_some());
    node.netns.run(|| bpf::remove(&bpf_dir))??;
    ensure!(ours("up1")?.is_none());
    let list = tc("filter show dev up0 ingress")?;
    ensure!(
        list.matches("direct-action").count() == 1 && list.contains("pref 9"),
        "{list}"
    );
    Ok(())
}
