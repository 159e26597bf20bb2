//! Random packets over random Services, policies and changes: the kernel's program, the same logic
//! on the host, and a naive oracle have to agree, packet by packet.
//!
//! `RHUMB_SEED` and `RHUMB_STEPS` repeat or prolong a run.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use rhumb_common::event::Reason;
use rhumb_common::flow::{Flow, FlowKey, TICK_SHIFT};
use rhumb_common::logic::host::{Frame as HostFrame, HostTables};
use rhumb_common::logic::{self, Action, Meta};
use rhumb_common::maps::{
    Backend, EndpointPolicy, Peer, PolicyKey, PolicyVal, Service, ServiceKey, SlotKey, config_flag,
    endpoint_flag, name, policy_prefix, verdict,
};
use rhumb_tests::frames::{self, ACK, Body, FIN, Frame, RST, SYN, TCP, UDP, echo, tcp, udp};
use rhumb_tests::kernel::{At, Programs, Ran};

use super::lab::{
    A, B, ELSEWHERE, HERE, Lab, NAT_MAX, NAT_MIN, NOBODY, NODE, OK, OUTSIDE, REDIRECT, REMOTE,
    SHOT, VIP,
};
use super::oracle::{Endpoint, Expect, Frontend, Hook, Oracle, Packet, Pod, Rule, Way, World};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

/// The last two are no Service's.
const PORTS: [u16; 4] = [80, 81, 8080, 8081];
const CLIENT_PORTS: [u16; 5] = [4000, 4001, 4002, 50_000, 50_001];
/// One bit away from none of them.
const LOST: u16 = 7777;
/// Cookie of each pod's namespace.
const LIFE: u64 = 7;
const SETS: u32 = 3;
const IDENTITIES: u32 = 4;

#[test]
fn kernel_host_and_oracle_agree() -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = number("RHUMB_SEED").unwrap_or(clock.as_nanos() as u64);
    let steps = number("RHUMB_STEPS").unwrap_or(4_000);
    println!("RHUMB_SEED={seed}");
    // Several short lives rather than one long: each starts with other policies and Services.
    for life in 0..4 {
        let lab = Lab::new()?;
        let Lab {
            mut programs,
            tables,
            netns,
            _wire,
            _run,
        } = lab;
        let game = Game::new(seed.wrapping_add(life), tables);
        netns
            .run(|| game.play(&mut programs, steps / 4))?
            .with_context(|| format!("RHUMB_SEED={seed} RHUMB_STEPS={steps}, life {life}"))?;
    }
    Ok(())
}

struct Game {
    dice: Dice,
    host: HostTables,
    world: World,
    oracle: Oracle,
    /// Packets that went out: their replies are sent now and then.
    sent: Vec<(Way, Packet)>,
    outcomes: [usize; 6],
}

fn address(a: &str) -> IpAddr {
    a.parse().expect("an address")
}

impl Game {
    fn new(seed: u64, host: HostTables) -> Game {
        let mut game = Game {
            dice: Dice(seed),
            host,
            world: World {
                nat: (NAT_MIN, NAT_MAX),
                ..World::default()
            },
            oracle: Oracle::default(),
            sent: Vec::new(),
            outcomes: [0; 6],
        };
        game.populate();
        game
    }

