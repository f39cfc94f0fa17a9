//! What is known to stop a component of a version: flags and feature gates that it does not have yet, or no more.
//!
//! A component ends at a flag or a gate that it does not know, and kubeadm then waits in vain for its pod.

use std::collections::BTreeMap;
use std::fmt;

use super::NEWEST_MINOR;
use super::types::KubernetesVersion;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    ApiServer,
    ControllerManager,
    Scheduler,
    /// The one that kubeadm of this version starts.
    Etcd,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Etcd => "etcd",
        })
    }
}

/// Something against one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    pub flag: String,
    pub message: String,
    pub remedy: String,
    /// The component would not run; otherwise it is not known whether it does.
    pub stops: bool,
}

const ALL: &[Component] = &[Component::ApiServer, Component::ControllerManager, Component::Scheduler];
const API: &[Component] = &[Component::ApiServer];
const MANAGER: &[Component] = &[Component::ControllerManager];

/// Flags that came after 1.32, and the minor version that brought them.
const NEW: &[(&[Component], &str, u32)] = &[
    (API, "emulation-forward-compatible", 33),
    (API, "runtime-config-emulation-forward-compatible", 33),
    (API, "coordinated-leadership-lease-duration", 34),
    (API, "coordinated-leadership-renew-deadline", 34),
    (API, "coordinated-leadership-retry-period", 34),
    (ALL, "min-compatibility-version", 35),
    (MANAGER, "concurrent-device-taint-eviction-syncs", 35),
    (ALL, "tls-curve-preferences", 36),
    (MANAGER, "concurrent-node-status-updates", 36),
    (MANAGER, "concurrent-resourceclaim-syncs", 36),
    (MANAGER, "concurrent-disruption-syncs", 37),
];

/// Flags that went away after 1.32, the minor version that has them no more, and what to do instead.
const GONE: &[(&[Component], &str, u32, &str)] = &[
    (API, "cloud-provider", 33, "leave it out: clouds have controller managers of their own"),
    (API, "cloud-config", 33, "leave it out: clouds have controller managers of their own"),
];

