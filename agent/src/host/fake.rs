//! A host in memory, for failures that cannot be staged on a real one: the power is cut at the n-th
//! effect, for every n. It models what the agent relies on: files, services, and the traces of kubeadm.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Command, CommandError, Host, Output};
use serde_json::{Value, json};

use crate::kube::{Credentials, KubeError, Method, Request, Server};
use crate::room::{self, Peer};

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

#[derive(Debug, Clone, Default)]
pub struct ClusterState {
    /// etcd members as (name, peer URL); a member that was announced and not started has no name.
    pub members: Vec<(String, String)>,
    /// The Node of a machine of this name that is not there any more.
    pub has_old_node: bool,
    /// The address of an API server that is of another cluster.
    pub foreign: Option<Ipv4Addr>,
    leases: BTreeMap<String, Value>,
    version: u64,
}

impl ClusterState {
    /// Somebody else holds this Lease, and does not renew it any more.
    pub fn hold_lease(&mut self, name: &str, holder: &str) {
        self.version += 1;
        let version = self.version.to_string();
        let lease = json!({ "metadata": { "name": name, "resourceVersion": version }, "spec": { "holderIdentity": holder } });
        self.leases.insert(name.to_owned(), lease);
    }

    pub fn lease_holder(&self, name: &str) -> Option<&str> {
        self.leases.get(name)?["spec"]["holderIdentity"].as_str()
    }
}

#[derive(Default)]
pub struct Fake {
    pub disk: RefCell<Disk>,
    active: RefCell<BTreeSet<String>>,
    hostname: RefCell<String>,
    /// Whether the API of the cluster answers without this node's doing: somebody else made it.
    pub cluster_is_up: Cell<bool>,
    /// What the cluster knows, wherever this machine's disk went.
    pub cluster: RefCell<ClusterState>,
    /// How often containerd must be restarted until its CRI plugin loads.
    pub cri_restarts: Cell<u32>,
    /// What the other control planes' agents say of their disks.
    pub peers_say: Cell<Peer>,
    /// How often the kubelet must be restarted before it starts the etcd pod, which it refuses until then.
    pub refuses_etcd: Cell<u32>,
    /// Whether a majority of an external etcd's members answers without this machine's doing.
    pub etcd_is_up: Cell<bool>,
    /// The list that the other members of an external etcd keep; nobody answers where `None`.
    pub etcd_members: RefCell<Option<Vec<serde_json::Value>>>,
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

    fn own_address(&self) -> Option<String> {
        let hosts = self.text("/etc/hosts")?;
        let name = self.hostname();
        let line =
            hosts.lines().find(|l| l.split_whitespace().any(|w| w == name) && !l.starts_with("127."))?;
        Some(line.split_whitespace().next()?.to_owned())
    }

    /// Whether kubeadm was told of an external etcd.
    fn is_external(&self) -> bool {
        self.text("/etc/kindling/kubeadm.yaml").is_some_and(|text| text.contains("ExternalEtcdVersion"))
    }

    fn own_peer_url(&self) -> String {
        format!("https://{}:2380", self.own_address().unwrap_or_default())
    }

    /// With two members, of which one was announced and never started, nobody can write anything.
    fn has_quorum(&self) -> bool {
        let members = &self.cluster.borrow().members;
        members.len() != 2 || members.iter().all(|(name, _)| !name.is_empty())
    }

    /// Whether this machine's etcd member runs; one that starts tells the others its name.
    fn etcd_runs(&self) -> bool {
        let manifest = self.text("/etc/kubernetes/manifests/etcd.yaml").unwrap_or_default();
        let admitted = self.refuses_etcd.get() == 0;
        let runs = admitted
            && manifest.ends_with("status: {}\n")
            && self.active.borrow().contains("kubelet.service");
        let url = self.own_peer_url();
        let mut cluster = self.cluster.borrow_mut();
        let Some(own) = cluster.members.iter_mut().find(|(_, peer)| *peer == url) else { return false };
        if runs && manifest.contains(&url) {
            own.0 = self.hostname();
            self.put("/var/lib/etcd/member", "");
        }
        runs
    }

