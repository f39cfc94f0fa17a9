//! Flags of the control plane's components and of etcd that are the operator's own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::seed;
use crate::input::Section;
use crate::role::components::{Component, Objection, objections};
use crate::role::types::KubernetesVersion;

/// What kubeadm gives the API server so that nodes, etcd and the components find and trust one another
/// (kubeadm's cmd/kubeadm/app/phases/controlplane/manifests.go). A flag of `extraArgs` would replace it.
const KUBEADMS: [&str; 22] = [
    "advertise-address",
    "allow-privileged",
    "client-ca-file",
    "enable-bootstrap-token-auth",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "etcd-servers",
    "kubelet-client-certificate",
    "kubelet-client-key",
    "proxy-client-cert-file",
    "proxy-client-key-file",
    "requestheader-allowed-names",
    "requestheader-client-ca-file",
    "requestheader-extra-headers-prefix",
    "requestheader-group-headers",
    "requestheader-username-headers",
    "secure-port",
    "service-account-key-file",
    "service-account-signing-key-file",
    "tls-cert-file",
    "tls-private-key-file",
];

/// The same for the controller manager. Without `bootstrapsigner` among its controllers nobody joins.
const CONTROLLER_MANAGERS: [&str; 14] = [
    "allocate-node-cidrs",
    "authentication-kubeconfig",
    "authorization-kubeconfig",
    "client-ca-file",
    "cluster-name",
    "cluster-signing-cert-file",
    "cluster-signing-key-file",
    "controllers",
    "kubeconfig",
    "requestheader-client-ca-file",
    "root-ca-file",
    "secure-port",
    "service-account-private-key-file",
    "use-service-account-credentials",
];

const SCHEDULERS: [&str; 4] =
    ["authentication-kubeconfig", "authorization-kubeconfig", "kubeconfig", "secure-port"];

/// What kubeadm gives etcd, or Kindling where etcd has machines of its own, so that its members find and trust one
/// another (kubeadm's cmd/kubeadm/app/phases/etcd/local.go).
const MEMBERS: [&str; 18] = [
    "advertise-client-urls",
    "cert-file",
    "client-cert-auth",
    "data-dir",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "key-file",
    "listen-client-urls",
    "listen-metrics-urls",
    "listen-peer-urls",
    "name",
    "peer-cert-file",
    "peer-client-cert-auth",
    "peer-key-file",
    "peer-trusted-ca-file",
    "trusted-ca-file",
];

/// What is wrong with a flag, and the remedy.
type Refusal = (&'static str, &'static str);

/// The flags of a component of this version, if the version could be read.
pub fn flags(
    component: Component,
    version: Option<KubernetesVersion>,
    mut s: Section<'_, '_>,
) -> BTreeMap<String, String> {
    let refused = match component {
        Component::ApiServer => refused_by_api_server,
        Component::ControllerManager => refused_by_controller_manager,
        Component::Scheduler => refused_by_scheduler,
        Component::Etcd => refused_by_etcd,
    };
    let arguments = read(&mut s, refused);
    match component {
        Component::ApiServer => {
            refuse_lost_trust(&s, &arguments);
            refuse_one_address(&s, &arguments);
        }
        Component::ControllerManager => {
            refuse_strange_parts(&s, &arguments);
            refuse_lost_leases(&s, &arguments);
        }
        Component::Scheduler => refuse_lost_leases(&s, &arguments),
        Component::Etcd => refuse_short_elections(&s, &arguments),
    }
    for Objection { flag, message, remedy, stops } in
        version.map_or_else(Vec::new, |version| objections(component, &arguments, version))
    {
        if stops {
            s.error(&flag, message, remedy);
        } else {
            s.warning(&flag, message, remedy);
        }
    }
    s.finish();
    arguments
}

/// kubeadm takes what stands here in the place of its own values (its getAuthzModes, and how it merges arguments), and then
/// nobody notices before no kubelet gets in, or before each of them may do more than it should.
fn refuse_lost_trust(s: &Section<'_, '_>, arguments: &BTreeMap<String, String>) {
    const NODE_RESTRICTION: &str = "NodeRestriction";
    let list = |flag: &str| -> Option<Vec<&str>> {
        let names: Vec<&str> = arguments.get(flag)?.split(',').filter(|name| !name.is_empty()).collect();
        (!names.is_empty()).then_some(names)
    };
    const MODES: &str = "authorization-mode";
    if list(MODES).is_some_and(|modes| ["Node", "RBAC"].iter().any(|mode| !modes.contains(mode))) {
        s.error(
            MODES,
            "leaves out Node, by which kubelets get in, or RBAC, by which everybody else does",
            "write \"Node,RBAC\" and what shall come after them, or leave it out",
        );
    }
    const ENABLED: &str = "enable-admission-plugins";
    if list(ENABLED).is_some_and(|plugins| !plugins.contains(&NODE_RESTRICTION)) {
        s.error(
            ENABLED,
            "takes the place of kubeadm's NodeRestriction, which keeps a kubelet to its own Node and pods",
            "write it among them, as in \"NodeRestriction,AlwaysPullImages\"",
        );
    }
    const DISABLED: &str = "disable-admission-plugins";
    if list(DISABLED).is_some_and(|plugins| plugins.contains(&NODE_RESTRICTION)) {
        s.error(
            DISABLED,
            "turns off NodeRestriction, which keeps a kubelet to its own Node and pods",
            "leave NodeRestriction out of it",
        );
    }
}