/// Flags of etcd that came with 3.6, most of them for the same name with `experimental-`
/// (<https://etcd.io/docs/v3.6/upgrades/upgrade_3_6/>).
const ETCD_3_6: &[&str] = &[
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
const ETCD_GONE_3_6: &[&str] = &[
    "enable-v2",
    "experimental-enable-v2v3",
    "proxy",
    "proxy-dial-timeout",
    "proxy-failure-wait",
    "proxy-read-timeout",
    "proxy-refresh-interval",
    "proxy-write-timeout",
];

/// Those that became feature gates.
const ETCD_GATES: &[(&str, &str)] = &[
    ("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    ("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    ("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    ("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    ("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    ("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
];

/// The minor version of the etcd 3 that kubeadm starts (its constants.DefaultEtcdVersion).
pub fn etcd_minor(kubernetes: KubernetesVersion) -> u32 {
    match kubernetes.minor {
        ..34 => 5,
        34..37 => 6,
        _ => 7,
    }
}

/// What speaks against these flags of a component.
pub fn objections(
    component: Component,
    flags: &BTreeMap<String, String>,
    version: KubernetesVersion,
) -> Vec<Objection> {
    let mut found = Vec::new();
    for (flag, value) in flags {
        let told = match component {
            Component::Etcd => etcd(flag, version).into_iter().map(|(m, r)| (m, r, true)).collect(),
            _ if flag == "feature-gates" => gates(value, version),
            _ => unborn(component, flag, version).into_iter().chain(gone(component, flag, version)).collect(),
        };
        found.extend(told.into_iter().map(|(message, remedy, stops)| Objection {
            flag: flag.clone(),
            message,
            remedy,
            stops,
        }));
    }
    found
}

fn unborn(component: Component, flag: &str, version: KubernetesVersion) -> Vec<(String, String, bool)> {
    NEW.iter()
        .filter(|(components, name, since)| {
            components.contains(&component) && *name == flag && version.minor < *since
        })
        .map(|(_, _, since)| {
            (
                format!("{component} has this flag from v1.{since} on, and ends at it in {version}"),
                "leave it out until the cluster is of that version".to_owned(),
                true,
            )
        })
        .collect()
}

fn gone(component: Component, flag: &str, version: KubernetesVersion) -> Option<(String, String, bool)> {
    let entry = |(components, name, since, _): &&(&[Component], &str, u32, &str)| {
        components.contains(&component) && *name == flag && version.minor >= *since
    };
    let (_, _, since, remedy) = GONE.iter().find(entry)?;
    let message = format!("{component} has this flag no more since v1.{since}, and ends at it in {version}");
    Some((message, (*remedy).to_owned(), true))
}

fn etcd(flag: &str, version: KubernetesVersion) -> Option<(String, String)> {
    let minor = etcd_minor(version);
    let ends = format!("etcd 3.{minor}, which kubeadm {version} starts, does not know this flag and ends");
    if minor < 6 && ETCD_3_6.contains(&flag) {
        let old = format!("experimental-{flag}");
        return Some((
            ends,
            format!("leave it out until the cluster is of v1.34; `{old}` may be its name here"),
        ));
    }
    if minor >= 6 && ETCD_GONE_3_6.contains(&flag) {
        return Some((ends, "leave it out: it belongs to an API that etcd does not have any more".into()));
    }
    if minor < 7 {
        return None;
    }
    if let Some((_, gate)) = ETCD_GATES.iter().find(|(name, _)| *name == flag) {
        return Some((ends, format!("write feature-gates = \"{gate}=true\" instead")));
    }
    if let Some(name) = flag.strip_prefix("experimental-") {
        return Some((ends, format!("etcd has it as `{name}`, if at all")));
    }
    matches!(flag, "discovery" | "discovery-proxy")
        .then(|| (ends, "leave it out: the members are named in this file".into()))
}

/// A gate with the minor versions that have it, and the first that takes nothing but `true`.
fn gate(name: &str) -> Option<(u32, u32, Option<u32>)> {
    let table = include_str!("feature-gates.txt");
    let line = table.lines().find(|line| line.split(' ').next() == Some(name))?;
    let mut minors = line.split(' ').skip(1).map(|word| word.parse().ok());
    Some((minors.next()??, minors.next()??, minors.next().flatten()))
}

fn gates(value: &str, version: KubernetesVersion) -> Vec<(String, String, bool)> {
    let minor = version.minor.min(NEWEST_MINOR);
    let mut found = Vec::new();
    for pair in value.split(',').filter(|pair| !pair.is_empty()) {
        let (name, on) = pair.split_once('=').unwrap_or((pair, ""));
        // kube-apiserver takes `kube:NAME`, too.
        let name = name.trim().trim_start_matches("kube:");
        let on = on.trim().to_lowercase();
        if !matches!(on.as_str(), "true" | "false") {
            found.push((
                format!("`{pair}` is no feature gate with a value"),
                "write NAME=true or NAME=false, with commas between several".to_owned(),
                true,
            ));
            continue;
        }
        if matches!(name, "AllAlpha" | "AllBeta") {
            continue;
        }
        match gate(name) {
            None => found.push((
                format!("`{name}` is no feature gate that this kindling knows; a component ends at one that it does not know"),
                "compare it with https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/".to_owned(),
                false,
            )),
            Some((first, _, _)) if minor < first => found.push((
                format!("the feature gate {name} exists from v1.{first} on, and a component of {version} ends at it"),
                "leave it out until the cluster is of that version".to_owned(),
                true,
            )),
            Some((_, last, _)) if minor > last => found.push((
                format!("the feature gate {name} went away with v1.{}, and a component of {version} ends at it", last + 1),
                "leave it out: what it was for is there in any case, or gone".to_owned(),
                true,
            )),
            Some((_, _, Some(locked))) if minor >= locked && on == "false" => found.push((
                format!("the feature gate {name} is fixed to true from v1.{locked} on, and a component ends at another value"),
                "leave it out".to_owned(),
                true,
            )),
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(component: Component, flag: &str, value: &str, version: &str) -> Vec<(String, bool)> {
        let flags = BTreeMap::from([(flag.to_owned(), value.to_owned())]);
        let version = version.parse().expect("a version");
        let found = objections(component, &flags, version);
        assert!(found.iter().all(|objection| !objection.remedy.is_empty() && objection.flag == flag));
        found.into_iter().map(|objection| (objection.message, objection.stops)).collect()
    }

    #[test]
    fn each_flag_and_gate_goes_by_the_version() {
        use Component::*;
        let gates = "feature-gates";
        for (component, flag, value, stops, runs) in [
            (Etcd, "experimental-initial-corrupt-check", "true", "v1.37.0", "v1.36.3"),
            (Etcd, "experimental-memory-mlock", "true", "v1.37.2", "v1.34.0"),
            (Etcd, "enable-v2", "true", "v1.34.0", "v1.33.5"),
            (Etcd, "watch-progress-notify-interval", "5s", "v1.33.0", "v1.34.0"),
            (Etcd, "discovery-proxy", "http://a", "v1.37.2", "v1.36.0"),
            (ApiServer, gates, "SidecarContainers=true", "v1.37.2", "v1.36.3"),
            (ControllerManager, gates, "LogarithmicScaleDown=true", "v1.37.0", "v1.36.9"),
            (Scheduler, gates, "SchedulerQueueingHints=true", "v1.37.0", "v1.36.0"),
            (ApiServer, gates, "kube:PodIndexLabel=true", "v1.35.0", "v1.34.4"),
            (ApiServer, gates, "ExtendWebSocketsToKubelet=false", "v1.35.4", "v1.36.3"),
            (ApiServer, gates, "APIServerTracing=false", "v1.34.0", "v1.33.0"),
            (Scheduler, "tls-curve-preferences", "X25519", "v1.35.4", "v1.36.0"),
            (ApiServer, "cloud-provider", "external", "v1.33.0", "v1.32.9"),
            (ControllerManager, "concurrent-resourceclaim-syncs", "5", "v1.35.4", "v1.36.0"),
        ] {
            let told = said(component, flag, value, stops);
            assert!(told.len() == 1 && told[0].1, "{component} {flag} {value} {stops}: {told:?}");
            assert_eq!(said(component, flag, value, runs), [], "{component} {flag} {value} {runs}");
        }
    }

    #[test]
    fn an_unknown_gate_is_only_warned_of_and_ordinary_flags_are_not_told() {
        let told = said(Component::ApiServer, "feature-gates", "AllBeta=false,NoSuchGate=true", "v1.37.2");
        assert!(told.len() == 1 && !told[0].1 && told[0].0.contains("`NoSuchGate`"), "{told:?}");
        let told = said(Component::ApiServer, "feature-gates", "AllAlpha=true,SidecarContainers", "v1.36.0");
        assert!(
            told.len() == 1 && told[0].1 && told[0].0.contains("no feature gate with a value"),
            "{told:?}"
        );
        for component in
            [Component::ApiServer, Component::ControllerManager, Component::Scheduler, Component::Etcd]
        {
            assert_eq!(said(component, "v", "4", "v1.32.0"), []);
        }
    }

    #[test]
    fn the_table_is_whole() {
        let lines = include_str!("feature-gates.txt").lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let name = line.split(' ').next().expect("a name");
            let (first, last, locked) = gate(name).unwrap_or_else(|| panic!("{line}"));
            assert!((32..=last).contains(&first) && last <= NEWEST_MINOR, "{line}");
            assert!(locked.is_none_or(|minor| (first..=last).contains(&minor)), "{line}");
        }
    }
}
