//! The kernel programs: parse → logic → act. Everything they decide is in `rhumb_common::logic`.
#![no_std]
#![no_main]

mod maps;
mod report;
mod skb;
mod sock;
mod stages;
mod tables;
mod tc;

use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};

use crate::skb::Skb;

#[classifier]
#[inline(always)]
pub fn from_pod(ctx: TcContext) -> i32 {
    tc::from_pod(Skb::new(ctx.skb.skb))
}

#[classifier]
#[inline(always)]
pub fn to_pod(ctx: TcContext) -> i32 {
    tc::to_pod(Skb::new(ctx.skb.skb))
}

#[classifier]
#[inline(always)]
pub fn from_uplink(ctx: TcContext) -> i32 {
    tc::from_uplink(Skb::new(ctx.skb.skb))
}

macro_rules! sock_addr {
    ($($hook:ident => $f:ident($($arg:expr),*);)*) => { $(
        #[cgroup_sock_addr($hook)]
        #[inline(always)]
        pub fn $hook(ctx: SockAddrContext) -> i32 {
            sock::$f(ctx.sock_addr, $($arg),*)
        }
    )* };
}
sock_addr! {
    connect4 => forward(false, false);
    connect6 => forward(true, false);
    sendmsg4 => forward(false, true);
    sendmsg6 => forward(true, true);
    recvmsg4 => reverse(false);
    recvmsg6 => reverse(true);
    getpeername4 => reverse(false);
    getpeername6 => reverse(true);
}

/// The kernel gives helpers that we need to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
