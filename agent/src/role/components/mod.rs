//! What is known to stop a component of a version: flags and feature gates that it does not have yet, or no more.
//!
//! A component ends at a flag or a gate that it does not know, and kubeadm then waits in vain for its pod.

mod etcd;
mod gates;
mod known;

use std::collections::BTreeMap;
use std::fmt;

use super::types::KubernetesVersion;
use super::{NEWEST_MINOR, OLDEST_KUBERNETES};
use crate::suggest::hint;

pub use etcd::{etcd_minor, started_with};
pub use gates::gates_of;
pub use known::{known, names};

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

/// The first minor version whose flags are all in `flags.txt`.
const OLDEST_KNOWN: u32 = 34;

const ALL: &[Component] = &[Component::ApiServer, Component::ControllerManager, Component::Scheduler];
const API: &[Component] = &[Component::ApiServer];
const MANAGER: &[Component] = &[Component::ControllerManager];

/// Flags that came with 1.33 and 1.34; `flags.txt` has the later ones.
const NEW: &[(&[Component], &str, u32)] = &[
    (API, "emulation-forward-compatible", 33),
    (API, "runtime-config-emulation-forward-compatible", 33),
    (API, "coordinated-leadership-lease-duration", 34),
    (API, "coordinated-leadership-renew-deadline", 34),
    (API, "coordinated-leadership-retry-period", 34),
];

const CLOUDS: &str = "leave it out: clouds have controller managers of their own";
const TLS_ALONE: &str = "leave it out: there is no port without TLS any more";
const EVICTION: &str = "set default-not-ready-toleration-seconds and default-unreachable-toleration-seconds in [api_server_args]";
const LOGS: &str = "leave it out: the log goes to standard error, where `crictl logs` has it";

/// Flags that went away, the first supported minor version that does not have them, and what to do instead.
const GONE: &[(&[Component], &str, u32, &str)] = &[
    (API, "cloud-provider", 33, CLOUDS),
    (API, "cloud-config", 33, CLOUDS),
    (API, "insecure-bind-address", 32, TLS_ALONE),
    (API, "insecure-port", 32, TLS_ALONE),
    (MANAGER, "enable-taint-manager", 32, EVICTION),
    (MANAGER, "pod-eviction-timeout", 32, EVICTION),
    (ALL, "address", 32, TLS_ALONE),
    (ALL, "port", 32, TLS_ALONE),
    (ALL, "alsologtostderr", 32, LOGS),
    (ALL, "log-dir", 32, LOGS),
    (ALL, "log-file", 32, LOGS),
    (ALL, "logtostderr", 32, LOGS),
];

/// Admission plugins that went away before 1.32, and what to do instead.
const PLUGINS_GONE: &[(&str, &str)] = &[
    (
        "PodSecurityPolicy",
        "leave it out: PodSecurity, which is on by itself, does its work by labels of namespaces",
    ),
    (
        "SecurityContextDeny",
        "leave it out: PodSecurity, which is on by itself, does its work by labels of namespaces",
    ),
];

/// Said of what may be there in a version whose tables are not whole.
const KNOWN_HERE: &str = "that this kindling knows";

/// A message, a remedy, and whether the component would not run.
type Told = (String, String, bool);

