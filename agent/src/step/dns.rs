//! Cluster DNS: CoreDNS is kubeadm's, and these see to it that it works, stays, and is told of when it does not.

use std::path::Path;

use serde_json::{Value, json};

use super::ask::patiently;
use super::ready::{boot_time, lease_of, renewed_since_boot, runs_since};
use super::{Context, Found};
use crate::access::Access;
use crate::dns::{self, Answers, COREFILE, Spread, has_upstream, spread, without_upstream};
use crate::error::StepError;
use crate::host::{Host, read_text};
use crate::kube::{KubeError, Method, node_is_ready};
use crate::retry::{Attempt, Patience, wait};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dns {
    /// No `forward` where nobody is there to be asked.
    Upstream,
    /// Not all pods on one machine.
    Spread,
    /// Names are resolved. `network_addon`: whether the cluster gets a pod network from us, as for the Node.
    Available { network_addon: bool },
}

const SILENT: &str = "`crictl ps -a` and /var/log/pods say why the API server does not answer";

/// The most that a bring-up waits for pods to be moved: the cluster works without it.
const MOVE: u64 = 120;

impl Dns {
    /// What it finds afterwards is not its own doing.
    pub fn only_waits(self) -> bool {
        self != Self::Upstream
    }

    pub fn look(self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        let access = access(cx)?;
        match self {
            Self::Upstream => look_upstream(cx, &access),
            Self::Spread => Ok(match judge_spread(&access) {
                Ok((_, Spread::Settled(where_))) => Found::Matches(Some(where_)),
                Ok((_, Spread::Settling(why))) => Found::Differs(why),
                Ok((_, Spread::Together { node, .. })) => {
                    Found::Differs(format!("CoreDNS runs on {node} alone"))
                }
                Err(error) => Found::Differs(error.to_string()),
            }),
            Self::Available { network_addon } => Ok(match available(cx, &access, network_addon) {
                Attempt::Ready(remark) => Found::Matches(remark),
                Attempt::NotYet(reason) | Attempt::Silent(reason) => Found::Differs(reason),
                Attempt::Never(error) => return Err(error),
            }),
        }
    }

    pub fn act(self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        let access = access(cx)?;
        match self {
            Self::Upstream => act_upstream(cx, &access).map(Some),
            Self::Spread => Ok(act_spread(cx, &access)),
            Self::Available { network_addon } => wait_available(cx, &access, network_addon),
        }
    }
}

fn access<'a>(cx: &Context<'a>) -> Result<Access<'a>, StepError> {
    let role = cx.spec.control_plane().expect("only control planes see to cluster DNS");
    Access::own_first(cx.host, cx.spec, role)
}

/// The resolv.conf that the kubelet gives to CoreDNS's pods (`dnsPolicy: Default`): kubeadm names systemd-resolved's own
/// file where that runs.
fn resolv_conf(host: &dyn Host) -> String {
    let config = read_text(host, "/var/lib/kubelet/config.yaml").unwrap_or_default();
    let named = config.lines().find_map(|line| line.strip_prefix("resolvConf:"));
    let named = named.map(|path| path.trim().trim_matches('"')).filter(|path| !path.is_empty());
    named.unwrap_or("/etc/resolv.conf").to_owned()
}

/// kubeadm's Corefile forwards to the machine's resolv.conf, and CoreDNS ends when no server is in it
/// ("plugin/forward: no valid upstream addresses found"). So it goes by that file and not by the cluster file's `dns`:
/// who is asked may have come by a router's advertisement or by hand.
///
/// The file of this one machine decides for all, as they share one cluster file, and it decides once, between `kubeadm
/// init` and the pod network, before the first pod starts. From then on the Corefile is the operator's: whatever is not
/// kubeadm's own, or works, is left alone, and `kubeadm upgrade` keeps a Corefile that was changed.
fn look_upstream(cx: &mut Context<'_>, access: &Access<'_>) -> Result<Found, StepError> {
    if cx.completed {
        return Ok(Found::matches());
    }
    let path = resolv_conf(cx.host);
    let text =
        cx.host.read(Path::new(&path)).map_err(|error| StepError::file("read", Path::new(&path), &error))?;
    // Without the file the kubelet starts no such pod, and says so.
    if text.is_none_or(|text| has_upstream(&String::from_utf8_lossy(&text))) {
        return Ok(Found::matches());
    }
    let config_map = patiently(cx, SILENT, || access.find(COREFILE))?;
    if config_map.as_ref().and_then(corefile).and_then(|text| without_upstream(&text)).is_none() {
        return Ok(Found::matches());
    }
    // Of a cluster that this machine joined: the others have somebody to ask, if any of its pods is ready.
    let answers = patiently(cx, SILENT, || Answers::ask(|path| access.find(path)))?;
    let works = answers.ready_pods() > 0 || answers.judge(|_| true) == dns::Dns::Disabled;
    Ok(if works {
        Found::matches()
    } else {
        Found::Differs(format!("{path} names no DNS server that CoreDNS could ask"))
    })
}

fn corefile(config_map: &Value) -> Option<String> {
    config_map["data"]["Corefile"].as_str().map(str::to_owned)
}

fn act_upstream(cx: &mut Context<'_>, access: &Access<'_>) -> Result<String, StepError> {
    let path = resolv_conf(cx.host);
    patiently(cx, SILENT, || {
        let config_map = access.get(COREFILE)?;
        if let Some(text) = corefile(&config_map).and_then(|text| without_upstream(&text)) {
            // With the version that was read: whoever changes it at the same moment is not overwritten (409).
            let patch = json!({
                "metadata": { "resourceVersion": config_map["metadata"]["resourceVersion"] },
                "data": { "Corefile": text },
            });
            access.send(Method::Patch, COREFILE, Some(&patch))?;
        }
        Ok::<_, KubeError>(())
    })?;
    Ok(format!(
        "{path} names no DNS server: CoreDNS answers for the cluster alone. To give it one later: kubectl -n kube-system edit configmap coredns (forward)"
    ))
}

