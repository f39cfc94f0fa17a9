//! The programs that the agent runs beside kubeadm: systemctl, ctr and smaller ones; and etcd as it runs in a pod.

use std::path::{Path, PathBuf};

use super::{Command, Container, Fake};
use crate::host::Host;

impl Fake {
    pub(super) fn own_address(&self) -> Option<String> {
        let hosts = self.text("/etc/hosts")?;
        let name = self.hostname();
        let line =
            hosts.lines().find(|l| l.split_whitespace().any(|w| w == name) && !l.starts_with("127."))?;
        Some(line.split_whitespace().next()?.to_owned())
    }

    pub(super) fn own_peer_url(&self) -> String {
        format!("https://{}:2380", self.own_address().unwrap_or_default())
    }

    /// Whether more than half of the members that vote run: this machine's own, and all others in any case.
    pub(super) fn has_quorum(&self) -> bool {
        let own_runs = self.etcd_runs();
        let (url, cluster) = (self.own_peer_url(), self.cluster.borrow());
        let voters = cluster.members.iter().filter(|(_, peer)| cluster.learner.as_ref() != Some(peer));
        let (running, all) = voters.fold((0, 0), |(running, all), (_, peer)| {
            (running + usize::from(*peer != url || own_runs), all + 1)
        });
        all == 0 || running * 2 > all
    }

    /// Whether this machine's etcd member runs; one that starts tells the others its name.
    pub(super) fn etcd_runs(&self) -> bool {
        let manifest = self.text("/etc/kubernetes/manifests/etcd.yaml").unwrap_or_default();
        let runs = !self.etcd_never_starts.get() && manifest.ends_with("status: {}\n") && self.kubelet_runs();
        let url = self.own_peer_url();
        let mut cluster = self.cluster.borrow_mut();
        let Some(own) = cluster.members.iter_mut().find(|(_, peer)| *peer == url) else { return false };
        if runs && manifest.contains(&url) {
            own.0 = self.hostname();
            self.put("/var/lib/etcd/member", "");
        }
        runs
    }

    pub(super) fn put_manifest(&self, members: &[(String, String)], existing: bool) {
        let list: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
        let state = if existing { "    - --initial-cluster-state=existing\n" } else { "" };
        let text = format!("    - --initial-cluster={}\n{state}status: {{}}\n", list.join(","));
        let path = "/etc/kubernetes/manifests/etcd.yaml".into();
        self.disk.borrow_mut().files.insert(path, (text.into(), 0o600));
    }

    /// systemd reads its units' files.
    pub(super) fn reload(&self) {
        let disk = self.disk.borrow();
        let is_drop_in = |path: &&PathBuf| {
            path.starts_with("/etc/systemd/system")
                && path.parent().is_some_and(|folder| folder.extension().is_some_and(|end| end == "d"))
        };
        *self.drop_ins.borrow_mut() = disk.files.keys().filter(is_drop_in).cloned().collect();
    }

    /// With the drop-ins that systemd has read. One that runs already runs on as it is.
    pub(super) fn start_unit(&self, unit: &str) {
        let folder = PathBuf::from(format!("/etc/systemd/system/{unit}.d"));
        let read = self.drop_ins.borrow();
        let with = read.iter().filter(|path| path.starts_with(&folder)).cloned().collect();
        self.active.borrow_mut().entry(unit.to_owned()).or_insert(with);
    }

    /// The drop-ins that a unit runs with; `None` where it does not run.
    pub fn runs_with(&self, unit: &str) -> Option<Vec<PathBuf>> {
        self.active.borrow().get(unit).cloned()
    }