    fn populate(&mut self) {
        let (w, t, d) = (&mut self.world, &mut self.host, &mut self.dice);
        w.masquerade = !d.one_in(4);
        w.host_ports = !d.one_in(3);
        t.config.flags = if w.masquerade {
            config_flag::MASQUERADE_V4 | config_flag::MASQUERADE_V6
        } else {
            0
        };
        if w.host_ports {
            t.config.flags |= config_flag::HOST_PORTS;
            for node in NODE {
                for protocol in [TCP, UDP] {
                    w.frontends.push(Frontend {
                        address: SocketAddr::new(address(node), 80),
                        protocol,
                        backends: Vec::new(),
                    });
                }
            }
        }
        for i in 0..2 {
            for (pod, here) in [(A[i], true), (B[i], true), (ELSEWHERE[i], false)] {
                w.pods.push(Pod {
                    address: address(pod),
                    here,
                    open: true,
                    sets: None,
                    earlier: false,
                });
            }
            w.nodes.push(address(NODE[i]));
            w.cluster.push(address(REMOTE[i]));
            w.nobody.push(address(NOBODY[i]));
            for set in 1..=SETS {
                for identity in 0..IDENTITIES {
                    for (protocol, ports) in [
                        (None, None),
                        (Some(TCP), None),
                        (Some(UDP), Some((80, 80))),
                        (Some(TCP), Some((8080, 8081))),
                        (Some(UDP), Some((8080, 8095))),
                    ] {
                        if i == 0 && d.one_in(3) {
                            w.rules.push(Rule {
                                set,
                                identity,
                                protocol,
                                ports,
                                allow: !d.one_in(3),
                            });
                        }
                    }
                }
            }
        }
        for vip in VIP {
            for port in [80, 81] {
                for protocol in [TCP, UDP] {
                    let vip = SocketAddr::new(address(vip), port);
                    w.frontends.push(Frontend {
                        address: vip,
                        protocol,
                        backends: Vec::new(),
                    });
                }
            }
        }
        for _ in 0..12 {
            let place = w.backends.len();
            let address = some_backend(d, &w.backends, place % 2);
            w.backends.push(Endpoint {
                address,
                version: 1,
            });
        }
        for _ in 0..30 {
            self.change();
        }
    }

    /// Something about the cluster changes; [`Game::write`] tells the tables.
    fn change(&mut self) {
        let (w, d) = (&mut self.world, &mut self.dice);
        match d.roll(6) {
            0 => {
                let i = d.roll(w.pods.len());
                let pod = &mut w.pods[i];
                let mut set = || {
                    if d.one_in(2) {
                        0
                    } else {
                        1 + d.roll(SETS as usize) as u32
                    }
                };
                pod.sets = Some((set(), set()));
                pod.open = !d.one_in(2);
                pod.earlier = d.one_in(4);
            }
            1 => {
                let who = d.pick(&[A, B, ELSEWHERE, REMOTE, OUTSIDE, NODE])[d.roll(2)];
                let identity = d.roll(IDENTITIES as usize) as u32;
                w.identities.retain(|(ip, _)| *ip != address(who));
                w.identities.push((address(who), identity));
            }
            2 if !w.rules.is_empty() => {
                let i = d.roll(w.rules.len());
                w.rules[i].allow ^= true;
            }
            3 | 4 => {
                let i = d.roll(w.frontends.len());
                let family = usize::from(w.frontends[i].address.is_ipv6());
                let count = d.roll(4);
                w.frontends[i].backends = (0..count).map(|_| 2 * d.roll(6) + family).collect();
            }
            _ => {
                let i = d.roll(w.backends.len());
                w.backends[i] = Endpoint {
                    address: some_backend(d, &w.backends, i % 2),
                    version: w.backends[i].version + 1,
                };
            }
        }
    }

