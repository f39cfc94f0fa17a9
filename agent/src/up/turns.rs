//! The order in which emulated machines are powered on where the host has fewer processors than they have.
//!
//! All at once they take each other's processors for longer than kubeadm, etcd and the components' leases wait. So
//! each begins when those before it have come to rest: what others need first, then one control plane after the other,
//! then one worker after the other.

use std::collections::VecDeque;
use std::time::Duration;

use super::plan::Machine;
use crate::role::types::RoleName;

/// A join ends before what it started has come to rest, and the next would begin on top of that.
const SETTLING: Duration = Duration::from_secs(300);
/// Machines that come later may be what those before them wait for.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What is known of a machine that was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// A new disk.
    New,
    /// It is off, and was on.
    WasOn,
    IsOn,
}

/// Machines in groups: each group at the same moment.
pub fn order(machines: &[Machine], past: impl Fn(&Machine) -> Past) -> Vec<Vec<&Machine>> {
    let with = |role: RoleName| machines.iter().filter(move |m| m.role == role);
    let mut groups: Vec<Vec<&Machine>> = Vec::new();
    // Members of an external etcd wait for each other, and load balancers for nobody.
    groups.push(with(RoleName::Etcd).chain(with(RoleName::LoadBalancer)).collect());
    let mut control_planes: Vec<&Machine> = with(RoleName::ControlPlane).collect();
    // Stable: else in the order of the cluster file.
    control_planes.sort_by_key(|m| !m.first);
    let (mut old, new): (Vec<_>, Vec<_>) = control_planes.into_iter().partition(|m| past(m) != Past::New);
    old.sort_by_key(|m| past(m) != Past::IsOn);
    // Etcd answers nobody before most of its members are there.
    let rest = old.split_off((old.len() / 2 + 1).min(old.len()));
    groups.push(old);
    groups.extend(rest.into_iter().chain(new).chain(with(RoleName::Worker)).map(|machine| vec![machine]));
    groups.retain(|group| !group.is_empty());
    groups
}

/// How the machines fare that come before a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Working,
    /// Ready, but not all that runs on them is.
    Settling,
    Settled,
}

/// A group whose machines are powered on later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// All machines of the groups before it.
    pub after: Vec<String>,
    pub names: Vec<String>,
}

/// Why a turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    Rested,
    /// Not at rest, but long enough Ready.
    Settling,
    /// The others did not get Ready for a long time; perhaps they wait for this one.
    Patience,
}

/// The groups that are still off, and since when the next one waits.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: VecDeque<Turn>,
    since: Duration,
    ready_since: Option<Duration>,
}

impl Turns {
    /// `is_off` says which machines are to be powered on; the first group's, at once, are not among the turns.
    pub fn new(groups: &[Vec<&Machine>], is_off: impl Fn(&Machine) -> bool) -> Self {
        let names = |group: &[&Machine]| group.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
        let turn = |(n, group): (usize, &Vec<&Machine>)| Turn {
            after: groups[..n].iter().flat_map(|group| names(group)).collect(),
            names: group.iter().filter(|m| is_off(m)).map(|m| m.name.clone()).collect(),
        };
        let turns = groups.iter().enumerate().skip(1).map(turn);
        Self { waiting: turns.filter(|turn| !turn.names.is_empty()).collect(), ..Self::default() }
    }

