//! What a machine runs in: QEMU, or namespaces. Both take the same image and the same seeds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::UpError;
use super::machines::Machines;
use super::plan::Machine;
use super::qemu::Qemu;
use super::state::{Place, State};
use crate::status::Status;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverName {
    /// Virtual machines by QEMU.
    Qemu,
    /// Machines in namespaces by systemd-nspawn; root.
    Machines,
}

impl std::fmt::Display for DriverName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Qemu => "qemu",
            Self::Machines => "machines",
        })
    }
}

/// Each verb looks first: what is already so is left alone.
pub trait Driver: Sync {
    /// Whether this host can run such machines; names everything that is missing at once.
    fn check(&self) -> Result<(), UpError>;
    /// One line for people: what the machines run in, and how long it takes.
    fn describe(&self) -> String;
    /// Whether the machines' processors are a program.
    fn is_emulated(&self) -> bool {
        false
    }
    /// Makes a machine's disk.
    fn prepare(&self, machine: &Machine) -> Result<(), UpError>;
    /// The private network, and 127.0.0.1:PORT into it.
    fn network_up(&self) -> Result<(), UpError>;
    /// The host's part of a machine that goes with its power: everything up to the moment of the start.
    fn plug_in(&self, machine: &Machine) -> Result<(), UpError>;
    fn power_on(&self, machine: &Machine) -> Result<(), UpError>;
    /// A power cut: everything in the machine ends at once, the disk stays as it is.
    fn power_off(&self, machine: &Machine) -> Result<(), UpError>;
    /// Takes away what [`Driver::plug_in`] made.
    fn unplug(&self, machine: &Machine) -> Result<(), UpError>;
    fn is_on(&self, machine: &Machine) -> bool;
    /// The agent's own record, where the disk can be looked into while the machine runs.
    fn status(&self, machine: &Machine) -> Option<Status>;
    /// Where the driver's program says why a machine did not start.
    fn log(&self, machine: &Machine) -> PathBuf;
}

/// The driver of a cluster.
pub fn driver(place: &Place, state: &State, program: PathBuf) -> Box<dyn Driver> {
    match state.plan.driver {
        DriverName::Machines => Box::new(Machines::new(place.clone(), state.clone(), program)),
        DriverName::Qemu => Box::new(Qemu::new(place.clone(), state.clone(), program)),
    }
}
