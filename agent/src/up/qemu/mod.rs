//! Virtual machines by QEMU, without any right on the host: a disk laid over the baked one, UEFI firmware,
//! the seed as a second disk, the serial console in a file, a switch between them, and one more QEMU as the
//! host's way to the API.

pub mod args;
pub mod host;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

use self::args::Accelerator;
use super::driver::Driver;
use super::plan::{Machine, hex};
use super::process::{self, Daemon, Owner};
use super::state::{Place, State};
use super::switch::Switch;
use super::{UpError, forward, tools};
use crate::status::Status;

pub struct Qemu {
    place: Place,
    state: State,
    accelerator: Accelerator,
    /// The `kindling` that is run as the switch.
    program: PathBuf,
}

impl Qemu {
    pub fn new(place: Place, state: State, program: PathBuf) -> Self {
        let accelerator = host::accelerator(&state.plan.machines);
        Self { place, state, accelerator, program }
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.place.root().join(name)
    }

    fn start(&self, owner: Owner<'_>, mut args: Vec<String>, log: PathBuf) -> Result<(), UpError> {
        args[0] = tools::path(&args[0]);
        let daemon = Daemon { args, folder: self.place.root().into(), stdout: log.clone(), stderr: log };
        process::start(&self.place, owner, &daemon)
    }

    fn start_switch(&self) -> Result<(), UpError> {
        let folder = self.place.root().join("switch");
        // A socket that a killed switch left would look as if somebody listened.
        let _ = fs::remove_dir_all(&folder);
        self.place.make_folder(&folder)?;
        let switch = Switch { folder: folder.clone(), machines: self.state.plan.machines.len() };
        let args = [vec![tools::text(&self.program)], switch.args()].concat();
        let log = self.log_of("switch.log");
        self.start(Owner::Switch, args, log.clone())?;
        let deadline = Instant::now() + Duration::from_secs(20);
        // The last one that it makes.
        while !Switch::socket(&folder, None).exists() {
            if process::is_gone(&self.place, Owner::Switch) || Instant::now() >= deadline {
                return Err(UpError::new(
                    format!("the switch did not start: {}", process::tail(&log, 5).join(" ")),
                    "read the message above",
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn fill(&self, machine: &Machine, folder: &Path) -> Result<(), UpError> {
        let plan = &self.state.plan;
        process::help(&self.place, &args::disk(&plan.image, &folder.join("disk.qcow2"), plan.disk_gb), 120)?;
        let firmware = host::firmware().ok_or_else(no_firmware)?;
        let seed = plan.seeds.join(&machine.name).join("seed.img");
        for (from, to) in [(Path::new(&firmware.vars), "vars.fd"), (&seed, "seed.img")] {
            let bytes = fs::read(from).map_err(|error| UpError::file("read", from, &error))?;
            self.place.write_file(&folder.join(to), &bytes)?;
        }
        Ok(())
    }
}

fn no_firmware() -> UpError {
    UpError::new("there is no UEFI firmware on this host", tools::install_here("ovmf", "edk2-ovmf"))
}

impl Driver for Qemu {
    fn check(&self) -> Result<(), UpError> {
        host::check()
    }

    fn describe(&self) -> String {
        match self.accelerator {
            Accelerator::Kvm => "virtual machines by QEMU with KVM".into(),
            Accelerator::Tcg(_) => "virtual machines by QEMU without KVM: emulated, tens of minutes".into(),
        }
    }

    fn is_emulated(&self) -> bool {
        matches!(self.accelerator, Accelerator::Tcg(_))
    }

    fn prepare(&self, machine: &Machine) -> Result<(), UpError> {
        let folder = self.place.node(&machine.name);
        if !folder.join("prepared").exists() {
            self.place.make_folder(&folder)?;
            self.fill(machine, &folder)?;
            self.place.write_file(&folder.join("prepared"), b"")?;
        }
        Ok(())
    }

    fn network_up(&self) -> Result<(), UpError> {
        let listen = ([127, 0, 0, 1], self.state.port).into();
        // The gateway's cable ends with the switch that it was plugged into.
        if process::find(&self.place, Owner::Switch).is_empty() {
            process::kill_all(&self.place, Owner::Forwarder)?;
            self.start_switch()?;
        }
        let log = self.log_of("gateway.log");
        if process::find(&self.place, Owner::Forwarder).is_empty() {
            forward::port_is_free(listen)?;
            self.start(Owner::Forwarder, args::gateway(&self.state.plan, self.state.port)?, log.clone())?;
        }
        forward::wait_until_it_listens(&self.place, listen, &log)
    }

    fn plug_in(&self, _machine: &Machine) -> Result<(), UpError> {
        Ok(())
    }

    fn power_on(&self, machine: &Machine) -> Result<(), UpError> {
        let firmware = host::firmware().ok_or_else(no_firmware)?;
        // Its own and always the same, as a mainboard's is: kubeadm wants it unique in a cluster.
        let text = format!("{}\n{}", self.state.plan.cluster, machine.mac);
        let uuid = uuid(digest(&SHA256, text.as_bytes()).as_ref());
        let console = self.place.console(&machine.name);
        // QEMU would make it readable for everybody.
        if !console.exists() {
            self.place.write_file(&console, b"")?;
        }
        let _ = fs::set_permissions(&console, fs::Permissions::from_mode(0o600));
        let args = args::machine(machine, &uuid, self.accelerator, &firmware);
        self.start(Owner::Machine(&machine.name), args, self.log(machine))
    }

    fn power_off(&self, machine: &Machine) -> Result<(), UpError> {
        process::kill_all(&self.place, Owner::Machine(&machine.name)).map(|_| ())
    }

    fn unplug(&self, _machine: &Machine) -> Result<(), UpError> {
        Ok(())
    }

    fn is_on(&self, machine: &Machine) -> bool {
        !process::find(&self.place, Owner::Machine(&machine.name)).is_empty()
    }

    fn status(&self, _machine: &Machine) -> Option<Status> {
        None
    }

    fn log(&self, machine: &Machine) -> PathBuf {
        self.place.node(&machine.name).join("qemu.log")
    }
}

/// Version 8 of RFC 9562: the bytes are of our own making.
fn uuid(bytes: &[u8]) -> String {
    let mut bytes: [u8; 16] = std::array::from_fn(|n| bytes.get(n).copied().unwrap_or(0));
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_uuid_has_its_version_and_variant() {
        assert_eq!(super::uuid(&[0xff; 32]), "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }
}
