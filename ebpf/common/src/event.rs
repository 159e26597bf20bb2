//! Reasons of drops, and the event that tells of one.

use crate::addr::Ip;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why a packet was dropped or refused; index of COUNTERS.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name = $value,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Name in metrics, events and the CLI.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Not a drop: handed on by the programs.
    #[default]
    Forwarded = 0, "forwarded";
    Malformed = 1, "malformed";
    /// A pod sent from an address that is not its own.
    SpoofedSource = 2, "spoofed-source";
    PolicyIngress = 3, "policy-ingress";
    PolicyEgress = 4, "policy-egress";
    /// No policy known yet for the pod: closed except to its node.
    PolicyPending = 5, "policy-pending";
    /// A Service without endpoints: answered with RST or ICMP.
    NoBackend = 6, "no-backend";
    /// The destination is in this node's pod CIDR, but no pod has it: a pod's packet is answered
    /// with RST or ICMP.
    NoEndpoint = 7, "no-endpoint";
    NoRoute = 8, "no-route";
    TtlExceeded = 9, "ttl-exceeded";
    FlowTableFull = 10, "flow-table-full";
    NatPortsExhausted = 11, "nat-ports-exhausted";
    Fragment = 12, "fragment";
    UnsupportedProtocol = 13, "unsupported-protocol";
    /// From the uplink with a source that is one of our pods'.
    SpoofedLocalPod = 14, "spoofed-local-pod";
    /// A Service's slot or backend is missing, which a retry mends.
    ServiceRace = 15, "service-race";
    /// Larger than the path takes: answered with fragmentation-needed / packet-too-big.
    TooBig = 16, "too-big";
    /// A helper of the kernel failed.
    Internal = 17, "internal";
    /// A Service's address at a port that no Service has there: answered with RST or ICMP.
    NoServicePort = 18, "no-service-port";
}

/// Slots of COUNTERS, with room for further reasons under the same layout.
pub const COUNTER_SLOTS: u32 = 64;

/// One dropped or refused packet, as it stands in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `bpf_ktime_get_ns`.
    pub time_ns: u64,
    pub src: Ip,
    pub dst: Ip,
    pub sport_be: u16,
    pub dport_be: u16,
    pub protocol: u8,
    /// `hook`.
    pub hook: u8,
    pub _pad: u16,
    /// [`Reason`].
    pub reason: u32,
    /// Policy set that judged, or 0.
    pub set: u32,
    /// Rule that denied, or 0 for default deny.
    pub rule: u32,
    /// Identity of the other side.
    pub identity: u32,
    pub ifindex: u32,
    /// Packet length, bytes.
    pub len: u32,
}

pub mod hook {
    pub const FROM_POD: u8 = 1;
    pub const TO_POD: u8 = 2;
    pub const FROM_UPLINK: u8 = 3;
    pub const SOCKET: u8 = 4;
}

const _: () = assert!(size_of::<Event>() == 72);

#[cfg(feature = "aya")]
// SAFETY: repr(C), no implicit padding (asserted by the size above), every bit pattern valid.
unsafe impl aya::Pod for Event {}
