//! `kindling up` and `kindling down`: a rendered cluster on this machine, on a private network that no packet
//! leaves, all nodes powered on at the same moment (emulated ones in *turns* where they outnumber the processors).
//!
//! The nouns: the *plan* (what is to run, kept in the state folder), the *place* (the state folder), a
//! *driver* (QEMU, or machines in namespaces; the *choice* of one), the *progress* of a node (read from its console),
//! and the *outcome*. The machines live on when `up` returns; `down` takes away all that `up` made.

mod api;
mod choice;
mod driver;
mod error;
mod forward;
mod interrupt;
mod machines;
mod memory;
mod outcome;
mod plan;
mod process;
mod qemu;
mod queue;
mod running;
mod screen;
mod state;
mod switch;
mod table;
mod tools;
mod turns;
mod wait;
mod watch;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster;
pub use choice::{Choice, Wish};
pub use driver::DriverName;
pub use error::UpError;
pub use forward::Forward;
pub use outcome::{NodeOutcome, Outcome, Verdict};
pub use running::{Recorded, Running};
pub use switch::Switch;
pub use table::table;
pub use watch::plain;

use choice::Means;
use interrupt::Interrupts;
use plan::UpPlan;
use screen::Screen;
use state::{Place, State};
use turns::Turns;

/// Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The cluster file.
    pub cluster: PathBuf,
    /// The folder that `kindling render` wrote.
    pub seeds: PathBuf,
    /// The folder that `image/bake` wrote.
    pub image: PathBuf,
    pub driver: Wish,
    /// `.kindling/CLUSTER` below the current folder where `None`.
    pub state: Option<PathBuf>,
    /// Of each machine; QEMU only, as machines in namespaces share the host's.
    pub cpus: u32,
    /// Of a control plane, and of all others too unless `worker_memory_mb` says otherwise; by role and host where
    /// `None`. QEMU only.
    pub memory_mb: Option<u32>,
    pub worker_memory_mb: Option<u32>,
    /// Largest size of a disk; QEMU only.
    pub disk_gb: u32,
    /// The port on 127.0.0.1; a free one where `None`.
    pub port: Option<u16>,
    /// How long to wait for the cluster. Where `None` 900 s for machines, and 1800 s for QEMU: as often as machines are
    /// powered on in turn.
    pub timeout: Option<Duration>,
    /// Stops and removes what is there before.
    pub restart: bool,
    /// Cuts the power of all machines that run, and starts them again on the same disks.
    pub power_cycle: bool,
    /// Makes machines and network, powers on nobody and waits for nobody.
    pub only_prepare: bool,
    /// Powers on all machines at the same moment, also emulated ones that outnumber the processors.
    pub at_once: bool,
    /// The `kindling` that goes on as the forwarder or the switch; this very program where `None`.
    pub program: Option<PathBuf>,
}

impl UpOptions {
    pub fn new(cluster: PathBuf, seeds: PathBuf, image: PathBuf) -> Self {
        Self {
            cluster,
            seeds,
            image,
            driver: Wish::Auto,
            state: None,
            cpus: 2,
            memory_mb: None,
            worker_memory_mb: None,
            disk_gb: 20,
            port: None,
            timeout: None,
            restart: false,
            power_cycle: false,
            only_prepare: false,
            at_once: false,
            program: None,
        }
    }

    /// `groups` of machines are powered on one after the other.
    fn timeout(&self, driver: DriverName, groups: u32) -> Duration {
        self.timeout.unwrap_or(match driver {
            DriverName::Machines => Duration::from_secs(900),
            DriverName::Qemu => Duration::from_secs(1800) * groups,
        })
    }

    /// The machines that are there, if they are to stay.
    fn there(&self, path: &Path) -> Result<Option<State>, UpError> {
        if self.restart {
            return Ok(None);
        }
        Ok(Place::open(path)?.and_then(|place| place.read()))
    }
}

/// Which driver [`up`] would take. What is not installed counts as there: who asks before `up` installs it.
pub fn which_driver(options: &UpOptions) -> Result<Choice, UpError> {
    let there = if options.restart {
        None
    } else {
        options.there(&state_folder(options.state.clone(), &options.cluster)?)?
    };
    let means = Means { nspawn: true, ..Means::here() };
    let choice = choice::choose(options.driver, there.map(|state| state.plan.driver), &means)?;
    choice.why.iter().for_each(|why| Screen::new().say(why));
    Ok(choice)
}

