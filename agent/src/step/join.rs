//! `kubeadm join`: waits until the token can read the cluster's configuration, then joins with the
//! pinned CA, which waits for nobody's signature. All machines join at once; only the etcd members of control
//! planes are added one after the other ([`super::member`]).

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::kubeadm::{JoinPhases, Part};
use super::{Context, Found, cluster_version, files, kubeadm, member, stale};
use crate::error::StepError;
use crate::host::{Command, Host, date, exists, read_text};
use crate::kube::{Credentials, KubeError, Server};
use crate::plan::FileSpec;
use crate::retry::{Attempt, Patience, wait};
use crate::role::types::{BootstrapToken, KubernetesVersion, Secret};
use crate::role::{Kubernetes, NodeSpec};

/// How far the join on this disk has come: a word of [`Stage`]. Written before the first `kubeadm join`, so what
/// lies on this disk afterwards is our own half-done work.
pub const JOINING: &str = "/var/lib/kindling/joining";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// kubeadm may have begun.
    Begun,
    /// Certificates, manifests and the kubelet are there, on stable storage.
    Prepared,
    /// The etcd member runs.
    Member,
}

const STAGES: [(Stage, &str); 3] =
    [(Stage::Begun, "begun\n"), (Stage::Prepared, "prepared\n"), (Stage::Member, "member\n")];

fn stage(host: &dyn Host) -> Option<Stage> {
    let text = read_text(host, JOINING)?;
    Some(STAGES.iter().find(|(_, word)| *word == text).map_or(Stage::Begun, |(stage, _)| *stage))
}

fn set_stage(host: &dyn Host, stage: Stage) -> Result<(), StepError> {
    let (_, word) = STAGES.iter().find(|(known, _)| *known == stage).expect("every stage has a word");
    let path = Path::new(JOINING);
    host.write(path, word.as_bytes(), 0o644).map_err(|e| StepError::file("write", path, &e))
}

#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    pub config: FileSpec,
    pub discovery: FileSpec,
    pub cri_socket: String,
    /// In the image.
    pub kubeadm: KubernetesVersion,
    /// Of a control plane.
    pub control_plane: Option<JoinControlPlane>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JoinControlPlane {
    pub pki: Vec<FileSpec>,
    pub phases: JoinPhases,
    /// Its own etcd member; none where etcd runs on machines of its own, and nothing must be serial.
    pub etcd: Option<JoinEtcd>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct JoinEtcd {
    /// For the manifest of an etcd member whose manifest was lost with the power.
    pub config: FileSpec,
    /// The kubelet's kubeconfig until it has its certificate.
    pub bootstrap: FileSpec,
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
        let before = stage(cx.host);
        if let (Some(trace), None) = (kubeadm::trace(cx.host), before) {
            return Err(StepError::lasting(
                format!(
                    "{trace} is there, and Kindling did not write it: this disk belonged to another cluster or was set up by hand"
                ),
                "boot the VM from a fresh disk",
            ));
        }
        if before.is_some() {
            // This boot's seed may be a fresh one: the token of the one before may have ended meanwhile.
            self.write_configuration(cx)?;
        }
        if before < Some(Stage::Prepared) {
            self.prepare(cx, before.is_some())?;
            // kubeadm syncs nothing, and from here on its files are taken for whole.
            cx.host.sync();
            set_stage(cx.host, Stage::Prepared)?;
        }
        if let Some(control_plane) = &self.control_plane {
            self.finish_control_plane(cx, control_plane, before)
                .map_err(|error| blame_the_token(cx, error))?;
        }
        Ok(before.map(|_| "completed what an interrupted run had begun".to_owned()))
    }

    /// From the etcd member on. With an external etcd kubeadm did it all at once, unless it was interrupted.
    fn finish_control_plane(
        &self,
        cx: &mut Context<'_>,
        control_plane: &JoinControlPlane,
        before: Option<Stage>,
    ) -> Result<(), StepError> {
        let phases = &control_plane.phases;
        if let Some(etcd) = &control_plane.etcd {
            if before < Some(Stage::Member) {
                member::join(cx, etcd, &phases.etcd, self.kubeadm)?;
                cx.host.sync();
                set_stage(cx.host, Stage::Member)?;
            }
            if let Some(wait) = &phases.kubelet {
                rest(cx, &mut |cx| bootstrap(cx, &etcd.bootstrap, wait))?;
            }
        } else if before.is_none() {
            return Ok(());
        }
        rest(cx, &mut |cx| run_part(cx, &phases.mark))
    }

    /// The part of kubeadm's join that comes first; all of it where there is no etcd member to wait for.
    fn first(&self) -> Option<&Part> {
        self.control_plane.as_ref().filter(|cp| cp.etcd.is_some()).map(|cp| &cp.phases.first)
    }

    /// Everything that all machines may do at once: the whole join of a worker, that of a control plane up to its
    /// etcd member.
    fn prepare(&self, cx: &mut Context<'_>, began: bool) -> Result<(), StepError> {
        if began {
            kubeadm::mend(cx.host)?;
            if let Some(control_plane) = &self.control_plane {
                files::act(&control_plane.pki, cx)?;
            }
            if exists(cx.host, kubeadm::KUBELET_CONF) {
                return self.finish_kubelet(cx);
            }
        }
        wait_for_cluster(cx, self.kubeadm)?;
        if !began {
            stale::wait_until_gone(cx)?;
        }
        set_stage(cx.host, Stage::Begun)?;
        self.write_configuration(cx)?;
        kubeadm::run(cx, "join", self.first(), began)
    }

    /// What each of kubeadm's phases reads.
    fn write_configuration(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        files::write(cx.host, &self.discovery)?;
        files::write(cx.host, &self.config)?;
        Ok(())
    }

    /// The kubelet has its certificate, so kubeadm's only remaining work is to note the CRI socket on the
    /// Node, which its upgrade reads. kubeadm itself refuses to join a name whose Node is Ready.
    fn finish_kubelet(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
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
        )
    }
}

