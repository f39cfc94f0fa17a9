//! Waits until every agent says done and the API shows every Kubernetes node Ready, or until waiting cannot
//! help any more. Machines that come in turn are powered on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::UpError;
use super::api::{self, ApiNode};
use super::driver::Driver;
use super::interrupt::Interrupts;
use super::outcome::Verdict;
use super::plan::Machine;
use super::queue::Queue;
use super::screen::Screen;
use super::state::{Place, PowerOn, wall_clock};
use super::watch::{Phase, Progress, Tail};
use crate::dns::Dns;
use crate::kube::{Kube, KubeError};
use crate::status::{ConsoleLine, State};

/// A failed agent is started again by its unit after 15 s; one that is silent for so long will not be.
const SILENCE: f64 = 90.0;
/// The same of an emulated machine that waits for a processor.
const EMULATED_SILENCE: f64 = 300.0;
const LOOK: Duration = Duration::from_millis(200);
/// Between two questions to the API. An emulated one has little to spare for them.
const ASK: Duration = Duration::from_secs(1);
const ASK_EMULATED: Duration = Duration::from_secs(5);

/// A node while it is watched.
pub struct Watched {
    pub machine: Machine,
    pub progress: Progress,
    pub api: Option<ApiNode>,
    /// Seconds from power-on to the first time the API showed it Ready.
    pub ready_after: Option<f64>,
    /// Its machine is not running any more.
    pub ended: bool,
    was_off: bool,
    on: PowerOn,
    tail: Tail,
    first_look: bool,
    next_check: Instant,
    /// Of the first answer that had this node: a later one is from a kubelet that lives.
    first_heartbeat: Option<i64>,
}

impl Watched {
    pub fn new(place: &Place, machine: &Machine) -> Self {
        let on = place.power_on(&machine.name).unwrap_or(PowerOn { at: 0.0, console: 0 });
        Self {
            machine: machine.clone(),
            progress: Progress::default(),
            api: None,
            ready_after: None,
            ended: false,
            was_off: false,
            tail: Tail::new(place.console(&machine.name), on.console),
            on,
            first_look: true,
            next_check: Instant::now() + Duration::from_secs(1),
            first_heartbeat: None,
        }
    }

    /// A machine whose turn comes later.
    pub fn waiting(place: &Place, machine: &Machine) -> Self {
        let progress = Progress {
            phase: Phase::Waiting,
            doing: "is powered on when those before it are at rest".into(),
            ..Progress::default()
        };
        Self { progress, ..Self::new(place, machine) }
    }

    pub fn since_power_on(&self) -> f64 {
        (wall_clock().as_secs_f64() - self.on.at).max(0.0)
    }

    fn look(&mut self, driver: &dyn Driver) {
        if self.progress.phase == Phase::Waiting {
            return;
        }
        let now = self.since_power_on();
        // What was there before anybody watched came at a time that nobody knows.
        let at = if self.first_look && now > 2.0 { None } else { Some(now) };
        self.first_look = false;
        for line in self.tail.lines() {
            if let Some(line) = ConsoleLine::parse(&line) {
                self.progress.hear(&line, at);
            }
        }
        if self.progress.phase == Phase::Failed && self.progress.last_heard.is_none() {
            self.progress.last_heard = Some(now);
        }
        // Reads the environment of every process of this host, so not at each look.
        if self.next_check <= Instant::now() {
            // A machine that is just starting becomes one program after the other, and may be missed by one look.
            let off = !driver.is_on(&self.machine);
            self.ended = off && self.was_off;
            self.was_off = off;
            self.next_check = Instant::now() + Duration::from_secs(3);
        }
    }

    fn take(&mut self, node: &ApiNode) {
        let fresh = match (node.heartbeat, self.first_heartbeat) {
            (Some(now), Some(first)) if now != first => true,
            // The API may still show what it knew before a power cut.
            (Some(now), _) => now as f64 >= self.on.at - 5.0,
            (None, _) => true,
        };
        self.first_heartbeat = self.first_heartbeat.or(node.heartbeat);
        let node = ApiNode { ready: node.ready && fresh, ..node.clone() };
        if node.ready && self.ready_after.is_none() {
            self.ready_after = Some(self.since_power_on());
        }
        self.api = Some(node);
    }

    pub fn is_ready(&self) -> bool {
        let in_api = !self.machine.is_kubernetes_node() || self.api.as_ref().is_some_and(|node| node.ready);
        self.progress.phase == Phase::Done && in_api
    }

    /// Waiting cannot help this node.
    fn is_lost(&self, driver: &dyn Driver) -> bool {
        if self.ended {
            return true;
        }
        if self.progress.phase != Phase::Failed {
            return false;
        }
        // The record on the disk says whether the agent tries again; it may be that of an earlier boot.
        let record = driver.status(&self.machine).filter(|s| s.started as f64 >= self.on.at - 1.0);
        let gives_up =
            record.is_some_and(|s| s.state == State::Failed && s.failure.is_some_and(|f| !f.retry));
        let silence = if driver.is_emulated() { EMULATED_SILENCE } else { SILENCE };
        gives_up || self.progress.last_heard.is_some_and(|heard| self.since_power_on() - heard > silence)
    }
}

/// What the API said.
pub struct Told {
    pub nodes: Vec<ApiNode>,
    pub dns: Dns,
    /// Nodes that have a pod which is not Ready; asked for only where machines come in turn.
    pub unsettled: BTreeSet<String>,
}

/// Or why it said nothing.
pub type Answer = Result<Told, String>;

pub struct Waited {
    pub verdict: Verdict,
    /// Why names are not resolved in the cluster, as far as that is known.
    pub dns_error: Option<String>,
    /// Why the API did not answer the last time it was asked.
    pub api_error: Option<String>,
}

