//! What init and join share: running kubeadm, reading the traces it leaves, mending what a power cut
//! left half-written.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Context, files, last_words};
use crate::error::StepError;
use crate::host::{Command, CommandError, Host, Output, complaint, exists, read_text};
use crate::kube::Server;
use crate::role::NodeSpec;
use crate::role::types::{HostOrAddress, KubernetesVersion};

pub const LOG_FILE: &str = "/var/log/kindling/kubeadm.log";
/// Bytes of earlier commands' output that stay.
const LOG_KEPT: usize = 256 << 10;
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// What the kubelet's kubeconfig refers to, once the controller manager has signed it.
const KUBELET_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The kubelet's kubeconfig until then, with the bootstrap token.
pub const BOOTSTRAP_CONF: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
pub const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
pub const ETCD_MEMBER: &str = "/var/lib/etcd/member";

/// Files and folders that show that kubeadm has begun on this machine.
pub const TRACES: &[&str] = &[
    "/etc/kubernetes/admin.conf",
    KUBELET_CONF,
    BOOTSTRAP_CONF,
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    ETCD_MANIFEST,
    ETCD_MEMBER,
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
DirAvailable--var-lib-etcd,\
Port-6443,Port-10250,Port-10257,Port-10259,Port-2379,Port-2380";

/// `kubeadm init` or `kubeadm join` with our configuration, whole or a part of it; `again` over what an earlier run left.
pub fn run(
    cx: &mut Context<'_>,
    verb: &'static str,
    part: Option<&Part>,
    again: bool,
) -> Result<(), StepError> {
    super::certificates::before_kubeadm(cx)?;
    // Without it the node would not come back after a reboot.
    cx.host.run(&Command::new("systemctl", ["enable", "kubelet.service"]))?;
    let mut args = vec![verb.to_owned(), "--config".into(), crate::plan::KUBEADM_FILE.into()];
    if let Some(part) = part {
        args.push(format!("--skip-phases={}", part.skipped));
    }
    if again {
        args.push(format!("--ignore-preflight-errors={OURS}"));
    }
    run_watched(cx, part.map_or(verb, |part| part.name), args, &mut || ControlFlow::Continue(()))
}

/// A part of `kubeadm join`; `meanwhile` is called every second while it runs, and may end it.
pub fn run_join(
    cx: &mut Context<'_>,
    part: &Part,
    meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<(), StepError> {
    let skip = format!("--skip-phases={}", part.skipped);
    let args = vec!["join".into(), "--config".into(), crate::plan::KUBEADM_FILE.into(), skip];
    run_watched(cx, part.name, args, meanwhile)
}

/// The phases of `kubeadm join` that stand at its top, in their order: 1.32 to 1.37 have the same.
const JOIN: [&str; 8] = [
    "preflight",
    "control-plane-prepare",
    "check-etcd",
    "kubelet-start",
    "etcd-join",
    "kubelet-wait-bootstrap",
    "control-plane-join",
    "wait-control-plane",
];

/// Some phases of `kubeadm join`, said by those that are left out. `kubeadm join phase NAME` would be shorter, but it does
/// not know the phases that a version hides: `etcd-join` before 1.34.3 and `kubelet-wait-bootstrap` before 1.35.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    /// For `--skip-phases`.
    pub skipped: String,
}

impl Part {
    /// These phases without some of their own parts.
    fn of(name: &'static str, phases: &[&str], without: &[&'static str]) -> Self {
        let others = JOIN.iter().copied().filter(|phase| !phases.contains(phase));
        Self { name, skipped: others.chain(without.iter().copied()).collect::<Vec<&str>>().join(",") }
    }
}

/// `kubeadm join` of a control plane, cut where only one machine at a time may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinPhases {
    /// All machines at once.
    pub first: Part,
    /// Adds the etcd member.
    pub etcd: Part,
    /// Waits for the kubelet's certificate, where that needs the etcd member.
    pub kubelet: Option<Part>,
    /// Labels and taints the Node.
    pub mark: Part,
}