    /// The tables as the cluster wants them.
    fn tables(&mut self) {
        let (w, t) = (&self.world, &mut self.host);
        t.config.policy_epoch += 1;
        for (place, b) in w.backends.iter().enumerate() {
            let row = Backend {
                addr: b.address.ip().into(),
                port_be: b.address.port().to_be(),
                generation: b.version,
                ..Backend::default()
            };
            t.backends.insert(place as u32 + 1, row);
        }
        for (i, f) in w.frontends.iter().enumerate() {
            let id = i as u32 + 1;
            for (slot, place) in f.backends.iter().enumerate() {
                let slot = slot as u32;
                t.slots
                    .insert(SlotKey { service: id, slot }, *place as u32 + 1);
            }
            let key = ServiceKey {
                vip: f.address.ip().into(),
                port_be: f.address.port().to_be(),
                protocol: f.protocol,
                scope: 0,
                _pad: 0,
            };
            let service = Service {
                id,
                count: f.backends.len() as u32,
                flags: 0,
                affinity: 0,
            };
            t.services.insert(key, service);
            if !w.nodes.contains(&f.address.ip()) {
                t.services
                    .insert(ServiceKey::address(key.vip), Service::default());
            }
        }
        for pod in &w.pods {
            let key = pod.address.into();
            if let Some(e) = t.endpoints.get_mut(&key) {
                e.flags = if pod.open { endpoint_flag::OPEN } else { 0 };
                e.netns_cookie = LIFE;
            }
            if let Some((ingress_set, egress_set)) = pod.sets {
                let sets = EndpointPolicy {
                    ingress_set,
                    egress_set,
                    netns_cookie: if pod.earlier { LIFE - 1 } else { LIFE },
                };
                t.endpoint_policy.insert(key, sets);
            }
        }
        for (address, identity) in &w.identities {
            let peer = Peer {
                identity: *identity,
                _pad: 0,
            };
            let outside = [address_of(OUTSIDE, 0), address_of(OUTSIDE, 1)].contains(address);
            if outside {
                // By CIDR: what is not a pod.
                let key = rhumb_common::addr::Ip::from(*address);
                t.peer_cidrs.insert(120, &key.octets(), peer);
            } else {
                t.peers.insert((*address).into(), peer);
            }
        }
        for r in &w.rules {
            let (protocol, port, prefix) = match (r.protocol, r.ports) {
                (None, _) => (0, 0, policy_prefix::ANY_PROTOCOL),
                (Some(p), None) => (p, 0, policy_prefix::PROTOCOL),
                (Some(p), Some((a, b))) => {
                    let bits = (b - a + 1).ilog2();
                    (p, a, policy_prefix::PORT - bits)
                }
            };
            let row = PolicyVal {
                rule: 1,
                verdict: if r.allow {
                    verdict::ALLOW
                } else {
                    verdict::DENY
                },
            };
            let key = PolicyKey::new(r.set, r.identity, protocol, port.to_be());
            t.policy_insert(prefix, &key, row);
        }
    }

    fn play(mut self, programs: &mut Programs, steps: u64) -> Result<()> {
        self.tables();
        programs.write(&self.host);
        for step in 0..steps {
            if self.dice.one_in(40) {
                self.change();
                self.tables();
                programs.write(&self.host);
            }
            if self.dice.one_in(60) {
                self.forget(programs);
            }
            self.packet(programs)
                .with_context(|| format!("step {step}"))?;
            if step % 250 == 249 {
                self.same_flows(programs)
                    .with_context(|| format!("after step {step}"))?;
            }
        }
        self.same_flows(programs)?;
        println!(
            "stack, pod, route, answer, drop, unread: {:?}",
            self.outcomes
        );
        // A game in which nothing happens proves nothing.
        ensure!(self.outcomes.iter().all(|n| *n > 0), "{:?}", self.outcomes);
        Ok(())
    }

    /// One connection is idle for long enough to be forgotten.
    fn forget(&mut self, programs: &mut Programs) {
        if self.oracle.connections.is_empty() {
            return;
        }
        let i = self.dice.roll(self.oracle.connections.len());
        let c = self.oracle.connections.swap_remove(i);
        let mut map = programs.hash::<FlowKey, Flow>(name::FLOWS);
        for (src, dst) in [(c.client, c.asked), (c.server, c.shown)] {
            let key = flow_key(c.protocol, src, dst);
            if let Some(f) = self.host.flows.get_mut(&key) {
                f.last_seen = f.last_seen.wrapping_sub(1_000_000);
            }
            if let Ok(mut f) = map.get(&key, 0) {
                f.last_seen = f.last_seen.wrapping_sub(1_000_000);
                map.insert(key, f, 0).expect("write FLOWS");
            }
        }
    }

