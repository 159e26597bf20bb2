//! What the agent does by the plugin's library.

use std::time::Duration;

use anyhow::ensure;
use rhumb_cni::attachments::{Deletion, Repair};
use rhumb_harness::wait::wait_for;

use super::node::Node;

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00::/64"];

#[test]
fn a_lost_bpf_file_system_is_repaired_from_the_journal() -> anyhow::Result<()> {
    let node = Node::new(&DUAL)?;
    let pods = [node.pod("a")?, node.pod("b")?];
    let results = [node.add(&pods[0])?, node.add(&pods[1])?];
    let bpffs = node.run.dir().join("bpf");
    rhumb_harness::mount::unmount_below(&bpffs)?;
    rhumb_harness::mount::bpffs(&bpffs)?;
    node.load()?;
    node.check(&pods[0], &results[0])?
        .refused(100, "ENDPOINTS has no")?;
    let repair = node
        .netns
        .run(|| node.attachments()?.repair().map_err(anyhow::Error::from))??;
    ensure!(
        repair.written == 4 && repair.reattached.len() == 2,
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
