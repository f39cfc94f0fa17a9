//! A host in memory, for failures that cannot be staged on a real one: the power is cut at the n-th
//! effect, for every n. It models what the agent relies on: files, services, and the traces of kubeadm.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod cluster;
mod dns;
mod kubeadm;
mod programs;

use super::{Command, CommandError, Host, Output};

use crate::kube::{Credentials, KubeError, Method, Request, Server};
use crate::role::types::KubernetesVersion;
use crate::room::Peer;
pub use cluster::ClusterState;
pub use dns::FakeDns;

/// What happens to the effect at which the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It never happened.
    Before,
    /// It happened in part: a file cut short, a command that got half-way.
    Half,
    /// It happened, and nobody could note that it did.
    After,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    pub files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    pub links: BTreeMap<PathBuf, String>,
    pub enabled: BTreeSet<String>,
    /// Labels of images in containerd's store.
    pub images: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Default)]
pub struct Fake {
    pub disk: RefCell<Disk>,
    /// The units that run, and with which drop-ins each was started.
    active: RefCell<BTreeMap<String, Vec<PathBuf>>>,
    /// The drop-ins that systemd has read: those of its start or of its last reload.
    drop_ins: RefCell<Vec<PathBuf>>,
    hostname: RefCell<String>,
    /// Whether the API of the cluster answers without this node's doing: somebody else made it.
    pub cluster_is_up: Cell<bool>,
    /// What the cluster knows, wherever this machine's disk went.
    pub cluster: RefCell<ClusterState>,
    /// How often containerd must be restarted until its CRI plugin loads.
    pub cri_restarts: Cell<u32>,
    /// What the other control planes' agents say of their disks.
    pub peers_say: Cell<Peer>,
    /// How often `kubeadm join` waits in vain for the kubelet's certificate to be signed.
    pub unsigned: Cell<u32>,
    /// The version of kubeadm and the kubelet; the newest that is known, if it is not set.
    pub kubeadm: Cell<Option<KubernetesVersion>>,
    /// The etcd pod never comes up.
    pub etcd_never_starts: Cell<bool>,
    /// kubeadm ends after it has added the etcd member, and before it has given it its vote.
    pub dies_before_promotion: Cell<bool>,
    /// Whether a majority of an external etcd's members answers without this machine's doing.
    pub etcd_is_up: Cell<bool>,
    /// What every member of an external etcd says that it is.
    pub etcd_version: RefCell<String>,
    /// The list that the other members of an external etcd keep; nobody answers where `None`.
    pub etcd_members: RefCell<Option<Vec<serde_json::Value>>>,
    /// What VMware keeps for this machine, if it is one of VMware's.
    pub guestinfo: RefCell<BTreeMap<String, String>>,
    /// What `kubeadm certs renew all` writes, by path.
    pub renewed: RefCell<BTreeMap<String, String>>,
    /// Containers of static pods that were started anew, by name.
    containers: RefCell<BTreeMap<String, Container>>,
    /// Every effect and every query, in order.
    pub log: RefCell<Vec<String>>,
    effects: Cell<usize>,
    cut: Cell<Option<(usize, Cut)>>,
    dead: Cell<bool>,
    clock: Cell<Duration>,
    /// What the clock on the wall shows until it is set right, and when that is.
    pub wrong_clock: Cell<Option<(u64, Duration)>>,
    /// The words of kubeadm's commands that fail, and what they print.
    pub kubeadm_fails: RefCell<BTreeMap<String, String>>,
    /// Whether none of chrony's servers answers.
    pub no_time_server: Cell<bool>,
    /// When the units that a boot starts have started.
    started_at: Cell<Duration>,
}

/// A static pod's container: how often it was started, and the API server's certificate when it was.
#[derive(Debug, Clone, Default)]
struct Container {
    starts: u32,
    certificate: Option<String>,
}

fn power() -> io::Error {
    io::Error::other("the power was cut")
}

impl Fake {
    /// A machine after cloud-init: the image's files, nothing of ours.
    pub fn new() -> Self {
        let fake = Self { etcd_version: RefCell::new("3.7.0".into()), ..Self::default() };
        for (path, text) in [
            ("/etc/hostname", "localhost\n"),
            ("/etc/resolv.conf", "nameserver 10.0.0.2\n"),
            ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("/etc/fstab", "/dev/vda2 / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n"),
            ("/proc/swaps", "Filename Type Size Used Priority\n/swap.img file 1048576 0 -2\n"),
            ("/proc/modules", ""),
            ("/proc/sys/net/ipv4/ip_forward", "0\n"),
            ("/proc/sys/net/ipv4/ip_nonlocal_bind", "0\n"),
            ("/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n"),
            ("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0\n"),
            ("/proc/stat", "btime 1000\n"),
            ("/proc/1/stat", "1 (systemd) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 100 1 1\n"),
            ("/usr/share/zoneinfo/Asia/Shanghai", "TZif2"),
            (
                "/usr/share/kindling/images.json",
                r#"[{"name": "registry.k8s.io/pause:3.10", "digest": "sha256:1"}]"#,
            ),
            ("/usr/share/kindling/addons/flannel.yaml", "net: @PODS@\n"),
        ] {
            fake.put(path, text);
        }
        fake.disk.borrow_mut().images.insert("registry.k8s.io/pause:3.10".into(), BTreeSet::new());
        fake
    }

