//! Flags of etcd, by the etcd that kubeadm of a version starts.

use std::collections::BTreeMap;

use super::{NEWEST_MINOR, Told, gates, known, names};
use crate::role::types::KubernetesVersion;
use crate::suggest::hint;

/// Flags of etcd that came with 3.6, most of them for the same name with `experimental-`
/// (<https://etcd.io/docs/v3.6/upgrades/upgrade_3_6/>).
const NEW_3_6: &[&str] = &[
    "bootstrap-defrag-threshold-megabytes",
    "compact-hash-check-time",
    "compaction-batch-limit",
    "compaction-sleep-interval",
    "corrupt-check-time",
    "distributed-tracing-address",
    "distributed-tracing-instance-id",
    "distributed-tracing-sampling-rate",
    "distributed-tracing-service-name",
    "downgrade-check-time",
    "enable-distributed-tracing",
    "feature-gates",
    "memory-mlock",
    "peer-skip-client-san-verification",
    "snapshot-catchup-entries",
    "warning-apply-duration",
    "watch-progress-notify-interval",
];

/// Flags of the version 2 API, which 3.6 has no more.
const GONE_3_6: &[&str] = &[
    "enable-v2",
    "experimental-enable-v2v3",
    "proxy",
    "proxy-dial-timeout",
    "proxy-failure-wait",
    "proxy-read-timeout",
    "proxy-refresh-interval",
    "proxy-write-timeout",
];

/// Flags that became feature gates (`ExperimentalFlagToFeatureMap` of etcd 3.6's server/features).
const GATES: &[(&str, &str)] = &[
    ("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    ("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    ("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    ("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
];

/// What kubeadm gives an etcd from 3.6 on (kubeadm's cmd/kubeadm/app/phases/etcd/local.go). The operator's own value of
/// such a flag takes its place.
const KUBEADMS: &[(&str, &str)] =
    &[("feature-gates", "InitialCorruptCheck=true"), ("watch-progress-notify-interval", "5s")];

/// The minor version of the etcd 3 that kubeadm starts (its constants.DefaultEtcdVersion).
pub fn etcd_minor(kubernetes: KubernetesVersion) -> u32 {
    match kubernetes.minor {
        ..34 => 5,
        34..37 => 6,
        _ => 7,
    }
}

pub fn told(flag: &str, flags: &BTreeMap<String, String>, version: KubernetesVersion) -> Vec<Told> {
    let minor = etcd_minor(version);
    if let Some(told) = not_known(flag, minor, version) {
        return vec![told];
    }
    if flag == "feature-gates" {
        return gates::of_etcd(&flags[flag], version);
    }
    if minor == 6 { beside_its_twin(flag, flags).into_iter().collect() } else { Vec::new() }
}

fn not_known(flag: &str, minor: u32, version: KubernetesVersion) -> Option<Told> {
    let ends = format!("etcd 3.{minor}, which kubeadm {version} starts, does not know this flag and ends");
    let stops = |remedy: String| Some((ends, remedy, true));
    if minor < 6 && NEW_3_6.contains(&flag) {
        let twin = format!("experimental-{flag}");
        let hint = if known("etcd", &twin).is_some() {
            format!("; `{twin}` is its name here")
        } else {
            String::new()
        };
        return stops(format!("leave it out until the cluster is of v1.34{hint}"));
    }
    if GONE_3_6.contains(&flag) {
        return if minor < 6 {
            None
        } else {
            stops("leave it out: it belongs to an API that etcd does not have any more".into())
        };
    }
    let table = minor.max(6);
    if known("etcd", flag).is_some_and(|(first, last)| (first..=last).contains(&table)) {
        return None;
    }
    if let Some((_, gate)) = GATES.iter().find(|(name, _)| *name == flag) {
        return stops(format!("write feature-gates = \"{gate}=true\" instead"));
    }
    if let Some(name) = flag.strip_prefix("experimental-").filter(|name| known("etcd", name).is_some()) {
        return stops(format!("etcd has it as `{name}`"));
    }
    if matches!(flag, "discovery" | "discovery-proxy") {
        return stops("leave it out: the members are named in this file".into());
    }
    Some((
        format!(
            "etcd 3.{minor}, which kubeadm {version} starts, has no such flag, and ends at one that it does not know"
        ),
        format!("{}compare it with `etcd --help`", hint(flag, names("etcd", table))),
        // No table has etcd 3.5's flags, nor those of an etcd that is not there yet.
        minor >= 6 && version.minor <= NEWEST_MINOR,
    ))
}

/// etcd 3.6 still has the experimental flags, and ends where one stands beside what took its place
/// (`experimentalFlagMigrationMap` and `SetFeatureGatesFromExperimentalFlags` of its server/embed/config.go).
fn beside_its_twin(flag: &str, flags: &BTreeMap<String, String>) -> Option<Told> {
    let (twin, gate) = twin(flag)?;
    let own = flags.get(twin).map(String::as_str);
    let kubeadms = KUBEADMS.iter().find(|(name, _)| *name == twin).map(|(_, value)| *value);
    // etcd looks for the gate's name in the value as it stands.
    let clashes = |value: &&str| gate.is_none_or(|gate| value.contains(gate));
    if let Some(value) = own {
        let with = if gate.is_some() { format!("{twin} = \"{value}\"") } else { twin.to_owned() };
        return clashes(&value).then(|| {
            (format!("etcd 3.6 ends at this flag beside {with}"), "leave this one out".to_owned(), true)
        });
    }
    kubeadms.filter(clashes).map(|value| {
        let wanted = flags.get(flag).map_or("", String::as_str);
        let wanted = gate.map_or_else(|| wanted.to_owned(), |gate| format!("{gate}={wanted}"));
        (
            format!("kubeadm starts etcd with --{twin}={value}, and etcd 3.6 ends at this flag beside it"),
            format!("write {twin} = \"{wanted}\" instead"),
            true,
        )
    })
}

/// The flag of etcd 3.6 that took an experimental one's place, and the gate in it.
fn twin(flag: &str) -> Option<(&str, Option<&'static str>)> {
    if let Some((_, gate)) = GATES.iter().find(|(name, _)| *name == flag) {
        return Some(("feature-gates", Some(gate)));
    }
    flag.strip_prefix("experimental-").map(|name| (name, None))
}

/// Whether a flag that kubeadm gives etcd from 3.6 on must stay away, as the operator's own flags say the same by its
/// experimental name.
pub fn started_with(kubeadms: &str, own: &BTreeMap<String, String>) -> bool {
    !own.keys().any(|flag| match twin(flag) {
        Some((name, gate)) => name == kubeadms && gate.is_none_or(|gate| gate == "InitialCorruptCheck"),
        None => false,
    })
}