    fn some_packet(&mut self) -> (Packet, Body) {
        let d = &mut self.dice;
        // Half of the packets answer, or repeat, what was sent.
        if !self.sent.is_empty() && d.one_in(2) {
            let (way, p) = self.sent[d.roll(self.sent.len())];
            let is_node = |end: SocketAddr| NODE.contains(&end.ip().to_string().as_str());
            let (src, dst, hook) = if d.one_in(4) {
                let own = p.hook == Hook::FromUplink && is_node(p.src);
                (p.src, p.dst, if own { Hook::ToPod(true) } else { p.hook })
            } else {
                // The answer appears where its sender is: at a pod, in the stack, at the uplink.
                let hook = match (p.hook, way) {
                    (Hook::ToPod(_), _) | (_, Way::Pod) => Hook::FromPod,
                    // The node's own address never comes from outside.
                    _ if is_node(p.dst) => Hook::ToPod(true),
                    (_, Way::Route) => Hook::FromUplink,
                    (_, Way::Stack) => Hook::ToPod(!d.one_in(4)),
                };
                (p.dst, p.src, hook)
            };
            let flags = d.pick(&[SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST]);
            let packet = Packet {
                hook,
                protocol: p.protocol,
                src,
                dst,
                flags,
            };
            return (packet, body(&packet));
        }
        let i = d.roll(2);
        let hook = d.pick(&[
            Hook::FromPod,
            Hook::FromPod,
            Hook::FromPod,
            Hook::FromUplink,
            Hook::ToPod(true),
            Hook::ToPod(false),
        ]);
        let src = match hook {
            Hook::FromPod => d.pick(&[A, A, A, B, B, ELSEWHERE, REMOTE]),
            Hook::FromUplink => d.pick(&[REMOTE, OUTSIDE, REMOTE, OUTSIDE, A]),
            Hook::ToPod(_) => d.pick(&[NODE, OUTSIDE, REMOTE, B]),
        };
        let dst = match hook {
            Hook::FromPod => d.pick(&[
                VIP, VIP, VIP, A, B, ELSEWHERE, REMOTE, OUTSIDE, NODE, NOBODY,
            ]),
            Hook::FromUplink => d.pick(&[A, B, NODE, REMOTE]),
            Hook::ToPod(_) => d.pick(&[A, B, ELSEWHERE]),
        };
        let packet = Packet {
            hook,
            protocol: d.pick(&[TCP, UDP]),
            src: SocketAddr::new(address(src[i]), d.pick(&CLIENT_PORTS)),
            dst: SocketAddr::new(address(dst[i]), d.pick(&PORTS)),
            flags: d.pick(&[SYN, SYN, SYN, ACK, RST]),
        };
        // ICMP echo, other messages and errors: without the oracle.
        let body = match d.roll(12) {
            0 => echo(d.one_in(3), d.pick(&CLIENT_PORTS)),
            1 => self.some_error(i),
            _ => body(&packet),
        };
        (packet, body)
    }

    /// An error about something that was sent.
    fn some_error(&mut self, i: usize) -> Body {
        let d = &mut self.dice;
        let family = |p: &Packet| p.src.is_ipv6() == (i == 1);
        let candidates: Vec<Packet> = self.sent.iter().map(|s| s.1).filter(family).collect();
        let data = match candidates.len() {
            0 => Vec::new(),
            n => {
                let p = candidates[d.roll(n)];
                Frame::between(p.src.ip(), p.dst.ip(), body(&p)).packet()
            }
        };
        Body::Icmp {
            kind: d.pick(&[[3, 11, 12], [1, 2, 3]][i]),
            code: d.roll(2) as u8,
            word: 1400,
            data,
        }
    }