pub fn wait(
    asker: Asker,
    watched: &mut [Watched],
    driver: &dyn Driver,
    queue: &mut Queue<'_>,
    timeout: Duration,
    interrupts: &Interrupts,
    screen: &mut Screen,
) -> Result<Waited, UpError> {
    // Asking may take as long as the request's deadline, and neither the lines nor the end wait for that.
    let (tell, answers) = channel::<Answer>();
    std::thread::spawn(move || asker.run(&tell));
    follow(watched, driver, &answers, queue, timeout, interrupts, screen)
}

/// Asks the API again and again.
pub struct Asker {
    kube: Kube,
    place: Place,
    machines: Vec<String>,
    in_turn: bool,
    pause: Duration,
}

impl Asker {
    /// `in_turn`: machines wait until those before them are at rest.
    pub fn new(kube: Kube, place: &Place, watched: &[Watched], driver: &dyn Driver, in_turn: bool) -> Self {
        Self {
            kube,
            place: place.clone(),
            machines: watched.iter().map(|node| node.machine.name.clone()).collect(),
            in_turn,
            pause: if driver.is_emulated() { ASK_EMULATED } else { ASK },
        }
    }

    /// Ends when nobody listens any more.
    fn run(&self, tell: &Sender<Answer>) {
        while tell.send(self.ask().map_err(|error| error.to_string())).is_ok() {
            std::thread::sleep(self.pause);
        }
    }

    fn ask(&self) -> Result<Told, KubeError> {
        // Read anew each time: machines that come in turn get their power meanwhile.
        let on = |name: &String| Some((name.clone(), self.place.power_on(name)?.at));
        let since: BTreeMap<String, f64> = self.machines.iter().filter_map(on).collect();
        let unsettled = if self.in_turn { api::unsettled(&self.kube)? } else { BTreeSet::new() };
        Ok(Told { nodes: api::nodes(&self.kube)?, dns: api::dns(&self.kube, &since)?, unsettled })
    }
}

pub fn follow(
    watched: &mut [Watched],
    driver: &dyn Driver,
    answers: &Receiver<Answer>,
    queue: &mut Queue<'_>,
    timeout: Duration,
    interrupts: &Interrupts,
    screen: &mut Screen,
) -> Result<Waited, UpError> {
    let begun = Instant::now();
    let deadline = begun + timeout;
    let mut api_error = None;
    let mut unsettled = None;
    // Nothing is up before the API says so.
    let mut dns_error = Some("the API did not say yet".to_owned());
    let mut said = String::new();
    loop {
        for node in watched.iter_mut() {
            node.look(driver);
        }
        for answer in answers.try_iter() {
            match answer {
                Ok(told) => {
                    api_error = None;
                    unsettled = Some(told.unsettled);
                    dns_error = match told.dns {
                        Dns::Available | Dns::Disabled => None,
                        Dns::Unavailable(why) => Some(why),
                    };
                    for node in watched.iter_mut().filter(|n| n.progress.phase != Phase::Waiting) {
                        if let Some(found) = told.nodes.iter().find(|n| n.name == node.machine.name) {
                            node.take(found);
                        }
                    }
                }
                Err(error) => {
                    api_error = Some(error);
                    unsettled = None;
                }
            }
        }
        queue.go_on(watched, unsettled.as_ref(), begun.elapsed(), screen)?;
        let nodes_are_ready = watched.iter().all(Watched::is_ready);
        if let Some(why) = dns_error.as_ref().filter(|why| nodes_are_ready && said != **why) {
            screen.say(&format!("every node is Ready; cluster DNS is not available yet: {why}"));
            said.clone_from(why);
        }
        screen.show(watched);
        let verdict = if nodes_are_ready && dns_error.is_none() {
            Some(Verdict::Ready)
        } else if interrupts.came() {
            Some(Verdict::Interrupted)
        } else if watched.iter().any(|node| node.is_lost(driver)) {
            Some(Verdict::Failed)
        } else if Instant::now() >= deadline {
            Some(Verdict::TimedOut)
        } else {
            None
        };
        if let Some(verdict) = verdict {
            screen.end();
            return Ok(Waited { verdict, dns_error, api_error });
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::queue::tests::Silent;
    use crate::up::turns::Turns;

    fn waited(said: &[Dns]) -> (Verdict, Option<String>) {
        let (tell, answers) = channel::<Answer>();
        for dns in said {
            tell.send(Ok(Told { nodes: Vec::new(), dns: dns.clone(), unsettled: BTreeSet::new() }))
                .expect("somebody listens");
        }
        let (interrupts, mut screen) = (Interrupts::catch(), Screen::silent());
        let timeout = Duration::from_millis(300);
        let mut nobody = Queue { turns: Turns::default(), power_on: &|_| Ok(None) };
        let waited = follow(&mut [], &Silent, &answers, &mut nobody, timeout, &interrupts, &mut screen)
            .expect("nothing fails");
        (waited.verdict, waited.dns_error)
    }

    #[test]
    fn a_cluster_is_up_when_its_names_are_resolved_and_not_before() {
        let looping = Dns::Unavailable("CrashLoopBackOff".into());
        assert_eq!(waited(&[]), (Verdict::TimedOut, Some("the API did not say yet".into())));
        assert_eq!(
            waited(std::slice::from_ref(&looping)),
            (Verdict::TimedOut, Some("CrashLoopBackOff".into()))
        );
        assert_eq!(waited(&[looping.clone(), Dns::Available]), (Verdict::Ready, None));
        assert_eq!(waited(&[Dns::Disabled]), (Verdict::Ready, None));
        assert_eq!(waited(&[Dns::Available, looping]).0, Verdict::TimedOut);
    }
}
