//! A cluster whose machines were made: starts them, waits for them, cuts their power. Tests use it too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::driver::{self, Driver};
use super::interrupt::Interrupts;
use super::outcome::{NodeOutcome, Outcome};
use super::plan::{Machine, image_id};
use super::process::{self, Owner};
use super::queue::Queue;
use super::screen::Screen;
use super::state::{Place, State};
use super::turns::{self, Past, Turns};
use super::wait::{self, Asker, Watched};
use super::{UpError, UpOptions, api, tools};
use crate::kube::Kube;
use crate::role::types::Secret;
use crate::status::Status;

/// A machine's own records.
pub struct Recorded {
    pub name: String,
    pub role: String,
    /// Seconds since the epoch, the last time.
    pub powered_on: Option<f64>,
    pub console: PathBuf,
    /// Where its disk can be read from here.
    pub status: Option<Status>,
}

pub struct Running {
    place: Place,
    state: State,
    driver: Box<dyn Driver>,
}

impl Running {
    pub(super) fn new(place: Place, state: State, program: Option<PathBuf>) -> Result<Self, UpError> {
        let program = match program {
            Some(program) => program,
            None => std::env::current_exe()
                .map_err(|error| UpError::file("find", Path::new("this program"), &error))?,
        };
        let driver = driver::driver(&place, &state, program);
        Ok(Self { place, state, driver })
    }

    /// The cluster of a state folder that `up` made. `program`: as in [`super::UpOptions`].
    pub fn open(state: &Path, program: Option<PathBuf>) -> Result<Self, UpError> {
        let nothing = || {
            UpError::new(format!("nothing was started in {}", state.display()), "start it with `kindling up`")
        };
        let place = Place::open(state)?.ok_or_else(nothing)?;
        let state = place.read().ok_or_else(nothing)?;
        Self::new(place, state, program)
    }

    pub fn cluster(&self) -> &str {
        &self.state.plan.cluster
    }

    /// What the machines wrote, also when they are off.
    pub fn records(&self) -> Vec<Recorded> {
        let machines = self.state.plan.machines.iter();
        let record = |machine: &Machine| Recorded {
            name: machine.name.clone(),
            role: machine.role.to_string(),
            powered_on: self.place.power_on(&machine.name).map(|on| on.at),
            console: self.place.console(&machine.name),
            status: self.driver.status(machine),
        };
        machines.map(record).collect()
    }

    /// The names of all machines, in the order of the cluster file.
    pub fn names(&self) -> Vec<&str> {
        self.state.plan.machines.iter().map(|m| m.name.as_str()).collect()
    }

    pub fn console(&self, name: &str) -> PathBuf {
        self.place.console(name)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    pub fn is_on(&self, name: &str) -> Result<bool, UpError> {
        Ok(self.driver.is_on(self.state.plan.machine(name)?))
    }

    /// A power cut: everything in the machine ends at once, its disk stays.
    pub fn power_off(&self, name: &str) -> Result<(), UpError> {
        let machine = self.state.plan.machine(name)?;
        let _lock = self.place.lock()?;
        self.driver.power_off(machine)?;
        self.driver.unplug(machine)
    }

    /// Starts a machine that is off, on the disk that it has.
    pub fn power_on(&self, name: &str) -> Result<(), UpError> {
        let machine = self.state.plan.machine(name)?;
        let _lock = self.place.lock()?;
        if !self.driver.is_on(machine) {
            self.driver.plug_in(machine)?;
            self.switch_on(machine)?;
        }
        Ok(())
    }

    /// Takes a machine's disk away, which must be off: what is powered on next is a new machine with the old seed.
    pub fn destroy_disk(&self, name: &str) -> Result<(), UpError> {
        let machine = self.state.plan.machine(name)?;
        let _lock = self.place.lock()?;
        if self.driver.is_on(machine) {
            return Err(UpError::new(format!("{name} is on"), format!("`kindling power off {name}` first")));
        }
        let folder = self.place.node(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(UpError::file("remove", &folder, &error))
            }
            _ => self.driver.prepare(machine),
        }
    }

    fn switch_on(&self, machine: &Machine) -> Result<(), UpError> {
        self.place.note_power_on(&machine.name)?;
        self.driver.power_on(machine)
    }

    /// A client for the API with the administrator's certificate.
    pub fn kube(&self) -> Result<Kube, UpError> {
        let path = self.place.kubeconfig();
        let text = std::fs::read_to_string(&path).map_err(|error| UpError::file("read", &path, &error))?;
        api::client(&Secret::new(text), &self.state.plan.api, self.state.port)
    }

    fn host_kubeconfig(&self) -> Result<Secret, UpError> {
        let path = self.state.plan.seeds.join("admin.conf");
        let text = std::fs::read_to_string(&path).map_err(|error| UpError::file("read", &path, &error))?;
        api::kubeconfig(&text, &self.state.plan.api, self.state.port)
    }

    /// Whether the machines share processors that would not carry all of them at once.
    fn in_turn(&self) -> bool {
        let wanted: u64 = self.state.plan.machines.iter().map(|m| u64::from(m.cpus)).sum();
        self.driver.is_emulated() && wanted > tools::processors() as u64
    }

