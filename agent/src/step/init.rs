//! `kubeadm init` on the designated first control plane: once in a cluster's life.
//!
//! With pre-shared CAs two clusters formed by accident would trust each other, so the first control
//! plane inits only where nobody answers under the cluster's CA and no member's data exists.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::etcd_log::{self, Log};
use super::join::{JOINING, Join};
use super::{Context, Found, files, kubeadm};
use crate::error::StepError;
use crate::host::{Command, Host, exists};
use crate::kube::{Credentials, KubeError, Server};
use crate::plan::FileSpec;
use crate::retry::{Attempt, Patience, wait};
use crate::role::NodeSpec;
use crate::room::{self, Peer};

/// Written before the first `kubeadm init`: what lies on this disk afterwards is our own half-done work.
const GRANT: &str = "/var/lib/kindling/init-grant";

#[derive(Debug, Clone, PartialEq)]
pub struct Init {
    pub config: FileSpec,
    /// What to do instead where the cluster exists already: this machine was rebuilt.
    pub join: Join,
    pub pki: Vec<FileSpec>,
}

impl Init {
    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        if !cx.completed {
            return Ok(Found::Differs(
                kubeadm::trace(cx.host).map_or("nothing was begun".into(), |t| format!("{t} is there")),
            ));
        }
        for path in [
            "/etc/kubernetes/admin.conf",
            kubeadm::KUBELET_CONF,
            "/etc/kubernetes/manifests/kube-apiserver.yaml",
        ] {
            if !exists(cx.host, path) {
                return Err(StepError::lasting(
                    format!("this node was a control plane, but {path} is gone"),
                    "restore it from a backup, or give the machine a fresh disk and boot it with its seed: it then joins",
                ));
            }
        }
        Ok(Found::matches())
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        if exists(cx.host, JOINING) {
            return self.join.act(cx);
        }
        let granted = exists(cx.host, GRANT);
        let trace = kubeadm::trace(cx.host);
        if let (Some(trace), false) = (trace, granted) {
            return Err(StepError::lasting(
                format!(
                    "{trace} is there, and Kindling did not write it: this disk belonged to another cluster or was set up by hand"
                ),
                "boot the VM from a fresh disk; if it is this cluster's data, keep it and do not init",
            ));
        }
        if trace.is_none() {
            if let Some(who) = existing(cx)? {
                (cx.waiting)(&format!("the cluster exists already ({who} answers): joining it"));
                return self.join.act(cx);
            }
            cx.host
                .write(Path::new(GRANT), b"kubeadm init was begun on this disk\n", 0o644)
                .map_err(|e| StepError::file("write", Path::new(GRANT), &e))?;
        } else {
            let mut mended = kubeadm::mend(cx.host)?;
            mended.extend(remove_blank_log(cx.host)?);
            files::act(&self.pki, cx)?;
            let what = if mended.is_empty() {
                String::new()
            } else {
                format!("; removed what was cut short: {}", mended.join(", "))
            };
            (cx.waiting)(&format!("an earlier kubeadm init was interrupted: going over it again{what}"));
        }
        files::write(cx.host, &self.config)?;
        kubeadm::run(cx, "init", None, trace.is_some())?;
        Ok(trace.map(|_| "completed what an interrupted run had begun".to_owned()))
    }
}

/// etcd would wait for ever on a log in which nothing stands. Says what was removed.
fn remove_blank_log(host: &dyn Host) -> Result<Option<String>, StepError> {
    let is_blank = || etcd_log::look(host).map(|log| log == Log::Blank);
    if !is_blank()? {
        return Ok(None);
    }
    // kubeadm starts the kubelet again, and writes the manifest.
    host.run(&Command::new("systemctl", ["stop", "kubelet.service"]))?;
    files::remove(host, kubeadm::ETCD_MANIFEST)?;
    let running = kubeadm::containers(host, "etcd")?;
    if !running.is_empty() {
        host.run(&kubeadm::stop_containers(&running, Duration::from_secs(10)))?;
    }
    // It may have been its first start that was seen, and have come to something before it was stopped.
    if !is_blank()? {
        return Ok(None);
    }
    files::remove(host, kubeadm::ETCD_MEMBER)?;
    Ok(Some(format!("{} (etcd had recorded nothing yet)", kubeadm::ETCD_MEMBER)))
}

