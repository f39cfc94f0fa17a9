//! /etc/default/etcd: the environment that the image's etcd.service reads
//! (<https://etcd.io/docs/v3.7/op-guide/configuration/>).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use super::WRITTEN_BY;
use crate::role::NodeSpec;
use crate::role::components::started_with;
use crate::role::etcd_version::EtcdVersion;
use crate::role::types::DnsName;

pub const ETCD_FILE: &str = "/etc/default/etcd";
/// 2750 and of the group etcd, whose only user etcd runs as: a key written into it with mode 0640 is
/// readable by etcd and root, without a moment in which it is not.
pub const ETCD_PKI: &str = "/etc/etcd/pki";
pub const ETCD_DATA: &str = "/var/lib/etcd";
pub const ETCD_CLIENT_PORT: u16 = 2379;
pub const ETCD_PEER_PORT: u16 = 2380;

/// What etcd does where it finds no data; where it finds data, it goes by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// All members start together.
    New,
    /// Members that run already know this one.
    Existing,
}

/// `members` are all of the cluster: where it exists already, exactly those that it says it has. `own` are the operator's
/// flags; each is the variable of its name (<https://etcd.io/docs/v3.5/op-guide/configuration/>).
pub fn etcd(
    spec: &NodeSpec,
    members: &BTreeMap<DnsName, Ipv4Addr>,
    version: EtcdVersion,
    own: &BTreeMap<String, String>,
    state: ClusterState,
) -> String {
    let corrupt_check = started_with("feature-gates", own);
    let notify = started_with("watch-progress-notify-interval", own);
    let own: BTreeMap<String, String> =
        own.iter().map(|(flag, value)| (flag.to_uppercase().replace('-', "_"), quoted(value))).collect();
    let address = spec.address();
    let initial: Vec<String> = members.iter().map(|(name, ip)| format!("{name}={}", peer_url(*ip))).collect();
    let mut text = String::from(WRITTEN_BY);
    let mut group = |comment: &str, variables: &[(&str, String)]| {
        text.push('\n');
        if !comment.is_empty() {
            let _ = writeln!(text, "# {comment}");
        }
        for (name, value) in variables.iter().filter(|(name, _)| !own.contains_key(*name)) {
            let _ = writeln!(text, "ETCD_{name}=\"{value}\"");
        }
    };
    let pki = |file: &str| format!("{ETCD_PKI}/{file}");
    group(
        "",
        &[
            ("NAME", spec.name.to_string()),
            ("DATA_DIR", ETCD_DATA.to_owned()),
            ("LISTEN_PEER_URLS", peer_url(address)),
            ("LISTEN_CLIENT_URLS", format!("https://127.0.0.1:{ETCD_CLIENT_PORT},{}", client_url(address))),
            ("LISTEN_METRICS_URLS", "http://127.0.0.1:2381".to_owned()),
            ("INITIAL_ADVERTISE_PEER_URLS", peer_url(address)),
            ("ADVERTISE_CLIENT_URLS", client_url(address)),
        ],
    );
    let state = match state {
        ClusterState::New => "new",
        ClusterState::Existing => "existing",
    };
    group(
        "Read only where there is no data.",
        &[
            ("INITIAL_CLUSTER", initial.join(",")),
            ("INITIAL_CLUSTER_TOKEN", spec.cluster.to_string()),
            ("INITIAL_CLUSTER_STATE", state.to_owned()),
        ],
    );
    group(
        "Whoever has no certificate of etcd's own CA gets no answer. Files are read at every handshake.",
        &[
            ("TRUSTED_CA_FILE", pki("ca.crt")),
            ("CERT_FILE", pki("server.crt")),
            ("KEY_FILE", pki("server.key")),
            ("CLIENT_CERT_AUTH", "true".to_owned()),
            ("PEER_TRUSTED_CA_FILE", pki("ca.crt")),
            ("PEER_CERT_FILE", pki("peer.crt")),
            ("PEER_KEY_FILE", pki("peer.key")),
            ("PEER_CLIENT_CERT_AUTH", "true".to_owned()),
        ],
    );
    group(
        "Twice etcd's defaults: a virtual machine that is paused for a second, as a live migration does, costs no\n\
         # election. PRE_VOTE: a member that comes back does not unseat a leader that works.",
        &[
            ("HEARTBEAT_INTERVAL", "200".to_owned()),
            ("ELECTION_TIMEOUT", "2000".to_owned()),
            ("PRE_VOTE", "true".to_owned()),
        ],
    );
    group(
        "8 GiB, the most that etcd recommends: at its default of 2 GiB a large cluster stops taking writes. The API\n\
         # servers compact every five minutes; etcd's own compaction would only take history from their watches.",
        &[("QUOTA_BACKEND_BYTES", (8_u64 << 30).to_string()), ("AUTO_COMPACTION_RETENTION", "0".to_owned())],
    );
    let (check, progress) = if version.has_feature_gates() {
        (("FEATURE_GATES", "InitialCorruptCheck=true"), "WATCH_PROGRESS_NOTIFY_INTERVAL")
    } else {
        (("EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true"), "EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL")
    };
    let mut as_kubeadm = vec![("SNAPSHOT_COUNT", "10000".to_owned())];
    // etcd 3.6 ends where one of these stands beside its experimental name.
    as_kubeadm.extend(corrupt_check.then(|| (check.0, check.1.to_owned())));
    as_kubeadm.extend(notify.then(|| (progress, "5s".to_owned())));
    as_kubeadm.push(("LOGGER", "zap".to_owned()));
    group("As kubeadm starts etcd.", &as_kubeadm);
    if !own.is_empty() {
        text.push_str("\n# etcd_args of the cluster file, and what an emulated machine needs.\n");
    }
    for (name, value) in &own {
        let _ = writeln!(text, "ETCD_{name}=\"{value}\"");
    }
    text
}

/// Within double quotes of an environment file (systemd.exec(5), `EnvironmentFile=`).
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`")
}

/// Also the form in which etcd's list of members has it.
pub fn peer_url(ip: Ipv4Addr) -> String {
    format!("https://{ip}:{ETCD_PEER_PORT}")
}

pub fn client_url(ip: Ipv4Addr) -> String {
    format!("https://{ip}:{ETCD_CLIENT_PORT}")
}