    fn put_manifest(&self, members: &[(String, String)], existing: bool) {
        let list: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
        let state = if existing { "    - --initial-cluster-state=existing\n" } else { "" };
        let text = format!("    - --initial-cluster={}\n{state}status: {{}}\n", list.join(","));
        let path = "/etc/kubernetes/manifests/etcd.yaml".into();
        self.disk.borrow_mut().files.insert(path, (text.into(), 0o600));
    }

    fn kubeadm_phase(&self, phase: &[String], half: bool) -> Result<String, String> {
        let own = (self.hostname(), self.own_peer_url());
        match phase.iter().map(String::as_str).take(2).collect::<Vec<_>>()[..] {
            ["etcd", "local"] => self.put_manifest(&[own], false),
            ["control-plane-join", "etcd"] => {
                if !self.has_quorum() {
                    return Err("etcdserver: request timed out".into());
                }
                let mut members = self.cluster.borrow().members.clone();
                if members.iter().any(|(_, url)| *url == own.1) {
                    return Err("the fake's member was announced already, and has no name".into());
                }
                members.push((String::new(), own.1.clone()));
                self.cluster.borrow_mut().members = members.clone();
                if half {
                    return Ok(String::new());
                }
                members.last_mut().expect("it was just added").0 = own.0;
                self.put_manifest(&members, true);
            }
            ["control-plane-join", _] if !self.has_quorum() => return Err("the API does not answer".into()),
            _ => {}
        }
        Ok(String::new())
    }

