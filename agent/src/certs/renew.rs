//! The renewal on a control plane: one machine at a time, and its API server is ready again before the next one's turn.
//!
//! kubeadm writes neither atomically nor durably, so what it will overwrite is kept first, and a mark says how far the
//! renewal is: after a power cut in kubeadm the old files are put back and it runs again; after one in the restarts they
//! are done again. Both may be repeated at will.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;

use super::list::{Entry, Renewer, entries};
use crate::access::{Access, administrator};
use crate::cluster::pki::validity;
use crate::error::StepError;
use crate::host::{Command, Host, date, exists, read_text};
use crate::kube::{KubeError, Server};
use crate::lease::{self, Lock};
use crate::published;
use crate::render::API_PORT;
use crate::retry::{Attempt, Patience, wait};
use crate::role::{ControlPlaneRole, NodeSpec};
use crate::step::certificates::Certificates;
use crate::step::files::{ADMIN_CONF, ROOT_KUBECONFIG};
use crate::step::kubeadm;
use crate::survey::{node_address, pod_trouble};

/// Says how far a renewal is that has begun.
pub const MARK: &str = "/var/lib/kindling/certs-renewal";
const KEPT: &str = "/var/lib/kindling/certs-before";
const RENEWING: &str = "renewing\n";
const RESTARTING: &str = "restarting\n";
/// Nearer to the end than this a renewal does not wait for control planes that are away.
const URGENT: time::Duration = time::Duration::days(7);
/// In this order: each needs the ones before it.
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// What a component has for its end before it is killed: the kubelet's own default.
const GRACE: Duration = Duration::from_secs(30);

pub struct Renewal<'a> {
    pub host: &'a dyn Host,
    pub spec: &'a NodeSpec,
    /// The part of a life that may be left, in percent.
    pub left: u8,
    /// Whatever is left.
    pub now: bool,
}

/// Those of ours of whose life less than `left` percent is left, or that are no certificates.
pub fn due(list: &[Entry], now: OffsetDateTime, left: u8) -> Vec<&Entry> {
    let is_due = |e: &&Entry| match (e.starts, e.ends) {
        (Some(starts), Some(ends)) => {
            (ends - now).whole_seconds() * 100 < (ends - starts).whole_seconds() * i64::from(left)
        }
        _ => true,
    };
    list.iter().filter(|e| e.renewed_by.is_ours()).filter(is_due).collect()
}