    fn packet(&mut self, programs: &mut Programs) -> Result<()> {
        let (mut packet, payload) = self.some_packet();
        let mut frame = Frame::between(packet.src.ip(), packet.dst.ip(), payload);
        if let Body::Icmp { data, .. } = &frame.body
            && !data.is_empty()
            && !self.dice.one_in(4)
        {
            // To the sender of what is quoted, from its receiver.
            let (src, dst) = quoted_ends(data);
            frame.src = dst;
            frame.dst = src;
        }
        frame.ttl = if self.dice.one_in(20) { 1 } else { 64 };
        // Every so often a broken one, between ports that no connection of the oracle has.
        let least = if frame.src.is_ipv4() { 34 } else { 54 };
        let broken = self.dice.one_in(15);
        if broken {
            (packet.src, packet.dst) = (
                SocketAddr::new(frame.src, LOST),
                SocketAddr::new(frame.dst, LOST),
            );
            if matches!(frame.body, Body::Tcp { .. } | Body::Udp { .. }) {
                frame.body = body(&packet);
            }
        }
        let mut bytes = frame.bytes();
        if broken {
            if self.dice.one_in(2) {
                bytes.truncate(least + self.dice.roll(bytes.len() - least));
            } else {
                let at = 14 + self.dice.roll(bytes.len() - 14);
                bytes[at] ^= 1 << self.dice.roll(8);
            }
        }
        let known = matches!(frame.body, Body::Tcp { .. } | Body::Udp { .. });
        packet.src.set_ip(frame.src);
        packet.dst.set_ip(frame.dst);

        programs.events();
        let (program, at) = place(packet.hook);
        let Ok(ran) = programs.run(program, &bytes, at) else {
            // The kernel refuses some broken frames for a test run.
            ensure!(broken, "the kernel refused {frame:?}");
            return Ok(());
        };
        let event = programs.events().first().map(|e| e.reason);
        self.on_the_host(programs, &packet, &bytes, &ran, event)
            .with_context(|| format!("{packet:?} {frame:?} came out as {ran:?}"))?;
        // A broken or expiring frame, and ICMP, are beyond the oracle.
        if broken || !known {
            return Ok(());
        }
        self.by_the_oracle(&packet, &frame, &ran, event)
            .with_context(|| format!("{packet:?} {frame:?} came out as {ran:?}, event {event:?}"))
    }

    /// The same logic on the host, given the kernel's random choices.
    fn on_the_host(
        &mut self,
        programs: &mut Programs,
        p: &Packet,
        bytes: &[u8],
        ran: &Ran,
        event: Option<u32>,
    ) -> Result<()> {
        self.host.now = now();
        let mut m = Meta::default();
        m.reset();
        // A dry run finds the key; then the kernel's flow shows what chance decided there.
        let mut dry = self.host.clone();
        let _ = run_logic(p.hook, &mut HostFrame(bytes.to_vec()), &mut dry, &mut m);
        let key = m.key;
        let flows = programs.hash::<FlowKey, Flow>(name::FLOWS);
        let flow = flows.get(&key, 0).ok();
        // What was dropped left no flow: then some choice has to come to the same.
        let service = self.host.services.get(&ServiceKey {
            vip: key.dst,
            port_be: key.dport_be,
            protocol: key.protocol as u8,
            scope: 0,
            _pad: 0,
        });
        let (id, count) = service.map_or((0, 0), |s| (s.id, s.count));
        let port = flow.map_or(0, |f| u16::from_be(f.to_sport_be).saturating_sub(NAT_MIN));
        let backend = |slot: u32| self.host.slots.get(&SlotKey { service: id, slot });
        let slots: Vec<u32> = (0..count)
            .filter(|slot| {
                flow.is_none_or(|f| f.backend == 0 || backend(*slot) == Some(&f.backend))
            })
            .collect();
        let choices: Vec<Vec<u32>> = if slots.is_empty() {
            vec![vec![u32::from(port)]]
        } else {
            slots.iter().map(|s| vec![*s, u32::from(port)]).collect()
        };
        let before = self.host.clone();
        let mut said = Vec::new();
        for random in choices {
            let mut host = before.clone();
            host.random = random;
            let mut frame = HostFrame(bytes.to_vec());
            m = Meta::default();
            m.reset();
            let action = run_logic(p.hook, &mut frame, &mut host, &mut m);
            host.random.clear();
            let (code, reason) = match action {
                Action::Stack => (OK, None),
                Action::Pod(_) | Action::Route => (REDIRECT, None),
                Action::Answer(_, reason) => (REDIRECT, Some(reason as u32)),
                Action::Drop(reason) => (SHOT, Some(reason as u32)),
            };
            said.push(action);
            if (ran.code, event) == (code, reason) {
                self.host = host;
                return self.same_frame(action, ran, &frame.0);
            }
        }
        bail!(
            "the host says {said:?}, the kernel {}, {event:?}; {m:?}",
            ran.code
        )
    }

