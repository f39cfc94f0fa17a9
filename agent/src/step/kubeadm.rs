//! What init and join share: running kubeadm, reading the traces it leaves, mending what a power cut
//! left half-written.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Context, last_words};
use crate::error::StepError;
use crate::host::{Command, CommandError, Host, exists, read_text};
use crate::kube::Server;
use crate::role::NodeSpec;
use crate::role::types::{HostOrAddress, KubernetesVersion};

pub const LOG_FILE: &str = "/var/log/kindling/kubeadm.log";
/// Bytes of earlier commands' output that stay.
const LOG_KEPT: usize = 256 << 10;
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// What the kubelet's kubeconfig refers to, once the controller manager has signed it.
const KUBELET_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
pub const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// Files and folders that show that kubeadm has begun on this machine.
pub const TRACES: &[&str] = &[
    "/etc/kubernetes/admin.conf",
    KUBELET_CONF,
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    ETCD_MANIFEST,
    "/var/lib/etcd/member",
];

/// The first trace of an earlier kubeadm, if any.
pub fn trace(host: &dyn Host) -> Option<&'static str> {
    TRACES.iter().copied().find(|path| exists(host, path))
}

/// Checks that would stop a second run over what a first run left. What they look for is ours, and
/// kubeadm's phases write it again (facts: every phase of init is create-or-update).
const OURS: &str = "FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml,\
FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml,\
FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml,\
FileAvailable--etc-kubernetes-manifests-etcd.yaml,\
FileAvailable--etc-kubernetes-kubelet.conf,\
FileAvailable--etc-kubernetes-bootstrap-kubelet.conf,\
FileAvailable--etc-kubernetes-pki-ca.crt,\
DirAvailable--etc-kubernetes-manifests,\
DirAvailable--var-lib-etcd,\
Port-6443,Port-10250,Port-10257,Port-10259,Port-2379,Port-2380";

/// `kubeadm init` or `kubeadm join` with our configuration, with these phases left out (a list with commas);
/// `again` over what an earlier run left.
pub fn run(cx: &mut Context<'_>, verb: &str, skip: &str, again: bool) -> Result<(), StepError> {
    super::certificates::before_kubeadm(cx)?;
    // Without it the node would not come back after a reboot.
    cx.host.run(&Command::new("systemctl", ["enable", "kubelet.service"]))?;
    let mut args = vec![verb.to_owned(), "--config".into(), crate::plan::KUBEADM_FILE.into()];
    if !skip.is_empty() {
        args.push(format!("--skip-phases={skip}"));
    }
    if again {
        args.push(format!("--ignore-preflight-errors={OURS}"));
    }
    run_watched(cx, args, &mut || ControlFlow::Continue(()))
}

/// One phase of `kubeadm join`; `meanwhile` is called every second while it runs, and may end it.
pub fn run_phase(
    cx: &mut Context<'_>,
    phase: &[&str],
    meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<(), StepError> {
    let config = ["--config", crate::plan::KUBEADM_FILE];
    let args = ["join", "phase"].iter().chain(phase).chain(&config).map(|a| (*a).to_owned()).collect();
    run_watched(cx, args, meanwhile)
}

/// kubeadm's `join`, cut where only one machine at a time may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinPhases {
    /// What the first part leaves out; it runs on all machines at once.
    pub later: &'static str,
    /// Adds the etcd member.
    pub etcd: &'static [&'static str],
    /// What remains, in this order.
    pub rest: &'static [&'static [&'static str]],
}

const MARK: &[&str] = &["control-plane-join", "mark-control-plane"];
const ADD_ETCD: &[&str] = &["control-plane-join", "etcd"];

impl JoinPhases {
    /// The phases that this kubeadm knows (`kubeadm join --help`).
    pub fn of(kubeadm: KubernetesVersion) -> Self {
        match kubeadm.minor {
            // ClusterStatus, which it notes itself in, went away with 1.22.
            ..22 => Self {
                later: "check-etcd,control-plane-join",
                etcd: ADD_ETCD,
                rest: &[&["control-plane-join", "update-status"], MARK],
            },
            22..31 => Self { later: "check-etcd,control-plane-join", etcd: ADD_ETCD, rest: &[MARK] },
            31..33 => Self {
                later: "check-etcd,control-plane-join,wait-control-plane",
                etcd: ADD_ETCD,
                rest: &[MARK],
            },
            // ControlPlaneKubeletLocalMode is on: the kubelet asks the API server beside it, which needs its etcd
            // first, so the etcd member comes before the kubelet's certificate.
            _ => Self {
                later: "check-etcd,etcd-join,kubelet-wait-bootstrap,control-plane-join,wait-control-plane",
                etcd: &["etcd-join"],
                rest: &[&["kubelet-wait-bootstrap"], MARK],
            },
        }
    }
}