    /// How many groups are powered on later.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn next(&self) -> Option<&Turn> {
        self.waiting.front()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().flat_map(|turn| turn.names.iter().map(String::as_str))
    }

    /// Whether it is the next group's turn, `now` being the time since the wait began.
    pub fn due(&mut self, now: Duration, rest: Rest) -> Option<Because> {
        if rest == Rest::Working {
            self.ready_since = None;
            return (now.saturating_sub(self.since) >= PATIENCE).then_some(Because::Patience);
        }
        let ready_since = *self.ready_since.get_or_insert(now);
        match rest {
            Rest::Settled => Some(Because::Rested),
            _ => (now.saturating_sub(ready_since) >= SETTLING).then_some(Because::Settling),
        }
    }

    /// The next group has power.
    pub fn taken(&mut self, now: Duration) {
        self.waiting.pop_front();
        (self.since, self.ready_since) = (now, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::plan::tests::machine;
    use RoleName::{ControlPlane, Etcd, LoadBalancer, Worker};

    fn names(groups: &[Vec<&Machine>]) -> Vec<String> {
        groups
            .iter()
            .map(|group| group.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn topology() -> Vec<Machine> {
        let roles = [
            ("w1", Worker),
            ("cp1", ControlPlane),
            ("cp2", ControlPlane),
            ("ha1", LoadBalancer),
            ("cp3", ControlPlane),
            ("e1", Etcd),
            ("w2", Worker),
        ];
        let mut machines: Vec<Machine> =
            roles.into_iter().enumerate().map(|(n, (name, role))| machine(n, name, role)).collect();
        machines.iter_mut().for_each(|m| m.first = m.name == "cp2");
        machines
    }

    #[test]
    fn new_machines_come_after_what_they_need() {
        let machines = topology();
        let groups = order(&machines, |_| Past::New);
        assert_eq!(names(&groups), ["e1 ha1", "cp2", "cp1", "cp3", "w1", "w2"]);
        let one = [machine(0, "cp1", ControlPlane)];
        assert_eq!(names(&order(&one, |_| Past::New)), ["cp1"]);
    }

    #[test]
    fn most_members_of_an_etcd_that_was_there_come_together() {
        let machines = topology();
        assert_eq!(
            names(&order(&machines, |_| Past::WasOn)),
            ["e1 ha1", "cp2 cp1", "cp3", "w1", "w2"],
            "a power cut of all"
        );
        let lone = |m: &Machine| if m.name == "cp3" { Past::IsOn } else { Past::WasOn };
        assert_eq!(
            names(&order(&machines, lone)),
            ["e1 ha1", "cp3 cp2", "cp1", "w1", "w2"],
            "one that is on and waits for another"
        );
        let begun = |m: &Machine| if m.name == "cp2" { Past::IsOn } else { Past::New };
        assert_eq!(
            names(&order(&machines, begun)),
            ["e1 ha1", "cp2", "cp1", "cp3", "w1", "w2"],
            "an `up` that was interrupted"
        );
    }

    #[test]
    fn a_turn_has_only_what_is_off_and_waits_for_all_before_it() {
        let machines = topology();
        let groups = order(&machines, |_| Past::New);
        let mut turns = Turns::new(&groups, |m| m.name != "cp1");
        assert_eq!(turns.names().collect::<Vec<_>>(), ["cp2", "cp3", "w1", "w2"]);
        turns.taken(Duration::ZERO);
        assert_eq!(
            turns.next(),
            Some(&Turn {
                after: ["e1", "ha1", "cp2", "cp1"].map(str::to_owned).to_vec(),
                names: vec!["cp3".into()]
            })
        );
        assert!(Turns::new(&groups[..1], |_| true).next().is_none(), "the first group waits for nobody");
    }

    #[test]
    fn a_turn_comes_at_rest_and_at_last_without_it() {
        let machines = topology();
        let at = Duration::from_secs;
        let mut turns = Turns::new(&order(&machines, |_| Past::New), |_| true);
        assert_eq!(turns.due(at(10), Rest::Working), None);
        assert_eq!(turns.due(at(20), Rest::Settling), None);
        assert_eq!(turns.due(at(30), Rest::Settled), Some(Because::Rested));
        turns.taken(at(30));
        assert_eq!(turns.due(at(40), Rest::Settling), None);
        assert_eq!(turns.due(at(339), Rest::Settling), None);
        assert_eq!(turns.due(at(340), Rest::Settling), Some(Because::Settling));
        assert_eq!(turns.due(at(350), Rest::Working), None, "it was Ready, and is no more");
        assert_eq!(turns.due(at(360), Rest::Settling), None, "counted anew");
        assert_eq!(turns.due(at(1829), Rest::Working), None);
        assert_eq!(turns.due(at(1830), Rest::Working), Some(Because::Patience));
    }
}
