//! `kubeadm init` on the designated first control plane: once in a cluster's life.
//!
//! With pre-shared CAs two clusters formed by accident would trust each other, so the first control
//! plane inits only where nobody answers under the cluster's CA and no member's data exists.

use std::path::Path;
use std::time::Duration;

use super::join::{JOINING, Join};
use super::{Context, Found, files, kubeadm};
use crate::error::StepError;
use crate::host::exists;
use crate::kube::{Credentials, KubeError, Server};
use crate::plan::FileSpec;

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
            if let Some(who) = somebody(cx)? {
                (cx.waiting)(&format!("the cluster exists already ({who} answers): joining it"));
                return self.join.act(cx);
            }
            cx.host
                .write(Path::new(GRANT), b"kubeadm init was begun on this disk\n", 0o644)
                .map_err(|e| StepError::file("write", Path::new(GRANT), &e))?;
        } else {
            let mended = kubeadm::mend(cx.host)?;
            files::act(&self.pki, cx)?;
            let what = if mended.is_empty() {
                String::new()
            } else {
                format!("; removed what was cut short: {}", mended.join(", "))
            };
            (cx.waiting)(&format!("an earlier kubeadm init was interrupted: going over it again{what}"));
        }
        files::write(cx.host, &self.config)?;
        kubeadm::run(cx, "init", "", trace.is_some())?;
        Ok(trace.map(|_| "completed what an interrupted run had begun".to_owned()))
    }
}

/// Whoever answers under the cluster's CA, at the endpoint or at another control plane.
fn somebody(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let role = cx.spec.control_plane().expect("only control planes init");
    // A name that cannot be resolved yet answers nothing.
    let mut servers = kubeadm::endpoint_servers(cx.host, cx.spec).unwrap_or_default();
    servers.extend(role.peers.iter().map(|peer| Server::at(&cx.spec.ca, *peer, 6443)));
    for server in servers {
        match cx.host.get(&server, &Credentials::Anonymous, "/readyz", Duration::from_secs(2)) {
            // Not ready is an answer, too: it has this cluster's certificate.
            Ok(_) | Err(KubeError::Status { .. }) => return Ok(Some(server.address.to_string())),
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
