//! The programs that the agent runs: kubeadm with the traces that it leaves, systemctl, ctr.

use std::path::Path;

use super::{Command, Fake};
use crate::host::Host;

impl Fake {
    pub(super) fn own_address(&self) -> Option<String> {
        let hosts = self.text("/etc/hosts")?;
        let name = self.hostname();
        let line =
            hosts.lines().find(|l| l.split_whitespace().any(|w| w == name) && !l.starts_with("127."))?;
        Some(line.split_whitespace().next()?.to_owned())
    }

    /// Whether kubeadm was told of an external etcd.
    pub(super) fn is_external(&self) -> bool {
        let has = |path: &str, word: &str| self.text(path).is_some_and(|text| text.contains(word));
        has("/etc/kindling/kubeadm.yaml", "ExternalEtcdVersion")
            || has("/etc/kubernetes/manifests/kube-apiserver.yaml", "external")
    }

    pub(super) fn own_peer_url(&self) -> String {
        format!("https://{}:2380", self.own_address().unwrap_or_default())
    }

    /// With two members, of which one was announced and never started, nobody can write anything.
    pub(super) fn has_quorum(&self) -> bool {
        let members = &self.cluster.borrow().members;
        members.len() != 2 || members.iter().all(|(name, _)| !name.is_empty())
    }

    /// Whether this machine's etcd member runs; one that starts tells the others its name.
    pub(super) fn etcd_runs(&self) -> bool {
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

    pub(super) fn put_manifest(&self, members: &[(String, String)], existing: bool) {
        let list: Vec<String> = members.iter().map(|(name, url)| format!("{name}={url}")).collect();
        let state = if existing { "    - --initial-cluster-state=existing\n" } else { "" };
        let text = format!("    - --initial-cluster={}\n{state}status: {{}}\n", list.join(","));
        let path = "/etc/kubernetes/manifests/etcd.yaml".into();
        self.disk.borrow_mut().files.insert(path, (text.into(), 0o600));
    }

    pub(super) fn kubeadm_phase(&self, phase: &[String], half: bool) -> Result<String, String> {
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

    pub(super) fn kubeadm(&self, args: &[String], half: bool) -> Result<String, String> {
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
            let pod = if external { "pod, external etcd" } else { "pod" };
            self.put("/etc/kubernetes/manifests/kube-apiserver.yaml", pod);
            for beside in ["kube-controller-manager", "kube-scheduler"] {
                self.put(&format!("/etc/kubernetes/manifests/{beside}.yaml"), "pod");
            }
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
        let conf = "client-key: /var/lib/kubelet/pki/kubelet-client-current.pem\n";
        self.put("/etc/kubernetes/kubelet.conf", conf);
        if self.unsigned.get() > 0 {
            self.unsigned.set(self.unsigned.get() - 1);
            return Err("error execution phase kubelet-start: timed out waiting for the condition".into());
        }
        self.put("/var/lib/kubelet/pki/kubelet-client-current.pem", "pem");
        self.active.borrow_mut().insert("kubelet.service".into());
        Ok(String::new())
    }

    pub(super) fn systemctl(&self, args: &[String]) -> Result<String, String> {
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
            "kubeadm" if command.args[0] == "certs" => {
                // Cut short it has written some, and half of another.
                let all = self.renewed.borrow().clone();
                let count = if half { all.len() / 2 } else { all.len() };
                for (path, text) in all.iter().take(count) {
                    self.put(path, text);
                }
                if let Some((path, text)) = all.iter().nth(count) {
                    self.put(path, &text[..text.len() / 2]);
                }
                Ok(String::new())
            }
            "kubeadm" if command.args[0] == "version" => Ok("v1.20.2\n".into()),
            "kubeadm" => self.kubeadm(&command.args, half),
            "systemctl" => self.systemctl(&command.args),
            "ctr" => self.ctr(&command.args),
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
