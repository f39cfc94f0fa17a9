//! What spans several registries of a cluster file, or a registry and the runtime: nothing that is written there may be
//! without effect on the machines.

use std::collections::BTreeSet;

use super::check::error;
use super::read::{At, Draft};
use crate::input::Findings;
use crate::role::Registry;
use crate::role::types::RuntimeName;
use crate::runtime::{host_of, path_of};

/// Where Docker Hub answers, and what its old names were; images of it are of docker.io.
const HUBS: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

pub fn registries(draft: &Draft, findings: &Findings) {
    let all = &draft.registries;
    let mut hosts = BTreeSet::new();
    for registry in all {
        let host = &registry.value.host;
        if HUBS.contains(&host.as_str()) {
            error(
                findings,
                registry,
                format!("{host} is in no image's name: nothing here would have an effect"),
                "write host = \"docker.io\", as images of Docker Hub are named",
            );
        }
        if !hosts.insert(host) {
            error(
                findings,
                registry,
                format!("{host} stands here a second time"),
                "write all that concerns a registry into one [[registries]]",
            );
        }
        let mut mirrors = BTreeSet::new();
        // What has an @ is refused already, and not repeated: there is a password in it.
        let told = registry.value.mirrors.iter().filter(|mirror| !mirror.contains('@'));
        for mirror in told.map(|mirror| mirror.trim_end_matches('/')) {
            if !mirrors.insert(mirror) {
                error(
                    findings,
                    registry,
                    format!(
                        "its mirror {mirror} stands there a second time, and runtimes read no mirror of it then"
                    ),
                    "name each mirror once; https://HOST:443 is https://HOST",
                );
            }
        }
        trust_of_mirrors(registry, all, findings);
    }
    if draft.runtime.as_ref().is_some_and(|runtime| runtime.value == RuntimeName::Docker) {
        all.iter().for_each(|registry| mirrors_of_docker(registry, all, findings));
        pulls_of_kubeadm(draft, findings);
    }
}

fn entry_of<'a>(host: &str, all: &'a [At<Registry>]) -> Option<&'a At<Registry>> {
    all.iter().find(|registry| registry.value.host == host)
}

/// Somebody may take a registry's `ca` for that of its mirrors.
fn trust_of_mirrors(registry: &At<Registry>, all: &[At<Registry>], findings: &Findings) {
    let Registry { host, ca, insecure, .. } = &registry.value;
    let key = match (ca, insecure) {
        (Some(_), _) => "ca",
        (None, true) => "insecure",
        (None, false) => return,
    };
    let verified = registry.value.mirrors.iter().filter(|mirror| mirror.starts_with("https://"));
    for mirror in verified.map(|mirror| host_of(mirror)).filter(|mirror| entry_of(mirror, all).is_none()) {
        findings.warning(
            &registry.key,
            registry.span.clone(),
            format!(
                "`{key}` is of {host} alone: its mirror {mirror} is verified by the CAs that the image trusts"
            ),
            format!("if that is not enough, add [[registries]] host = \"{mirror}\" with its own `{key}`"),
        );
    }
}

/// Docker has no file of mirrors for each registry, as the others have.
fn mirrors_of_docker(registry: &At<Registry>, all: &[At<Registry>], findings: &Findings) {
    const REMEDY: &str = "or choose runtime = \"containerd\"";
    let host = &registry.value.host;
    if host != "docker.io" && !registry.value.mirrors.is_empty() {
        return error(
            findings,
            registry,
            format!("Docker knows mirrors for docker.io only, not for {host}"),
            format!("leave this registry's `mirrors` out, {REMEDY}"),
        );
    }
    for mirror in &registry.value.mirrors {
        if !path_of(mirror).is_empty() {
            error(
                findings,
                registry,
                format!("Docker takes no mirror with a path, as {mirror} is"),
                format!("name a mirror that is a host alone, {REMEDY}"),
            );
        }
        if let Some(own) = entry_of(host_of(mirror), all).filter(|own| own.value.username.is_some()) {
            error(
                findings,
                own,
                format!("Docker asks {mirror}, a mirror of docker.io, without a login"),
                format!("take out `username` here, or the mirror there, {REMEDY}"),
            );
        }
    }
}

/// kubeadm's pulls bring no login, and Docker keeps none of its own. Images that were baked in are not pulled.
fn pulls_of_kubeadm(draft: &Draft, findings: &Findings) {
    let Some(repository) = &draft.image_repository else { return };
    let host = host_of(repository);
    if let Some(own) = entry_of(host, &draft.registries).filter(|own| own.value.username.is_some()) {
        findings.warning(
            &own.key,
            own.span.clone(),
            format!("with Docker, kubeadm pulls the images of image_repository = \"{repository}\" without this login"),
            "bake them into the image under these names, or choose runtime = \"containerd\"",
        );
    }
}
