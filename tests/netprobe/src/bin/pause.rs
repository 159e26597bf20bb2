//! The first process of a pod's sandbox: it holds the pod's namespaces, and as process 1 of a
//! shared pid namespace it reaps what nobody else waits for.

use std::mem::MaybeUninit;

fn main() {
    // SAFETY: plain system calls on a signal set that sigemptyset initialises first.
    let signals = unsafe {
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(signals.as_mut_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD] {
            libc::sigaddset(signals.as_mut_ptr(), signal);
        }
        let signals = signals.assume_init();
        // Blocked signals wait for sigwait; as process 1 they would be lost otherwise.
        libc::sigprocmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        signals
    };
    loop {
        let mut signal = 0;
        // SAFETY: both pointers are valid for the call.
        if unsafe { libc::sigwait(&signals, &mut signal) } != 0 {
            continue;
        }
        if signal != libc::SIGCHLD {
            return;
        }
        // SAFETY: waitpid may be called with a null status.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
}