    pub(super) fn systemctl(&self, args: &[String]) -> Result<String, String> {
        let verb = args[0].as_str();
        let unit = args.last().cloned().unwrap_or_default();
        match verb {
            // systemd starts what is enabled beside the agent, and takes some seconds for it.
            "is-active"
                if self.clock.get() < self.started_at.get() && self.active.borrow().contains_key(&unit) =>
            {
                return Err("activating\n".into());
            }
            "is-active" if self.active.borrow().contains_key(&unit) => return Ok("active\n".into()),
            "is-enabled" if self.disk.borrow().enabled.contains(&unit) => {}
            "is-active" | "is-enabled" => return Err("no".into()),
            "enable" => {
                if args.iter().any(|a| a == "--now") && unit == "kubelet.service" {
                    self.start_kubelet();
                } else if args.iter().any(|a| a == "--now") {
                    self.start_unit(&unit);
                }
                self.reload();
                self.disk.borrow_mut().enabled.insert(unit);
            }
            "stop" => {
                self.active.borrow_mut().remove(&unit);
            }
            "start" | "restart" if unit == "kubelet.service" => self.start_kubelet(),
            "restart" if unit == "containerd.service" && self.cri_restarts.get() > 0 => {
                self.cri_restarts.set(self.cri_restarts.get() - 1);
            }
            "start" | "restart" => {
                if verb == "restart" {
                    self.active.borrow_mut().remove(&unit);
                }
                if unit == "etcd.service" {
                    self.start_etcd();
                }
                self.start_unit(&unit);
            }
            "try-restart" => {
                if self.active.borrow_mut().remove(&unit).is_some() {
                    self.start_unit(&unit);
                }
            }
            "daemon-reload" => self.reload(),
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

    pub(super) fn ctr(&self, args: &[String]) -> Result<String, String> {
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

    pub(super) fn start_container(&self, name: &str) {
        let certificate = self.text("/etc/kubernetes/pki/apiserver.crt");
        let mut containers = self.containers.borrow_mut();
        let starts = containers.get(name).map_or(1, |container| container.starts + 1);
        containers.insert(name.to_owned(), Container { starts, certificate });
    }

    pub(super) fn container_id(&self, name: &str) -> String {
        format!("{name}-{}", self.containers.borrow().get(name).map_or(0, |container| container.starts))
    }

    /// Whether a static pod's container was started with the API server's certificate that lies there now.
    pub fn uses_new_certificates(&self, name: &str) -> bool {
        let containers = self.containers.borrow();
        let started_with = containers.get(name).and_then(|container| container.certificate.clone());
        started_with.is_some() && started_with == self.text("/etc/kubernetes/pki/apiserver.crt")
    }

    /// A container that was stopped is started again by the kubelet.
    fn crictl(&self, args: &[String]) -> Result<String, String> {
        match args[0].as_str() {
            "ps" => {
                let name = args.iter().find_map(|a| a.strip_prefix("--label=io.kubernetes.container.name="));
                Ok(self.container_id(name.ok_or("the fake lists one container")?) + "\n")
            }
            "stop" => {
                let ids = args[1..].iter().filter(|arg| !arg.starts_with("--"));
                for (name, _) in ids.filter_map(|id| id.rsplit_once('-')) {
                    self.start_container(name);
                }
                Ok(String::new())
            }
            verb => Err(format!("the fake knows no crictl {verb}")),
        }
    }

    /// One argument holds the whole request: `info-set KEY VALUE` or `info-get KEY`.
    fn rpctool(&self, args: &[String]) -> Result<String, String> {
        let words: Vec<&str> = args[0].splitn(3, ' ').collect();
        match words[..] {
            ["info-get", key] => {
                self.guestinfo.borrow().get(key).cloned().ok_or_else(|| "No value found".into())
            }
            ["info-set", key, value] => {
                self.guestinfo.borrow_mut().insert(key.into(), value.into());
                Ok(String::new())
            }
            _ => Err("Unknown command".into()),
        }
    }

    pub(super) fn program(&self, command: &Command, half: bool) -> Result<String, String> {
        match command.program.as_str() {
            "kubeadm" => self.kubeadm_command(&command.args, half),
            "systemctl" => self.systemctl(&command.args),
            "ctr" => self.ctr(&command.args),
            // It runs in the background, and is not over when this returns.
            "systemd-run" => {
                let unit = command.args.iter().find_map(|word| word.strip_prefix("--unit="));
                self.start_unit(unit.expect("a name by which it is found again"));
                Ok(String::new())
            }
            "crictl" => self.crictl(&command.args),
            "dmsetup" => self
                .text(&format!("/fake/dmsetup/{}", command.args[1]))
                .ok_or_else(|| "no such device".into()),
            "etcdctl" => self.etcdctl(&command.args),
            "vmware-rpctool" => self.rpctool(&command.args),
            "install" => {
                let mode = u32::from_str_radix(&command.args[2], 8).map_err(|e| e.to_string())?;
                let path = command.args.last().expect("a folder").into();
                self.disk.borrow_mut().files.insert(path, (Vec::new(), mode));
                Ok(String::new())
            }
            "chronyc" if self.no_time_server.get() => {
                Ok("00000000,,0,0.000000000,0.000000000,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,Not synchronised\n"
                    .into())
            }
            "chronyc" => {
                Ok("0A000001,10.0.0.1,3,1900000000.1,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,64.2,Normal\n".into())
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
