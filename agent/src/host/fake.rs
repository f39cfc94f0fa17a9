//! A host in memory, for failures that cannot be staged on a real one: the power is cut at the n-th
//! effect, for every n. It models what the agent relies on: files, services, and the traces of kubeadm.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Command, CommandError, Host, Output};
use crate::kube::{Credentials, KubeError, Server};

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
    active: RefCell<BTreeSet<String>>,
    hostname: RefCell<String>,
    /// Whether the API of the cluster answers without this node's doing: somebody else made it.
    pub cluster_is_up: Cell<bool>,
    /// Every effect and every query, in order.
    pub log: RefCell<Vec<String>>,
    effects: Cell<usize>,
    cut: Cell<Option<(usize, Cut)>>,
    dead: Cell<bool>,
    clock: Cell<Duration>,
    /// When the units that a boot starts have started.
    started_at: Cell<Duration>,
}

fn power() -> io::Error {
    io::Error::other("the power was cut")
}

impl Fake {
    /// A machine after cloud-init: the image's files, nothing of ours.
    pub fn new() -> Self {
        let fake = Self::default();
        for (path, text) in [
            ("/etc/hostname", "localhost\n"),
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
        let disk = &mut *self.disk.borrow_mut();
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
        *self.active.borrow_mut() = disk.enabled.clone();
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

    fn kubeadm(&self, args: &[String], half: bool) -> Result<String, String> {
        let again = args.iter().any(|a| a.starts_with("--ignore-preflight-errors"));
        let has = |path: &str| self.disk.borrow().files.contains_key(Path::new(path));
        let config = self.text("/etc/kindling/kubeadm.yaml").ok_or("no configuration")?;
        if has("/etc/kubernetes/kubelet.conf") && !again {
            return Err("[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists".into());
        }
        let control_plane = config.contains("InitConfiguration") || config.contains("controlPlane:");
        if control_plane {
            for name in ["ca.crt", "ca.key", "sa.key", "sa.pub", "etcd/ca.key", "front-proxy-ca.key"] {
                if !has(&format!("/etc/kubernetes/pki/{name}")) {
                    return Err(format!("/etc/kubernetes/pki/{name} is missing"));
                }
            }
            let leaf = self.text("/etc/kubernetes/pki/apiserver.crt");
            if leaf.is_some_and(|t| !t.ends_with("-----END CERTIFICATE-----\n")) {
                return Err("failure loading apiserver certificate".into());
            }
            if half {
                self.put("/etc/kubernetes/pki/apiserver.crt", "-----BEGIN CERT");
                self.put("/etc/kubernetes/kubelet.conf", "apiVersion: v1\ncl");
                self.put("/var/lib/etcd/member", "");
                return Ok(String::new());
            }
            self.put(
                "/etc/kubernetes/pki/apiserver.crt",
                "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            );
            self.put("/etc/kubernetes/pki/apiserver.key", "-----BEGIN RSA KEY-----\n-----END RSA KEY-----\n");
            self.put("/etc/kubernetes/admin.conf", "client-key-data: k\n");
            self.put("/etc/kubernetes/manifests/kube-apiserver.yaml", "pod");
            self.put("/etc/kubernetes/manifests/etcd.yaml", "pod");
            self.put("/var/lib/etcd/member", "");
        } else if half {
            self.put("/etc/kubernetes/bootstrap-kubelet.conf", "token: t\n");
            return Ok(String::new());
        } else {
            self.put("/etc/kubernetes/pki/ca.crt", "ca");
        }
        self.disk.borrow_mut().files.remove(Path::new("/etc/kubernetes/bootstrap-kubelet.conf"));
        self.put("/etc/kubernetes/kubelet.conf", "client-key: k\n");
        self.put("/var/lib/kubelet/pki/kubelet-client-current.pem", "pem");
        self.active.borrow_mut().insert("kubelet.service".into());
        Ok(String::new())
    }

    fn reset(&self) {
        self.disk
            .borrow_mut()
            .files
            .retain(|path, _| !path.starts_with("/etc/kubernetes") && !path.starts_with("/var/lib/etcd"));
        self.active.borrow_mut().remove("kubelet.service");
    }

    fn systemctl(&self, args: &[String]) -> Result<String, String> {
        let verb = args[0].as_str();
        let unit = args.last().cloned().unwrap_or_default();
        match verb {
            // systemd starts what is enabled beside the agent, and takes some seconds for it.
            "is-active"
                if self.clock.get() < self.started_at.get() && self.active.borrow().contains(&unit) =>
            {
                return Err("activating\n".into());
            }
            "is-active" if self.active.borrow().contains(&unit) => return Ok("active\n".into()),
            "is-enabled" if self.disk.borrow().enabled.contains(&unit) => {}
            "is-active" | "is-enabled" => return Err("no".into()),
            "enable" => {
                if args.iter().any(|a| a == "--now") {
                    self.active.borrow_mut().insert(unit.clone());
                }
                self.disk.borrow_mut().enabled.insert(unit);
            }
            "disable" => {
                self.active.borrow_mut().remove(&unit);
                self.disk.borrow_mut().enabled.remove(&unit);
            }
            "restart" => {
                self.active.borrow_mut().insert(unit);
            }
            "mask" => {
                self.disk
                    .borrow_mut()
                    .links
                    .insert(format!("/etc/systemd/system/{unit}").into(), "/dev/null".into());
            }
            _ => return Err(format!("the fake knows no systemctl {verb}")),
        }
        Ok(String::new())
    }

    fn ctr(&self, args: &[String]) -> Result<String, String> {
        match args.get(2).map(String::as_str) {
            Some("ls") => {
                let mut text = String::from("REF TYPE DIGEST SIZE PLATFORMS LABELS\n");
                for (name, labels) in &self.disk.borrow().images {
                    text +=
                        &format!("{name} t d s p {}\n", labels.iter().cloned().collect::<Vec<_>>().join(","));
                }
                Ok(text)
            }
            Some("label") => {
                let mut disk = self.disk.borrow_mut();
                disk.images.get_mut(&args[3]).ok_or("no such image")?.insert(args[4].clone());
                Ok(String::new())
            }
            _ => Ok(String::new()),
        }
    }

    fn program(&self, command: &Command, half: bool) -> Result<String, String> {
        match command.program.as_str() {
            "kubeadm" if command.args[0] == "reset" => {
                self.reset();
                Ok(String::new())
            }
            "kubeadm" => self.kubeadm(&command.args, half),
            "systemctl" => self.systemctl(&command.args),
            "ctr" => self.ctr(&command.args),
            "readlink" => self
                .disk
                .borrow()
                .links
                .get(Path::new(&command.args[0]))
                .cloned()
                .ok_or_else(|| "not a link".into()),
            "ln" => {
                self.disk.borrow_mut().links.insert(command.args[2].clone().into(), command.args[1].clone());
                Ok(String::new())
            }
            "modprobe" => {
                let loaded = self.text("/proc/modules").unwrap_or_default();
                self.put("/proc/modules", &format!("{loaded}{} 1 0\n", command.args[0]));
                Ok(String::new())
            }
            "swapoff" => {
                self.put("/proc/swaps", "Filename Type Size Used Priority\n");
                Ok(String::new())
            }
            _ => Ok(String::new()),
        }
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

    fn get(&self, server: &Server, _: &Credentials, path: &str, _: Duration) -> Result<String, KubeError> {
        let own = self.active.borrow().contains("kubelet.service")
            && self
                .disk
                .borrow()
                .files
                .contains_key(Path::new("/etc/kubernetes/manifests/kube-apiserver.yaml"));
        if self.dead.get() || !(own || self.cluster_is_up.get()) {
            return Err(KubeError::Unreachable {
                address: server.address,
                reason: "connection refused".into(),
            });
        }
        let name = self.hostname();
        Ok(match path {
            _ if path.starts_with("/api/v1/nodes/") => {
                format!(
                    r#"{{"metadata":{{"name":"{name}"}},"status":{{"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
                )
            }
            _ if path.contains("/leases/") => {
                r#"{"spec":{"renewTime":"2030-01-01T00:00:00.000000Z"}}"#.into()
            }
            _ => r#"{"items":[]}"#.into(),
        })
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
        1_900_000_000 + self.clock.get().as_secs()
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
