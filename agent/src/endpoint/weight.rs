//! The number that is added to keepalived's priority: a penalty where the check fails, a bonus where the
//! VIP is.
//!
//! The bonus is the larger the younger the mastership is. A machine that was paused (a live migration, a
//! starved hypervisor) wakes up as MASTER with the number of before; the one that took over meanwhile is
//! younger, has more, and keeps the VIP. So it moves once and never back, and an old MASTER that merely
//! sees a machine of higher priority come back keeps it, too. One that wakes up in the few milliseconds between the
//! other's claim and its bonus takes the VIP back, until it stands again: whoever makes that time longer makes this
//! likelier.

use std::time::Duration;

/// Taken off where the check fails. More than the largest bonus and the spread of the priorities, which
/// fall from 100 by one for each machine: a healthy machine always wins. Far from -254, which would mean
/// FAULT: when no API server answers anywhere, somebody must still hold the VIP, or the first control
/// plane could never init. So an unhealthy MASTER keeps its bonus among the unhealthy.
pub const PENALTY: i32 = 90;

/// Up to which age as MASTER, in seconds, which bonus is given. Each step is more than two machines'
/// priorities differ by.
const BONUS: [(f64, i32); 6] = [(1.5, 70), (5.0, 60), (15.0, 50), (60.0, 40), (300.0, 30), (1200.0, 20)];
const LEAST_BONUS: i32 = 10;

/// `master` is how long this machine has held the VIP, if it does.
pub fn weight(healthy: bool, master: Option<Duration>) -> i32 {
    let bonus = master.map_or(0, |age| {
        let age = age.as_secs_f64();
        BONUS.iter().find(|(until, _)| age < *until).map_or(LEAST_BONUS, |(_, bonus)| *bonus)
    });
    bonus - if healthy { 0 } else { PENALTY }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGES: [f64; 9] = [0.0, 1.0, 2.0, 10.0, 30.0, 100.0, 1000.0, 5000.0, 1e6];
    /// As many machines as may hold a VIP, and more than anybody has.
    const SPREAD: i32 = 9;

    fn master(healthy: bool, age: f64) -> i32 {
        weight(healthy, Some(Duration::from_secs_f64(age)))
    }

    #[test]
    fn a_healthy_machine_wins_over_any_that_is_not() {
        for age in AGES {
            assert!(weight(true, None) > master(false, age) + SPREAD, "{age}");
        }
    }

    #[test]
    fn the_vip_stays_where_it_is() {
        for healthy in [true, false] {
            for age in AGES {
                assert!(master(healthy, age) > weight(healthy, None) + SPREAD, "{healthy} {age}");
            }
        }
    }

    #[test]
    fn the_younger_master_wins_over_one_that_slept() {
        for pair in [(1.0, 2.0), (1.0, 5000.0), (10.0, 20.0), (200.0, 500.0), (900.0, 2000.0)] {
            assert!(master(true, pair.0) > master(true, pair.1) + SPREAD, "{pair:?}");
        }
    }

    #[test]
    fn the_priority_stays_within_what_vrrp_allows() {
        for age in AGES {
            assert!(100 + master(true, age) < 255);
            assert!(100 - SPREAD + weight(false, None) >= 1);
        }
    }
}
