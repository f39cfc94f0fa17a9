//! Machines without a hypervisor: the baked tree booted by systemd-nspawn, each machine with an overlay, a
//! /var, control groups and a network namespace of its own, all on one bridge that leads nowhere.

pub mod args;
pub mod cgroup;
mod inotify;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use self::args::Names;
use super::driver::Driver;
use super::forward::Forward;
use super::plan::{Machine, SEED_FILES};
use super::process::{self, Daemon, Owner};
use super::state::{Place, State};
use super::tools::{self, Tool, text};
use super::{UpError, forward};
use crate::status::Status;

const TOOLS: [Tool; 5] = [
    Tool { program: "systemd-nspawn", deb: "systemd-container", rpm: "systemd-container" },
    Tool { program: "ip", deb: "iproute2", rpm: "iproute" },
    Tool { program: "nsenter", deb: "util-linux", rpm: "util-linux" },
    Tool { program: "unshare", deb: "util-linux", rpm: "util-linux" },
    Tool { program: "mount", deb: "mount", rpm: "util-linux" },
];

/// Named network namespaces, ip-netns(8).
const NETNS: &str = "/run/netns";

pub struct Machines {
    place: Place,
    state: State,
    names: Names,
    /// The `kindling` that is run as the forwarder.
    program: PathBuf,
}

impl Machines {
    pub fn new(place: Place, state: State, program: PathBuf) -> Self {
        let names = Names::new(&place.id());
        Self { place, state, names, program }
    }

    fn group(&self, machine: &Machine) -> String {
        self.names.machine(&machine.name)
    }