    fn kubeadm(&self, args: &[String], half: bool) -> Result<String, String> {
        if let Some(phase) = args.get(1).filter(|a| *a == "phase").map(|_| &args[2..]) {
            return self.kubeadm_phase(phase, half);
        }
        let first_part = args.iter().any(|a| a.starts_with("--skip-phases="));
        let again = args.iter().any(|a| a.starts_with("--ignore-preflight-errors"));
        let has = |path: &str| self.disk.borrow().files.contains_key(Path::new(path));
        let config = self.text("/etc/kindling/kubeadm.yaml").ok_or("no configuration")?;
        if has("/etc/kubernetes/kubelet.conf") && !again {
            return Err("[ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists".into());
        }
        let control_plane = config.contains("InitConfiguration") || config.contains("controlPlane:");
        let external = config.contains("ExternalEtcdVersion");
        if control_plane {
            let etcd = if external { "apiserver-etcd-client.key" } else { "etcd/ca.key" };
            for name in ["ca.crt", "ca.key", "sa.key", "sa.pub", etcd, "front-proxy-ca.key"] {
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
                if !first_part && !external {
                    self.put("/var/lib/etcd/member", "");
                }
                return Ok(String::new());
            }
            self.put(
                "/etc/kubernetes/pki/apiserver.crt",
                "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            );
            self.put("/etc/kubernetes/pki/apiserver.key", "-----BEGIN RSA KEY-----\n-----END RSA KEY-----\n");
            self.put("/etc/kubernetes/admin.conf", "client-key-data: k\n");
            self.put("/etc/kubernetes/manifests/kube-apiserver.yaml", "pod");
            if !first_part && !external {
                let own = (self.hostname(), self.own_peer_url());
                self.put_manifest(std::slice::from_ref(&own), false);
                self.cluster.borrow_mut().members = vec![own];
                self.put("/var/lib/etcd/member", "");
            }
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
            "stop" => {
                self.active.borrow_mut().remove(&unit);
            }
            "restart" if unit == "kubelet.service" && self.refuses_etcd.get() > 0 => {
                self.refuses_etcd.set(self.refuses_etcd.get() - 1);
            }
            "restart" if unit == "containerd.service" && self.cri_restarts.get() > 0 => {
                self.cri_restarts.set(self.cri_restarts.get() - 1);
            }
            "start" | "restart" => {
                if unit == "etcd.service" {
                    self.start_etcd();
                }
                self.active.borrow_mut().insert(unit);
            }
            "disable" => {
                self.active.borrow_mut().remove(&unit);
                self.disk.borrow_mut().enabled.remove(&unit);
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

    /// etcd begins its log at once, and becomes known to the others.
    fn start_etcd(&self) {
        self.put("/var/lib/etcd/member/snap/db", "");
        self.put("/var/lib/etcd/member/wal/0.wal", "");
        for member in self.etcd_members.borrow_mut().iter_mut().flatten() {
            if member["clientURLs"].as_array().is_none_or(Vec::is_empty) {
                member["name"] = "this".into();
                member["clientURLs"] = serde_json::json!(["https://this:2379"]);
            }
        }
    }

    fn etcd(&self, server: &Server, path: &str) -> Result<String, KubeError> {
        let refused = || KubeError::Unreachable {
            address: server.address,
            reason: "connection refused".into(),
            timed_out: false,
        };
        match path {
            _ if self.dead.get() => Err(refused()),
            "/members" => match &*self.etcd_members.borrow() {
                Some(list) => Ok(serde_json::Value::from(list.clone()).to_string()),
                None => Err(refused()),
            },
            _ if self.etcd_is_up.get() || self.active.borrow().contains("etcd.service") => {
                Ok(r#"{"health":"true"}"#.into())
            }
            _ => Err(refused()),
        }
    }

    fn etcdctl(&self, args: &[String]) -> Result<String, String> {
        let mut members = self.etcd_members.borrow_mut();
        let list = members.as_mut().ok_or("context deadline exceeded")?;
        let verb = args.iter().position(|arg| arg == "member").map(|n| &args[n + 1..]);
        match verb {
            Some([verb, id]) if verb == "remove" => {
                let id = u64::from_str_radix(id, 16).map_err(|e| e.to_string())?;
                list.retain(|member| member["id"] != id);
            }
            Some([verb, _, url]) if verb == "add" => {
                let url = url.strip_prefix("--peer-urls=").ok_or("no URL")?;
                list.push(serde_json::json!({ "id": 99, "name": "", "peerURLs": [url], "clientURLs": [] }));
            }
            _ => return Err("the fake knows no such etcdctl".into()),
        }
        Ok(String::new())
    }

    fn ctr(&self, args: &[String]) -> Result<String, String> {
        if args[0] == "plugins" {
            let state = if self.cri_restarts.get() == 0 { "ok" } else { "error" };
            return Ok(format!("TYPE ID PLATFORMS STATUS\nio.containerd.grpc.v1 cri linux/amd64 {state}\n"));
        }
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
                let ours =
                    |path: &Path| ["/etc/kubernetes", "/var/lib/etcd"].iter().any(|f| path.starts_with(f));
                self.disk.borrow_mut().files.retain(|path, _| half || !ours(path));
                self.active.borrow_mut().remove("kubelet.service");
                Ok(String::new())
            }
            "journalctl" if self.refuses_etcd.get() > 0 => Ok(format!(
                "Failed to admit pod etcd-{}_kube-system(1): ephemeral-storage\n",
                self.hostname()
            )),
            "kubeadm" if command.args[0] == "version" => Ok("v1.20.2\n".into()),
            "kubeadm" => self.kubeadm(&command.args, half),
            "systemctl" => self.systemctl(&command.args),
            "ctr" => self.ctr(&command.args),
            "etcdctl" => self.etcdctl(&command.args),
            "install" => {
                let mode = u32::from_str_radix(&command.args[2], 8).map_err(|e| e.to_string())?;
                let path = command.args.last().expect("a folder").into();
                self.disk.borrow_mut().files.insert(path, (Vec::new(), mode));
                Ok(String::new())
            }
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

/// What the cluster answers.
impl Fake {
    fn answer(&self, server: &Server, request: &Request<'_>) -> Result<String, KubeError> {
        let unreachable = || KubeError::Unreachable {
            address: server.address,
            reason: "connection refused".into(),
            timed_out: false,
        };
        let status = |status| KubeError::Status {
            address: server.address,
            status,
            path: request.path.into(),
            message: "no".into(),
        };
        let is_own = self.own_address().is_some_and(|own| own == server.address.ip().to_string());
        if server.address.port() == room::PORT {
            return match self.peers_say.get() {
                Peer::Fresh => Ok(room::FRESH.into()),
                Peer::Member => Ok(room::MEMBER.into()),
                Peer::Silent => Err(unreachable()),
            };
        }
        // Only an external etcd is asked this way.
        if matches!(server.address.port(), 2379 | 2380) && request.method == Method::Get {
            return self.etcd(server, request.path);
        }
        if server.address.port() == 2379 {
            if !(if is_own { self.etcd_runs() } else { self.cluster_is_up.get() }) {
                return Err(unreachable());
            }
            return match request.path {
                "/v3/cluster/member/list" => Ok(self.member_list()),
                _ if !self.has_quorum() => Err(status(503)),
                "/v3/cluster/member/remove" => {
                    let id = request.body.and_then(|b| b["ID"].as_str()?.parse::<usize>().ok()).unwrap_or(0);
                    self.cluster.borrow_mut().members.remove(id);
                    Ok("{}".into())
                }
                _ => Ok("{}".into()),
            };
        }
        let has = |path: &str| self.disk.borrow().files.contains_key(Path::new(path));
        let kubelet = self.active.borrow().contains("kubelet.service");
        let own_api = kubelet
            && has("/etc/kubernetes/manifests/kube-apiserver.yaml")
            && (self.is_external() || self.etcd_runs());
        if !(own_api || (self.cluster_is_up.get() && !is_own)) || !self.has_quorum() {
            return Err(unreachable());
        }
        let name = self.hostname();
        match request.path {
            "/api/v1/namespaces/kube-system" => {
                let foreign = self.cluster.borrow().foreign.is_some_and(|ip| server.address.ip() == ip);
                let uid = if foreign { "5c0f" } else { "1d2e" };
                Ok(json!({ "metadata": { "uid": uid } }).to_string())
            }
            path if path.starts_with("/api/v1/nodes/") => {
                let registered = kubelet && has("/etc/kubernetes/kubelet.conf");
                if request.method == Method::Delete {
                    self.cluster.borrow_mut().has_old_node = false;
                } else if !registered && !self.cluster.borrow().has_old_node {
                    return Err(status(404));
                }
                let ready = if registered { "True" } else { "Unknown" };
                Ok(json!({
                    "metadata": { "name": name },
                    "status": { "conditions": [{ "type": "Ready", "status": ready }] },
                })
                .to_string())
            }
            path if path.contains("/kube-node-lease/") => {
                Ok(r#"{"spec":{"renewTime":"2030-01-01T00:00:00.000000Z"}}"#.into())
            }
            path if path.contains("/leases") => self
                .lease(request)
                .ok_or_else(|| status(if request.method == Method::Get { 404 } else { 409 })),
            _ => Ok(r#"{"items":[]}"#.into()),
        }
    }

    fn member_list(&self) -> String {
        let members = self.cluster.borrow().members.clone();
        let members: Vec<Value> = members
            .iter()
            .enumerate()
            .map(|(id, (name, url))| json!({ "ID": id.to_string(), "name": name, "peerURLs": [url] }))
            .collect();
        json!({ "members": members }).to_string()
    }

    /// Reads or writes a Lease, with the API's check of the version; `None` is its refusal.
    fn lease(&self, request: &Request<'_>) -> Option<String> {
        let cluster = &mut *self.cluster.borrow_mut();
        let name = match request.body {
            Some(body) => body["metadata"]["name"].as_str()?.to_owned(),
            None => request.path.rsplit('/').next()?.to_owned(),
        };
        let Some(body) = request.body else { return cluster.leases.get(&name).map(Value::to_string) };
        let known = cluster.leases.get(&name);
        if known.map(|k| &k["metadata"]["resourceVersion"]) != body["metadata"].get("resourceVersion") {
            return None;
        }
        cluster.version += 1;
        let mut body = body.clone();
        body["metadata"]["resourceVersion"] = cluster.version.to_string().into();
        cluster.leases.insert(name, body.clone());
        Some(body.to_string())
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
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Output, CommandError> {
        meanwhile();
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