fn run_part(cx: &mut Context<'_>, part: &Part) -> Result<(), StepError> {
    kubeadm::run_join(cx, part, &mut || ControlFlow::Continue(()))
}

/// What comes after the etcd member may be run again; the API is silent for a moment after a member was added.
fn rest(
    cx: &mut Context<'_>,
    run: &mut dyn FnMut(&mut Context<'_>) -> Result<(), StepError>,
) -> Result<(), StepError> {
    let start = cx.host.now();
    loop {
        let Err(error) = run(cx) else { return Ok(()) };
        let patience = Duration::from_secs(cx.spec.deadlines.kubeadm);
        if cx.host.now().saturating_sub(start) >= patience {
            return Err(error);
        }
        (cx.waiting)(&format!("tried again: {error}"));
        cx.host.sleep(Duration::from_secs(2).mul_f64(0.5 + cx.host.random()));
    }
}

/// Waits for the kubelet's certificate. kubeadm removes the file with the bootstrap token also when it waited in vain, and
/// a kubelet that is started after that, by a reboot for instance, ends at once. So it is written again first, without
/// kubeadm, which would ask an API that may lack the quorum of this machine's own etcd member.
fn bootstrap(cx: &mut Context<'_>, file: &FileSpec, wait: &Part) -> Result<(), StepError> {
    if !kubeadm::kubelet_can_start(cx.host) {
        (cx.waiting)("the kubelet lost its bootstrap token before it had its certificate: giving it again");
        kubeadm::mend(cx.host)?;
        files::write(cx.host, file)?;
        cx.host.run(
            &Command::new("systemctl", ["restart", "kubelet.service"]).timeout(Duration::from_secs(120)),
        )?;
    }
    run_part(cx, wait)
}

/// Waits until the bootstrap token can read `kubeadm-config`: then the API answers, the token is known
/// and the cluster's configuration is there. `/readyz` alone passes too early.
fn wait_for_cluster(cx: &mut Context<'_>, version: KubernetesVersion) -> Result<(), StepError> {
    let spec = cx.spec;
    let host = cx.host;
    let kubernetes = spec.kubernetes().expect("only Kubernetes nodes join");
    if spec.scrubbed {
        return Err(StepError::lasting(
            "this machine had joined, so its role file has no bootstrap token any more; but the record of it is gone",
            format!(
                "`kindling render --node {}` on the workstation, and boot this machine with that seed",
                spec.name
            ),
        ));
    }
    let token = kubernetes.token.clone();
    let endpoint = spec.control_plane_endpoint();
    let mut unknown_since: Option<Duration> = None;
    wait(
        host,
        Patience::shared(spec.deadlines.cluster, spec.hosts.len()),
        cx.waiting,
        || {
            let servers = match kubeadm::endpoint_servers(host, spec) {
                Ok(servers) => servers,
                Err(reason) => return Attempt::NotYet(reason),
            };
            let mut reason = format!("nobody answers at {endpoint}");
            let mut silent = true;
            for server in servers {
                match ask_by_token(host, &server, &token) {
                    Ok(text) => {
                        let config = serde_json::from_str(&text).unwrap_or_default();
                        let control_plane = spec.control_plane().is_some();
                        return cluster_version::verdict(&config, version, control_plane);
                    }
                    Err(error) if error.status() == Some(401) => {
                        silent = false;
                        let lost = UnknownToken::of(host, spec, kubernetes);
                        reason = lost.cause.clone();
                        match has_tokens(host, &server) {
                            Some(true) => {
                                let since = *unknown_since.get_or_insert(host.now());
                                if host.now().saturating_sub(since) >= KNOWN_AFTER {
                                    return Attempt::Never(lost.into());
                                }
                            }
                            // Each formation comes by here.
                            Some(false) => {
                                unknown_since = None;
                                reason = format!(
                                    "the API at {endpoint} answers; `kubeadm init` has not made its bootstrap tokens yet"
                                );
                            }
                            None => unknown_since = None,
                        }
                    }
                    Err(error) => {
                        silent &= error.reached_nobody();
                        reason = explain(&error, &endpoint);
                    }
                }
            }
            if silent { Attempt::Silent(reason) } else { Attempt::NotYet(reason) }
        },
        |reason| {
            let remedy = if reason.contains("bootstrap token") {
                "look at the first control plane: its console says what it waits for; it has not made the tokens yet"
            } else if reason.contains("clocks") {
                "compare `date -u` on both; give the VMs the hypervisor's clock in UTC, or servers under [network] ntp"
            } else if reason.contains("not of this cluster") {
                "boot all nodes with seeds of one `kindling render`, or choose another endpoint"
            } else {
                "look at the first control plane: its console says what it waits for; check that this machine reaches the endpoint"
            };
            StepError::passing(reason, remedy)
        },
    )
}

/// kubeadm makes the tokens before it makes `cluster-info`. An API server that has that and does not know the token
/// after so long has its list of tokens, and this one is not in it.
const KNOWN_AFTER: Duration = Duration::from_secs(20);

/// kubeadm says of a token that the cluster does not know only that it may not read something. Nobody is asked before a phase:
/// where the API needs this very member, it answers only afterwards.
fn blame_the_token(cx: &Context<'_>, error: StepError) -> StepError {
    let (host, spec) = (cx.host, cx.spec);
    let Some(kubernetes) = spec.kubernetes() else { return error };
    let unknown = |server: &Server| {
        let answer = ask_by_token(host, server, &kubernetes.token);
        answer.is_err_and(|e| e.status() == Some(401)) && has_tokens(host, server) == Some(true)
    };
    match kubeadm::endpoint_servers(host, spec) {
        Ok(servers) if servers.iter().any(unknown) => UnknownToken::of(host, spec, kubernetes).into(),
        _ => error,
    }
}

/// For the cluster's configuration, as kubeadm will.
fn ask_by_token(host: &dyn Host, server: &Server, token: &BootstrapToken) -> Result<String, KubeError> {
    let credentials = Credentials::Bearer(Secret::new(token.expose()));
    host.get(server, &credentials, cluster_version::PATH, Duration::from_secs(10))
}

/// Whether kubeadm has made `cluster-info`, and so its tokens; `None` where the API server does not say. Before the rule that
/// lets strangers read it is there it is forbidden.
fn has_tokens(host: &dyn Host, server: &Server) -> Option<bool> {
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    match host.get(server, &Credentials::Anonymous, path, Duration::from_secs(10)) {
        Ok(_) => Some(true),
        Err(error) if matches!(error.status(), Some(403 | 404)) => Some(false),
        Err(_) => None,
    }
}

/// The seed's token is not one of the cluster's.
struct UnknownToken {
    cause: String,
    remedy: String,
    expired: bool,
}

impl UnknownToken {
    fn of(host: &dyn Host, spec: &NodeSpec, kubernetes: &Kubernetes) -> Self {
        let (endpoint, id) = (spec.control_plane_endpoint(), kubernetes.token.id());
        let expires = kubernetes.token_expires;
        let expired = expires.is_some_and(|end| end.0 <= date(host));
        let cause = match expires {
            Some(end) if expired => format!(
                "the bootstrap token {id} of this seed expired at {end}: the API at {endpoint} does not know it any more"
            ),
            Some(end) => format!(
                "the API at {endpoint} does not know the bootstrap token {id}, which would live until {end}: `kubeadm init` has not made it yet, it was removed, or this machine's clock is wrong"
            ),
            None => format!(
                "the API at {endpoint} does not know the bootstrap token {id}: `kubeadm init` has not made it yet, or it was removed"
            ),
        };
        let remedy = format!(
            "`kindling render --node {}` on the workstation has the cluster make a fresh token: boot this machine with that seed, its disk may stay",
            spec.name
        );
        Self { cause, remedy, expired }
    }
}

impl From<UnknownToken> for StepError {
    /// One that expired does not come back.
    fn from(lost: UnknownToken) -> Self {
        Self { cause: lost.cause, remedy: lost.remedy, retry: !lost.expired }
    }
}

/// One steady sentence for each kind of answer, so that a wait of minutes does not print a line a second.
fn explain(error: &KubeError, endpoint: &str) -> String {
    match error {
        KubeError::Unreachable { .. } => format!("the API at {endpoint} does not answer yet"),
        KubeError::Untrusted { .. } => {
            format!("whoever answers at {endpoint} is not of this cluster: its certificate is of another CA")
        }
        KubeError::Clock { .. } => format!(
            "the certificate of the API at {endpoint} is not valid at this machine's time: one of the two clocks is wrong"
        ),
        KubeError::Status { status: 403 | 404, .. } => {
            format!("the API at {endpoint} answers, but kubeadm-config is not there yet")
        }
        KubeError::Status { status, .. } => format!("the API at {endpoint} answers {status}"),
        KubeError::Client(reason) => reason.clone(),
    }
}