    /// The disk of a machine: an upper folder for all but /var, and a /var of its own.
    fn fill(&self, machine: &Machine, folder: &Path) -> Result<(), UpError> {
        for name in ["upper", "work", "root"] {
            self.place.make_folder(&folder.join(name))?;
        }
        // The upper folder is the machine's root folder: services must be able to enter it.
        let upper = folder.join("upper");
        let failed = |error: std::io::Error| UpError::file("prepare", folder, &error);
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        fs::set_permissions(folder.join("root"), fs::Permissions::from_mode(0o755)).map_err(failed)?;

        let var = folder.join("var");
        let _ = fs::remove_dir_all(&var);
        let from = text(&self.state.plan.image.join("var"));
        let copy = ["cp", "-a", "--reflink=auto", &from, &text(&var)].map(str::to_owned);
        process::help(&self.place, &copy, 600)?;
        let seed = var.join("lib/cloud/seed/nocloud");
        fs::create_dir_all(&seed).map_err(failed)?;
        fs::set_permissions(&seed, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        for file in SEED_FILES {
            let from = self.state.plan.seeds.join(&machine.name).join(file);
            let bytes = fs::read(&from).map_err(|error| UpError::file("read", &from, &error))?;
            self.place.write_file(&seed.join(file), &bytes)?;
        }

        // What is of the whole kernel is the host's.
        let sysctls = upper.join("etc/sysctl.d");
        fs::create_dir_all(&sysctls).map_err(failed)?;
        let host_only = sysctls.join("91-kindling-host.conf");
        let _ = fs::remove_file(&host_only);
        symlink("/dev/null", &host_only).map_err(failed)?;

        let units = upper.join("etc/systemd/system");
        let wants = units.join("sysinit.target.wants");
        fs::create_dir_all(&wants).map_err(failed)?;
        fs::write(units.join(args::UNIT_NAME), args::UNIT).map_err(failed)?;
        let link = wants.join(args::UNIT_NAME);
        let _ = fs::remove_file(&link);
        symlink(format!("../{}", args::UNIT_NAME), &link).map_err(failed)
    }
}

impl Driver for Machines {
    fn check(&self) -> Result<(), UpError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(UpError::new(
                "machines in namespaces need root",
                "run it as root, or use virtual machines (the QEMU driver), which need no rights",
            ));
        }
        tools::require(&TOOLS)?;
        let root = self.place.root();
        if statfs(root).is_ok_and(|s| s.filesystem_type() == OVERLAYFS_SUPER_MAGIC) {
            return Err(UpError::new(
                format!(
                    "{} lies on an overlay file system, on which no other overlay can lie",
                    root.display()
                ),
                "name a folder on a real file system with --state (in a container: a volume)",
            ));
        }
        inotify::check(self.state.plan.machines.iter().filter(|machine| !self.is_on(machine)))
    }

    fn describe(&self) -> String {
        "machines in namespaces by systemd-nspawn, no hypervisor".into()
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
        let bridge = Path::new(NETNS).join(self.names.bridge());
        // A namespace that was made halfway is made again; with machines on it, it was whole.
        let whole = self.place.root().join("bridge");
        if !bridge.exists() || !whole.exists() {
            let _ = fs::remove_file(&whole);
            remove_namespace(self.names.bridge())?;
            for line in args::bridge(&self.names, &self.state.plan.network) {
                tools::run(&line, 20)?;
            }
            self.place.write_file(&whole, b"")?;
            process::kill_all(&self.place, Owner::Forwarder)?;
        }
        let api = &self.state.plan.api;
        let forward = Forward {
            listen: ([127, 0, 0, 1], self.state.port).into(),
            to: (api.address, api.port).into(),
            netns: bridge,
        };
        forward::start(&self.place, &self.program, &forward)
    }

    fn plug_in(&self, machine: &Machine) -> Result<(), UpError> {
        self.unplug(machine)?;
        for line in args::plug_in(&self.names, machine) {
            tools::run(&line, 20)?;
        }
        cgroup::create(&self.group(machine)).map(|_| ())
    }

    fn power_on(&self, machine: &Machine) -> Result<(), UpError> {
        let folder = self.place.node(&machine.name);
        let boot = args::Boot {
            tree: &self.state.plan.image,
            folder: &folder,
            cgroups: &cgroup::create(&self.group(machine))?,
            legacy_cgroups: cgroup::is_legacy(),
            has_kmsg: Path::new("/dev/kmsg").exists(),
        };
        let daemon = Daemon {
            args: args::launch(&self.names, machine, &boot),
            folder: self.place.root().to_path_buf(),
            stdout: self.place.console(&machine.name),
            stderr: self.log(machine),
        };
        process::start(&self.place, Owner::Machine(&machine.name), &daemon)
    }

    fn power_off(&self, machine: &Machine) -> Result<(), UpError> {
        // The end of the machine's first process is that of all others at the same instant.
        if let Some(first) = cgroup::first_process(&self.group(machine)) {
            let _ = kill(first, Signal::SIGKILL);
            let deadline = Instant::now() + Duration::from_secs(5);
            while self.is_on(machine) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        process::kill_all(&self.place, Owner::Machine(&machine.name)).map(|_| ())
    }

    fn unplug(&self, machine: &Machine) -> Result<(), UpError> {
        cgroup::clear(&self.group(machine))?;
        // The port first: it would otherwise stay a moment longer than the namespace of its other end.
        let bridge = self.names.bridge();
        if Path::new(NETNS).join(bridge).exists() {
            // Nothing to say if it is not there.
            let _ = tools::run(&["ip", "-n", bridge, "link", "delete", &args::port(machine)], 20);
        }
        remove_namespace(&self.group(machine))
    }

    fn is_on(&self, machine: &Machine) -> bool {
        !process::find(&self.place, Owner::Machine(&machine.name)).is_empty()
    }

    fn status(&self, machine: &Machine) -> Option<Status> {
        let path = self.place.node(&machine.name).join("var/lib/kindling/status.json");
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn log(&self, machine: &Machine) -> PathBuf {
        self.place.node(&machine.name).join("nspawn.log")
    }
}

fn remove_namespace(name: &str) -> Result<(), UpError> {
    if Path::new(NETNS).join(name).exists() {
        tools::run(&["ip", "netns", "delete", name], 20)?;
    }
    Ok(())
}

/// Cuts the power of all machines of this state folder at once, whether or not anybody noted them. nspawn ends
/// by itself then, and tidies up.
pub fn cut_all(place: &Place) {
    let names = Names::new(&place.id());
    let firsts: Vec<_> =
        cgroup::all(&names).iter().filter_map(|group| cgroup::first_process(group)).collect();
    for first in &firsts {
        let _ = kill(*first, Signal::SIGKILL);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while !firsts.is_empty()
        && Instant::now() < deadline
        && !process::find(place, Owner::AnyMachine).is_empty()
    {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes all that machines of this state folder have left on the host, whether or not anybody noted it:
/// processes in their control groups, the groups, network namespaces and with them the cables.
pub fn sweep(place: &Place) -> Result<(), UpError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let names = Names::new(&place.id());
    for group in cgroup::all(&names) {
        cgroup::clear(&group)?;
    }
    let namespaces = fs::read_dir(NETNS).into_iter().flatten().flatten();
    for name in namespaces.filter_map(|entry| entry.file_name().into_string().ok()) {
        if names.is_ours(&name) {
            remove_namespace(&name)?;
        }
    }
    // Folders that nspawn leaves when it is killed itself.
    for folder in ["/run/systemd/nspawn/propagate", "/run/systemd/nspawn/unix-export"] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.file_name().to_str().is_some_and(|name| names.is_ours(name))) {
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}
