//! From single checks to a verdict: quick where a failure is beyond doubt, patient where it is not.

use std::time::Duration;

use super::Check;

/// What one check said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Healthy,
    /// Nobody listens, or the connection was cut.
    Refused,
    /// No answer within the deadline.
    Silent,
    /// An answer, and it says no; or one without a certificate of the cluster's CA.
    NotReady,
    /// As `Silent`, but this process itself was stopped or starved meanwhile: on such a machine everybody is late.
    Late,
}

/// How often to check, how long to wait, and how many checks in a row decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub pause: Duration,
    pub deadline: Duration,
    /// The deadline when the verdict is out: nothing hangs on the next answer, and each handshake that is given up and
    /// begun again takes the server's time from those that would succeed.
    pub patience: Duration,
    refused: u32,
    silent: u32,
    late: u32,
    not_ready: u32,
    rise: u32,
}

impl Rules {
    /// After so many silent checks in a row the verdict is out, whoever was late.
    pub fn decided(&self) -> u32 {
        self.silent.max(self.late)
    }

    pub fn of(check: Check) -> Self {
        match check {
            // A proxy answers by itself within a millisecond. That it has no server is believed after
            // half a second, so that two load balancers notice the same thing before one reacts to it.
            Check::Proxy => Self {
                pause: Duration::from_millis(50),
                deadline: Duration::from_millis(240),
                patience: Duration::from_millis(240),
                refused: 2,
                silent: 1,
                late: 6,
                not_ready: 10,
                rise: 40,
            },
            // An API server under load is late, not dead; /readyz costs it a look at etcd.
            Check::ApiServer => Self {
                pause: Duration::from_millis(200),
                deadline: Duration::from_secs(2),
                patience: Duration::from_secs(20),
                refused: 2,
                silent: 2,
                late: 4,
                not_ready: 5,
                rise: 10,
            },
        }
    }
}

/// The verdict, and how far the checks are on the way to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    rules: Rules,
    pub healthy: bool,
    /// 0 to 1: at 1 the verdict changes.
    doubt: f64,
    /// It has not failed yet, so it has nothing to prove: the first control plane's init waits for the VIP.
    fresh: bool,
}

impl Health {
    /// `before` is the verdict that was reached earlier, if one was.
    pub fn new(rules: Rules, before: Option<bool>) -> Self {
        Self { rules, healthy: before.unwrap_or(false), doubt: 0.0, fresh: before.is_none() }
    }

    /// Takes in one check; whether the verdict changed.
    pub fn see(&mut self, outcome: Outcome) -> bool {
        let rules = &self.rules;
        let needed = match outcome {
            Outcome::Healthy if self.fresh => 1,
            Outcome::Healthy => rules.rise,
            Outcome::Refused => rules.refused,
            Outcome::Silent => rules.silent,
            Outcome::Late => rules.late,
            Outcome::NotReady => rules.not_ready,
        };
        if (outcome == Outcome::Healthy) == self.healthy {
            self.doubt = 0.0;
            return false;
        }
        self.doubt += 1.0 / f64::from(needed);
        // Ten tenths may be a hair less than one.
        if self.doubt < 0.999 {
            return false;
        }
        self.healthy = !self.healthy;
        self.fresh = false;
        self.doubt = 0.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many equal checks the verdict changes.
    fn changes_after(check: Check, healthy: bool, outcome: Outcome) -> Option<usize> {
        let mut health = Health::new(Rules::of(check), Some(healthy));
        (1..=100).find(|_| health.see(outcome))
    }

    #[test]
    fn the_surer_the_failure_the_sooner_it_counts() {
        for (check, counts) in [(Check::Proxy, [1, 2, 6, 10]), (Check::ApiServer, [2, 2, 4, 5])] {
            let outcomes = [Outcome::Silent, Outcome::Refused, Outcome::Late, Outcome::NotReady];
            assert_eq!(outcomes.map(|o| changes_after(check, true, o)), counts.map(Some), "{check:?}");
        }
    }

    #[test]
    fn one_good_check_between_begins_the_count_anew() {
        let mut health = Health::new(Rules::of(Check::Proxy), Some(true));
        for _ in 0..20 {
            assert!(!health.see(Outcome::Refused));
            assert!(!health.see(Outcome::Healthy));
        }
    }

    #[test]
    fn different_failures_add_up() {
        let mut health = Health::new(Rules::of(Check::ApiServer), Some(true));
        assert!(!health.see(Outcome::Silent));
        assert!(health.see(Outcome::Refused));
    }

    #[test]
    fn who_has_never_failed_has_nothing_to_prove() {
        let mut health = Health::new(Rules::of(Check::Proxy), None);
        assert!(!health.healthy && !health.see(Outcome::Refused));
        assert!(health.see(Outcome::Healthy) && health.healthy);
        assert!((1..=2).any(|_| health.see(Outcome::Refused)));
        assert!(!health.see(Outcome::Healthy));
    }

    #[test]
    fn who_comes_back_proves_itself() {
        assert_eq!(changes_after(Check::Proxy, false, Outcome::Healthy), Some(40));
        assert_eq!(changes_after(Check::ApiServer, false, Outcome::Healthy), Some(10));
    }
}
