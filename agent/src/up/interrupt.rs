//! Ctrl-C while `up` works: noted, so that it can say how to go on, instead of dying in the middle of a step.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static CAME: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: i32) {
    CAME.store(true, Ordering::Release);
}

/// SIGINT and SIGTERM are noted while this lives.
pub struct Interrupts {
    before: Vec<(Signal, SigAction)>,
}

impl Interrupts {
    pub fn catch() -> Self {
        CAME.store(false, Ordering::Release);
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        let catch = |signal| {
            // SAFETY: the handler does nothing but store to an atomic, which a signal handler may.
            unsafe { sigaction(signal, &action) }.ok().map(|before| (signal, before))
        };
        Self { before: [Signal::SIGINT, Signal::SIGTERM].into_iter().filter_map(catch).collect() }
    }

    pub fn came(&self) -> bool {
        CAME.load(Ordering::Acquire)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: puts back what was there before.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
}
