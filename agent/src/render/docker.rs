//! /etc/docker/daemon.json, and what Docker and the kubelet know of registries beside it.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::containerd::{is_docker_hub, path_of};
use crate::role::{Kubernetes, Registry};

/// dockerd's options (dockerd(8), "daemon configuration file"). Docker knows mirrors of Docker Hub only, and
/// refuses to start with one that has a path.
///
/// Docker's own bridge and firewall rules are off: pods have their network from CNI, and Docker's DROP
/// policy for forwarded packets would cut them from the pods of other nodes.
pub fn docker(kubernetes: &Kubernetes) -> String {
    let mirrors: Vec<&String> = kubernetes
        .registries
        .iter()
        .filter(|registry| is_docker_hub(&registry.host))
        .flat_map(|registry| &registry.mirrors)
        .filter(|mirror| path_of(mirror).is_empty())
        .collect();
    let insecure: Vec<&String> =
        kubernetes.registries.iter().filter(|r| r.insecure).map(|r| &r.host).collect();
    let mut options = json!({
        "exec-opts": ["native.cgroupdriver=systemd"],
        "storage-driver": "overlay2",
        "log-driver": "json-file",
        "log-opts": { "max-size": "10m", "max-file": "5" },
        "bridge": "none",
        "iptables": false,
        "ip-masq": false,
    });
    if !mirrors.is_empty() {
        options["registry-mirrors"] = json!(mirrors);
    }
    if !insecure.is_empty() {
        options["insecure-registries"] = json!(insecure);
    }
    pretty(&options)
}

/// The CA of a private registry, where Docker looks for it.
pub fn docker_certificate(registry: &Registry) -> Option<(PathBuf, String)> {
    let ca = registry.ca.clone()?;
    Some((PathBuf::from("/etc/docker/certs.d").join(&registry.host).join("ca.crt"), ca))
}

/// The kubelet's own logins to registries, for /var/lib/kubelet/config.json: they work with every runtime,
/// and dockerd itself has none. Holds passwords. `None` where no registry needs a login.
pub fn registry_logins(kubernetes: &Kubernetes) -> Option<String> {
    let mut logins = serde_json::Map::new();
    for registry in &kubernetes.registries {
        if let (Some(username), Some(password)) = (&registry.username, &registry.password) {
            let auth = STANDARD.encode(format!("{username}:{}", password.expose()));
            // Docker Hub's login goes by its old address.
            let host =
                if is_docker_hub(&registry.host) { "https://index.docker.io/v1/" } else { &registry.host };
            logins.insert(host.to_owned(), json!({ "auth": auth }));
        }
    }
    (!logins.is_empty()).then(|| pretty(&json!({ "auths": logins })))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