fn judge_spread(access: &Access<'_>) -> Result<(Answers, Spread), KubeError> {
    let answers = Answers::ask(|path| access.find(path))?;
    let nodes = access.get("/api/v1/nodes")?;
    let spread = spread(&answers, &nodes);
    Ok((answers, spread))
}

/// Asks one of the pods to go, by the Eviction API, which respects disruption budgets; the scheduler places the next one
/// beside nobody. Every control plane does so when it has joined, so several may at once: they choose the same pod, by
/// its UID, and only while all run, so that one always stays. At most one goes in a run, and whatever comes of it, the
/// node's bring-up goes on.
fn act_spread(cx: &mut Context<'_>, access: &Access<'_>) -> Option<String> {
    let mut moved: Option<String> = None;
    let attempt = || {
        let (answers, spread) = match judge_spread(access) {
            Ok(found) => found,
            Err(error) => return Attempt::NotYet(error.to_string()),
        };
        if let Some(node) = &moved
            && answers.ready_pods() < answers.wanted()
        {
            return Attempt::NotYet(format!(
                "a CoreDNS pod went from {node}: the one in its place is not ready yet"
            ));
        }
        match spread {
            Spread::Settled(where_) => Attempt::Ready(where_),
            Spread::Settling(why) => Attempt::NotYet(why),
            Spread::Together { node, .. } if moved.is_some() => {
                Attempt::Ready(format!("CoreDNS runs on {node} alone: the scheduler placed it there again"))
            }
            Spread::Together { node, pod, uid } => match evict(access, &pod, &uid) {
                Ok(()) => {
                    let said = format!("a CoreDNS pod goes from {node} to another machine");
                    moved = Some(node);
                    Attempt::NotYet(said)
                }
                Err(error) if error.status() == Some(429) => Attempt::Ready(format!(
                    "CoreDNS runs on {node} alone: a PodDisruptionBudget keeps it there"
                )),
                // Gone, or another one by now: somebody was faster.
                Err(error) => Attempt::NotYet(error.to_string()),
            },
        }
    };
    let late = |reason| StepError::passing(reason, "");
    let patience = Patience::seconds(MOVE.min(cx.spec.deadlines.ready));
    match wait(cx.host, patience, cx.waiting, attempt, late) {
        Ok(where_) => Some(where_),
        Err(error) => Some(format!("warning: {}", error.cause)),
    }
}

fn evict(access: &Access<'_>, pod: &str, uid: &str) -> Result<(), KubeError> {
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "name": pod, "namespace": "kube-system" },
        "deleteOptions": { "preconditions": { "uid": uid } },
    });
    let path = format!("/api/v1/namespaces/kube-system/pods/{pod}/eviction");
    access.send(Method::Post, &path, Some(&eviction)).map(|_| ())
}

fn available(cx: &Context<'_>, access: &Access<'_>, network_addon: bool) -> Attempt<Option<String>> {
    let boot = boot_time(cx.host);
    let name = cx.spec.name.as_str();
    // After a power cut the API still says of all pods what was true before, and all machines may have lost theirs.
    let is_there = |node: &str| {
        access
            .find(&lease_of(node))
            .is_ok_and(|lease| lease.is_some_and(|lease| renewed_since_boot(cx.host, &lease)))
    };
    let counts = |pod: &Value| match pod["spec"]["nodeName"].as_str() {
        Some(node) if node == name => runs_since(pod, boot),
        Some(node) => is_there(node),
        None => false,
    };
    let why = match Answers::ask(|path| access.find(path)) {
        Ok(answers) => match answers.judge(counts) {
            dns::Dns::Available => return Attempt::Ready(None),
            dns::Dns::Disabled => return Attempt::Ready(Some("kubeadm was told to make no DNS".into())),
            dns::Dns::Unavailable(why) => why,
        },
        Err(error) => return Attempt::NotYet(error.to_string()),
    };
    if !network_addon {
        match access.find(&format!("/api/v1/nodes/{name}")) {
            Ok(Some(node)) if node_is_ready(&node) => {}
            Ok(_) => {
                let remark = "cluster DNS waits for the pod network that you apply (addons = [])";
                return Attempt::Ready(Some(remark.into()));
            }
            Err(error) => return Attempt::NotYet(error.to_string()),
        }
    }
    Attempt::NotYet(format!("cluster DNS is not available: {why}"))
}

/// A cluster is up when its names are resolved. Later, when this machine boots once more, the fault need not be its own,
/// and what an operator broke must not make it go back to the system before: then it is only told.
fn wait_available(
    cx: &mut Context<'_>,
    access: &Access<'_>,
    network_addon: bool,
) -> Result<Option<String>, StepError> {
    let (host, spec, completed) = (cx.host, cx.spec, cx.completed);
    let mut silent = |_: &str| {};
    let waited = wait(
        host,
        Patience::seconds(spec.deadlines.ready),
        cx.waiting,
        || {
            let cx = Context { host, spec, completed, interrupted: false, waiting: &mut silent };
            available(&cx, access, network_addon)
        },
        |reason| StepError::passing(reason, dns::REMEDY),
    );
    match waited {
        Err(error) if completed => Ok(Some(format!("warning: {}", error.cause))),
        other => other,
    }
}