    pub fn put(&self, path: &str, text: &str) {
        self.disk.borrow_mut().files.insert(path.into(), (text.into(), 0o644));
    }

    pub fn text(&self, path: &str) -> Option<String> {
        self.disk
            .borrow()
            .files
            .get(Path::new(path))
            .map(|(bytes, _)| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Cuts the power at the n-th effect from here, counted from 1.
    pub fn cut_power_at(&self, n: usize, cut: Cut) {
        self.effects.set(0);
        self.cut.set(Some((n, cut)));
    }

    pub fn effects(&self) -> usize {
        self.effects.get()
    }

    pub fn was_cut(&self) -> bool {
        self.dead.get()
    }

    /// Power is back: the disk is what it was, memory is not.
    pub fn boot(&self) {
        self.dead.set(false);
        self.cut.set(None);
        self.effects.set(0);
        self.started_at.set(self.clock.get() + Duration::from_secs(5));
        let mut disk = self.disk.borrow_mut();
        disk.files.retain(|path, _| !path.starts_with("/run"));
        let mut put = |path: &str, text: &str| disk.files.insert(path.into(), (text.into(), 0o644));
        put("/proc/modules", "");
        for key in [
            "net/ipv4/ip_forward",
            "net/ipv4/ip_nonlocal_bind",
            "net/bridge/bridge-nf-call-iptables",
            "net/bridge/bridge-nf-call-ip6tables",
        ] {
            put(&format!("/proc/sys/{key}"), "0\n");
        }
        let masked = disk.links.contains_key(Path::new("/etc/systemd/system/swap.target"));
        let swaps = if masked { "Filename\n" } else { "Filename\n/swap.img file 1 0 -2\n" };
        disk.files.insert("/proc/swaps".into(), (swaps.into(), 0o644));
        *self.hostname.borrow_mut() =
            String::from_utf8_lossy(&disk.files[Path::new("/etc/hostname")].0).trim().to_owned();
        let enabled = disk.enabled.clone();
        drop(disk);
        self.reload();
        self.active.borrow_mut().clear();
        enabled.iter().for_each(|unit| self.start_unit(unit));
        let started: Vec<String> = self.containers.borrow().keys().cloned().collect();
        started.iter().for_each(|name| self.start_container(name));
        if enabled.contains("kubelet.service") {
            self.start_kubelet();
        }
    }

    /// What a node has become: its lasting state without times and counts.
    pub fn outcome(&self) -> Disk {
        let mut disk = self.disk.borrow().clone();
        disk.files.retain(|path, _| {
            // A resumed run is told from an undisturbed one by its record and kubeadm's log, and by nothing else.
            !path.starts_with("/var/lib/kindling/status.json")
                && !path.starts_with("/var/log")
                && !path.starts_with("/run")
                && !path.starts_with("/proc")
                && !path.file_name().is_some_and(|n| n.to_string_lossy().ends_with("recovered"))
        });
        // Keys are random: that they are there is all that can be the same.
        for (path, (bytes, _)) in &mut disk.files {
            if path.starts_with("/etc/etcd/pki") || path.ends_with("apiserver-etcd-client.crt") {
                bytes.clear();
            }
            if path.ends_with("apiserver-etcd-client.key") {
                bytes.clear();
            }
        }
        disk
    }

    /// The names of what differs between two outcomes: their contents are many and partly secret.
    pub fn differences(&self, other: &Fake) -> Vec<String> {
        let (a, b) = (self.outcome(), other.outcome());
        let mut names: Vec<String> = a
            .files
            .keys()
            .chain(b.files.keys())
            .filter(|path| a.files.get(*path) != b.files.get(*path))
            .map(|path| path.display().to_string())
            .collect();
        names.extend(a.enabled.symmetric_difference(&b.enabled).cloned());
        if self.cluster.borrow().is_marked != other.cluster.borrow().is_marked {
            names.push("the Node's mark as a control plane".into());
        }
        if (a.links, a.images) != (b.links, b.images) {
            names.push("links or images".into());
        }
        names.dedup();
        names
    }

    /// Counts an effect; `Err` is the power cut, `Ok(false)` asks for half of the effect.
    fn effect(&self, what: String) -> io::Result<Cut> {
        self.log.borrow_mut().push(what);
        if self.dead.get() {
            return Err(power());
        }
        self.effects.set(self.effects.get() + 1);
        match self.cut.get() {
            Some((n, cut)) if n == self.effects.get() => {
                self.dead.set(true);
                if cut == Cut::Before { Err(power()) } else { Ok(cut) }
            }
            _ => Ok(Cut::Before),
        }
    }

    fn end(cut: Cut) -> io::Result<()> {
        if cut == Cut::Before { Ok(()) } else { Err(power()) }
    }
}

impl Host for Fake {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk.borrow().files.get(path).map(|(bytes, _)| bytes.clone()))
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        Ok(self.disk.borrow().files.get(path).map(|(_, mode)| *mode))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk.borrow();
        let names: BTreeSet<String> = disk
            .files
            .keys()
            .filter_map(|p| {
                p.strip_prefix(path)
                    .ok()?
                    .components()
                    .next()
                    .map(|c| c.as_os_str().to_string_lossy().into_owned())
            })
            .collect();
        Ok(names.into_iter().collect())
    }

