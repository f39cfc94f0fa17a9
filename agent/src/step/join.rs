//! `kubeadm join`: waits until the token can read the cluster's configuration, then joins with the
//! pinned CA, which waits for nobody's signature.

use std::path::Path;
use std::time::Duration;

use super::{Context, Found, files, kubeadm};
use crate::error::StepError;
use crate::host::{Command, exists};
use crate::kube::{Credentials, KubeError};
use crate::plan::FileSpec;
use crate::retry::{Attempt, Patience, wait};
use crate::role::types::Secret;

/// Written before the first `kubeadm join`: what lies on this disk afterwards is our own half-done work.
pub const JOINING: &str = "/var/lib/kindling/joining";
/// Written before the one reset that a half-joined control plane gets.
const RECOVERED: &str = "/var/lib/kindling/join-recovered";

#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    pub config: FileSpec,
    pub discovery: FileSpec,
    /// Empty on a worker.
    pub pki: Vec<FileSpec>,
    pub cri_socket: String,
}

impl Join {
    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        if !cx.completed {
            return Ok(Found::Differs(
                kubeadm::trace(cx.host).map_or("nothing was begun".into(), |t| format!("{t} is there")),
            ));
        }
        if !exists(cx.host, kubeadm::KUBELET_CONF) {
            return Err(StepError::lasting(
                format!("this node had joined, but {} is gone", kubeadm::KUBELET_CONF),
                "give the machine a fresh disk and boot it with its seed: it joins again",
            ));
        }
        Ok(Found::matches())
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        let began = exists(cx.host, JOINING);
        if let (Some(trace), false) = (kubeadm::trace(cx.host), began) {
            return Err(StepError::lasting(
                format!(
                    "{trace} is there, and Kindling did not write it: this disk belonged to another cluster or was set up by hand"
                ),
                "boot the VM from a fresh disk",
            ));
        }
        if began {
            kubeadm::mend(cx.host)?;
            files::act(&self.pki, cx)?;
            if self.is_worker() && exists(cx.host, kubeadm::KUBELET_CONF) {
                return self.finish_worker(cx);
            }
        }
        wait_for_cluster(cx)?;
        if began && exists(cx.host, kubeadm::ETCD_MANIFEST) {
            self.recover_control_plane(cx)?;
        }
        cx.host
            .write(Path::new(JOINING), b"kubeadm join was begun on this disk\n", 0o644)
            .map_err(|e| StepError::file("write", Path::new(JOINING), &e))?;
        files::write(cx.host, &self.discovery)?;
        files::write(cx.host, &self.config)?;
        kubeadm::run(cx, "join", began)?;
        Ok(began.then(|| "completed what an interrupted run had begun".to_owned()))
    }

    fn is_worker(&self) -> bool {
        self.pki.is_empty()
    }

    /// The kubelet has its certificate, so kubeadm's only remaining work is to note the CRI socket on the
    /// Node, which its upgrade reads. kubeadm itself refuses to join a name whose Node is Ready.
    fn finish_worker(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        cx.host.run(
            &Command::new("systemctl", ["enable", "--now", "kubelet.service"])
                .timeout(Duration::from_secs(120)),
        )?;
        let name = cx.spec.name.as_str();
        let annotation = format!("kubeadm.alpha.kubernetes.io/cri-socket={}", self.cri_socket);
        let command = Command::new(
            "kubectl",
            ["--kubeconfig", kubeadm::KUBELET_CONF, "annotate", "--overwrite", "node", name, &annotation],
        )
        .timeout(Duration::from_secs(30));
        let host = cx.host;
        wait(
            host,
            Patience::seconds(cx.spec.deadlines.ready),
            cx.waiting,
            || match host.run(&command) {
                Ok(_) => Attempt::Ready(()),
                Err(error) => Attempt::NotYet(format!(
                    "the kubelet has its certificate, but the Node is not there yet: {error}"
                )),
            },
            |reason| {
                StepError::passing(
                    reason,
                    "`journalctl -b -u kubelet` says why the kubelet does not register",
                )
            },
        )?;
        Ok(Some("completed what an interrupted run had begun".into()))
    }

    /// An etcd member may have been announced, so kubeadm cannot simply run again: reset once, never in a loop.
    fn recover_control_plane(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if exists(cx.host, RECOVERED) {
            return Err(StepError::lasting(
                "this control plane's join was interrupted, was reset once, and failed again",
                format!(
                    "read {}; then remove its etcd member and Node and boot it from a fresh disk",
                    kubeadm::LOG_FILE
                ),
            ));
        }
        (cx.waiting)(
            "an earlier join was interrupted after its etcd member was announced: resetting this node once",
        );
        cx.host
            .write(Path::new(RECOVERED), b"a half-done join was reset\n", 0o644)
            .map_err(|e| StepError::file("write", Path::new(RECOVERED), &e))?;
        // It removes the member through the other members, which the endpoint reached a moment ago.
        cx.host.run(&Command::new("kubeadm", ["reset", "--force"]).timeout(Duration::from_secs(300)))?;
        for path in ["/var/lib/etcd", "/var/lib/kubelet/pki"] {
            cx.host.remove(Path::new(path)).map_err(|e| StepError::file("remove", Path::new(path), &e))?;
        }
        files::act(&self.pki, cx)?;
        Ok(())
    }
}

