//! Feature gates, of the control plane and of etcd.

use super::{
    Component, KNOWN_HERE, NEWEST_MINOR, OLDEST_KNOWN, Told, etcd_minor, is_known_whole, is_read, known,
    names,
};
use crate::role::types::KubernetesVersion;
use crate::suggest::{choose, hint};

const TABLE: &str = include_str!("../feature-gates.txt");

/// A gate of the table.
pub struct Gate {
    /// The first and the last minor version that has it.
    pub first: u32,
    pub last: u32,
    /// The first minor version that takes one value only, and that value.
    pub locked: Option<(u32, bool)>,
}

/// Gates that one component alone has.
const OF_ONE: &[(&str, Component)] =
    &[("ControllerManagerReleaseLeaderElectionLockOnExit", Component::ControllerManager)];

pub fn gate(name: &str) -> Option<Gate> {
    let line = TABLE.lines().find(|line| line.split(' ').next() == Some(name))?;
    let mut words = line.split(' ').skip(1);
    let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let locked = words.next().and_then(|word| word.split_once('='));
    Some(Gate { first, last, locked: locked.and_then(|(at, on)| Some((at.parse().ok()?, on.parse().ok()?))) })
}

/// The gates that a minor version has.
pub fn gates_of(minor: u32) -> impl Iterator<Item = &'static str> {
    let names = TABLE.lines().filter_map(|line| line.split(' ').next());
    names.filter(move |name| gate(name).is_some_and(|gate| (gate.first..=gate.last).contains(&minor)))
}

/// A value as the components read it (Go's strconv.ParseBool).
fn switched(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Each gate of a flag's value with what it is set to. Every component has the two that stand for many.
fn each(value: &str, told: &mut Vec<Told>, mut check: impl FnMut(&str, bool) -> Option<Told>) {
    for pair in value.split(',').filter(|pair| !pair.is_empty()) {
        let (name, on) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.trim();
        match switched(on.trim()) {
            None => told.push((
                format!("`{pair}` is no feature gate with a value"),
                "write NAME=true or NAME=false, with commas between several".to_owned(),
                true,
            )),
            Some(on) if !matches!(name, "AllAlpha" | "AllBeta") => told.extend(check(name, on)),
            Some(_) => {}
        }
    }
}

pub fn of_kubernetes(component: Component, value: &str, version: KubernetesVersion) -> Vec<Told> {
    let minor = version.minor.min(NEWEST_MINOR);
    let mut told = Vec::new();
    each(value, &mut told, |name, on| {
        // kube-apiserver takes `kube:NAME`, too.
        let name = name.trim_start_matches("kube:");
        let Some(gate) = gate(name) else {
            return Some((
                format!(
                    "`{name}` is no feature gate {}, and a component ends at one that it does not know",
                    if is_known_whole(version) { format!("of {version}") } else { KNOWN_HERE.to_owned() }
                ),
                format!(
                    "{}compare it with https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/",
                    hint(name, gates_of(minor.max(OLDEST_KNOWN)))
                ),
                is_known_whole(version),
            ));
        };
        if let Some((_, owner)) = OF_ONE.iter().find(|(of_one, owner)| *of_one == name && *owner != component)
        {
            return Some((
                format!("the feature gate {name} is {owner}'s alone, and {component} ends at it"),
                "leave it out here".to_owned(),
                true,
            ));
        }
        if minor < gate.first {
            // A patch may have brought it to the minor version before.
            let certain = is_read(version) || gate.first > minor + 1;
            let unless = if certain { "" } else { " unless one of its patches brought it" };
            return Some((
                format!(
                    "the feature gate {name} exists from v1.{} on, and a component of {version} ends at it{unless}",
                    gate.first
                ),
                "leave it out until the cluster is of that version".to_owned(),
                certain,
            ));
        }
        if minor > gate.last {
            return Some((
                format!(
                    "the feature gate {name} went away with v1.{}, and a component of {version} ends at it",
                    gate.last + 1
                ),
                "leave it out: what it was for is there in any case, or gone".to_owned(),
                true,
            ));
        }
        let (at, only) = gate.locked.filter(|(at, only)| minor >= *at && on != *only)?;
        Some((
            format!(
                "the feature gate {name} is fixed to {only} from v1.{at} on, and a component ends at another value"
            ),
            "leave it out".to_owned(),
            true,
        ))
    });
    told
}

/// Of the etcd that kubeadm of this version starts, 3.6 or later.
pub fn of_etcd(value: &str, version: KubernetesVersion) -> Vec<Told> {
    const KIND: &str = "etcd-gate";
    let minor = etcd_minor(version);
    let mut told = Vec::new();
    each(value, &mut told, |name, _| {
        let has = known(KIND, name).is_some_and(|(first, last)| (first..=last).contains(&minor));
        (!has).then(|| {
            let all: Vec<&str> = names(KIND, minor).collect();
            (
                format!(
                    "etcd 3.{minor}, which kubeadm {version} starts, has no feature gate `{name}` and ends"
                ),
                choose(name, all),
                version.minor <= NEWEST_MINOR,
            )
        })
    });
    told
}
