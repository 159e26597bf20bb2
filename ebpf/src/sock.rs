//! The socket hooks.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval,
};
use rhumb_common::addr::Ip;
use rhumb_common::event::{Event, Reason, hook};
use rhumb_common::logic::{SockVerdict, sock_forward, sock_reverse, sock_scope};

use crate::report;
use crate::tables::Maps;

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;
const EAGAIN: i32 = 11;
const TCP: u32 = 6;
const UDP: u32 = 17;

/// The user's address in the context. Volatile words of four bytes: the kernel rewrites each
/// access, and knows no others for all fields.
struct Address {
    ctx: *mut bpf_sock_addr,
    v6: bool,
}

// SAFETY of the accesses: the pointer is the program's context, whose layout the kernel defines.
impl Address {
    #[inline(always)]
    fn ip(&self) -> Ip {
        let c = self.ctx;
        if !self.v6 {
            return Ip::from_v4_raw(unsafe { (&raw const (*c).user_ip4).read_volatile() });
        }
        let w = unsafe {
            let a = (&raw const (*c).user_ip6).cast::<u32>();
            [
                a.read_volatile(),
                a.add(1).read_volatile(),
                a.add(2).read_volatile(),
                a.add(3).read_volatile(),
            ]
        };
        Ip {
            hi: w[0] as u64 | (w[1] as u64) << 32,
            lo: w[2] as u64 | (w[3] as u64) << 32,
        }
    }

    #[inline(always)]
    fn port_be(&self) -> u16 {
        unsafe { (&raw const (*self.ctx).user_port).read_volatile() as u16 }
    }

    #[inline(always)]
    fn set(&self, ip: Ip, port_be: u16) {
        let c = self.ctx;
        unsafe {
            if self.v6 {
                let a = (&raw mut (*c).user_ip6).cast::<u32>();
                a.write_volatile(ip.hi as u32);
                a.add(1).write_volatile((ip.hi >> 32) as u32);
                a.add(2).write_volatile(ip.lo as u32);
                a.add(3).write_volatile((ip.lo >> 32) as u32);
            } else {
                (&raw mut (*c).user_ip4).write_volatile(ip.v4_raw());
            }
            (&raw mut (*c).user_port).write_volatile(port_be as u32);
        }
    }

    #[inline(always)]
    fn protocol(&self) -> u32 {
        unsafe { (&raw const (*self.ctx).protocol).read_volatile() }
    }

    /// The lower half of the cookie of the socket's network namespace.
    #[inline(always)]
    fn netns(&self) -> u32 {
        unsafe { bpf_get_netns_cookie(self.ctx.cast()) as u32 }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        unsafe { bpf_get_socket_cookie(self.ctx.cast()) }
    }
}

/// connect and sendmsg; `each`: every datagram names its destination.
#[inline(always)]
pub fn forward(ctx: *mut bpf_sock_addr, v6: bool, each: bool) -> i32 {
    let a = Address { ctx, v6 };
    let protocol = a.protocol();
    if protocol != TCP && protocol != UDP {
        return ALLOW;
    }
    let (ip, port_be) = (a.ip(), a.port_be());
    let Some(scope) = sock_scope(&Maps, &ip, || a.netns()) else {
        return ALLOW;
    };
    let protocol = protocol as u8;
    match sock_forward(&mut Maps, a.cookie(), ip, port_be, protocol, scope, each) {
        SockVerdict::Keep => {}
        SockVerdict::To(ip, port_be) => a.set(ip, port_be),
        SockVerdict::Refuse(reason) => {
            report::count(reason, 0);
            report::event(|| Event {
                time_ns: unsafe { bpf_ktime_get_ns() },
                dst: ip,
                dport_be: port_be,
                protocol,
                hook: hook::SOCKET,
                reason: reason as u32,
                ..Event::default()
            });
            let errno = match reason {
                Reason::NoBackend | Reason::NoServicePort => ECONNREFUSED,
                _ => EAGAIN,
            };
            unsafe { bpf_set_retval(-errno) };
            return DENY;
        }
    }
    ALLOW
}

/// recvmsg and getpeername: the application sees the frontend that it asked for.
#[inline(always)]
pub fn reverse(ctx: *mut bpf_sock_addr, v6: bool) -> i32 {
    let a = Address { ctx, v6 };
    if let Some((ip, port_be)) = sock_reverse(&Maps, a.cookie(), a.ip(), a.port_be())
        && (v6 || ip.is_v4())
    {
        a.set(ip, port_be);
    }
    ALLOW
}
