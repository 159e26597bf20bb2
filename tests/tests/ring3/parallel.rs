use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context as _, ensure};

use super::node::{Node, Pod, address};

#[test]
fn a_hundred_at_once_get_distinct_addresses() -> anyhow::Result<()> {
    let node = Node::new(&["10.244.0.0/24", "fd00:10:244::/64"])?;
    let pods: Vec<Pod> = (0..100)
        .map(|i| node.pod(&format!("p{i}")))
        .collect::<Result<_, _>>()?;
    let all = |command: &str| -> anyhow::Result<Vec<serde_json::Value>> {
        let config = node.config("1.0.0").to_string();
        let started = pods
            .iter()
            .map(|pod| node.start(&node.env(command, pod), config.as_bytes()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        started
            .into_iter()
            .map(|child| {
                let output = child.wait_with_output()?;
                let text = String::from_utf8(output.stdout)?;
                ensure!(output.status.success(), "{command}: {text}");
                let empty = serde_json::Value::Null;
                match text.is_empty() {
                    true => Ok(empty),
                    false => serde_json::from_str(&text).context("not JSON"),
                }
            })
            .collect()
    };
    let begin = Instant::now();
    let results = all("ADD")?;
    println!("100 ADDs at once: {:?}", begin.elapsed());
    let distinct: BTreeSet<_> = results
        .iter()
        .flat_map(|r| [address(r, 0), address(r, 1)])
        .collect();
    ensure!(
        distinct.len() == 200,
        "{} distinct addresses",
        distinct.len()
    );
    ensure!(node.consistent()? == 100);
    for (pod, result) in pods.iter().zip(&results) {
        node.check(pod, result)?.ok()?;
    }
    let begin = Instant::now();
    all("DEL")?;
    println!("100 DELs at once: {:?}", begin.elapsed());
    node.clean()
}

/// ADD and DEL of the same attachments against each other: whatever the order, nothing doubles.
#[test]
fn adds_and_dels_of_the_same_pods_at_once() -> anyhow::Result<()> {
    let node = Node::new(&["10.244.0.0/27"])?;
    let pods: Vec<Pod> = (0..6)
        .map(|i| node.pod(&format!("same{i}")))
        .collect::<Result<_, _>>()?;
    let config = node.config("1.0.0").to_string();
    for _ in 0..5 {
        let mut children = Vec::new();
        for pod in &pods {
            for command in ["ADD", "DEL", "ADD"] {
                children.push(node.start(&node.env(command, pod), config.as_bytes())?);
            }
        }
        for child in children {
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "{output:?}");
        }
        node.consistent()?;
    }
    for pod in &pods {
        node.del(pod)?;
    }
    node.clean()
}

/// Figures for people; `cargo xtask bench` gates against baselines in the same run.
#[test]
fn one_after_the_other() -> anyhow::Result<()> {
    let node = Node::new(&["10.244.0.0/24", "fd00:10:244::/64"])?;
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    let pod = node.pod("one")?;
    // The first tc program of a machine makes the kernel patch itself, for some 20 ms.
    let other = node.pod("other")?;
    node.add(&other)?;
    for _ in 0..40 {
        let begin = Instant::now();
        node.add(&pod)?;
        adds.push(begin.elapsed());
        let begin = Instant::now();
        node.del(&pod)?;
        dels.push(begin.elapsed());
    }
    for (what, mut times) in [("ADD", adds), ("DEL", dels)] {
        times.sort();
        println!("{what} alone: p50 {:?}, p90 {:?}", times[20], times[36]);
    }
    node.del(&other)?;
    node.clean()
}
