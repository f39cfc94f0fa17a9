//! All waiting goes through here: bounded, with jitter, and with a message about what is waited for.

use std::time::Duration;

use crate::error::StepError;
use crate::host::Host;

/// How long to wait, and how often to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    pub deadline: Duration,
    /// The first pause; each next one is half as long again, up to `longest`.
    pub first: Duration,
    pub longest: Duration,
}

impl Patience {
    pub fn seconds(deadline: u64) -> Self {
        Self {
            deadline: Duration::from_secs(deadline),
            first: Duration::from_millis(300),
            longest: Duration::from_secs(5),
        }
    }

    /// For all nodes of a cluster that wait for one server. Each looks twice a second, but the rarer the more they
    /// are, so that all together look some 200 times a second at most.
    pub fn shared(deadline: u64, nodes: usize) -> Self {
        let first = Duration::from_secs_f64((nodes as f64 / 200.0).max(0.5));
        Self { deadline: Duration::from_secs(deadline), first, longest: first * 3 }
    }
}

pub enum Attempt<T> {
    Ready(T),
    /// Not yet, and why.
    NotYet(String),
    /// As `NotYet`, but nobody was there whom the look could bother, so the pauses do not grow.
    Silent(String),
    /// Waiting cannot help.
    Never(StepError),
}

/// Looks until `attempt` is ready or the deadline has passed; then `late` turns the last reason into an error.
pub fn wait<T>(
    host: &dyn Host,
    patience: Patience,
    waiting: &mut dyn FnMut(&str),
    mut attempt: impl FnMut() -> Attempt<T>,
    late: impl FnOnce(String) -> StepError,
) -> Result<T, StepError> {
    let start = host.now();
    let mut pause = patience.first;
    let mut told = String::new();
    loop {
        let reason = match attempt() {
            Attempt::Ready(value) => return Ok(value),
            Attempt::Never(error) => return Err(error),
            Attempt::NotYet(reason) => reason,
            Attempt::Silent(reason) => {
                pause = patience.first;
                reason
            }
        };
        if host.now().saturating_sub(start) >= patience.deadline {
            return Err(late(format!("{reason} (waited {} s)", patience.deadline.as_secs())));
        }
        // A reason is told once, not at every look.
        if reason != told {
            waiting(&reason);
            told = reason;
        }
        // Half of the pause is random: machines that start together must not ask together.
        host.sleep(pause.mul_f64(0.5 + host.random()));
        pause = (pause * 3 / 2).min(patience.longest);
    }
}
