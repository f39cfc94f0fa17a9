//! Feature gates, of the control plane and of etcd.

use super::{KNOWN_HERE, NEWEST_MINOR, OLDEST_KNOWN, Told, etcd_minor, is_known_whole, known, names};
use crate::role::types::KubernetesVersion;
use crate::suggest::{choose, hint};

const TABLE: &str = include_str!("../feature-gates.txt");

/// A gate with the minor versions that have it, and the first that takes nothing but `true`.
pub fn gate(name: &str) -> Option<(u32, u32, Option<u32>)> {
    let line = TABLE.lines().find(|line| line.split(' ').next() == Some(name))?;
    let mut minors = line.split(' ').skip(1).map(|word| word.parse().ok());
    Some((minors.next()??, minors.next()??, minors.next().flatten()))
}

fn gates_of(minor: u32) -> impl Iterator<Item = &'static str> {
    let names = TABLE.lines().filter_map(|line| line.split(' ').next());
    names.filter(move |name| gate(name).is_some_and(|(first, last, _)| (first..=last).contains(&minor)))
}

/// Each gate of a flag's value with what it is set to. Every component has the two that stand for many.
fn each(value: &str, told: &mut Vec<Told>, mut check: impl FnMut(&str, bool) -> Option<Told>) {
    for pair in value.split(',').filter(|pair| !pair.is_empty()) {
        let (name, on) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, on) = (name.trim(), on.trim().to_lowercase());
        if !matches!(on.as_str(), "true" | "false") {
            told.push((
                format!("`{pair}` is no feature gate with a value"),
                "write NAME=true or NAME=false, with commas between several".to_owned(),
                true,
            ));
        } else if !matches!(name, "AllAlpha" | "AllBeta") {
            told.extend(check(name, on == "true"));
        }
    }
}

pub fn of_kubernetes(value: &str, version: KubernetesVersion) -> Vec<Told> {
    let minor = version.minor.min(NEWEST_MINOR);
    let mut told = Vec::new();
    each(value, &mut told, |name, on| {
        // kube-apiserver takes `kube:NAME`, too.
        let name = name.trim_start_matches("kube:");
        match gate(name) {
            None => Some((
                format!(
                    "`{name}` is no feature gate {}, and a component ends at one that it does not know",
                    if is_known_whole(version) { format!("of {version}") } else { KNOWN_HERE.to_owned() }
                ),
                format!(
                    "{}compare it with https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates/",
                    hint(name, gates_of(minor.max(OLDEST_KNOWN)))
                ),
                is_known_whole(version),
            )),
            Some((first, _, _)) if minor < first => Some((
                format!(
                    "the feature gate {name} exists from v1.{first} on, and a component of {version} ends at it"
                ),
                "leave it out until the cluster is of that version".to_owned(),
                true,
            )),
            Some((_, last, _)) if minor > last => Some((
                format!(
                    "the feature gate {name} went away with v1.{}, and a component of {version} ends at it",
                    last + 1
                ),
                "leave it out: what it was for is there in any case, or gone".to_owned(),
                true,
            )),
            Some((_, _, Some(locked))) if minor >= locked && !on => Some((
                format!(
                    "the feature gate {name} is fixed to true from v1.{locked} on, and a component ends at another value"
                ),
                "leave it out".to_owned(),
                true,
            )),
            Some(_) => None,
        }
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