fn run_watched(
    cx: &mut Context<'_>,
    args: Vec<String>,
    meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<(), StepError> {
    let words: Vec<&str> = args.iter().map(String::as_str).take_while(|a| !a.starts_with("--")).collect();
    (cx.waiting)(&format!("kubeadm {} runs", words.join(" ")));
    let command = Command::new("kubeadm", args).timeout(Duration::from_secs(cx.spec.deadlines.kubeadm));
    let result = cx.host.run_watched(&command, Duration::from_secs(1), meanwhile);
    let output = match &result {
        Ok(output) => Some(output),
        Err(error) => error.output(),
    };
    if let Some(output) = output {
        // kubeadm prints the token in the join command that it proposes.
        let text = cx.spec.mask(&format!("$ {command}\n{}{}", output.stdout, output.stderr));
        // Of every command since the beginning: one that failed may have been followed by many. The log helps people;
        // that it cannot be written is no reason to fail.
        let before = read_text(cx.host, LOG_FILE).unwrap_or_default();
        let from = before.len().saturating_sub(LOG_KEPT);
        let from = (from..before.len()).find(|n| before.is_char_boundary(*n)).unwrap_or(before.len());
        let _ = cx.host.write(Path::new(LOG_FILE), (before[from..].to_owned() + &text).as_bytes(), 0o600);
    }
    result.map(|_| ()).map_err(|error| {
        let remedy = match &error {
            CommandError::Timeout { .. } => {
                format!("the machine may be starved of CPU or disk: raise [deadlines] kubeadm; {LOG_FILE} has kubeadm's output")
            }
            _ => format!("{LOG_FILE} has kubeadm's output; `journalctl -b -u kubelet` and `crictl ps -a` say what the kubelet did"),
        };
        let why = last_words::of_control_plane(cx.host);
        StepError::passing(cx.spec.mask(&format!("{error}{why}")), remedy)
    })
}

/// Certificates that kubeadm issues, under /etc/kubernetes/pki: each a pair of .crt and .key.
pub const LEAVES: &[&str] = &[
    "apiserver",
    "apiserver-kubelet-client",
    "apiserver-etcd-client",
    "front-proxy-client",
    "etcd/server",
    "etcd/peer",
    "etcd/healthcheck-client",
];

pub const CONFS: &[&str] =
    &["admin", "super-admin", "controller-manager", "scheduler", "kubelet", "bootstrap-kubelet"];

/// Removes what a power cut left cut short. kubeadm writes neither atomically nor durably, and on its
/// second run takes a file that exists for a whole one.
pub fn mend(host: &dyn Host) -> Result<Vec<String>, StepError> {
    let mut removed = Vec::new();
    let mut remove = |path: PathBuf| -> Result<(), StepError> {
        host.remove(&path).map_err(|e| StepError::file("remove", &path, &e))?;
        removed.push(path.display().to_string());
        Ok(())
    };
    for leaf in LEAVES {
        let paths = ["crt", "key"].map(|kind| PathBuf::from(format!("/etc/kubernetes/pki/{leaf}.{kind}")));
        let texts: Vec<Option<String>> = paths.iter().map(|p| read_text(host, p)).collect();
        let whole = |t: &Option<String>| {
            t.as_ref().is_some_and(|t| t.contains("-----BEGIN") && t.trim_end().ends_with("-----"))
        };
        if texts.iter().any(Option::is_some) && !texts.iter().all(whole) {
            for path in paths {
                remove(path)?;
            }
        }
    }
    for name in CONFS {
        let path = PathBuf::from(format!("/etc/kubernetes/{name}.conf"));
        if let Some(text) = read_text(host, &path) {
            // The user's credentials come last in what kubeadm and the kubelet write.
            let whole = text.ends_with('\n') && (text.contains("client-key") || text.contains("token"));
            // The kubelet writes its kubeconfig before it has the certificate that stands in it; kubeadm, when it has
            // waited for that in vain, takes the token away from it, and neither ends by itself.
            let promised = text.contains(KUBELET_CERTIFICATE) && !exists(host, KUBELET_CERTIFICATE);
            if !whole || promised {
                remove(path)?;
            }
        }
    }
    Ok(removed)
}

/// Where the cluster's endpoint answers, as far as names can be resolved.
pub fn endpoint_servers(host: &dyn Host, spec: &NodeSpec) -> Result<Vec<Server>, String> {
    let port = spec.endpoint.port;
    if let Some(vip) = spec.endpoint.vip {
        return Ok(vec![Server::at(&spec.ca, vip, port)]);
    }
    match &spec.endpoint.host {
        HostOrAddress::Address(ip) => Ok(vec![Server::at(&spec.ca, *ip, port)]),
        HostOrAddress::Name(name) => {
            let addresses = host.resolve(name.as_str()).map_err(|error| {
                format!("the endpoint's name {name} is not known to the resolver: {error}")
            })?;
            Ok(addresses
                .into_iter()
                .map(|ip| Server {
                    ca: spec.ca.clone(),
                    address: SocketAddr::new(IpAddr::V4(ip), port),
                    name: Some(name.to_string()),
                })
                .collect())
        }
    }
}