impl JoinPhases {
    pub fn of(kubeadm: KubernetesVersion) -> Self {
        const MARK: &str = "control-plane-join/mark-control-plane";
        let prepare = ["preflight", "control-plane-prepare", "kubelet-start"];
        if kubeadm.minor < 33 {
            // ControlPlaneKubeletLocalMode is off: kubelet-start has the kubelet's certificate signed at the endpoint.
            const ETCD: &str = "control-plane-join/etcd";
            return Self {
                first: Part::of("join: prepare", &prepare, &[]),
                etcd: Part::of(ETCD, &["control-plane-join"], &[MARK]),
                kubelet: None,
                mark: Part::of(MARK, &["control-plane-join"], &[ETCD]),
            };
        }
        // The kubelet asks the API server beside it, which needs its etcd member first.
        Self {
            first: Part::of("join: prepare", &prepare, &[]),
            etcd: Part::of("etcd-join", &["etcd-join"], &[]),
            kubelet: Some(Part::of("kubelet-wait-bootstrap", &["kubelet-wait-bootstrap"], &[])),
            mark: Part::of(MARK, &["control-plane-join"], &[]),
        }
    }
}

fn run_watched(
    cx: &mut Context<'_>,
    what: &str,
    args: Vec<String>,
    meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<(), StepError> {
    (cx.waiting)(&format!("kubeadm {what} runs"));
    let command = Command::new("kubeadm", args).timeout(Duration::from_secs(cx.spec.deadlines.kubeadm));
    let result = cx.host.run_watched(&command, Duration::from_secs(1), meanwhile);
    let starved = "the machine may be starved of CPU or disk: raise [deadlines] kubeadm";
    let why = result.as_ref().err().map(|_| last_words::of_control_plane(cx.host)).unwrap_or_default();
    told_of(cx.host, cx.spec, what, &command, result, &why, starved)
}

/// What became of a command of kubeadm that waits for no part of the control plane. `what` is how it was called, in short.
pub fn ended(
    host: &dyn Host,
    spec: &NodeSpec,
    what: &str,
    command: &Command,
    result: Result<Output, CommandError>,
) -> Result<(), StepError> {
    told_of(
        host,
        spec,
        what,
        command,
        result,
        "",
        "the machine may be starved of CPU or disk: look what takes them",
    )
}

/// Every command's output is kept in [`LOG_FILE`], and kubeadm's own error comes first, then `why` that may be.
fn told_of(
    host: &dyn Host,
    spec: &NodeSpec,
    what: &str,
    command: &Command,
    result: Result<Output, CommandError>,
    why: &str,
    starved: &str,
) -> Result<(), StepError> {
    let output = match &result {
        Ok(output) => Some(output),
        Err(error) => error.output(),
    };
    if let Some(output) = output {
        // kubeadm prints the token in the join command that it proposes.
        let text = spec.mask(&format!("$ {command}\n{}{}", output.stdout, output.stderr));
        // Of every command since the beginning: one that failed may have been followed by many. The log helps people;
        // that it cannot be written is no reason to fail.
        let before = read_text(host, LOG_FILE).unwrap_or_default();
        let from = before.len().saturating_sub(LOG_KEPT);
        let from = (from..before.len()).find(|n| before.is_char_boundary(*n)).unwrap_or(before.len());
        let _ = host.write(Path::new(LOG_FILE), (before[from..].to_owned() + &text).as_bytes(), 0o600);
    }
    result.map(|_| ()).map_err(|error| {
        let remedy = match &error {
            CommandError::Start { .. } => "the image lacks this program: bake it with `make image`".to_owned(),
            CommandError::Timeout { .. } => format!("{starved}; {LOG_FILE} has kubeadm's output"),
            _ => format!("{LOG_FILE} has kubeadm's output; `journalctl -b -u kubelet` and `crictl ps -a` say what the kubelet did"),
        };
        StepError::passing(spec.mask(&told(&error, what, why)), remedy)
    })
}

/// kubeadm's own error first, then the component that ended, last how kubeadm was called.
fn told(error: &CommandError, what: &str, why: &str) -> String {
    match error {
        CommandError::Failed { status, output, .. } => match complaint(output) {
            said if said.is_empty() => format!("kubeadm {what} failed without a word ({status}){why}"),
            said => format!("{said}{why} (kubeadm {what}: {status})"),
        },
        other => format!("{other}{why}"),
    }
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

/// The user's credentials come last in a kubeconfig that kubeadm or the kubelet writes.
fn is_whole(kubeconfig: &str) -> bool {
    kubeconfig.ends_with('\n') && (kubeconfig.contains("client-key") || kubeconfig.contains("token:"))
}

/// Whether a kubelet that is started now has its certificate, or can come to it.
pub fn kubelet_can_start(host: &dyn Host) -> bool {
    let whole = |path: &str| read_text(host, path).is_some_and(|text| is_whole(&text));
    (exists(host, KUBELET_CERTIFICATE) && whole(KUBELET_CONF)) || whole(BOOTSTRAP_CONF)
}

/// Removes what a power cut left cut short. kubeadm writes neither atomically nor durably, and on its
/// second run takes a file that exists for a whole one.
pub fn mend(host: &dyn Host) -> Result<Vec<String>, StepError> {
    let mut removed = Vec::new();
    let mut remove = |path: PathBuf| -> Result<(), StepError> {
        files::remove(host, &path)?;
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
            let whole = is_whole(&text);
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

/// The containers that run of a static pod; none where the kubelet is about to start one.
pub fn containers(host: &dyn Host, component: &str) -> Result<Vec<String>, StepError> {
    let label = |key: &str, value: &str| format!("--label=io.kubernetes.{key}={value}");
    let list = Command::query(
        "crictl",
        ["ps", "--quiet", &label("container.name", component), &label("pod.namespace", "kube-system")],
    );
    Ok(host.run(&list)?.stdout.split_whitespace().map(str::to_owned).collect())
}

/// Stops them; each has this long to end by itself.
pub fn stop_containers(containers: &[String], patience: Duration) -> Command {
    let timeout = format!("--timeout={}", patience.as_secs());
    let stop = ["stop", &timeout].into_iter().chain(containers.iter().map(String::as_str));
    Command::new("crictl", stop).timeout(patience * 2)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Output;

    #[test]
    fn the_cause_is_kubeadms_error_and_how_it_was_called_comes_last() {
        let failed = |stderr: &str| CommandError::Failed {
            command: "kubeadm join --config /etc/kindling/kubeadm.yaml --skip-phases=preflight".into(),
            status: "exit status: 1".into(),
            output: Output {
                stdout: "[preflight] Running pre-flight checks\n".into(),
                stderr: stderr.into(),
            },
        };
        let error = failed(
            "\t[WARNING Swap]: swap is on\nerror: error execution phase etcd-join: etcd cluster is not healthy\n\
             To see the stack trace of this error execute with --v=5 or higher\n",
        );
        assert_eq!(
            told(&error, "etcd-join", "; etcd ended, and said last: no space"),
            "error execution phase etcd-join: etcd cluster is not healthy; etcd ended, and said last: no space \
             (kubeadm etcd-join: exit status: 1)"
        );
        let late =
            CommandError::Timeout { command: "kubeadm init".into(), seconds: 9, output: Output::default() };
        assert_eq!(told(&late, "init", ""), "`kubeadm init` did not end within 9 s");
    }

    #[test]
    fn each_version_is_cut_where_only_one_machine_may_go_on() {
        let of = |minor| JoinPhases::of(KubernetesVersion { major: 1, minor, patch: 0 });
        for minor in [32, 33, 34, 36, 37] {
            let phases = of(minor);
            assert_eq!(
                phases.first.skipped,
                "check-etcd,etcd-join,kubelet-wait-bootstrap,control-plane-join,wait-control-plane"
            );
            assert_eq!(phases.kubelet.is_some(), minor > 32, "1.{minor}");
            // 1.36 does not know the name.
            let all = [&phases.first, &phases.etcd, &phases.mark].map(|part| part.skipped.clone()).join(",");
            assert_eq!(all.contains("control-plane-join/etcd"), minor == 32, "1.{minor}: {all}");
        }
        assert_eq!(
            of(34).etcd.skipped,
            "preflight,control-plane-prepare,check-etcd,kubelet-start,kubelet-wait-bootstrap,control-plane-join,wait-control-plane"
        );
    }
}