    fn same_frame(&mut self, action: Action, ran: &Ran, host: &[u8]) -> Result<()> {
        if ran.code != SHOT {
            ensure!(ran.frame == host, "the host makes {host:?}");
        }
        self.outcomes[match action {
            Action::Stack => 0,
            Action::Pod(_) => 1,
            Action::Route => 2,
            Action::Answer(..) => 3,
            Action::Drop(Reason::Malformed) => 5,
            Action::Drop(_) => 4,
        }] += 1;
        Ok(())
    }

    fn by_the_oracle(
        &mut self,
        p: &Packet,
        frame: &Frame,
        ran: &Ran,
        event: Option<u32>,
    ) -> Result<()> {
        let seen = frames::read(&ran.frame);
        let visible = if event.is_none() {
            seen.as_ref().and_then(ends)
        } else {
            None
        };
        // Unseen choices: that of the flow, or any that comes to the same.
        let flow = self.host.flows.get(&flow_key(p.protocol, p.src, p.dst));
        let kept = flow.map(|f| {
            (
                SocketAddr::new(f.to_src.to_std(), u16::from_be(f.to_sport_be)),
                SocketAddr::new(f.to_dst.to_std(), u16::from_be(f.to_dport_be)),
            )
        });
        let mut choices = vec![visible.or(kept)];
        if choices[0].is_none() {
            let w = &self.world;
            let asked = |f: &&Frontend| f.address == p.dst && f.protocol == p.protocol;
            let places = w.frontends.iter().filter(asked).flat_map(|f| &f.backends);
            choices.extend(places.map(|b| Some((p.src, w.backends[*b].address))));
        }
        let goes = event.is_none_or(|e| e == Reason::TtlExceeded as u32);
        let before = self.oracle.connections.clone();
        let mut expect = None;
        for choice in choices {
            self.oracle.connections.clone_from(&before);
            let said = self.oracle.step(&self.world, p, choice);
            expect = Some(said);
            match said {
                Expect::Drop(r) | Expect::Answer(r) if Some(r as u32) == event => break,
                Expect::Out(..) if choice.is_some() && goes => break,
                _ => {}
            }
        }
        let expect = expect.context("at least one choice")?;
        let last_hop = frame.ttl == 1;
        match expect {
            Expect::Drop(reason) => {
                ensure!(
                    ran.code == SHOT && event == Some(reason as u32),
                    "expected {expect:?}"
                );
            }
            Expect::Answer(reason) => {
                ensure!(
                    ran.code == REDIRECT && event == Some(reason as u32),
                    "expected {expect:?}"
                );
                let seen = seen.context("a sound answer")?;
                ensure!((seen.src, seen.dst) == (frame.dst, frame.src), "{seen:?}");
            }
            Expect::Out(way, ..) if last_hop && way != Way::Stack => {
                ensure!(
                    event == Some(Reason::TtlExceeded as u32),
                    "expected the last hop"
                );
            }
            Expect::Out(way, src, dst) => {
                let code = if way == Way::Stack { OK } else { REDIRECT };
                ensure!(ran.code == code && event.is_none(), "expected {expect:?}");
                let seen = seen.context("a sound frame")?;
                ensure!(
                    visible == Some((src, dst)),
                    "expected {expect:?}, seen {seen:?}"
                );
                let hop = u8::from(way != Way::Stack);
                ensure!(seen.ttl == frame.ttl - hop, "{seen:?}");
                let macs = match way {
                    Way::Pod => super::lab::macs(&dst.ip().to_string()),
                    _ => frame.macs,
                };
                ensure!(seen.macs == macs, "{seen:?}");
                let out = Packet { src, dst, ..*p };
                self.sent.push((way, out));
                if self.sent.len() > 60 {
                    self.sent.remove(0);
                }
            }
        }
        Ok(())
    }