    /// Makes what is missing and powers on what is off: all at the same moment, or the first of them where they come in
    /// turn; nobody, if only that is asked for. Returns the turns of the others.
    pub(super) fn start(
        &self,
        options: &UpOptions,
        interrupts: &Interrupts,
        screen: &mut Screen,
    ) -> Result<Turns, UpError> {
        let plan = &self.state.plan;
        self.driver.check()?;
        self.place.write(&self.state)?;
        let on: Vec<&Machine> = plan.machines.iter().filter(|m| self.driver.is_on(m)).collect();
        if options.power_cycle {
            screen.say(&format!("power cut: {}", list(&on)));
            // All at once first; tidying up takes its time.
            std::thread::scope(|scope| {
                let cuts: Vec<_> = on.iter().map(|m| scope.spawn(|| self.driver.power_off(m))).collect();
                cuts.into_iter().try_for_each(|cut| cut.join().unwrap_or(Ok(())))
            })?;
        }
        let off: Vec<&Machine> = plan.machines.iter().filter(|m| !self.driver.is_on(m)).collect();
        if off.is_empty() {
            screen.say(&format!("{} is up already: {}", plan.cluster, list(&on)));
        } else {
            if image_id(&plan.image)? != plan.image_id {
                return Err(UpError::new(
                    format!("{} was baked anew since the machines were made", plan.image.display()),
                    "`kindling up --restart` makes new machines",
                ));
            }
            screen.say(&format!("{}: {} ({})", plan.cluster, list(&off), self.driver.describe()));
        }
        // Of an `up` that was killed: it would go on filling the disk that is made anew here.
        process::kill_all(&self.place, Owner::Helper)?;
        for machine in &off {
            if interrupts.came() {
                return Err(UpError::Interrupted);
            }
            self.driver.prepare(machine)?;
        }
        self.driver.network_up()?;
        let kubeconfig = self.host_kubeconfig()?;
        self.place.write_file(&self.place.kubeconfig(), kubeconfig.expose().as_bytes())?;
        if options.only_prepare {
            return Ok(Turns::default());
        }
        let is_off = |machine: &Machine| off.iter().any(|m| m.name == machine.name);
        let (now, turns) = if self.in_turn() && !options.at_once {
            let past = |machine: &Machine| match self.place.power_on(&machine.name) {
                _ if !is_off(machine) => Past::IsOn,
                Some(_) => Past::WasOn,
                None => Past::New,
            };
            let groups = turns::order(&plan.machines, past);
            let now = groups.first().map_or(Vec::new(), |first| {
                first.iter().copied().filter(|machine| is_off(machine)).collect()
            });
            (now, Turns::new(&groups, is_off))
        } else {
            (off.clone(), Turns::default())
        };
        if !turns.is_empty() {
            screen.say(&format!(
                "{} processors are too few for all at once: powered on in turn, each when those before it are at rest: {}",
                tools::processors(),
                now.iter().map(|m| m.name.as_str()).chain(turns.names()).collect::<Vec<_>>().join(", ")
            ));
        }
        for machine in &now {
            self.driver.plug_in(machine)?;
        }
        if interrupts.came() {
            return Err(UpError::Interrupted);
        }
        for machine in &now {
            self.switch_on(machine)?;
        }
        Ok(turns)
    }

    /// Powers on machines whose turn has come. `None`, and nothing done, where that must wait: another process starts or
    /// stops machines of this cluster, or has just stopped those before them.
    fn take_turn(&self, turn: &turns::Turn) -> Result<Option<Vec<Watched>>, UpError> {
        let Some(_lock) = self.place.try_lock()? else { return Ok(None) };
        for name in &turn.after {
            if !self.is_on(name)? {
                return Ok(None);
            }
        }
        let mut watched = Vec::new();
        for name in &turn.names {
            let machine = self.state.plan.machine(name)?;
            // Somebody may have given it power by hand.
            if !self.driver.is_on(machine) {
                self.driver.plug_in(machine)?;
                self.switch_on(machine)?;
            }
            watched.push(Watched::new(&self.place, machine));
        }
        Ok(Some(watched))
    }

    pub(super) fn wait(
        &self,
        turns: Turns,
        timeout: Duration,
        interrupts: &Interrupts,
        screen: &mut Screen,
    ) -> Result<Outcome, UpError> {
        let waits = |machine: &Machine| turns.names().any(|name| name == machine.name);
        let watch = |machine: &Machine| match waits(machine) {
            true => Watched::waiting(&self.place, machine),
            false => Watched::new(&self.place, machine),
        };
        let mut watched: Vec<Watched> = self.state.plan.machines.iter().map(watch).collect();
        let in_turn = !turns.is_empty();
        let asker = Asker::new(self.kube()?, &self.place, &watched, &*self.driver, in_turn);
        let begun = Instant::now();
        let mut queue = Queue { turns, power_on: &|turn| self.take_turn(turn) };
        let waited = wait::wait(asker, &mut watched, &*self.driver, &mut queue, timeout, interrupts, screen)?;
        let last = watched.iter().map(Watched::since_power_on).fold(f64::INFINITY, f64::min);
        let seconds = if in_turn { begun.elapsed().as_secs_f64() } else { last };
        Ok(Outcome {
            cluster: self.state.plan.cluster.clone(),
            driver: self.state.plan.driver,
            verdict: waited.verdict,
            seconds,
            server: format!("https://127.0.0.1:{}", self.state.port),
            kubeconfig: self.place.kubeconfig(),
            state: self.place.root().to_path_buf(),
            dns_error: waited.dns_error,
            api_error: waited.api_error,
            nodes: watched.iter().map(|w| NodeOutcome::new(&self.place, &*self.driver, w)).collect(),
        })
    }

    /// Waits, without lines, until every node is Ready, a node failed, or `timeout` has passed.
    pub fn wait_ready(&self, timeout: Duration) -> Result<Outcome, UpError> {
        self.wait(Turns::default(), timeout, &Interrupts::catch(), &mut Screen::silent())
    }
}

fn list(machines: &[&Machine]) -> String {
    let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
    if names.is_empty() { "no machine".into() } else { names.join(", ") }
}
