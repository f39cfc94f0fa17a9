//! kubeadm as 1.32 to 1.37 are, with the traces that it leaves (cmd/kubeadm/app/cmd/phases).

use std::path::Path;

use super::Fake;
use crate::host::Host;
use crate::role::NEWEST_MINOR;
use crate::role::types::KubernetesVersion;

const ETCD: &str = "control-plane-join/etcd";
const MARK: &str = "control-plane-join/mark-control-plane";
const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
const BOOTSTRAP_CONF: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
const CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

const BLANK_LOG: &str = "/var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal";

/// What etcd leaves where the power goes before it records anything: the three records of the log's head.
fn blank_log() -> String {
    let record = |kind| format!("\u{8}\0\0\0\0\0\0\0\u{8}{kind}\0\0\0\0\0\0");
    ['\u{4}', '\u{1}', '\u{5}'].map(record).concat() + &"\0".repeat(64)
}

/// Each phase of `kubeadm join` that does something, in order.
fn phases(kubeadm: KubernetesVersion) -> Vec<&'static str> {
    let mut phases = vec![
        "preflight",
        "control-plane-prepare",
        "check-etcd",
        "kubelet-start",
        "etcd-join",
        "kubelet-wait-bootstrap",
    ];
    if kubeadm.minor < 36 {
        phases.push(ETCD);
    }
    phases.extend([MARK, "wait-control-plane"]);
    phases
}

impl Fake {
    fn has(&self, path: &str) -> bool {
        self.disk.borrow().files.contains_key(Path::new(path))
    }

    fn drop_file(&self, path: &str) {
        self.disk.borrow_mut().files.remove(Path::new(path));
    }

    /// Whether kubeadm was told of an external etcd.
    pub(super) fn is_external(&self) -> bool {
        let has = |path: &str, word: &str| self.text(path).is_some_and(|text| text.contains(word));
        has("/etc/kindling/kubeadm.yaml", "ExternalEtcdVersion")
            || has("/etc/kubernetes/manifests/kube-apiserver.yaml", "external")
    }

    pub(super) fn kubeadm_version(&self) -> KubernetesVersion {
        self.kubeadm.get().unwrap_or(KubernetesVersion { major: 1, minor: NEWEST_MINOR, patch: 0 })
    }

    /// Whether the kubelet of a control plane asks the API server beside it (ControlPlaneKubeletLocalMode).
    fn local_mode(&self) -> bool {
        self.kubeadm_version().minor >= 33
    }

    /// A kubelet that neither has its certificate nor can ask for one ends at once; systemd starts it again in vain.
    pub(super) fn start_kubelet(&self) {
        let whole = |path: &str| self.text(path).is_some_and(|text| text.ends_with('\n'));
        self.active.borrow_mut().remove("kubelet.service");
        if !(self.has(CERTIFICATE) && whole(KUBELET_CONF)) {
            if !whole(BOOTSTRAP_CONF) {
                return;
            }
            // It writes its kubeconfig before it has the certificate that stands in it.
            self.put(KUBELET_CONF, &format!("client-key: {CERTIFICATE}\n"));
        }
        self.start_unit("kubelet.service");
    }

    pub(super) fn kubelet_runs(&self) -> bool {
        self.active.borrow().contains_key("kubelet.service")
    }

    pub(super) fn is_registered(&self) -> bool {
        self.kubelet_runs() && self.has(CERTIFICATE)
    }

    pub(super) fn kubeadm_command(&self, args: &[String], half: bool) -> Result<String, String> {
        let words: Vec<&str> = args.iter().map(String::as_str).take_while(|a| !a.starts_with('-')).collect();
        if let Some(stderr) = self.kubeadm_fails.borrow().get(&words.join(" ")) {
            return Err(stderr.clone());
        }
        match words[..] {
            ["version"] => Ok(format!("{}\n", self.kubeadm_version())),
            ["reset"] => {
                let ours =
                    |path: &Path| ["/etc/kubernetes", "/var/lib/etcd"].iter().any(|f| path.starts_with(f));
                self.disk.borrow_mut().files.retain(|path, _| half || !ours(path));
                self.active.borrow_mut().remove("kubelet.service");
                Ok(String::new())
            }
            ["certs", "renew", "all"] => self.renew(half),
            ["init", "phase", "etcd", "local"] => {
                self.put_manifest(&[(self.hostname(), self.own_peer_url())], false);
                Ok(String::new())
            }
            ["init"] => self.init(args, half),
            ["join"] => self.join(args, half),
            _ => Err(format!("unknown command {words:?} for \"kubeadm\"")),
        }
    }