impl Renewal<'_> {
    /// Returns what was done, in words.
    pub fn run(&self, waiting: &mut dyn FnMut(&str)) -> Result<String, StepError> {
        // What is issued by such a clock ends when it is set right.
        let now = date(self.host);
        if validity(&self.spec.ca).is_some_and(|(from, to)| !(from..to).contains(&now)) {
            return Err(StepError::passing(
                format!(
                    "this machine's clock says {}, which is outside of the life of the cluster's CA",
                    now.date()
                ),
                "`chronyc tracking` says why it is not set; it is tried again tomorrow",
            ));
        }
        if let Some(certificates) = Certificates::of_etcd_member(self.spec) {
            // etcd reads them anew at each connection.
            let issued = certificates.ensure(self.host)?;
            return Ok(told(&issued, "etcd's certificates are good: nothing was done"));
        }
        let Some(role) = self.spec.control_plane() else {
            return Ok("no certificate here is renewed by Kindling: the kubelet renews its own".into());
        };
        let list = entries(self.host);
        let begun = exists(self.host, MARK);
        let due = due(&list, date(self.host), self.left);
        if due.is_empty() && !begun && !self.now {
            let first = list.iter().filter(|e| e.renewed_by.is_ours()).find_map(|e| e.ends);
            let first = first.map_or(String::new(), |e| format!("; the first one ends on {}", e.date()));
            return Ok(format!("nothing is due{first}"));
        }
        let access = Access::new(self.host, self.spec, role)?;
        let lock = lease::acquire(
            &access,
            lease::CONTROL_PLANE,
            self.spec.name.as_str(),
            self.spec.deadlines.cluster,
            waiting,
        )?;
        self.others_are_ready(role, &access, &lock, &list, waiting)?;
        self.certificates(begun, &lock, waiting)?;
        for component in COMPONENTS {
            self.restart(component, role, &access, &lock, waiting)?;
        }
        // The old keys first: a mark that stays has the restarts done once more, and then this.
        self.remove(KEPT)?;
        self.remove(MARK)?;
        lock.release();
        Ok("renewed, and the control plane's pods restarted with them".into())
    }

    fn remove(&self, path: &str) -> Result<(), StepError> {
        self.host.remove(path.as_ref()).map_err(|e| StepError::file("remove", path.as_ref(), &e))
    }

    fn write(&self, path: &Path, content: &str, mode: u32) -> Result<(), StepError> {
        self.host.write(path, content.as_bytes(), mode).map_err(|e| StepError::file("write", path, &e))
    }

    /// The other control planes that are in the cluster: those that were Ready once, and those of the role file that have a
    /// Node. One of the role file may never have come, or have been taken out, and later ones are in no role file.
    fn others(&self, role: &ControlPlaneRole, access: &Access<'_>) -> Result<BTreeSet<Ipv4Addr>, String> {
        let text = |error: KubeError| error.to_string();
        let nodes = access.get("/api/v1/nodes").map_err(text)?;
        let addresses = nodes["items"].as_array().into_iter().flatten().filter_map(node_address);
        let mut others: BTreeSet<Ipv4Addr> = addresses.filter(|ip| role.peers.contains(ip)).collect();
        others.extend(published::list(access).map_err(text)?.into_values());
        others.remove(&self.spec.address());
        Ok(others)
    }

    /// A restart here takes one API server and one etcd member away: the others must carry the cluster meanwhile.
    fn others_are_ready(
        &self,
        role: &ControlPlaneRole,
        access: &Access<'_>,
        lock: &Lock<'_>,
        list: &[Entry],
        waiting: &mut dyn FnMut(&str),
    ) -> Result<(), StepError> {
        let credentials = administrator(self.host, self.spec, role)?;
        let first = list.iter().filter(|e| e.renewed_by.is_ours()).find_map(|e| e.ends);
        let urgent = first.is_none_or(|ends| ends - date(self.host) < URGENT);
        let ready = || -> Result<(), String> {
            for peer in self.others(role, access)? {
                let server = Server::at(&self.spec.ca, peer, API_PORT);
                let asked = self.host.get(&server, &credentials, "/readyz", Duration::from_secs(5));
                asked.map_err(|error| format!("the API server at {peer} is not ready: {error}"))?;
            }
            Ok(())
        };
        let waited = wait(
            self.host,
            Patience::seconds(300),
            waiting,
            || {
                lock.keep();
                ready().map_or_else(Attempt::NotYet, Attempt::Ready)
            },
            |reason| {
                StepError::passing(
                    reason,
                    "bring that control plane back, or take it out of the cluster; the certificates are renewed all the same when the first has less than 7 days left",
                )
            },
        );
        match waited {
            Err(error) if urgent => {
                waiting(&format!("{error}: going on, as a certificate ends within 7 days"));
                Ok(())
            }
            other => other,
        }
    }

    /// Makes the new files, unless that was done before the power was cut.
    fn certificates(
        &self,
        begun: bool,
        lock: &Lock<'_>,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<(), StepError> {
        let mark = read_text(self.host, MARK);
        if begun && mark.as_deref() == Some(RESTARTING) {
            return Ok(());
        }
        let files = overwritten();
        let kept = |path: &Path| PathBuf::from(format!("{KEPT}{}", path.display()));
        if begun {
            waiting("an earlier renewal was interrupted: putting the old files back first");
            for path in &files {
                if let Some(old) = read_text(self.host, kept(path)) {
                    self.write(path, &old, mode(path))?;
                }
            }
        } else {
            for path in &files {
                if let Some(text) = read_text(self.host, path) {
                    self.write(&kept(path), &text, 0o600)?;
                }
            }
            self.write(MARK.as_ref(), RENEWING, 0o600)?;
        }
        lock.keep();
        waiting("kubeadm certs renew runs");
        let command = Command::new("kubeadm", ["certs", "renew", "all"]).timeout(Duration::from_secs(300));
        kubeadm::ended(self.host, self.spec, "certs renew", &command, lock.keep_while(&command))?;
        if let Some(certificates) = Certificates::of_etcd_client(self.spec) {
            certificates.ensure(self.host)?;
        }
        if let Some(admin) = read_text(self.host, ADMIN_CONF) {
            self.write(ROOT_KUBECONFIG.as_ref(), &admin, 0o600)?;
        }
        self.host.sync();
        let list = entries(self.host);
        let bad = list.iter().find(|e| e.renewed_by == Renewer::Kubeadm && e.ends.is_none());
        if let Some(bad) = bad {
            return Err(StepError::passing(
                format!("kubeadm left {} without a certificate in it", bad.path),
                format!(
                    "the old files are in {KEPT}; they are put back and it is tried again at the next run"
                ),
            ));
        }
        self.write(MARK.as_ref(), RESTARTING, 0o600)
    }

    /// Stops the static pod's container, which the kubelet starts anew, and waits until it is Ready. The manifest stays
    /// kubeadm's to the letter: `kubeadm upgrade` restarts whatever differs from what it would write.
    fn restart(
        &self,
        component: &str,
        role: &ControlPlaneRole,
        access: &Access<'_>,
        lock: &Lock<'_>,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<(), StepError> {
        // There is no etcd of kubeadm's where it is an external one.
        if !exists(self.host, format!("/etc/kubernetes/manifests/{component}.yaml")) {
            return Ok(());
        }
        waiting(&format!("{component} is started again with the new certificates"));
        // None where it has just ended by itself: the kubelet is about to start it, with what lies there now.
        let old = kubeadm::containers(self.host, component)?;
        if !old.is_empty() {
            lock.keep_while(&kubeadm::stop_containers(&old, GRACE))?;
        }
        let pod = format!("/api/v1/namespaces/kube-system/pods/{component}-{}", self.spec.name);
        let credentials = administrator(self.host, self.spec, role)?;
        let own = Server::at(&self.spec.ca, self.spec.address(), API_PORT);
        wait(
            self.host,
            Patience::seconds(self.spec.deadlines.kubeadm),
            waiting,
            || {
                lock.keep();
                let pod = match access.get(&pod) {
                    Ok(pod) => pod,
                    Err(error) => return Attempt::NotYet(format!("{component} is starting: {error}")),
                };
                // The API tells of the stopped one until the kubelet has said otherwise.
                let container = pod["status"]["containerStatuses"][0]["containerID"].as_str();
                match container.and_then(|id| id.split_once("://")) {
                    Some((_, id)) if !old.iter().any(|stopped| stopped == id) => {}
                    _ => return Attempt::NotYet(format!("the kubelet has not restarted {component} yet")),
                }
                if let Some(why) = pod_trouble(&pod) {
                    return Attempt::NotYet(format!("{component} is not Ready: {why}"));
                }
                match self.host.get(&own, &credentials, "/readyz", Duration::from_secs(5)) {
                    Ok(_) => Attempt::Ready(()),
                    Err(error) => Attempt::NotYet(format!("this machine's API server is not ready: {error}")),
                }
            },
            |reason| {
                StepError::passing(
                    reason,
                    format!(
                        "`crictl ps -a`, `crictl logs` and `journalctl -u kubelet` say why; the files from before are in {KEPT}"
                    ),
                )
            },
        )
    }
}

fn told(issued: &[String], nothing: &str) -> String {
    if issued.is_empty() { nothing.to_owned() } else { format!("issued {}", issued.join(", ")) }
}

/// What kubeadm writes: each pair, and each kubeconfig.
fn overwritten() -> Vec<PathBuf> {
    use crate::step::kubeadm::{CONFS, LEAVES};
    let pki =
        LEAVES.iter().flat_map(|leaf| ["crt", "key"].map(|k| format!("/etc/kubernetes/pki/{leaf}.{k}")));
    let confs = CONFS.iter().filter(|c| !c.ends_with("kubelet")).map(|c| format!("/etc/kubernetes/{c}.conf"));
    pki.chain(confs).map(PathBuf::from).collect()
}

fn mode(path: &Path) -> u32 {
    if path.extension().is_some_and(|e| e == "crt") { 0o644 } else { 0o600 }
}