    fn hostname(&self) -> String {
        self.hostname.borrow().clone()
    }

    fn write(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        let cut = self.effect(format!("write {}", path.display()))?;
        // Writes are atomic: half a write is none.
        if cut != Cut::Half {
            self.disk.borrow_mut().files.insert(path.to_owned(), (content.to_vec(), mode));
        }
        Self::end(cut)
    }

    fn write_kernel(&self, path: &Path, value: &str) -> io::Result<()> {
        let cut = self.effect(format!("set {}", path.display()))?;
        self.disk.borrow_mut().files.insert(path.to_owned(), (value.into(), 0o644));
        Self::end(cut)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let cut = self.effect(format!("remove {}", path.display()))?;
        self.disk.borrow_mut().files.retain(|p, _| !p.starts_with(path));
        Self::end(cut)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        let cut = self.effect(format!("set host name {name}"))?;
        *self.hostname.borrow_mut() = name.to_owned();
        Self::end(cut)
    }

    fn run(&self, command: &Command) -> Result<Output, CommandError> {
        let failed = |reason: String| CommandError::Failed {
            command: command.to_string(),
            status: "exit status: 1".into(),
            // systemctl is-active says the state on standard output also when the answer is no.
            output: if command.args.first().is_some_and(|a| a == "is-active") {
                Output { stdout: reason, stderr: String::new() }
            } else {
                Output { stdout: String::new(), stderr: reason }
            },
        };
        let cut = if command.query {
            self.log.borrow_mut().push(format!("query {command}"));
            if self.dead.get() {
                return Err(failed(power().to_string()));
            }
            Cut::Before
        } else {
            self.effect(format!("run {command}")).map_err(|e| failed(e.to_string()))?
        };
        let stdout = self.program(command, cut == Cut::Half).map_err(failed)?;
        Self::end(cut).map_err(|e| failed(e.to_string()))?;
        Ok(Output { stdout, stderr: String::new() })
    }

    fn run_watched(
        &self,
        command: &Command,
        _: Duration,
        meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Output, CommandError> {
        let _ = meanwhile();
        self.run(command)
    }

    fn sync(&self) {}

    fn request(
        &self,
        server: &Server,
        _: &Credentials,
        request: &Request<'_>,
        _: Duration,
    ) -> Result<String, KubeError> {
        let gone = || KubeError::Unreachable {
            address: server.address,
            reason: "connection refused".into(),
            timed_out: false,
        };
        if self.dead.get() {
            return Err(gone());
        }
        let cut = match request.method {
            Method::Get => Cut::Before,
            _ if request.path.starts_with("/v3/") && !request.path.ends_with("/remove") => Cut::Before,
            method => self.effect(format!("{method:?} {}", request.path)).map_err(|_| gone())?,
        };
        let answer = self.answer(server, request)?;
        Self::end(cut).map_err(|_| gone())?;
        Ok(answer)
    }

    fn resolve(&self, _: &str) -> io::Result<Vec<Ipv4Addr>> {
        Ok(vec![Ipv4Addr::new(10, 0, 0, 10)])
    }

    fn usage(&self) -> (f64, f64) {
        (0.0, 0.0)
    }

    fn now(&self) -> Duration {
        self.clock.get()
    }

    fn wall_clock(&self) -> u64 {
        match self.wrong_clock.get() {
            Some((seconds, until)) if self.clock.get() < until => seconds + self.clock.get().as_secs(),
            _ => 1_900_000_000 + self.clock.get().as_secs(),
        }
    }

    fn sleep(&self, duration: Duration) {
        self.clock.set(self.clock.get() + duration);
    }

    fn random(&self) -> f64 {
        0.5
    }

    /// A network on which nobody else is.
    fn ask_link(&self, _: &str, _: &[Ipv4Addr]) -> io::Result<super::link::Heard> {
        Ok(super::link::Heard::default())
    }
}