/// The kubelet's probes and the other machines ask for the API server at its machine's own address.
fn refuse_one_address(s: &Section<'_, '_>, arguments: &BTreeMap<String, String>) {
    const BIND: &str = "bind-address";
    let everywhere = |text: &String| text.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    if arguments.get(BIND).is_some_and(|text| !everywhere(text)) {
        s.error(
            BIND,
            "is not every address of a control plane, and no two of them have one in common",
            "leave it out; each API server listens on all addresses and tells its machine's own",
        );
    }
}

/// client-go ends a component at such times (its tools/leaderelection.NewLeaderElector), when nobody looks any more.
fn refuse_lost_leases(s: &Section<'_, '_>, arguments: &BTreeMap<String, String>) {
    const REMEDY: &str = "set all three, as in leader-elect-lease-duration = \"60s\", leader-elect-renew-deadline = \"40s\" and leader-elect-retry-period = \"5s\"";
    let mut all_read = true;
    let mut seconds = |flag: &str, default: f64| {
        let Some(text) = arguments.get(flag) else { return default };
        let Some(seconds) = go_seconds(text).filter(|seconds| *seconds > 0.0) else {
            all_read = false;
            s.error(
                flag,
                "is not a time as Go writes it",
                "write a number and its unit, as in \"15s\" or \"1m30s\"",
            );
            return default;
        };
        seconds
    };
    let (lease, renewal, retry) = (seconds(LEASE, 15.0), seconds(RENEWAL, 10.0), seconds(RETRY, 2.0));
    if !all_read {
        return;
    }
    let given = |flags: [&'static str; 2]| flags.into_iter().find(|flag| arguments.contains_key(*flag));
    if lease <= renewal
        && let Some(flag) = given([RENEWAL, LEASE])
    {
        s.error(
            flag,
            format!("leader-elect-lease-duration ({lease} s) must be longer than leader-elect-renew-deadline ({renewal} s)"),
            REMEDY,
        );
    }
    // Its JitterFactor.
    if renewal <= 1.2 * retry
        && let Some(flag) = given([RETRY, RENEWAL])
    {
        s.error(
            flag,
            format!("leader-elect-renew-deadline ({renewal} s) must be longer than 1.2 times leader-elect-retry-period ({retry} s)"),
            REMEDY,
        );
    }
}

const LEASE: &str = "leader-elect-lease-duration";
const RENEWAL: &str = "leader-elect-renew-deadline";
const RETRY: &str = "leader-elect-retry-period";

/// A time that is not negative, as Go's time.ParseDuration reads it.
fn go_seconds(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest == "0" {
        return Some(seconds);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        // The longer names first: `m` begins `ms`.
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        seconds += number * factor;
    }
    Some(seconds)
}

const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

const PARTS: &str = "node-cidr-mask-size-ipv4";
/// kube-controller-manager's default for IPv4.
pub const NODE_MASK: u8 = 24;

/// How large a part of the pods' network each node gets, if that is said.
pub fn node_mask(arguments: &BTreeMap<String, String>) -> Option<u8> {
    arguments.get(PARTS)?.parse().ok().filter(|mask| (1..=32).contains(mask))
}

fn refuse_strange_parts(s: &Section<'_, '_>, arguments: &BTreeMap<String, String>) {
    if arguments.contains_key(PARTS) && node_mask(arguments).is_none() {
        s.error(
            PARTS,
            "is not the length of an IPv4 network's prefix",
            "write a whole number up to 32, as in \"25\"",
        );
    }
}

/// etcd would end at such values (embed/config.go), when nobody looks any more. Its defaults are not the same on control
/// planes and on machines of its own, so both are said or neither.
fn refuse_short_elections(s: &Section<'_, '_>, arguments: &BTreeMap<String, String>) {
    const HEARTBEAT: &str = "heartbeat-interval";
    const ELECTION: &str = "election-timeout";
    const REMEDY: &str = "set both, as whole milliseconds up to 50000, the election timeout to ten times the heartbeat interval";
    let milliseconds = |key: &str| {
        let value = arguments.get(key)?.parse::<u64>().ok().filter(|ms| (1..=50_000).contains(ms));
        if value.is_none() {
            s.error(key, "is not a number of milliseconds that etcd takes", REMEDY);
        }
        value
    };
    match (milliseconds(HEARTBEAT), milliseconds(ELECTION)) {
        (Some(heartbeat), Some(election)) if election < heartbeat * 5 => {
            s.error(ELECTION, "is less than five times the heartbeat interval, which etcd refuses", REMEDY);
        }
        (Some(_), None) if !s.has(ELECTION) => {
            s.error(HEARTBEAT, "is set without election-timeout, which goes by it", REMEDY);
        }
        (None, Some(_)) if !s.has(HEARTBEAT) => {
            s.error(ELECTION, "is set without heartbeat-interval, by which it goes", REMEDY);
        }
        _ => {}
    }
}

const QUOTES: &str = "write a text between quotes, as in \"30\" or \"false\"";

fn read(s: &mut Section<'_, '_>, refused: fn(&str) -> Option<Refusal>) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for key in s.keys() {
        let value: Option<String> = s.optional(&key, QUOTES);
        if let Some((message, remedy)) = not_a_flag(&key).or_else(|| refused(&key)) {
            s.error(&key, message, remedy);
            continue;
        }
        let Some(value) = value else { continue };
        if !seed::takes_line(&value) {
            s.error(
                &key,
                "has a line break or another control character",
                "write the flag's value on one line",
            );
        }
        arguments.insert(key, value);
    }
    arguments
}

