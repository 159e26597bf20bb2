//! The kernel programs: parse → logic → act. Everything they decide is in `rhumb_common::logic`.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::bindings::TC_ACT_OK;
use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};

#[classifier]
pub fn from_pod(_ctx: TcContext) -> i32 {
    TC_ACT_OK as i32
}

#[classifier]
pub fn to_pod(_ctx: TcContext) -> i32 {
    TC_ACT_OK as i32
}

#[classifier]
pub fn from_uplink(_ctx: TcContext) -> i32 {
    TC_ACT_OK as i32
}

macro_rules! sock_addr {
    ($($hook:ident)*) => { $(
        #[cgroup_sock_addr($hook)]
        pub fn $hook(_ctx: SockAddrContext) -> i32 {
            1
        }
    )* };
}
sock_addr!(connect4 connect6 sendmsg4 sendmsg6 recvmsg4 recvmsg6 getpeername4 getpeername6);

/// The kernel gives helpers that we need to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
