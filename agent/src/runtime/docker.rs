//! Docker: /etc/docker/daemon.json, containerd below it, and cri-dockerd between it and the kubelet.
//!
//! Docker keeps its images in containerd's store (<https://docs.docker.com/engine/storage/containerd/>), in the namespace
//! that the kubelet's side of containerd uses too, so the images that are baked in are there for both and once.

use std::path::PathBuf;

use serde_json::json;

use super::{LOGINS, RUNC_IN_CONTAINER, containerd, is_docker_hub, logins_file, pretty};
use crate::facts::Facts;
use crate::plan::{Action, FileSpec, Step, step};
use crate::render::WRITTEN_BY;
use crate::role::{Kubernetes, Registry};
use crate::step::service::{Leftover, Service};

/// cri-dockerd's; its unit in the image says the same.
pub const SOCKET: &str = "unix:///run/cri-dockerd.sock";
/// What must not run beside another runtime, what needs the other first.
pub const UNITS: &[&str] = &["cri-docker.service", "docker.service"];

pub fn steps(kubernetes: &Kubernetes, facts: &Facts, pause: &str) -> Vec<Step> {
    let step = |id, title: &str, service| step(id, title, Action::Service(service));
    let below =
        Service::new(containerd::UNIT, vec![FileSpec::public(containerd::CONFIG, containerd_alone())])
            .answering("ctr", &["version"])
            .instead_of(&[super::crio::UNIT]);
    let mut files =
        vec![FileSpec::public("/etc/docker/daemon.json", config(kubernetes, facts.keeps_oom_scores()))];
    for registry in &kubernetes.registries {
        files.extend(certificate(registry).map(|(path, text)| FileSpec::public(path, text)));
    }
    // dockerd keeps no login of its own: the kubelet brings that of the image's registry with each pull.
    files.extend(logins_file(kubernetes));
    let docker = Service::new("docker.service", files)
        .answering("docker", &["version"])
        .without(Leftover::Json(LOGINS));
    let file = FileSpec::public("/etc/kindling/cri-dockerd.env", environment(pause));
    let shim = Service::new("cri-docker.service", vec![file]);
    vec![
        step("containerd", "containerd, for docker alone", below),
        step("docker", "docker with systemd cgroups and the given registries", docker),
        step("cri-dockerd", "cri-dockerd between the kubelet and docker", shim),
    ]
}

pub fn lacking(facts: &Facts) -> Option<(&'static str, &'static str)> {
    if !facts.docker {
        return Some((
            "this image has no docker",
            "write `runtime = \"containerd\"` in cluster.toml, or bake docker into the image",
        ));
    }
    (!facts.cri_dockerd).then_some((
        "this image has no cri-dockerd, which the kubelet needs for docker",
        "write `runtime = \"containerd\"` in cluster.toml, or bake the image with cri-dockerd: `CRI_DOCKERD=` of `make image` names its binary, .deb or release archive (https://github.com/Mirantis/cri-dockerd)",
    ))
}

/// containerd as docker's own package has it: without the kubelet's side.
fn containerd_alone() -> String {
    format!("{WRITTEN_BY}version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
}

/// For the unit of cri-dockerd.
fn environment(pause: &str) -> String {
    format!("{WRITTEN_BY}PAUSE_IMAGE={pause}\n")
}

/// dockerd's options (dockerd(8), "daemon configuration file"). Docker knows mirrors of Docker Hub only, refuses to
/// start with one that has a path, and asks them without a login: a cluster file that says otherwise is refused.
///
/// Docker's own bridge and firewall rules are off: pods have their network from CNI, and Docker's DROP
/// policy for forwarded packets would cut them from the pods of other nodes.
///
/// `keeps_oom_scores` is for system containers that may not lower a process's OOM score.
pub fn config(kubernetes: &Kubernetes, keeps_oom_scores: bool) -> String {
    let mirrors: Vec<&String> = kubernetes
        .registries
        .iter()
        .filter(|registry| is_docker_hub(&registry.host))
        .flat_map(|registry| &registry.mirrors)
        .collect();
    let insecure: Vec<&String> =
        kubernetes.registries.iter().filter(|r| r.insecure).map(|r| &r.host).collect();
    let mut options = json!({
        "exec-opts": ["native.cgroupdriver=systemd"],
        "features": { "containerd-snapshotter": true },
        "containerd-namespace": "k8s.io",
        "log-driver": "json-file",
        "log-opts": { "max-size": "10m", "max-file": "5" },
        "bridge": "none",
        "iptables": false,
        "ip-masq": false,
    });
    if keeps_oom_scores {
        options["runtimes"] = json!({ "kindling": { "path": RUNC_IN_CONTAINER } });
        options["default-runtime"] = json!("kindling");
    }
    if !mirrors.is_empty() {
        options["registry-mirrors"] = json!(mirrors);
    }
    if !insecure.is_empty() {
        options["insecure-registries"] = json!(insecure);
    }
    pretty(&options)
}

/// The CA of a private registry or a mirror, where Docker looks for it by the host that it asks.
pub fn certificate(registry: &Registry) -> Option<(PathBuf, String)> {
    let ca = registry.ca.clone()?;
    Some((PathBuf::from("/etc/docker/certs.d").join(&registry.host).join("ca.crt"), ca))
}
