//! A node's labels: their form, and whether a kubelet may give itself such a one.

use std::collections::BTreeMap;

use crate::input::Section;
use crate::role::types::{is_label_key, is_label_value};

/// Prefixes and names of Kubernetes' own namespaces that a kubelet may give its Node
/// (k8s.io/kubelet/pkg/apis/well_known_labels.go); it refuses to start with any other of them.
const KUBELET_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const KUBELET_LABELS: [&str; 10] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

fn may_kubelet_set(label: &str) -> bool {
    let Some((prefix, _)) = label.split_once('/') else { return true };
    let within = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    KUBELET_LABELS.contains(&label) || KUBELET_PREFIXES.into_iter().any(within)
}

pub fn read(mut s: Section<'_, '_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for key in s.keys() {
        let value: Option<String> = s.optional(&key, "write a text between quotes");
        if !is_label_key(&key) {
            s.error(
                &key,
                "is not the name of a label",
                "write name or example.org/name, at most 63 letters, digits, `-`, `_`, `.`",
            );
        } else if !may_kubelet_set(&key) {
            s.error(
                &key,
                "a node may not give itself this label: names of kubernetes.io and k8s.io are Kubernetes' own, \
                 and the NodeRestriction admission keeps all but a few from kubelets",
                "use a name of your own (zone, example.org/zone), or set it with kubectl once the cluster is up",
            );
        }
        let Some(value) = value else { continue };
        if !is_label_value(&value) {
            s.error(
                &key,
                format!("`{value}` is not the value of a label"),
                "write at most 63 letters, digits, `-`, `_`, `.`",
            );
        }
        labels.insert(key, value);
    }
    labels
}
