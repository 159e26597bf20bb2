//! Ring 1: the kernel programs themselves. Needs root.
//!
//! * [`ring1::verifier`]: every program loads, within a budget of instructions and stack.
//! * [`ring1::table`]: test runs with exact bytes for each cell of "hook × path".
//! * [`ring1::sockets`], [`ring1::cgroup`], [`ring1::policy`]: real sockets over veth.
//! * [`ring1::compare`]: random packets through the kernel, the same logic on the host, and a
//!   naive oracle.

mod ring1 {
    mod cgroup;
    mod compare;
    mod lab;
    mod oracle;
    mod policy;
    mod sockets;
    mod table;
    mod verifier;
    pub mod wire;
}