/// How long peers that do not answer at all are waited for: machines that were powered on at the same moment answer
/// by then. One that is off must not keep a cluster from being formed.
const GRACE: Duration = Duration::from_secs(45);

/// Who has the cluster, once the other control planes said whether they know one; `None` where nobody does.
fn existing(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let (host, spec) = (cx.host, cx.spec);
    let role = spec.control_plane().expect("only control planes init");
    let name = |ip: &Ipv4Addr| {
        let name = spec.hosts.iter().find(|(_, address)| *address == ip).map(|(name, _)| name.to_string());
        name.unwrap_or_else(|| ip.to_string())
    };
    let start = host.now();
    let patience = Patience { longest: Duration::from_secs(2), ..Patience::seconds(spec.deadlines.cluster) };
    wait(
        host,
        patience,
        cx.waiting,
        || {
            match somebody(host, spec) {
                Ok(None) => {}
                Ok(who) => return Attempt::Ready(who),
                Err(error) => return Attempt::Never(error),
            }
            let said: Vec<(&Ipv4Addr, Peer)> =
                role.peers.iter().map(|ip| (ip, room::ask(host, &spec.ca, *ip))).collect();
            let those = |what: Peer| -> Vec<String> {
                said.iter().filter(|(_, said)| *said == what).map(|(ip, _)| name(ip)).collect()
            };
            let (members, silent) = (those(Peer::Member), those(Peer::Silent));
            if !members.is_empty() {
                return Attempt::NotYet(format!(
                    "{} had the cluster before this machine's disk was new: its API does not answer yet",
                    members.join(", ")
                ));
            }
            if silent.is_empty() || host.now().saturating_sub(start) >= GRACE {
                return Attempt::Ready(None);
            }
            Attempt::NotYet(format!(
                "{} did not say yet whether the cluster exists; it is formed without them after {} s",
                silent.join(", "),
                GRACE.as_secs()
            ))
        },
        |reason| {
            StepError::passing(
                reason,
                "bring the other control planes back: their consoles say what they wait for. If their data is lost for good, give them empty disks",
            )
        },
    )
}

/// Whoever answers under the cluster's CA, at the endpoint or at another control plane.
fn somebody(host: &dyn Host, spec: &NodeSpec) -> Result<Option<String>, StepError> {
    let role = spec.control_plane().expect("only control planes init");
    // A name that cannot be resolved yet answers nothing.
    let mut servers = kubeadm::endpoint_servers(host, spec).unwrap_or_default();
    servers.extend(role.peers.iter().map(|peer| Server::at(&spec.ca, *peer, 6443)));
    for server in servers {
        match host.get(&server, &Credentials::Anonymous, "/readyz", Duration::from_secs(2)) {
            // Not ready is an answer, too: it has this cluster's certificate.
            Ok(_) | Err(KubeError::Status { .. }) => return Ok(Some(server.address.to_string())),
            Err(error @ KubeError::Clock { .. }) => {
                return Err(StepError::passing(
                    error.to_string(),
                    "one of the two clocks is wrong: compare `date -u` on both; it is tried again",
                ));
            }
            Err(KubeError::Untrusted { address, reason }) => {
                return Err(StepError::passing(
                    format!("{address} is answered by somebody who is not of this cluster: {reason}"),
                    "two clusters share an address, or the seeds were rendered with other secrets: choose another VIP or boot all nodes with seeds of one `kindling render`",
                ));
            }
            Err(KubeError::Unreachable { .. }) => {}
            Err(error @ KubeError::Client(_)) => {
                return Err(StepError::lasting(
                    error.to_string(),
                    "render the seeds again with `kindling render`",
                ));
            }
        }
    }
    Ok(None)
}