    /// Cut short it has written some, and half of another.
    fn renew(&self, half: bool) -> Result<String, String> {
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

    fn init(&self, args: &[String], half: bool) -> Result<String, String> {
        self.preflight(args)?;
        self.control_plane(half)?;
        if half {
            if !self.is_external() {
                self.put("/var/lib/etcd/member", "");
                self.put(BLANK_LOG, &blank_log());
            }
            return Ok(String::new());
        }
        if self.text(BLANK_LOG) == Some(blank_log()) {
            return Err(
                "error execution phase wait-control-plane: failed while waiting for the control plane to \
                        start: kube-apiserver check failed at https://10.0.0.11:6443/livez"
                    .into(),
            );
        }
        if !self.is_external() {
            let own = (self.hostname(), self.own_peer_url());
            self.put_manifest(std::slice::from_ref(&own), false);
            self.cluster.borrow_mut().members = vec![own];
            self.put("/var/lib/etcd/member", "");
        }
        self.put(KUBELET_CONF, &format!("client-key: {CERTIFICATE}\n"));
        self.put(CERTIFICATE, "pem");
        self.start_kubelet();
        self.cluster.borrow_mut().is_marked = true;
        if self.kubeadm_version().minor >= 36 {
            self.cluster.borrow_mut().bindings.insert("kubeadm:apiserver-kubelet-client".into());
        }
        self.make_dns();
        Ok(String::new())
    }

    fn preflight(&self, args: &[String]) -> Result<(), String> {
        let again = args.iter().any(|a| a.starts_with("--ignore-preflight-errors"));
        let there = [KUBELET_CONF, BOOTSTRAP_CONF].into_iter().find(|path| self.has(path));
        match there {
            Some(path) if !again => Err(format!(
                "[preflight] Some fatal errors occurred:\n\t[ERROR FileAvailable-{}]: {path} already exists\n\
                 [preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`\n\
                 error: error execution phase preflight: preflight checks failed\n\
                 To see the stack trace of this error execute with --v=5 or higher",
                path.replace('/', "-")
            )),
            _ => Ok(()),
        }
    }

    /// Certificates, kubeconfigs and manifests but etcd's.
    fn control_plane(&self, half: bool) -> Result<(), String> {
        let etcd = if self.is_external() { "apiserver-etcd-client.key" } else { "etcd/ca.key" };
        for name in ["ca.crt", "ca.key", "sa.key", "sa.pub", etcd, "front-proxy-ca.key"] {
            if !self.has(&format!("/etc/kubernetes/pki/{name}")) {
                return Err(format!("/etc/kubernetes/pki/{name} is missing"));
            }
        }
        let leaf = self.text("/etc/kubernetes/pki/apiserver.crt");
        if leaf.is_some_and(|t| !t.ends_with("-----END CERTIFICATE-----\n")) {
            return Err("failure loading apiserver certificate".into());
        }
        if half {
            self.put("/etc/kubernetes/pki/apiserver.crt", "-----BEGIN CERT");
            self.put(KUBELET_CONF, "apiVersion: v1\ncl");
            return Ok(());
        }
        self.put(
            "/etc/kubernetes/pki/apiserver.crt",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        );
        self.put("/etc/kubernetes/pki/apiserver.key", "-----BEGIN RSA KEY-----\n-----END RSA KEY-----\n");
        self.put("/etc/kubernetes/admin.conf", "client-key-data: k\n");
        let pod = if self.is_external() { "pod, external etcd" } else { "pod" };
        self.put("/etc/kubernetes/manifests/kube-apiserver.yaml", pod);
        for beside in ["kube-controller-manager", "kube-scheduler"] {
            self.put(&format!("/etc/kubernetes/manifests/{beside}.yaml"), "pod");
        }
        Ok(())
    }

    fn join(&self, args: &[String], half: bool) -> Result<String, String> {
        let all = phases(self.kubeadm_version());
        let skipped: Vec<&str> = args
            .iter()
            .find_map(|a| a.strip_prefix("--skip-phases="))
            .into_iter()
            .flat_map(|l| l.split(','))
            .collect();
        if let Some(unknown) = skipped.iter().find(|s| **s != "control-plane-join" && !all.contains(s)) {
            return Err(format!("invalid phase name: {unknown}"));
        }
        let is_skipped = |phase: &str| {
            skipped.contains(&phase)
                || (phase.starts_with("control-plane-join/") && skipped.contains(&"control-plane-join"))
        };
        let config = self.text("/etc/kindling/kubeadm.yaml").ok_or("no configuration")?;
        let control_plane = config.contains("controlPlane:");
        if !self.has_quorum() {
            return Err("error execution phase: the API does not answer".into());
        }
        for phase in all.into_iter().filter(|phase| !is_skipped(phase)) {
            match phase {
                "preflight" => {
                    self.preflight(args)?;
                    continue;
                }
                "control-plane-prepare" if control_plane => self.control_plane(half)?,
                "kubelet-start" => self.kubelet_start(control_plane, half)?,
                "etcd-join" if self.local_mode() && control_plane && !self.is_external() => {
                    self.add_member(half)?
                }
                ETCD if !self.local_mode() && control_plane && !self.is_external() => {
                    self.add_member(half)?
                }
                "kubelet-wait-bootstrap" if self.local_mode() => {
                    self.wait_bootstrap(phase, control_plane, half)?
                }
                MARK if control_plane && !half => {
                    if !self.is_registered() {
                        return Err(format!(
                            "error execution phase {MARK}: nodes \"{}\" not found",
                            self.hostname()
                        ));
                    }
                    self.cluster.borrow_mut().is_marked = true;
                }
                _ => continue,
            }
            // The power is cut in the first phase that leaves something behind.
            if half {
                break;
            }
        }
        Ok(String::new())
    }

    fn kubelet_start(&self, control_plane: bool, half: bool) -> Result<(), String> {
        if self.is_registered() {
            return Err(format!(
                "error execution phase kubelet-start: a Node with name {:?} and status \"Ready\" already exists in the cluster",
                self.hostname()
            ));
        }
        if half {
            self.put(BOOTSTRAP_CONF, "apiVersion: v1\nto");
            return Ok(());
        }
        self.put(BOOTSTRAP_CONF, "token: t\n");
        if !control_plane {
            self.put("/etc/kubernetes/pki/ca.crt", "ca");
        }
        self.start_kubelet();
        if self.local_mode() { Ok(()) } else { self.wait_bootstrap("kubelet-start", control_plane, false) }
    }

    /// The file with the token goes in any case.
    fn wait_bootstrap(&self, phase: &str, control_plane: bool, half: bool) -> Result<(), String> {
        self.drop_file(BOOTSTRAP_CONF);
        let failed = |why: &str| {
            Err(format!(
                "error execution phase {phase}: failed while waiting for TLS bootstrap: {why}\n\
                 To see the stack trace of this error execute with --v=5 or higher"
            ))
        };
        if half {
            return Ok(());
        }
        if !self.kubelet_runs() {
            return failed("the kubelet does not run");
        }
        if control_plane && self.local_mode() && !self.is_external() && !self.etcd_runs() {
            return failed("the API server beside it does not answer");
        }
        if self.unsigned.get() > 0 {
            self.unsigned.set(self.unsigned.get() - 1);
            return failed("timed out waiting for the condition");
        }
        self.put(CERTIFICATE, "pem");
        Ok(())
    }

    /// Announces a learner, or takes up the announcement of an earlier run; writes the manifest, and gives it its vote
    /// once it runs.
    fn add_member(&self, half: bool) -> Result<(), String> {
        let own = (self.hostname(), self.own_peer_url());
        let mut members = self.cluster.borrow().members.clone();
        if !members.iter().any(|(_, url)| *url == own.1) {
            members.push((String::new(), own.1.clone()));
            let mut cluster = self.cluster.borrow_mut();
            cluster.members = members.clone();
            cluster.learner = Some(own.1.clone());
        }
        if half {
            return Ok(());
        }
        members.iter_mut().filter(|(_, url)| *url == own.1).for_each(|member| member.0 = own.0.clone());
        self.put_manifest(&members, true);
        if self.dies_before_promotion.take() || !self.etcd_runs() {
            return Err("error execution phase etcd-join: etcd cluster: member was not promoted".into());
        }
        self.cluster.borrow_mut().learner = None;
        Ok(())
    }
}
