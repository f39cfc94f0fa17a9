//! Machines that come in turn, while the others are waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use super::UpError;
use super::screen::Screen;
use super::turns::{Because, Rest, Turn, Turns};
use super::wait::Watched;

pub type TakeTurn<'a> = dyn Fn(&Turn) -> Result<Option<Vec<Watched>>, UpError> + 'a;

/// The machines that are powered on later, and how.
pub struct Queue<'a> {
    pub turns: Turns,
    /// The machines of a turn, with power; `None` where it must be tried again.
    pub power_on: &'a TakeTurn<'a>,
}

impl Queue<'_> {
    /// Powers on the next group if its turn has come.
    pub fn go_on(
        &mut self,
        watched: &mut [Watched],
        unsettled: Option<&BTreeSet<String>>,
        now: Duration,
        screen: &mut Screen,
    ) -> Result<(), UpError> {
        let Some(turn) = self.turns.next() else { return Ok(()) };
        let before: Vec<&Watched> =
            watched.iter().filter(|node| turn.after.contains(&node.machine.name)).collect();
        let turn = turn.clone();
        let Some(because) = self.turns.due(now, rest(&before, unsettled)) else { return Ok(()) };
        let Some(on) = (self.power_on)(&turn)? else { return Ok(()) };
        self.turns.taken(now);
        let why = match because {
            Because::Rested => "what came before is at rest",
            Because::Settling => "what came before is Ready, and not at rest for too long",
            Because::Patience => "what came before is not Ready for too long, and may wait for it",
        };
        screen.say(&format!("[{:6.1} s] powered on: {} ({why})", now.as_secs_f64(), turn.names.join(", ")));
        for node in on {
            if let Some(waiting) = watched.iter_mut().find(|w| w.machine.name == node.machine.name) {
                *waiting = node;
            }
        }
        Ok(())
    }
}

/// How those fare that come before a turn. Before the API has told of the pods, nobody is at rest who has any.
fn rest(before: &[&Watched], unsettled: Option<&BTreeSet<String>>) -> Rest {
    if !before.iter().all(|node| node.is_ready()) {
        return Rest::Working;
    }
    let settled = before
        .iter()
        .filter(|node| node.machine.is_kubernetes_node())
        .all(|node| unsettled.is_some_and(|nodes| !nodes.contains(&node.machine.name)));
    if settled { Rest::Settled } else { Rest::Settling }
}

#[cfg(test)]
pub mod tests {
    use std::cell::Cell;
    use std::path::PathBuf;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;
    use crate::dns::Dns;
    use crate::role::types::RoleName;
    use crate::status::Status;
    use crate::up::api::ApiNode;
    use crate::up::driver::Driver;
    use crate::up::interrupt::Interrupts;
    use crate::up::outcome::Verdict;
    use crate::up::plan::Machine;
    use crate::up::plan::tests::machine;
    use crate::up::state::Place;
    use crate::up::turns;
    use crate::up::wait::{Answer, Told, follow};

    /// Machines that run and say nothing but what the test writes to their consoles.
    pub struct Silent;

    impl Driver for Silent {
        fn check(&self) -> Result<(), UpError> {
            Ok(())
        }
        fn describe(&self) -> String {
            String::new()
        }
        fn is_emulated(&self) -> bool {
            true
        }
        fn prepare(&self, _: &Machine) -> Result<(), UpError> {
            Ok(())
        }
        fn network_up(&self) -> Result<(), UpError> {
            Ok(())
        }
        fn plug_in(&self, _: &Machine) -> Result<(), UpError> {
            Ok(())
        }
        fn power_on(&self, _: &Machine) -> Result<(), UpError> {
            Ok(())
        }
        fn power_off(&self, _: &Machine) -> Result<(), UpError> {
            Ok(())
        }
        fn unplug(&self, _: &Machine) -> Result<(), UpError> {
            Ok(())
        }
        fn is_on(&self, _: &Machine) -> bool {
            true
        }
        fn status(&self, _: &Machine) -> Option<Status> {
            None
        }
        fn log(&self, _: &Machine) -> PathBuf {
            PathBuf::new()
        }
    }

    fn told(ready: &[&str], unsettled: &[&str]) -> Answer {
        let node = |name: &&str| ApiNode {
            name: (*name).to_owned(),
            roles: Vec::new(),
            ready: true,
            version: String::new(),
            internal_ip: String::new(),
            heartbeat: None,
        };
        Ok(Told {
            nodes: ready.iter().map(node).collect(),
            dns: Dns::Available,
            unsettled: unsettled.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    #[test]
    fn a_worker_gets_power_when_the_control_plane_is_at_rest_and_not_before() {
        let root = std::env::temp_dir().join(format!("kindling-turns-{}", std::process::id()));
        let place = Place::make(&root).expect("a state folder");
        let machines = [machine(0, "cp1", RoleName::ControlPlane), machine(1, "w1", RoleName::Worker)];
        let switch_on = |machine: &Machine, says: &str| {
            place.make_folder(&place.node(&machine.name)).expect("a folder");
            place.note_power_on(&machine.name).expect("a note");
            std::fs::write(place.console(&machine.name), says).expect("a console");
            Watched::new(&place, machine)
        };
        let groups = turns::order(&machines, |_| turns::Past::New);
        let turns = Turns::new(&groups, |_| true);
        let mut watched = vec![
            switch_on(&machines[0], "kindling[0/9] cp1: done (300.0 s)\n"),
            Watched::waiting(&place, &machines[1]),
        ];

        // When it was asked for, from the first look on: at first another process holds the lock.
        let begun = Instant::now();
        let asked = Cell::new(Vec::new());
        let power_on = |turn: &Turn| {
            assert_eq!(
                (turn.after.as_slice(), turn.names.as_slice()),
                (&["cp1".to_owned()][..], &["w1".to_owned()][..])
            );
            let mut times = asked.take();
            times.push(begun.elapsed());
            let is_first = times.len() == 1;
            asked.set(times);
            if is_first {
                return Ok(None);
            }
            Ok(Some(vec![switch_on(&machines[1], "kindling[0/7] w1: done (200.0 s)\n")]))
        };
        let (tell, answers) = channel();
        let api = std::thread::spawn(move || {
            tell.send(told(&["cp1"], &["cp1"])).expect("a listener");
            std::thread::sleep(Duration::from_secs(1));
            tell.send(told(&["cp1"], &[])).expect("a listener");
            std::thread::sleep(Duration::from_secs(1));
            tell.send(told(&["cp1", "w1"], &[])).expect("a listener");
        });
        let waited = follow(
            &mut watched,
            &Silent,
            &answers,
            &mut Queue { turns, power_on: &power_on },
            Duration::from_secs(60),
            &Interrupts::catch(),
            &mut Screen::silent(),
        )
        .expect("nothing fails");
        api.join().expect("an API");
        std::fs::remove_dir_all(&root).expect("remove");
        assert_eq!(waited.verdict, Verdict::Ready);
        let asked = asked.take();
        assert_eq!(asked.len(), 2, "once more after the lock was held: {asked:?}");
        assert!(asked[0] >= Duration::from_millis(900), "a pod of cp1 was not Ready before: {asked:?}");
    }
}
