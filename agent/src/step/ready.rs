//! The last step: what this machine is for works.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::etcd_health::Healthy;
use super::{Context, Found, kubeadm};
use crate::error::StepError;
use crate::host::{Command, Host, exists, read_text};
use crate::kube::{Credentials, KubeError, Server, condition, conditions, node_is_ready};
use crate::plan::KEEPALIVED;
use crate::preflight::twins;
use crate::retry::{Attempt, Patience, wait};
use crate::role::NodeSpec;
use crate::role::types::{DnsName, Secret};
use crate::survey::pod_trouble;

/// The kubelet's own certificate and key.
const KUBELET_IDENTITY: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Set by the loader where it counts the tries of an updated system (systemd-boot's boot counting).
const BOOT_COUNTED: &str =
    "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// A Node is Ready without them, and its cluster does nothing.
const BESIDE_THE_API: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

#[derive(Debug, Clone, PartialEq)]
pub enum Ready {
    Node {
        name: DnsName,
        /// Whether the cluster gets a pod network from us; without one no Node becomes Ready.
        network_addon: bool,
    },
    Services(Vec<&'static str>),
    Etcd(Healthy),
}

impl Ready {
    pub fn look(&self, cx: &mut Context<'_>) -> Result<Found, StepError> {
        Ok(match self.state(cx) {
            Attempt::Ready(remark) => Found::Matches(remark),
            Attempt::NotYet(reason) | Attempt::Silent(reason) => Found::Differs(reason),
            Attempt::Never(error) => return Err(error),
        })
    }

    pub fn act(&self, cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
        let (host, spec, completed, interrupted) = (cx.host, cx.spec, cx.completed, cx.interrupted);
        let mut silent = |_: &str| {};
        wait(
            host,
            Patience::seconds(match self {
                // Not this machine's own: it may be powered on much later.
                Self::Etcd(healthy) if healthy.own.is_none() => spec.deadlines.cluster,
                _ => spec.deadlines.ready,
            }),
            cx.waiting,
            || self.state(&mut Context { host, spec, completed, interrupted, waiting: &mut silent }),
            |reason| {
                let remedy = match self {
                    Self::Node { .. } => {
                        "`journalctl -b -u kubelet` says why; `kubectl describe node` shows the Node's conditions"
                    }
                    Self::Services(_) => "`systemctl status haproxy keepalived` says why",
                    Self::Etcd(healthy) => healthy.remedy(),
                };
                StepError::passing(reason, remedy)
            },
        )
    }

    fn state(&self, cx: &mut Context<'_>) -> Attempt<Option<String>> {
        match self {
            Self::Services(units) => {
                // One that must not run yet says so in its own step.
                let waits = exists(cx.host, super::vip::WAITS);
                for unit in units.iter().filter(|unit| !(waits && **unit == KEEPALIVED)) {
                    if cx.host.run(&Command::query("systemctl", ["is-active", "--quiet", unit])).is_err() {
                        return Attempt::NotYet(format!("{unit} does not run"));
                    }
                }
                Attempt::Ready(None)
            }
            Self::Etcd(healthy) => healthy.state(cx.host),
            Self::Node { name, network_addon } => node_state(cx.host, cx.spec, name, *network_addon),
        }
    }
}

fn node_state(
    host: &dyn Host,
    spec: &NodeSpec,
    name: &DnsName,
    network_addon: bool,
) -> Attempt<Option<String>> {
    let (server, credentials) = match kubelet(host, spec) {
        Ok(access) => access,
        Err(reason) => return Attempt::NotYet(reason),
    };
    let get = |path: &str| -> Result<Value, KubeError> {
        let body = host.get(&server, &credentials, path, Duration::from_secs(10))?;
        serde_json::from_str(&body).map_err(|error| KubeError::Client(error.to_string()))
    };
    let node = match get(&format!("/api/v1/nodes/{name}")) {
        Ok(node) => node,
        Err(error) => return Attempt::NotYet(unready(&error)),
    };
    // After a power cut the Node still says what it said before it; the lease is the kubelet's heartbeat.
    match get(&lease_of(name.as_str())) {
        Ok(lease) if renewed_since_boot(host, &lease) => {}
        Ok(_) => return Attempt::NotYet("the kubelet has not reported since this machine started".into()),
        Err(error) => return Attempt::NotYet(unready(&error)),
    }
    if node_is_ready(&node) {
        // Only where the machine may still go back to the system before: in a formation a kubelet may show
        // its static pods as much as a minute after they run.
        if spec.control_plane().is_some()
            && exists(host, BOOT_COUNTED)
            && let Err(reason) = run_beside_the_api(name, boot_time(host), get)
        {
            return Attempt::NotYet(reason);
        }
        let twins = get("/api/v1/nodes").map(|nodes| twins(name, &nodes)).unwrap_or_default();
        let remark = (!twins.is_empty()).then(|| {
            format!("warning: the same machine id or product UUID as {}: clones of one disk; give each VM its own", twins.join(", "))
        });
        return Attempt::Ready(remark);
    }
    let message = not_ready_message(&node);
    if !network_addon && message.to_lowercase().contains("network") {
        return Attempt::Ready(Some(
            "the Node waits for the pod network that you apply (addons = [])".into(),
        ));
    }
    Attempt::NotYet(format!("the Node is not Ready: {message}"))
}

/// Whether a control plane's static pods run; its API server and etcd answered already.
fn run_beside_the_api(
    name: &DnsName,
    boot: Option<i64>,
    get: impl Fn(&str) -> Result<Value, KubeError>,
) -> Result<(), String> {
    for component in BESIDE_THE_API {
        match get(&format!("/api/v1/namespaces/kube-system/pods/{component}-{name}")) {
            Ok(pod) if runs_since(&pod, boot) => {}
            Ok(pod) => {
                let why = pod_trouble(&pod).unwrap_or_else(|| "the kubelet has not started it yet".into());
                return Err(format!("{component} does not run: {why}"));
            }
            Err(KubeError::Status { status: 404, .. }) => {
                return Err(format!("the kubelet does not show {component} yet"));
            }
            Err(error) => return Err(format!("{component}: {error}")),
        }
    }
    Ok(())
}

/// The kubelet's own way to the API, where it has one already.
pub(super) fn kubelet(host: &dyn Host, spec: &NodeSpec) -> Result<(Server, Credentials), String> {
    let identity = read_text(host, KUBELET_IDENTITY).ok_or("the kubelet has no certificate yet")?;
    Ok((server(host, spec)?, Credentials::Certificate(Secret::new(identity))))
}

/// A control plane asks its own API server, a worker the endpoint.
fn server(host: &dyn Host, spec: &NodeSpec) -> Result<Server, String> {
    if spec.control_plane().is_some() {
        return Ok(Server::at(&spec.ca, spec.address(), 6443));
    }
    kubeadm::endpoint_servers(host, spec)?
        .into_iter()
        .next()
        .ok_or_else(|| "the endpoint's name has no address".into())
}

fn unready(error: &KubeError) -> String {
    match error {
        KubeError::Unreachable { address, .. } => format!("the API at {address} does not answer"),
        KubeError::Status { status: 404, .. } => "the kubelet has not registered its Node yet".into(),
        other => other.to_string(),
    }
}

/// What the Ready condition says, and what else presses: without disk no add-on's pod comes, and Ready speaks of the
/// network only.
fn not_ready_message(node: &Value) -> String {
    let message = |condition: &Value| condition["message"].as_str().map(str::to_owned);
    let ready = message(condition(node, "Ready"));
    let pressing = conditions(node)
        .filter(|c| c["status"] == "True" && c["type"].as_str().is_some_and(|t| t.ends_with("Pressure")))
        .filter_map(message);
    let all: Vec<String> = ready.into_iter().chain(pressing).collect();
    if all.is_empty() { "it has no Ready condition yet".into() } else { all.join("; ") }
}

/// The path of a Node's Lease, which its kubelet renews every ten seconds.
pub(super) fn lease_of(node: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}")
}

/// Compares two readings of this machine's own clock where the kubelet here wrote the lease; another machine's is a little off.
pub(super) fn renewed_since_boot(host: &dyn Host, lease: &Value) -> bool {
    is_since(&lease["spec"]["renewTime"], boot_time(host))
}

fn is_since(moment: &Value, boot: Option<i64>) -> bool {
    let moment = moment.as_str().and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok());
    moment.zip(boot).is_some_and(|(moment, boot)| moment.unix_timestamp() >= boot)
}