/// Waits until the bootstrap token can read `kubeadm-config`: then the API answers, the token is known
/// and the cluster's configuration is there. `/readyz` alone passes too early.
fn wait_for_cluster(cx: &mut Context<'_>) -> Result<(), StepError> {
    let spec = cx.spec;
    let host = cx.host;
    let kubernetes = spec.kubernetes().expect("only Kubernetes nodes join");
    let token = kubernetes.token.clone();
    let endpoint = spec.control_plane_endpoint();
    wait(
        host,
        Patience::seconds(spec.deadlines.cluster),
        cx.waiting,
        || {
            let servers = match kubeadm::endpoint_servers(host, spec) {
                Ok(servers) => servers,
                Err(reason) => return Attempt::NotYet(reason),
            };
            let mut reason = format!("nobody answers at {endpoint}");
            for server in servers {
                let credentials = Credentials::Bearer(Secret::new(token.expose()));
                let path = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
                match host.get(&server, &credentials, path, Duration::from_secs(10)) {
                    Ok(_) => return Attempt::Ready(()),
                    Err(error) => reason = explain(&error, &endpoint, token.id()),
                }
            }
            Attempt::NotYet(reason)
        },
        |reason| {
            let remedy = if reason.contains("bootstrap token") {
                "the token of this seed has expired or was never made: `kindling render` a fresh seed with a new token"
            } else if reason.contains("not of this cluster") {
                "boot all nodes with seeds of one `kindling render`, or choose another endpoint"
            } else {
                "look at the first control plane: its console says what it waits for; check that this machine reaches the endpoint"
            };
            StepError::passing(reason, remedy)
        },
    )
}

/// One steady sentence for each kind of answer, so that a wait of minutes does not print a line a second.
fn explain(error: &KubeError, endpoint: &str, token: &str) -> String {
    match error {
        KubeError::Unreachable { .. } => format!("the API at {endpoint} does not answer yet"),
        KubeError::Untrusted { .. } => {
            format!("whoever answers at {endpoint} is not of this cluster: its certificate is of another CA")
        }
        KubeError::Status { status: 401, .. } => {
            format!("the API at {endpoint} answers, but does not know the bootstrap token {token}")
        }
        KubeError::Status { status: 403 | 404, .. } => {
            format!("the API at {endpoint} answers, but kubeadm-config is not there yet")
        }
        KubeError::Status { status, .. } => format!("the API at {endpoint} answers {status}"),
        KubeError::Client(reason) => reason.clone(),
    }
}
