//! What runs on the nodes: versions of Kubernetes that go together, and images that are what they say.

use std::collections::BTreeMap;

use super::NodeRow;
use super::judge::{Judge, items, name, text};

fn minor(version: &str) -> Option<i64> {
    version.trim_start_matches('v').split('.').nth(1)?.parse().ok()
}

impl Judge<'_> {
    /// <https://kubernetes.io/releases/version-skew-policy/>
    pub(super) fn versions(&mut self) {
        let server = text(&self.answers.version["gitVersion"]);
        let Some(api) = minor(&server) else { return };
        const OLDER: i64 = 3;
        for node in items(&self.answers.nodes) {
            let kubelet = text(&node["status"]["nodeInfo"]["kubeletVersion"]);
            let Some(own) = minor(&kubelet) else { continue };
            if own > api || own < api - OLDER {
                let why = if own > api { "newer than" } else { "too old for" };
                self.find(
                    name(node),
                    format!("its kubelet {kubelet} is {why} the API server {server}"),
                    if own > api {
                        "upgrade the control planes first".to_owned()
                    } else {
                        format!("boot it with an image of 1.{} to 1.{api}", api - OLDER)
                    },
                );
            }
        }
        let images =
            items(&self.answers.pods).filter(|p| p["metadata"]["labels"]["component"] == "kube-apiserver");
        let images = images.filter_map(|p| {
            p["spec"]["containers"][0]["image"].as_str()?.rsplit_once(':').map(|(_, tag)| tag.to_owned())
        });
        let mut minors: Vec<i64> = images.filter_map(|tag| minor(&tag)).collect();
        minors.sort_unstable();
        if let (Some(low), Some(high)) = (minors.first(), minors.last())
            && high - low > 1
        {
            self.find(
                "API servers",
                format!("1.{low} beside 1.{high}: they may differ by one minor version"),
                "upgrade the older ones",
            );
        }
        let config = self
            .answers
            .kubeadm
            .as_ref()
            .map(|c| text(&c["data"]["ClusterConfiguration"]))
            .unwrap_or_default();
        let noted = config.lines().find_map(|l| l.strip_prefix("kubernetesVersion: "));
        if let Some(noted) = noted.and_then(minor).filter(|noted| *noted != api) {
            self.find("kubeadm-config", format!("says 1.{noted}, the API server is {server}"), "a control plane that joins would be of the noted version; an upgrade that stopped halfway is ended by `kubeadm upgrade apply` once more on a control plane");
        }
        if self.answers.kubeadm.is_none() {
            self.find("kubeadm-config", "the ConfigMap is missing: no node can join", "`kindling plan --cluster cluster.toml --node NAME` for the first control plane shows its /etc/kindling/kubeadm.yaml, which no node keeps: on a control plane, `kubeadm init phase upload-config kubeadm --config FILE` with that");
        }
    }

    /// Nodes of one version have one root. Different versions are how a cluster is updated, one node after the other.
    pub(super) fn images(&mut self, nodes: &[NodeRow]) {
        let mut versions: BTreeMap<&str, Vec<&NodeRow>> = BTreeMap::new();
        for node in nodes {
            if let Some(version) = &node.image {
                versions.entry(version).or_default().push(node);
            }
        }
        for (version, nodes) in &versions {
            let mut roots: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for node in nodes {
                roots.entry(node.root_hash.as_deref().unwrap_or("no hash")).or_default().push(&node.name);
            }
            if roots.len() > 1 {
                let roots = roots.iter().map(|(root, names)| format!("{} {root}", names.join(", ")));
                self.find(
                    &format!("image {version}"),
                    format!("not one and the same root: {}", roots.collect::<Vec<_>>().join("; ")),
                    "compare with kindling.roothash, which the bake wrote beside the disk; boot the machine that differs anew from that disk",
                );
            }
        }
        if versions.len() > 1 {
            let list = versions.iter().map(|(version, nodes)| {
                let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
                format!("{version} on {}", names.join(", "))
            });
            self.notes.push(format!("{} images: {}", versions.len(), list.collect::<Vec<_>>().join("; ")));
        }
    }
}