/// All its containers run; what it said before a power cut does not count.
pub(super) fn runs_since(pod: &Value, boot: Option<i64>) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array().filter(|list| !list.is_empty());
    statuses.is_some_and(|list| list.iter().all(|s| is_since(&s["state"]["running"]["startedAt"], boot)))
}

/// Seconds since the epoch at which PID 1 started: the machine, or the container that it is.
pub(super) fn boot_time(host: &dyn Host) -> Option<i64> {
    let kernel: i64 =
        read_text(host, "/proc/stat")?.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    let stat = read_text(host, "/proc/1/stat")?;
    // Field 22 counted from the state, which follows the name in parentheses (proc_pid_stat(5)), in
    // USER_HZ ticks, which Linux fixes at 100 a second.
    let ticks: i64 = stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()?;
    Some(kernel + ticks / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_without_disk_says_so() {
        let condition = |kind: &str, status: &str, message: &str| json!({ "type": kind, "status": status, "message": message });
        let node = json!({ "status": { "conditions": [
            condition("MemoryPressure", "False", "kubelet has sufficient memory available"),
            condition("DiskPressure", "True", "kubelet has disk pressure"),
            condition("Ready", "False", "cni plugin not initialized"),
        ] } });
        assert_eq!(not_ready_message(&node), "cni plugin not initialized; kubelet has disk pressure");
        assert_eq!(not_ready_message(&json!({})), "it has no Ready condition yet");
    }

    #[test]
    fn a_pod_runs_when_its_containers_were_started_after_the_boot() {
        let pod = |state: Value| json!({ "status": { "phase": "Running", "containerStatuses": [{ "state": state }] } });
        let boot = Some(1_795_000_000);
        let of = |at: &str| pod(json!({ "running": { "startedAt": at } }));
        assert!(runs_since(&of("2026-11-18T12:00:00Z"), boot));
        assert!(!runs_since(&of("2026-11-18T11:00:00Z"), boot), "before the power cut");
        assert!(!runs_since(&pod(json!({ "waiting": { "reason": "CrashLoopBackOff" } })), boot));
        assert!(!runs_since(&json!({ "status": { "phase": "Pending" } }), boot));
        assert!(!runs_since(&of("2026-11-18T12:00:00Z"), None));
    }
}