/// Brings the cluster up and waits for it. An `Outcome` says how the machines fare, also when a node failed;
/// an error, that they could not be started. Progress goes to standard error.
pub fn up(options: &UpOptions) -> Result<Outcome, UpError> {
    let interrupts = Interrupts::catch();
    let mut screen = Screen::new();
    let (cluster, _) =
        cluster::load(&options.cluster).map_err(|report| UpError::Cluster(report.to_string()))?;
    let path = options.state.clone().unwrap_or_else(|| Place::default_path(cluster.name.as_str()));
    let there = options.there(&path)?.map(|state| state.plan);
    let choice = choice::choose(options.driver, there.as_ref().map(|plan| plan.driver), &Means::here())?;
    choice.why.iter().for_each(|why| screen.say(why));
    let mut plan = UpPlan::new(&cluster, options, choice.driver)?;
    match there {
        Some(old) => plan.keep_memory(&old, options)?,
        None => {
            let said = plan.assign_memory(options, emulated_on(choice.driver))?;
            said.iter().for_each(|line| screen.say(line));
        }
    }
    let place = Place::make(&path)?;
    let lock = place.lock()?;

    if options.restart {
        stop(&place)?;
    }
    let state = match place.read() {
        Some(state) if !options.restart => {
            agree(&state, &plan, options)?;
            state
        }
        _ => State { port: free_port(options.port)?, plan },
    };
    let running = Running::new(place.clone(), state, options.program.clone())?;
    let turns = running.start(options, &interrupts, &mut screen)?;
    // `down` and a power cycle may come from elsewhere while this one waits.
    drop(lock);
    if options.only_prepare {
        return running.wait(Turns::default(), Duration::ZERO, &interrupts, &mut Screen::silent());
    }
    let groups = u32::try_from(turns.len()).unwrap_or(u32::MAX).saturating_add(1);
    running.wait(turns, options.timeout(choice.driver, groups), &interrupts, &mut screen)
}

/// The host's memory in MiB where QEMU emulates.
fn emulated_on(driver: DriverName) -> Option<u64> {
    let emulates = driver == DriverName::Qemu && choice::kvm().is_err();
    // A host that does not tell bounds nothing.
    emulates.then(|| crate::facts::memory_mb().unwrap_or(u64::MAX))
}

/// Machines that are there are what is wanted, or nothing is done with them.
fn agree(state: &State, wanted: &UpPlan, options: &UpOptions) -> Result<(), UpError> {
    let difference = match options.port {
        Some(port) if port != state.port => Some("the API has another port"),
        _ => state.plan.difference(wanted),
    };
    match difference {
        None => Ok(()),
        Some(difference) => Err(UpError::new(
            format!("machines of {} are there already, and {difference}", wanted.cluster),
            "`kindling up --restart` makes new ones, `kindling down` only removes the old ones",
        )),
    }
}

fn free_port(wanted: Option<u16>) -> Result<u16, UpError> {
    let listen = ([127, 0, 0, 1], wanted.unwrap_or(0)).into();
    forward::port_is_free(listen)?;
    let port =
        TcpListener::bind(listen).and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.map_err(|error| UpError::new(format!("no free port on 127.0.0.1: {error}"), "name one with --port"))
}

/// What happens to single machines of a cluster that `up` made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// A power cut.
    Off,
    On,
    /// With an empty disk in the place of the one that it had.
    OnWithNewDisk,
}

/// Cuts or gives power to machines, all of them at once; waits for none to be Ready.
pub fn power(state: &Path, names: &[String], power: Power) -> Result<(), UpError> {
    let running = Running::open(state, None)?;
    for name in names {
        running.is_on(name)?;
    }
    for name in names {
        match power {
            Power::Off => running.power_off(name)?,
            Power::On => running.power_on(name)?,
            Power::OnWithNewDisk => {
                running.destroy_disk(name)?;
                running.power_on(name)?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone)]
pub struct DownOptions {
    /// The cluster whose default state folder is meant, unless `state` names one.
    pub cluster: PathBuf,
    pub state: Option<PathBuf>,
    /// Leaves the state folder with disks and logs; `up` starts the machines from it again.
    pub keep: bool,
}

/// What `down` found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Stopped {
    pub state: PathBuf,
    /// Whether anything ran.
    pub stopped: bool,
    pub removed: bool,
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.display();
        match (self.stopped, self.removed) {
            (true, true) => write!(f, "stopped and removed: {state}"),
            (false, true) => write!(f, "nothing was running; removed: {state}"),
            (true, false) => write!(f, "stopped; disks and logs are in {state}"),
            (false, false) => write!(f, "nothing to stop at {state}"),
        }
    }
}

/// The folder that was named, or the default one of the cluster in this file.
pub fn state_folder(named: Option<PathBuf>, cluster: &Path) -> Result<PathBuf, UpError> {
    if let Some(path) = named {
        return Ok(path);
    }
    let (cluster, _) = cluster::load(cluster).map_err(|report| UpError::Cluster(report.to_string()))?;
    Ok(Place::default_path(cluster.name.as_str()))
}

/// Stops everything that `up` started, in whatever state it is, and removes the state folder. Does nothing
/// the second time.
pub fn down(options: &DownOptions) -> Result<Stopped, UpError> {
    let path = state_folder(options.state.clone(), &options.cluster)?;
    let Some(place) = Place::open(&path)? else {
        return Ok(Stopped { state: path, stopped: false, removed: false });
    };
    let _lock = place.lock()?;
    let stopped = stop(&place)?;
    if !options.keep {
        place.remove()?;
    }
    Ok(Stopped { state: place.root().to_path_buf(), stopped, removed: !options.keep })
}

/// Asks nobody what was started: processes, control groups and namespaces carry the state folder's name, so
/// that what a crash left behind goes too.
fn stop(place: &Place) -> Result<bool, UpError> {
    if place.read().is_some_and(|s| s.plan.driver == DriverName::Machines)
        && !nix::unistd::geteuid().is_root()
    {
        return Err(UpError::new("machines in namespaces are stopped by root", "run it as root"));
    }
    let running = !process::find(place, process::Owner::Any).is_empty();
    machines::cut_all(place);
    process::kill_all(place, process::Owner::Any)?;
    machines::sweep(place)?;
    Ok(running)
}
