//! `kill -9` at any instruction neither leaks nor doubles anything.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::node::{Node, Pod};

/// A small generator; what matters is where in the plugin the kill falls.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

impl Node {
    /// Starts the command and kills it after `after`. Says whether the kill came in time.
    fn killed(&self, command: &str, pod: &Pod, after: Duration) -> anyhow::Result<bool> {
        let config = self.config("1.0.0").to_string();
        let begin = Instant::now();
        let mut child = self.start(&self.env(command, pod), config.as_bytes())?;
        // A moment within the plugin's run, not a condition to wait for.
        while begin.elapsed() < after {
            std::hint::spin_loop();
        }
        child.kill()?;
        Ok(child.wait()?.code().is_none())
    }
}

#[test]
fn killed_anywhere_the_next_call_mends_it() -> anyhow::Result<()> {
    let node = Node::new(&["10.244.0.0/27", "fd00::/64"])?;
    let pods: Vec<Pod> = (0..4)
        .map(|i| node.pod(&format!("k{i}")))
        .collect::<Result<_, _>>()?;
    let other = node.pod("bystander")?;
    // How long an ADD takes here, so that the kills spread over all of it.
    let begin = Instant::now();
    node.add(&other)?;
    let whole = begin.elapsed().as_micros() as u64 * 3 / 2;
    node.del(&other)?;

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut kills, mut in_time) = (0, 0);
    for round in 0..150 {
        let pod = &pods[random.below(4) as usize];
        let command = if random.below(3) == 0 { "DEL" } else { "ADD" };
        let after = Duration::from_micros(random.below(whole));
        kills += 1;
        in_time += u32::from(node.killed(command, pod, after)?);
        match random.below(4) {
            // As the runtime does: the sandbox failed, so it is deleted.
            0 => {
                node.del(pod)?;
                ensure!(node.attachment(pod).is_err());
            }
            1 => {
                let result = node.add(pod)?;
                node.check(pod, &result)?.ok()?;
            }
            // It never comes back to it; another pod's calls clean up.
            2 => {
                let result = node.add(&other)?;
                node.check(&other, &result)?.ok()?;
                node.del(&other)?;
            }
            _ => continue,
        }
        let count = node.consistent();
        ensure!(
            count.is_ok(),
            "round {round}, {command} killed after {after:?}: {count:?}"
        );
    }
    ensure!(
        in_time * 3 > kills,
        "only {in_time} of {kills} kills came in time"
    );
    println!("{in_time} of {kills} kills fell into the plugin's run of {whole} µs");
    for pod in pods.iter().chain([&other]) {
        node.del(pod)?;
    }
    node.clean()
}

/// Killed ADDs that nobody ever deletes don't use the addresses up.
#[test]
fn unfinished_adds_hold_no_address() -> anyhow::Result<()> {
    let node = Node::new(&["10.244.0.0/29"])?;
    let mut random = Random(7);
    for i in 0..30 {
        let pod = node.pod(&format!("u{i}"))?;
        let after = Duration::from_micros(500 + random.below(6000));
        node.killed("ADD", &pod, after)?;
        // The sandbox goes without a DEL.
        rhumb_harness::netns::delete(pod.netns.name())?;
    }
    let last = node.pod("last")?;
    rhumb_harness::wait::wait_for("an address", Duration::from_secs(10), || {
        let answer = node.run("ADD", &last)?;
        ensure!(
            answer.status == 0 || answer.json["code"] == 101,
            "{answer:?}"
        );
        Ok((answer.status == 0).then_some(()))
    })?;
    Ok(())
}