/// What speaks against these flags of a component.
pub fn objections(
    component: Component,
    flags: &BTreeMap<String, String>,
    version: KubernetesVersion,
) -> Vec<Objection> {
    let mut found = Vec::new();
    for (flag, value) in flags {
        let told = if let Some(told) = of_no_use(component, flag) {
            vec![told]
        } else {
            match (component, flag.as_str()) {
                (Component::Etcd, _) => etcd::told(flag, flags, version),
                (_, "feature-gates") => gates::of_kubernetes(component, value, version),
                (Component::ApiServer, "enable-admission-plugins" | "disable-admission-plugins") => {
                    plugins(value, version)
                }
                _ => of_flag(component, flag, version).into_iter().collect(),
            }
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

/// Flags that are there, and by which a component does not do its work.
fn of_no_use(component: Component, flag: &str) -> Option<Told> {
    let (message, remedy) = match (component, flag) {
        (_, "help" | "version") | (Component::Scheduler, "write-config-to") => {
            (format!("{component} tells something at this flag and ends"), "leave it out")
        }
        (Component::ApiServer, "admission-control") => (
            format!("{component} ends at this flag beside enable-admission-plugins, which kubeadm gives it"),
            "write the plugins into enable-admission-plugins",
        ),
        (Component::Etcd, "config-file") => (
            "an etcd that reads a file takes no other flag, nor those by which the members find one another"
                .to_owned(),
            "write what is in the file as flags",
        ),
        _ => return None,
    };
    Some((message, remedy.to_owned(), true))
}

fn of_flag(component: Component, flag: &str, version: KubernetesVersion) -> Option<Told> {
    let mut new = NEW.iter().filter(|(of, name, _)| of.contains(&component) && *name == flag);
    if let Some((_, _, since)) = new.find(|(_, _, since)| version.minor < *since) {
        return Some(not_yet(component, *since, version));
    }
    let mut gone = GONE.iter().filter(|(of, name, ..)| of.contains(&component) && *name == flag);
    if let Some((_, _, since, remedy)) = gone.next() {
        return (version.minor >= *since).then(|| no_more(component, *since, version, remedy));
    }
    let kind = component.to_string();
    match known(&kind, flag) {
        Some((first, _)) if version.minor < first && first > OLDEST_KNOWN => {
            Some(not_yet(component, first, version))
        }
        Some((_, last)) if version.minor.min(NEWEST_MINOR) > last => {
            Some(no_more(component, last + 1, version, "leave it out"))
        }
        Some(_) => None,
        None => {
            let hint = hint(flag, names(&kind, version.minor.clamp(OLDEST_KNOWN, NEWEST_MINOR)));
            let remedy = format!("{hint}compare it with `{component} --help`");
            let whole = is_known_whole(version);
            let message = if whole {
                format!("{component} of {version} has no such flag, and ends at one that it does not know")
            } else {
                format!("{component} has no such flag {KNOWN_HERE}, and ends at one that it does not know")
            };
            Some((message, remedy, whole))
        }
    }
}

fn not_yet(component: Component, since: u32, version: KubernetesVersion) -> Told {
    (
        format!("{component} has this flag from v1.{since} on, and ends at it in {version}"),
        "leave it out until the cluster is of that version".to_owned(),
        true,
    )
}

fn no_more(component: Component, since: u32, version: KubernetesVersion, remedy: &str) -> Told {
    let when = if since > OLDEST_KUBERNETES.minor { format!(" since v1.{since}") } else { String::new() };
    (format!("{component} has this flag no more{when}, and ends at it in {version}"), remedy.to_owned(), true)
}

/// The newest patch of each minor version whose sources the tables were read from.
const READ: &[(u32, u32)] = &[(32, 9), (33, 9), (34, 4), (35, 4), (36, 3), (37, 2)];

/// Whether the tables have seen this patch: a later one may have brought a gate back from the next minor version.
fn is_read(version: KubernetesVersion) -> bool {
    READ.iter().any(|(minor, patch)| *minor == version.minor && version.patch <= *patch)
}

/// All flags, plugins and gates of this version are in the tables, so that another one stops a component.
fn is_known_whole(version: KubernetesVersion) -> bool {
    version.minor >= OLDEST_KNOWN && is_read(version)
}

fn plugins(value: &str, version: KubernetesVersion) -> Vec<Told> {
    const KIND: &str = "admission-plugin";
    let minor = version.minor.clamp(OLDEST_KNOWN, NEWEST_MINOR);
    let ends = |name: &str| {
        let of = if is_known_whole(version) { format!("of {version}") } else { KNOWN_HERE.to_owned() };
        format!("`{name}` is no admission plugin {of}, and kube-apiserver ends at one that it does not know")
    };
    let mut found = Vec::new();
    for name in value.split(',').filter(|name| !name.is_empty()) {
        if name != name.trim() {
            found.push((
                format!("kube-apiserver takes the space of `{name}` for a part of the name, and ends"),
                "write the plugins with commas alone between them".to_owned(),
                true,
            ));
            continue;
        }
        if let Some((_, remedy)) = PLUGINS_GONE.iter().find(|(gone, _)| *gone == name) {
            found.push((ends(name), (*remedy).to_owned(), true));
            continue;
        }
        let has = known(KIND, name).is_some_and(|(first, last)| (first..=last).contains(&minor));
        if !has {
            let remedy = format!("{}compare it with `kube-apiserver --help`", hint(name, names(KIND, minor)));
            found.push((ends(name), remedy, is_known_whole(version)));
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

    /// The one objection that there is, by which the component does not run.
    fn refusal(component: Component, flag: &str, value: &str, version: &str) -> String {
        let told = said(component, flag, value, version);
        match &told[..] {
            [(message, true)] => message.clone(),
            _ => panic!("{component} {flag} {value} {version}: {told:?}"),
        }
    }

    #[test]
    fn each_flag_and_gate_goes_by_the_version() {
        use Component::*;
        let gates = "feature-gates";
        for (component, flag, value, stops, runs) in [
            (Etcd, "experimental-initial-corrupt-check", "true", "v1.36.3", "v1.33.0"),
            (Etcd, "experimental-compact-hash-check-enabled", "true", "v1.37.0", "v1.36.3"),
            (Etcd, "experimental-watch-progress-notify-interval", "10s", "v1.34.0", "v1.32.0"),
            (Etcd, gates, "FastLeaseKeepAlive=false", "v1.36.3", "v1.37.0"),
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
            (ApiServer, gates, "GitRepoVolumeDriver=true", "v1.36.3", "v1.35.4"),
            (ApiServer, gates, "SystemdWatchdog=0", "v1.35.4", "v1.34.4"),
            (Scheduler, "tls-curve-preferences", "X25519", "v1.35.4", "v1.36.0"),
            (ApiServer, "cloud-provider", "external", "v1.33.0", "v1.32.9"),
            (ControllerManager, "concurrent-resourceclaim-syncs", "5", "v1.35.4", "v1.36.0"),
            (ApiServer, "min-compatibility-version", "1.36", "v1.34.4", "v1.35.4"),
            (
                ApiServer,
                "enable-admission-plugins",
                "NodeRestriction,PodGroupWorkloadExists",
                "v1.37.2",
                "v1.36.3",
            ),
        ] {
            refusal(component, flag, value, stops);
            assert_eq!(said(component, flag, value, runs), [], "{component} {flag} {value} {runs}");
        }
    }

    #[test]
    fn what_no_component_knows_is_refused_where_the_tables_are_whole_and_warned_of_elsewhere() {
        use Component::*;
        for (component, flag, value, word) in [
            (ApiServer, "feature-gates", "AllBeta=false,NoSuchGate=true", "`NoSuchGate`"),
            (ControllerManager, "feature-gates", "TTLAfterFinished=true", "`TTLAfterFinished`"),
            (Scheduler, "feature-gates", "EphemeralContainers=true", "`EphemeralContainers`"),
            (ApiServer, "audit-log-maxagee", "30", "no such flag"),
            (ControllerManager, "audit-log-maxage", "30", "no such flag"),
            (ApiServer, "enable-admission-plugins", "NodeRestrictions", "`NodeRestrictions`"),
            (Etcd, "snapshot-counts", "1000", "no such flag"),
        ] {
            for (version, stops) in [
                ("v1.32.0", false),
                ("v1.33.9", false),
                ("v1.34.0", true),
                ("v1.35.4", true),
                ("v1.37.2", true),
                ("v1.38.0", false),
            ] {
                let told = said(component, flag, value, version);
                assert!(
                    told.len() == 1 && told[0].0.contains(word),
                    "{component} {flag} {version}: {told:?}"
                );
                assert_eq!(told[0].1, stops, "{component} {flag} {version}: {told:?}");
            }
        }
        // etcd 3.5 has no gates at all.
        for (version, word) in
            [("v1.33.0", "does not know this flag"), ("v1.36.3", "`Bogus`"), ("v1.37.2", "`Bogus`")]
        {
            let told = refusal(Etcd, "feature-gates", "Bogus=true", version);
            assert!(told.contains(word), "{version}: {told}");
        }
        let told = refusal(ApiServer, "feature-gates", "AllAlpha=true,SidecarContainers", "v1.36.0");
        assert!(told.contains("no feature gate with a value"), "{told}");
    }

    #[test]
    fn what_a_component_takes_and_does_not_work_with_is_refused() {
        use Component::*;
        for (component, flag, value, word) in [
            (ApiServer, "version", "true", "ends"),
            (Scheduler, "write-config-to", "/tmp/a", "ends"),
            (ApiServer, "admission-control", "NodeRestriction", "beside enable-admission-plugins"),
            (
                ApiServer,
                "enable-admission-plugins",
                "NodeRestriction, AlwaysPullImages",
                "the space of ` AlwaysPullImages`",
            ),
            (Scheduler, "feature-gates", "ControllerManagerReleaseLeaderElectionLockOnExit=true", "alone"),
            (Scheduler, "feature-gates", "SchedulerAsyncAPICalls=tRuE", "no feature gate with a value"),
            (Etcd, "config-file", "/etc/etcd.yaml", "no other flag"),
        ] {
            let told = refusal(component, flag, value, "v1.37.2");
            assert!(told.contains(word), "{component} {flag}: {told}");
        }
    }

    #[test]
    fn a_patch_that_the_tables_have_not_seen_may_have_more() {
        use Component::*;
        for (flag, value, version) in [
            ("feature-gates", "NoSuchGate=true", "v1.37.3"),
            ("feature-gates", "ExtendWebSocketsToKubelet=false", "v1.35.5"),
            ("no-such-flag", "1", "v1.36.4"),
        ] {
            let told = said(ApiServer, flag, value, version);
            assert!(told.len() == 1 && !told[0].1, "{flag} {value} {version}: {told:?}");
        }
        // Two minor versions before no patch has it.
        refusal(ApiServer, "feature-gates", "ReloadKubeletClientCAFile=true", "v1.34.9");
    }

    #[test]
    fn ordinary_flags_are_not_told() {
        use Component::*;
        for version in ["v1.32.0", "v1.33.9", "v1.34.0", "v1.35.4", "v1.36.3", "v1.37.2", "v1.38.0"] {
            for (component, flag, value) in [
                (ApiServer, "v", "4"),
                (ControllerManager, "v", "4"),
                (Scheduler, "v", "4"),
                (Etcd, "v", "4"),
                (ApiServer, "enable-admission-plugins", "NodeRestriction,AlwaysPullImages"),
                // Hidden by --help, and known all the same.
                (ApiServer, "apiserver-count", "3"),
                (ControllerManager, "feature-gates", "AllAlpha=false"),
                (ControllerManager, "feature-gates", "SystemdWatchdog=1"),
            ] {
                assert_eq!(said(component, flag, value, version), [], "{component} {flag} {version}");
            }
        }
    }

    #[test]
    fn what_went_before_the_oldest_version_is_refused_at_each_with_what_to_do() {
        use Component::*;
        for (component, flag, value) in [
            (ControllerManager, "pod-eviction-timeout", "30s"),
            (ApiServer, "insecure-port", "8080"),
            (ApiServer, "enable-admission-plugins", "NodeRestriction,PodSecurityPolicy"),
        ] {
            for version in ["v1.32.0", "v1.34.4", "v1.37.2", "v1.38.0"] {
                refusal(component, flag, value, version);
            }
        }
    }

    /// etcd 3.6 takes a flag or its experimental twin, and kubeadm gives it two of them.
    #[test]
    fn etcd_3_6_takes_no_experimental_flag_beside_its_twin() {
        let told = |flags: &[(&str, &str)]| -> Vec<String> {
            let flags = flags.iter().map(|(flag, value)| ((*flag).to_owned(), (*value).to_owned())).collect();
            let found = objections(Component::Etcd, &flags, "v1.36.3".parse().expect("a version"));
            assert!(found.iter().all(|objection| objection.stops));
            found
                .into_iter()
                .map(|objection| format!("{}: {}", objection.message, objection.remedy))
                .collect()
        };
        assert_eq!(
            told(&[("experimental-initial-corrupt-check", "false")]),
            [
                "kubeadm starts etcd with --feature-gates=InitialCorruptCheck=true, and etcd 3.6 ends at this flag beside it: \
              write feature-gates = \"InitialCorruptCheck=false\" instead"
            ]
        );
        assert_eq!(
            told(&[("experimental-watch-progress-notify-interval", "10s")]),
            [
                "kubeadm starts etcd with --watch-progress-notify-interval=5s, and etcd 3.6 ends at this flag beside it: \
              write watch-progress-notify-interval = \"10s\" instead"
            ]
        );
        assert_eq!(
            told(&[("experimental-memory-mlock", "true"), ("memory-mlock", "true")]),
            ["etcd 3.6 ends at this flag beside memory-mlock: leave this one out"]
        );
        assert_eq!(
            told(&[
                ("experimental-enable-lease-checkpoint", "true"),
                ("feature-gates", "LeaseCheckpoint=true")
            ]),
            [
                "etcd 3.6 ends at this flag beside feature-gates = \"LeaseCheckpoint=true\": leave this one out"
            ]
        );
        // The operator's own feature-gates take the place of kubeadm's.
        let own =
            [("experimental-initial-corrupt-check", "true"), ("feature-gates", "SetMemberLocalAddr=true")];
        assert_eq!(told(&own), [""; 0]);
        assert_eq!(told(&[("experimental-memory-mlock", "true")]), [""; 0]);
    }

    #[test]
    fn the_tables_are_whole() {
        for (kind, oldest, newest) in [
            ("kube-apiserver", OLDEST_KNOWN, NEWEST_MINOR),
            ("kube-controller-manager", OLDEST_KNOWN, NEWEST_MINOR),
            ("kube-scheduler", OLDEST_KNOWN, NEWEST_MINOR),
            ("admission-plugin", OLDEST_KNOWN, NEWEST_MINOR),
            ("etcd", 6, 7),
            ("etcd-gate", 6, 7),
        ] {
            let mut count = 0;
            for name in (oldest..=newest).flat_map(|minor| names(kind, minor)) {
                let (first, last) = known(kind, name).expect("its range");
                assert!(oldest <= first && first <= last && last <= newest, "{kind} {name}");
                count += 1;
            }
            assert!(count > 10, "{kind}: only {count}");
        }
        for (components, flag, since, _) in GONE {
            for component in *components {
                let known = known(&component.to_string(), flag);
                assert!(known.is_none_or(|(_, last)| last < *since), "{component} has {flag}");
            }
        }
    }

    #[test]
    fn the_table_of_gates_is_whole() {
        let lines = include_str!("../feature-gates.txt").lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let name = line.split(' ').next().expect("a name");
            let gate = gates::gate(name).unwrap_or_else(|| panic!("{line}"));
            assert!((32..=gate.last).contains(&gate.first) && gate.last <= NEWEST_MINOR, "{line}");
            assert!(gate.locked.is_none_or(|(minor, _)| (gate.first..=gate.last).contains(&minor)), "{line}");
            assert_eq!(gate.locked.is_none(), line.ends_with(" -"), "{line}");
        }
    }
}