    fn same_flows(&mut self, programs: &mut Programs) -> Result<()> {
        let timeless = |f: &Flow| Flow { last_seen: 0, ..*f };
        let kernel = programs.flows();
        for (key, flow) in &kernel {
            let host = self.host.flows.get(key);
            ensure!(
                host.map(timeless) == Some(timeless(flow)),
                "flow {key:?}: kernel {flow:?}, host {host:?}"
            );
        }
        if kernel.len() != self.host.flows.len() {
            bail!(
                "{} flows in the kernel, {} on the host",
                kernel.len(),
                self.host.flows.len()
            );
        }
        Ok(())
    }
}

fn address_of(of: [&str; 2], i: usize) -> IpAddr {
    address(of[i])
}

/// An address that no other backend has: the oracle tells them apart by it.
fn some_backend(d: &mut Dice, others: &[Endpoint], family: usize) -> SocketAddr {
    loop {
        let place = d.pick(&[A, A, B, B, ELSEWHERE, REMOTE, NODE, OUTSIDE, NOBODY]);
        let address = SocketAddr::new(address(place[family]), d.pick(&[8080, 8081]));
        if others.iter().all(|b| b.address != address) {
            return address;
        }
    }
}

fn body(p: &Packet) -> Body {
    if p.protocol == TCP {
        tcp(p.src.port(), p.dst.port(), p.flags)
    } else {
        udp(p.src.port(), p.dst.port())
    }
}

fn quoted_ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    if packet[0] >> 4 == 4 {
        let a: [u8; 4] = packet[12..16].try_into().expect("4 bytes");
        let b: [u8; 4] = packet[16..20].try_into().expect("4 bytes");
        (a.into(), b.into())
    } else {
        let a: [u8; 16] = packet[8..24].try_into().expect("16 bytes");
        let b: [u8; 16] = packet[24..40].try_into().expect("16 bytes");
        (a.into(), b.into())
    }
}

fn ends(f: &Frame) -> Option<(SocketAddr, SocketAddr)> {
    match f.body {
        Body::Tcp { sport, dport, .. } | Body::Udp { sport, dport, .. } => {
            Some((SocketAddr::new(f.src, sport), SocketAddr::new(f.dst, dport)))
        }
        _ => None,
    }
}

fn flow_key(protocol: u8, src: SocketAddr, dst: SocketAddr) -> FlowKey {
    FlowKey {
        src: src.ip().into(),
        dst: dst.ip().into(),
        sport_be: src.port().to_be(),
        dport_be: dst.port().to_be(),
        protocol: protocol.into(),
    }
}

fn place(hook: Hook) -> (&'static str, At) {
    let (name, ingress_ifindex) = match hook {
        Hook::FromPod => (name::FROM_POD, 1),
        Hook::FromUplink => (name::FROM_UPLINK, 1),
        Hook::ToPod(true) => (name::TO_POD, 0),
        Hook::ToPod(false) => (name::TO_POD, 5),
    };
    let at = At {
        ifindex: HERE,
        ingress_ifindex,
    };
    (name, at)
}

fn run_logic(hook: Hook, p: &mut HostFrame, t: &mut HostTables, m: &mut Meta) -> Action {
    match hook {
        Hook::FromPod => logic::from_pod(p, t, m, HERE),
        Hook::FromUplink => logic::from_uplink(p, t, m),
        Hook::ToPod(node) => logic::to_pod(p, t, m, HERE, node),
    }
}

/// The kernel's clock in ticks.
fn now() -> u32 {
    // SAFETY: plain data, written by the call.
    let mut t: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut t) };
    ((t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64) >> TICK_SHIFT) as u32
}