fn not_a_flag(name: &str) -> Option<Refusal> {
    if name.starts_with('-') {
        return Some((
            "is written without the dashes in front",
            "write the flag's name alone, as in audit-log-maxage = \"30\"",
        ));
    }
    (!is_flag(name)).then_some((
        "is not the name of a flag",
        "write it as the component's own --help does, without the dashes, as in audit-log-maxage",
    ))
}

fn refused_by_api_server(name: &str) -> Option<Refusal> {
    match name {
        "service-cluster-ip-range" => Some(SERVICES),
        "anonymous-auth" => Some((
            "kubelets, proxies and joining nodes ask the API server without a login whether it is ready",
            "leave it out; RBAC says what somebody without a login may see, which is next to nothing",
        )),
        _ => KUBEADMS.contains(&name).then_some(FOUND_BY),
    }
}

const SERVICES: Refusal =
    ("is the network of the Services' addresses", "set `services` instead, at the top of the file");
const FOUND_BY: Refusal = (
    "kubeadm gives this flag the value by which the cluster's parts find and trust one another",
    "leave it out",
);
const LEADER: Refusal = (
    "of several control planes only one may do this work at a time",
    "leave it out; leader-elect-lease-duration and the like say how long the others wait",
);

fn refused_by_controller_manager(name: &str) -> Option<Refusal> {
    match name {
        "leader-elect" => Some(LEADER),
        "service-cluster-ip-range" => Some(SERVICES),
        "cluster-cidr" => {
            Some(("is the network of the pods' addresses", "set `pods` instead, at the top of the file"))
        }
        "node-cidr-mask-size" => Some((
            "is not looked at by kubeadm, which compares the pods' network with node-cidr-mask-size-ipv4",
            "set node-cidr-mask-size-ipv4 instead",
        )),
        "node-cidr-mask-size-ipv6" => Some((
            "is for pods with IPv6 addresses, and kube-controller-manager ends at it here",
            "leave it out",
        )),
        // cluster-signing-duration is for all signers, these are one signer's.
        _ if name.starts_with("cluster-signing-") && name.ends_with("-file") => Some((
            "cannot stand beside kubeadm's own cluster-signing-cert-file and cluster-signing-key-file",
            "leave it out; the cluster's CA signs for all of them",
        )),
        _ => CONTROLLER_MANAGERS.contains(&name).then_some(FOUND_BY),
    }
}

fn refused_by_scheduler(name: &str) -> Option<Refusal> {
    match name {
        "leader-elect" => Some(LEADER),
        "config" => Some((
            "names a file that the scheduler's container does not see",
            "leave it out; what a flag can say stands here by that flag's name",
        )),
        _ => SCHEDULERS.contains(&name).then_some(FOUND_BY),
    }
}

fn refused_by_etcd(name: &str) -> Option<Refusal> {
    const REMEDY: &str = "leave it out";
    match name {
        "wal-dir" => Some((
            "puts etcd's log outside of /var/lib/etcd, where it outlives no container and nobody looks for it",
            REMEDY,
        )),
        "force-new-cluster" => {
            Some(("makes each member a cluster of its own, at each of its starts", REMEDY))
        }
        "enable-grpc-gateway" => Some(("is how Kindling asks etcd's members what they know", REMEDY)),
        _ if name == "discovery" || name.starts_with("discovery-") => {
            Some(("has etcd look for its members elsewhere than in the cluster file", REMEDY))
        }
        _ => MEMBERS
            .contains(&name)
            .then_some(("has the value by which etcd's members find and trust one another", REMEDY)),
    }
}

fn is_flag(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
